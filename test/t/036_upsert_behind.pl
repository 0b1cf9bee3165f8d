# Outputs of mode upsert behind a hand-over equal what the stages make of the rows that
# the source has, whoever hands over and however many take it: several workers before,
# in the later segment, or both; the output beside the slow stage, and isolated behind it.
# Rows come, change, go, come again, and go from one partition to another; a look-up
# finds none to two rows; some are rejected, some refused and run again in the end.
# Workers are killed, and their number changes.
#
# PIPELINE_BEHIND_SEED repeats the choices of an earlier run, as far as the scheduling
# lets it, PIPELINE_BEHIND_ROUNDS says how many rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_BEHIND_ROUNDS} // 5;
my $seed = $ENV{PIPELINE_BEHIND_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_BEHIND_SEED=$seed PIPELINE_BEHIND_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 40
pipeline.batch_rows = 20
pipeline.dead_letter_limit = 0
pipeline.breaker_failures = 1
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, customer int NOT NULL, amount int);
ALTER TABLE src REPLICA IDENTITY FULL;
CREATE TABLE tiers (amount int, tier int);
INSERT INTO tiers SELECT n, g FROM generate_series(0, 90) n, generate_series(1, n % 3) g;
CREATE TYPE tiered AS (customer int, id int, tier int, amount int);
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN s.amount < 0 THEN 'negative' END $$;
CREATE FUNCTION tier(s src) RETURNS SETOF tiered LANGUAGE sql STABLE ROWS 2 AS
$$ SELECT s.customer, s.id, t.tier, s.amount FROM tiers t WHERE t.amount = s.amount $$;
CREATE VIEW expected AS SELECT t.* FROM src s, tier(s) t WHERE s.amount >= 0 AND s.amount <> 77;
CREATE FUNCTION some_amount() RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN r < 0.03 THEN -1 WHEN r < 0.06 THEN 77 ELSE (r * 99)::int END FROM (SELECT random() r OFFSET 0) x $$;
SQL

# before, behind
my @shapes = ([ 1, 4 ], [ 4, 1 ], [ 3, 3 ]);
my @pipelines;
for my $shape (@shapes)
{
	my ($n, $m) = @$shape;
	my $p = "p${n}_$m";

	push @pipelines, $p;
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE beside_$p (LIKE tiered, CONSTRAINT not_77_$p CHECK (amount <> 77), PRIMARY KEY (customer, id, tier));
CREATE TABLE apart_$p (LIKE tiered, PRIMARY KEY (id, tier));
SELECT pipeline.create_pipeline('$p', 'src', '{insert,update,delete}', 'causal', '{customer}', $n),
	pipeline.add_stage('$p', 'valid', 'validate', 'valid(src)'),
	pipeline.add_stage('$p', 'tier', 'enrich', 'tier(src)', isolate => true, workers => $m, partition_by => '{customer}'),
	pipeline.add_output('$p', 'beside_$p'),
	pipeline.add_output('$p', 'apart_$p', isolate => true),
	pipeline.start('$p');
SQL
}

my %script = (
	write => 'INSERT INTO src SELECT (random() * 100)::int, (random() * 20)::int, some_amount() FROM generate_series(1, 5)
		ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, customer = excluded.customer',
	change => 'UPDATE src SET amount = some_amount() WHERE id % 17 = :r % 17',
	delete => 'DELETE FROM src WHERE id % 13 = :r % 13',
	move => 'UPDATE src SET customer = (customer + 1) % 20 WHERE id % 7 = :r % 7',
	rename => 'UPDATE src s SET id = id + 1, customer = customer + 1 WHERE id % 23 = :r % 23 AND NOT EXISTS (SELECT FROM src o WHERE o.id = s.id + 1)',
	rewrite => 'CREATE TEMPORARY TABLE was ON COMMIT DROP AS SELECT * FROM src WHERE id % 7 = :r % 7;
		DELETE FROM src WHERE id % 7 = :r % 7; INSERT INTO src SELECT id, customer + 1, amount FROM was ON CONFLICT DO NOTHING');
my %weight = (write => 40, change => 20, delete => 15, move => 40, rename => 15, rewrite => 10);
my @scripts;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "\\set r random(0, 1000000)\nBEGIN;\n$script{$name};\nCOMMIT;\n");
	push @scripts, "--file=$file\@$weight{$name}";
}

sub check
{
	my ($what) = @_;

	for my $p (@pipelines)
	{
		$node->caught_up($p);
		$node->same_rows("SELECT customer, id, tier, amount FROM beside_$p", 'TABLE expected', "$what: $p: the output beside the stage is right");
		$node->same_rows("TABLE apart_$p", 'TABLE expected', "$what: $p: so is the isolated one");
		$node->ledger_balanced($p, "$what: $p: the ledger is balanced");
		is($node->value("SELECT count(*) FROM _pipeline.kept k JOIN _pipeline.outputs o USING (output_id) WHERE o.name = 'beside_$p'"),
			$node->value("SELECT count(*) FROM beside_$p"), "$what: $p: what is kept is what is there");
	}
	return;
}

my %end = (
	worker => sub { $node->kill9_process('pipeline worker') },
	ended => sub { $node->terminate_process('pipeline worker') for 1 .. 3 },
	numbers => sub {
		for my $p (@pipelines)
		{
			$node->safe_psql('postgres', sprintf("SELECT pipeline.alter_pipeline('$p', workers => %d)", 1 + int rand 4));
			$node->safe_psql('postgres', sprintf("SELECT pipeline.alter_stage('$p', 'tier', workers => %d)", 1 + int rand 4));
		}
	},
	nothing => sub { });
my @ends = ('nothing', 'numbers', 'worker', 'numbers', 'ended');
my $good = 'SELECT t.* FROM src s, tier(s) t WHERE s.amount >= 0';
for my $round (1 .. $rounds)
{
	my $what = $ends[ ($round - 1) % @ends ];
	my $load = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 4, '-j', 1, '-t', 60,
			'--max-tries=100', "--random-seed=" . ($seed + $round), @scripts, 'postgres' ],
		'>', \my $out, '2>', \my $err);

	$end{$what}->();
	IPC::Run::finish($load);
	check("round $round, $what");
}

$node->safe_psql('postgres', "ALTER TABLE beside_$_ DROP CONSTRAINT not_77_$_; SELECT pipeline.redrive('$_')") for @pipelines;
$node->safe_psql('postgres', "CREATE OR REPLACE VIEW expected AS $good");
check('in the end');

$node->stop;
done_testing();
