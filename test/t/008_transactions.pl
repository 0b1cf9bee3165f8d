# A transaction of the source is one unit, whatever it is made of: savepoints,
# many subtransactions, a prepared transaction, more rows than fit into several
# batches, which nobody ever sees half of, also when capture or the worker ends
# in the middle of it.  A worker is not disturbed by what is set for its owner
# or its database, and nothing that a handler leaves behind in the session is
# there in the next batch.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
pipeline.batch_rows = 2000
pipeline.worker_idle_timeout = 0
CONF

# ---- subtransactions and prepared transactions ------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int, note text);
CREATE TABLE dst (id int, note text);
CREATE FUNCTION gate(s src) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	IF s.note = 'gate' THEN
		PERFORM pg_advisory_xact_lock_shared(4711);
	END IF;
	RETURN true;
END $$;
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'gate', 'validate', 'gate(src)');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL

sub comes_out
{
	my ($name) = @_;

	$node->poll('SELECT (SELECT count(*) FROM dst) = (SELECT count(*) FROM src)',
		what => "the rows in the output: $name");
	$node->same_rows('TABLE dst', 'TABLE src', $name);
	$node->ledger_balanced('p', "$name, and the ledger is balanced");
	return;
}

# Everything of one transaction of the source is in one of the worker's.
sub one_transaction
{
	my ($where, $name) = @_;

	return is($node->value("SELECT count(DISTINCT xmin::text) FROM dst WHERE $where"), '1', $name);
}

$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src VALUES (1, 'kept');
SAVEPOINT a;
INSERT INTO src VALUES (2, 'undone');
SAVEPOINT b;
INSERT INTO src VALUES (3, 'undone with what is around it');
RELEASE b;
ROLLBACK TO a;
INSERT INTO src VALUES (4, 'kept');
SAVEPOINT b;
INSERT INTO src VALUES (5, 'kept');
RELEASE a;
COMMIT;
BEGIN;
INSERT INTO src VALUES (6, 'rolled back');
SAVEPOINT a;
INSERT INTO src VALUES (7, 'rolled back');
ROLLBACK;
SQL
comes_out('savepoints');
one_transaction('id IN (1, 4, 5)', 'savepoints are of one transaction');

# More subtransactions than fit into shared memory, nested and one after
# another, some of them without a row.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION nested(n int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO src VALUES (n, 'nested');
	IF n > 1000 THEN
		PERFORM nested(n - 1);
	END IF;
	IF n % 7 = 0 THEN
		RAISE EXCEPTION 'undo';
	END IF;
EXCEPTION WHEN raise_exception THEN
	IF n % 2 = 0 THEN
		INSERT INTO src VALUES (n, 'instead');
	END IF;
END $$;
DO $$
BEGIN
	FOR i IN 100..500 LOOP
		BEGIN
			INSERT INTO src VALUES (i, 'subtransaction');
			IF i % 3 = 0 THEN
				RAISE EXCEPTION 'undo';
			END IF;
		EXCEPTION WHEN raise_exception THEN
			NULL;
		END;
	END LOOP;
	PERFORM nested(1110);
END $$;
SQL
comes_out('many subtransactions');
one_transaction('id BETWEEN 100 AND 1200', 'subtransactions are of one transaction');

# Prepared transactions: nothing of them comes out before COMMIT PREPARED.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src VALUES (2001, 'prepared');
SAVEPOINT a;
INSERT INTO src VALUES (2002, 'undone');
ROLLBACK TO a;
INSERT INTO src VALUES (2003, 'prepared');
PREPARE TRANSACTION 'commit';
BEGIN;
INSERT INTO src VALUES (2004, 'prepared');
PREPARE TRANSACTION 'rollback';
INSERT INTO src VALUES (2005, 'between');
SQL
comes_out('prepared transactions hold nobody up');
$node->safe_psql('postgres', <<'SQL');
COMMIT PREPARED 'commit';
ROLLBACK PREPARED 'rollback';
SQL
comes_out('COMMIT PREPARED brings its rows, and wakes who is asleep');
one_transaction('id IN (2001, 2003)', 'a prepared transaction is one');

# Prepared before a restart, committed after it.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src VALUES (2006, 'prepared before a restart');
PREPARE TRANSACTION 'later';
INSERT INTO src VALUES (2007, 'between');
SQL
comes_out('another one that is prepared');
$node->restart;
$node->safe_psql('postgres', q{COMMIT PREPARED 'later'});
comes_out('it is committed after a restart');

# ---- a large transaction ----------------------------------------------------

# Look at the output until it has all rows; gives how many it had meanwhile.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION seen_until(rows bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
	seen bigint[];
	n bigint;
BEGIN
	FOR i IN 1..1000000 LOOP
		SELECT count(*) INTO n FROM dst;
		IF seen IS NULL OR n <> seen[cardinality(seen)] THEN
			seen := seen || n;
		END IF;
		EXIT WHEN n >= rows;
	END LOOP;
	RETURN seen;
END $$;
SQL

$node->safe_psql('postgres', 'TRUNCATE src, dst');
$node->safe_psql('postgres',
	q{INSERT INTO src SELECT n, 'large' FROM generate_series(1, 200000) n});
is($node->value(q{SET statement_timeout = '120s'; SELECT seen_until(200000)}),
	'{0,200000}', 'nobody sees half of a large transaction');
one_transaction('true', 'it is one transaction');
$node->same_rows('TABLE dst', 'TABLE src', 'and all is there');
cmp_ok($node->value('SELECT max(events) FROM pipeline.batches'), '<=', 2000, 'in many small parts');
$node->ledger_balanced('p', 'the ledger is balanced after a large transaction');

# Others wrote meanwhile, and it has subtransactions; capture and then the
# worker end while the worker stands in the middle of it.
for my $round (1 .. 2)
{
	my $gate = $node->background_psql('postgres');
	my $other = $node->background_psql('postgres');

	$node->safe_psql('postgres', 'TRUNCATE src, dst');
	$gate->query_safe('SELECT pg_advisory_lock(4711)');
	$other->query_safe(q{BEGIN; INSERT INTO src VALUES (-1, 'begun before, committed after')});
	$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src SELECT n, 'large' FROM generate_series(1, 30000) n;
SAVEPOINT a;
INSERT INTO src VALUES (-2, 'gate');
SAVEPOINT b;
INSERT INTO src SELECT n, 'undone' FROM generate_series(1, 1000) n;
ROLLBACK TO b;
INSERT INTO src SELECT n, 'large' FROM generate_series(30001, 40000) n;
COMMIT;
INSERT INTO src VALUES (-3, 'after it');
SQL
	$other->query_safe('COMMIT');
	my $stands = q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
		WHERE l.locktype = 'advisory' AND NOT l.granted AND a.backend_type = 'pipeline worker'};
	$node->poll($stands, what => 'the worker in the middle');
	is($node->value('SELECT count(*) FROM dst'), '0', "the worker is in the middle, round $round");
	is($node->value(q{SELECT pipeline.wait_for('p', timeout => '100 ms')}),
		'f', "wait_for is not true in the middle, round $round");
	$node->terminate_process('pipeline capture');
	$node->process_pid('pipeline capture', wait => 1);
	if ($round == 2)
	{
		$node->terminate_process('pipeline worker');
		$node->poll($stands, what => 'another worker in the middle');
	}
	$gate->query_safe('SELECT pg_advisory_unlock(4711)');
	is( $node->value(q{SET statement_timeout = '60s'; SELECT seen_until(40003)}) =~
		  s/^\{(0,)?40001,40002,40003|^\{(0,)?4000[123]|,4000[123]//gr,
		'}', "nobody saw half of it, round $round");
	comes_out("capture ended in the middle, round $round");
	one_transaction('id > 0 OR id = -2', "it is one transaction, round $round");
	$_->quit for $gate, $other;
}

# Capture ends again and again while it decodes.
$node->safe_psql('postgres', 'TRUNCATE src, dst');
for my $round (1 .. 5)
{
	$node->safe_psql('postgres',
		"INSERT INTO src SELECT n, 'round $round' FROM generate_series(1, 20000) n");
	$node->terminate_process('pipeline capture');
}
comes_out('capture ended while it decoded');
is($node->value('SELECT count(*) FROM (SELECT FROM dst GROUP BY note HAVING count(DISTINCT xmin::text) > 1) s'),
	'0', 'each was one transaction');

# ---- settings of owner and database -----------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE bob LOGIN;
CREATE ROLE alice LOGIN IN ROLE bob;
GRANT USAGE ON SCHEMA pipeline TO alice;
CREATE SCHEMA alice AUTHORIZATION alice;
SET ROLE alice;
SET search_path = alice;
CREATE TABLE src (id int, t timestamptz, b bytea);
CREATE TABLE dst (id int, t text, b text, trigger text, who text, settings text);
CREATE TABLE lookup (id int);
INSERT INTO lookup VALUES (1), (2), (3);
CREATE FUNCTION fired() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN NEW.trigger := 'fired'; RETURN NEW; END $$;
CREATE TRIGGER fired BEFORE INSERT ON dst FOR EACH ROW EXECUTE FUNCTION fired();
CREATE FUNCTION handle(s src) RETURNS SETOF dst LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	PERFORM set_config('search_path', current_setting('search_path'), false);
	RETURN QUERY SELECT l.id, s.t::text, E'\\'::text, NULL::text,
		concat_ws(' ', session_user, current_user),
		concat_ws(' ', current_setting('search_path'), current_setting('transaction_isolation'),
			current_setting('transaction_read_only'), current_setting('session_replication_role'))
		FROM lookup l WHERE l.id = s.id;
END $$;
SELECT pipeline.create_pipeline('alice', source => 'src');
SELECT pipeline.add_stage('alice', 'handle', 'transform', 'handle(src)');
SELECT pipeline.add_output('alice', 'dst');
RESET ROLE;
RESET search_path;
ALTER ROLE alice SET search_path = nowhere;
ALTER ROLE alice SET role = bob;
ALTER ROLE alice SET default_transaction_read_only = on;
ALTER ROLE alice SET default_transaction_isolation = serializable;
ALTER ROLE alice SET default_transaction_deferrable = on;
ALTER ROLE alice SET session_replication_role = replica;
ALTER ROLE alice SET row_security = off;
ALTER ROLE alice SET statement_timeout = '1ms';
ALTER ROLE alice SET lock_timeout = '1ms';
ALTER ROLE alice SET idle_in_transaction_session_timeout = '1ms';
ALTER ROLE alice SET idle_session_timeout = '1ms';
ALTER ROLE alice SET standard_conforming_strings = off;
ALTER ROLE alice SET quote_all_identifiers = on;
ALTER ROLE alice SET transform_null_equals = on;
ALTER ROLE alice SET client_encoding = latin1;
ALTER ROLE alice SET default_tablespace = nowhere;
ALTER ROLE alice SET temp_tablespaces = nowhere;
ALTER ROLE alice SET synchronous_commit = remote_apply;
ALTER ROLE alice SET check_function_bodies = off;
ALTER ROLE alice SET debug_discard_caches = 0;
ALTER ROLE alice SET force_parallel_mode = on;
ALTER ROLE alice SET cursor_tuple_fraction = 0.1;
ALTER ROLE alice SET plan_cache_mode = force_custom_plan;
SELECT pipeline.start('alice');
SQL
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE alice.dst IN SHARE MODE');
$node->safe_psql('postgres',
	q{INSERT INTO alice.src SELECT n, '2026-02-13 12:00:00+00', '\x5c' FROM generate_series(1, 3) n});
$node->poll(
	q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	   WHERE NOT l.granted AND a.backend_type = 'pipeline worker'},
	what => 'the worker to wait for a lock');
$holder->query_safe('COMMIT');
$holder->quit;
$node->caught_up('alice');
$node->same_rows(
	'SELECT id, b, trigger, who, settings FROM alice.dst',
	q{SELECT n, '\\', 'fired', 'alice alice', 'alice read committed off origin'
	    FROM generate_series(1, 3) n},
	'settings of the owner do not disturb the worker');
is($node->value(q{SELECT retries FROM pipeline.workers WHERE pipeline = 'alice'}),
	'0', 'it had to try nothing again');
is($node->value('SELECT count(*) FROM pipeline.dead_letters'), '0', 'and blamed nobody');

# What stands in the way of capture.
$node->safe_psql('postgres', <<'SQL');
CREATE DATABASE strict;
ALTER DATABASE strict SET default_transaction_read_only = on;
ALTER DATABASE strict SET default_transaction_isolation = serializable;
ALTER DATABASE strict SET default_transaction_deferrable = on;
ALTER DATABASE strict SET search_path = nowhere;
ALTER DATABASE strict SET role = bob;
ALTER DATABASE strict SET session_replication_role = replica;
ALTER DATABASE strict SET statement_timeout = '1ms';
SQL
{
	local $ENV{PGOPTIONS} = '-c default_transaction_read_only=off -c statement_timeout=60s'
	  . ' -c default_transaction_isolation=read\ committed -c search_path=public -c role=none';

	$node->create_extension(db => 'strict');
	$node->safe_psql('strict', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1), (2);
SQL
	$node->caught_up('p', db => 'strict');
	$node->same_rows('TABLE dst', 'TABLE src', db => 'strict',
		'settings of the database disturb neither capture nor worker');
	$node->restart;
	$node->safe_psql('strict', 'INSERT INTO src VALUES (3)');
	$node->caught_up('p', db => 'strict');
	$node->same_rows('TABLE dst', 'TABLE src', db => 'strict', 'nor after a restart');
}

# ---- what a handler leaves behind -------------------------------------------

# Says what it finds, and then leaves as much as it can.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE leak_src (id int, what text);
CREATE TABLE leak_dst (id int, found text);
CREATE FUNCTION leave(s leak_src) RETURNS SETOF leak_dst LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	seen text := concat_ws(' ',
		'table', to_regclass('pg_temp.left_behind') IS NOT NULL,
		'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
		'prepared', (SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'),
		'cursors', (SELECT count(*) FROM pg_cursors WHERE name = 'left_behind'),
		'work_mem', current_setting('work_mem'),
		'custom', coalesce(current_setting('test.leak', true), ''),
		'search_path', current_setting('search_path'),
		'role', current_user, session_user,
		'replica', current_setting('session_replication_role'),
		'read_only', current_setting('default_transaction_read_only'));
BEGIN
	IF s.what IN ('session', 'error') THEN
		CREATE TEMP TABLE left_behind AS SELECT 1 AS a;
		PERFORM pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_xact_lock(3);
		EXECUTE 'PREPARE left_behind AS SELECT 1';
		EXECUTE 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1';
	ELSIF s.what IN ('settings', 'settings and error') THEN
		SET work_mem = '77MB';
		SET test.leak = 'yes';
		SET search_path = 'nowhere';
		SET session_replication_role = replica;
		SET default_transaction_read_only = on;
		SET ROLE bob;
	END IF;
	IF s.what ~ 'error' THEN
		RAISE EXCEPTION 'an error after that';
	END IF;
	RETURN QUERY SELECT s.id, seen;
END $$;
SELECT pipeline.create_pipeline('leak', source => 'leak_src');
SELECT pipeline.add_stage('leak', 'leave', 'transform', 'leave(leak_src)');
SELECT pipeline.add_output('leak', 'leak_dst');
SELECT pipeline.start('leak');
GRANT INSERT ON leak_dst TO bob;
INSERT INTO leak_src VALUES (0, 'nothing');
SQL
$node->caught_up('leak');
my $pid = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'leak'});
my $clean = $node->value('SELECT found FROM leak_dst WHERE id = 0');
is( $clean =~ s/search_path .*? role \S+ \S+ //r,
	'table f locks 0 prepared 0 cursors 0 work_mem 4MB custom  replica origin read_only off',
	'a new session is clean');
my $id = 1;
for my $what ('session', 'error', 'settings', 'settings and error', 'session', 'error')
{
	$node->safe_psql('postgres', "INSERT INTO leak_src VALUES ($id, '$what')");
	$node->caught_up('leak');
	$id++;
	$node->safe_psql('postgres', "INSERT INTO leak_src VALUES ($id, 'nothing')");
	$node->caught_up('leak');
	is($node->value("SELECT found FROM leak_dst WHERE id = $id"),
		$clean, "nothing is left behind by: $what");
	is( $node->value(
			"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $pid"),
		'0', "and no lock is held while the worker is idle: $what");
	$id++;
}
is($node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'leak'}),
	$pid, 'all that in one worker');
$node->same_rows(
	q{SELECT (event->>'id')::int, kind, reason FROM pipeline.dead_letters},
	q{SELECT id, 'failed', 'an error after that' FROM leak_src WHERE what ~ 'error'},
	'only the errors are dead letters');

$node->stop;
done_testing();
