# Transactions that are larger than a batch: they are taken in several chunks,
# with control records between them, with capture starting anew in the midst of
# one, and their end is told also when nothing else follows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => "pipeline.batch_rows = 10\n");

$node->need_failpoints;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, v text);
ALTER TABLE src ALTER v SET STORAGE EXTERNAL;
CREATE TABLE dst (id int PRIMARY KEY, v text);
CREATE TABLE late (id int PRIMARY KEY, v text);
CREATE FUNCTION to_late(s src) RETURNS SETOF late LANGUAGE sql STABLE AS
$$ SELECT s.id, s.v $$;
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL
$node->caught_up('p');

# A change of the definition right where a chunk ends.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src SELECT n, 'before' FROM generate_series(1, 20) n;
SELECT pipeline.add_output('p', 'late', transform => 'to_late(src)');
INSERT INTO src SELECT n, 'after' FROM generate_series(21, 25) n;
COMMIT;
SQL
$node->caught_up('p');
is($node->value('SELECT count(*) FROM dst'), '25', 'all events went to the first output');
is($node->value('SELECT min(id), max(id), count(*) FROM late'),
	'21|25|5', 'an output that came between two chunks got what came after it');

# While a part of a transaction is to come, nothing of it counts as done.
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO src SELECT n, 'before' FROM generate_series(101, 115) n;
SELECT pipeline.drop_output('p', 'late');
INSERT INTO src SELECT n, 'after' FROM generate_series(116, 120) n;
COMMIT;
SQL
$node->caught_up('p');
is($node->value('SELECT count(*) FROM dst WHERE id > 100'), '20',
	'a change in the middle of a chunk loses no event');

# A row that is large enough to be published by itself: its commit follows
# with no record of the source.
for my $id (201 .. 210)
{
	$node->safe_psql('postgres',
		"INSERT INTO src SELECT $id, repeat('x', 4 * 1024 * 1024)");
	is($node->value("SELECT pipeline.wait_for('p', timeout => '10 s')"), 't',
		"the end of transaction $id is told");
}

# Capture fails after it published several segments of one transaction.  The
# next one must not use their numbers for other records.
$node->failpoint_set('capture-after-decode', 'error');
$node->safe_psql('postgres', <<'SQL');
INSERT INTO src SELECT n, repeat('y', 300000) FROM generate_series(1001, 1200) n;
SQL
$node->poll(q{SELECT state = 'failed' FROM _pipeline.databases()
		WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())},
	what => 'capture to fail');
my $used = $node->value(q{SELECT count(*) FROM pipeline.workers});
is($used, '1', 'the worker waits for the rest of the transaction');
$node->failpoint_clear('capture-after-decode');
$node->caught_up('p');
is( $node->value(
		q{SELECT count(*), count(DISTINCT id), sum(length(v)) FROM dst WHERE id > 1000}),
	'200|200|60000000',
	'it is taken anew from the next spool');
is($node->value('SELECT count(*) FROM pipeline.dead_letters'), '0', 'no dead letter');
$node->ledger_balanced('p', 'ledger balanced');
unlike(slurp_file($node->logfile), qr/spool record at offset/,
	'no worker misread the spool');

done_testing();
