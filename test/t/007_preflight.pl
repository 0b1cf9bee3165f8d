# What a server must have: a declaration on a server that lacks something is
# refused with a SQLSTATE, with what there is and what is needed, and with the
# command that mends it, which really does.  A worker that finds no free
# process leaves its pipeline "waiting", and goes on when there is one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

# A process is for the server's own launcher of logical replication.
my $node = PipelineTest->init_new('main', conf => <<'CONF');
shared_preload_libraries = ''
wal_level = 'replica'
max_replication_slots = 1
max_worker_processes = 1
pipeline.max_databases = 2
pipeline.max_segments = 2
CONF
$node->start;
$node->safe_psql('postgres', q{SELECT pg_create_physical_replication_slot('in_the_way')});

sub error_of
{
	my ($sql, %opt) = @_;
	my ($rc, $out, $err) = $node->psql($opt{db} // 'postgres',
		"\\set VERBOSITY verbose\nSET statement_timeout = '60s';\n$sql",
		on_error_stop => 1);

	$err =~ s/^psql:\S+ //mg;
	return $rc == 0 ? '' : $err;
}

# An error with this SQLSTATE, and what the rest of the message must be like.
# Gives the command that its hint names.
sub refused
{
	my ($what, $sql, $sqlstate, $message, $detail, $hint, %opt) = @_;
	my $error = error_of($sql, %opt);

	like($error, qr/^ERROR:  $sqlstate: .*$message/m, "$what: refused with SQLSTATE $sqlstate");
	like($error, qr/^DETAIL:  .*$detail/m, "$what: says what there is and what is needed");
	like($error, qr/^HINT:  .*$hint/m, "$what: says what to do");
	return $error =~ /^HINT:  (ALTER SYSTEM SET [^;]*);/m ? $1 : undef;
}

sub restart_after
{
	my ($command) = @_;

	$node->safe_psql('postgres', $command) if defined $command;
	$node->restart;
	return;
}

my $create = q{SELECT pipeline.create_pipeline('p', source => 'src')};

# ---- not loaded at server start ---------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION pipeline;
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SQL
refused('not preloaded', $create, '55000', 'not loaded at server start',
	'shared memory', 'Add pipeline to shared_preload_libraries and restart the server');
is($node->value('SELECT count(*) FROM pipeline.status'), '0', 'the views work all the same');
is(error_of('DROP EXTENSION pipeline'), '', 'as does DROP EXTENSION');
$node->nothing_left('which leaves nothing');
$node->safe_psql('postgres', 'CREATE EXTENSION pipeline');
restart_after(q{ALTER SYSTEM SET shared_preload_libraries = 'pipeline'});

# ---- wal_level --------------------------------------------------------------

for my $function ($create, q{SELECT pipeline.start('p')})
{
	refused('wal_level', $function, '55000', 'wal_level', 'is replica, needed is logical',
		'ALTER SYSTEM SET wal_level = logical; .*restart');
}
restart_after(refused('wal_level', $create, '55000', 'wal_level', 'replica', 'wal_level'));

# ---- processes for launcher and capture -------------------------------------

restart_after(refused(
		'no process for the launcher', $create, '53000', 'launcher is not running',
		'max_worker_processes is 1', 'ALTER SYSTEM SET max_worker_processes = \d+; .*restart'));
is($node->value('SHOW max_worker_processes'), '9', 'the hint was followed');
restart_after('ALTER SYSTEM SET max_worker_processes = 2');
refused('no process for capture', $create, '53000', 'no free worker process',
	'max_worker_processes is 2', 'ALTER SYSTEM SET max_worker_processes = \d+; .*restart')
  for 1 .. 2;
restart_after(refused(
		'no process for capture', $create, '53000', 'no free worker process',
		'max_worker_processes is 2', 'max_worker_processes'));

# ---- replication slot -------------------------------------------------------

my $slots = refused(
	'no replication slot', $create, '53400', 'replication slot',
	'max_replication_slots is 1', 'ALTER SYSTEM SET max_replication_slots = \d+; .*restart');
refused('no replication slot, again', $create, '53400', 'replication slot',
	'max_replication_slots is 1', 'max_replication_slots');
$node->safe_psql('postgres', q{SELECT pg_drop_replication_slot('in_the_way')});
is(error_of($create), '', 'a slot became free: it works at once, without a restart');
is(error_of(q{SELECT pipeline.add_output('p', 'dst'); SELECT pipeline.start('p')}), '', 'from there on');
$node->safe_psql('postgres', 'INSERT INTO src VALUES (1)');
$node->caught_up('p');
$node->same_rows('TABLE dst', 'TABLE src', 'to the output');

# Another database has no slot then, and is helped by the hint.
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', <<'SQL');
CREATE EXTENSION pipeline;
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SQL
restart_after(refused(
		'no second slot', $create, '53400', 'replication slot', 'max_replication_slots is 1',
		'max_replication_slots', db => 'other'));
is( error_of("$create; SELECT pipeline.add_output('p', 'dst'); SELECT pipeline.start('p')",
		db => 'other'),
	'', 'the hint was right');
$node->safe_psql('other', 'INSERT INTO src VALUES (1)');
$node->safe_psql('postgres', 'INSERT INTO src VALUES (2)');
$node->caught_up('p', db => $_) for 'postgres', 'other';
$node->same_rows('TABLE dst', 'TABLE src', db => $_, "it works in $_") for 'postgres', 'other';

# ---- places in shared memory ------------------------------------------------

$node->safe_psql('postgres', 'CREATE DATABASE third');
$node->safe_psql('third', 'CREATE EXTENSION pipeline; CREATE TABLE src (id int)');
restart_after(refused(
		'no place for a database', $create, '53400', 'too many databases',
		'pipeline.max_databases is 2', 'ALTER SYSTEM SET pipeline.max_databases = \d+; .*restart',
		db => 'third'));
is(error_of($create, db => 'third'), '', 'the hint was right for a third database');
$node->safe_psql('postgres', 'DROP DATABASE third');

my $second = <<'SQL';
SELECT pipeline.create_pipeline('q', source => 'src');
SELECT pipeline.add_output('q', 'dst');
SELECT pipeline.start('q');
SQL
restart_after(refused(
		'no place for a pipeline', $second, '53400', 'too many started pipelines',
		'pipeline.max_segments is 2', 'ALTER SYSTEM SET pipeline.max_segments = \d+; .*restart'));
$node->safe_psql('postgres', 'INSERT INTO src VALUES (3)');
$node->caught_up('p');
$node->same_rows('TABLE dst', 'TABLE src', 'those that have a place went on');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('q')})
  if $node->value(q{SELECT count(*) FROM pipeline.pipelines WHERE pipeline = 'q'}) eq '1';
is(error_of("TRUNCATE dst; $second"), '', 'the hint was right for another pipeline');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('q')});
$node->safe_psql('postgres', 'DROP DATABASE other');

# ---- processes for workers --------------------------------------------------

# One for the server, launcher, mover and capture each: none is left.
restart_after('ALTER SYSTEM SET max_worker_processes = 4');
$node->safe_psql('postgres', 'TRUNCATE src, dst');
$node->safe_psql('postgres', 'INSERT INTO src VALUES (1)');
$node->reached('p', 'waiting');
is($node->value('SELECT count(*) FROM dst'), '0', 'no worker process: the pipeline waits');
is(error_of($create =~ s/'p'/'r'/r), '', 'which keeps nobody from declaring');
restart_after('ALTER SYSTEM SET max_worker_processes = 5');
$node->caught_up('p');
$node->same_rows('TABLE dst', 'TABLE src', 'after a restart with one more it goes on');

# One worker for two pipelines: they take turns, though none would end by itself.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE dst_q (id int);
SELECT pipeline.create_pipeline('q', source => 'src');
SELECT pipeline.add_output('q', 'dst_q');
SELECT pipeline.start('q');
INSERT INTO src VALUES (2);
SQL
$node->caught_up('p');
$node->caught_up('q');
$node->same_rows('TABLE dst', 'TABLE src', 'the one that had it goes on');
$node->same_rows('TABLE dst_q', 'SELECT id FROM src WHERE id > 1', 'and so does the other');
$node->reached('q', 'running');

$node->safe_psql('postgres', q{
ALTER SYSTEM SET pipeline.worker_idle_timeout = '100ms';
SELECT pg_reload_conf();
});
$node->safe_psql('postgres', q{SELECT pipeline.start('p')});
for my $id (3 .. 5)
{
	$node->safe_psql('postgres', "INSERT INTO src VALUES ($id)");
	$node->caught_up($_) for 'p', 'q';
}
$node->same_rows('TABLE dst', 'TABLE src', 'they take turns when a worker is idle');
$node->same_rows('TABLE dst_q', 'SELECT id FROM src WHERE id > 1', 'both of them');

$node->stop;
done_testing();
