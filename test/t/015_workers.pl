# Processes come and go: worker processes used up, the launcher terminated or
# killed, capture terminated in a loop, databases that allow no connections,
# owners with odd settings or without rights.  Back-off, a state that is visible,
# one log line a minute, and everything exactly once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 4
pipeline.worker_idle_timeout = 100ms
pipeline.max_segments = 3
CONF
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY);
CREATE TABLE dst_a (id int);
CREATE TABLE dst_b (id int);
SELECT pipeline.create_pipeline('a', source => 'src');
SELECT pipeline.add_output('a', 'dst_a');
SELECT pipeline.start('a');
SELECT pipeline.create_pipeline('b', source => 'src');
SELECT pipeline.add_output('b', 'dst_b');
SELECT pipeline.start('b');
SQL

sub write_rows
{
	$node->safe_psql('postgres', 'INSERT INTO src SELECT FROM generate_series(1, 10)');
	return;
}

sub is_done
{
	my ($name) = @_;

	$node->caught_up($_) for 'a', 'b';
	$node->same_rows("TABLE dst_$_", 'TABLE src', "$name: $_ has everything once") for 'a', 'b';
	return;
}

sub count_lines
{
	my ($pattern, $from) = @_;
	my @lines = grep { /$pattern/ } split /\n/, substr slurp_file($node->logfile), $from // 0;

	return scalar @lines;
}

# ---- no process is free -------------------------------------------------------

write_rows();
$node->reached('a', 'waiting');
$node->reached('b', 'waiting');
$node->let_pass(3);
is(count_lines(qr/WARNING: .*no free worker process/), 1, 'one line a minute says that no process is free');
$node->append_conf('postgresql.conf', 'max_worker_processes = 5');
$node->restart;
is_done('one process for two pipelines');

# Capture finds no process while the one that there is waits for a lock, and gets it
# after that.
$node->create_database('other', extension => 0);
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE dst_a, dst_b');
write_rows();
$node->poll(q{SELECT count(*) = 1 FROM pipeline.workers}, what => 'the worker');
$node->safe_psql('other', 'CREATE EXTENSION pipeline; CREATE TABLE src (id int)');
$node->poll(
	q{SELECT EXISTS (SELECT FROM _pipeline.databases() d JOIN pg_database b ON b.oid = d.database
	   WHERE datname = 'other' AND d.state = 'failed' AND last_error ~ 'no free worker process.*hint: ALTER SYSTEM SET max_worker_processes')},
	what => 'capture to find no process');
pass('a capture without a process says so');
$locker->query_safe('COMMIT');
$locker->quit;
$node->poll(q{SELECT count(*) = 1 FROM _pipeline.databases() d JOIN pg_database b ON b.oid = d.database
	WHERE datname = 'other' AND d.state = 'ready'}, what => 'capture to get a process');
pass('it starts when a worker has had its turn');
$node->append_conf('postgresql.conf', 'max_worker_processes = 13');
$node->restart;
is_done('after that');

# ---- launcher -----------------------------------------------------------------

for my $round (1 .. 2)
{
	my $pid = $node->process_pid('pipeline launcher', wait => 1);

	$node->poll('SELECT count(*) = 0 FROM pipeline.workers', what => 'the workers to end');
	$node->terminate_process('pipeline launcher');
	write_rows();
	is_done("launcher terminated, round $round");
	isnt($node->process_pid('pipeline launcher'), $pid, 'there is a new launcher');
}
$node->kill9_process('pipeline launcher');
$node->poll('SELECT true', what => 'the server');
write_rows();
is_done('launcher killed');

# ---- capture in a loop ----------------------------------------------------------

my $from = -s $node->logfile;
$node->append_conf('postgresql.conf', 'pipeline.batch_rows = 1');
$node->reload;
$node->safe_psql('postgres', 'INSERT INTO src SELECT FROM generate_series(1, 500)');
my $rounds = 0;
until ($node->value(q{SELECT count(*) > 0 FROM pipeline.status WHERE state = 'failed'}) eq 't')
{
	$node->safe_psql('postgres',
		q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pipeline capture' AND datname = 'postgres'});
	die 'never seen as failed' if $rounds++ > 2000;
}
like($node->value(q{SELECT last_error FROM pipeline.status WHERE pipeline = 'a'}),
	qr/capture process of this database ends again and again.*hint: The server's log has the reason/,
	'a capture that is ended in a loop is a state');
write_rows();
$node->append_conf('postgresql.conf', 'pipeline.batch_rows = 10000');
$node->reload;
is_done('capture terminated in a loop');
$node->reached('a', 'running');

SKIP:
{
	my ($rc) = $node->psql('postgres', q{SELECT _pipeline.failpoint_set('none', 'off')},
		stdout => \my $out, stderr => \my $err);
	skip 'needs a build with FAILPOINTS=1', 6 if $rc != 0;

	# Errors of its own: workers do what is in the spool, also such that have to
	# be started, and the log has one line.
	$from = -s $node->logfile;
	$node->failpoint_set('worker-before-commit', 'wait');
	write_rows();
	$node->failpoint_wait('worker-before-commit');
	my $rows = $node->value('SELECT count(*) FROM src');
	$node->poll(q{SELECT decoded_lsn >= wanted_lsn FROM _pipeline.databases() d JOIN pg_database b ON b.oid = d.database WHERE datname = 'postgres'},
		what => 'capture');
	$node->failpoint_set('capture-before-slot', 'error');
	$node->terminate_process('pipeline capture', db => 'postgres');
	$node->reached('a', 'failed');
	$node->safe_psql('postgres',
		q{SELECT pg_terminate_backend(pid) FROM pipeline.workers});
	$node->failpoint_clear('worker-before-commit');
	write_rows();
	$node->poll("SELECT (SELECT count(*) FROM dst_a) = $rows AND (SELECT count(*) FROM dst_b) = $rows",
		what => 'what is in the spool');
	pass('without capture workers do what is in the spool');
	$node->let_pass(4);
	is(count_lines(qr/ERROR: .*failpoint "capture-before-slot"/, $from), 1, 'one line of ours');
	$node->failpoint_clear('capture-before-slot');
	is_done('capture is back');
}

# ---- the last place ---------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE dst_c (id int);
SELECT pipeline.create_pipeline('c', source => 'src');
SELECT pipeline.add_output('c', 'dst_c');
SELECT pipeline.create_pipeline('d', source => 'src');
SELECT pipeline.add_output('d', 'dst_c');
SQL
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; SELECT pipeline.start('c')});
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT pipeline.start('d')});
like($err, qr/too many started pipelines.*HINT:  ALTER SYSTEM SET pipeline.max_segments/s,
	'the last place is taken by a start that is not committed');
$session->query_safe('ROLLBACK');
$session->query_safe(q{BEGIN; SAVEPOINT s; SELECT pipeline.start('c'); ROLLBACK TO s; COMMIT});
$session->quit;
$node->safe_psql('postgres', q{SELECT pipeline.start('d')});
($rc, $out, $err) = $node->psql('postgres', q{SELECT pipeline.start('c')});
like($err, qr/too many started pipelines/, 'it is free again after a rollback, and then taken');
write_rows();
$node->caught_up('d');
is_done('the last place');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('d'); SELECT pipeline.drop_pipeline('c')});

# ---- rights and settings of the owner -----------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE keeper LOGIN;
GRANT USAGE ON SCHEMA pipeline TO keeper;
GRANT CREATE ON SCHEMA public TO keeper;
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE postgres TO keeper;
ALTER ROLE keeper SET default_transaction_read_only = on;
ALTER ROLE keeper SET default_transaction_isolation = 'serializable';
ALTER ROLE keeper SET statement_timeout = '1ms';
ALTER ROLE keeper SET lock_timeout = '1ms';
ALTER ROLE keeper SET idle_in_transaction_session_timeout = '1ms';
ALTER ROLE keeper SET idle_session_timeout = '1ms';
ALTER ROLE keeper SET search_path = 'nowhere';
ALTER ROLE keeper SET standard_conforming_strings = off;
ALTER ROLE keeper SET quote_all_identifiers = on;
ALTER ROLE keeper SET array_nulls = off;
ALTER ROLE keeper SET force_parallel_mode = on;
ALTER DATABASE postgres SET lock_timeout = '1ms';
SET SESSION AUTHORIZATION keeper;
CREATE TABLE kept_src (id int, v text);
CREATE TABLE kept_dst (id int, v text);
SELECT pipeline.create_pipeline('kept', source => 'kept_src');
SELECT pipeline.add_stage('kept', 'q', 'transform', query => $$SELECT id, v || '\x' AS v FROM event WHERE v <> 'a''b'$$);
SELECT pipeline.add_output('kept', 'kept_dst');
SELECT pipeline.start('kept');
INSERT INTO kept_src SELECT n, 'v' || n FROM generate_series(1, 1000) n;
SQL
$node->caught_up('kept');
$node->same_rows('TABLE kept_dst', q{SELECT id, v || '\x' FROM kept_src}, 'odd settings of the owner do no harm');
$node->let_pass(2.1);
$node->terminate_process('pipeline capture', db => 'postgres');
$node->safe_psql('postgres', q{INSERT INTO kept_src VALUES (-1, 'x')});
$node->caught_up('kept');
pass('nor those of the database');

for my $case (
	[ 'REVOKE CONNECT ON DATABASE postgres FROM keeper', 'GRANT CONNECT ON DATABASE postgres TO keeper' ],
	[ 'ALTER ROLE keeper NOLOGIN', 'ALTER ROLE keeper LOGIN' ])
{
	$node->poll('SELECT count(*) = 0 FROM pipeline.workers', what => 'the workers to end');
	$node->safe_psql('postgres', "$case->[0]; INSERT INTO kept_src VALUES (0, 'x')");
	$node->reached('kept', 'failed');
	like($node->value(q{SELECT last_error FROM pipeline.status WHERE pipeline = 'kept'}),
		qr/could not connect as the owner.*hint/, "$case->[0]: it says so");
	write_rows();
	is_done("$case->[0]: others");
	$node->safe_psql('postgres', $case->[1]);
	$node->caught_up('kept');
	pass("$case->[1]: it goes on");
}
$node->poll('SELECT count(*) = 0 FROM pipeline.workers', what => 'the workers to end');
$node->safe_psql('postgres', q{ALTER DATABASE postgres CONNECTION LIMIT 0; ALTER ROLE keeper CONNECTION LIMIT 0; INSERT INTO kept_src VALUES (0, 'x')});
$node->poll(q{SELECT (SELECT count(*) FROM kept_dst) = (SELECT count(*) FROM kept_src)}, what => 'kept_dst');
pass('connection limits do not count');
$node->safe_psql('postgres', q{ALTER DATABASE postgres CONNECTION LIMIT -1});

# ---- no connections -------------------------------------------------------------------

$node->append_conf('postgresql.conf', 'pipeline.max_segments = 8');
$node->restart;

$node->safe_psql('other', <<'SQL');
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1);
SQL
$node->caught_up('p', db => 'other');
my $done = $node->value('SELECT pg_current_wal_lsn()');
$node->poll("SELECT pg_switch_wal() IS NOT NULL AND confirmed_flush_lsn >= '$done' FROM pg_replication_slots WHERE database = 'other'",
	what => 'the slot to be confirmed');
$node->safe_psql('postgres', 'ALTER DATABASE other ALLOW_CONNECTIONS false');
$node->restart;
my $lsn = $node->value('SELECT pg_current_wal_lsn()');
$node->safe_psql('postgres', 'SELECT pg_switch_wal(); INSERT INTO src DEFAULT VALUES; CHECKPOINT') for 1 .. 2;
$node->poll("SELECT count(*) = 1 FROM pg_replication_slots WHERE database = 'other' AND active AND confirmed_flush_lsn > '$lsn'",
	what => 'the slot of a database that allows no connections');
pass('the slot of a database that allows no connections moves on');
$node->safe_psql('postgres', 'ALTER DATABASE other ALLOW_CONNECTIONS true');
$node->safe_psql('other', 'INSERT INTO src VALUES (2)');
$node->caught_up('p', db => 'other');
$node->same_rows('TABLE dst', 'TABLE src', db => 'other', 'and it goes on when it allows them');

$node->stop;
done_testing();
