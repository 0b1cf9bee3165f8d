# health() where the server itself is not fit: it names the first obstacle and
# the command that mends it, to every user, and is empty when that was run.
# Pipelines that wait, retry and hold back WAL, and a standby.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->init_new('main', conf => <<'CONF');
shared_preload_libraries = ''
wal_level = 'replica'
max_replication_slots = 1
max_worker_processes = 1
max_prepared_transactions = 5
CONF
$node->start;
$node->safe_psql('postgres', <<'SQL');
SELECT pg_create_physical_replication_slot('in_the_way');
CREATE EXTENSION pipeline;
CREATE ROLE plain LOGIN;
GRANT USAGE ON SCHEMA pipeline TO plain;
CREATE TABLE src (id int PRIMARY KEY);
CREATE TABLE dst (id int PRIMARY KEY);
SQL

# All problems, a line each.
sub health
{
	my (%opt) = @_;

	return $node->safe_psql('postgres',
		'SELECT severity, pipeline, what, hint FROM pipeline.health()',
		extra_params => [ '-U', $opt{role} // 'postgres' ]);
}

# Wait for a problem; severity, pipeline, what and hint are one line.
sub shows
{
	my ($line, $name) = @_;
	my ($regex) = "$line" =~ /^\(\?\^:(.*)\)$/s;

	$node->poll(
		"SELECT concat_ws('|', severity, coalesce(pipeline, ''), what, hint) ~ \$l\$^($regex)\$\$l\$
		   FROM pipeline.health() LIMIT 1", what => $name);
	like(health(), qr/^$line$/m, $name);
	return;
}

# Run the hint of the first problem.
sub mend
{
	my $hint = $node->value('SELECT hint FROM pipeline.health() LIMIT 1');

	note $hint;
	$node->safe_psql('postgres', $hint);
	$node->restart if $hint =~ /restart the server/;
	return;
}

sub well
{
	my ($name) = @_;

	$node->poll('SELECT count(*) = 0 FROM pipeline.health()', what => $name);
	is(health(), '', $name);
	return;
}

my $restart = '-- then restart the server';

# ---- the server, from one obstacle to the next -------------------------------

shows(qr/error\|\|pipeline is not loaded at server start\|ALTER SYSTEM SET shared_preload_libraries = 'pipeline'; $restart/,
	'not preloaded');
is(health(role => 'plain'), health(), 'everybody sees it');
mend();
shows(qr/error\|\|wal_level is replica, needed is logical\|ALTER SYSTEM SET wal_level = logical; $restart/, 'wal_level');
mend();
shows(qr/error\|\|the pipeline launcher is not running\|ALTER SYSTEM SET max_worker_processes = 9; $restart/, 'no launcher');
mend();
shows(qr/error\|\|no free replication slot .*\|ALTER SYSTEM SET max_replication_slots = 6; $restart/, 'no slot');
is(health(role => 'plain'), health(), 'everybody sees that, too');

# The slot waits for transactions that are prepared or open.
$node->safe_psql('postgres', q{BEGIN; INSERT INTO dst VALUES (-1); PREPARE TRANSACTION 'an ''old'' one'});
my $open = $node->background_psql('postgres', on_error_stop => 0);
$open->query('BEGIN; INSERT INTO dst VALUES (-2)');
my $pid = $open->query('SELECT pg_backend_pid()');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('in_the_way')});
shows(qr/warning\|\|the slot of this database waits for transactions .*: prepared transaction 'an ''old'' one', process $pid\|ROLLBACK PREPARED 'an ''old'' one'; -- or COMMIT PREPARED, in its database/,
	'the slot waits for a prepared transaction');
is(health(role => 'plain'), health(), 'everybody sees it');
mend();
shows(qr/warning\|\|the slot .*: process $pid\|SELECT pg_terminate_backend\($pid\);/, 'then for an open one');
mend();
well('the slot is ready');
eval { $open->quit };

# ---- pipelines ---------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1);
SQL
$node->caught_up('p');
well('a pipeline runs');

# One process for the server's own launcher, ours, the mover and capture each.
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 4');
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_replication_slots = 5');
$node->restart;
$node->safe_psql('postgres', 'INSERT INTO src VALUES (2)');
$node->reached('p', 'waiting');
shows(qr/warning\|p\|no free worker process\|ALTER SYSTEM SET max_worker_processes = 12; $restart/, 'no process for a worker');
is($node->value(q{SELECT lag > '0' AND lag_bytes > 0 AND workers = 0 FROM pipeline.status}), 't',
	'it lags behind, which is known after a restart, too');
is(health(role => 'plain'), '', 'a user who may not see the pipeline does not see its problem');
mend();
$node->caught_up('p');
well('the hint was right');
$node->safe_psql('postgres', 'ALTER SYSTEM SET max_worker_processes = 3');
$node->restart;
shows(qr/error\|\|no free worker process for the capture process of pipeline\|ALTER SYSTEM SET max_worker_processes = 11; $restart/,
	'no process for capture: one row, none for the pipeline that stands still because of it');
mend();
$node->caught_up('p');
well('the hint was right for capture');

# A conflict that lasts is shown after 10 s.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION busy(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE 'somebody is busy' USING ERRCODE = '40001'; END $$;
SELECT pipeline.add_stage('p', 'busy', 'transform', 'busy(src)', max_attempts => 1000);
INSERT INTO src VALUES (3);
SQL
$node->reached('p', 'retrying');
is(health(), '', 'an error of the moment is no problem');
shows(qr/warning\|p\|somebody is busy\|.*SELECT pipeline.restart\('p'\);/, 'a moment that lasts is one');
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION busy(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS
$$ BEGIN RAISE 'no room' USING ERRCODE = '53100'; END $$;
SQL
shows(qr/error\|p\|no room\|\/\* make room on the disk \*\/ SELECT pipeline.restart\('p'\);/, 'a full disk is an error at once');
$node->safe_psql('postgres', q{SELECT pipeline.drop_stage('p', 'busy')});
$node->caught_up('p');
well('it is over');

# ---- WAL that the slot holds back ---------------------------------------------

$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET max_slot_wal_keep_size = '32MB';
SELECT pg_reload_conf();
SELECT pipeline.stop('p');
INSERT INTO src VALUES (4);
SQL
sub wal_segment
{
	$node->safe_psql('postgres', 'SELECT pg_logical_emit_message(false, $$filler$$, $$-$$); SELECT pg_switch_wal()');
	return;
}
for (1 .. 10)
{
	last if health() =~ /is invalidated after/;
	wal_segment();
}
like(health(), qr/^(warning|error)\|\|replication slot pipeline_\d+ is invalidated after .* more of WAL\|ALTER SYSTEM SET max_slot_wal_keep_size = '64 MB'; -- then SELECT pg_reload_conf\(\);$/m,
	'the slot is soon to be invalidated');
mend();
$node->reload;
$node->poll(q{SELECT NOT EXISTS (SELECT FROM pipeline.health() WHERE what ~ 'invalidated')}, what => 'a larger max_slot_wal_keep_size');
$node->safe_psql('postgres', q{SELECT pipeline.start('p')});
$node->caught_up('p');
well('no WAL is held back');

# Nobody acts in time.
$node->safe_psql('postgres', <<'SQL');
ALTER SYSTEM SET max_slot_wal_keep_size = '1MB';
SELECT pg_reload_conf();
SELECT pipeline.stop('p');
INSERT INTO src VALUES (5);
SQL
wal_segment() for 1 .. 4;
$node->safe_psql('postgres', 'CHECKPOINT');
$node->reached('p', 'lost');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET max_slot_wal_keep_size');
$node->reload;
shows(qr/error\|p\|its replication slot is gone, .*\|SELECT pipeline.start\('p', skip_to_now => true\);/, 'a lost position');
mend();
$node->safe_psql('postgres', 'INSERT INTO src VALUES (6)');
$node->caught_up('p');
well('it goes on');
is($node->value('SELECT count(*) FROM dst WHERE id IN (5, 6)'), '1', 'from then on');

# ---- a standby -----------------------------------------------------------------

$node->backup('backup');
my $primary = $node;
my $standby = PipelineTest->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
is($standby->value('SELECT count(*) FROM pipeline.health()'), '0', 'nothing is wrong with a standby');
$standby->stop;

$node->stop;
done_testing();
