# Nothing polls: capture, workers and the launcher sleep until there is
# something for them to do, and are woken at once then, also by an asynchronous
# commit, which nobody else would bring to the disk.  A worker that has nothing
# to do for long ends, and comes back when there is.  A database in which
# nothing happens does not hold back the WAL of a busy server.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

# No commits but those of the test, and nobody who writes WAL out by himself.
my $node = PipelineTest->start_new('main',
	extra => [ '--no-locale', '-E', 'UTF8', '--wal-segsize=1' ],
	conf => <<'CONF');
autovacuum = off
wal_writer_delay = 10s
wal_writer_flush_after = 0
min_wal_size = 2MB
max_wal_size = 64MB
pipeline.worker_idle_timeout = 0
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY);
CREATE TABLE dst (id int PRIMARY KEY);
CREATE TABLE other_src (id int);
CREATE TABLE other_dst (id int);
CREATE TABLE nobodys (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SELECT pipeline.create_pipeline('other', source => 'other_src');
SELECT pipeline.add_output('other', 'other_dst');
SELECT pipeline.start('other');
SELECT pipeline.create_pipeline('stopped', source => 'src');
SELECT pipeline.add_output('stopped', 'dst');
SELECT pipeline.start('stopped');
SELECT pipeline.stop('stopped');
INSERT INTO src DEFAULT VALUES;
INSERT INTO other_src VALUES (1);
SQL
$node->create_database('idle');
$node->create_database('plain', extension => 0);
$node->safe_psql('plain', 'CREATE TABLE t (id int)');
$node->safe_psql('idle', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1);
SQL
$node->caught_up($_) for 'p', 'other';
$node->caught_up('p', db => 'idle');

# ---- asleep -----------------------------------------------------------------

my %pid = (
	launcher => $node->process_pid('pipeline launcher'),
	capture => $node->process_pid('pipeline capture', db => 'postgres'),
	worker => $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'p'}),
	'worker of another source' =>
	  $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'other'}),
	'capture of another database' => $node->process_pid('pipeline capture', db => 'idle'),
	'worker of another database' => $node->process_pid('pipeline worker', db => 'idle'));

# How often each of them woke up while code ran, and seconds after it.  All have
# something to do before: the server wakes who is far behind with its
# invalidation messages.
sub wakeups_during
{
	my ($code, $seconds) = @_;

	$node->safe_psql('postgres',
		'INSERT INTO src DEFAULT VALUES; INSERT INTO other_src VALUES (1)');
	$node->safe_psql('idle', 'INSERT INTO src VALUES (1)');
	$node->caught_up($_) for 'p', 'other';
	$node->caught_up('p', db => 'idle');
	$node->asleep(values %pid);
	my %before = map { $_ => $node->wakeups($pid{$_}) } keys %pid;
	$code->();
	$node->let_pass($seconds);
	return map { $_ => $node->wakeups($pid{$_}) - $before{$_} } keys %pid;
}

# Those that woke up are these, and no other.
sub woken
{
	my ($expected, $name, %count) = @_;
	# The launcher has nothing to do before, so that message may reach it once.
	my $got = join ', ',
	  grep { $count{$_} > ($_ eq 'launcher' ? 1 : 0) } sort keys %count;

	return is($got, join(', ', sort @$expected), $name)
	  || diag explain \%count;
}

woken([], 'nobody wakes up while nothing happens', wakeups_during(sub { }, 3));

woken(
	[],
	'nor for what is rolled back or only read, or committed in a database without the extension',
	wakeups_during(
		sub {
			$node->safe_psql('postgres', <<'SQL');
SELECT count(*) FROM src;
BEGIN; INSERT INTO src DEFAULT VALUES; ROLLBACK;
SQL
			$node->safe_psql('plain', 'INSERT INTO t VALUES (1)');
		},
		1));

my %count = wakeups_during(
	sub { $node->safe_psql('postgres', 'INSERT INTO nobodys VALUES (1)') }, 1.5);
woken(['capture'], 'a commit wakes capture, and nobody else if the row is nobody\'s', %count);
cmp_ok($count{capture}, '<', 12, 'which does not wake up often for that');

%count = wakeups_during(
	sub { $node->safe_psql('postgres', 'INSERT INTO src DEFAULT VALUES') for 1 .. 5 }, 1.5);
woken([ 'capture', 'worker' ], 'a row of the source wakes capture and the worker', %count);
$node->same_rows('TABLE dst', 'TABLE src', 'and is processed, though nobody waits for it');

# ---- at once ----------------------------------------------------------------

# Commits with a pause between them; nobody calls wait_for, which would wake
# capture.
for my $sync ('off', 'on')
{
	my $file = $node->basedir . "/write_$sync.sql";
	append_to_file($file, "SET synchronous_commit = $sync;\nINSERT INTO src DEFAULT VALUES;\n");
	my $before = $node->value('SELECT coalesce(max(id), 0) FROM src');

	$node->command_ok(
		[
			'pgbench', '--no-vacuum', '--client=1', '--transactions=50', '--rate=25',
			"--file=$file", 'postgres'
		],
		"50 commits with synchronous_commit = $sync");
	$node->poll("SELECT count(*) = 50 FROM dst WHERE id > $before", what => 'the rows in the output');
	my ($median, $batches) = split /\|/, $node->value(<<SQL);
SELECT round(1000 * percentile_cont(0.5) WITHIN GROUP (
	ORDER BY extract(epoch FROM processed_at - committed_at))), count(DISTINCT batch_id)
  FROM pipeline.lineage WHERE pipeline = 'p' AND (source_key->>'id')::int > $before
SQL
	cmp_ok($median, '<', 100, "processed within 100 ms, median $median ms");
	cmp_ok($batches, '>', 20, 'one by one');
}

# ---- workers that end -------------------------------------------------------

sub set_idle_timeout
{
	my ($value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET pipeline.worker_idle_timeout = '$value'");
	$node->reload;
	return;
}

sub no_workers
{
	return $node->poll(
		q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pipeline worker'},
		what => 'the workers to end');
}

my $worker = $pid{worker};
is($node->value("SELECT count(*) FROM pg_stat_activity WHERE pid = $worker"),
	'1', 'an idle worker stays if there is no timeout');
set_idle_timeout('300ms');
no_workers();
pass('idle workers end after the timeout');
is($node->value(q{SELECT string_agg(state, ' ' ORDER BY pipeline) FROM pipeline.status}),
	'running running stopped', 'their pipelines are running all the same');
$node->asleep($pid{launcher}, $pid{capture});
$node->safe_psql('postgres', 'INSERT INTO src DEFAULT VALUES');
$node->poll('SELECT (SELECT max(id) FROM dst) = (SELECT max(id) FROM src)',
	what => 'the row in the output');
pass('a row brings a worker back');
no_workers();
pass('which ends again');
$node->same_rows('TABLE dst', 'TABLE src', 'and did its work');

# Rows that come just when a worker ends.
set_idle_timeout('1ms');
my $file = $node->basedir . '/write_some.sql';
append_to_file($file, "INSERT INTO src DEFAULT VALUES;\n\\sleep :pause us\n");
for my $pause (0, 1000, 5000, 20000)
{
	$node->command_ok(
		[
			'pgbench', '--no-vacuum', '--client=1', '--transactions=50',
			"--define=pause=$pause", "--file=$file", 'postgres'
		],
		"50 commits every $pause us while workers end all the time");
	$node->poll('SELECT (SELECT count(*) FROM dst) = (SELECT count(*) FROM src)',
		what => 'the rows in the output');
}
no_workers();
$node->same_rows('TABLE dst', 'TABLE src', 'all of them came out');
set_idle_timeout('0');

# ---- idle databases ---------------------------------------------------------

# WAL of a database without the extension.
sub write_wal
{
	$node->safe_psql('plain', <<'SQL');
INSERT INTO t SELECT 1 FROM generate_series(1, 10000);
SQL
	return;
}

# What is stopped keeps its WAL, as it should.
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('stopped')});

my $behind = q{SELECT count(*) = 0 FROM pg_replication_slots
	 WHERE pg_current_wal_lsn() - %s > 3 * 1024 * 1024};
my $start = $node->value('SELECT pg_current_wal_lsn()');
write_wal() for 1 .. 12;
cmp_ok($node->value("SELECT pg_current_wal_lsn() - '$start'"),
	'>', 6 * 1024 * 1024, 'several segments of WAL were written elsewhere');
$node->poll(sprintf($behind, 'confirmed_flush_lsn'), what => 'the slots to be confirmed');
pass('the slots of idle databases are confirmed as WAL grows');

# restart_lsn moves when the running transactions were logged, a step behind.
my $rounds = 0;
until ($node->value(sprintf($behind, 'restart_lsn')) eq 't' || $rounds++ == 20)
{
	write_wal();
	$node->safe_psql('postgres', 'CHECKPOINT');
	$node->poll(sprintf($behind, 'confirmed_flush_lsn'), what => 'the slots to be confirmed');
}
cmp_ok($rounds, '<', 20, 'and let go of it');
$node->caught_up('p');
$node->caught_up('p', db => 'idle');

$node->stop;
done_testing();
