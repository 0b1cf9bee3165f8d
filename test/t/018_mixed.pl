# Nothing cascades: six pipelines read one table, and each but two has a trouble
# of its own, while random things are killed.
#
#	calm, brisk	have none; they must go on whatever the others do
#	poisoned	one event in a hundred raises an error
#	torn		its target, or the table that its handler reads, is dropped now
#				and then, and created again
#	hanging		some events hang in a stage that has a timeout
#	lazy		is stopped for long, so that its events move to the backlog
#
# In each round a fault is made, rows are written, the two healthy pipelines must
# have processed them while the fault lasts, something is killed, and the fault
# is mended.  In the end everything is compared with what the source says.
#
# PIPELINE_MIXED_ROUNDS says how many rounds, PIPELINE_MIXED_SEED repeats the
# choices of an earlier run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(shuffle);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_MIXED_ROUNDS} // 24;
my $seed = $ENV{PIPELINE_MIXED_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_MIXED_SEED=$seed PIPELINE_MIXED_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
pipeline.batch_rows = 500
pipeline.max_retained_wal = 1MB
pipeline.breaker_failures = 0.5
max_worker_processes = 20
checkpoint_timeout = 30s
max_wal_size = 64MB
CONF

# ---- the pipelines and their oracle ------------------------------------------

my @healthy = ('calm', 'brisk');
my @all = (@healthy, 'poisoned', 'torn', 'hanging', 'lazy');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, amount int, note text);
CREATE TABLE rates (kind int PRIMARY KEY, rate int NOT NULL);
INSERT INTO rates SELECT n, n * 10 FROM generate_series(0, 9) n;
CREATE TABLE calm (id bigint PRIMARY KEY, amount int);
CREATE TABLE brisk (id bigint PRIMARY KEY, rate int);
CREATE TABLE poisoned (id bigint PRIMARY KEY, amount int);
CREATE TABLE poisoned_children (id bigint REFERENCES poisoned DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE torn (id bigint PRIMARY KEY, rate int);
CREATE TABLE torn_before (id bigint PRIMARY KEY, rate int);
CREATE TABLE torn_rates (LIKE rates INCLUDING ALL);
INSERT INTO torn_rates TABLE rates;
CREATE TABLE hanging (id bigint PRIMARY KEY, amount int);
CREATE TABLE lazy (place bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id bigint UNIQUE, amount int);

-- What is wrong with a row is written in its note.
CREATE TYPE plain AS (id bigint, amount int);
CREATE TYPE rated AS (id bigint, rate int);
CREATE FUNCTION copy_of(s src) RETURNS SETOF plain LANGUAGE sql STABLE AS
$$ SELECT s.id, s.amount $$;
CREATE FUNCTION rate_of(s src) RETURNS SETOF rated LANGUAGE sql STABLE AS
$$ SELECT s.id, r.rate FROM rates r WHERE r.kind = s.amount % 10 $$;
CREATE FUNCTION raise_on_poison(s src) RETURNS SETOF plain LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF s.note = 'poison' THEN
		RAISE EXCEPTION 'row % is poisoned', s.id;
	END IF;
	RETURN NEXT (s.id, s.amount)::plain;
END $$;
CREATE FUNCTION child_of(p plain) RETURNS SETOF poisoned_children LANGUAGE sql STABLE AS
$$ SELECT p.id $$;
CREATE FUNCTION torn_rate_of(s src) RETURNS SETOF rated LANGUAGE plpgsql STABLE AS $$
BEGIN
	RETURN QUERY SELECT s.id, r.rate FROM torn_rates r WHERE r.kind = s.amount % 10;
END $$;
CREATE FUNCTION hang(s src) RETURNS SETOF plain LANGUAGE plpgsql STABLE AS $$
BEGIN
	WHILE s.note = 'hang' LOOP
		NULL;
	END LOOP;
	RETURN NEXT (s.id, s.amount)::plain;
END $$;

SELECT pipeline.create_pipeline(n, source => 'src')
FROM unnest('{calm, brisk, poisoned, torn, hanging, lazy}'::text[]) n;
SELECT pipeline.add_stage('calm', 'copy', 'transform', 'copy_of(src)');
SELECT pipeline.add_stage('brisk', 'rate', 'enrich', 'rate_of(src)');
SELECT pipeline.add_stage('poisoned', 'raise', 'transform', 'raise_on_poison(src)');
SELECT pipeline.add_stage('torn', 'rate', 'enrich', 'torn_rate_of(src)');
SELECT pipeline.add_stage('hanging', 'hang', 'transform', 'hang(src)', timeout => '200 ms');
SELECT pipeline.add_stage('lazy', 'copy', 'transform', 'copy_of(src)');
SELECT pipeline.add_output(n, n::regclass)
FROM unnest('{calm, brisk, poisoned, torn, hanging, lazy}'::text[]) n;
SELECT pipeline.add_output('poisoned', 'poisoned_children', transform => 'child_of(plain)');
SELECT pipeline.start(n) FROM unnest('{calm, brisk, poisoned, torn, hanging, lazy}'::text[]) n;
SQL

# ---- rows ----------------------------------------------------------------------

# Some transactions; one row in a hundred is poisoned, a few may hang.
sub write_rows
{
	my ($hangs) = @_;
	my $sql = '';

	for (1 .. 5 + int rand 10)
	{
		my $n = 1 + int rand 120;
		$sql .= "INSERT INTO src (amount, note) SELECT (random() * 1000)::int,
			CASE WHEN random() < 0.01 THEN 'poison' ELSE repeat(md5(g::text), 8) END
			FROM generate_series(1, $n) g;\n";
	}
	$sql .= "INSERT INTO src (amount, note) VALUES (1, 'fine'), (2, 'hang'), (3, 'fine');\n"
	  if $hangs;
	$node->safe_psql('postgres', $sql);
	return;
}

# ---- faults: what breaks, and what mends it --------------------------------------

my $broken = 0;
my %fault = (
	'no fault' => [ sub { }, sub { } ],
	'the target is dropped' => [
		sub {
			$node->safe_psql('postgres', <<'SQL');
BEGIN;
LOCK TABLE torn;
INSERT INTO torn_before TABLE torn;
DROP TABLE torn;
COMMIT;
SQL
		},
		sub { $node->safe_psql('postgres', 'CREATE TABLE torn (id bigint PRIMARY KEY, rate int)') }
	],
	'the table of rates is dropped' => [
		sub { $node->safe_psql('postgres', 'DROP TABLE torn_rates') },
		sub {
			$node->safe_psql('postgres',
				'CREATE TABLE torn_rates AS TABLE rates;');
		}
	],
	'the function is dropped' => [
		sub {
			$node->safe_psql('postgres',
				'ALTER FUNCTION torn_rate_of(src) RENAME TO torn_rate_gone');
		},
		sub {
			$node->safe_psql('postgres',
				'ALTER FUNCTION torn_rate_gone(src) RENAME TO torn_rate_of');
		}
	],
	'some hang' => [ sub { write_rows(1) }, sub { } ],
	'one is stopped' => [
		sub {
			$node->safe_psql('postgres', q{SELECT pipeline.stop('lazy')});
		},
		sub { }
	]);

# ---- kills -----------------------------------------------------------------------

sub crash
{
	my ($type) = @_;
	return sub { $node->kill9_process($type) };
}

sub end_one
{
	my ($type) = @_;
	return sub { $node->terminate_process($type) };
}

my %kill = (
	'nothing' => sub { },
	'kill -9 of the postmaster' => sub { $node->kill9_server },
	'immediate stop' => sub { $node->stop('immediate'); $node->start },
	'cancel of all workers' => sub {
		$node->safe_psql('postgres',
			q{SELECT pg_cancel_backend(pid) FROM pipeline.workers});
	},
	(map { ("kill -9 of a $_" => crash("pipeline $_")) } 'worker', 'capture', 'launcher', 'mover'),
	(map { ("end of a $_" => end_one("pipeline $_")) } 'worker', 'capture', 'launcher'));

# ---- the rounds --------------------------------------------------------------------

my (@faults, @kills);
for my $round (1 .. $rounds)
{
	@faults = shuffle(sort keys %fault) unless @faults;
	@kills = shuffle(sort keys %kill) unless @kills;
	my ($fault, $kill) = (shift @faults, shift @kills);

	note "round $round: $fault; $kill";
	$node->poll('SELECT true', what => 'the server');
	$fault{$fault}[0]->();
	write_rows(0);
	$node->caught_up($_) for @healthy;
	$kill{$kill}->();
	$node->poll('SELECT true', what => 'the server');
	write_rows(0);
	$node->caught_up($_) for @healthy;
	$fault{$fault}[1]->();
	if ($round % 8 == 0)
	{
		$node->safe_psql('postgres', q{SELECT pipeline.start('lazy')});
		$node->caught_up('lazy') if rand() < 0.5;
	}
}

# ---- what must be ---------------------------------------------------------------------

$node->safe_psql('postgres', q{SELECT pipeline.start('lazy')});
$node->caught_up($_) for @all;

my %wanted = (
	calm => 'SELECT id, amount FROM src',
	brisk => 'SELECT id, rate FROM src JOIN rates ON kind = amount % 10',
	poisoned => q{SELECT id, amount FROM src WHERE note <> 'poison'},
	hanging => q{SELECT id, amount FROM src WHERE note <> 'hang'},
	torn => 'SELECT id, rate FROM src JOIN rates ON kind = amount % 10',
	lazy => 'SELECT id, amount FROM src');
my %got = (
	torn => 'TABLE torn UNION ALL TABLE torn_before',
	lazy => 'SELECT id, amount FROM lazy');

for my $pipeline (@all)
{
	$node->same_rows($got{$pipeline} // "TABLE $pipeline", $wanted{$pipeline},
		"$pipeline: the output is right");
	$node->ledger_balanced($pipeline, "$pipeline: the ledger is balanced");
	is($node->value("SELECT events FROM pipeline.status WHERE pipeline = '$pipeline'"),
		$node->value('SELECT count(*) FROM src'), "$pipeline: no event was lost or taken twice");
}
$node->same_rows('TABLE poisoned_children', q{SELECT id FROM src WHERE note <> 'poison'},
	'no child was blamed for its parent');
$node->same_rows(
	q{SELECT pipeline, kind, stage, (event->>'id')::bigint FROM pipeline.dead_letters},
	q{SELECT 'poisoned', 'failed', 'raise', id FROM src WHERE note = 'poison'
	  UNION ALL
	  SELECT 'hanging', 'failed', 'hang', id FROM src WHERE note = 'hang'},
	'the dead letters are those, and no others');
is( $node->value(
		q{SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY place) AS before FROM lazy) l
		   WHERE id < before}),
	'0', 'what came from the backlog is in order');
$node->poll('SELECT NOT EXISTS (SELECT FROM pipeline.health())', what => 'health() to be empty');
is($node->value('SELECT count(*) FROM pipeline.status WHERE backlog_bytes > 0'),
	'0', 'no backlog is left');
$node->stop;
done_testing();
