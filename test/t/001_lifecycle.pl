# The life of the extension in its databases: CREATE and DROP EXTENSION, DROP
# DATABASE and CREATE DATABASE ... TEMPLATE, committed, rolled back, refused
# and interrupted by a crash, leave no slot, no file and no process behind, and
# never disturb another database.  Also: several databases and owners in one
# server, and every process comes back when somebody ends it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', extension => 0);

sub oid
{
	my ($db) = @_;
	return $node->value("SELECT oid FROM pg_database WHERE datname = '$db'");
}

# A source, a target and a running pipeline "copy" between them.
sub make_pipeline
{
	my ($db, %opt) = @_;

	$node->safe_psql($db, <<'SQL', %opt);
CREATE TABLE src (id int PRIMARY KEY, v text);
CREATE TABLE dst (id int PRIMARY KEY, v text);
SELECT pipeline.create_pipeline('copy', source => 'src');
SELECT pipeline.add_output('copy', 'dst');
SELECT pipeline.start('copy');
SQL
	return;
}

# Rows inserted now come out.
sub works
{
	my ($db, $name) = @_;

	$node->safe_psql($db,
		'INSERT INTO src SELECT n, md5(n::text) FROM (SELECT count(*) AS c FROM src) s,
		 generate_series(c + 1, c + 10) n');
	$node->caught_up('copy', db => $db);
	return $node->same_rows('TABLE dst', 'TABLE src', db => $db, $name);
}

sub slot_of
{
	my ($oid) = @_;
	return $node->value("SELECT slot_name FROM pg_replication_slots WHERE datoid = $oid");
}

sub slot_lsn
{
	my ($db) = @_;
	return $node->value('SELECT slot_lsn FROM _pipeline.slot', db => $db);
}

sub capture_pid
{
	my ($db) = @_;
	return $node->process_pid('pipeline capture', db => $db, wait => 1);
}

sub error_of
{
	my ($db, $sql) = @_;
	my ($rc, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\n$sql", on_error_stop => 1);

	return $rc == 0 ? '' : $err;
}

# ---- CREATE and DROP EXTENSION ----------------------------------------------

my $postgres = oid('postgres');

$node->nothing_left('a server without the extension has none of it');
is($node->value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pipeline launcher'"),
	'1', 'but a launcher');

$node->safe_psql('postgres', 'BEGIN; CREATE EXTENSION pipeline; ROLLBACK');
$node->create_database('other');
make_pipeline('other');
works('other', 'a pipeline in another database works');
$node->nothing_left('CREATE EXTENSION rolled back leaves nothing', oid => $postgres);

$node->create_extension;
is(slot_of($postgres), "pipeline_$postgres", 'CREATE EXTENSION makes a slot');
ok(capture_pid('postgres'), 'and starts capture');
$node->poll("SELECT state = 'ready' FROM _pipeline.databases() WHERE database = $postgres");
my @files = $node->spool_files(oid => $postgres);
isnt(scalar(@files), 0, 'which has a spool');
$node->safe_psql('postgres', 'DROP EXTENSION pipeline');
$node->nothing_left('DROP EXTENSION leaves nothing', oid => $postgres);

# Dropped while a pipeline runs and events keep coming.
$node->create_extension;
make_pipeline('postgres');
works('postgres', 'the first pipeline works');

my $lsn = slot_lsn('postgres');
my $pid = capture_pid('postgres');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION pipeline CASCADE; ROLLBACK');
works('postgres', 'DROP EXTENSION rolled back: the pipeline goes on');
is(slot_lsn('postgres') . ' ' . capture_pid('postgres'),
	"$lsn $pid", 'with the same slot and the same capture');

for my $round (1 .. 5)
{
	my $writer = $node->background_psql('postgres');
	$writer->query_until(qr/^running$/m, <<'SQL');
\echo running
DO $$ BEGIN
  FOR i IN 1..2000 LOOP
    INSERT INTO src SELECT coalesce(max(id), 0) + 1 FROM src;
    COMMIT;
  END LOOP;
END $$;
SQL
	my ($rc, $out, $err) = $node->psql('postgres', 'DROP EXTENSION pipeline');
	is($err, '', "DROP EXTENSION of a busy pipeline, round $round");
	$writer->quit;
	$node->nothing_left("and leaves nothing, round $round", oid => $postgres);
	$node->safe_psql('postgres', 'DROP TABLE src, dst');
	$node->create_extension;
	make_pipeline('postgres');
}

# Replaced within one transaction: the old definitions are gone, the new
# extension gets a slot of its own.
$lsn = slot_lsn('postgres');
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION pipeline; CREATE EXTENSION pipeline; COMMIT');
$node->poll("SELECT count(*) = 1 AND bool_and(slot_lsn > '$lsn') FROM _pipeline.slot",
	what => 'a new slot');
is($node->value('SELECT count(*) FROM pipeline.pipelines'), '0', 'replaced in one transaction');
$node->safe_psql('postgres', 'DROP TABLE src, dst');
make_pipeline('postgres');
works('postgres', 'and the new extension works');

my $error = error_of('postgres', <<'SQL');
BEGIN;
DROP EXTENSION pipeline;
CREATE EXTENSION pipeline;
CREATE TABLE src2 (id int);
SELECT pipeline.create_pipeline('copy2', source => 'src2');
COMMIT;
SQL
like($error, qr/55000: .*slot of this database is not ready.*HINT:  Commit first/s,
	'no pipeline in the transaction that replaces the extension');
works('postgres', 'whose end in an error changes nothing');

# Replaced in quick succession, and used at once: create_pipeline waits for the
# new slot and does not take the old one for it.
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', <<'SQL');
DROP EXTENSION pipeline;
DROP TABLE src, dst;
CREATE EXTENSION pipeline;
CREATE TABLE src (id int PRIMARY KEY, v text);
CREATE TABLE dst (id int PRIMARY KEY, v text);
SELECT pipeline.create_pipeline('copy', source => 'src');
SELECT pipeline.add_output('copy', 'dst');
SELECT pipeline.start('copy');
INSERT INTO src VALUES (0, 'at once');
SQL
	works('postgres', "replaced and used at once, round $round");
}
is($node->value("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pipeline%'"),
	'2', 'one slot a database');

# A crash after the commit of DROP EXTENSION, before the slot is dropped.
SKIP:
{
	my ($rc) = $node->psql('other', q{SELECT _pipeline.failpoint_set('none', 'off')});
	skip 'needs a build with FAILPOINTS=1', 4 if $rc != 0;

	$node->failpoint_set('capture-before-vanish', 'wait', db => 'other');
	$node->safe_psql('postgres', 'DROP EXTENSION pipeline');
	$node->failpoint_wait('capture-before-vanish', db => 'other');
	is(slot_of($postgres), "pipeline_$postgres", 'DROP EXTENSION is committed, the slot is there');
	$node->kill9_server;
	$node->nothing_left('nothing is left after the restart from a crash', oid => $postgres);
	works('other', 'and the other database goes on');

	# The same when only capture itself dies.
	$node->create_extension;
	$node->failpoint_set('capture-before-vanish', 'exit', db => 'other');
	$node->safe_psql('postgres', 'DROP EXTENSION pipeline');
	$node->poll(
		q{SELECT not_before FROM (SELECT count(*) = 0 AS not_before FROM pg_stat_activity
		  WHERE backend_type = 'pipeline capture' AND datname = 'postgres') s},
		what => 'capture to end');
	$node->failpoint_clear('capture-before-vanish', db => 'other');
	$node->nothing_left('nothing is left when capture died on the way', oid => $postgres);
}

# ---- DROP DATABASE ----------------------------------------------------------

my $other_pid = capture_pid('other');

$node->create_database('gone');
my $gone = oid('gone');
make_pipeline('gone');
works('gone', 'a pipeline in a database that is to be dropped works');

# Refused, because a session is connected: everything goes on.
my $session = $node->background_psql('gone');
$error = error_of('postgres', 'DROP DATABASE gone');
like($error, qr/55006: .*is being accessed by other users/, 'DROP DATABASE is refused');
works('gone', 'and the pipeline goes on');
$session->quit;

# Cancelled while it waits for the session to end.
$session = $node->background_psql('gone');
$error = error_of('postgres', "SET statement_timeout = '500ms'; DROP DATABASE gone");
like($error, qr/57014: /, 'DROP DATABASE is cancelled');
works('gone', 'and the pipeline goes on after that, too');
$session->quit;

$node->safe_psql('postgres', 'DROP DATABASE gone');
$node->nothing_left('DROP DATABASE leaves nothing', oid => $gone);

# With a batch under way that waits for a row lock of a session.
$node->create_database('gone');
$gone = oid('gone');
make_pipeline('gone');
$session = $node->background_psql('gone');
$session->query_safe('BEGIN; INSERT INTO dst VALUES (1)');
$node->safe_psql('gone', 'INSERT INTO src VALUES (1)');
$node->poll(
	q{SELECT count(*) > 0 FROM pg_stat_activity
	   WHERE backend_type = 'pipeline worker' AND datname = 'gone' AND wait_event_type = 'Lock'},
	what => 'a batch that waits for a lock');
$node->safe_psql('postgres', 'DROP DATABASE gone WITH (FORCE)');
$node->nothing_left('DROP DATABASE WITH (FORCE) ends a batch under way', oid => $gone);
$session->{run}->kill_kill;

# Capture has just been ordered, or builds the slot.
$node->safe_psql('postgres', 'CREATE DATABASE gone');
$gone = oid('gone');
$node->safe_psql('gone', 'CREATE EXTENSION pipeline');
$node->safe_psql('postgres', 'DROP DATABASE gone');
$node->nothing_left('DROP DATABASE right after CREATE EXTENSION', oid => $gone);

$node->safe_psql('postgres', 'CREATE DATABASE gone');
$gone = oid('gone');
$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; CREATE TABLE long_transaction (a int)');
$node->safe_psql('gone', 'CREATE EXTENSION pipeline');
$node->poll("SELECT count(*) > 0 FROM pg_replication_slots WHERE datoid = $gone",
	what => 'capture to build the slot');
$node->safe_psql('postgres', 'DROP DATABASE gone');
$session->query_safe('ROLLBACK');
$session->quit;
$node->nothing_left('DROP DATABASE while the slot is being built', oid => $gone);

is(capture_pid('other'), $other_pid, 'all that did not touch the other database');
works('other', 'which still works');

# ---- CREATE DATABASE ... TEMPLATE, RENAME -----------------------------------

# Running processes are sessions in the source; they make way and come back.
works('other', 'before the copy');
$node->safe_psql('postgres', 'CREATE DATABASE copy_of_other TEMPLATE other');
is( $node->value(
		"SELECT state FROM pipeline.status WHERE pipeline = 'copy'", db => 'copy_of_other'),
	'stopped', 'the pipelines of a copied database are stopped');
works('other', 'those of the original go on');
$node->same_rows('SELECT max(id) FROM dst', 'SELECT max(id) FROM src', db => 'copy_of_other',
	'the copy is one of what was done');
$node->poll(
	q{SELECT count(*) = 1 FROM _pipeline.slot WHERE database =
	  (SELECT oid FROM pg_database WHERE datname = current_database())},
	db => 'copy_of_other', what => 'the slot of the copy');
my $before = $node->value('SELECT count(*) FROM dst', db => 'copy_of_other');
$node->safe_psql('copy_of_other', q{INSERT INTO src VALUES (-1, 'before start')});
$node->safe_psql('copy_of_other', q{SELECT pipeline.start('copy')});
$node->safe_psql('copy_of_other', q{INSERT INTO src VALUES (-2, 'after start')});
$node->caught_up('copy', db => 'copy_of_other');
is($node->value('SELECT count(*) FROM dst', db => 'copy_of_other'),
	$before + 1, 'started, the copy works from there on');
is($node->value('SELECT count(*) FROM dst WHERE id < 0', db => 'other'),
	'0', 'and the original sees nothing of it');

$node->safe_psql('postgres', 'ALTER DATABASE copy_of_other RENAME TO renamed');
$node->safe_psql('renamed', q{INSERT INTO src VALUES (-3, 'after renaming')});
$node->caught_up('copy', db => 'renamed');
is($node->value('SELECT count(*) FROM dst', db => 'renamed'),
	$before + 2, 'a renamed database goes on');
my $renamed = oid('renamed');
$node->safe_psql('postgres', 'DROP DATABASE renamed');
$node->nothing_left('the copy is dropped without a trace', oid => $renamed);

# ---- the extension in the template of all new databases ---------------------

$node->create_extension(db => 'template1');
$node->restart;
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
make_pipeline('fresh');
works('fresh', 'a database made from a template with the extension has it, too');
my $fresh = oid('fresh');
my $template = oid('template1');
$node->poll("SELECT count(*) = 1 FROM pg_replication_slots WHERE datoid = $template AND active",
	what => 'capture of the template');
$node->safe_psql('template1', 'DROP EXTENSION pipeline');
$node->nothing_left('the template is rid of it', oid => $template);
$node->safe_psql('postgres', 'DROP DATABASE fresh');
$node->nothing_left('and so is the server', oid => $fresh);
works('other', 'the other database went on over the restart');

# ---- several databases and owners -------------------------------------------

for my $role ('alice', 'bob')
{
	$node->safe_psql('other', <<SQL);
CREATE ROLE $role LOGIN;
GRANT USAGE ON SCHEMA pipeline TO $role;
CREATE SCHEMA $role AUTHORIZATION $role;
SET ROLE $role;
SET search_path = $role;
CREATE TABLE src (id int PRIMARY KEY);
CREATE TABLE dst (id int PRIMARY KEY, who name DEFAULT session_user || ' ' || current_user);
SELECT pipeline.create_pipeline('of_$role', source => 'src');
SELECT pipeline.add_output('of_$role', 'dst');
SELECT pipeline.start('of_$role');
SQL
}
$node->create_database('third');
make_pipeline('third');
for my $role ('alice', 'bob')
{
	$node->safe_psql('other', "INSERT INTO $role.src VALUES (1), (2)");
	$node->caught_up("of_$role", db => 'other');
	is($node->value("SELECT string_agg(id || ' ' || who, ', ' ORDER BY id) FROM $role.dst",
			db => 'other'),
		"1 $role $role, 2 $role $role", "the pipeline of $role runs as $role");
}
works('other', 'next to one of the superuser');
works('third', 'and one in another database');

# ---- processes that are ended -----------------------------------------------

for my $type ('pipeline worker', 'pipeline capture', 'pipeline launcher')
{
	works('other', "before the end of a $type");
	my $old = $node->process_pid($type, $type =~ /launcher/ ? () : (db => 'other'), wait => 1);
	$node->safe_psql('other', "SELECT pg_terminate_backend($old, 60000)");
	works('other', "after pg_terminate_backend of a $type");
	works('third', "as does the other database, after the end of a $type");
	$node->poll("SELECT count(*) > 0 FROM pg_stat_activity
	              WHERE backend_type = '$type' AND pid <> $old", what => "another $type");
}

# Cancel means: what you do now, not you.
for my $type ('pipeline worker', 'pipeline capture', 'pipeline launcher')
{
	works('other', "before a cancel of a $type");
	my $old = $node->process_pid($type, $type =~ /launcher/ ? () : (db => 'other'), wait => 1);
	$node->safe_psql('other', "SELECT pg_cancel_backend($old)");
	works('other', "after pg_cancel_backend of an idle $type");
	is($node->value("SELECT count(*) FROM pg_stat_activity WHERE pid = $old"),
		'1', "which is still there");
}

# A batch that is cancelled is tried again.
$session = $node->background_psql('other');
$session->query_safe('BEGIN; INSERT INTO dst VALUES (10000000)');
$node->safe_psql('other', 'INSERT INTO src VALUES (10000000)');
$node->poll(
	q{SELECT count(*) > 0 FROM pg_stat_activity
	   WHERE backend_type = 'pipeline worker' AND datname = 'other' AND wait_event_type = 'Lock'},
	what => 'a batch that waits for a lock');
my $worker = $node->value(
	q{SELECT pid FROM pg_stat_activity
	   WHERE backend_type = 'pipeline worker' AND datname = 'other' AND wait_event_type = 'Lock'});
$node->safe_psql('other', "SELECT pg_cancel_backend($worker)");
$session->query_safe('ROLLBACK');
$session->quit;
$node->caught_up('copy', db => 'other');
$node->same_rows('SELECT id FROM dst', 'SELECT id FROM src', db => 'other',
	'a cancelled batch is run again');
is($node->value("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker"),
	'1', 'by the same worker');
is($node->value('SELECT count(*) FROM pipeline.dead_letters', db => 'other'),
	'0', 'and nobody is blamed');

# ---- all of it goes ---------------------------------------------------------

for my $db ('other', 'third')
{
	$node->safe_psql($db, 'DROP EXTENSION pipeline CASCADE');
}
$node->nothing_left('nothing is left of any database');
$node->stop;
done_testing();
