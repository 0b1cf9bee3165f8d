# Changes of the schema under a pipeline: locks, restarts, kills, dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE dst (id int PRIMARY KEY, n int);
CREATE TABLE other (id int, n int);
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.add_output('p', 'other');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1, 1);
SQL
$node->caught_up('p');

# ---- a transaction that changes tables and the definition, in any order ----------------

my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; ALTER TABLE dst ADD COLUMN more int');
$node->safe_psql('postgres', 'INSERT INTO src VALUES (2, 2)');
$node->poll(
	q{SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	   WHERE a.backend_type = 'pipeline worker' AND NOT l.granted)},
	what => 'the worker to wait');
$session->query_safe('ALTER TABLE src ALTER COLUMN n TYPE bigint');
$session->query_safe(q{SELECT pipeline.drop_output('p', 'other')});
$session->query_safe('COMMIT');
$session->quit;
$node->caught_up('p');
is($node->value(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM dst}), '1 2',
	'tables and definition change in one transaction');
unlike(slurp_file($node->logfile), qr/deadlock/,
	'a worker that waits for a table holds neither the definition nor the source');

# ---- a pause outlives everything, and stays at its place --------------------------------

sub ids
{
	my ($table) = @_;

	return $node->value("SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM $table");
}

sub events
{
	my ($pipeline) = @_;

	return $node->value(
		"SELECT string_agg(concat_ws(' ', change, column_name, state), ', ' ORDER BY id)
		   FROM pipeline.schema_events WHERE pipeline = '$pipeline'");
}

$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.drop_pipeline('p');
CREATE TABLE t (id int PRIMARY KEY, n int);
CREATE TABLE adapted (id int, n int);
CREATE TABLE accepted (id int, n int);
SELECT pipeline.create_pipeline('a', 't');
SELECT pipeline.create_pipeline('b', 't', on_schema_change => 'pause');
SELECT pipeline.add_stage(p, 's', 'transform', query => 'SELECT id, n FROM event') FROM unnest('{a,b}'::text[]) p;
SELECT pipeline.add_output('a', 'adapted');
SELECT pipeline.add_output('b', 'accepted');
SELECT pipeline.start('a');
SELECT pipeline.start('b');
INSERT INTO t VALUES (1, 1);
BEGIN;
INSERT INTO t VALUES (2, 2);
ALTER TABLE t ADD COLUMN x int DEFAULT 7;
INSERT INTO t VALUES (3, 3);
COMMIT;
SQL
$node->caught_up('a');
$node->reached('b', 'paused');
is(ids('accepted'), '1 2', 'what pauses stops within the transaction');

$node->restart;
$node->reached('b', 'paused');
$node->stop('immediate');
$node->start;
$node->reached('b', 'paused');
my $pid = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'b'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->poll("SELECT pid <> $pid AND state = 'paused' FROM pipeline.workers WHERE pipeline = 'b'",
	what => 'another worker that pauses');
is(ids('accepted'), '1 2', 'the pause outlives restarts, crashes and its worker');
is(events('b'), 'add_column x waiting', 'and is noted once');
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE quiet (id int);
CREATE TABLE quiet_too (id int);
SELECT pipeline.create_pipeline('q', 'quiet', on_schema_change => 'pause');
SELECT pipeline.add_output('q', 'quiet_too');
SELECT pipeline.start('q');
ALTER TABLE quiet ADD COLUMN n int;
SQL
$node->reached('q', 'paused');
$node->restart;
$node->reached('b', 'paused');
like($node->value(q{SELECT state || ': ' || last_error FROM pipeline.status WHERE pipeline = 'q'}),
	qr/paused: source \S*quiet was changed: add_column n \(integer\) \(hint: SELECT pipeline.accept_schema\('q'\);\)/,
	'a pause needs no process');
is($node->value(q{SELECT hint FROM pipeline.health() WHERE pipeline = 'q'}), q{SELECT pipeline.accept_schema('q');},
	'and health() knows it');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('q')});
is(events('a'), 'add_column x applied', 'also where nothing waited');

# Accepted while no worker is there.
$node->safe_psql('postgres', q{SELECT pipeline.stop('b'); SELECT pipeline.accept_schema('b'); SELECT pipeline.start('b')});
$node->caught_up('b');
is(ids('accepted'), '1 2 3', 'what is accepted meanwhile goes on');
is(events('b'), 'add_column x accepted', 'and it is accepted');

# ---- killed between -----------------------------------------------------------------------

my $failpoints = $node->psql('postgres', q{SELECT _pipeline.failpoint_set('none', 'off')}) == 0;
my $id = 3;
my $columns = 0;

# Until it is done, whatever ends the server meanwhile.
sub insist
{
	my ($sql, $done) = @_;
	my $out = '';

	for (1 .. 1000)
	{
		$node->psql('postgres', $done, stdout => \$out);
		return if $out eq 't';
		$node->psql('postgres', $sql);
	}
	die "in vain: $sql";
}

for my $place (qw(worker-before-commit worker-after-commit worker-before-control worker-after-control capture-after-decode))
{
	last unless $failpoints;
	for my $within (0, 1)
	{
		my ($first, $second) = ($id + 1, $id + 2);

		$id += 2;
		$columns++;
		$node->failpoint_set($place, 'crash');
		insist(<<"SQL", "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'y$columns')");
BEGIN;
@{[ $within ? "INSERT INTO t VALUES ($first, $first);" : '' ]}
ALTER TABLE t ADD COLUMN y$columns int;
@{[ $within ? '' : "INSERT INTO t VALUES ($first, $first);" ]}
COMMIT;
SQL
		insist("INSERT INTO t (id, n) VALUES ($second, $second)", "SELECT EXISTS (SELECT FROM t WHERE id = $second)");
		$node->caught_up('a');
		$node->reached('b', 'paused');
		insist(q{SELECT pipeline.accept_schema('b')}, "SELECT state = 'accepted' FROM pipeline.schema_events WHERE pipeline = 'b' AND column_name = 'y$columns'");
		$node->caught_up('b');
	}
}
is(ids('adapted'), join(' ', 1 .. $id), 'every row once, whatever is killed');
is(ids('accepted'), join(' ', 1 .. $id), 'every row once with a pause, too');
is($node->value(
		q{SELECT count(*) = 2 * count(DISTINCT column_name) AND bool_and(commit_lsn IS NOT NULL AND state IN ('applied', 'accepted'))
		    FROM pipeline.schema_events}),
	't', 'and every change once');

# ---- while it is stopped, moved to the backlog, and rewritten -----------------------------

$node->append_conf('postgresql.conf', "pipeline.max_retained_wal = 1MB\n");
$node->reload;
$node->safe_psql('postgres', q{SELECT pipeline.stop('a')});
$node->safe_psql('postgres', 'INSERT INTO t (id, n) VALUES (1001, 1)');
$node->safe_psql('postgres', 'ALTER TABLE t ADD COLUMN z text DEFAULT $$zz$$');
$node->safe_psql('postgres', 'INSERT INTO t (id, n) VALUES (1002, 2)');
$node->safe_psql('postgres', 'VACUUM FULL t');
$node->safe_psql('postgres', 'ALTER TABLE t ALTER COLUMN n TYPE bigint');
$node->safe_psql('postgres', 'INSERT INTO t (id, n) VALUES (1003, 3)');
$node->safe_psql('postgres', 'CREATE TABLE filler AS SELECT repeat($$x$$, 1000) FROM generate_series(1, 5000)');
$node->poll(q{SELECT backlog_bytes > 0 FROM pipeline.status WHERE pipeline = 'a'}, what => 'a backlog');
$node->safe_psql('postgres', q{SELECT pipeline.start('a')});
$node->caught_up('a');
is($node->value(q{SELECT string_agg(concat_ws(' ', change, column_name, state), ', ' ORDER BY id)
		FROM pipeline.schema_events WHERE pipeline = 'a' AND column_name IN ('z', 'n')}),
	'add_column z applied, retype n applied', 'changes lie in the backlog, too');
is($node->value('SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM adapted WHERE id > 1000'), '1001 1002 1003', 'with the rows');

# ---- dump -----------------------------------------------------------------------------------

$node->safe_psql('postgres', 'ALTER TABLE t ADD COLUMN in_dump int');
$node->reached('b', 'paused');
my $before = $node->value('SELECT count(*) FROM pipeline.schema_events WHERE state <> $$pending$$');
my $file = $node->basedir . '/dump.sql';
$node->run_log([ 'pg_dump', '-f', $file, $node->connstr('postgres') ]);
unlike(slurp_file($file), qr/EVENT TRIGGER/, 'the triggers are the extension\'s');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->safe_psql('copy', slurp_file($file));
is($node->value('SELECT count(*) FROM pipeline.schema_events', db => 'copy'), $before, 'a dump has the past');
is($node->value('SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE $$pipeline%$$', db => 'copy'), 2, 'and the triggers are there');
$node->safe_psql('copy', 'ALTER TABLE t DROP COLUMN in_dump');
is($node->value('SELECT count(*) FROM pipeline.schema_events', db => 'copy'), $before, 'which do nothing for what was not started');
$node->poll(q{SELECT bool_and(confirmed_flush_lsn IS NOT NULL) AND count(*) = 2 FROM pg_replication_slots}, what => 'two slots');
$node->safe_psql('copy', q{SELECT pipeline.start('b')});
$node->safe_psql('copy', q{INSERT INTO t (id, n) VALUES (2001, 1)});
$node->caught_up('b', db => 'copy');
is($node->value(q{SELECT state FROM pipeline.status WHERE pipeline = 'b'}, db => 'copy'), 'running', 'a start accepts all that was');

$node->stop;
done_testing();
