# Rows that batches mark as nobody's events, where time matters: a pipeline is
# started over a target while a batch that marks its rows is under way, the mark
# never reaches the commit of a batch, and what is decoded anew after a crash is
# what it was: a target becomes a source, and ceases to be one, while rows go
# through it and the server crashes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => "track_commit_timestamp = on\n");
$node->need_failpoints;

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE target (id int PRIMARY KEY, n int);
CREATE TABLE further (id int PRIMARY KEY, n int);
SELECT pipeline.create_pipeline('p', 'src', operations => '{insert,update,delete}'),
	pipeline.add_output('p', 'target'), pipeline.start('p');
SELECT pg_create_logical_replication_slot('witness', 'test_decoding');
SQL

# How many rows of the target a slot sees since the last call, all and those without
# a mark.
sub seen
{
	# batches commit asynchronously, and only what is flushed is decoded
	$node->safe_psql('postgres', "SELECT pg_logical_emit_message(true, 'marks', '')");
	return join ' of ', map {
		$node->value("SELECT count(*) FROM pg_logical_slot_$_ WHERE data ~ 'public.target:'")
	} q{peek_changes('witness', NULL, NULL, 'only-local', 'true')}, q{get_changes('witness', NULL, NULL)};
}

sub insert
{
	my ($first, $last) = @_;
	$node->safe_psql('postgres', "INSERT INTO src SELECT i, i FROM generate_series($first, $last) i");
	return;
}

# ---- the commit of a batch ---------------------------------------------------

insert(1, 10);
$node->caught_up('p');
is(seen(), '0 of 10', 'a batch marks its rows');
is( $node->value(q{SELECT count(DISTINCT xmin::text) FROM target t,
	LATERAL pg_xact_commit_timestamp_origin(t.xmin) c
	WHERE c.roident = 0 AND c.timestamp BETWEEN now() - interval '10 min' AND now()}),
	1,
	'its commit has the time of its commit, and no origin');

# One that fails within a marked row, is retried, and then stands with an error.
$node->safe_psql('postgres', q{ALTER TABLE target ADD CONSTRAINT small CHECK (n < 1000)});
insert(11, 20);
insert(1000, 1003);
insert(21, 30);
$node->caught_up('p');
is(seen(), '0 of 20', 'so it is after rows that failed');
is($node->value(q{SELECT count(*) FROM pipeline.dead_letters}), 4, 'which are dead letters');
is( $node->value(q{SELECT count(*) FROM target t, LATERAL pg_xact_commit_timestamp_origin(t.xmin) c
	WHERE c.roident <> 0 OR c.timestamp IS NULL OR c.timestamp < now() - interval '10 min'}),
	0,
	'and its commit has no mark');

# ---- a pipeline is started while a batch marks -----------------------------------

$node->failpoint_set('worker-before-commit', 'wait');
insert(101, 110);
$node->failpoint_wait('worker-before-commit');
$node->safe_psql('postgres', q{SELECT pipeline.create_pipeline('q', 'target', operations => '{insert,update,delete}'),
	pipeline.add_output('q', 'further')});
my $starter = $node->background_psql('postgres');
$starter->query_until(qr/^starting$/m, "\\echo starting\nSELECT pipeline.start('q');\n\\echo started\n");
$node->poll(q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'object' AND NOT granted
	AND classid = 'pg_class'::regclass AND objid = 'target'::regclass});
pass('the start waits for the batch');
$node->failpoint_clear('worker-before-commit');
$starter->query_until(qr/^started$/m, '');
$starter->quit;
insert(111, 120);
$node->caught_up('p');
$node->caught_up('q');
is($node->value('SELECT min(id) || \' \' || count(*) FROM further'), '111 10',
	'its events are the rows of the batches after it');
is(seen(), '10 of 20', 'which are not marked');

# A batch under way when the start has the lock, but is not committed.
my $open = $node->background_psql('postgres');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('q')});
$node->safe_psql('postgres', q{SELECT pipeline.create_pipeline('q', 'target', operations => '{insert,update,delete}'),
	pipeline.add_output('q', 'further')});
$open->query_safe(q{BEGIN; SELECT pipeline.start('q')});
insert(121, 125);
$node->caught_up('p');
$open->query_safe('COMMIT');
$open->quit;
insert(126, 130);
$node->caught_up('p');
$node->caught_up('q');
is($node->value('SELECT min(id) || \' \' || count(*) FROM further WHERE id > 120'), '126 5',
	'nor do batches mark while a start is under way');
is(seen(), '10 of 10', 'none of them');

# ---- an index is added while a batch marks -------------------------------------------

# CREATE INDEX CONCURRENTLY waits for the batch under way, but not before that can see the
# index, whose function claims to be immutable and writes a source.  So the batch is run
# again.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE audit (id serial PRIMARY KEY, n int);
CREATE TABLE audit_out (id int PRIMARY KEY, n int);
CREATE TABLE src2 (id int PRIMARY KEY, n int);
CREATE TABLE target2 (id int PRIMARY KEY, n int);
CREATE FUNCTION tell(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO public.audit (n) VALUES (n) RETURNING n';
CREATE FUNCTION told(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN public.tell(n); END';
CREATE FUNCTION held(r src2) RETURNS SETOF src2 LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(77); RETURN NEXT r; END $$;
SELECT pipeline.create_pipeline('audit', 'audit'), pipeline.add_output('audit', 'audit_out'), pipeline.start('audit');
SELECT pipeline.create_pipeline('held', 'src2'), pipeline.add_stage('held', 'held', 'transform', 'held(src2)'),
	pipeline.add_output('held', 'target2'), pipeline.start('held');
INSERT INTO src2 VALUES (1, 1);
SQL
$node->caught_up('held');
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(77)');
$node->safe_psql('postgres', 'INSERT INTO src2 VALUES (2, 2), (3, 3)');
$node->poll(q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
my $indexer = $node->background_psql('postgres');
$indexer->query_until(qr/^indexing$/m,
	"\\echo indexing\nCREATE INDEX CONCURRENTLY told ON target2 ((told(5)));\n\\echo indexed\n");
$node->poll(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%' AND wait_event_type = 'Lock'});
$holder->query_safe('SELECT pg_advisory_unlock(77)');
$holder->quit;
$indexer->query_until(qr/^indexed$/m, '');
$indexer->quit;
$node->caught_up('held');
$node->caught_up('audit');
is($node->value('SELECT count(*) FROM target2'), 3, 'all rows are there after an index came');
is($node->value('SELECT count(*) > 0 FROM audit'), 't', 'and its function wrote');
is($node->value('SELECT count(*) FROM audit LEFT JOIN audit_out USING (id, n) WHERE audit_out.id IS NULL'),
	0, 'what are all events');
like(slurp_file($node->logfile), qr/was changed while it was written/, 'as the batch was run again');

# ---- crashes -----------------------------------------------------------------------

# Rows from several rounds, in which the target is a source or none; the capture that
# decodes all of it anew knows only what is declared at the end.
my $expected = $node->value('SELECT string_agg(id::text, \' \' ORDER BY id) FROM further');
my $next = 200;
for my $round (1 .. 4)
{
	$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('q')}) if $round % 2;
	insert($next, $next + 4);
	$node->caught_up('p') if $round == 1;
	$node->safe_psql('postgres', q{SELECT pipeline.create_pipeline('q', 'target', operations => '{insert,update,delete}'),
		pipeline.add_output('q', 'further'), pipeline.start('q')}) if $round % 2;
	$node->caught_up('p') if $round % 2;
	insert($next + 5, $next + 9);
	$node->safe_psql('postgres', 'UPDATE src SET n = n + 1 WHERE id BETWEEN ' . ($next + 5) . ' AND ' . ($next + 9));
	$node->stop('immediate');
	$node->start;
	$node->caught_up('p');
	$node->caught_up('q');
	is( $node->value("SELECT count(*) FROM src JOIN target USING (id, n) WHERE id BETWEEN $next AND $next + 9"),
		10, "round $round: all rows are in the target");
	is( $node->value("SELECT count(*) FROM target JOIN further USING (id, n) WHERE id BETWEEN $next + 5 AND $next + 9"),
		5, "round $round: and those after the start behind it");
	$next += 10;
}
is($node->value('SELECT string_agg(id::text, \' \' ORDER BY id) FROM further WHERE id < 200'),
	$expected, 'nothing else came');

$node->stop;
done_testing();
