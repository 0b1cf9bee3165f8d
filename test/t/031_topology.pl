# However a pipeline is cut, the result is that of the batch query: one to five
# stages, isolated or not, one to four workers, one to three outputs, isolated or
# not; while several sessions write, processes are killed, stages are deployed,
# numbers of workers changed.  Each customer's rows come out in the order in which
# they were committed, each event is counted once, and the ledger is balanced.
#
# PIPELINE_TOPOLOGY_ROUNDS says how many topologies, PIPELINE_TOPOLOGY_SEED repeats
# those of an earlier run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use List::Util qw(shuffle);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_TOPOLOGY_ROUNDS} // 6;
my $seed = $ENV{PIPELINE_TOPOLOGY_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_TOPOLOGY_SEED=$seed PIPELINE_TOPOLOGY_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
wal_writer_delay = 10s
max_worker_processes = 40
pipeline.batch_rows = 50
pipeline.dead_letter_limit = 0
pipeline.breaker_failures = 1
CONF

# ---- what stages can be made of ------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY, customer int, amount int, trail text);
CREATE SEQUENCE ids;
CREATE TABLE customers (customer int PRIMARY KEY, bonus int);
INSERT INTO customers SELECT c, c % 7 FROM generate_series(0, 80) c;
CREATE TYPE flow AS (id int, customer int, amount int, trail text);
SQL

# Stage k in a second version does the same: the oracle need not know which ran.
# Ids that fail, fail in every row: then all rows of the event are missing.
for my $k (1 .. 5)
{
	my $failing = 50 + $k;

	for my $type ('orders', 'flow')
	{
		for my $version ('', '_again')
		{
			$node->safe_psql('postgres', <<"SQL");
CREATE FUNCTION check_$k$version(r $type) RETURNS text LANGUAGE sql STABLE AS
\$\$ SELECT CASE WHEN r.id % (10 + $k) = $k THEN 'rule $k' END \$\$;
CREATE FUNCTION look_$k$version(r $type) RETURNS SETOF flow LANGUAGE sql STABLE ROWS 1 AS
\$\$ SELECT r.id, r.customer, (r.amount + c.bonus) / CASE WHEN r.id % 101 = $failing THEN 0 ELSE 1 END,
	r.trail || ' look $k' FROM customers c WHERE c.customer = r.customer \$\$;
CREATE FUNCTION make_$k$version(r $type) RETURNS SETOF flow LANGUAGE plpgsql STABLE ROWS 2 AS
\$\$ BEGIN
	RETURN QUERY SELECT r.id, r.customer, r.amount * 2 + g, r.trail || ' make $k.' || g
		FROM generate_series(1, (r.id + $k) % 3) g;
END \$\$;
SQL
		}
	}
}
$node->safe_psql('postgres', <<"SQL") for ('orders', 'flow');
CREATE FUNCTION large(r $_) RETURNS SETOF flow LANGUAGE sql STABLE ROWS 1 AS
\$\$ SELECT r.id, r.customer, r.amount, 'large' WHERE r.amount % 10 > 4 \$\$;
SQL

my $load = $node->basedir . '/load.sql';
append_to_file($load, <<'SQL');
INSERT INTO orders SELECT nextval('ids'), 3 * (random() * 30)::int + :client_id, (random() * 100)::int, ''
	FROM generate_series(1, 1 + (random() * 8)::int);
SQL

# ---- a pipeline and its oracle ------------------------------------------------

sub one_of { return $_[ int rand @_ ] }

# Declares and starts pipeline "p"; returns the outputs with their batch queries, and the stages.
sub declare
{
	my $nstages = 1 + int rand 5;
	my $causal = rand() < 0.6;
	my $workers = sub { return $causal ? one_of(1, 2, 3, 4) : 1 };
	my $first = $workers->();
	my @sql = ("SELECT pipeline.create_pipeline('p', 'orders', workers => $first"
		  . ($causal ? ", consistency => 'causal', partition_by => '{customer}')" : ')'));
	my $type = 'orders';
	my @failing;
	my ($rows, @stages, %outputs);

	$rows = 'SELECT id, customer, amount, trail FROM orders WHERE id % 101 <> ALL (failing)';
	for my $k (1 .. $nstages)
	{
		my $verb = one_of(qw(check look make));
		my %kind = (check => 'validate', look => 'enrich', make => 'transform');
		my $isolate = $k > 1 && rand() < 0.5;
		my $n = $isolate ? $workers->() : 1;

		push @sql, "SELECT pipeline.add_stage('p', 's$k', '$kind{$verb}', '${verb}_$k($type)'"
		  . ($isolate ? ", isolate => true, workers => $n" : '')
		  . ($isolate && $causal ? ", partition_by => '{customer}')" : ')');
		push @stages, { name => "s$k", handler => "${verb}_$k%s($type)", isolate => $isolate };
		push @failing, 50 + $k if $verb eq 'look';
		$rows = $verb eq 'check'
		  ? "SELECT r.* FROM ($rows) r WHERE check_$k(r::flow) IS NULL"
		  : "SELECT f.* FROM ($rows) r, LATERAL ${verb}_$k(r::flow) f";
		$rows =~ s/\br::flow/ROW(r.id, r.customer, r.amount, r.trail)::flow/g;
		$type = 'flow' unless $verb eq 'check';
	}
	for my $j (1 .. 1 + int rand 3)
	{
		my $isolate = rand() < 0.4 ? 'true' : 'false';
		my $large = rand() < 0.4;

		push @sql, "CREATE TABLE out_$j (id int, customer int, amount int, trail text, batch xid8 DEFAULT pg_current_xact_id())",
		  "SELECT pipeline.add_output('p', 'out_$j', isolate => $isolate"
		  . ($large ? ", transform => 'large($type)')" : ')');
		$outputs{"out_$j"} = $large
		  ? "SELECT f.* FROM ($rows) r, LATERAL large(ROW(r.id, r.customer, r.amount, r.trail)::flow) f"
		  : $rows;
	}
	push @sql, "SELECT pipeline.start('p')";
	s/ALL \(failing\)/"ALL (ARRAY[" . join(', ', -1, @failing) . '])'/e for values %outputs;
	note join "\n", @sql;
	$node->safe_psql('postgres', join ";\n", @sql);
	return (\%outputs, \@stages, $causal);
}

sub try_sql
{
	my ($sql) = @_;

	note $sql;
	$node->poll("SELECT ($sql) IS NOT NULL", what => $sql);
	return;
}

my %chaos = (
	'a worker is killed' => sub { $node->kill9_process('pipeline worker') },
	'workers end' => sub { $node->terminate_process('pipeline worker') for 1 .. 3 },
	'capture ends' => sub { $node->terminate_process('pipeline capture') },
	'the server is killed' => sub { $node->kill9_server },
	'stages are deployed' => sub {
		my ($stages) = @_;
		for my $version ('_again', '', '_again')
		{
			my $stage = one_of(@$stages);
			try_sql("SELECT pipeline.deploy_stage('p', '$stage->{name}', handler => '"
				  . sprintf($stage->{handler}, $version) . "')");
		}
	},
	'the number of workers changes' => sub {
		my ($stages, $causal) = @_;
		return unless $causal;
		for my $n (one_of(1, 2, 4), one_of(2, 3))
		{
			my @isolated = grep { $_->{isolate} } @$stages;
			try_sql("SELECT pipeline.alter_pipeline('p', workers => $n)::text");
			try_sql("SELECT pipeline.alter_stage('p', '" . one_of(@isolated)->{name} . "', workers => $n)::text")
			  if @isolated;
		}
	},
	'it is stopped and started' => sub {
		try_sql("SELECT pipeline.stop('p')::text");
		try_sql("SELECT pipeline.start('p')::text");
	});

# ---- rounds --------------------------------------------------------------------

my @order = shuffle(sort keys %chaos);
for my $round (1 .. $rounds)
{
	my $what = $order[ $round % @order ];
	my ($outputs, $stages, $causal) = declare();
	my $name = "round $round, $what";
	my $writers = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 3, '-j', 1, '-t', 80,
			"--random-seed=" . ($seed + $round), '-f', $load, 'postgres' ],
		'>', \my $out, '2>', \my $err);

	$chaos{$what}->($stages, $causal);
	IPC::Run::finish($writers);
	$node->caught_up('p');
	for my $output (sort keys %$outputs)
	{
		$node->same_rows("SELECT id, customer, amount, trail FROM $output", $outputs->{$output},
			"$name: $output is what the batch query gives");
		is($node->value("SELECT count(*) FROM (SELECT min(id) AS first, lag(max(id)) OVER (PARTITION BY customer ORDER BY batch) AS before
			FROM $output GROUP BY customer, batch) b WHERE before > first"), 0,
			"$name: $output has each customer's rows in order, batch by batch");
	}
	$node->ledger_balanced('p', "$name: the ledger is balanced");
	is($node->value("SELECT events FROM pipeline.status WHERE pipeline = 'p'"),
		$node->value('SELECT count(*) FROM orders'), "$name: each event is counted once");
	$node->safe_psql('postgres', join ";\n", "SELECT pipeline.drop_pipeline('p')",
		(map { "DROP TABLE $_" } sort keys %$outputs), 'TRUNCATE orders');
	is($node->value('SELECT count(*) FROM _pipeline.checkpoints') . ' '
		  . $node->value('SELECT count(*) FROM _pipeline.counts') . ' '
		  . $node->value(q{SELECT count(*) FROM pg_class WHERE relnamespace = '_pipeline'::regnamespace AND relkind = 'c' AND relname LIKE 'log%'}),
		'0 0 0', "$name: nothing is left of it");
}

$node->stop;
done_testing();
