# The file system of the spool is full: capture takes nothing in and says so,
# with what to do; writers and other databases do not notice, workers do what
# is in the spool, and done files are removed.  When there is room the same
# capture goes on, and nothing is lost or doubled.  A disk that is full for a
# batch is of the moment: the batch is tried again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main');
$node->need_failpoints;
$node->create_database('other');
for my $db ('postgres', 'other')
{
	$node->safe_psql($db, <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, filler text);
CREATE TABLE dst (id int, filler text);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src (filler) VALUES ('first');
SQL
	$node->caught_up('p', db => $db);
}
my $oid = $node->value('SELECT oid FROM pg_database WHERE datname = current_database()');
my $full = "spool-write\@$oid";
my $capture = $node->process_pid('pipeline capture', db => 'postgres');

sub count_files
{
	my @files = $node->spool_files(oid => $oid);

	return scalar @files;
}

# ---- a worker stands in a batch, files fill up, then the disk is full --------

my $write = q{INSERT INTO src (filler) SELECT repeat('x', 1000) FROM generate_series(1, 10000)};
$node->failpoint_set('worker-before-commit', 'wait');
$node->safe_psql('postgres', $write) for 1 .. 4;
$node->failpoint_wait('worker-before-commit');
$node->poll('SELECT decoded_lsn >= wanted_lsn FROM _pipeline.databases()
	WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())',
	what => 'capture');
cmp_ok(count_files(), '>', 2, 'there are several files');
$node->failpoint_set($full, 'fail');
$node->safe_psql('postgres', $write);
$node->reached('p', 'failed');
like($node->value(q{SELECT last_error FROM pipeline.status}),
	qr/no room for spool file "base\/pgsql_tmp.*hint: Free disk space/, 'the status says what to do');
is($node->process_pid('pipeline capture', db => 'postgres'), $capture, 'capture waits in its place');

$node->safe_psql('postgres', q{INSERT INTO src (filler) VALUES ('a writer does not notice')});
$node->safe_psql('other', q{INSERT INTO src (filler) VALUES ('nor another database')});

# The failpoint is of the whole server: the other's worker stands as well.
$node->failpoint_clear('worker-before-commit');
$node->caught_up('p', db => 'other');
$node->reached('p', 'running', db => 'other');
$node->poll('SELECT count(*) >= 40001 FROM dst', what => 'what is in the spool');
is($node->value('SELECT count(*) FROM dst'), '40001', 'workers do what is in the spool');
my $tries = 0;
$node->let_pass(1) while count_files() > 2 && $tries++ < 60;
cmp_ok(count_files(), '<=', 2, 'files that are done are removed');

# A worker that ended meanwhile.
$node->terminate_process('pipeline worker', db => 'postgres');
my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT pipeline.stop('p')");
is($rc, 0, 'it can be stopped');
my @lines = grep { /WARNING: .*no room for spool file/ } split /\n/, slurp_file($node->logfile);
is(scalar(@lines), 1, 'one warning a minute');
is($node->process_pid('pipeline capture', db => 'postgres'), $capture, 'it is the same capture still');

$node->failpoint_clear($full);
$node->safe_psql('postgres', q{SELECT pipeline.start('p')});
$node->caught_up('p');
$node->reached('p', 'running');
is($node->process_pid('pipeline capture', db => 'postgres'), $capture, 'the same capture goes on');
$node->same_rows('TABLE dst', 'TABLE src', db => $_, "nothing is lost or doubled in $_")
  for 'postgres', 'other';
$node->ledger_balanced('p', 'the ledger is balanced');

# ---- full when capture begins -----------------------------------------------

$node->failpoint_set($full, 'fail');
$node->terminate_process('pipeline capture', db => 'postgres');
$node->safe_psql('postgres', q{INSERT INTO src (filler) VALUES ('again')});
$node->poll(q{SELECT state = 'failed' AND last_error ~ 'no room' FROM pipeline.status}, what => 'capture');
($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT pipeline.create_pipeline('q', source => 'src')");
like($err, qr/ERROR:  53100: no room for spool.*HINT:  Free disk space/s, 'a declaration says so');
$node->failpoint_clear($full);
$node->caught_up('p');
$node->same_rows('TABLE dst', 'TABLE src', 'it goes on');

# ---- DROP EXTENSION and DROP DATABASE do not wait for room --------------------

$node->failpoint_set($full, 'fail');
$node->safe_psql('postgres', q{INSERT INTO src (filler) VALUES ('never seen')});
$node->reached('p', 'failed');
$node->safe_psql('postgres', 'DROP EXTENSION pipeline');
$node->nothing_left('DROP EXTENSION', oid => $oid);
$node->failpoint_clear($full, db => 'other');
$node->safe_psql('other', q{SELECT _pipeline.failpoint_set('spool-write', 'fail'); INSERT INTO src (filler) VALUES ('x')});
$node->reached('p', 'failed', db => 'other');
my $other = $node->value(q{SELECT oid FROM pg_database WHERE datname = 'other'});
$node->safe_psql('other', q{SELECT _pipeline.failpoint_set('spool-write', 'off')});
$node->safe_psql('postgres', 'DROP DATABASE other');
$node->nothing_left('DROP DATABASE', oid => $other);

# ---- full for a batch ---------------------------------------------------------

$node->safe_psql('postgres', 'TRUNCATE src, dst; CREATE TABLE gate (full_disk bool); INSERT INTO gate VALUES (true)');
$node->create_extension;
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION check_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF (SELECT full_disk FROM gate) THEN
		RAISE EXCEPTION 'could not extend file: No space left on device'
			USING ERRCODE = '53100', HINT = 'Check free disk space.';
	END IF;
	RETURN new;
END $$;
CREATE TRIGGER room BEFORE INSERT ON dst FOR EACH ROW EXECUTE FUNCTION check_room();
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src (filler) SELECT 'x' FROM generate_series(1, 100);
SQL
$node->reached('p', 'retrying');
like($node->value('SELECT last_error FROM pipeline.status'),
	qr/No space left on device.*hint: Check free disk space/, 'a batch without room is tried again, and says why');
$node->safe_psql('postgres', 'UPDATE gate SET full_disk = false');
$node->caught_up('p');
$node->same_rows('TABLE dst', 'TABLE src', 'until there is room');
is($node->value('SELECT count(*) FROM pipeline.dead_letters'), '0', 'no event is blamed');

$node->stop;
done_testing();
