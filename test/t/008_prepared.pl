# Transactions of every shape: a first start that is prepared; prepared
# transactions that other sessions end, also after a restart and a crash; more
# subtransactions than the server keeps at hand; and a transaction of 200 000
# rows, which is larger than a batch: a reader sees none or all of it, in one
# step, also if the worker, capture or the server ends in the middle of it, and
# the worker does not grow with it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => "max_prepared_transactions = 100\n");

sub capture
{
	return $node->process_pid('pipeline capture', wait => 1);
}

# ---- a first start that is prepared -----------------------------------------

# In a database without a started pipeline nobody's commit wakes capture, but
# the commit of a definition must, also when another session makes it.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, v text);
CREATE TABLE dst (id int PRIMARY KEY, v text);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SQL
$node->asleep(capture());
$node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT pipeline.start('p');
PREPARE TRANSACTION 'start';
SQL
$node->asleep(capture());
$node->safe_psql('postgres', q{INSERT INTO src VALUES (1, 'before')});
$node->safe_psql('postgres', q{COMMIT PREPARED 'start'});
$node->safe_psql('postgres', q{INSERT INTO src VALUES (2, 'after')});
$node->poll('SELECT count(*) = 1 FROM dst', what => 'the row after the start');
$node->same_rows('TABLE dst', 'SELECT * FROM src WHERE id = 2',
	'a prepared first start holds from COMMIT PREPARED on');


# ---- prepared transactions --------------------------------------------------

# Each row is enriched by another one that its own transaction wrote.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.drop_pipeline('p');
TRUNCATE src, dst;
CREATE TABLE names (id int PRIMARY KEY, name text);
CREATE FUNCTION named(s src) RETURNS SETOF dst LANGUAGE sql STABLE AS
$$ SELECT s.id, n.name || ' ' || s.v FROM names n WHERE n.id = s.id $$;
CREATE FUNCTION write(first int, last int) RETURNS void LANGUAGE sql VOLATILE AS $$
INSERT INTO names SELECT n, 'name ' || n FROM generate_series(first, last) n;
INSERT INTO src SELECT n, 'row ' || n FROM generate_series(first, last) n $$;
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'name', 'enrich', 'named(src)');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL

sub right
{
	my ($name) = @_;

	$node->caught_up('p');
	$node->same_rows('TABLE dst', q{SELECT id, 'name ' || id || ' row ' || id FROM src}, $name);
	is($node->value(q{SELECT count(*) FROM pipeline.dead_letters WHERE pipeline = 'p'}),
		'0', "$name: no dead letters");
	$node->ledger_balanced('p', "$name: the ledger is balanced");
	return;
}

sub prepare
{
	my ($gid, @statements) = @_;

	$node->safe_psql('postgres',
		join(";\n", 'BEGIN', @statements, "PREPARE TRANSACTION '$gid'"));
	return;
}

prepare('a', 'SELECT write(1, 3)');
prepare('b', 'SELECT write(4, 6)', 'SAVEPOINT s', 'SELECT write(7, 9)', 'ROLLBACK TO s',
	'SELECT write(10, 12)');
prepare('c', 'SELECT write(13, 15)');
prepare('d', 'SELECT write(16, 18)');
prepare('e', 'SELECT write(19, 21)');
$node->safe_psql('postgres', 'SELECT write(30, 30)');
right('a prepared transaction holds up nobody');
is($node->value('SELECT count(*) FROM dst'), '1', 'and is no event before it is committed');

$node->safe_psql('postgres', q{COMMIT PREPARED 'b'; ROLLBACK PREPARED 'c'; COMMIT PREPARED 'a'});
right('committed and rolled back by another session');
is( $node->value(
		q{SELECT string_agg(source_key->>'id', ' ' ORDER BY commit_lsn, seq)
		    FROM pipeline.lineage WHERE pipeline = 'p'}),
	'30 4 5 6 10 11 12 1 2 3',
	'in the order of the commits');

$node->restart;
$node->safe_psql('postgres', q{COMMIT PREPARED 'd'});
right('prepared before a restart, committed after it');

$node->kill9_server;
$node->safe_psql('postgres', q{SET synchronous_commit = off; COMMIT PREPARED 'e'});
right('prepared before a crash, committed after it');
is($node->value('SELECT count(*) FROM dst'), '16', 'all of them came');

# ---- subtransactions --------------------------------------------------------

# More than 64, so that snapshots do not know all of them; every third is
# rolled back.
my $subtransactions = <<'SQL';
DO $$ BEGIN
  FOR n IN %d..%d LOOP
    BEGIN
      PERFORM write(n, n);
      IF n %% 3 = 0 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END $$;
SQL
$node->safe_psql('postgres', sprintf($subtransactions, 1001, 1300));
right('300 subtransactions');
prepare('s', sprintf($subtransactions, 2001, 2200));
$node->safe_psql('postgres', q{COMMIT PREPARED 's'});
right('200 subtransactions, prepared');
is($node->value('SELECT count(*) FROM dst WHERE id > 1000'), '333', 'two of three came');
my $nested = join "\n", map { "SAVEPOINT s$_; SELECT write(" . (3000 + $_) . ', ' . (3000 + $_) . ');' } 1 .. 100;
$node->safe_psql('postgres', "BEGIN;\n$nested\nROLLBACK TO s51; RELEASE s20; COMMIT;");
right('100 subtransactions, one in the other');
is($node->value('SELECT count(*) FROM dst WHERE id > 3000'), '50', 'the outer half came');

# ---- a large transaction ----------------------------------------------------

$node->append_conf('postgresql.conf', 'pipeline.batch_rows = 2000');
$node->reload;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE large (id int PRIMARY KEY, v text, part int NOT NULL);
CREATE TABLE large_out (id int PRIMARY KEY, v text CHECK (v <> 'bad'), part int NOT NULL);
CREATE FUNCTION valid(l large) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN l.v = 'invalid' THEN 'invalid' END $$;
SELECT pipeline.create_pipeline('large', source => 'large');
SELECT pipeline.add_stage('large', 'check', 'validate', 'valid(large)');
SELECT pipeline.add_output('large', 'large_out');
SELECT pipeline.start('large');

-- Look again and again until a transaction is there, and never see a part.
CREATE FUNCTION watch(which int, rows bigint) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  n bigint;
  seen text := '';
  until timestamptz := clock_timestamp() + interval '90 s';
BEGIN
  LOOP
    SELECT count(*) INTO n FROM large_out WHERE part = which;
    IF n <> 0 AND n <> rows THEN RETURN 'saw ' || n; END IF;
    IF n = rows THEN RETURN 'all at once'; END IF;
    IF clock_timestamp() > until THEN RETURN 'timed out'; END IF;
  END LOOP;
END $$;
SQL

sub anonymous_memory
{
	my $pid = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'large'});
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	return ($pid, $kb);
}

sub large_rows
{
	my ($part, $n) = @_;
	my $first = $part * 1000000;
	return "INSERT INTO large SELECT $first + n,
	  CASE n WHEN 100001 THEN 'bad' WHEN 100002 THEN 'invalid' ELSE md5(n::text) END, $part
	  FROM generate_series(1, $n) n";
}

sub watch
{
	my ($part, $rows) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_until(qr/^watching$/m, "\\echo watching\nSELECT watch($part, $rows);\n");
	return $session;
}

sub watched
{
	my ($session, $name) = @_;
	my $seen = $session->query(q{SELECT ''});
	$session->quit;
	like($seen, qr/all at once/, $name);
	return;
}

# First a small one, which has the worker load what it needs.
$node->safe_psql('postgres', large_rows(1, 5000));
$node->caught_up('large');
my ($pid, $before) = anonymous_memory();

my $session = watch(2, 199998);
$node->safe_psql('postgres', large_rows(2, 200000));
watched($session, '200 000 rows in one transaction, in many statements, become visible at once');
$node->caught_up('large');
my ($same, $after) = anonymous_memory();
is($same, $pid, 'the worker is the same');
cmp_ok($after - $before, '<', 32 * 1024, 'and has not grown with the transaction (kB)');
is( $node->value(
		q{SELECT string_agg(concat_ws(' ', kind, event->>'id', reason, sqlstate), ', ' ORDER BY kind)
		    FROM pipeline.dead_letters WHERE pipeline = 'large'}),
	'failed 2100001 new row for relation "large_out" violates check constraint "large_out_v_check" 23514, '
	  . 'rejected 2100002 invalid',
	'the bad rows of it are dead letters');

# Other transactions run and commit meanwhile, of this source and another one.
$session = watch(3, 100000);
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; ' . large_rows(3, 50000));
$node->safe_psql('postgres', large_rows(4, 10) . '; SELECT write(9001, 9003)');
$node->caught_up('large');
$node->caught_up('p');
is($node->value('SELECT count(*) FROM large_out WHERE part = 4'), '10',
	'a transaction that is not committed holds up nobody');
$writer->query_safe('INSERT INTO large SELECT 3500000 + n, $$x$$, 3 FROM generate_series(1, 50000) n; COMMIT');
$writer->quit;
watched($session, 'written in two statements, another transaction in between: at once');

# What ends in the middle of it.
my $part = 5;
for my $what ('worker', 'capture', 'server, killed', 'server, stopped')
{
	my $dead = $node->value('SELECT count(*) FROM pipeline.dead_letters');
	$node->safe_psql('postgres', large_rows($part, 200000));
	# The second chunk is under way: the worker has written rows nobody sees.
	$node->poll(
		q{SELECT count(*) > 0 FROM pg_stat_activity a JOIN pg_locks l USING (pid)
		   WHERE a.backend_type = 'pipeline worker' AND l.relation = 'large_out'::regclass
		     AND l.mode = 'RowExclusiveLock'},
		what => 'the worker to write');
	if ($what =~ /server/)
	{
		$what =~ /killed/ ? $node->kill9_server : $node->restart;
	}
	else
	{
		my $pid = $what eq 'worker'
		  ? $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'large'})
		  : capture();
		$node->value("SELECT pg_terminate_backend($pid, 60000)");
	}
	$session = watch($part, 199998);
	watched($session, "the $what ends in the middle: at once, later");
	$node->caught_up('large');
	is($node->value('SELECT count(*) FROM pipeline.dead_letters'), $dead + 2,
		'and the bad rows are dead letters once');
	$part++;
}

# A prepared one, which is rolled back, and one that is committed.
prepare('large', large_rows(20, 200000));
prepare('larger', large_rows(21, 100000));
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'large'; COMMIT PREPARED 'larger'});
$node->caught_up('large');

$node->same_rows('TABLE large_out', q{SELECT * FROM large WHERE v NOT IN ('bad', 'invalid')},
	'in the end all is right');
$node->ledger_balanced('large', 'and the ledger is balanced');
is($node->value(q{SELECT events - (SELECT count(*) FROM large) FROM pipeline.ledger('large')}),
	'0', 'with every event in it');
right('and the other pipeline was not disturbed');
$node->stop;
done_testing();
