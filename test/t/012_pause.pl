# What hangs, what must be tried again, and what has to stand still: timeouts of
# stages, errors of the moment, and the limits of dead letters.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
autovacuum = off
deadlock_timeout = 2s
pipeline.worker_idle_timeout = 1s
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE dst (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id int, what text);
CREATE TABLE locked (id int);
INSERT INTO locked VALUES (1);
CREATE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	CASE s.what
		WHEN 'hang' THEN
			PERFORM pg_advisory_xact_lock_shared(3);
		WHEN 'bad' THEN
			RAISE 'bad event';
		WHEN 'gate' THEN
			PERFORM pg_advisory_xact_lock_shared(1);
		WHEN 'two gates' THEN
			PERFORM pg_advisory_xact_lock(2);
			PERFORM pg_advisory_xact_lock(1);
		WHEN 'impatient' THEN
			PERFORM set_config('lock_timeout', '50ms', true);
			PERFORM 1 FROM locked FOR UPDATE;
		ELSE
	END CASE;
	RETURN NEXT s;
END $$;
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'first', 'validate', query => 'SELECT true FROM event');
SELECT pipeline.add_stage('p', 'handler', 'transform', 'handler(src)', timeout => '200 ms', max_attempts => 1000);
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL

# The worker, which there must be.
sub worker
{
	return $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'p'});
}

sub retries
{
	return $node->value(
		q{SELECT coalesce(max(retries), 0) FROM pipeline.workers WHERE pipeline = 'p'});
}

sub letters
{
	my ($where) = @_;

	return $node->value(
		"SELECT count(*) FROM pipeline.dead_letters WHERE pipeline = 'p' AND $where");
}

sub insert
{
	my ($what) = @_;

	return $node->value("INSERT INTO src (what) VALUES ('$what') RETURNING id");
}

# Wait until the worker waits for a lock of this kind.
sub worker_waits
{
	my ($type) = @_;

	return $node->poll(
		"SELECT count(*) > 0 FROM pg_locks JOIN pipeline.workers USING (pid)
		 WHERE locktype = '$type' AND NOT granted",
		what => 'the worker to wait for a lock');
}

sub last_error_like
{
	my ($pattern, $name) = @_;

	return like(
		$node->value(q{SELECT last_error FROM pipeline.status WHERE pipeline = 'p'}),
		$pattern, $name);
}

# ---- an event that hangs ------------------------------------------------------

# It waits for a lock that nobody gives it.
my $hanger = $node->background_psql('postgres');
$hanger->query_safe('SELECT pg_advisory_lock(3)');

$node->safe_psql('postgres', <<'SQL');
INSERT INTO src (what)
SELECT CASE WHEN i IN (300, 700) THEN 'hang' ELSE 'good' END FROM generate_series(1, 1000) i;
SQL
$node->caught_up('p');
is( $node->value(
		q{SELECT string_agg(concat_ws('|', event->>'id', stage, sqlstate, reason), ' ' ORDER BY id)
		  FROM pipeline.dead_letters}),
	'300|handler|57014|stage "handler" exceeded its timeout '
	  . '700|handler|57014|stage "handler" exceeded its timeout',
	'events that hang are dead letters, with the stage');
$node->same_rows(
	'SELECT id, row_number() OVER (ORDER BY n) FROM dst',
	q{SELECT id, row_number() OVER (ORDER BY id) FROM src WHERE what = 'good'},
	'and the others went through, in order');
is($node->value(q{SELECT errors FROM pipeline.stage_stats WHERE stage = 'handler'}),
	2, 'counted as errors of the stage');
$node->safe_psql('postgres',
	q{SELECT pipeline.discard('p', array_agg(id), 'hangs') FROM pipeline.dead_letters});

# A stage may take long for many events.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.drop_stage('p', 'handler');
SELECT pipeline.add_stage('p', 'handler', 'transform', 'handler(src)', max_attempts => 1000);
SELECT pipeline.add_stage('p', 'slow', 'transform', query => 'SELECT * FROM event WHERE (SELECT count(*) FROM generate_series(1, 200000 + length(event.what))) > 0', timeout => '300 ms');
INSERT INTO src (what) SELECT 'good' FROM generate_series(1, 60);
SQL
$node->caught_up('p');
is(letters(q{state = 'open'}), 0, 'a timeout is of one event, not of all of them');
$node->safe_psql('postgres', q{SELECT pipeline.drop_stage('p', 'slow')});

# ---- the moment -----------------------------------------------------------------

my $holder = $node->background_psql('postgres');
my ($pid, $before, $id);

# cancelled in a batch
$holder->query_safe('SELECT pg_advisory_lock(1)');
$id = insert('gate');
worker_waits('advisory');
$pid = worker();
$before = retries();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
$node->poll("SELECT retries > $before FROM pipeline.workers WHERE pipeline = 'p'");
last_error_like(qr/canceling statement due to user request/, 'a cancelled batch says so');
worker_waits('advisory');
is(worker(), $pid, 'and its worker stays, and tries again');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$node->caught_up('p');
is($node->value("SELECT count(*) FROM dst WHERE id = $id"), 1, 'a cancelled batch went through');

# cancelled while it waits for something to do
insert('good');
$node->caught_up('p');
$pid = worker();
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
insert('good');
$node->caught_up('p');
is(worker(), $pid, 'a cancel outside a batch means nothing');

# ended
$holder->query_safe('SELECT pg_advisory_lock(1)');
$id = insert('gate');
worker_waits('advisory');
$pid = worker();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
worker_waits('advisory');
isnt(worker(), $pid, 'an ended worker has a successor');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$node->caught_up('p');
is($node->value("SELECT count(*) FROM dst WHERE id = $id"), 1, 'which did the batch once');

# a lock that is not to be had in time
$holder->query_safe('BEGIN');
$holder->query_safe('SELECT FROM locked FOR UPDATE');
$id = insert('impatient');
$node->reached('p', 'retrying');
last_error_like(qr/lock timeout/, 'a lock timeout is of the moment');
$holder->query_safe('COMMIT');
$node->caught_up('p');
is($node->value("SELECT count(*) FROM dst WHERE id = $id"), 1, 'and over with the lock');

# a deadlock, in which the worker is the one to look first
$holder->query_safe(q{SET deadlock_timeout = '1000s'});
$holder->query_safe('BEGIN');
$holder->query_safe('SELECT pg_advisory_xact_lock(1)');
$before = retries();
$id = insert('two gates');
worker_waits('advisory');
$holder->query_safe('SELECT pg_advisory_xact_lock(2)');
last_error_like(qr/deadlock detected/, 'a deadlock is of the moment');
$holder->query_safe('COMMIT');
$node->caught_up('p');
is($node->value("SELECT count(*) FROM dst WHERE id = $id"), 1, 'and over when the other one is done');
is(letters(q{state = 'open'}), 0, 'none of that left a dead letter');

# ---- limits of dead letters -----------------------------------------------------

sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET pipeline.$name = '$value'");
	$node->reload;
	$node->poll("SELECT setting = '$value' FROM pg_settings WHERE name = 'pipeline.$name'");
	return;
}

# Good events that come one after the other, until the pipeline pauses: it may
# hear of a setting after the first of them.
sub paused
{
	for (1 .. 100)
	{
		insert('good');
		return 1
		  if $node->value(
			q{SELECT NOT pipeline.wait_for('p', timeout => '0.5 s')
			  AND (SELECT state = 'paused' FROM pipeline.status WHERE pipeline = 'p')}) eq 't';
	}
	$node->show_state;
	die 'the pipeline does not pause';
}

insert('bad') for 1 .. 3;
$node->caught_up('p');
set('dead_letter_limit', 2);
paused();
last_error_like(qr/3 dead letters are open, pipeline.dead_letter_limit is 2 \(hint: SELECT pipeline.redrive\('p'\)/,
	'more open dead letters than the limit pause the pipeline');
$pid = worker();
$node->let_pass(2.5);
is(worker(), $pid, 'a paused worker does not leave for want of something to do');

$node->safe_psql('postgres', q{SELECT pipeline.redrive('p')});
$node->poll(q{SELECT count(*) = 3 FROM pipeline.dead_letters WHERE state = 'open' AND attempts = 2});
$node->reached('p', 'paused');
pass('dead letters run again in vain do not end the pause');
$node->safe_psql('postgres', q{SELECT pipeline.discard('p', array[min(id)], 'enough') FROM pipeline.dead_letters WHERE state = 'open'});
$node->caught_up('p');
$node->reached('p', 'running');
pass('a discard does');

insert('bad');
$node->caught_up('p');
paused();
$node->safe_psql('postgres', 'CREATE TABLE handlers AS SELECT pg_get_functiondef(\'handler(src)\'::regprocedure) AS def');
$node->safe_psql('postgres',
	'CREATE OR REPLACE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE sql AS $$ SELECT s.* $$');
$node->reached('p', 'paused');
$node->safe_psql('postgres', q{SELECT pipeline.redrive('p')});
$node->caught_up('p');
is(letters(q{state = 'redriven'}), 3, 'so does a redrive');
$node->safe_psql('postgres', 'DO $$ BEGIN EXECUTE (SELECT def FROM handlers); END $$');

# the settings themselves
insert('bad') for 1 .. 3;
$node->caught_up('p');
paused();
$pid = worker();
set('dead_letter_limit', 0);
$node->caught_up('p');
is(worker(), $pid, 'a limit that is taken away does, too');

# age
$node->let_pass(1.2);
set('dead_letter_max_age', 1);
paused();
last_error_like(qr/a dead letter is open since .*dead_letter_max_age is 1 s/, 'old dead letters pause it');
$node->safe_psql('postgres',
	q{SELECT pipeline.discard('p', array_agg(id), 'old') FROM pipeline.dead_letters WHERE state = 'open'});
$node->caught_up('p');
set('dead_letter_max_age', 0);

# ---- dead letters that the worker holds -------------------------------------------

# The worker runs a letter again, at the gate, while somebody gives it up.
sub discard_while_worker_holds
{
	my ($what, $expected, $state, $name) = @_;
	my $discarder = $node->background_psql('postgres');
	my $letter = insert('bad');

	$node->caught_up('p');
	$node->safe_psql('postgres', <<"SQL");
CREATE OR REPLACE FUNCTION handler(s src) RETURNS SETOF src LANGUAGE plpgsql AS \$\$
BEGIN PERFORM pg_advisory_xact_lock_shared(1); $what; RETURN NEXT s; END \$\$
SQL
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	$node->safe_psql('postgres', q{SELECT pipeline.redrive('p')});
	worker_waits('advisory');
	$discarder->query_until(
		qr/asked/, <<"SQL");
\\echo asked
SELECT 'discarded ' || pipeline.discard('p', array_agg(id), 'a test') FROM pipeline.dead_letters WHERE event->>'id' = '$letter';
SQL
	$node->poll(
		q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%a test%' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()},
		what => 'the discard to wait for the worker');
	$holder->query_safe('SELECT pg_advisory_unlock(1)');
	$discarder->query_until(qr/discarded $expected/, '');
	$node->caught_up('p');
	is($node->value("SELECT state FROM pipeline.dead_letters WHERE event->>'id' = '$letter'"), $state, $name);
	$discarder->quit;
	$node->safe_psql('postgres', 'DO $$ BEGIN EXECUTE (SELECT def FROM handlers); END $$');
	return;
}

discard_while_worker_holds('NULL', 0, 'redriven', 'what the worker ran is not given up');
discard_while_worker_holds(q{RAISE 'again'}, 1, 'discarded', 'what it ran in vain is');
$holder->quit;
$hanger->quit;

is( $node->value(
		q{SELECT string_agg(DISTINCT action || ' ' || who, ', ') FROM pipeline.audit_log
		  WHERE action = 'redrive' OR action = 'discard' AND detail->>'why' <> ''}),
	join(', ', map { "$_ " . $node->value('SELECT current_user') } 'discard', 'redrive'),
	'the audit log has who did what');
is($node->value(q{SELECT count(*) FROM pipeline.ledger('p') WHERE NOT balanced}), 0, 'the ledger is balanced');
$node->stop;
done_testing();
