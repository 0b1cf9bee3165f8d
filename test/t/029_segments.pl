# Segments are independent, and exactly once over all of them: one that waits or
# cannot go on stops neither the one before it nor those beside it, holds no WAL
# beyond pipeline.max_retained_wal, and catches up; whatever is killed at the points
# of a hand-over, and whatever fails in which segment, the outputs are what the
# batch query says.  A dump brings them into another database.

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
pipeline.batch_rows = 200
pipeline.breaker_failures = 1
CONF
$node->need_failpoints;

# One in thirty is bad, in one way or the other: rejected by the check, an error in
# the stage that takes it apart, without a match, refused by an output.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, ref int, n int, parts int, note text);
CREATE TABLE look (ref int PRIMARY KEY, name text);
INSERT INTO look SELECT g, 'name ' || g FROM generate_series(0, 9) g;
CREATE TABLE dst (place bigint GENERATED ALWAYS AS IDENTITY, id int, part int, name text, n int CHECK (n <> 77), PRIMARY KEY (id, part));
CREATE TABLE quick (place bigint GENERATED ALWAYS AS IDENTITY, id int, part int);
CREATE TABLE slow (id int, part int);
CREATE TYPE piece AS (id int, part int, ref int, n int);
CREATE TYPE named AS (id int, part int, name text, n int);
CREATE TYPE mark AS (id int, part int);
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE WHEN s.n < 0 THEN 'negative' END $$;
CREATE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF s.n = 13 THEN
		RAISE 'thirteen';
	END IF;
	RETURN QUERY SELECT s.id, g, s.ref, s.n FROM generate_series(1, s.parts) g;
END $$;
CREATE FUNCTION with_name(p piece) RETURNS SETOF named LANGUAGE sql STABLE AS
$$ SELECT p.id, p.part, l.name, p.n FROM pg_advisory_xact_lock_shared(1), look l WHERE l.ref = p.ref $$;
CREATE FUNCTION to_quick(n named) RETURNS SETOF mark LANGUAGE sql STABLE AS $$ SELECT n.id, n.part $$;
CREATE FUNCTION to_slow(n named) RETURNS SETOF mark LANGUAGE sql STABLE AS
$$ SELECT n.id, n.part FROM pg_advisory_xact_lock_shared(2) $$;
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'check', 'validate', 'valid(src)');
SELECT pipeline.add_stage('p', 'cut', 'transform', 'pieces(src)');
SELECT pipeline.add_stage('p', 'name', 'enrich', 'with_name(piece)', isolate => true);
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.add_output('p', 'quick', transform => 'to_quick(named)', isolate => true);
SELECT pipeline.add_output('p', 'slow', transform => 'to_slow(named)', isolate => true);
SELECT pipeline.start('p');

CREATE VIEW pieces AS SELECT s.id, g AS part, s.ref, s.n FROM src s, generate_series(1, s.parts) g WHERE n >= 0 AND n <> 13;
CREATE VIEW good AS SELECT p.id, p.part, l.name, p.n FROM pieces p JOIN look l USING (ref) WHERE n <> 77;
CREATE VIEW bad AS
SELECT id, 1 AS part, 1 AS segment, 'check rejected' AS what FROM src WHERE n < 0
UNION ALL SELECT id, 1, 1, 'cut failed' FROM src WHERE n = 13
UNION ALL SELECT id, part, 2, 'name rejected' FROM pieces WHERE ref > 9
UNION ALL SELECT id, part, 2, 'failed' FROM pieces WHERE ref <= 9 AND n = 77;

CREATE PROCEDURE traffic(rows int, large int DEFAULT 300) LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
	WHILE rows > 0 LOOP
		n := CASE WHEN random() < 0.05 THEN large ELSE 1 + random() * 10 END;
		INSERT INTO src (ref, n, parts, note)
		SELECT CASE WHEN random() < 0.01 THEN 10 ELSE random() * 9 END,
			CASE WHEN r < 0.01 THEN -1 WHEN r < 0.02 THEN 13 WHEN r < 0.03 THEN 77 ELSE 100 + r * 100 END,
			random() * 3, repeat(md5(r::text), 3)
		FROM (SELECT random() AS r FROM generate_series(1, n)) x;
		COMMIT;
		rows := rows - n;
	END LOOP;
END $$;
SQL

sub traffic
{
	my ($rows) = @_;

	$node->safe_psql('postgres', "CALL traffic($rows)");
	return;
}

# Everything is as the batch query says.
sub whole
{
	my ($what, %opt) = @_;

	$node->caught_up('p', %opt);
	$node->same_rows('SELECT id, part, name, n FROM dst', 'TABLE good', %opt, "$what: the output is right");
	$node->same_rows('SELECT id, part FROM quick', 'SELECT id, part FROM good', %opt, "$what: so is one that is isolated");
	$node->same_rows('SELECT id, part FROM slow', 'SELECT id, part FROM good', %opt, "$what: and another one");
	$node->same_rows(
		q{SELECT (event->>'id')::int, part, segment, concat_ws(' ', stage, kind) FROM pipeline.dead_letters},
		'TABLE bad', %opt, "$what: and the dead letters");
	$node->ledger_balanced('p', "$what: the ledger is balanced", %opt);
	$node->same_rows(
		q{SELECT output, events, produced, rejected + failed FROM pipeline.ledger('p')},
		q{SELECT '(cut)', (SELECT count(*) FROM src),
			(SELECT count(*) FROM src WHERE n >= 0 AND n <> 13 AND parts > 0), (SELECT count(*) FROM bad WHERE segment = 1)
		UNION ALL SELECT o, (SELECT count(*) FROM pieces), (SELECT count(*) FROM good), (SELECT count(*) FROM bad WHERE segment = 2)
		FROM unnest(ARRAY['(name)', 'dst']) o
		UNION ALL SELECT o, (SELECT count(*) FROM good), (SELECT count(*) FROM good), 0 FROM unnest(ARRAY['quick', 'slow']) o},
		%opt, "$what: and right");
	is($node->value(q{SELECT count(*) FROM (SELECT id, part, lag((id, part)) OVER (ORDER BY place) AS before FROM quick) x
		WHERE before > (id, part)}, %opt), 0, "$what: in order");
	return;
}

# A session that holds the gate of a stage shut, until it ends.
sub shut
{
	my ($gate) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe("SELECT pg_advisory_lock($gate)");
	return $session;
}

# Wait until a segment has done all that is committed by now.
sub done
{
	my ($segment) = @_;
	my $lsn = $node->value('SELECT pg_current_wal_insert_lsn()');

	return $node->poll(
		"SELECT bool_and(caught_up OR processed_lsn >= '$lsn') AND (SELECT bool_and(decoded_lsn >= '$lsn') FROM _pipeline.databases()
		 WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()))
		 FROM _pipeline.consumers() WHERE segment = $segment",
		what => "segment $segment");
}

sub state_of
{
	my ($segment) = @_;

	return $node->value("SELECT worker_state FROM _pipeline.worker_states WHERE segment = $segment");
}

traffic(2000);
whole('at first');

# ---- one that waits ------------------------------------------------------------

# Segment 2 stands within a batch.  What the first one does is not less for that.
my $session = shut(1);
my $handed = q{SELECT produced FROM pipeline.ledger('p') WHERE output = '(cut)'};
my $before = $node->value($handed);
my $named = $node->value('SELECT count(*) FROM dst');
traffic(3000);
done(1);
cmp_ok($node->value($handed), '>', $before + 2000, 'a segment goes on while the next one stands');
is($node->value('SELECT count(*) FROM dst'), $named, 'which does');
$session->quit;
whole('after that');

# An isolated output stands; its sibling and the segment before do not.
$session = shut(2);
$named = $node->value('SELECT count(*) FROM slow');
traffic(3000);
done($_) for 1, 2, 3;
$node->same_rows('SELECT id, part FROM quick', 'SELECT id, part FROM good', 'an output goes on while another one stands');
$node->same_rows('SELECT id, part, name, n FROM dst', 'TABLE good', 'so does the one that is not isolated');
is($node->value('SELECT count(*) FROM slow'), $named, 'which does stand');
is($node->value(q{SELECT pipeline.wait_for('p', timeout => '0.1 s')}), 'f', 'and wait_for waits for it');
$session->quit;
whole('after that, too');

# ---- one that cannot go on -----------------------------------------------------

$node->safe_psql('postgres', 'ALTER TABLE look RENAME TO gone');
traffic(1000);
done(1);
$node->poll(q{SELECT worker_state = 'failed' FROM _pipeline.worker_states WHERE segment = 2}, what => 'segment 2 to fail');
is(state_of(1), 'running', 'a segment runs while the next one has failed');
is($node->value(q{SELECT state FROM pipeline.status}), 'failed', 'the pipeline stands as the worst of them');
like($node->value(q{SELECT what FROM pipeline.health()}), qr/look/, 'health() says why');
$before = $node->value($handed);
traffic(1000);
done(1);
cmp_ok($node->value($handed), '>', $before, 'and hands over more');
$node->safe_psql('postgres', 'ALTER TABLE gone RENAME TO look');
whole('repaired');

$node->safe_psql('postgres', 'ALTER TABLE slow RENAME COLUMN part TO lost');
traffic(1000);
done($_) for 1, 2, 3;
$node->poll(q{SELECT worker_state = 'failed' FROM _pipeline.worker_states WHERE segment = 4}, what => 'segment 4 to fail');
$node->same_rows('SELECT id, part FROM quick', 'SELECT id, part FROM good', 'an output goes on while another one has failed');
$node->safe_psql('postgres', 'ALTER TABLE slow RENAME COLUMN lost TO part');
whole('repaired, too');

# ---- ends at each point --------------------------------------------------------

# While segment 2 stands, the first one is the only one that commits.
for (['worker-before-hand-over', 'worker'], ['worker-before-commit', 'server'], ['worker-after-commit', 'worker'],
	['worker-after-commit', 'capture'], ['capture-after-decode', 'capture'], ['capture-after-decode', 'server'])
{
	my ($point, $how) = @$_;

	{
		$session = shut(1);
		$node->safe_psql('postgres', q{INSERT INTO src (ref, n, parts) SELECT g % 10, CASE WHEN g % 50 = 0 THEN -1 ELSE g + 100 END, 2 FROM generate_series(1, 150) g});
		done(1);
		$node->failpoint_set($point, 'wait');
		$node->safe_psql('postgres', q{INSERT INTO src (ref, n, parts) SELECT g % 10, CASE WHEN g % 50 = 0 THEN 13 ELSE g + 100 END, 2 FROM generate_series(1, 150) g});
		$node->failpoint_wait($point);
		$session->quit;
		if ($how eq 'server')
		{
			$node->kill9_server;
		}
		else
		{
			$node->kill9_process("pipeline $how");
		}
		$node->poll('SELECT true', what => 'the server');
		$node->failpoint_clear($point);
		traffic(100);
		whole("$how killed at $point");
	}
}

# ---- a backlog -----------------------------------------------------------------

# Segment 2 stands for long: what was handed over to it holds no WAL.
$node->safe_psql('postgres', q{ALTER SYSTEM SET pipeline.max_retained_wal = '1MB'});
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
$session = shut(1);
$before = $node->value($handed);
traffic(12000);
done(1);
$node->poll(q{SELECT count(DISTINCT segment) = 1 AND min(segment) = 2 FROM _pipeline.backlog}, what => 'a backlog of segment 2');
$node->poll(q{SELECT retained_wal_bytes < 2 * 1024 * 1024 FROM _pipeline.consumers() WHERE segment = 2}, what => 'WAL that is not held');
cmp_ok($node->value($handed), '>', $before + 8000, 'a segment goes on while the next one has a backlog');
$node->restart;
traffic(500);
whole('after a backlog');
is($node->value('SELECT count(*) FROM _pipeline.backlog'), 0, 'which is worked off');

# Stopped, and added to meanwhile.
$node->safe_psql('postgres', q{SELECT pipeline.stop('p')});
traffic(500);
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE late (id int, part int);
SELECT pipeline.add_output('p', 'late', transform => 'to_quick(named)', isolate => true);
SELECT pipeline.start('p');
SQL
traffic(500);

$node->caught_up('p');
$node->same_rows('SELECT id, part FROM quick', 'SELECT id, part FROM good', 'after a stop the outputs are right');
$node->same_rows('SELECT id, part FROM late', 'SELECT id, part FROM quick WHERE id >= (SELECT min(id) FROM late)',
	'an output that is added while the pipeline is stopped has what is handed over from then on');
cmp_ok($node->value('SELECT count(*) FROM late'), '>', 500, 'which is not nothing');
$node->safe_psql('postgres', q{SELECT pipeline.drop_output('p', 'late')});

# ---- redrive -------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
INSERT INTO look VALUES (10, 'name 10');
UPDATE src SET n = 200 WHERE n = 13;
CREATE OR REPLACE FUNCTION pieces(s src) RETURNS SETOF piece LANGUAGE sql STABLE AS
$$ SELECT s.id, g, s.ref, CASE s.n WHEN 13 THEN 200 ELSE s.n END FROM generate_series(1, s.parts) g $$;
SELECT pipeline.redrive('p');
SQL
$node->caught_up('p');
$node->same_rows('SELECT id, part, name, n FROM dst', 'TABLE good', 'dead letters of all segments are run again');
$node->same_rows('SELECT id, part FROM quick', 'SELECT id, part FROM good', 'and handed over');
$node->same_rows('SELECT id, part FROM slow', 'SELECT id, part FROM good', 'to all');
$node->ledger_balanced('p', 'the ledger is balanced');

# ---- one that is taken away ----------------------------------------------------

# What was handed over is not done as long as capture has not decoded it: a stage that
# begins a segment stays.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE few (id int PRIMARY KEY);
CREATE TABLE few_out (id int);
SELECT pipeline.create_pipeline('f', 'few');
SELECT pipeline.add_stage('f', 'first', 'transform', query => 'SELECT id FROM event, pg_advisory_xact_lock_shared(3)');
SELECT pipeline.add_stage('f', 'second', 'transform', query => 'SELECT id FROM event', isolate => true);
SELECT pipeline.add_output('f', 'few_out');
SELECT pipeline.start('f');
INSERT INTO few VALUES (1);
SQL
$node->caught_up('f');
$session = shut(3);
$node->safe_psql('postgres', 'INSERT INTO few VALUES (2)');
$node->poll(q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, what => 'a batch');
$node->failpoint_set('capture-after-decode', 'wait');
$node->safe_psql('postgres', 'INSERT INTO look VALUES (100)');
$node->failpoint_wait('capture-after-decode');
$session->quit;
$node->poll(q{SELECT count(*) = 2 FROM pipeline.lineage WHERE pipeline = 'f' AND output = '(first)'}, what => 'a hand-over');
my ($rc, $stdout, $stderr) = $node->psql('postgres', q{SELECT pipeline.drop_stage('f', 'second')});
like($stderr, qr/segment 2 of pipeline "f" has not done all that was handed over to it/,
	'a segment is not dropped while rows that were handed over to it are not decoded');
$node->failpoint_clear('capture-after-decode');
$node->caught_up('f');
$node->same_rows('TABLE few_out', 'TABLE few', 'which come');
$node->safe_psql('postgres', q{SELECT pipeline.drop_stage('f', 'second'); INSERT INTO few VALUES (3)});
$node->caught_up('f');
$node->same_rows('TABLE few_out', 'TABLE few', 'then it can be dropped');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('f'); DELETE FROM look WHERE ref = 100});

# ---- several workers before it -------------------------------------------------

# They commit in an order of their own, but that of each region is kept, also when
# their number changes and one is killed.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE visits (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, region int, n int);
CREATE TABLE seen (id int, region int, n int, place bigint GENERATED ALWAYS AS IDENTITY);
CREATE TABLE seen2 (LIKE seen INCLUDING IDENTITY);
SELECT pipeline.create_pipeline('w', 'visits', consistency => 'causal', partition_by => '{region}', workers => 4);
SELECT pipeline.add_stage('w', 'positive', 'validate', query => 'SELECT n >= 0 FROM event');
SELECT pipeline.add_stage('w', 'behind', 'transform', query => 'SELECT * FROM event', isolate => true);
SELECT pipeline.add_output('w', 'seen');
SELECT pipeline.add_output('w', 'seen2', isolate => true);
SELECT pipeline.start('w');
CREATE PROCEDURE visit(k int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. k LOOP
		INSERT INTO visits (region, n)
		SELECT (random() * 20)::int, CASE WHEN random() < 0.1 THEN -1 ELSE i END FROM generate_series(1, 1 + i % 3);
		COMMIT;
	END LOOP;
END $$;
SQL

sub all_seen
{
	my ($what) = @_;

	$node->caught_up('w');
	for my $output ('seen', 'seen2')
	{
		$node->same_rows("SELECT id, region, n FROM $output", 'SELECT * FROM visits WHERE n >= 0', "$what: $output is right");
		is($node->value("SELECT count(*) FROM (SELECT id, lag(id) OVER (PARTITION BY region ORDER BY place) AS before
			FROM $output) o WHERE before > id"), 0, "$what: $output has each region's rows in order");
	}
	$node->ledger_balanced('w', "$what: the ledger is balanced");
	return;
}
for my $workers (4, 2, 3)
{
	$node->safe_psql('postgres', "SELECT pipeline.alter_pipeline('w', workers => $workers)") if $workers != 4;
	$node->safe_psql('postgres', 'CALL visit(1500)');
	all_seen("$workers workers");
}
$node->safe_psql('postgres', 'CALL visit(300)');
$node->kill9_process('pipeline worker');
$node->poll('SELECT true', what => 'the server');
$node->safe_psql('postgres', 'CALL visit(300)');
all_seen('one killed');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('w')});

# ---- a copy --------------------------------------------------------------------

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
unlike(scalar(run_command([ 'pg_restore', '-f', '-', $dump ])), qr/log_\d+_\d+/, 'row types of hand-overs are not in a dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-h', $node->host, '-p', $node->port, '-d', 'copy', $dump ], 'pg_restore');
$node->poll(q{SELECT state = 'ready' FROM _pipeline.databases() d, pg_database b WHERE b.oid = d.database AND b.datname = 'copy'},
	db => 'copy', what => 'the slot of the copy');
$node->safe_psql('copy', q{TRUNCATE src, dst, quick, slow; SELECT pipeline.start('p')});
$node->safe_psql('copy', q{INSERT INTO src (ref, n, parts) SELECT g % 10, 100, 2 FROM generate_series(1, 300) g});
$node->caught_up('p', db => 'copy');
$node->same_rows('SELECT id, part, name, n FROM dst', 'TABLE good', db => 'copy', 'a copy runs');
$node->same_rows('SELECT id, part FROM slow', 'SELECT id, part FROM good', db => 'copy', 'with all of its segments');
whole_again();

sub whole_again
{
	traffic(100);
	$node->caught_up('p');
	$node->same_rows('SELECT id, part FROM slow', 'SELECT id, part FROM quick', 'the first one goes on, too');
	return;
}

$node->safe_psql('postgres', q{DROP EXTENSION pipeline});
is($node->value(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'log\_%'}), 0, 'nothing is left of the row types');

done_testing();
