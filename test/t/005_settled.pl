# An event is processed when its transaction is visible, not when it is decoded:
# a commit that hangs, because it waits for a synchronous standby that does not
# answer, is in the WAL, durable and decoded, but nobody sees its rows.  An
# enrichment that reads another row of the same transaction finds it once the
# commit is released, wait_for is not true for rows that one cannot see, and
# whoever stops, drops or changes the pipeline meanwhile does not hang.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE orders (id int PRIMARY KEY);
CREATE TABLE lines (order_id int, article text);
CREATE TABLE dst (id int PRIMARY KEY, articles text, line_xmin xid);
CREATE TABLE plain (id int PRIMARY KEY);

-- Without lines there is no row: the event would be rejected as "no match".
CREATE FUNCTION with_lines(o orders) RETURNS SETOF dst LANGUAGE sql STABLE AS
$$ SELECT o.id, string_agg(l.article, '+' ORDER BY l.article), max(l.xmin::text)::xid
     FROM lines l WHERE l.order_id = o.id HAVING count(*) > 0 $$;
SELECT pipeline.create_pipeline('p', source => 'orders');
SELECT pipeline.add_stage('p', 'lines', 'enrich', 'with_lines(orders)');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SELECT pipeline.create_pipeline('plain', source => 'orders');
SELECT pipeline.add_output('plain', 'plain');
SELECT pipeline.start('plain');
INSERT INTO lines VALUES (1, 'a'), (1, 'b');
INSERT INTO orders VALUES (1);
SQL
$node->caught_up($_) for 'p', 'plain';

# Only some commits are to hang.
$ENV{PGOPTIONS} = '-c synchronous_commit=local';

# Commits are waited for from here on, or no longer.
sub synchronous
{
	my ($names) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$node->reload;
	$node->poll("SELECT current_setting('synchronous_standby_names') = '$names'",
		what => 'synchronous_standby_names');
	return;
}

# Start a transaction whose commit does not return.  Gives the session.
sub hanging_commit
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres');
	my $pid = $session->query_safe('SET synchronous_commit = on; SELECT pg_backend_pid()');

	$session->{stdin} .= "$sql;\n\\echo released\n";
	$session->{run}->pump_nb;
	$node->poll("SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid",
		what => 'a commit that hangs');
	return $session;
}

# Wait until the commits are released, and end the sessions.
sub released
{
	my (@sessions) = @_;

	for my $session (@sessions)
	{
		$session->query_until(qr/^released$/m, '');
		$session->quit;
	}
	return;
}

# All that is committed is in the spool.  A commit that hangs does not wake
# capture yet, but wait_for does.
sub decoded
{
	my $lsn = $node->value('SELECT pg_current_wal_flush_lsn()');

	$node->poll(
		"SELECT CASE WHEN pipeline.wait_for('p', timeout => '1 ms') IS NOT NULL
		             THEN (SELECT decoded_lsn >= '$lsn' FROM _pipeline.databases()) END",
		what => 'capture to decode');
	return;
}

# A worker waits for a transaction to become visible.
sub worker_waits
{
	my ($count) = @_;

	return $node->poll(
		"SELECT count(*) = $count FROM pg_stat_activity
		  WHERE backend_type = 'pipeline worker' AND wait_event_type = 'Lock'
		    AND wait_event = 'transactionid'",
		what => 'the workers to wait for the transaction');
}

sub wait_for
{
	my ($pipeline, $lsn) = @_;

	$lsn //= 'NULL';
	return $node->value("SELECT pipeline.wait_for('$pipeline', $lsn, '500 ms')");
}

# ---- a commit that hangs ----------------------------------------------------

my $two = q{BEGIN; INSERT INTO orders VALUES (2); INSERT INTO lines VALUES (2, 'c'), (2, 'd'); COMMIT};

synchronous('nobody');
my $hanging = hanging_commit($two);
my $lsn = $node->value('SELECT pg_current_wal_flush_lsn()');
decoded();
worker_waits(2);
is($node->value('SELECT count(*) FROM orders WHERE id = 2'), '0', 'the row is decoded, but invisible');
is(wait_for('p'), 'f', 'wait_for is not true for a row that one cannot see');
is(wait_for('p', "'$lsn'"), 'f', 'nor is it for a position behind its commit');
is(wait_for('plain'), 'f', 'of any pipeline');
is($node->value('SELECT count(*) FROM dst WHERE id = 2'), '0', 'nothing of it came out');
is($node->value('SELECT count(*) FROM plain WHERE id = 2'), '0', 'of either pipeline');
is( $node->value(
		q{SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '}
		  . $lsn . q{'}),
	'0', 'and its WAL is kept');

# Rows behind it come later; what is before it is there.
$node->safe_psql('postgres', q{INSERT INTO lines VALUES (3, 'e'); INSERT INTO orders VALUES (3)});
decoded();
is(wait_for('plain'), 'f', 'a later row that is visible waits for it: commit order');
ok($node->value("SELECT pipeline.wait_for('p', (SELECT min(commit_lsn) FROM pipeline.lineage), '5 s')"),
	'wait_for is true for what was before it');

# Whoever is not in the middle of it goes on.
my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM orders');
synchronous('');
released($hanging);
$node->caught_up($_) for 'p', 'plain';
$node->same_rows(
	'SELECT id, articles FROM dst',
	q{VALUES (1, 'a+b'), (2, 'c+d'), (3, 'e')},
	'the enrichment found the rows of the same transaction');
is($node->value('SELECT line_xmin = o.xmin FROM dst JOIN orders o USING (id) WHERE id = 2'),
	't', 'which are of the same transaction');
is($reader->query_safe('SELECT count(*) FROM orders WHERE id = 2'), '0', 'a snapshot of before does not matter');
$reader->query_safe('COMMIT');
$reader->quit;
is($node->value('SELECT count(*) FROM pipeline.dead_letters'), '0', 'nobody was rejected');
$node->ledger_balanced('p', 'the ledger is balanced');

# ---- many that hang, also prepared ones -------------------------------------

synchronous('nobody');
my @hanging = map { hanging_commit($_) } (
	q{BEGIN; SAVEPOINT a; INSERT INTO orders VALUES (4); SAVEPOINT b;
	  INSERT INTO lines VALUES (4, 'f'); COMMIT},
	q{BEGIN; INSERT INTO orders VALUES (5); INSERT INTO lines VALUES (5, 'g');
	  SET LOCAL synchronous_commit = local; PREPARE TRANSACTION 'five';
	  COMMIT PREPARED 'five'},
	q{BEGIN; INSERT INTO lines VALUES (6, 'h'); INSERT INTO orders VALUES (6); COMMIT});
decoded();
worker_waits(2);
is(wait_for('p'), 'f', 'several commits hang, one of them prepared');

# A worker that is ended meanwhile, and its successor, wait as well.
$node->safe_psql('postgres', q{
SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'pipeline worker'});
worker_waits(2);
is(wait_for('p'), 'f', 'a new worker waits, too');
$node->terminate_process('pipeline capture');
worker_waits(2);
is(wait_for('p'), 'f', 'also behind a new capture');
synchronous('');
released(@hanging);
$node->caught_up($_) for 'p', 'plain';
$node->same_rows(
	'SELECT id, articles FROM dst WHERE id > 3',
	q{VALUES (4, 'f'), (5, 'g'), (6, 'h')},
	'all of them found their lines');
$node->same_rows('TABLE plain', 'TABLE orders', 'and the other pipeline its rows');

# ---- stop and others meanwhile ----------------------------------------------

synchronous('nobody');
$hanging = hanging_commit(
	q{BEGIN; INSERT INTO orders VALUES (7); INSERT INTO lines VALUES (7, 'i'); COMMIT});
decoded();
worker_waits(2);
is( $node->value(q{SET statement_timeout = '20s'; SELECT pipeline.stop('p')}),
	'', 'stop does not hang');
is($node->value(q{SELECT state FROM pipeline.status WHERE pipeline = 'p'}), 'stopped', 'it is stopped');
is( $node->value(q{SET statement_timeout = '20s'; SELECT pipeline.start('p')}),
	'', 'nor does start');
is( $node->value(q{SET statement_timeout = '20s'; SELECT pipeline.stop('p')}),
	'', 'nor another stop');
is( $node->value(
		q{SET statement_timeout = '20s'; SELECT pipeline.add_output('plain', 'plain', name => 'again')}),
	'', 'nor a change of a definition');
is( $node->value(
		q{SET statement_timeout = '20s'; SELECT pipeline.drop_output('plain', 'again')}),
	'', 'nor its withdrawal');
synchronous('');
released($hanging);
$node->caught_up('plain');
$node->poll(
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pipeline worker'},
	what => 'the worker of the stopped pipeline to end');
is($node->value('SELECT count(*) FROM dst WHERE id = 7'), '0', 'what is stopped stays stopped');
$node->safe_psql('postgres', q{SELECT pipeline.start('p')});
$node->caught_up('p');
$node->same_rows('SELECT id, articles FROM dst WHERE id > 6', q{VALUES (7, 'i')},
	'until it is started');
$node->same_rows('TABLE plain', 'TABLE orders', 'the other pipeline went on');

# A start whose own commit hangs: it holds from its commit on all the same.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE late (id int PRIMARY KEY);
SELECT pipeline.create_pipeline('late', source => 'orders');
SELECT pipeline.add_output('late', 'late');
SQL
synchronous('nobody');
$node->safe_psql('postgres', 'INSERT INTO orders VALUES (8)');
$hanging = hanging_commit(q{SELECT pipeline.start('late')});
$node->safe_psql('postgres', 'INSERT INTO orders VALUES (9)');
decoded();
is($node->value('SELECT count(*) FROM late'), '0', 'a start that hangs has not happened yet');
synchronous('');
released($hanging);
$node->caught_up('late');
$node->same_rows('TABLE late', 'VALUES (9)', 'a start that hung holds from its commit on');

# A first pipeline in another database.
synchronous('nobody');
$node->safe_psql('postgres', 'CREATE DATABASE other');
is( $node->value(
		q{CREATE EXTENSION pipeline; CREATE TABLE src (id int);
		  SET statement_timeout = '20s'; SELECT pipeline.create_pipeline('p', 'src')},
		db => 'other'),
	'', 'a slot is made while commits hang');
$node->safe_psql('postgres', 'DROP DATABASE other');
synchronous('');

# DROP of a pipeline, and of the extension, while a commit hangs.
synchronous('nobody');
$hanging = hanging_commit('INSERT INTO orders VALUES (10)');
decoded();
worker_waits(3);
is( $node->value(q{SET statement_timeout = '20s'; SELECT pipeline.drop_pipeline('plain')}),
	'', 'drop_pipeline does not hang');
is($node->value(q{SET statement_timeout = '20s'; DROP EXTENSION pipeline}),
	'', 'nor does DROP EXTENSION');
synchronous('');
released($hanging);
$node->nothing_left('nothing is left');
is($node->value('SELECT count(*) FROM plain WHERE id = 10'), '0', 'and nothing came out any more');

$node->stop;
done_testing();
