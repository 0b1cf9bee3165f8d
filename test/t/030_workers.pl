# The outputs of a pipeline are the same with 1, 2, 4 and 8 workers, whatever is done
# to the source by several sessions and whatever ends meanwhile: rows come, change,
# go, and go from one partition to another; some are rejected, others fail, and are
# run again in the end.  The order within a value of partition_by is kept, by a test
# that sees swaps where events are shared out without regard to it.  A worker that
# ends again and again stops none of the others, and several that wait do more than
# one does.
#
# PIPELINE_WORKERS_SEED repeats the choices of an earlier run, as far as the
# scheduling lets it, PIPELINE_WORKERS_ROUNDS says how many rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_WORKERS_ROUNDS} // 4;
my $seed = $ENV{PIPELINE_WORKERS_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_WORKERS_SEED=$seed PIPELINE_WORKERS_ROUNDS=$rounds";

my @numbers = (1, 2, 4, 8);

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 40
pipeline.batch_rows = 50
pipeline.dead_letter_limit = 0
pipeline.breaker_failures = 1
CONF

# ---- the same for every number of workers -----------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, customer int NOT NULL, amount int);
ALTER TABLE src REPLICA IDENTITY FULL;
CREATE TABLE tiers (amount int PRIMARY KEY, tier text NOT NULL);
INSERT INTO tiers SELECT n, 'tier ' || n % 3 FROM generate_series(0, 90) n;
CREATE TYPE tiered AS (id int, customer int, amount int, tier text);
CREATE TYPE order_line AS (customer int, id int, part int, tier text, amount int);
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN s.amount < 0 THEN 'negative' END $$;
CREATE FUNCTION tier(s src) RETURNS SETOF tiered LANGUAGE sql STABLE AS
$$ SELECT s.id, s.customer, s.amount, t.tier FROM tiers t WHERE t.amount = s.amount $$;
CREATE FUNCTION parts(t tiered) RETURNS SETOF order_line LANGUAGE sql STABLE ROWS 2 AS
$$ SELECT t.customer, t.id, g, t.tier, t.amount FROM generate_series(1, t.amount % 4) g $$;
CREATE VIEW expected AS
SELECT p.* FROM src s, tier(s) t, parts(t) p WHERE s.amount >= 0 AND s.amount <> 77;

-- 95 to 99 have no tier, 77 is refused, -1 rejected
CREATE FUNCTION some_amount() RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN r < 0.03 THEN -1 WHEN r < 0.06 THEN 77 ELSE (r * 99)::int END FROM (SELECT random() r OFFSET 0) x $$;
SQL

for my $n (@numbers)
{
	$node->safe_psql('postgres', <<"SQL");
CREATE TABLE mirror_$n (id int, customer int, amount int CHECK (amount <> 77), PRIMARY KEY (customer, id));
CREATE TABLE log_$n (id int, customer int, amount int);
CREATE TABLE lines_$n (LIKE order_line, CONSTRAINT not_77_$n CHECK (amount <> 77), PRIMARY KEY (customer, id, part));
SELECT pipeline.create_pipeline('mirror_$n', 'src', '{insert,update,delete}', 'causal', '{customer}', $n),
	pipeline.add_output('mirror_$n', 'mirror_$n'),
	pipeline.create_pipeline('log_$n', 'src', '{insert,update,delete}', 'causal', '{customer}', $n),
	pipeline.add_output('log_$n', 'log_$n', mode => 'append'),
	pipeline.create_pipeline('lines_$n', 'src', '{insert,update,delete}', 'eventual', NULL, $n),
	pipeline.add_stage('lines_$n', 'valid', 'validate', 'valid(src)'),
	pipeline.add_stage('lines_$n', 'tier', 'enrich', 'tier(src)'),
	pipeline.add_output('lines_$n', 'lines_$n', transform => 'parts(tiered)', key => '{customer,id,part}'),
	pipeline.start('mirror_$n'), pipeline.start('log_$n'), pipeline.start('lines_$n');
SQL
}
is($node->value("SELECT string_agg(DISTINCT partition_by::text, ' ') FROM pipeline.pipelines WHERE pipeline LIKE 'lines%'"),
	'{customer,id}', 'the upsert outputs are shared out by what their key has of the source');

my %script = (
	write => 'INSERT INTO src SELECT (random() * 300)::int, (random() * 20)::int, some_amount() FROM generate_series(1, 5)
		ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, customer = excluded.customer',
	change => 'UPDATE src SET amount = some_amount() WHERE id % 17 = (random() * 16)::int',
	delete => 'DELETE FROM src WHERE id % 29 = :r % 29',
	move => 'UPDATE src SET customer = (customer + 1) % 20 WHERE id % 23 = :r % 23',
	rename => 'UPDATE src s SET id = id + 1, customer = customer + 1 WHERE id % 23 = :r % 23 AND NOT EXISTS (SELECT FROM src o WHERE o.id = s.id + 1)',
	rewrite => 'CREATE TEMPORARY TABLE was ON COMMIT DROP AS SELECT * FROM src WHERE id % 7 = :r % 7;
		DELETE FROM src WHERE id % 7 = :r % 7; INSERT INTO src SELECT id, customer + 1, amount FROM was ON CONFLICT DO NOTHING');
my %weight = (write => 50, change => 30, delete => 10, move => 25, rename => 15, rewrite => 5);
my @scripts;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "\\set r random(0, 1000000)\nBEGIN;\n$script{$name};\nCOMMIT;\n");
	push @scripts, "--file=$file\@$weight{$name}";
}

sub load
{
	my ($transactions, @files) = @_;

	return IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 4, '-j', 1, '-t', $transactions,
			'--max-tries=100', "--random-seed=" . int(rand 1000000), @files, 'postgres' ],
		'>', \my $out, '2>', \my $err);
}

sub check
{
	my ($what) = @_;

	for my $n (@numbers)
	{
		$node->caught_up($_) for ("mirror_$n", "log_$n", "lines_$n");
		$node->same_rows("SELECT id, customer, amount FROM mirror_$n", 'SELECT * FROM src WHERE amount <> 77',
			"$what: the mirror of $n workers equals the source");
		$node->same_rows("TABLE lines_$n", 'TABLE expected', "$what: so do the lines");
		$node->same_rows("TABLE log_$n", 'TABLE log_1', "$what: the log of $n workers equals that of one");
		$node->ledger_balanced($_, "$what: the ledger of $_ is balanced") for ("mirror_$n", "log_$n", "lines_$n");
		is($node->value("SELECT count(*) FROM _pipeline.kept k JOIN _pipeline.outputs o USING (output_id) WHERE o.name = 'lines_$n'"),
			$node->value("SELECT count(*) FROM lines_$n"), "$what: what is kept is what is there");
		$node->same_rows(
			"SELECT commit_lsn, seq, reason, event FROM pipeline.dead_letters WHERE pipeline = 'lines_$n' AND kind = 'rejected'",
			"SELECT commit_lsn, seq, reason, event FROM pipeline.dead_letters WHERE pipeline = 'lines_1' AND kind = 'rejected'",
			"$what: $n workers have the rejected events of one");
	}
	return;
}

my %end = (
	ended => sub { $node->terminate_process('pipeline worker') for 1 .. 5 },
	worker => sub { $node->kill9_process('pipeline worker') },
	capture => sub { $node->kill9_process('pipeline capture') },
	nothing => sub { },
	restart => sub { $node->restart });
my @ends = ('nothing', 'ended', 'worker', 'capture', 'restart');
for my $round (1 .. $rounds)
{
	my $what = $ends[ ($round - 1) % @ends ];
	my $load = load(60, @scripts);

	$end{$what}->();
	IPC::Run::finish($load);
	check("round $round, $what");
}

# what failed goes through once that is allowed, unless a later event came
for my $n (@numbers)
{
	$node->safe_psql('postgres', "ALTER TABLE lines_$n DROP CONSTRAINT not_77_$n; ALTER TABLE mirror_$n DROP CONSTRAINT mirror_${n}_amount_check");
	$node->safe_psql('postgres', "SELECT pipeline.redrive('lines_$n'), pipeline.redrive('mirror_$n')");
}
$node->safe_psql('postgres', 'CREATE OR REPLACE VIEW expected AS
SELECT p.* FROM src s, tier(s) t, parts(t) p WHERE s.amount >= 0');
for my $n (@numbers)
{
	$node->caught_up($_) for ("mirror_$n", "lines_$n");
	$node->same_rows("SELECT id, customer, amount FROM mirror_$n", 'TABLE src', "in the end the mirror of $n workers equals the source");
	$node->same_rows("TABLE lines_$n", 'TABLE expected', "so do the lines");
	is($node->value("SELECT count(*) FROM pipeline.dead_letters WHERE pipeline = 'lines_$n' AND state = 'open' AND kind = 'failed'"), 0,
		'no letter of an error is left');
}
$node->safe_psql('postgres', "SELECT pipeline.drop_pipeline(pipeline) FROM pipeline.pipelines");

# ---- order within a key ------------------------------------------------------

# A number a key, counted up by the source's transactions; the output numbers rows
# as they come.  The same without regard to the key must show swaps, or this
# test could not fail.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE counters (k int PRIMARY KEY, n int NOT NULL);
INSERT INTO counters SELECT k, 0 FROM generate_series(1, 10) k;
CREATE TABLE steps (k int, n int);
CREATE TABLE in_order (k int, n int, place bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE in_disorder (k int, n int, place bigint GENERATED ALWAYS AS IDENTITY);
CREATE TYPE step AS (k int, n int);
CREATE FUNCTION plain(s steps) RETURNS SETOF step LANGUAGE sql IMMUTABLE AS 'SELECT s.k, s.n';
SELECT pipeline.create_pipeline('order', 'steps', consistency => 'causal', partition_by => '{k}', workers => 4),
	pipeline.add_output('order', 'in_order', transform => 'plain(steps)'),
	pipeline.create_pipeline('disorder', 'steps', consistency => 'eventual', workers => 4),
	pipeline.add_output('disorder', 'in_disorder', transform => 'plain(steps)'),
	pipeline.start('order'), pipeline.start('disorder');
CREATE FUNCTION swaps(t regclass, OUT swaps bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('SELECT count(*) FROM (SELECT n - lag(n, 1, 0) OVER (PARTITION BY k ORDER BY place) AS step FROM %s) s WHERE step <> 1', t) INTO swaps;
END $$;
SQL
append_to_file($node->basedir . '/step.sql', <<'SQL');
\set k random(1, 10)
BEGIN;
WITH c AS (UPDATE counters SET n = n + 1 WHERE k = :k RETURNING k, n) INSERT INTO steps SELECT k, n FROM c;
COMMIT;
SQL
my $step = '--file=' . $node->basedir . '/step.sql';

my $disorder = 0;
for my $attempt (1 .. 10)
{
	IPC::Run::finish(load(200, $step));
	$node->caught_up($_) for ('order', 'disorder');
	$disorder = $node->value("SELECT swaps('in_disorder')");
	last if $disorder > 0;
}
is($node->value("SELECT swaps('in_order')"), 0, 'with partition_by the order of each key is kept');
cmp_ok($disorder, '>', 0, 'and without it is not, so the test sees swaps');
$node->same_rows('SELECT k, n FROM in_order', 'TABLE steps', 'nothing is lost or doubled');

# ---- one of four ends again and again ---------------------------------------

$node->safe_psql('postgres', "SELECT pipeline.drop_pipeline('disorder')");
my $others = "FROM pipeline.workers WHERE pipeline = 'order' AND partition <> 2";
my $load = load(1500, $step);
$node->poll("SELECT count(*) = 4 FROM pipeline.workers WHERE pipeline = 'order'", 't');
my $pids = $node->value("SELECT string_agg(pid::text, ' ' ORDER BY partition) $others");
my $ended = 0;
my %batches;
for my $time (1 .. 6)
{
	my $before = $node->value("SELECT string_agg(batches::text, ' ' ORDER BY partition) $others");

	$ended += $node->value("SELECT count(pg_terminate_backend(pid)) FROM pipeline.workers WHERE pipeline = 'order' AND partition = 2");
	$node->poll("SELECT bool_and(batches > b) FROM unnest(string_to_array('$before', ' ')::bigint[]) WITH ORDINALITY o(b, i)
		JOIN (SELECT batches, row_number() OVER (ORDER BY partition) AS i $others) w USING (i)", 't');
}
cmp_ok($ended, '>', 2, 'a worker was ended again and again');
is($node->value("SELECT string_agg(pid::text, ' ' ORDER BY partition) $others"), $pids, 'the others went on, in the same processes');
IPC::Run::finish($load);
$node->caught_up('order');
is($node->value("SELECT swaps('in_order')"), 0, 'in order all the same');
$node->same_rows('SELECT k, n FROM in_order', 'TABLE steps', 'nothing is lost or doubled');

# ---- changed before it has begun -----------------------------------------------

# The number changes before a worker has come to the birth, in its transaction or right
# after it: who is new waits for those that are born before.
for my $how ('BEGIN; %s; COMMIT', '%s')
{
	my $name = $how eq '%s' ? 'after' : 'within';
	$node->safe_psql('postgres', "CREATE TABLE $name (k int, n int); CREATE TABLE ${name}_out (LIKE $name, place bigint GENERATED ALWAYS AS IDENTITY)");
	$node->safe_psql('postgres', sprintf($how, join(";\n",
		"SELECT pipeline.create_pipeline('$name', '$name', consistency => 'causal', partition_by => '{k}', workers => 2)",
		"SELECT pipeline.add_output('$name', '${name}_out'), pipeline.start('$name')",
		"INSERT INTO $name SELECT n % 13, n FROM generate_series(1, 100) n",
		"SELECT pipeline.alter_pipeline('$name', workers => 5)",
		"INSERT INTO $name SELECT n % 13, n FROM generate_series(101, 200) n",
		"SELECT pipeline.alter_pipeline('$name', workers => 3)",
		"INSERT INTO $name SELECT n % 13, n FROM generate_series(201, 300) n")));
	$node->caught_up($name);
	$node->same_rows("SELECT k, n FROM ${name}_out", "TABLE $name", "changed $name the birth: nothing is lost or doubled");
	is($node->value("SELECT count(*) FROM (SELECT n < lag(n) OVER (PARTITION BY k ORDER BY place) AS swapped FROM ${name}_out) x WHERE swapped"),
		0, 'and in order');
	$node->safe_psql('postgres', "SELECT pipeline.drop_pipeline('$name')");
}

# ---- four that wait do more than one -----------------------------------------

# each event waits for a lock that it does not get
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(4711)');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE slow (k int, n int);
CREATE TABLE slow_1 (k int, n int);
CREATE TABLE slow_4 (k int, n int);
CREATE FUNCTION waits(s slow) RETURNS text LANGUAGE plpgsql VOLATILE SET lock_timeout = '10ms' AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN 'nobody holds the lock';
EXCEPTION WHEN lock_not_available THEN RETURN NULL; END $$;
SELECT pipeline.create_pipeline('slow_' || n, 'slow', consistency => 'causal', partition_by => '{k}', workers => n),
	pipeline.add_stage('slow_' || n, 'wait', 'validate', 'waits(slow)'),
	pipeline.add_output('slow_' || n, ('slow_' || n)::regclass),
	pipeline.start('slow_' || n)
FROM unnest('{1,4}'::int[]) n;
DO $$ BEGIN FOR i IN 1 .. 400 LOOP INSERT INTO slow VALUES (i % 100, i); COMMIT; END LOOP; END $$;
SQL
$node->caught_up('slow_4');
my $one = $node->value('SELECT count(*) FROM slow_1');
diag "when four workers had done 400 events, one had done $one";
cmp_ok($one, '<', 250, 'four workers that wait do more than one');
$node->caught_up('slow_1');
$node->same_rows('TABLE slow_1', 'TABLE slow', 'one comes to the same');
$node->same_rows('TABLE slow_4', 'TABLE slow', 'so do four');
$holder->quit;

$node->stop;
done_testing();
