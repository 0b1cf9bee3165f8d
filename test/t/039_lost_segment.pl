# A segment whose backlog would be larger than pipeline.max_backlog is lost, and no
# other one: they go on under the same processes, whatever ends when.  All of its
# workers are lost together, it stays so over restarts and crashes, in it alone
# start(skip_to_now => true) leaves a gap, which the audit log has, and it can be
# dropped.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new(
	'main',
	extra => [ '--no-locale', '-E', 'UTF8', '--wal-segsize=1' ],
	conf => <<'CONF');
autovacuum = off
wal_writer_delay = 10s
min_wal_size = 2MB
max_wal_size = 8MB
wal_keep_size = 0
pipeline.batch_rows = 500
pipeline.worker_idle_timeout = 0
pipeline.max_retained_wal = 1MB
pipeline.max_backlog = 1MB
CONF
$node->need_failpoints;

# Segment 1 cuts, 2 looks up and has dst, 3 and 4 are isolated outputs.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, k int, note text);
CREATE TABLE tick (n int);
CREATE TABLE names (k int PRIMARY KEY, name text);
INSERT INTO names SELECT k, 'name ' || k FROM generate_series(0, 9) k;
CREATE TABLE dst (id int, name text, note text);
CREATE TABLE quick (id int, name text, note text);
CREATE TABLE slow (id int, name text, note text);
SELECT pipeline.create_pipeline('p', source => 'src', operations => '{insert}', consistency => 'eventual');
SELECT pipeline.add_stage('p', 'cut', 'transform', query => 'SELECT id, k, note FROM event WHERE k < 10');
SELECT pipeline.add_stage('p', 'look', 'enrich', query => 'SELECT event.id, n.name, event.note FROM event JOIN names n USING (k)', isolate => true);
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.add_output('p', 'quick', isolate => true);
SELECT pipeline.add_output('p', 'slow', isolate => true);
SELECT pipeline.start('p');
CREATE VIEW good AS SELECT id, name, note FROM src JOIN names USING (k);

-- Small transactions, about so many kB.
CREATE PROCEDURE traffic(kb int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. greatest(kb / 5, 1) LOOP
		INSERT INTO src (k, note) SELECT (random() * 10)::int, repeat(md5(random()::text), 10) FROM generate_series(1, 15);
		COMMIT;
	END LOOP;
END $$;
SQL

# Wait until these segments have done all that is committed by now.
sub done
{
	my @segments = @_;

	for my $segment (@segments)
	{
		my $lsn = $node->value('SELECT pg_current_wal_insert_lsn()');

		# only a commit has capture decode what is before it
		$node->safe_psql('postgres', 'INSERT INTO tick VALUES (1)');
		$node->poll(
			"SELECT bool_and(caught_up OR processed_lsn >= '$lsn') AND (SELECT bool_and(decoded_lsn >= '$lsn') FROM _pipeline.databases()
			 WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()))
			 FROM _pipeline.consumers() JOIN _pipeline.pipelines USING (pipeline_id) WHERE name = 'p' AND segment = $segment",
			what => "segment $segment");
	}
	return;
}

# Traffic with which these segments keep up, or they would be lost, too.
sub traffic
{
	my ($kb, @segments) = @_;

	for (; $kb > 0; $kb -= 200)
	{
		$node->safe_psql('postgres', 'CALL traffic(200)');
		done(@segments);
	}
	return;
}

# Traffic until a segment is lost; the others that are named keep up.
sub lose
{
	my ($segment, @others) = @_;

	for (1 .. 100)
	{
		traffic(400, @others);
		last if lost() ne '{}';
	}
	$node->reached('p', 'lost');
	is(lost(), "{$segment}", "segment $segment alone is lost");
	return;
}

sub lost
{
	return $node->value(q{SELECT lost_segments FROM _pipeline.pipelines WHERE name = 'p'});
}

my $states = q{SELECT string_agg(segment || ' ' || state, ', ' ORDER BY segment, partition) FROM pipeline.partitions WHERE pipeline = 'p'};
sub states
{
	return $node->value($states);
}

# The processes but those of a segment.
sub pids
{
	my ($segment) = @_;

	return $node->value("SELECT string_agg(concat_ws(' ', segment, partition, pid), ', ' ORDER BY segment, partition)
		FROM pipeline.workers WHERE pipeline = 'p' AND segment <> $segment");
}

# What an output has is right: all of it, but for gaps of ids.
sub right
{
	my ($output, $what, @gaps) = @_;
	my $where = join ' AND ', 'true', map { "id NOT BETWEEN $_->[0] AND $_->[1]" } @gaps;

	return $node->same_rows("TABLE $output", "SELECT * FROM good WHERE $where", $what);
}

sub last_id
{
	return $node->value('SELECT max(id) FROM src');
}

sub refused
{
	my ($sql, $why, $what) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");

	return like($err, $why, $what);
}

traffic(500, 1 .. 4);
right($_, "at first $_ is right") for 'dst', 'quick', 'slow';

# ---- an isolated output --------------------------------------------------------

my $processes = pids(4);
my $log_at = -s $node->logfile;
$node->safe_psql('postgres', 'ALTER TABLE slow RENAME COLUMN note TO other');
lose(4, 1 .. 3);
$node->poll(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE pid NOT IN (SELECT pid FROM pipeline.workers WHERE pid IS NOT NULL) AND backend_type = 'pipeline worker'},
	what => 'its worker to leave');
is(states(), '1 running, 2 running, 3 running, 4 lost', 'its siblings run');
is($node->value(q{SELECT string_agg(concat_ws(' ', segment, state), ', ') FROM pipeline.workers WHERE pid IS NULL}),
	'4 lost', 'pipeline.workers shows the one that is lost');
my $status = q{SELECT last_error FROM pipeline.status WHERE pipeline = 'p'};
like($node->value($status), qr/^the backlog of segment 4 was larger than pipeline.max_backlog \(1 MB\) \(hint: SELECT pipeline.start\('p', skip_to_now => true\);/,
	'the status says why, and the way out');
my $health = q{SELECT concat_ws('|', severity, pipeline, what, hint) FROM pipeline.health() WHERE what LIKE '%was larger%'};
is($node->value($health),
	q{error|p|the backlog of segment 4 was larger than pipeline.max_backlog, and what was committed since its position is gone|SELECT pipeline.start('p', skip_to_now => true);},
	'so does health()');
is($node->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost' AND who = (SELECT rolname FROM pg_roles WHERE oid = 10)
	AND pipeline = 'p' AND (detail->>'segment')::int = 4 AND (detail->>'backlog_bytes')::bigint > (detail->>'max_backlog')::bigint
	AND detail->>'max_backlog' = '1048576'
	AND (detail->>'processed_lsn')::pg_lsn = (SELECT commit_lsn FROM _pipeline.checkpoints WHERE segment = 4)}),
	1, 'and the audit log');
is($node->value(q{SELECT pipeline.wait_for('p', timeout => '0.1 s')}), 'f', 'wait_for waits for it');
refused(q{SELECT pipeline.restart('p')},
	qr/ERROR:  55000: the position of pipeline "p" is lost.*DETAIL:  The backlog of segment 4 was larger than pipeline.max_backlog.*HINT:  SELECT pipeline.start\('p', skip_to_now => true\)/s,
	'restart is refused');
refused(q{SELECT pipeline.start('p')}, qr/ERROR:  55000: .*DETAIL:  The backlog of segment 4/s, 'so is start');

traffic(2500, 1 .. 3);
is(lost(), '{4}', 'others are not lost later');
is(pids(4), $processes, 'their processes are the same');
right($_, "$_ goes on") for 'dst', 'quick';
is($node->value(q{SELECT events = produced AND events = (SELECT count(*) FROM quick) FROM pipeline.ledger('p') WHERE output = 'quick'}),
	't', 'as its ledger says');
$node->poll('SELECT max(retained_wal_bytes) < 2 * 1024 * 1024 FROM _pipeline.consumers()', what => 'no WAL to be held');
my $slot = 'SELECT pg_current_wal_lsn() - confirmed_flush_lsn < 2 * 1024 * 1024 FROM pg_replication_slots';
$node->poll($slot, what => 'the slot to go on');

for my $how ('restart', 'kill9_server')
{
	$node->$how;
	traffic(600, 1 .. 3);
	$node->reached('p', 'lost');
	is(states(), '1 running, 2 running, 3 running, 4 lost', "$how: it stays lost, alone");
	like($node->value($status), qr/^the backlog of segment 4 was larger than pipeline.max_backlog \(hint/, "$how: for the same reason");
	right($_, "$how: $_ goes on") for 'dst', 'quick';
}
$node->terminate_process('pipeline capture');
traffic(600, 1 .. 3);
is(states(), '1 running, 2 running, 3 running, 4 lost', 'another capture: it stays lost, alone');
my @told = slurp_file($node->logfile, $log_at) =~ /WARNING:  .*is lost.*/g;
is("@told", 'WARNING:  the position of pipeline "p" is lost in segment 4', 'the log has it once');

# Stopped, it is lost all the same.
$node->safe_psql('postgres', q{SELECT pipeline.stop('p')});
$node->reached('p', 'lost');
refused(q{SELECT pipeline.start('p')}, qr/DETAIL:  The backlog of segment 4/, 'and not started');

# It goes on, and nobody else skips what was committed while the pipeline was stopped.
$node->safe_psql('postgres', 'CALL traffic(100)');
my @slow_gap = ($node->value('SELECT max(id) + 1 FROM slow'));
$node->safe_psql('postgres', q{ALTER TABLE slow RENAME COLUMN other TO note});
my $skip = q{SELECT pipeline.start('p', skip_to_now => true)};
$node->safe_psql('postgres', $skip);
done(1 .. 3);
traffic(500, 1 .. 4);
right($_, "$_ has no gap") for 'dst', 'quick';
push @slow_gap, $node->value("SELECT min(id) - 1 FROM slow WHERE id > $slow_gap[0]");
right('slow', 'the one that was lost has one', \@slow_gap);
cmp_ok($slow_gap[1] - $slow_gap[0], '>', 3000, 'which is not small');
is($node->value('SELECT state FROM pipeline.status'), 'running', 'the pipeline runs');
is(lost(), '{}', 'with nothing lost');
is($node->value('SELECT count(*) FROM _pipeline.backlog'), 0, 'its backlog is gone');
is($node->value(q{SELECT (detail->>'skipped_from')::pg_lsn < (detail->>'skipped_to')::pg_lsn AND detail->>'segment' = '4'
	FROM pipeline.audit_log WHERE action = 'start' ORDER BY id DESC LIMIT 1}), 't', 'the audit log has the gap');
$node->restart;
traffic(200, 1 .. 4);
right($_, "$_ is right after a restart") for 'dst', 'quick';
right('slow', 'so is the one that was lost', \@slow_gap);

# ---- a stage, with several workers ---------------------------------------------

# The mover stands right after the commit by which the segment is lost, so that
# nobody knows of it: then it ends, or the server.
my @gaps;
for my $how ('pipeline mover', 'server')
{
	$node->safe_psql('postgres', q{SELECT pipeline.alter_stage('p', 'look', workers => 3)}) if $how eq 'server';
	traffic(300, 1 .. 4);
	my $gap = last_id() + 1;
	$node->safe_psql('postgres', q{ALTER SYSTEM SET pipeline.max_retained_wal = '1GB'});
	$node->reload;
	$node->safe_psql('postgres', 'ALTER TABLE names RENAME TO gone');
	traffic(3000, 1, 3, 4);
	$node->failpoint_set('mover-after-commit', 'wait');
	$node->safe_psql('postgres', q{ALTER SYSTEM RESET pipeline.max_retained_wal});
	$node->reload;
	$node->failpoint_wait('mover-after-commit');
	is(lost(), '{2}', "$how: the commit by which segment 2 is lost");
	$how eq 'server' ? $node->kill9_server : $node->terminate_process($how);
	$node->failpoint_clear('mover-after-commit');
	$processes = pids(2) if $how ne 'server';
	traffic(600, 1, 3, 4);
	$node->reached('p', 'lost');
	my $workers = join ', ', ('2 lost') x ($how eq 'server' ? 3 : 1);
	$node->poll("SELECT ($states) = '1 running, $workers, 3 running, 4 running'", what => 'all of its workers to be told');
	pass("$how: with all its workers, and no other");
	$node->poll($slot, what => 'the slot to go on');
	is(pids(2), $processes, "$how: under the same processes") if $how ne 'server';
	is(lost(), '{2}', "$how: but once");
	is($node->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost' AND detail->>'segment' = '2'}),
		scalar @gaps + 1, "$how: as the audit log says");
	my $handed = q{SELECT produced FROM pipeline.ledger('p') WHERE output = '(cut)'};
	my $before = $node->value($handed);
	traffic(400, 1, 3, 4);
	cmp_ok($node->value($handed), '>', $before, "$how: the segment before goes on");

	# Other numbers of workers, which it will never come to.
	for my $number ($how eq 'server' ? (5, 2) : ())
	{
		$node->safe_psql('postgres', "SELECT pipeline.alter_stage('p', 'look', workers => $number)");
		traffic(200, 1, 3, 4);
		is($node->value(q{SELECT state FROM pipeline.status}), 'lost', "$how: $number workers do not change that");
	}
	$node->kill9_server if $how eq 'server';
	$node->safe_psql('postgres', 'ALTER TABLE gone RENAME TO names');
	traffic(200, 1, 3, 4);
	$node->safe_psql('postgres', $skip);
	push @gaps, [ $gap, last_id() ];
	traffic(600, 1 .. 4);
	is(pids(2), $processes, "$how: the others keep their processes when it is started") if $how ne 'server';
	$node->caught_up('p');
	right($_, "$how: $_ has one gap more", @gaps, $_ eq 'slow' ? \@slow_gap : ()) for 'dst', 'quick', 'slow';
	$node->poll(q{SELECT count(*) = 1 FROM pipeline.partitions WHERE segment = 2}) if $how ne 'server';
	$node->poll(q{SELECT count(*) = 2 FROM pipeline.partitions WHERE segment = 2}) if $how eq 'server';
	is($node->value('SELECT state FROM pipeline.status'), 'running', "$how: the pipeline runs");
	$node->restart;
	traffic(200, 1 .. 4);
	right($_, "$how: $_ is right after a restart", @gaps, $_ eq 'slow' ? \@slow_gap : ()) for 'dst', 'quick', 'slow';
}

# ---- ways out: to be dropped -----------------------------------------------------

$node->safe_psql('postgres', 'ALTER TABLE slow RENAME COLUMN note TO other');
lose(4, 1 .. 3);
$processes = pids(4);
$node->safe_psql('postgres', q{SELECT pipeline.drop_output('p', 'slow')});
traffic(400, 1 .. 3);
$node->caught_up('p');
right($_, "$_ is right when the lost output was dropped", @gaps) for 'dst', 'quick';
is(pids(4), $processes, 'under the same process');
is($node->value(q{SELECT state FROM pipeline.status}) . lost(), 'running{}', 'the pipeline runs again');
is($node->value('SELECT count(*) FROM _pipeline.backlog'), 0, 'without a backlog');
$node->restart;
traffic(200, 1 .. 3);
is(states(), '1 running, 2 running, 2 running, 3 running', 'and so after a restart');

# A stage that begins a segment: only when it is lost, what was handed over to it need
# not be done.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.drop_pipeline('p');
CREATE TABLE checked (id int, k int, note text);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'all', 'transform', query => 'SELECT id, k, note FROM event');
SELECT pipeline.add_stage('p', 'check', 'validate', query => 'SELECT EXISTS (SELECT FROM names) FROM event', isolate => true);
SELECT pipeline.add_output('p', 'checked');
SELECT pipeline.start('p');
SQL
my $first = last_id() + 1;
traffic(200, 1, 2);
my $gap = last_id() + 1;
$node->safe_psql('postgres', 'ALTER TABLE names RENAME TO gone');
traffic(200, 1);
my $drop = q{SELECT pipeline.drop_stage('p', 'check')};
refused($drop, qr/has not done all that was handed over to it/, 'a stage that only stands is not dropped');
lose(2, 1);

# A segment more behind it is not lost with it.
$node->safe_psql('postgres', 'ALTER TABLE gone RENAME TO names');
$node->safe_psql('postgres', q{SELECT pipeline.add_stage('p', 'more', 'validate', query => 'SELECT true FROM event', isolate => true)});
traffic(200, 1);
is(lost(), '{2}', 'a segment that is added behind is not lost');
is(states(), '1 running, 2 lost, 3 running', 'but runs');
$node->safe_psql('postgres', q{SELECT pipeline.drop_stage('p', 'more')});
$node->safe_psql('postgres', $drop);
my @stage_gap = ($gap, last_id());
traffic(200, 1);
$node->caught_up('p');
is($node->value(q{SELECT state FROM pipeline.status}) . lost(), 'running{}', 'one that is lost is');
$node->same_rows('TABLE checked', "SELECT * FROM src WHERE id >= $first AND id NOT BETWEEN $stage_gap[0] AND $stage_gap[1]",
	'and the segment before goes on where it was');

# ---- upserts -------------------------------------------------------------------

# What is kept of the lost output alone is made older than all that comes.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.drop_pipeline('p');
CREATE TABLE items (id int PRIMARY KEY, n int, note text);
ALTER TABLE items REPLICA IDENTITY FULL;
CREATE TABLE up1 (id int PRIMARY KEY, n int, note text);
CREATE TABLE up2 (id int PRIMARY KEY, n int, note text);
SELECT pipeline.create_pipeline('p', source => 'items', operations => '{insert,update,delete}');
SELECT pipeline.add_stage('p', 'all', 'transform', query => 'SELECT id, n, note FROM event');
SELECT pipeline.add_output('p', 'up1', mode => 'upsert', isolate => true);
SELECT pipeline.add_output('p', 'up2', mode => 'upsert', isolate => true);
SELECT pipeline.start('p');
CREATE OR REPLACE PROCEDURE traffic(kb int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. greatest(kb / 5, 1) LOOP
		INSERT INTO items SELECT (random() * 100)::int * 15 + g, 1, repeat(md5(random()::text), 10) FROM generate_series(1, 15) g
		ON CONFLICT (id) DO UPDATE SET n = items.n + 1, note = excluded.note;
		DELETE FROM items WHERE id = (random() * 1000)::int;
		COMMIT;
	END LOOP;
END $$;
SQL

sub kept
{
	my ($what) = @_;

	return q{SELECT DISTINCT o.name FROM _pipeline.kept k JOIN _pipeline.outputs o USING (output_id) WHERE k.commit_lsn } . $what;
}

traffic(600, 1 .. 3);
$node->same_rows("TABLE $_", 'TABLE items', "$_ is what the source is") for 'up1', 'up2';
$node->safe_psql('postgres', 'ALTER TABLE up2 RENAME COLUMN note TO other');
lose(3, 1, 2);
$node->same_rows('TABLE up1', 'TABLE items', 'up1 goes on');

# A copy begins anew, with all of it.
my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-h', $node->host, '-p', $node->port, '-d', 'copy', $dump ], 'pg_restore');
$node->poll(q{SELECT state = 'ready' FROM _pipeline.databases() d, pg_database b WHERE b.oid = d.database AND b.datname = 'copy'},
	db => 'copy', what => 'the slot of the copy');
is($node->value(q{SELECT concat_ws('|', state, last_error) FROM pipeline.status}, db => 'copy'), 'stopped', 'a copy is not lost');
$node->safe_psql('copy', q{ALTER TABLE up2 RENAME COLUMN other TO note; SELECT pipeline.start('p')});
$node->safe_psql('copy', q{INSERT INTO items VALUES (5000, 1, 'copy')});
$node->caught_up('p', db => 'copy');
is($node->value('SELECT count(*) FROM up1 JOIN up2 USING (id) WHERE id = 5000', db => 'copy'), 1, 'and runs');
is($node->value('SELECT lost_segments FROM _pipeline.pipelines', db => 'copy'), '{}', 'with nothing lost');
$node->safe_psql('postgres', 'DROP DATABASE copy');

$node->safe_psql('postgres', 'ALTER TABLE up2 RENAME COLUMN other TO note');
is($node->value("BEGIN; DO \$\$ BEGIN PERFORM pipeline.start('p', skip_to_now => true); END \$\$; " . kept(q{= '0/0'}) . '; COMMIT'),
	'up2', 'what is kept of the lost output is old now');
is($node->value(kept(q{> '0/0'})), 'up1', 'and of that alone');
traffic(400, 1 .. 3);
$node->safe_psql('postgres', 'UPDATE items SET n = n + 1');
$node->caught_up('p');
$node->same_rows('TABLE up1', 'TABLE items', 'up1 is what the source is');
$node->same_rows('SELECT * FROM up2 WHERE id IN (SELECT id FROM items)', 'TABLE items', 'up2 has what came since');

# ---- and the slot --------------------------------------------------------------

$node->safe_psql('postgres', 'ALTER TABLE up2 RENAME COLUMN note TO other');
lose(3, 1, 2);
$node->failpoint_set('capture-before-slot', 'wait');
$node->terminate_process('pipeline capture');
$node->failpoint_wait('capture-before-slot');
$node->safe_psql('postgres', 'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots');
$node->failpoint_clear('capture-before-slot');
$node->poll(q{SELECT count(*) = 3 FROM pipeline.workers WHERE state = 'lost'}, what => 'all to be lost');
like($node->value('SELECT what FROM pipeline.health()'), qr/^its replication slot is gone/, 'with the slot all of it is lost');
$node->safe_psql('postgres', "ALTER TABLE up2 RENAME COLUMN other TO note; $skip");
$node->safe_psql('postgres', 'UPDATE items SET n = n + 1');
$node->caught_up('p');
$node->same_rows("SELECT * FROM $_ WHERE id IN (SELECT id FROM items)", 'TABLE items', "$_ begins anew") for 'up1', 'up2';
is($node->value(q{SELECT detail ? 'segment' FROM pipeline.audit_log WHERE action = 'start' ORDER BY id DESC LIMIT 1}), 'f',
	'with one gap for all');
is(lost(), '{}', 'and nothing lost');
$node->stop;
done_testing();
