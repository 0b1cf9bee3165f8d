# The server is stopped, fast and immediately, and restarted, while writers
# commit synchronously and asynchronously and pipelines are busy: the pipelines
# go on where they were, what was stopped stays stopped, and nothing is lost or
# doubled.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, client int, v int);
CREATE TABLE twice (id bigint, client int, v int);
CREATE TABLE odd (id bigint, v int);
CREATE TABLE paused (id bigint, client int, v int);
CREATE FUNCTION doubled(s src) RETURNS SETOF twice LANGUAGE sql STABLE AS
$$ SELECT s.id, s.client, 2 * s.v $$;
CREATE FUNCTION only_odd(t twice) RETURNS SETOF odd LANGUAGE sql STABLE AS
$$ SELECT t.id, t.v WHERE t.id % 2 = 1 $$;
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN s.v % 10 = 0 THEN 'a multiple of ten' END $$;

SELECT pipeline.create_pipeline('busy', source => 'src');
SELECT pipeline.add_stage('busy', 'check', 'validate', 'valid(src)');
SELECT pipeline.add_stage('busy', 'double', 'transform', 'doubled(src)');
SELECT pipeline.add_output('busy', 'twice');
SELECT pipeline.add_output('busy', 'odd', transform => 'only_odd(twice)');
SELECT pipeline.start('busy');

SELECT pipeline.create_pipeline('stopped', source => 'src');
SELECT pipeline.add_output('stopped', 'paused');
SELECT pipeline.start('stopped');
INSERT INTO src (client, v) VALUES (0, 1);
SQL
$node->caught_up('stopped');
$node->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});

my %script;
for my $sync ('on', 'off')
{
	$script{$sync} = $node->basedir . "/write_$sync.sql";
	append_to_file($script{$sync}, <<SQL);
SET synchronous_commit = $sync;
BEGIN;
INSERT INTO src (client, v) SELECT :client_id, n FROM generate_series(1, 1 + :client_id % 3) n;
SAVEPOINT s;
INSERT INTO src (client, v) VALUES (:client_id, 7);
ROLLBACK TO s;
INSERT INTO src (client, v) VALUES (:client_id, 10);
COMMIT;
SQL
}

# Four clients that write until the server stops.
sub start_writers
{
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	my %run = (out => '');
	my $before = $node->value('SELECT count(*) FROM src');

	$run{handle} = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=4', '--time=600',
			"--file=$script{on}", "--file=$script{off}", 'postgres'
		],
		'<', '/dev/null', '>&', \$run{out},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$node->poll("SELECT count(*) > $before + 500 FROM src", what => 'the writers to write');
	return \%run;
}

sub check
{
	my ($what) = @_;

	$node->caught_up('busy');
	$node->same_rows('TABLE twice',
		'SELECT id, client, 2 * v FROM src WHERE id > 0 AND v % 10 <> 0',
		"$what: the first output is right");
	$node->same_rows('TABLE odd',
		'SELECT id, 2 * v FROM src WHERE id > 0 AND v % 10 <> 0 AND id % 2 = 1',
		"$what: the second output is right");
	$node->same_rows(q{SELECT (event->>'id')::bigint FROM pipeline.dead_letters WHERE pipeline = 'busy'},
		'SELECT id FROM src WHERE v % 10 = 0',
		"$what: the dead letters are right");
	$node->ledger_balanced('busy', "$what: the ledger is balanced");
	is( $node->value(q{SELECT events - (SELECT count(*) FROM src) FROM pipeline.ledger('busy')
		                WHERE output = 'odd'}),
		'0', "$what: the ledger knows every event");
	is($node->value(q{SELECT state FROM pipeline.status WHERE pipeline = 'stopped'}),
		'stopped', "$what: what was stopped stays stopped");
	is($node->value('SELECT count(*) FROM paused'), '1', "$what: and does nothing");
	return;
}

for my $round (1 .. 2)
{
	for my $mode ('fast', 'immediate')
	{
		my $writers = start_writers();

		$node->stop($mode);
		$writers->{handle}->finish;
		$node->start;
		check("$mode stop, round $round");
	}
}

# Stopped and started in the middle of a backlog, which is longer than a batch.
$node->append_conf('postgresql.conf', 'pipeline.batch_rows = 100');
$node->reload;
for my $mode ('fast', 'immediate')
{
	$node->safe_psql('postgres', q{SELECT pipeline.stop('busy')});
	$node->safe_psql('postgres',
		q{INSERT INTO src (client, v) SELECT 9, n FROM generate_series(1, 5000) n});
	for (1 .. 20)
	{
		$node->safe_psql('postgres',
			q{INSERT INTO src (client, v) SELECT 9, n FROM generate_series(1, 250) n});
	}
	my $before = $node->value('SELECT count(*) FROM twice');
	$node->safe_psql('postgres', q{SELECT pipeline.start('busy')});
	$node->poll("SELECT count(*) > $before FROM twice", what => 'the first batch');
	$node->stop($mode);
	$node->start;
	check("$mode stop in a backlog");
}

# An idle server: all was done and confirmed before.
$node->restart;
$node->safe_psql('postgres', 'INSERT INTO src (client, v) VALUES (5, 5)');
check('restart while idle');

# What was stopped goes on where it was, over all that.
$node->safe_psql('postgres', q{SELECT pipeline.start('stopped')});
$node->caught_up('stopped');
$node->same_rows('TABLE paused', 'SELECT id, client, v FROM src', 'started again, it goes on where it was');

# An owner that may not log in any more: the status says so, the worker is tried
# again, and nothing is lost.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE keeper LOGIN;
GRANT USAGE ON SCHEMA pipeline TO keeper;
GRANT USAGE, CREATE ON SCHEMA public TO keeper;
SET SESSION AUTHORIZATION keeper;
CREATE TABLE kept_src (id int);
CREATE TABLE kept_dst (id int);
SELECT pipeline.create_pipeline('kept', source => 'kept_src');
SELECT pipeline.add_output('kept', 'kept_dst');
SELECT pipeline.start('kept');
INSERT INTO kept_src VALUES (1);
SQL
$node->caught_up('kept');
my $keeper = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'kept'});
$node->safe_psql('postgres', 'ALTER ROLE keeper NOLOGIN');
$node->value("SELECT pg_terminate_backend($keeper, 60000)");
$node->safe_psql('postgres', 'INSERT INTO kept_src VALUES (2)');
$node->poll(
	q{SELECT last_error ~ 'could not connect as the owner' AND last_error ~ 'LOGIN'
	  FROM pipeline.status WHERE pipeline = 'kept'},
	what => 'the status to say that the owner cannot log in');
$node->safe_psql('postgres', 'ALTER ROLE keeper LOGIN');
$node->caught_up('kept');
$node->same_rows('TABLE kept_dst', 'TABLE kept_src', 'it goes on when the owner may log in again');

is($node->value(q{SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pipeline%'}),
	'1', 'one slot, still');
$node->stop;
done_testing();
