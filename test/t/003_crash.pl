# Exactly once, whatever is killed: while writers run multi-row transactions,
# savepoints, rollbacks and prepared transactions, synchronous and not, in each
# round something is killed, ended or stopped, from a worker to the postmaster,
# also at the points where it hurts most (failpoints).  In the end the outputs,
# the dead letters, the ledger and the lineage are compared with what the
# source says.
#
# PIPELINE_CRASH_ROUNDS says how many rounds, PIPELINE_CRASH_SEED repeats the
# choices of an earlier run.  The servers of the test run with fsync = off: the
# operating system survives, and what a process wrote survives that process.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use List::Util qw(shuffle);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_CRASH_ROUNDS} // 40;
my $seed = $ENV{PIPELINE_CRASH_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_CRASH_SEED=$seed PIPELINE_CRASH_ROUNDS=$rounds";

# The WAL writer is slow, so that asynchronous commits are lost in a crash;
# batches are small, so that large transactions take several statements.
my $node = PipelineTest->start_new('main', conf => <<'CONF');
wal_writer_delay = 10s
pipeline.batch_rows = 200
max_prepared_transactions = 200
checkpoint_timeout = 30s
CONF
$node->need_failpoints;

# ---- a pipeline and its oracle ----------------------------------------------

# One in a hundred rows is bad: rejected by the validation, without a match,
# refused by a constraint of an output, or an error in a handler.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	customer int, amount int, note text);
CREATE TABLE customers (customer int PRIMARY KEY, tier text NOT NULL);
INSERT INTO customers SELECT n, 'tier ' || n % 3 FROM generate_series(1, 100) n;
CREATE TYPE enriched AS (id bigint, customer int, tier text, amount int, digest text);
CREATE TABLE everything (id bigint PRIMARY KEY, customer int, tier text, amount int, digest text);
CREATE TABLE large (id bigint, tier text, amount int CHECK (amount <> 77));

CREATE FUNCTION check_row(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN s.amount < 0 THEN 'negative' END $$;
CREATE FUNCTION enrich(s src) RETURNS SETOF enriched LANGUAGE sql STABLE AS
$$ SELECT s.id, s.customer, c.tier, s.amount, md5(s.note)
     FROM customers c WHERE c.customer = s.customer $$;
CREATE FUNCTION only_large(e enriched) RETURNS SETOF large LANGUAGE sql STABLE AS
$$ SELECT e.id, e.tier, e.amount + 0 / (e.amount - 88) WHERE e.amount > 50 $$;

SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'check', 'validate', 'check_row(src)');
SELECT pipeline.add_stage('p', 'customer', 'enrich', 'enrich(src)');
SELECT pipeline.add_output('p', 'everything');
SELECT pipeline.add_output('p', 'large', transform => 'only_large(enriched)');
SELECT pipeline.start('p');

CREATE VIEW good AS
SELECT s.id, s.customer, c.tier, s.amount, md5(s.note) AS digest
  FROM src s JOIN customers c USING (customer)
 WHERE s.amount >= 0 AND s.amount NOT IN (77, 88);
CREATE VIEW bad AS
SELECT s.id,
	CASE WHEN s.amount < 0 THEN 'check rejected negative'
		 WHEN c.tier IS NULL THEN 'customer rejected no match'
		 WHEN s.amount = 77 THEN 'failed 23514' ELSE 'failed 22012' END AS why
  FROM src s LEFT JOIN customers c USING (customer)
 WHERE s.amount < 0 OR s.amount IN (77, 88) OR c.tier IS NULL;

-- n rows as the writers write them.
CREATE FUNCTION some_rows(n int) RETURNS TABLE (customer int, amount int, note text)
LANGUAGE sql VOLATILE AS $$
SELECT CASE WHEN r < 0.0025 THEN 101 ELSE 1 + (random() * 99)::int END,
	CASE WHEN r > 0.9975 THEN -1
		 WHEN r > 0.995 THEN 77
		 WHEN r > 0.9925 THEN 88
		 WHEN random() < 0.5 THEN 10 ELSE 60 END,
	CASE WHEN random() < 0.02
		 THEN (SELECT string_agg(md5((r + x)::text), '') FROM generate_series(1, 200) x)
		 ELSE md5(r::text) END
FROM (SELECT random() AS r FROM generate_series(1, n) OFFSET 0) s $$;
SQL

my $fresh = "SELECT customer, amount, note FROM some_rows";

sub check
{
	my ($what) = @_;

	$node->caught_up('p');
	$node->same_rows('TABLE everything', 'TABLE good', "$what: the first output is right");
	$node->same_rows('TABLE large', 'SELECT id, tier, amount FROM good WHERE amount > 50',
		"$what: the second output is right");
	$node->same_rows(
		q{SELECT (event->>'id')::bigint, concat_ws(' ', stage, kind, coalesce(reason, ''))
		    FROM pipeline.dead_letters WHERE kind = 'rejected'},
		q{SELECT * FROM bad WHERE why LIKE '%rejected%'},
		"$what: the rejected are right");
	$node->same_rows(
		q{SELECT (event->>'id')::bigint, concat_ws(' ', kind, sqlstate)
		    FROM pipeline.dead_letters WHERE kind = 'failed'},
		q{SELECT * FROM bad WHERE why LIKE 'failed%'},
		"$what: the failed are right");
	$node->ledger_balanced('p', "$what: the ledger is balanced");
	$node->same_rows(
		'SELECT output, events, produced, rejected + failed AS bad FROM pipeline.ledger($$p$$)',
		q{SELECT o, (SELECT count(*) FROM src),
		         CASE WHEN o = 'everything' THEN (SELECT count(*) FROM good)
		              ELSE (SELECT count(*) FROM good WHERE amount > 50) END,
		         (SELECT count(*) FROM bad)
		    FROM unnest(ARRAY['everything', 'large']) o},
		"$what: the ledger is right");
	$node->same_rows(
		q{SELECT output, (source_key->>'id')::bigint, outcome, (output_key->>'id')::bigint
		    FROM pipeline.lineage WHERE pipeline = 'p'},
		q{SELECT 'everything', id, 'produced', id FROM good
		  UNION ALL
		  SELECT 'large', id, CASE WHEN amount > 50 THEN 'produced' ELSE 'filtered' END, NULL
		    FROM good
		  UNION ALL
		  SELECT o, id, substring(why FROM 'rejected|failed'), NULL
		    FROM bad, unnest(ARRAY['everything', 'large']) o},
		"$what: the lineage has each event once an output");
	return;
}

# ---- writers ----------------------------------------------------------------

my @scripts;
my %script = (
	rows => <<"SQL",
\\set n random(1, 20)
INSERT INTO src (customer, amount, note) $fresh(:n);
SQL
	savepoints => <<"SQL",
\\set n random(1, 20)
\\set undo random(0, 1)
BEGIN;
INSERT INTO src (customer, amount, note) $fresh(:n);
SAVEPOINT a;
INSERT INTO src (customer, amount, note) $fresh(3);
SAVEPOINT b;
INSERT INTO src (customer, amount, note) $fresh(2);
\\if :undo
ROLLBACK TO a;
\\else
ROLLBACK TO b;
\\endif
INSERT INTO src (customer, amount, note) $fresh(2);
COMMIT;
SQL
	rollback => <<"SQL",
BEGIN;
INSERT INTO src (customer, amount, note) $fresh(5);
ROLLBACK;
SQL
	prepared => <<"SQL",
\\set n random(1, 10)
\\set r random(1, 1000000000)
\\set undo random(0, 2)
BEGIN;
INSERT INTO src (customer, amount, note) $fresh(:n);
SAVEPOINT a;
INSERT INTO src (customer, amount, note) $fresh(1);
RELEASE a;
PREPARE TRANSACTION 'g:client_id.:r';
\\if :undo = 0
ROLLBACK PREPARED 'g:client_id.:r';
\\else
COMMIT PREPARED 'g:client_id.:r';
\\endif
SQL
	bulk => <<"SQL");
BEGIN;
INSERT INTO src (customer, amount, note) $fresh(1500);
INSERT INTO src (customer, amount, note) $fresh(20);
COMMIT;
SQL
my %weight = (rows => 40, savepoints => 30, rollback => 10, prepared => 30, bulk => 1);

for my $name (sort keys %script)
{
	for my $sync ('on', 'off')
	{
		my $file = $node->basedir . "/${name}_$sync.sql";
		append_to_file($file, "SET synchronous_commit = $sync;\n$script{$name}");
		push @scripts, "--file=$file\@$weight{$name}";
	}
}

my $writers;

sub source_rows
{
	return $node->value('SELECT coalesce(max(id), 0) FROM src');
}

sub writers_left
{
	return $node->value(
		q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'writer'});
}

# Clients that write until they are stopped or lose the server.
sub have_writers
{
	return if $writers && writers_left() > 1;
	end_writers();
	settle_prepared();
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGAPPNAME} = 'writer';
	my $out = '';

	$writers = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=4', '--time=3600', '--rate=300',
			'--random-seed=' . int(rand(1e9)),
			@scripts, 'postgres'
		],
		'<', '/dev/null', '>&', \$out,
		IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));
	return;
}

sub end_writers
{
	return unless $writers;
	$writers->kill_kill(grace => 0);
	undef $writers;
	$node->poll(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'writer'},
		what => 'the writers to end');
	return;
}

# Prepared transactions whose writer is gone: each is committed or rolled back,
# or stays until later.
sub settle_prepared
{
	my ($all) = @_;
	my @gids = split /\n/, $node->value('SELECT gid FROM pg_prepared_xacts ORDER BY gid');

	for my $gid (@gids)
	{
		my $choice = int rand(3);
		next if $choice == 2 && !$all;
		$node->safe_psql('postgres',
			($choice == 0 ? 'ROLLBACK' : 'COMMIT') . " PREPARED '$gid'");
	}
	return;
}

# ---- kinds of kill ----------------------------------------------------------

sub launcher_pid
{
	return $node->process_pid('pipeline launcher', wait => 1);
}

# After a crash all processes are others.
sub wait_restart
{
	my ($old) = @_;
	return $node->poll(
		"SELECT count(*) > 0 FROM pg_stat_activity
		  WHERE backend_type = 'pipeline launcher' AND pid <> $old",
		what => 'the restart after a crash');
}

sub kill9
{
	my ($type) = @_;
	my $old = launcher_pid();
	my $pid = $node->process_pid($type, wait => 1);

	wait_restart($old) if kill 'KILL', $pid;
	return;
}

sub writer_pid
{
	my $where = q{FROM pg_stat_activity WHERE application_name = 'writer'};

	$node->poll("SELECT count(*) > 0 $where", what => 'a writer');
	return $node->value("SELECT pid $where ORDER BY random() LIMIT 1");
}

sub terminate
{
	my ($pid) = @_;
	$node->value("SELECT pg_terminate_backend($pid, 60000)");
	return;
}

# Order a failure, and wait until it came to pass.
sub fail_at
{
	my ($name, $action) = @_;
	my $type = $name =~ /^capture/ ? 'pipeline capture' : 'pipeline worker';
	my $launcher = launcher_pid();
	my $pid = $node->process_pid($type, wait => 1);
	my $at = $node->value('SELECT clock_timestamp()');

	$node->failpoint_set($name, $action);
	if ($action eq 'crash')
	{
		wait_restart($launcher);
		return;
	}
	$node->poll(
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)
		     OR EXISTS (SELECT FROM pipeline.status WHERE last_error ~ 'failpoint'
		                   AND last_error_at > '$at')",
		what => "$type to fail at $name");
	$node->failpoint_clear($name);
	return;
}

my %kind = (
	'kill -9 of the postmaster' => sub { $node->kill9_server },
	'kill -9 of a writer' => sub {
		my $old = launcher_pid();
		wait_restart($old) if kill 'KILL', writer_pid();
	},
	'end of a writer' => sub { terminate(writer_pid()) },
	'immediate stop' => sub { $node->stop('immediate'); $node->start },
	'fast stop' => sub { $node->stop('fast'); $node->start });
for my $type ('capture', 'worker', 'launcher')
{
	$kind{"kill -9 of $type"} = sub { kill9("pipeline $type") };
	$kind{"end of $type"} = sub {
		terminate($node->process_pid("pipeline $type", wait => 1));
	};
}
for my $name ('capture-after-decode', 'capture-before-confirm', 'worker-before-commit',
	'worker-after-commit')
{
	for my $action ('crash', 'exit', 'error')
	{
		$kind{"$action at $name"} = sub { fail_at($name, $action) };
	}
}

# ---- the rounds -------------------------------------------------------------

my @deck;
for my $round (1 .. $rounds)
{
	@deck = shuffle(sort keys %kind) unless @deck;
	my $what = shift @deck;

	$node->poll('SELECT true', what => 'the server');
	have_writers();
	my $before = source_rows() + 1 + int rand(1000);
	$node->poll("SELECT max(id) >= $before FROM src", what => 'the writers');
	note "round $round: $what";
	$kind{$what}->();
	if ($round % 20 == 0 && $round < $rounds)
	{
		$node->poll('SELECT true', what => 'the server');
		end_writers();
		check("round $round");
	}
}

$node->poll('SELECT true', what => 'the server');
end_writers();
settle_prepared(1);
check("after $rounds rounds");
cmp_ok($node->value('SELECT count(*) FROM src'), '>', 100 * $rounds, 'there was something to do');
$node->poll(
	q{SELECT confirmed_flush_lsn >= (SELECT processed_lsn FROM pipeline.status WHERE pipeline = 'p')
	    FROM pg_replication_slots},
	what => 'the slot to be confirmed');
$node->stop;
done_testing();
