# A dump of all that a pipeline can be made of: stages with several workers, isolated
# stages and outputs, partition_by, settings, several versions, streams as source and
# target, upserts whose rows are kept, operations that were changed.  Restored into another
# database, by pg_restore and as a script with --clean --if-exists over what is there
# already, everything starts and works.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 32
pipeline.max_segments = 64
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, k int NOT NULL, v int);
ALTER TABLE src REPLICA IDENTITY FULL;
CREATE TABLE doubled (id int, k int, v int);
CREATE TABLE alone (LIKE doubled);
CREATE TABLE latest (k int PRIMARY KEY, id int, v int);
CREATE FOREIGN TABLE river (id int, k int) SERVER pipeline;
CREATE TABLE delta (id int, k int);

-- Three workers, then two of a segment behind it, then an isolated output.
SELECT pipeline.create_pipeline('wide', 'src', consistency => 'causal', partition_by => '{k}', workers => 3),
	pipeline.add_stage('wide', 'check', 'validate', query => 'SELECT k >= 0 FROM event', settings => '{"batch_rows": 50}'),
	pipeline.add_stage('wide', 'double', 'transform', query => 'SELECT id, k, v + v AS v FROM event',
		isolate => true, workers => 2, partition_by => '{k}', settings => '{"batch_rows": 40}', timeout => '1 min'),
	pipeline.add_output('wide', 'doubled'), pipeline.add_output('wide', 'alone', isolate => true),
	pipeline.alter_pipeline('wide', settings => '{"work_mem": "8MB"}');
-- What is kept of rows, and what comes over a hand-over.
SELECT pipeline.create_pipeline('keeps', 'src', '{insert,update,delete}'),
	pipeline.add_stage('keeps', 'same', 'transform', query => 'SELECT k, id, v FROM event'),
	pipeline.add_output('keeps', 'latest', isolate => true);
-- From a table into a stream, and from that into a table.
SELECT pipeline.create_pipeline('up', 'src'),
	pipeline.add_stage('up', 'short', 'transform', query => 'SELECT id, k FROM event'),
	pipeline.add_output('up', 'river'),
	pipeline.create_pipeline('down', 'river'), pipeline.add_output('down', 'delta');
SELECT pipeline.start(pipeline) FROM pipeline.pipelines;
INSERT INTO src SELECT n, n % 10, n FROM generate_series(1, 100) n;
SELECT pipeline.wait_for('wide');
SELECT pipeline.deploy_stage('wide', 'double', query => 'SELECT id, k, 2 * v AS v FROM event'),
	pipeline.alter_stage('wide', 'double', workers => 3), pipeline.alter_pipeline('wide', workers => 2);
INSERT INTO src VALUES (101, -1, 5);
SELECT pipeline.alter_pipeline('up', operations => '{insert,update}'), pipeline.alter_pipeline('up', operations => '{insert}');
SQL
my @pipelines = ('wide', 'keeps', 'up', 'down');

# Everything from $from on is in the outputs, once.
sub is_right
{
	my ($db, $from, $name) = @_;

	ok($node->caught_up($_, db => $db), "$name: $_ has caught up") foreach @pipelines;
	$node->same_rows("TABLE $_", "SELECT id, k, 2 * v FROM src WHERE k >= 0 AND id >= $from", db => $db, "$name: $_")
	  foreach 'doubled', 'alone';
	$node->same_rows('TABLE delta', "SELECT id, k FROM src WHERE id >= $from", db => $db, "$name: streams");
	$node->ledger_balanced($_, "$name: ledger of $_", db => $db) foreach @pipelines;
	return;
}

# All that describes them, with the numbers of partitions.
sub described
{
	my ($db) = @_;

	return $node->value(<<'SQL', db => $db);
SELECT pipeline, owner, source, operations, consistency, partition_by, workers, settings, version FROM pipeline.pipelines ORDER BY 1;
SELECT * FROM pipeline.stages ORDER BY 1, 2;
SELECT * FROM pipeline.outputs ORDER BY 1, 2;
SELECT * FROM pipeline.stage_versions ORDER BY pipeline, since;
SELECT count(*), min(state) FROM pipeline.dead_letters;
SELECT pipeline, events, produced, filtered, rejected, failed FROM pipeline.status ORDER BY 1;
SQL
}

is_right('postgres', 1, 'the original');
$node->safe_psql('postgres', 'SELECT pipeline.stop(pipeline) FROM pipeline.pipelines');
my $dump = $node->basedir . '/dump';
my $original = described('postgres');
$node->command_ok([ 'pg_dump', '--format=custom', "--file=$dump", $node->connstr('postgres') ], 'pg_dump');
$node->command_ok(
	[ 'pg_dump', '--clean', '--if-exists', "--file=$dump.sql", $node->connstr('postgres') ],
	'pg_dump --clean --if-exists');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('postgres', 'CREATE DATABASE cleaned');
$node->command_ok([ 'pg_restore', '--exit-on-error', '--dbname=' . $node->connstr('restored'), $dump ], 'pg_restore');

# The script, twice: into an empty database, and over what it has made, which is running.
sub run_script
{
	my ($what) = @_;

	$node->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('cleaned'), '-f', "$dump.sql", '-o', '/dev/null' ],
		$what);
	return;
}

# What is new there starts from then on.
sub goes_on
{
	my ($db) = @_;

	is(described($db), $original, "$db: everything is there");
	is($node->value('SELECT string_agg(DISTINCT state, $$ $$) FROM pipeline.status', db => $db), 'stopped', "$db: and stopped");
	$node->safe_psql($db, 'TRUNCATE doubled, alone, delta');
	$node->safe_psql($db, 'INSERT INTO src VALUES (150, 1, 1)');
	$node->safe_psql($db, 'SELECT pipeline.start(pipeline) FROM pipeline.pipelines');
	$node->safe_psql($db, 'INSERT INTO src SELECT n, n % 10, n FROM generate_series(200, 300) n');
	is_right($db, 200, "$db, started");
	is($node->value('SELECT count(*) FROM latest', db => $db), '11', "$db: the rows that were kept are there");

	# a row from before the dump changes its place and goes: its old place is known
	$node->safe_psql($db, 'DELETE FROM src WHERE k = 3; UPDATE src SET k = 77 WHERE k = -1');
	$node->caught_up('keeps', db => $db);
	is($node->value('SELECT string_agg(k::text, $$ $$ ORDER BY k) FROM latest', db => $db),
		'0 1 2 4 5 6 7 8 9 77', "$db: an upsert removes what was made before the dump");
	$node->safe_psql($db, <<'SQL');
SELECT pipeline.alter_pipeline('wide', workers => 4), pipeline.alter_stage('wide', 'double', workers => 1),
	pipeline.deploy_stage('wide', 'double', version => 1);
INSERT INTO src SELECT n, n % 10, n FROM generate_series(301, 400) n;
SQL
	$node->caught_up('wide', db => $db);
	is($node->value('SELECT count(*) || $$ $$ || count(DISTINCT id) FROM alone', db => $db), '201 201',
		"$db: numbers of workers and versions change");
	return;
}

goes_on('restored');
run_script('the script into an empty database');
goes_on('cleaned');
run_script('the script over what is there and runs');
is(described('cleaned'), $original, 'cleaned: everything is as it was');

# In the same database its pipelines were born in another slot, or never.
$node->safe_psql('cleaned', 'TRUNCATE doubled, alone, delta');
$node->safe_psql('cleaned', 'SELECT pipeline.start(pipeline) FROM pipeline.pipelines');
$node->safe_psql('cleaned', 'INSERT INTO src SELECT n, n % 10, n FROM generate_series(500, 600) n');
is_right('cleaned', 500, 'cleaned again');

$node->safe_psql('postgres', 'SELECT pipeline.start(pipeline) FROM pipeline.pipelines');
$node->safe_psql('postgres', 'INSERT INTO src SELECT n, n % 10, n FROM generate_series(200, 300) n');
is_right('postgres', 1, 'the original goes on');
$node->stop;
done_testing();
