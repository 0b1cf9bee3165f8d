# Many pipelines on few worker processes: idle ones have none, events start just
# those that they are for, all that are busy take turns in the order in which
# they came, also beside one that never ends.  Pipelines that cannot go on hold no
# process while others wait, stay visible as what they are, and go on as soon as
# they can.  Capture comes first.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $many = 30;
my $places = 2;

# Launcher, mover, capture, the server's own launcher of subscriptions, and places
# for workers.
my $node = PipelineTest->start_new('main', conf => sprintf(<<'CONF', 4 + $places));
max_worker_processes = %d
pipeline.worker_idle_timeout = 0
autovacuum = off
CONF

$node->safe_psql('postgres', <<"SQL");
DO \$\$
BEGIN
	FOR i IN 1 .. $many LOOP
		EXECUTE format('CREATE TABLE src_%s (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp())', i);
		EXECUTE format('CREATE TABLE dst_%s (id int, at timestamptz)', i);
		PERFORM pipeline.create_pipeline('p' || i, source => ('src_' || i)::regclass);
		PERFORM pipeline.add_output('p' || i, ('dst_' || i)::regclass);
	END LOOP;
END \$\$;
SQL
$node->safe_psql('postgres', join '', map { "SELECT pipeline.start('p$_');" } 1 .. $many);

sub write_rows
{
	my ($rows, @which) = @_;

	$node->safe_psql('postgres', join '',
		map { "INSERT INTO src_$_ SELECT FROM generate_series(1, $rows);" } @which);
	return;
}

sub all_done
{
	my ($name, @which) = @_;

	$node->poll(
		'SELECT ' . join(' AND ', map { "(SELECT count(*) FROM dst_$_) = (SELECT count(*) FROM src_$_)" } @which),
		what => $name);
	$node->same_rows(
		join(' UNION ALL ', map { "SELECT $_, * FROM dst_$_" } @which),
		join(' UNION ALL ', map { "SELECT $_, * FROM src_$_" } @which), $name);
	return;
}

sub workers
{
	return $node->value(
		q{SELECT coalesce(string_agg(pipeline, ' ' ORDER BY started_at), '') FROM pipeline.workers});
}

sub states
{
	return $node->value(
		q{SELECT string_agg(state || ' ' || n, ', ' ORDER BY state)
		    FROM (SELECT state, count(*) AS n FROM pipeline.status GROUP BY state) s});
}

# ---- births ---------------------------------------------------------------------

# Each birth is a record for its worker, so all of them were there in turn.
$node->poll(q{SELECT count(*) = (SELECT count(*) FROM pipeline.pipelines) FROM _pipeline.consumers() WHERE caught_up},
	what => 'all births');
is(states(), "running $many", 'all are born, with fewer processes than pipelines');
cmp_ok(scalar split(/ /, workers()), '<=', $places, 'no more workers than there are places');

# ---- idle ones have no process ----------------------------------------------------

# With nobody in line the last ones stay, as there is no timeout.
$node->safe_psql('postgres', q{ALTER SYSTEM SET pipeline.worker_idle_timeout = '100ms'});
$node->reload;
$node->poll('SELECT count(*) = 0 FROM pipeline.workers', what => 'the workers to end');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET pipeline.worker_idle_timeout');
$node->reload;

my $launcher = $node->process_pid('pipeline launcher');
my $capture = $node->process_pid('pipeline capture', db => 'postgres');
$node->asleep($launcher, $capture);
my $generations = q{SELECT sum(batches) FROM _pipeline.consumers()};
my $before = $node->value($generations);
write_rows(1, 7);
all_done('an event of one', 7);
is(workers(), 'p7', 'starts one');
write_rows(1, 3);
all_done('an event of another', 3);
is(workers(), 'p7 p3', 'starts that, too');
write_rows(1, 21);
all_done('an event of a third', 21);
like(workers(), qr/^(p7|p3) p21$/, 'for which an idle one gives up its process');
is($node->value($generations), $before + 3, 'and nobody else did anything');

# ---- all at once --------------------------------------------------------------------

write_rows(2000, 1 .. $many);
all_done('all that are busy at once', 1 .. $many);
$node->poll(q{SELECT bool_and(state = 'running') FROM pipeline.status}, what => 'all to be running');
is(states(), "running $many", 'nobody waits any more');

# Two never end: each of their rows waits for a lock that nobody gives up until the
# gate is opened.
my $gate = $node->background_psql('postgres');

sub close_gate
{
	$gate->query_safe('SELECT pg_advisory_lock(20150214)');
	return;
}

sub open_gate
{
	$gate->query_safe('SELECT pg_advisory_unlock(20150214)');
	return;
}

close_gate();
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION pass_gate() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('lock_timeout', '20ms', true), pg_advisory_xact_lock_shared(20150214);
EXCEPTION WHEN lock_not_available THEN
END $$;
CREATE TABLE endless (id int);
CREATE TABLE endless_2 (id int);
CREATE TABLE results (id int);
CREATE FUNCTION slow(e endless) RETURNS SETOF results LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pass_gate();
	RETURN NEXT ROW(e.id)::results;
END $$;
CREATE FUNCTION slow(e endless_2) RETURNS SETOF results LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pass_gate();
	RETURN NEXT ROW(e.id)::results;
END $$;
SELECT pipeline.create_pipeline('endless', source => 'endless');
SELECT pipeline.add_stage('endless', 'slow', 'transform', 'slow(endless)');
SELECT pipeline.add_output('endless', 'results');
SELECT pipeline.start('endless');
SELECT pipeline.create_pipeline('endless_2', source => 'endless_2');
SELECT pipeline.add_stage('endless_2', 'slow', 'transform', 'slow(endless_2)');
SELECT pipeline.add_output('endless_2', 'results');
SELECT pipeline.start('endless_2');
INSERT INTO endless VALUES (0);
INSERT INTO endless_2 VALUES (0);
SQL
$node->caught_up($_) for 'endless', 'endless_2';
# so many transactions that they outlast the test until the gate is opened
$node->safe_psql('postgres', <<'SQL');
DO $$ BEGIN
	FOR i IN 1 .. 3000 LOOP
		INSERT INTO endless VALUES (i);
		INSERT INTO endless_2 VALUES (i);
		COMMIT;
	END LOOP;
END $$;
SQL
$node->poll(q{SELECT count(*) = 2 FROM pipeline.workers WHERE pipeline LIKE 'endless%'},
	what => 'the endless ones to have all processes');
write_rows(10, 1 .. $many);
all_done('others get their turns beside two that never end', 1 .. $many);
cmp_ok($node->value(q{SELECT count(*) FROM results}), '<', 6002, 'which go on');

# ---- capture comes first ------------------------------------------------------------

$node->create_database('other', extension => 0);
$node->safe_psql('other', 'CREATE EXTENSION pipeline');
$node->poll(q{SELECT count(*) = 1 FROM _pipeline.databases() d JOIN pg_database b ON b.oid = d.database
	WHERE datname = 'other' AND d.state = 'ready'}, what => 'capture to get a process');
cmp_ok($node->value(q{SELECT count(*) FROM results}), '<', 6002, 'a capture gets the process of a busy worker');
$node->safe_psql('other', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1);
SQL
$node->caught_up('p', db => 'other');
pass('and one place is for the pipelines of both databases');
$node->safe_psql('other', 'DROP EXTENSION pipeline');
open_gate();
$node->caught_up($_) for 'endless', 'endless_2';
is($node->value('SELECT count(*), count(DISTINCT id) FROM results'), '6002|3001', 'the endless ones end');

# ---- those that cannot go on ------------------------------------------------------------

# Six fail for ever, one by its breaker, one by its dead letters.
$node->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR i IN 1 .. 6 LOOP
		EXECUTE format('ALTER TABLE dst_%s RENAME at TO away', i);
	END LOOP;
END $$;
CREATE TABLE shaky (id int);
CREATE FUNCTION shake(e shaky) RETURNS SETOF results LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'shaken' USING ERRCODE = '22000';
END $$;
SELECT pipeline.create_pipeline('shaky', source => 'shaky');
SELECT pipeline.add_stage('shaky', 'shake', 'transform', 'shake(shaky)');
SELECT pipeline.add_output('shaky', 'results');
SELECT pipeline.start('shaky');
ALTER SYSTEM SET pipeline.breaker_window = 10;
SELECT pg_reload_conf();
SQL
$node->poll(q{SELECT current_setting('pipeline.breaker_window') = '10'}, what => 'the settings');
$node->caught_up('shaky');
write_rows(1, 1 .. 6);
$node->safe_psql('postgres', 'INSERT INTO shaky SELECT generate_series(1, 19)');
$node->caught_up('shaky');
$node->safe_psql('postgres', 'INSERT INTO shaky VALUES (20)');
$node->reached('shaky', 'paused');
$node->reached("p$_", 'failed') for 1 .. 6;

# Others wait: now they leave.
sub without_process
{
	my ($name) = @_;

	$node->poll(q{SELECT count(*) = 0 FROM pipeline.workers WHERE state IN ('failed', 'paused')},
		what => 'those that cannot go on to leave');
	is(states() =~ /failed 6, paused 1/ ? '' : states(), '', $name);
	return;
}

close_gate();
$node->safe_psql('postgres', 'INSERT INTO endless VALUES (0); INSERT INTO endless_2 VALUES (0)');
$node->caught_up($_) for 'endless', 'endless_2';	# it is known now that they are slow
$node->safe_psql('postgres', <<'SQL');
TRUNCATE results;
DO $$ BEGIN
	FOR i IN 1 .. 3000 LOOP
		INSERT INTO endless VALUES (i);
		INSERT INTO endless_2 VALUES (i);
		COMMIT;
	END LOOP;
END $$;
SQL
write_rows(1, 10 .. $many);
all_done('healthy ones get through', 10 .. $many);
without_process('those that fail stay visible as what they are, without a process');
is($node->value(q{SELECT count(*) FROM pipeline.health() WHERE pipeline ~ '^(p[1-6]|shaky)$' AND what ~ 'dst_|column|failed'}),
	'7', 'and in health(), with their errors');
my $retries = q{SELECT sum(retries) FROM _pipeline.consumers()};
my $tries = $node->value($retries);
write_rows(1, 10 .. $many);
all_done('once more', 10 .. $many);
cmp_ok($node->value($retries) - $tries, '<', 30, 'their attempts become rare');

# The repair of one: a change of a table.
$node->safe_psql('postgres', 'ALTER TABLE dst_1 RENAME away TO at');
all_done('the repair of a table is noticed though it has no process', 1);
$node->poll(q{SELECT state <> 'failed' FROM pipeline.status WHERE pipeline = 'p1'}, what => 'p1 to be well');

# Of the paused one: redrive, which nobody but a worker can do.
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION shake(e shaky) RETURNS SETOF results LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT ROW(-e.id)::results;
END $$;
SELECT pipeline.redrive('shaky');
SQL
$node->poll(q{SELECT count(*) = 20 FROM results WHERE id < 0}, what => 'all events of the paused one');
is($node->value(q{SELECT count(DISTINCT id) FROM results WHERE id < 0}), '20', 'redrive brings a paused one back, each event once');
$node->poll(q{SELECT state <> 'paused' FROM pipeline.status WHERE pipeline = 'shaky'}, what => 'it to go on');

# A reload of the settings, and the rest.
$node->safe_psql('postgres', join '', map { "ALTER TABLE dst_$_ RENAME away TO at;" } 2 .. 6);
$node->reload;
all_done('and all others', 1 .. 6);
cmp_ok($node->value('SELECT count(*) FROM results WHERE id > 0'), '<', 6000, 'while the endless ones go on');

# Restart forgets what they failed at, and a crash all turns.
open_gate();
$gate->quit;
$node->kill9_process('pipeline worker', wait => 1);
$node->caught_up($_) for 'endless', 'endless_2', 'shaky';
is($node->value('SELECT count(*), count(DISTINCT id) FROM results WHERE id > 0'), '6000|3000', 'all of it once, after a crash');
all_done('and of all others', 1 .. $many);

$node->stop;
done_testing();
