# Nobody holds back WAL: beyond pipeline.max_retained_wal the events of a
# pipeline that stands move to the backlog, and come from there in order and
# exactly once, with what was said about the pipeline meanwhile at its place,
# whatever is killed at whatever point.  Beyond pipeline.max_backlog it is lost.
# A database without work, and tables that no pipeline wants, hold nothing.
#
# PIPELINE_BACKLOG_SEED repeats the choices of an earlier run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PIPELINE_BACKLOG_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_BACKLOG_SEED=$seed";

my $node = PipelineTest->start_new(
	'main',
	extra => [ '--no-locale', '-E', 'UTF8', '--wal-segsize=1' ],
	conf => <<'CONF');
autovacuum = off
wal_writer_delay = 10s
min_wal_size = 2MB
max_wal_size = 8MB
wal_keep_size = 0
pipeline.batch_rows = 700
pipeline.max_retained_wal = 1MB
CONF
$node->need_failpoints;

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, k int NOT NULL, note text);
CREATE TABLE tick (n int);
CREATE TABLE lookup (k int PRIMARY KEY, name text);
INSERT INTO lookup SELECT k, 'name ' || k FROM generate_series(0, 9) k;
CREATE TABLE out_stopped (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id int, k int, note text);
CREATE TABLE out_late (LIKE out_stopped INCLUDING ALL);
CREATE TABLE out_busy (LIKE out_stopped INCLUDING ALL);
CREATE TABLE out_failing (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, id int, name text);
CREATE TABLE refuse (k int);
INSERT INTO refuse VALUES (100);
CREATE FUNCTION check_row(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT 'refused' FROM refuse WHERE k = s.k $$;
SELECT pipeline.create_pipeline('stopped', source => 'src');
SELECT pipeline.add_stage('stopped', 'check', 'validate', 'check_row(src)');
SELECT pipeline.add_output('stopped', 'out_stopped');
SELECT pipeline.create_pipeline('failing', source => 'src');
SELECT pipeline.add_stage('failing', 'name', 'enrich',
	query => 'SELECT event.id, l.name FROM event JOIN lookup l ON l.k = event.k % 10');
SELECT pipeline.add_output('failing', 'out_failing');
SELECT pipeline.create_pipeline('busy', source => 'src');
SELECT pipeline.add_output('busy', 'out_busy');
SELECT pipeline.start(pipeline) FROM pipeline.pipelines;

-- Transactions of all sizes, mostly small, about so many kB.
CREATE PROCEDURE traffic(kb int) LANGUAGE plpgsql AS $$
DECLARE rows int;
BEGIN
	WHILE kb > 0 LOOP
		rows := CASE WHEN random() < 0.1 THEN 1500 ELSE 1 + random() * 20 END;
		INSERT INTO src (k, note)
		SELECT i % 10, repeat(md5(random()::text), 6) FROM generate_series(1, rows) i;
		COMMIT;
		kb := kb - rows / 4;
	END LOOP;
END $$;
SQL
$node->caught_up($_) for 'stopped', 'failing', 'busy';

sub traffic
{
	$node->safe_psql('postgres', "CALL traffic($_[0])");
	return;
}

sub status
{
	my ($pipeline, $column) = @_;

	return $node->value("SELECT $column FROM pipeline.status WHERE pipeline = '$pipeline'");
}

# Wait until the events of a pipeline are out of the WAL's way.
sub moved
{
	my ($pipeline) = @_;

	return $node->poll(
		"SELECT backlog_bytes > 0 AND retained_wal_bytes < 2 * 1024 * 1024
		 FROM pipeline.status WHERE pipeline = '$pipeline'",
		what => "the events of \"$pipeline\" to move");
}

# With checkpoints, which log what the slots need to move on, and commits, which
# have it decoded, until it is true.
sub with_checkpoints
{
	my ($sql, $what) = @_;

	for (1 .. 120)
	{
		$node->safe_psql('postgres', 'CHECKPOINT');
		$node->safe_psql('postgres', 'INSERT INTO tick SELECT i FROM generate_series(1, 10000) i');
		return 1 if $node->value($sql) eq 't';
		$node->let_pass(0.5);
	}
	$node->show_state;
	die "timed out waiting for $what";
}

# All of it, once, in order.
sub whole
{
	my ($table, $name, $where) = @_;

	$where //= 'true';
	$node->same_rows(
		"SELECT id, row_number() OVER (ORDER BY n) FROM $table",
		"SELECT id, row_number() OVER (ORDER BY id) FROM src WHERE $where", $name);
	return;
}

# ---- one stopped, one failing, one busy ---------------------------------------

$node->safe_psql('postgres', q{INSERT INTO src (k, note) VALUES (100, 'letter')});
$node->caught_up('stopped');
is($node->value(q{SELECT count(*) FROM pipeline.dead_letters WHERE state = 'open'}), 1, 'a dead letter to begin with');
$node->safe_psql('postgres', 'DELETE FROM refuse');
$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped'); ALTER TABLE lookup RENAME TO lost_lookup});
traffic(8000);
my $before_output = $node->value('SELECT max(id) FROM src');
$node->safe_psql('postgres', q{SELECT pipeline.add_output('stopped', 'out_late')});
traffic(8000);
my $before_redrive = $node->value('SELECT max(id) FROM src');
$node->safe_psql('postgres', q{SELECT pipeline.redrive('stopped')});
traffic(8000);
$node->caught_up('busy');
moved('stopped');
moved('failing');
is(status('busy', 'backlog_bytes'), 0, 'a pipeline that keeps up has no backlog');
is(status('stopped', 'state'), 'stopped', 'one that is stopped has');
is(status('failing', 'state'), 'failed', 'and one that cannot go on');
is($node->value(q{SELECT count(*) FROM pipeline.health() WHERE what ~ 'backlog'}),
	0, 'far from the limit that is no problem');
set('max_backlog', int(1.6 * status('stopped', 'backlog_bytes') / 1048576) . 'MB');
like($node->value(q{SELECT what || ' | ' || hint FROM pipeline.health() WHERE pipeline = 'stopped'}),
	qr/^it is stopped, and holds a backlog of \d+ \w+, pipeline.max_backlog is \d+MB \| SELECT pipeline.start\('stopped'\);/,
	'near it, health() warns');
set('max_backlog', '10GB');
is($node->value(q{SELECT count(*) FROM _pipeline.backlog b, _pipeline.backlog c
	WHERE b.pipeline_id = c.pipeline_id AND b.chunk_id < c.chunk_id
	  AND (b.last_lsn, b.last_seq) >= (c.first_lsn, c.first_seq)}), 0, 'chunks follow each other');
with_checkpoints(
	'SELECT pg_current_wal_lsn() - restart_lsn < 4 * 1024 * 1024 FROM pg_replication_slots',
	'the slot to advance');
with_checkpoints('SELECT sum(size) < 12 * 1024 * 1024 FROM pg_ls_waldir()', 'pg_wal to shrink');
pass('the slot advances, and pg_wal shrinks');
cmp_ok(scalar($node->spool_files), '<=', 1, 'so does the spool');

$node->restart;
$node->caught_up('busy');
is($node->value(q{SELECT pipeline.wait_for('stopped', timeout => '0.1 s')}), 'f',
	'after a restart, who has a backlog has not done all');
$node->failpoint_set('worker-before-commit', 'wait');
$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
$node->failpoint_wait('worker-before-commit');
is(status('stopped', 'state'), 'catching up', 'it catches up');
is($node->value(q{SELECT pipeline.wait_for('stopped', timeout => '0.1 s')}), 'f',
	'which wait_for waits for');
$node->failpoint_clear('worker-before-commit');
$node->caught_up('stopped');
$node->safe_psql('postgres', 'ALTER TABLE lost_lookup RENAME TO lookup');
$node->caught_up('failing');
is($node->value('SELECT count(*) FROM _pipeline.backlog'), 0, 'the backlog is worked off');
whole('out_busy', 'the busy one has all');
$node->same_rows('SELECT id FROM out_failing', 'SELECT id FROM src',
	'the failing one has all');
$node->same_rows('SELECT id, k, note FROM out_stopped', 'SELECT id, k, note FROM src',
	'the stopped one has all');
is($node->value(q{SELECT count(*) FROM (SELECT id, lag(id) OVER (ORDER BY n) AS before FROM out_stopped WHERE k < 100) x WHERE before > id}),
	0, 'in order');
is($node->value("SELECT min(id) FROM out_late WHERE k < 100"), $before_output + 1,
	'an output that was added meanwhile begins where it was added');
is($node->value("SELECT array_agg(id ORDER BY n) FROM (SELECT n, id FROM out_stopped WHERE n BETWEEN
	(SELECT n FROM out_stopped WHERE k = 100) - 1 AND (SELECT n FROM out_stopped WHERE k = 100) + 1) x"),
	"{$before_redrive," . $node->value('SELECT id FROM src WHERE k = 100') . ',' . ($before_redrive + 1) . '}',
	'a redrive happens at its place');
$node->ledger_balanced($_, "the ledger of $_ is balanced") for 'stopped', 'failing', 'busy';

# ---- ends at each point --------------------------------------------------------

$node->safe_psql('postgres', q{DELETE FROM src WHERE k = 100; DELETE FROM out_stopped WHERE k = 100});

sub pid_of
{
	my ($type) = @_;

	return $node->process_pid("pipeline $type", wait => 1);
}

# The mover is seen only while it works for a database, as at a failpoint.
my %end = (
	'kill -9' => sub { $node->kill9_process("pipeline $_[0]", wait => $_[0] ne 'mover') },
	'terminate' => sub { $node->terminate_process("pipeline $_[0]", wait => $_[0] ne 'mover') },
	'immediate stop' => sub { $node->stop('immediate'); $node->start },
	'fast stop' => sub { $node->stop('fast'); $node->start },
	'kill -9 of the postmaster' => sub { $node->kill9_server },
	'end of capture' => sub { $node->terminate_process('pipeline capture', wait => 1) });

for my $point ('mover-before-commit', 'mover-after-commit')
{
	for my $how ('kill -9', 'terminate', 'immediate stop', 'end of capture')
	{
		$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
		traffic(1000 + int rand 2000);
		moved('stopped') if rand() < 0.5;
		$node->failpoint_set($point, 'wait');
		traffic(2500);
		$node->failpoint_wait($point);
		$end{$how}->('mover');
		$node->poll('SELECT true', what => 'the server');
		$node->failpoint_clear($point);
		moved('stopped') if rand() < 0.5;
		$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
		$node->caught_up('stopped');
		whole('out_stopped', "$how at $point");
	}
}

for my $point ('worker-before-commit', 'worker-after-commit')
{
	for my $how ('kill -9', 'terminate', 'immediate stop')
	{
		$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
		traffic(3000);
		moved('stopped');
		$node->failpoint_set($point, 'wait');
		$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
		$node->failpoint_wait($point);
		$end{$how}->('worker');
		$node->poll('SELECT true', what => 'the server');
		$node->failpoint_clear($point);
		$node->caught_up('stopped');
		whole('out_stopped', "$how at $point, in the backlog");
	}
}

# ---- worker and mover at the same events ----------------------------------------

$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
traffic(1000);
$node->failpoint_set('mover-after-commit', 'wait');
traffic(3000);
$node->failpoint_wait('mover-after-commit');
$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
$node->caught_up('stopped');
whole('out_stopped', 'a worker takes from the spool what is moved but not told of');
$node->failpoint_clear('mover-after-commit');
$node->poll('SELECT count(*) = 0 FROM _pipeline.backlog', what => 'the worker to find it done');
traffic(100);
$node->caught_up('stopped');
whole('out_stopped', 'and does not take it again');

# A mover ends after its commit; the next one finds the events moved.
$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
$node->failpoint_set('mover-after-commit', 'wait');
traffic(4000);
$node->failpoint_wait('mover-after-commit');
$node->terminate_process('pipeline mover', wait => 1);
$node->failpoint_clear('mover-after-commit');
moved('stopped');
$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
$node->caught_up('stopped');
whole('out_stopped', 'what a mover did not tell of is told by the next one');

# A batch of a large transaction stands while that transaction moves.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.stop('stopped');
CREATE TABLE gate (k int);
CREATE OR REPLACE FUNCTION check_row(s src) RETURNS text LANGUAGE plpgsql STABLE AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1) WHERE s.k = 50; RETURN NULL; END $$;
SQL
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(1)');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO src (k, note) SELECT CASE WHEN i = 100 THEN 50 ELSE 1 END, repeat(md5(i::text), 20)
FROM generate_series(1, 5000) i;
SELECT pipeline.start('stopped');
SQL
$node->poll(
	q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted},
	what => 'the worker to stand');
traffic(2000);
moved('stopped');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
$holder->quit;
$node->caught_up('stopped');
whole('out_stopped', 'a large transaction that moves under its worker');

# A birth that no worker came to.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE out_born (LIKE out_stopped INCLUDING ALL);
SELECT pipeline.create_pipeline('born', source => 'src');
SELECT pipeline.add_output('born', 'out_born');
BEGIN;
SELECT pipeline.start('born');
SELECT pipeline.stop('born');
COMMIT;
SQL
my $before_birth = $node->value('SELECT max(id) FROM src');
traffic(4000);
moved('born');
$node->safe_psql('postgres', q{SELECT pipeline.start('born')});
$node->caught_up('born');
whole('out_born', 'a pipeline that was born and stopped at once', "id > $before_birth");
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('born')});

# ---- random ends, with traffic all the time --------------------------------------

for my $round (1 .. 6)
{
	my $how = (sort keys %end)[ rand keys %end ];
	my $who = ('mover', 'worker')[ rand 2 ];

	$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')}) if $round % 2;
	traffic(500 + int rand 4000);
	$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')}) if $round % 2 && rand() < 0.7;
	note "round $round: $how, $who";
	$end{$how}->($who) if $who ne 'worker' || status('stopped', 'state') ne 'stopped';
	$node->poll('SELECT true', what => 'the server');
	traffic(200 + int rand 2000);
	$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')}) if status('stopped', 'state') eq 'stopped';
	$node->caught_up('stopped');
	whole('out_stopped', "round $round");
}
$node->safe_psql('postgres', 'DELETE FROM out_busy WHERE k = 100');
$node->caught_up('busy');
whole('out_busy', 'nobody else took harm');
$node->ledger_balanced('stopped', 'the ledger is balanced');

# ---- too much ----------------------------------------------------------------------

sub set
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET pipeline.$name = '$value'");
	$node->reload;
	$node->poll("SELECT current_setting('pipeline.$name') = '$value'");
	return;
}

$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
traffic(4000);
moved('stopped');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('stopped')});
is($node->value(q{SELECT count(*) FROM _pipeline.backlog}), 0, 'drop_pipeline deletes the backlog');

# Traffic with which the busy one keeps up, or it would be lost, too.
sub slow_traffic
{
	my ($kb) = @_;

	for (; $kb > 0; $kb -= 400)
	{
		traffic(400);
		$node->caught_up('busy');
	}
	return;
}

$node->caught_up($_) for 'busy', 'failing';
$node->poll('SELECT max(retained_wal_bytes) < 500000 FROM pipeline.status', what => 'all to be done');
set('max_backlog', '2MB');
my $log_at = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER TABLE lookup RENAME TO lost_lookup');
slow_traffic(6000);
$node->reached('failing', 'lost');
like(status('failing', 'last_error'),
	qr/backlog .*max_backlog \(2 MB\) \(hint: SELECT pipeline.start\('failing', skip_to_now => true\)/,
	'beyond max_backlog a pipeline is lost, with a hint');
is($node->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost' AND pipeline = 'failing' AND (detail->>'backlog_bytes')::int > 2000000}),
	1, 'and the audit log has it');
slow_traffic(3000);
with_checkpoints(
	'SELECT pg_current_wal_lsn() - restart_lsn < 4 * 1024 * 1024 FROM pg_replication_slots',
	'the slot to advance without the lost one');
$node->restart;
$node->reached('failing', 'lost');
like(status('failing', 'last_error'), qr/max_backlog/, 'a restart does not change that, nor its reason');
slow_traffic(3000);
$node->reached('failing', 'lost');
with_checkpoints(
	'SELECT pg_current_wal_lsn() - restart_lsn < 4 * 1024 * 1024 FROM pg_replication_slots',
	'the slot to advance after a restart');
my @told = slurp_file($node->logfile, $log_at) =~ /WARNING:  the position of pipeline "failing" is lost/g;
is(scalar @told, 1, 'the log has it once');
$node->safe_psql('postgres', 'ALTER TABLE lost_lookup RENAME TO lookup');
$node->safe_psql('postgres', q{SELECT pipeline.start('failing', skip_to_now => true)});
my $skipped = $node->value('SELECT max(id) FROM src');
is($node->value(q{SELECT count(*) FROM _pipeline.backlog}), 0, 'so does skip_to_now');
traffic(300);
$node->caught_up('failing');
$node->same_rows("SELECT id FROM out_failing WHERE id > $skipped", "SELECT id FROM src WHERE id > $skipped",
	'and goes on from now');
$node->restart;
traffic(100);
$node->caught_up('failing');
$node->same_rows("SELECT id FROM out_failing WHERE id > $skipped", "SELECT id FROM src WHERE id > $skipped",
	'also after a restart');

# ---- who wants nothing holds nothing ----------------------------------------------------

$node->create_database('idle');
$node->safe_psql('idle', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL
$node->safe_psql('postgres', 'CREATE TABLE unwanted (note text)');
for (1 .. 3)
{
	$node->safe_psql('postgres',
		'INSERT INTO unwanted SELECT repeat(md5(i::text), 20) FROM generate_series(1, 10000) i');
}
with_checkpoints(
	q{SELECT count(*) = 2 AND bool_and(pg_current_wal_lsn() - restart_lsn < 4 * 1024 * 1024
		AND pg_current_wal_lsn() - confirmed_flush_lsn < 4 * 1024 * 1024)
	  FROM pg_replication_slots},
	'all slots to follow');
pass('slots of idle databases, and of busy tables that nobody wants, follow');
is($node->value('SELECT count(*) FROM _pipeline.backlog', db => 'idle'), 0, 'without a backlog');
$node->safe_psql('idle', 'INSERT INTO src VALUES (1)');
$node->caught_up('p', db => 'idle');
is($node->value('SELECT count(*) FROM dst', db => 'idle'), 1, 'and the idle one still works');

# The mover leaves a database that goes.
$node->safe_psql('idle', q{SELECT pipeline.stop('p'); CREATE TABLE big (note text)});
$node->safe_psql('idle', q{INSERT INTO src SELECT i FROM generate_series(1, 50000) i});
$node->poll(q{SELECT backlog_bytes > 0 FROM pipeline.status}, db => 'idle');
$node->safe_psql('postgres', 'DROP DATABASE idle');
$node->poll(q{SELECT count(*) = 1 FROM pg_replication_slots});
pass('a database is dropped under the mover');
$node->stop;
done_testing();
