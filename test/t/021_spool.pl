# What capture writes into the spool, read from its files: the replica identity
# of a table and the columns that it logs of old rows, at each change as they
# were then; unchanged large values; rows of partitions as rows of their table.
# The backlog has the same.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineSpool qw(node_records records);
use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
pipeline.worker_idle_timeout = 0
pipeline.max_retained_wal = 1MB
CONF

# One change as text: what happened, the replica identity and the columns that
# it logs, the old and the new row.
sub text
{
	my ($record) = @_;
	my $row = sub {
		my ($values) = @_;
		return '-' unless $values;
		return '(' . join(',', map { !defined ? '' : length > 20 ? length : $_ } @$values) . ')';
	};
	return join ' ', $record->{kind}, "$record->{replident}:" . join(',', @{ $record->{logged} }),
	  $row->($record->{old}), $row->($record->{new}), $record->{flags} ? 'partial' : ();
}

sub changes
{
	my ($table, @records) = @_;
	my $relid = $node->value("SELECT '$table'::regclass::oid");
	return map { text($_) } grep { $_->{relid} == $relid && $_->{kind} ne 'control' } @records;
}

# ---- the replica identity ----------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (a int PRIMARY KEY, b int NOT NULL, c int);
ALTER TABLE src ADD d int;
ALTER TABLE src DROP COLUMN d;
CREATE UNIQUE INDEX src_b ON src (b) INCLUDE (c);
CREATE TABLE dst (a int, b int, c int);
SELECT pipeline.create_pipeline('p', 'src', operations => '{insert,update,delete,truncate}');
SELECT pipeline.add_output('p', 'dst', mode => 'append');
SELECT pipeline.start('p');
-- as it is, by the primary key
INSERT INTO src VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);
UPDATE src SET c = 11 WHERE a = 1;
UPDATE src SET a = 10 WHERE a = 1;
DELETE FROM src WHERE a = 10;
-- by another index, whose column c is no part of the key
ALTER TABLE src REPLICA IDENTITY USING INDEX src_b;
UPDATE src SET c = 22 WHERE a = 2;
UPDATE src SET b = 20 WHERE a = 2;
-- changed in the middle of a transaction, and back again
BEGIN;
DELETE FROM src WHERE a = 2;
ALTER TABLE src REPLICA IDENTITY FULL;
UPDATE src SET c = 33 WHERE a = 3;
SAVEPOINT s;
ALTER TABLE src REPLICA IDENTITY NOTHING;
UPDATE src SET c = 34 WHERE a = 3;
ROLLBACK TO s;
UPDATE src SET c = 35 WHERE a = 3;
COMMIT;
ALTER TABLE src REPLICA IDENTITY NOTHING;
DELETE FROM src WHERE a = 3;
TRUNCATE src;
-- by a primary key that is another one now, or none
ALTER TABLE src REPLICA IDENTITY DEFAULT;
ALTER TABLE src DROP CONSTRAINT src_pkey, ADD PRIMARY KEY (b, a);
INSERT INTO src VALUES (4, 4, 4);
DELETE FROM src;
ALTER TABLE src DROP CONSTRAINT src_pkey;
INSERT INTO src VALUES (5, 5, 5);
DELETE FROM src;
-- the pipeline stands until there is a replica identity again
ALTER TABLE src ADD PRIMARY KEY (a);
SQL
$node->caught_up('p');
my $expected = join "\n",
  'insert d:a - (1,1,1,)', 'insert d:a - (2,2,2,)', 'insert d:a - (3,3,3,)',
  'update d:a - (1,1,11,)', 'update d:a (1,,,) (10,1,11,)', 'delete d:a (10,,,) -',
  'update i:b - (2,2,22,)', 'update i:b (,2,,) (2,20,22,)', 'delete i:b (,20,,) -',
  'update f:a,b,c (3,3,3,) (3,3,33,)',
  'update f:a,b,c (3,3,33,) (3,3,35,)', 'delete n: - -', 'truncate n: - -',
  'insert d:a,b - (4,4,4,)', 'delete d:a,b (4,4,,) -', 'insert d: - (5,5,5,)', 'delete d: - -';
is(join("\n", changes('src', node_records($node, 'postgres'))),
	$expected, 'records have the replica identity of their time');

# ---- large values ------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE large (id text PRIMARY KEY, n int, v text);
ALTER TABLE large ALTER id SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL;
ALTER TABLE large REPLICA IDENTITY FULL;
CREATE TABLE large_out (id text, n int, v text);
SELECT pipeline.create_pipeline('large', 'large', operations => '{insert,update,delete}');
SELECT pipeline.add_output('large', 'large_out', mode => 'append');
SELECT pipeline.start('large');
SELECT pipeline.stop('large');
ALTER TABLE large REPLICA IDENTITY DEFAULT;
INSERT INTO large VALUES (repeat('k', 2500), 0, repeat('v', 9000)), ('x', 0, repeat('w', 9000));
UPDATE large SET n = 1;
UPDATE large SET v = repeat('u', 9001) WHERE id = 'x';
UPDATE large SET id = 'y' WHERE id = 'x';
ALTER TABLE large REPLICA IDENTITY FULL;
UPDATE large SET n = 2;
UPDATE large SET v = NULL WHERE id = 'y';
DELETE FROM large;
SQL
$node->safe_psql('postgres', 'INSERT INTO src VALUES (6, 6, 6)');
$node->caught_up('p');
$expected = join "\n",
  'insert d:id - (2500,0,9000)', 'insert d:id - (x,0,9000)',
  'update d:id (2500,,) (2500,1,TOAST)', 'update d:id - (x,1,TOAST)',
  'update d:id - (x,1,9001)', 'update d:id (x,,) (y,1,TOAST)',
  'update f:id,n,v (2500,1,9000) (2500,2,9000)', 'update f:id,n,v (y,1,9001) (y,2,9001)',
  'update f:id,n,v (y,2,9001) (y,2,)',
  'delete f:id,n,v (2500,2,9000) -', 'delete f:id,n,v (y,2,) -';
is(join("\n", changes('large', node_records($node, 'postgres'))), $expected,
	'an unchanged value is the one of the old row, if the server logs that, else a pointer');

# ---- partitions --------------------------------------------------------------

# Partitions with other columns and another replica identity than their table:
# a record of the table has its columns, and what the partition logs.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE m (gone int, a int NOT NULL, b int, c int) PARTITION BY RANGE (a);
ALTER TABLE m DROP COLUMN gone;
CREATE TABLE m_key PARTITION OF m FOR VALUES FROM (0) TO (100);
ALTER TABLE m_key ADD PRIMARY KEY (a);
CREATE TABLE m_mid PARTITION OF m FOR VALUES FROM (100) TO (1000) PARTITION BY RANGE (a);
CREATE TABLE m_full (c int, gone1 text, b int, a int NOT NULL);
ALTER TABLE m_full DROP COLUMN gone1;
ALTER TABLE m_mid ATTACH PARTITION m_full FOR VALUES FROM (100) TO (200);
ALTER TABLE m_full REPLICA IDENTITY FULL;
CREATE TABLE m_none PARTITION OF m_mid FOR VALUES FROM (200) TO (300);
ALTER TABLE m_none REPLICA IDENTITY FULL;
CREATE TABLE m_out (a int, b int, c int);
SELECT pipeline.create_pipeline('m', 'm', operations => '{insert,update,delete,truncate}');
SELECT pipeline.add_stage('m', 's', 'transform', query => 'SELECT a, b, c FROM event');
SELECT pipeline.add_output('m', 'm_out', mode => 'append');
SELECT pipeline.start('m');
SELECT pipeline.create_pipeline('full', 'm_full', operations => '{insert,update,delete,truncate}');
SELECT pipeline.add_stage('full', 's', 'transform', query => 'SELECT a, b, c FROM event');
SELECT pipeline.add_output('full', 'm_out', mode => 'append');
SELECT pipeline.start('full');
ALTER TABLE m_none REPLICA IDENTITY DEFAULT;
INSERT INTO m VALUES (1, 1, 1), (101, 1, 1), (201, 1, 1);
UPDATE m SET b = 2;
UPDATE m SET a = a + 1;
-- a default that old rows have not on disk; not the same in a partition
ALTER TABLE m_mid DETACH PARTITION m_full;
ALTER TABLE m_full ADD d int DEFAULT 11;
ALTER TABLE m ADD d int DEFAULT 12;
ALTER TABLE m_mid ATTACH PARTITION m_full FOR VALUES FROM (100) TO (200);
UPDATE m SET c = 3;
-- from partition to partition
UPDATE m SET a = 5 WHERE a = 102;
UPDATE m SET a = 105 WHERE a = 202;
DELETE FROM m;
TRUNCATE m;
TRUNCATE m_mid;
TRUNCATE m_full, m_key;
SQL
$node->caught_up($_) for 'm', 'full';
is(join("\n", changes('m', node_records($node, 'postgres'))), join("\n",
	'insert d:a - (,1,1,1)', 'insert f:a,b,c - (,101,1,1)', 'insert d: - (,201,1,1)',
	'update d:a - (,1,2,1)', 'update f:a,b,c (,101,1,1) (,101,2,1)', 'update d: - (,201,2,1)',
	'update d:a (,1,,) (,2,2,1)', 'update f:a,b,c (,101,2,1) (,102,2,1)', 'update d: - (,202,2,1)',
	'update d:a - (,2,2,3,12)', 'update f:a,b,c,d (,102,2,1,11) (,102,2,3,11)', 'update d: - (,202,2,3,12)',
	'delete f:a,b,c,d (,102,2,3,11) -', 'insert d:a - (,5,2,3,11)',
	'delete d: - -', 'insert f:a,b,c,d - (,105,2,3,12)',
	'delete d:a (,2,,,) -', 'delete d:a (,5,,,) -', 'delete f:a,b,c,d (,105,2,3,12) -',
	'truncate d: - -', 'truncate d: - - partial', 'truncate f:a,b,c,d - - partial'),
	'records of a partitioned table are converted');
is(join("\n", changes('m_full', node_records($node, 'postgres'))), join("\n",
	'insert f:c,b,a - (1,,1,101)', 'update f:c,b,a (1,,1,101) (1,,2,101)',
	'update f:c,b,a (1,,2,101) (1,,2,102)', 'update f:c,b,a,d (1,,2,102) (3,,2,102,11)',
	'delete f:c,b,a,d (3,,2,102,11) -', 'insert f:c,b,a,d - (3,,2,105,12)',
	'delete f:c,b,a,d (3,,2,105,12) -',
	('truncate f:c,b,a,d - -') x 3),
	'those of its partition are not');

# The same columns, but an old row that is shorter than they are.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE same (a int, b int) PARTITION BY RANGE (a);
CREATE TABLE same_1 PARTITION OF same FOR VALUES FROM (0) TO (100);
ALTER TABLE same_1 REPLICA IDENTITY FULL;
CREATE TABLE same_out (a int, b int, d int);
SELECT pipeline.create_pipeline('same', 'same', operations => '{insert,update}');
SELECT pipeline.add_stage('same', 's', 'transform', query => 'SELECT a FROM event');
SELECT pipeline.add_output('same', 'same_out', mode => 'append');
SELECT pipeline.start('same');
INSERT INTO same VALUES (1, 1);
ALTER TABLE same ADD d int DEFAULT 5;
UPDATE same SET b = 2;
SQL
$node->caught_up('same');
is(join("\n", changes('same', node_records($node, 'postgres'))),
	"insert f:a,b - (1,1)\nupdate f:a,b,d (1,1,5) (1,2,5)",
	'an old row of a partition has the defaults of columns that are newer');

# ---- the backlog -------------------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE tick (v text);
INSERT INTO tick SELECT repeat(md5(i::text), 10) FROM generate_series(1, 10000) i;
SQL
$node->poll(
	q{SELECT bool_or(backlog_bytes > 0) FROM pipeline.status WHERE pipeline = 'large'},
	what => 'the events to move to the backlog');
my @chunks = split /\n/, $node->value(q{SELECT encode(records, 'hex') FROM _pipeline.backlog ORDER BY chunk_id});
is(join("\n", changes('large', map { records(pack 'H*', $_) } @chunks)),
	$expected, 'the backlog has the same');

$node->stop;
done_testing();
