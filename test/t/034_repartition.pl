# The number of workers changes under load, up and down, also twice in a row, while
# processes end, the server is killed at the worst points, capture starts anew, or
# a partition stands still: nothing is lost, doubled or out of order within a key.
#
# PIPELINE_REPARTITION_SEED repeats the choices of an earlier run, as far as the
# scheduling lets it, PIPELINE_REPARTITION_ROUNDS says how many rounds.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_REPARTITION_ROUNDS} // 10;
my $seed = $ENV{PIPELINE_REPARTITION_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_REPARTITION_SEED=$seed PIPELINE_REPARTITION_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 24
pipeline.batch_rows = 50
pipeline.max_segments = 16
wal_writer_delay = 10s
CONF
$node->need_failpoints;

# A number a key, counted up by the source's transactions; one output numbers rows as
# they come, the other is a mirror whose rows go from key to key.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE counters (k int PRIMARY KEY, n int NOT NULL);
INSERT INTO counters SELECT k, 0 FROM generate_series(1, 12) k;
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, k int, n int, moved int DEFAULT 0);
ALTER TABLE src REPLICA IDENTITY FULL;
CREATE TABLE places (k int, n int, place bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE blocked (k int PRIMARY KEY);
CREATE TABLE mirror (k int, id int, n int, moved int, extra text, PRIMARY KEY (k, id));
CREATE TYPE place AS (k int, n int);
CREATE FUNCTION plain(s src) RETURNS SETOF place LANGUAGE sql STABLE AS
$$ SELECT s.k, s.n WHERE s.moved = 0 $$;
CREATE FUNCTION guard(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT 'x' || 1 / (b.k - s.k) FROM blocked b WHERE b.k = s.k $$;
CREATE FUNCTION extended(s src) RETURNS SETOF mirror LANGUAGE sql STABLE AS
$$ SELECT s.k, s.id, s.n, s.moved, 'x' || (SELECT count(*) FROM blocked WHERE k < 0) $$;
SELECT pipeline.create_pipeline('p', 'src', '{insert,update,delete}', 'causal', '{k}', 2),
	pipeline.add_stage('p', 'guard', 'validate', 'guard(src)', on_error => 'halt'),
	pipeline.add_output('p', 'places', transform => 'plain(src)', mode => 'append'),
	pipeline.add_output('p', 'mirror', transform => 'extended(src)'),
	pipeline.start('p');
CREATE FUNCTION swaps(OUT swaps bigint) LANGUAGE sql AS $$
	SELECT count(*) FROM (SELECT n - lag(n, 1, 0) OVER (PARTITION BY k ORDER BY place) AS step FROM places) s WHERE step <> 1 $$;
SQL
append_to_file($node->basedir . '/step.sql', <<'SQL');
\set k random(1, 12)
\set r random(1, 1000)
BEGIN;
WITH c AS (UPDATE counters SET n = n + 1 WHERE k = :k RETURNING k, n) INSERT INTO src (k, n) SELECT k, n FROM c;
UPDATE src SET k = 13 + (k + :r) % 7, moved = moved + 1 WHERE id % 100 = :r % 100 AND id > (SELECT max(id) - 200 FROM src);
DELETE FROM src WHERE id % 100 = (:r + 50) % 100 AND moved > 0 AND id > (SELECT max(id) - 300 FROM src);
COMMIT;
SQL

sub load
{
	my ($transactions) = @_;

	return IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 3, '-j', 1, '-t', $transactions,
			'--max-tries=100', "--random-seed=" . int(rand 1000000), '--file=' . $node->basedir . '/step.sql', 'postgres' ],
		'>', \my $out, '2>', \my $err);
}

sub workers
{
	my ($workers) = @_;

	# the slot may not be there yet; and as many as there are change nothing
	return $node->poll("SELECT true FROM (SELECT pipeline.alter_pipeline('p', workers => $workers)) s");
}

sub check
{
	my ($what, $workers) = @_;

	$node->caught_up('p');
	is($node->value('SELECT swaps()'), 0, "$what: the order of each key is kept, nothing is lost or doubled");
	is($node->value('SELECT count(*) FROM places'), $node->value('SELECT sum(n) FROM counters'), "$what: all is there");
	$node->same_rows('SELECT id, k, n, moved FROM mirror', 'TABLE src', "$what: the mirror equals the source");
	$node->ledger_balanced('p', "$what: the ledger is balanced");
	is($node->value("SELECT string_agg(format('%s/%s', partition, workers), ' ' ORDER BY partition) FROM pipeline.partitions"),
		join(' ', map { "$_/$workers" } 1 .. $workers), "$what: there are $workers partitions");
	is($node->value('SELECT count(*) FROM _pipeline.checkpoints'), $workers, "$what: and no more checkpoints");
	is($node->value('SELECT count(*) FROM _pipeline.kept'), $node->value('SELECT count(*) FROM mirror'), "$what: what is kept is what is there");
	return;
}

# ---- up and down -------------------------------------------------------------

my $load = load(400);
workers(4);
$node->let_pass(1);
workers(2);
workers(2);
IPC::Run::finish($load);
check('2 to 4 to 2', 2);

$load = load(100);
$node->safe_psql('postgres', "BEGIN; INSERT INTO src (k, n) SELECT 99, i FROM generate_series(1, 20) i;
	SELECT pipeline.alter_pipeline('p', workers => 5);
	INSERT INTO src (k, n) SELECT 99, i FROM generate_series(21, 40) i; COMMIT;
	INSERT INTO counters VALUES (99, 40)");
workers(3);
workers(6);
IPC::Run::finish($load);
check('within a transaction, and twice in a row', 6);

$node->safe_psql('postgres', "SELECT pipeline.stop('p')");
workers(1);
IPC::Run::finish(load(50));
workers(3);
$node->safe_psql('postgres', "BEGIN; SELECT pipeline.alter_pipeline('p', workers => 7); ROLLBACK");
$node->safe_psql('postgres', "SELECT pipeline.start('p')");
check('while it was stopped', 3);

# there are not enough places for so many
my ($code, $out, $err) = $node->psql('postgres', "SELECT pipeline.alter_pipeline('p', workers => 17)");
like($err, qr/too many started pipelines.*pipeline.max_segments is 16/s, 'more workers than places are refused');
check('after a refusal', 3);

# ---- whatever ends meanwhile -------------------------------------------------

my %end = (
	ended => sub { $node->terminate_process('pipeline worker') for 1 .. 3 },
	worker => sub { $node->kill9_process('pipeline worker') },
	capture => sub { $node->terminate_process('pipeline capture') },
	killed => sub { $node->kill9_process('pipeline capture') },
	restart => sub { $node->restart },
	immediate => sub { $node->stop('immediate'); $node->start });
my $now = 3;
for my $round (1 .. $rounds)
{
	my $what = (sort keys %end)[ int rand keys %end ];
	my @to = map { 1 + int rand 6 } 1 .. 1 + int rand 3;

	$load = load(60);
	for my $to (@to)
	{
		workers($to);
		$end{$what}->() if rand() < 0.6;
		$now = $to;
	}
	IPC::Run::finish($load);
	check("round $round, $what, to @to", $now);
}

# ---- at the worst points -----------------------------------------------------

for my $point (qw(worker-before-control worker-after-control worker-before-barrier))
{
	for my $way (qw(ended killed))
	{
		my $to = $now == 2 ? 4 : 2;

		$node->failpoint_set($point, 'wait');
		workers($to);
		$node->failpoint_wait($point);
		$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM pipeline.workers') if $way eq 'ended';
		$node->kill9_process('pipeline worker') if $way eq 'killed';
		$node->failpoint_clear($point);
		IPC::Run::finish(load(20));
		$now = $to;
		check("$way at $point", $now);
	}
}

# ---- several at the change at once --------------------------------------------

# each has changed its own checkpoint, and then makes those that are new
workers(2);
check('before both come at once', 2);
$node->failpoint_set('worker-at-change', 'wait');
workers(4);
$node->poll(q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'pipeline worker'
	AND backend_xid IS NOT NULL AND wait_event_type = 'Extension'}, what => 'both workers at the change');
my $log_before = -s $node->logfile;
$node->failpoint_clear('worker-at-change');
check('both came at once', 4);
unlike(slurp_file($node->logfile, $log_before), qr/deadlock detected/, 'without a deadlock');
workers(2);
check('and back', 2);
$now = 2;

# ---- while a partition stands still -----------------------------------------

# the guard halts the partition of a key; the others come to the change, and wait
sub halt
{
	my ($to) = @_;

	workers(2);
	$now = $to;
	check("before a change to $to", 2);
	my $stuck = $node->value("SELECT pipeline.partition_of('p', '1')");
	$node->safe_psql('postgres', 'INSERT INTO blocked VALUES (1)');
	$node->safe_psql('postgres', 'WITH c AS (UPDATE counters SET n = n + 1 WHERE k = 1 RETURNING k, n) INSERT INTO src (k, n) SELECT k, n FROM c');
	$node->reached('p', 'failed');
	workers($to);
	IPC::Run::finish(load(20));
	return $stuck;
}

sub go_on
{
	my ($what) = @_;

	$node->safe_psql('postgres', 'DELETE FROM blocked');
	$node->poll("SELECT true FROM (SELECT pipeline.restart('p')) s");
	check($what, $now);
	return;
}

my $stuck = halt(4);
my $done = $node->value('SELECT count(*) FROM places');
$node->poll("SELECT string_agg(DISTINCT state, ' ') = 'repartitioning' FROM pipeline.partitions WHERE partition <> $stuck",
	what => 'the others to wait');
is($node->value("SELECT state FROM pipeline.partitions WHERE partition = $stuck"), 'failed', 'one partition has failed');
is($node->value("SELECT state FROM pipeline.status"), 'failed', 'so has the pipeline');
like($node->value("SELECT string_agg(what, ' ') FROM pipeline.health()"), qr/its change to 4 workers waits for partition $stuck, which is failed/,
	'health says for whom the others wait');
is($node->value("SELECT workers FROM pipeline.partitions WHERE partition = $stuck"), 2, 'that one is before the change');
is($node->value("SELECT bool_and(workers = 4) FROM pipeline.partitions WHERE partition <> $stuck"), 't', 'the others are at it');
$node->terminate_process('pipeline worker') for 1 .. 3;
$node->terminate_process('pipeline capture');
$node->let_pass(1);
is($node->value('SELECT count(*) FROM places'), $done, 'nothing goes past it');
go_on('after a partition stood still');

halt(3);
$node->stop('immediate');
$node->start;
go_on('after it stood still through a crash');

# what is behind the change goes to the backlog, also of partitions that do not work yet
$node->safe_psql('postgres', "ALTER SYSTEM SET pipeline.max_retained_wal = '1MB'");
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
halt(5);
$node->safe_psql('postgres', 'CREATE TABLE filler AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i');
IPC::Run::finish(load(20));
$node->poll('SELECT count(DISTINCT partition) = 5 FROM _pipeline.backlog', what => 'all partitions to have a backlog');
$node->terminate_process('pipeline capture');
workers(2);
$now = 2;
$node->safe_psql('postgres', 'DROP TABLE filler; CREATE TABLE filler AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i');
IPC::Run::finish(load(20));
go_on('out of the backlog, to 5 and to 2');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET pipeline.max_retained_wal');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

# with one process for all, who waits gives it to those that are waited for
$node->safe_psql('postgres', 'ALTER SYSTEM SET pipeline.max_workers = 1');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
$load = load(30);
workers(5);
workers(2);
workers(4);
IPC::Run::finish($load);
check('with one process', 4);
$node->safe_psql('postgres', 'ALTER SYSTEM RESET pipeline.max_workers');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');

# what is skipped is skipped by all
halt(6);
$node->safe_psql('postgres', "SELECT pipeline.stop('p')");
IPC::Run::finish(load(5));
$node->safe_psql('postgres', 'DELETE FROM blocked');
$node->safe_psql('postgres', "BEGIN; LOCK src; TRUNCATE places, mirror, _pipeline.kept; DELETE FROM src; UPDATE counters SET n = 0; SELECT pipeline.start('p', skip_to_now => true); COMMIT");
IPC::Run::finish(load(20));
check('after a new beginning', 6);

$node->safe_psql('postgres', "SELECT pipeline.drop_pipeline('p')");
$node->poll("SELECT count(*) = 0 FROM _pipeline.consumers()", what => 'the places to be given up');
$node->stop;
done_testing();
