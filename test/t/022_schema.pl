# Changes of the schema under a pipeline: locks, restarts, kills, dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, n int);
CREATE TABLE dst (id int PRIMARY KEY, n int);
CREATE TABLE other (id int, n int);
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.add_output('p', 'other');
SELECT pipeline.start('p');
INSERT INTO src VALUES (1, 1);
SQL
$node->caught_up('p');

# ---- a transaction that changes tables and the definition, in any order ----------------

my $session = $node->background_psql('postgres');
$session->query_safe('BEGIN; ALTER TABLE dst ADD COLUMN more int');
$node->safe_psql('postgres', 'INSERT INTO src VALUES (2, 2)');
$node->poll(
	q{SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	   WHERE a.backend_type = 'pipeline worker' AND NOT l.granted)},
	what => 'the worker to wait');
$session->query_safe('ALTER TABLE src ALTER COLUMN n TYPE bigint');
$session->query_safe(q{SELECT pipeline.drop_output('p', 'other')});
$session->query_safe('COMMIT');
$session->quit;
$node->caught_up('p');
is($node->value(q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM dst}), '1 2',
	'tables and definition change in one transaction');
unlike(slurp_file($node->logfile), qr/deadlock/,
	'a worker that waits for a table holds neither the definition nor the source');

$node->stop;
done_testing();
