# Rows that one event makes over many segments: a long chain of stages that return one row
# each costs no numbers, several fan-outs in a row have numbers, and an event that makes too many is a dead letter of its own,
# with others going through.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 30
pipeline.breaker_failures = 1
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int, n int);
CREATE TABLE chained (id int, n int, part int);
CREATE TABLE fanned (id int, a int, b int, c int);
CREATE TABLE wide (id int, a int, b int);

SELECT pipeline.create_pipeline('chain', 'src', workers => 1),
	pipeline.add_stage('chain', 'cut', 'transform', query => 'SELECT id, n, g AS part FROM event, generate_series(1, 3) g');
SELECT pipeline.add_stage('chain', 's' || i, 'transform', isolate => true, query => 'SELECT id, n, part FROM event')
FROM generate_series(1, 20) i;
SELECT pipeline.add_output('chain', 'chained'), pipeline.start('chain');

SELECT pipeline.create_pipeline('fan', 'src'),
	pipeline.add_stage('fan', 'a', 'transform', query => 'SELECT id, n, g AS a FROM event, generate_series(1, n) g'),
	pipeline.add_stage('fan', 'b', 'transform', isolate => true, query => 'SELECT id, n, a, g AS b FROM event, generate_series(1, n) g'),
	pipeline.add_stage('fan', 'c', 'transform', isolate => true, query => 'SELECT id, a, b, g AS c FROM event, generate_series(1, n) g'),
	pipeline.add_stage('fan', 'd', 'transform', isolate => true, query => 'SELECT id, a, b, c FROM event'),
	pipeline.add_output('fan', 'fanned'), pipeline.start('fan');
SQL

# ---- one row each ------------------------------------------------------------

$node->safe_psql('postgres', 'INSERT INTO src VALUES (1, 1), (2, 3)');
$node->caught_up('chain');
is($node->value(q{SELECT count(*) FROM pipeline.dead_letters}), 0, 'twenty segments that make one row of one have numbers for it');
$node->same_rows('TABLE chained', 'SELECT id, n, g FROM src, generate_series(1, 3) g', 'all is there');
is($node->value(q{SELECT string_agg(DISTINCT part::text, ' ' ORDER BY part::text) FROM pipeline.lineage WHERE pipeline = 'chain' AND output = 'chained'}),
	'1 2 3', 'and the rows have the numbers that they got where there became three of them');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('chain')});

# ---- many rows of one, three times --------------------------------------------

$node->safe_psql('postgres', 'INSERT INTO src VALUES (3, 100)');
$node->caught_up('fan');
is($node->value(q{SELECT count(*) FROM pipeline.dead_letters}), 0, 'a hundred rows of one, three times');
$node->same_rows('TABLE fanned',
	'SELECT id, a, b, c FROM src, generate_series(1, n) a, generate_series(1, n) b, generate_series(1, n) c', 'all is there');
is($node->value(q{SELECT count(*) - count(DISTINCT (commit_lsn, seq, part)) FROM pipeline.lineage WHERE pipeline = 'fan' AND output = 'fanned'}),
	0, 'and no two have the same number');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('fan')});

# ---- too many ------------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('wide', 'src'),
	pipeline.add_stage('wide', 'a', 'transform', query => 'SELECT id, g AS a FROM event, generate_series(1, 2048) g'),
	pipeline.add_stage('wide', 'b', 'transform', isolate => true,
		query => 'SELECT id, a, b FROM event, generate_series(1, CASE WHEN a < 2048 THEN 1 WHEN id = 4 THEN 8192 ELSE 8193 END) b'),
	pipeline.add_stage('wide', 'c', 'transform', isolate => true, query => 'SELECT id, a, b FROM event'),
	pipeline.add_output('wide', 'wide'), pipeline.start('wide');
INSERT INTO src VALUES (4, 1), (5, 1);
SQL
$node->caught_up('wide');
is($node->value('SELECT string_agg(DISTINCT format($$%s/%s/%s/%s$$, segment, part, output, sqlstate), $$ $$) FROM pipeline.dead_letters'),
	'2/2048/(b)/54000', 'the one event that makes too many is a dead letter');
like($node->value('SELECT detail FROM pipeline.dead_letters'),
	qr/Part 2048 of the source's event makes 8193 rows, whose numbers need 14 bits more; 13 of 29 are left/, 'and says how many are left');
$node->same_rows('TABLE wide',
	'SELECT id, a, b FROM src, generate_series(1, 2048) a, LATERAL generate_series(1, CASE WHEN a < 2048 THEN 1 ELSE 8192 END) b WHERE id = 4
	UNION ALL SELECT 5, a, 1 FROM generate_series(1, 2047) a', 'all others are there');
$node->safe_psql('postgres', q{SELECT pipeline.deploy_stage('wide', 'b', query => 'SELECT id, a, b FROM event, generate_series(1, 3) b')});
$node->safe_psql('postgres', q{SELECT pipeline.redrive('wide')});
$node->caught_up('wide');
is($node->value('SELECT count(*) FROM wide WHERE id = 5'), 2050, 'it goes through when it makes fewer');
is($node->value(q{SELECT count(*) - count(DISTINCT (commit_lsn, seq, part)) FROM pipeline.lineage WHERE pipeline = 'wide' AND output = 'wide'}),
	0, 'under numbers of its own');

$node->stop;
done_testing();
