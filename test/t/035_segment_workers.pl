# A later stage scales alone: an isolated enrichment that waits, once with one worker
# and once with four.  The segment before it is not held up by either; four do more
# than one, and what they make is the same, in order within a key.  Then the one gets
# three more, while it is behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 24
pipeline.batch_rows = 20
CONF

# each event waits for a lock that it does not get
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(4711)');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY, k int);
CREATE TYPE asked AS (id int, k int, answer text);
CREATE FUNCTION ask(s src) RETURNS SETOF asked LANGUAGE plpgsql VOLATILE SET lock_timeout = '10ms' AS
$$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NEXT (s.id, s.k, 'nobody holds the lock')::asked;
EXCEPTION WHEN lock_not_available THEN RETURN NEXT (s.id, s.k, 'waited')::asked; END $$;
CREATE TABLE out_1 (id int, k int, answer text, batch xid8 DEFAULT pg_current_xact_id());
CREATE TABLE out_4 (LIKE out_1 INCLUDING DEFAULTS);
SELECT pipeline.create_pipeline('p' || n, 'src', consistency => 'causal', partition_by => '{k}'),
	pipeline.add_stage('p' || n, 'check', 'validate', query => 'SELECT k > 0 FROM event'),
	pipeline.add_stage('p' || n, 'ask', 'enrich', 'ask(src)', isolate => true, workers => n, partition_by => '{k}'),
	pipeline.add_output('p' || n, ('out_' || n)::regclass),
	pipeline.start('p' || n)
FROM unnest('{1,4}'::int[]) n;
CREATE PROCEDURE work(n int) LANGUAGE plpgsql AS
$$ BEGIN FOR i IN 1 .. n LOOP INSERT INTO src (k) VALUES (i % 50); COMMIT; END LOOP; END $$;
SQL

sub right
{
	my ($n, $what) = @_;

	$node->caught_up("p$n");
	$node->same_rows("SELECT id, k, answer FROM out_$n", q{SELECT id, k, 'waited' FROM src WHERE k > 0}, "$what: the result is right");
	is($node->value("SELECT count(*) FROM (SELECT min(id) AS first, lag(max(id)) OVER (PARTITION BY k ORDER BY batch) AS before
		FROM out_$n GROUP BY k, batch) b WHERE before > first"), 0, "$what: each key's rows are in order");
	$node->ledger_balanced("p$n", "$what: the ledger is balanced");
	return;
}

# ---- one and four -----------------------------------------------------------------

$node->safe_psql('postgres', 'CALL work(400)');
$node->caught_up('p4');
my ($one, $before) = split /\|/, $node->value(q{SELECT (SELECT count(*) FROM out_1),
	(SELECT events FROM pipeline.ledger('p1') WHERE output = '(check)')});
diag "when four workers had done 400 events, one had done $one";
cmp_ok($one, '<', 250, 'four workers that wait do more than one');
is($before, 400, 'the segment before does not wait');
is($node->value(q{SELECT string_agg(workers::text, ' ' ORDER BY partition) FROM pipeline.partitions WHERE pipeline = 'p4' AND segment = 2}),
	'4 4 4 4', 'the view of partitions shows four');

# ---- three more ---------------------------------------------------------------------

$node->safe_psql('postgres', q{SELECT pipeline.alter_stage('p1', 'ask', workers => 4)});
$node->safe_psql('postgres', 'CALL work(200)');
right(1, 'from one to four');
is($node->value(q{SELECT count(DISTINCT partition) FROM pipeline.batches WHERE pipeline = 'p1' AND segment = 2}), '4', 'all of them worked');
$node->safe_psql('postgres', q{SELECT pipeline.alter_stage('p4', 'ask', workers => 2)});
$node->safe_psql('postgres', 'CALL work(100)');
$node->kill9_process('pipeline worker');
$node->poll('SELECT true', what => 'the server');
$holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(4711)');
$node->safe_psql('postgres', 'CALL work(100)');
$node->caught_up($_) for ('p1', 'p4');
for my $n (1, 4)
{
	$node->safe_psql('postgres', "UPDATE out_$n SET answer = 'waited'");
	right($n, "p$n, through a kill");
}

$holder->quit;
$node->stop;
done_testing();
