# The slot is gone: dropped by hand, moved by hand, invalidated by
# max_slot_wal_keep_size, missing after a promotion or a restore, or a stale one
# of before.  Capture finds out when it begins; every pipeline that was born in
# it is "lost", once in the log and in the audit log, and nothing is processed
# until start(skip_to_now => true).  A standby shows the views, and refuses the
# rest.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use File::Path qw(rmtree);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main',
	has_archiving => 1,
	conf => "min_wal_size = 32MB\nmax_wal_size = 64MB\n");
$node->need_failpoints;

my $slot = q{SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pipeline%'};
my $told = qr/WARNING: .* positions of 2 pipelines of database "postgres" are lost/;

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY);
CREATE TABLE dst (id int);
CREATE TABLE other_dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SELECT pipeline.create_pipeline('stopped', source => 'src');
SELECT pipeline.add_output('stopped', 'other_dst');
SELECT pipeline.start('stopped');
SELECT pipeline.create_pipeline('unborn', source => 'src');
SQL
my $id = 0;

# Some rows, and their first id.
sub write_rows
{
	my ($on, $n) = @_;
	my $first = $id + 1;

	$id += $n // 10;
	$on->safe_psql('postgres', "INSERT INTO src SELECT generate_series($first, $id)");
	return $first;
}

sub settle
{
	my ($on) = @_;

	write_rows($on);
	$on->caught_up($_) for 'p', 'stopped';
	$on->safe_psql('postgres', q{SELECT pipeline.stop('stopped')});
	return;
}

sub count_told
{
	my ($on) = @_;
	my @lines = grep { /$told/ } split /\n/, slurp_file($on->logfile);

	return scalar @lines;
}

# Stands as lost; goes on when told to.
sub is_lost
{
	my ($on, $what, $reason, $warnings) = @_;

	$on->reached('p', 'lost');
	is( $on->value(q{SELECT string_agg(state, ' ' ORDER BY pipeline) FROM pipeline.status}),
		'lost lost stopped', "$what: what runs and what is stopped is lost");
	like($on->value("SELECT last_error FROM pipeline.status WHERE pipeline = '$_'"),
		qr/slot.*hint: SELECT pipeline\.start\('$_', skip_to_now => true\)/,
		"$what: $_ says what to do") for 'p', 'stopped';
	is(count_told($on), $warnings, "$what: one warning");
	like(slurp_file($on->logfile), qr/DETAIL:  $reason/, "$what: it says why");
	is( $on->value(
			q{SELECT string_agg((who = (SELECT rolname FROM pg_authid WHERE oid = 10) AND detail ? 'slot_lsn'
			        AND detail->>'processed_lsn' IS NOT NULL AND detail->>'reason' ~ '}
			  . $reason . q{')::text, ' ')
			  FROM (SELECT * FROM pipeline.audit_log WHERE action = 'lost' ORDER BY id DESC LIMIT 2) a}
		),
		'true true', "$what: a row each in the audit log");
	my $audited = $on->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost'});
	is($audited, 2 * $warnings, "$what: and no more");

	# again, and nothing is new
	$on->terminate_process('pipeline capture');
	$on->poll(q{SELECT state = 'ready' FROM _pipeline.databases() WHERE database = (SELECT oid FROM pg_database WHERE datname = 'postgres')},
		what => 'capture');
	is(count_told($on), $warnings, "$what: it is not said again");

	my $done = $on->value('SELECT count(*) FROM dst');
	write_rows($on);
	is($on->value(q{SELECT pipeline.wait_for('p', timeout => '100 ms')}), 'f', "$what: wait_for is not true");
	for my $function ('start', 'restart')
	{
		my ($rc, $out, $err) = $on->psql('postgres', "SELECT pipeline.$function('stopped')");
		like($err, qr/position of pipeline "stopped" is lost/, "$what: $function is refused");
	}
	is($on->value('SELECT count(*) FROM dst'), $done, "$what: nothing is processed");
	$on->safe_psql('postgres',
		q{SELECT pipeline.start(pipeline, skip_to_now => true) FROM pipeline.status WHERE state = 'lost'});
	my $first = write_rows($on);
	$on->caught_up($_) for 'p', 'stopped';
	$on->reached($_, 'running') for 'p', 'stopped';
	$on->same_rows("SELECT id FROM $_ WHERE id > $first - 11", "SELECT id FROM src WHERE id >= $first",
		"$what: $_ goes on from now") for 'dst', 'other_dst';
	settle($on);
	return;
}

settle($node);

# ---- by hand ----------------------------------------------------------------

# Capture cannot come back as long as it ends at once.
sub without_capture
{
	my ($code) = @_;

	$node->failpoint_set('capture-before-slot', 'wait');
	$node->terminate_process('pipeline capture');
	$node->failpoint_wait('capture-before-slot');
	write_rows($node);
	$code->();
	$node->failpoint_clear('capture-before-slot');
	return;
}

my $name = $node->value($slot);
without_capture(sub { $node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$name')") });
is_lost($node, 'dropped while capture is down', 'The replication slot does not exist any more', 1);

without_capture(
	sub {
		$node->safe_psql('postgres', "SELECT pg_replication_slot_advance('$name', pg_current_wal_lsn())");
	});
is_lost($node, 'moved while capture is down', 'Somebody moved the replication slot', 2);

without_capture(
	sub {
		$node->safe_psql('postgres',
			"SELECT pg_drop_replication_slot('$name'), pg_create_logical_replication_slot('$name', 'pgoutput')");
	});
is_lost($node, 'replaced while capture is down', 'The replication slot was replaced', 3);

# A new slot is made, and capture ends before it has noted that.  What became of
# the old one was said before.
my $gone = 'The replication slot does not exist any more';
$node->failpoint_set('capture-slot-made', 'crash');
$node->failpoint_set('capture-before-slot', 'wait');
$node->terminate_process('pipeline capture');
$node->failpoint_wait('capture-before-slot');
write_rows($node);
$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$name')");
my $launcher = $node->process_pid('pipeline launcher', wait => 1);
$node->psql('postgres', q{SELECT _pipeline.failpoint_set('capture-before-slot', 'off')});
$node->poll("SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pipeline launcher' AND pid <> $launcher",
	what => 'the crash');
is_lost($node, 'a crash while the slot is made', $gone, 4);

without_capture(
	sub {
		$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$name')");
		$node->failpoint_set('capture-slot-made', 'error');
	});
$node->poll(q{SELECT last_error ~ 'failpoint' FROM _pipeline.databases()
	WHERE database = (SELECT oid FROM pg_database WHERE datname = 'postgres')}, what => 'the error');
$node->failpoint_clear('capture-slot-made');
is_lost($node, 'an error while the slot is made', $gone, 5);

# Capture makes a slot and cannot begin a spool: it does not make one each time.
my $spool = $node->data_dir . '/base/pgsql_tmp';
my $failed_at = q{SELECT last_error_at FROM _pipeline.databases()
	WHERE database = (SELECT oid FROM pg_database WHERE datname = 'postgres')};
without_capture(
	sub {
		$node->safe_psql('postgres', "SELECT pg_drop_replication_slot('$name')");
		chmod 0, $spool;
	});
my ($made, $at);
for my $time (1 .. 3)
{
	$at = $node->value("SELECT coalesce(($failed_at), '-infinity')");
	$node->poll("SELECT ($failed_at) > '$at'", what => 'capture to fail once more');
	my $slot_lsn = $node->value('SELECT slot_lsn FROM _pipeline.slot');
	$made //= $slot_lsn if $time == 2;
	is($slot_lsn, $made, 'the slot stays the one that was made') if $time == 3;
}
chmod 0700, $spool;
is_lost($node, 'capture that could not begin a spool', 'The replication slot does not exist any more', 6);

$node->stop;
rmtree($node->data_dir . "/pg_replslot/$name");
$node->start;
is_lost($node, 'removed while the server is down', 'The replication slot does not exist any more', 7);

# ---- max_slot_wal_keep_size -------------------------------------------------

$node->safe_psql('postgres',
	q{ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
$node->reload;
$node->failpoint_set('worker-before-commit', 'wait');
write_rows($node);
$node->failpoint_wait('worker-before-commit');
$node->safe_psql('postgres', q{SELECT pg_switch_wal(); CREATE TABLE IF NOT EXISTS filler (id int); INSERT INTO filler VALUES (1)})
  for 1 .. 6;
$node->safe_psql('postgres', 'CHECKPOINT');
$node->failpoint_clear('worker-before-commit');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
$node->reload;
is_lost($node, 'invalidated', 'The server invalidated the replication slot', 8);

# ---- standby ----------------------------------------------------------------

$node->backup('backup');
my $standby = PipelineTest->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'archive_mode = off');
$standby->start;
write_rows($node);
$node->caught_up('p');
$node->wait_for_catchup($standby);
is($standby->value(q{SELECT string_agg(state, ' ' ORDER BY pipeline) FROM pipeline.status}),
	'standby standby stopped', 'a standby says that it is one');
$standby->same_rows('TABLE dst', 'TABLE dst', 'the outputs can be read');
is($standby->value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pipeline%'}),
	'0', 'it has no process of ours');
for my $call (
	q{create_pipeline('new', source => 'src')}, q{add_output('unborn', 'dst')},
	q{add_stage('unborn', 's', 'validate', query => 'SELECT null::text')},
	q{start('p')}, q{start('p', skip_to_now => true)}, q{stop('p')}, q{restart('p')},
	q{drop_pipeline('p')}, q{wait_for('p')}, q{redrive('p')}, q{discard('p', ids => ARRAY[1], why => 'x')})
{
	my ($rc, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT pipeline.$call");
	like($err, qr/ERROR:  (25006|55000)/, "refused on a standby: $call");
}
is($standby->value(q{SELECT count(*) FROM pipeline.ledger('p')}), '1', 'the ledger can be read');

$node->stop;
my $before = $standby->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost'});
is($before, 16, 'the audit log came along');
$standby->promote;
is($standby->value('SELECT pg_is_in_recovery()'), 'f', 'the standby is promoted');
$standby->poll(q{SELECT count(*) = 2 FROM pipeline.status WHERE state = 'lost'}, what => 'the pipelines to be lost');
is(count_told($standby), 1, 'promotion: one warning');
is($standby->value(q{SELECT count(*) FROM pipeline.audit_log WHERE action = 'lost'}),
	'18', 'promotion: a row each in the audit log');
$standby->safe_psql('postgres',
	q{SELECT pipeline.start(pipeline, skip_to_now => true) FROM pipeline.status WHERE state = 'lost'});
my $first = write_rows($standby);
$standby->caught_up($_) for 'p', 'stopped';
$standby->same_rows("SELECT id FROM dst WHERE id >= $first", "SELECT id FROM src WHERE id >= $first",
	'promotion: it goes on');
$standby->stop;

# ---- point in time recovery, with a slot of before ---------------------------

$node->start;
$node->caught_up('p');
my $slots = $node->basedir . '/slots';
$node->stop;
system_or_bail('cp', '-a', $node->data_dir . '/pg_replslot', $slots);
$node->start;
$node->backup('second');
write_rows($node);
$node->caught_up('p');
my $target = $node->value(q{SELECT pg_create_restore_point('here')});
my $archived = $node->value(q{SELECT pg_walfile_name(pg_current_wal_lsn())});
write_rows($node);
$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
$node->poll("SELECT last_archived_wal >= '$archived' FROM pg_stat_archiver", what => 'the archiver');

my $copy = PipelineTest->new('copy');
$copy->init_from_backup($node, 'second', has_restoring => 1, standby => 0);
rmtree($copy->data_dir . '/pg_replslot');
system_or_bail('cp', '-a', $slots, $copy->data_dir . '/pg_replslot');
$copy->append_conf('postgresql.conf',
	"recovery_target_name = 'here'\nrecovery_target_action = 'promote'\narchive_mode = off\n");
$copy->start;
$copy->poll('SELECT NOT pg_is_in_recovery()', what => 'the end of recovery');
$copy->poll(q{SELECT count(*) = 2 FROM pipeline.status WHERE state = 'lost'}, what => 'the pipelines to be lost');
like(slurp_file($copy->logfile), qr/promoted or restored since the replication slot was made/,
	'a slot of before is not trusted');
is(count_told($copy), 1, 'PITR: one warning');
is(scalar(grep { !/0000000[1-9]$/ } $copy->spool_files), 0, 'no stale spool file');
$copy->safe_psql('postgres',
	q{SELECT pipeline.start(pipeline, skip_to_now => true) FROM pipeline.status WHERE state = 'lost'});
$id += 1000;
$first = write_rows($copy);
$copy->caught_up('p');
$copy->same_rows("SELECT id FROM dst WHERE id >= $first", "SELECT id FROM src WHERE id >= $first",
	'PITR: it goes on');
$node->caught_up('p');
$node->same_rows("SELECT id FROM dst WHERE id > $first - 1011", "SELECT id FROM src WHERE id > $first - 1011",
	'and the original does not notice');
$copy->stop;
$node->stop;
done_testing();
