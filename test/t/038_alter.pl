# What alter_pipeline changes while rows are on their way holds also when capture reads
# the old WAL again, and when the rows are in the backlog: operations go by the version at
# the worker's position.  Columns of partition_by change at a standstill, whatever the
# positions of the workers were.  A pipeline whose owner cannot connect gets another one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => "pipeline.worker_idle_timeout = 1s\n");

# ---- operations -------------------------------------------------------------

# Each event has another v, so the log says which were taken.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, v int);
ALTER TABLE src REPLICA IDENTITY FULL;
CREATE TABLE log (op text, id int, v int);
CREATE TABLE behind (LIKE log);
CREATE FUNCTION entry(s src, e pipeline.event) RETURNS SETOF log LANGUAGE sql STABLE AS
'SELECT (e).operation, (s).id, (s).v';
SELECT pipeline.create_pipeline('p', source => 'src', operations => '{update}'),
	pipeline.add_output('p', 'log', mode => 'append', transform => 'entry(src, pipeline.event)'),
	pipeline.start('p');
SELECT pipeline.create_pipeline('q', source => 'src', operations => '{update}'),
	pipeline.add_stage('q', 'same', 'transform', query => 'SELECT id, v FROM event'),
	pipeline.add_output('q', 'behind', mode => 'append', isolate => true),
	pipeline.start('q');
SELECT pipeline.wait_for('p'), pipeline.wait_for('q');
SQL

# Changes while the pipelines are stopped; $from is the first v, and says which rows.
# They begin with updates.
sub changes
{
	my ($from) = @_;
	my $id = 1000 * $from;

	$node->safe_psql('postgres', $_)
	  foreach both("pipeline.stop('%s')"),
	  "INSERT INTO src VALUES ($id, $from)",
	  "UPDATE src SET v = $from + 1 WHERE id = $id",
	  both("pipeline.alter_pipeline('%s', operations => '{insert,update}')"),
	  "UPDATE src SET v = $from + 2 WHERE id = $id",
	  "INSERT INTO src VALUES ($id + 1, $from + 3)",
	  both("pipeline.alter_pipeline('%s', operations => '{insert,delete}')"),
	  "UPDATE src SET v = $from + 4 WHERE id = $id",
	  "INSERT INTO src VALUES ($id + 2, $from + 5)",
	  both("pipeline.alter_pipeline('%s', operations => '{insert}')"),
	  "UPDATE src SET v = $from + 6 WHERE id = $id",
	  "INSERT INTO src VALUES ($id + 3, $from + 7)";
	return;
}

sub both
{
	my ($call) = @_;

	return 'SELECT ' . join ', ', map { sprintf $call, $_ } 'p', 'q';
}

sub taken
{
	my ($from, $what) = @_;

	$node->safe_psql('postgres', both("pipeline.start('%s')"));
	ok($node->caught_up($_), "$_ has caught up $what") foreach 'p', 'q';
	my $taken = join ' ', $from + 1, $from + 2, $from + 3, $from + 5, $from + 7;
	is($node->value("SELECT string_agg(v::text, ' ' ORDER BY v) FROM $_ WHERE v BETWEEN $from AND $from + 8"),
		$taken, "$_ has what was wanted at each place $what")
	  foreach 'log', 'behind';
	$node->safe_psql('postgres', both("pipeline.alter_pipeline('%s', operations => '{update}')"));
	return;
}

# While another one wants everything, it is all in the spool; and later it is not.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE all_log (LIKE log);
SELECT pipeline.create_pipeline('all', 'src', '{insert,update,delete}'),
	pipeline.add_output('all', 'all_log', mode => 'append', transform => 'entry(src, pipeline.event)'),
	pipeline.start('all');
SQL
changes(10);
taken(10, 'from a spool with everything');
$node->safe_psql('postgres', "SELECT pipeline.drop_pipeline('all')");
changes(100);
taken(100, 'from the spool');
changes(20);
$node->restart;
taken(20, 'after a restart');
changes(30);
$node->kill9_server;
taken(30, 'after a crash');
changes(40);
$node->safe_psql('postgres', "ALTER SYSTEM SET pipeline.max_retained_wal = '1MB'");
$node->reload;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE filler (t text);
INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 5000);
SQL
$node->poll("SELECT count(DISTINCT pipeline_id) = 2 FROM _pipeline.backlog");
$node->restart;
taken(40, 'from the backlog');

# ---- partition_by -----------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE shared (id int, a int, b int);
CREATE TABLE copy (id int, a int, b int, worker int DEFAULT pg_backend_pid());
SELECT pipeline.create_pipeline('s', 'shared', consistency => 'causal', partition_by => '{a}', workers => 3),
	pipeline.add_output('s', 'copy'), pipeline.start('s');
SQL
for my $n (1 .. 40)
{
	$node->safe_psql('postgres', "INSERT INTO shared VALUES ($n, $n % 7, $n % 11)");
}
ok($node->caught_up('s'), 's has caught up');
$node->safe_psql('postgres', "SELECT pipeline.stop('s')");
$node->safe_psql('postgres', "SELECT pipeline.alter_pipeline('s', partition_by => '{b}')");
$node->safe_psql('postgres', 'INSERT INTO shared SELECT n, n % 7, n % 11 FROM generate_series(41, 80) n');
$node->kill9_server;
$node->safe_psql('postgres', "SELECT pipeline.start('s')");
ok($node->caught_up('s'), 's has caught up with other columns');
is($node->value('SELECT count(*) || $$ $$ || count(DISTINCT id) FROM copy'), '80 80', 'nothing is lost or doubled');
is($node->value(<<'SQL'), '1', 'each value of b has one worker');
SELECT max(n) FROM (SELECT count(DISTINCT worker) AS n FROM copy WHERE id > 40 GROUP BY b) x
SQL

# ---- owner ------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE first LOGIN;
CREATE ROLE second LOGIN;
GRANT USAGE ON SCHEMA pipeline TO first, second;
GRANT CREATE ON SCHEMA public TO first;
SET ROLE first;
CREATE TABLE theirs (id int);
CREATE TABLE who (id int, who name DEFAULT session_user);
GRANT ALL ON theirs, who TO second;
SELECT pipeline.create_pipeline('o', 'theirs'), pipeline.add_output('o', 'who'), pipeline.start('o');
INSERT INTO theirs VALUES (1);
SELECT pipeline.wait_for('o');
RESET ROLE;
SELECT pipeline.alter_pipeline('o', owner => 'second');
INSERT INTO theirs VALUES (2);
SELECT pipeline.wait_for('o');
ALTER ROLE second NOLOGIN;
SELECT pipeline.stop('o');
SQL
$node->safe_psql('postgres', <<'SQL');
INSERT INTO theirs VALUES (3);
SELECT pipeline.alter_pipeline('o', owner => 'first');
SELECT pipeline.start('o');
SELECT pipeline.wait_for('o');
ALTER ROLE second LOGIN;
SELECT pipeline.alter_pipeline('o', owner => 'second');
ALTER ROLE second NOLOGIN;
INSERT INTO theirs VALUES (4);
SQL
$node->poll("SELECT state = 'failed' FROM pipeline.status WHERE pipeline = 'o'");
$node->safe_psql('postgres', "SELECT pipeline.alter_pipeline('o', owner => 'first')");
ok($node->caught_up('o'), 'a pipeline that failed runs as another owner');
is($node->value(q{SELECT string_agg(who, ' ' ORDER BY id) FROM who}), 'first second first first', 'the owner writes');

$node->stop;
done_testing();
