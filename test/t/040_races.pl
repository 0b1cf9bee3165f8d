# What two processes do at the same time to the places of a segment: the mover comes to a
# change of the number of workers before the segment is born, capture reads births anew
# whose places are gone, an output goes while its workers are to become fewer,
# several workers adapt the type of what they hand over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 24
pipeline.max_segments = 8
wal_writer_delay = 10s
CONF

sub places
{
	my ($pipeline) = @_;

	return "FROM _pipeline.consumers() c JOIN _pipeline.pipelines p USING (pipeline_id) WHERE p.name = '$pipeline'";
}

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int, k int, ref int);
CREATE TABLE other (id int);
CREATE TABLE a (LIKE src);
CREATE TABLE b (LIKE src);
CREATE TABLE c (id int);
SQL

# ---- births that are read anew, with no place free --------------------------------

# What waits for a pipeline that is stopped has capture begin before the births.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('behind', 'other'), pipeline.add_output('behind', 'c'), pipeline.start('behind');
SQL
$node->caught_up('behind');
$node->safe_psql('postgres', q{SELECT pipeline.stop('behind'); INSERT INTO other VALUES (1)});
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('fewer', 'src', consistency => 'eventual', workers => 4), pipeline.add_output('fewer', 'a'), pipeline.start('fewer');
SELECT pipeline.create_pipeline('gone', 'src', consistency => 'eventual', workers => 2), pipeline.add_output('gone', 'b'), pipeline.start('gone');
INSERT INTO src SELECT i, i, i FROM generate_series(1, 100) i;
SQL
$node->caught_up($_) for ('fewer', 'gone');
$node->safe_psql('postgres', q{SELECT pipeline.alter_pipeline('fewer', workers => 1), pipeline.drop_pipeline('gone'); TRUNCATE b});
$node->poll('SELECT count(*) = 2 FROM _pipeline.consumers()', what => 'the places to be given up');
# The launcher frees the places a moment later.
my $started;
for (1 .. 200)
{
	$started = !$node->psql('postgres', <<'SQL');
BEGIN;
SELECT pipeline.create_pipeline('full', 'src', consistency => 'eventual', workers => 6), pipeline.add_output('full', 'b'), pipeline.start('full');
INSERT INTO src SELECT i, i, i FROM generate_series(101, 200) i;
COMMIT;
SQL
	last if $started;
}
ok($started, 'six places are free');
$node->caught_up('full');
my $from = -s $node->logfile;
$node->terminate_process('pipeline capture');
$node->safe_psql('postgres', 'INSERT INTO src SELECT i, i, i FROM generate_series(201, 300) i');
$node->caught_up($_) for ('fewer', 'full');
$node->same_rows('TABLE a', 'TABLE src', 'births of places that are gone need none');
$node->same_rows('TABLE b', 'SELECT * FROM src WHERE id > 100', 'and take none away');
unlike(slurp_file($node->logfile, $from), qr/too many started pipelines/, 'without an error');
is($node->value('SELECT count(*) FROM _pipeline.consumers()'), 8, 'and no place is made for them');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('full'), pipeline.drop_pipeline('fewer'); TRUNCATE a, b, src});

# One whose workers became fewer before any of them came to its birth is wanted: what is
# between is its own.
$node->poll('SELECT count(*) = 1 FROM _pipeline.consumers()', what => 'the places to be given up');
$node->safe_psql('postgres', <<'SQL');
BEGIN;
SELECT pipeline.create_pipeline('early', 'src', consistency => 'eventual', workers => 3), pipeline.add_output('early', 'a'),
	pipeline.start('early'), pipeline.stop('early');
COMMIT;
INSERT INTO src SELECT i, i, i FROM generate_series(1, 100) i;
SELECT pipeline.alter_pipeline('early', workers => 1);
INSERT INTO src SELECT i, i, i FROM generate_series(101, 200) i;
SQL
$node->terminate_process('pipeline capture');
$node->safe_psql('postgres', q{SELECT pipeline.start('early')});
$node->caught_up('early');
$node->same_rows('TABLE a', 'TABLE src', 'a birth is read anew before anybody came to it');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('early'), pipeline.drop_pipeline('behind'); TRUNCATE a, src});
$node->poll('SELECT count(*) = 0 FROM _pipeline.consumers()', what => 'the places to be given up');

# ---- an output goes while its workers are to become fewer ---------------------------

$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('goes', 'src', consistency => 'eventual', workers => 3),
	pipeline.add_output('goes', 'a', isolate => true), pipeline.add_output('goes', 'b', isolate => true), pipeline.start('goes');
INSERT INTO src SELECT i, i, i FROM generate_series(1, 100) i;
SQL
$node->caught_up('goes');
$node->safe_psql('postgres', q{SELECT pipeline.stop('goes')});
$node->poll('SELECT count(*) = 0 FROM pipeline.workers', what => 'the workers to end');
$node->safe_psql('postgres', q{INSERT INTO src SELECT i, i, i FROM generate_series(101, 200) i});
$node->safe_psql('postgres', q{SELECT pipeline.alter_pipeline('goes', workers => 1)});
$node->safe_psql('postgres', q{SELECT pipeline.drop_output('goes', 'b')});
$node->safe_psql('postgres', q{SELECT pipeline.start('goes')});
$node->caught_up('goes');
$node->same_rows('TABLE a', 'TABLE src', 'the other output has all');
is($node->value('SELECT count(*) FROM b'), 100, 'the one that went has what it had');
$node->poll('SELECT count(*) = 1 FROM _pipeline.consumers()', what => 'the places of the output to be given up');
pass('no place of it is left');
is($node->value('SELECT count(*) FROM _pipeline.checkpoints'), 1, 'no position either');
my $lsn = $node->value('SELECT pg_current_wal_lsn()');
$node->poll("SELECT pg_switch_wal() IS NOT NULL AND bool_and(confirmed_flush_lsn >= '$lsn') FROM pg_replication_slots", what => 'the slot to move on');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('goes'); TRUNCATE a, b, src});
$node->poll('SELECT count(*) = 0 FROM _pipeline.consumers()', what => 'the places to be given up');

# ---- the mover at a change, before the birth ----------------------------------------

# The new places lie before the old ones, so the mover comes to them first.
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('first', 'other', consistency => 'eventual', workers => 3), pipeline.add_output('first', 'c'), pipeline.start('first');
SQL
$node->caught_up('first');
my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN;
	SELECT pipeline.create_pipeline('p', 'src', consistency => 'causal', partition_by => '{k}', workers => 2), pipeline.add_output('p', 'a'),
		pipeline.start('p'), pipeline.stop('p')});
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('first')});
$node->poll(q{SELECT count(*) = 0 FROM _pipeline.consumers() WHERE pipeline_id = (SELECT min(pipeline_id) FROM _pipeline.consumers())
	AND partition = 3}, what => 'the first places to be given up');
$session->query_safe(q{SELECT pipeline.alter_pipeline('p', workers => 5); COMMIT});
$session->quit;
$node->safe_psql('postgres', q{INSERT INTO src SELECT i, i % 20, i FROM generate_series(1, 200) i;
	ALTER SYSTEM SET pipeline.max_retained_wal = '1MB'});
$node->reload;
$node->safe_psql('postgres', 'CREATE TABLE filler AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i');
$node->poll('SELECT count(DISTINCT partition) = 5 FROM _pipeline.backlog', what => 'the mover to have been everywhere');
$node->safe_psql('postgres', q{SELECT pipeline.start('p')});
$node->caught_up('p');
$node->same_rows('TABLE a', 'TABLE src', 'new workers begin with the change, as the mover found nobody born');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'nobody waits for anybody in a circle');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET pipeline.max_retained_wal; SELECT pipeline.drop_pipeline('p'); TRUNCATE a, src});
$node->reload;
$node->safe_psql('postgres', 'DROP TABLE filler');
$node->poll('SELECT count(*) = 0 FROM _pipeline.consumers()', what => 'the places to be given up');

# ---- several adapt what they hand over ------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TYPE piece AS (id int, k int);
CREATE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE plpgsql STABLE AS
$$ DECLARE p piece; BEGIN p.id := s.id; p.k := s.k; RETURN NEXT p; END $$;
CREATE TABLE pieces (id int, k int, note text);
SELECT pipeline.create_pipeline('types', 'src', consistency => 'eventual', workers => 3),
	pipeline.add_stage('types', 'pieces', 'transform', 'pieces(src)'),
	pipeline.add_output('types', 'pieces', isolate => true, transform => NULL), pipeline.start('types');
INSERT INTO src SELECT i, i, i FROM generate_series(1, 100) i;
SQL
$node->caught_up('types');
my $log = $node->value(q{SELECT 'log_' || pipeline_id || '_1' FROM _pipeline.pipelines WHERE name = 'types'});
$session = $node->background_psql('postgres');
$session->query_safe("BEGIN; COMMENT ON COLUMN _pipeline.$log.id IS 'held'");
$node->safe_psql('postgres', 'ALTER TYPE piece ADD ATTRIBUTE note text');
$node->safe_psql('postgres', q{INSERT INTO src SELECT i, i, i FROM generate_series(101, 200) i});
$node->poll("SELECT count(*) = 3 FROM pg_locks WHERE relation = '_pipeline.$log'::regclass AND NOT granted", what => 'all workers to adapt the type');
$from = -s $node->logfile;
$session->query_safe('ROLLBACK');
$session->quit;
$node->caught_up('types');
$node->same_rows('TABLE pieces', 'SELECT id, k, NULL::text FROM src', 'all is there');
is($node->value('SELECT count(*) FROM pipeline.dead_letters'), 0, 'no event is blamed');
is($node->value('SELECT sum(retries) FROM _pipeline.consumers()'), 0, 'nothing was tried again');
unlike(slurp_file($node->logfile, $from), qr/(ERROR|LOG): .*(already exists|deadlock|cannot go on)/, 'and nothing complained of');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('types')});

$node->stop;
done_testing();
