# Every way to change rows makes the events that it should, in their order, with
# the old and the new row: whatever is rolled back makes none.  What triggers wrote
# into a table in the same transactions says what happened; it is compared with
# the records of the spool and with what the pipelines did.
# Many tables and many partitions in one transaction, tables that come and go, and
# a transaction of half a million rows, for which capture and the worker need no
# more memory than for a small one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineSpool qw(node_records);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
max_worker_processes = 32
pipeline.max_segments = 240
pipeline.worker_idle_timeout = 100ms
shared_buffers = 16MB
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE oracle (n bigint GENERATED ALWAYS AS IDENTITY, source text, line text);
CREATE FUNCTION row_text(r anyelement) RETURNS text LANGUAGE sql AS
$$ SELECT '(' || string_agg(CASE WHEN length(value) > 20 THEN length(value)::text ELSE coalesce(value, '') END, ',' ORDER BY n) || ')'
	FROM json_each_text(to_json(r)) WITH ORDINALITY j (key, value, n) $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO oracle (source, line) VALUES (TG_RELID::regclass, concat_ws(' ', lower(TG_OP),
		CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN row_text(OLD) ELSE '-' END,
		CASE WHEN TG_OP IN ('UPDATE', 'INSERT') THEN row_text(NEW) ELSE '-' END));
	RETURN NULL;
END $$;
-- A table with a pipeline over all that happens to it, and triggers that note it.
CREATE PROCEDURE make_source(source regclass) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', source);
	EXECUTE format('CREATE TRIGGER zz_note AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION note()', source);
	EXECUTE format('CREATE TRIGGER zz_note_truncate AFTER TRUNCATE ON %s EXECUTE FUNCTION note()', source);
	EXECUTE format('CREATE TABLE %s (id int)', source || '_out');
	PERFORM pipeline.create_pipeline(source::text, source, operations => '{insert,update,delete,truncate}'),
		pipeline.add_stage(source::text, 'id', 'transform', query => 'SELECT id FROM event'),
		pipeline.add_output(source::text, source || '_out', mode => 'append'),
		pipeline.start(source::text);
END $$;

CREATE TABLE a (id int PRIMARY KEY, k int, v text);
CREATE TABLE b (id int, what text, v text);
-- compressed values would not compare
ALTER TABLE a ALTER v SET STORAGE EXTERNAL;
ALTER TABLE b ALTER v SET STORAGE EXTERNAL;
CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE grandchild (id int, child int REFERENCES child ON DELETE SET NULL ON UPDATE CASCADE);
CALL make_source('a');
CALL make_source('b');
CALL make_source('parent');
CALL make_source('child');
CALL make_source('grandchild');
SQL
my %sources = map { $_ => 1 } qw(a b parent child grandchild);

# What records say of a table, as the oracle would.
sub lines
{
	my ($source, @records) = @_;
	my $relid = $node->value("SELECT '$source'::regclass::oid");
	my $row = sub {
		my ($values) = @_;
		return '-' unless $values;
		return '(' . join(',', map { !defined ? '' : length > 20 ? length : $_ } @$values) . ')';
	};
	return map { join ' ', $_->{kind}, $row->($_->{old}), $row->($_->{new}) }
	  grep { $_->{relid} == $relid && $_->{kind} ne 'control' } @records;
}

# Run statements; then the events of all sources are those of the oracle, and
# every new row came out.
sub same_events
{
	my ($name, $sql) = @_;
	my $before = $node->value('SELECT coalesce(max(n), 0) FROM oracle');

	$node->safe_psql('postgres', $sql);
	cmp_ok($node->value("SELECT count(*) FROM oracle WHERE n > $before"), '>', 0, "$name: something happened")
	  unless $name =~ /^no event/;
	$node->caught_up($_) for sort keys %sources;
	my @records = node_records($node, 'postgres');
	for my $source (sort keys %sources)
	{
		my @got = lines($source, @records);
		my @expected = split /\n/,
		  $node->value("SELECT line FROM oracle WHERE source = '$source' ORDER BY n");
		my $at = 0;
		$at++ while $at < @got && $at < @expected && $got[$at] eq $expected[$at];
		next if $at == @got && $at == @expected;
		fail("$name: events of $source");
		diag "event $at is ", $got[$at] // 'missing', ', expected ', $expected[$at] // 'none';
		return;
	}
	is( $node->value(
			q{SELECT string_agg(source, ' ') FROM
			  (SELECT source, count(*) AS events, count(*) FILTER (WHERE line ~ '^(insert|update)') AS produced
			     FROM oracle GROUP BY source) o
			  JOIN pipeline.status s ON s.pipeline = o.source
			  WHERE (o.events, o.produced, 0, 0) IS DISTINCT FROM (s.events, s.produced, s.rejected, s.failed)}),
		'', "$name: the events are those that triggers saw");
	return;
}

# ---- statements --------------------------------------------------------------

same_events('savepoints', <<'SQL');
BEGIN;
INSERT INTO a VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, repeat('3', 9000));
SAVEPOINT s;
UPDATE a SET k = 10 WHERE id = 1;
DELETE FROM a WHERE id = 2;
SAVEPOINT t;
UPDATE a SET v = repeat('t', 9000) WHERE id = 3;
INSERT INTO a VALUES (4, 4, repeat('4', 10000));
ROLLBACK TO s;
UPDATE a SET k = 11, id = 11 WHERE id = 1;
RELEASE s;
SAVEPOINT s;
TRUNCATE a;
INSERT INTO a VALUES (1, 1, 'after the truncate');
ROLLBACK TO s;
DELETE FROM a WHERE id = 3;
COMMIT;
BEGIN;
UPDATE a SET v = 'rolled back';
ROLLBACK;
SQL

same_events('INSERT ... ON CONFLICT', <<'SQL');
INSERT INTO a VALUES (2, 3, 'conflict'), (20, 20, 'new') ON CONFLICT DO NOTHING;
INSERT INTO a VALUES (2, 4, 'updated'), (21, 21, 'new') ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v || a.v;
INSERT INTO a VALUES (20, 5, NULL), (21, 6, NULL) ON CONFLICT (id) DO UPDATE SET k = EXCLUDED.k WHERE a.k = 20;
INSERT INTO a VALUES (22, 22, repeat('22', 5000)) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v;
INSERT INTO a VALUES (22, 22, repeat('23', 5000)) ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v;
SQL

# A row is written and taken back when another session's row with its key is
# found only then: between the two looks at the index the key's function has
# that session write it.
$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION dblink;
CREATE TABLE race (id int, v text);
ALTER TABLE race ALTER v SET STORAGE EXTERNAL;
CREATE FUNCTION raced(id int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE looks int := nullif(current_setting('test.looks', true), '');
BEGIN
	IF looks IS NOT NULL THEN
		PERFORM set_config('test.looks', (looks - 1)::text, false);
		IF looks = 0 THEN
			PERFORM dblink_exec(format('dbname=postgres host=%s port=%s',
				split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')),
				format('INSERT INTO race VALUES (%s, ''of the other session'')', id));
		END IF;
	END IF;
	RETURN id;
END $$;
CREATE UNIQUE INDEX race_id ON race (raced(id));
CALL make_source('race');
SQL
$sources{race} = 1;
same_events('a speculative insertion that is taken back', <<'SQL');
BEGIN;
SET test.looks = 1;
INSERT INTO race VALUES (2, repeat('s', 9000)) ON CONFLICT (raced(id)) DO UPDATE SET v = EXCLUDED.v || '!';
RESET test.looks;
INSERT INTO race VALUES (3, repeat('a', 9000));
COMMIT;
SET test.looks = 1;
INSERT INTO race VALUES (4, 'not at all') ON CONFLICT (raced(id)) DO NOTHING;
SQL
is($node->value(q{SELECT string_agg(id || ' ' || left(v, 12), ', ' ORDER BY id) FROM race}),
	'2 ssssssssssss, 3 aaaaaaaaaaaa, 4 of the other',
	'the other session was in between');

same_events('COPY and MERGE', <<'SQL');
COPY a FROM PROGRAM 'for i in $(seq 100 1099); do printf "$i\t$i\tcopied\n"; done';
COPY a FROM PROGRAM 'for i in 1 2 3 4 5; do printf "200$i\t1\t%9000s\n" $i; done' WITH (FORMAT text);
MERGE INTO a USING (SELECT n, CASE WHEN n % 2 = 0 THEN repeat('m', 9000) ELSE 'merged' END AS v FROM generate_series(1090, 1110) n) s ON a.id = s.n
	WHEN MATCHED AND n % 3 = 0 THEN DELETE
	WHEN MATCHED AND n % 3 = 1 THEN UPDATE SET v = s.v
	WHEN NOT MATCHED AND n % 3 = 2 THEN INSERT VALUES (s.n, 0, s.v)
	WHEN NOT MATCHED THEN DO NOTHING;
UPDATE a SET k = -a.k FROM generate_series(100, 120) n WHERE a.id = n;
WITH gone AS (DELETE FROM a WHERE id BETWEEN 130 AND 140 RETURNING *),
	changed AS (UPDATE a SET v = 'by a WITH' WHERE id BETWEEN 141 AND 145 RETURNING *)
INSERT INTO b SELECT id, 'moved', v FROM gone UNION ALL SELECT id, 'changed', v FROM changed;
DELETE FROM a WHERE id > 200;
SQL

same_events('foreign keys', <<'SQL');
INSERT INTO parent SELECT n FROM generate_series(1, 5) n;
INSERT INTO child SELECT 10 * p + n, p FROM generate_series(1, 5) p, generate_series(1, 3) n;
INSERT INTO grandchild SELECT id * 10, id FROM child;
BEGIN;
DELETE FROM parent WHERE id = 1;
UPDATE parent SET id = id + 100 WHERE id IN (2, 3);
UPDATE child SET id = id + 100 WHERE parent = 102;
SAVEPOINT s;
DELETE FROM parent;
ROLLBACK TO s;
DELETE FROM child WHERE parent = 103;
COMMIT;
TRUNCATE parent CASCADE;
SQL

$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION spread() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_OP = 'DELETE' THEN
		INSERT INTO b VALUES (OLD.id, 'deleted', OLD.v);
		RETURN OLD;
	END IF;
	NEW.k := coalesce(NEW.k, 0) + 1;
	IF NEW.v = 'not at all' THEN
		RETURN NULL;
	END IF;
	UPDATE b SET what = what || '+' WHERE id = NEW.id;
	IF NOT FOUND THEN
		INSERT INTO b VALUES (NEW.id, lower(TG_OP), NEW.v);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER spread BEFORE INSERT OR UPDATE OR DELETE ON a FOR EACH ROW EXECUTE FUNCTION spread();
SQL
same_events('triggers that write into another source', <<'SQL');
INSERT INTO a VALUES (5000, 1, 'x'), (5001, 1, 'not at all'), (5002, NULL, 'z');
UPDATE a SET v = CASE id WHEN 5000 THEN 'not at all' ELSE repeat('z', 9000) END WHERE id >= 5000;
UPDATE a SET k = 0 WHERE id = 5002;
DELETE FROM a WHERE id >= 5000;
SQL
$node->safe_psql('postgres', 'DROP TRIGGER spread ON a');

same_events('a table that is written anew', <<'SQL');
BEGIN;
UPDATE a SET v = 'before' WHERE id = 100;
ALTER TABLE a ADD later int DEFAULT (random() * 0)::int;
UPDATE a SET v = 'between' WHERE id = 100;
ALTER TABLE a ALTER later SET DEFAULT 7;
UPDATE a SET v = 'after' WHERE id = 100;
COMMIT;
VACUUM FULL a;
CLUSTER a USING a_pkey;
UPDATE a SET v = repeat('x', 9000) WHERE id = 101;
VACUUM FULL a;
UPDATE a SET k = 0 WHERE id = 101;
SQL

# ---- tables that are no sources ----------------------------------------------

same_events('no event of tables that are no sources', <<'SQL');
BEGIN;
CREATE TABLE taken AS SELECT * FROM a;
SELECT * INTO taken_too FROM a WHERE id < 150;
CREATE TABLE own (id int, v text);
INSERT INTO own SELECT n, repeat('o', 100) FROM generate_series(1, 1000) n;
CREATE TEMP TABLE passing AS SELECT * FROM own;
CREATE MATERIALIZED VIEW mat AS SELECT * FROM own;
CREATE UNLOGGED TABLE unlogged AS SELECT * FROM own;
UPDATE taken SET k = 1;
COMMIT;
REFRESH MATERIALIZED VIEW mat;
DELETE FROM own;
SQL
$node->safe_psql('postgres', q{ALTER TABLE taken ALTER v SET STORAGE EXTERNAL; ALTER TABLE own ALTER v SET STORAGE EXTERNAL; CALL make_source('taken'); CALL make_source('own')});
$sources{$_} = 1 for 'taken', 'own';
same_events('a table of CREATE TABLE AS that is declared then', <<'SQL');
UPDATE taken SET v = repeat('t', 9000) WHERE id IN (100, 102);
UPDATE taken SET k = 2 WHERE id IN (100, 102, 103);
BEGIN;
INSERT INTO own SELECT id, v FROM taken WHERE id BETWEEN 102 AND 110;
CREATE TABLE another AS SELECT * FROM own;
INSERT INTO own SELECT id, 'again' FROM another;
DROP TABLE another;
TRUNCATE taken;
COMMIT;
SQL
same_events('no event of a table that is created and dropped', <<'SQL');
BEGIN;
CREATE TABLE passing AS SELECT * FROM own;
UPDATE passing SET id = 0;
DROP TABLE passing;
COMMIT;
SQL

# ---- a table that changes while a worker loads its definition ----------------

SKIP:
{
	skip 'needs a build with FAILPOINTS=1', 1
	  if $node->psql('postgres', q{SELECT _pipeline.failpoint_set('none', 'off')}) != 0;

	# What the worker makes of the table is made of one state of it.
	$node->failpoint_set('worker-before-compile', 'wait');
	$node->safe_psql('postgres', q{CREATE OR REPLACE FUNCTION raced_too() RETURNS int LANGUAGE sql AS 'SELECT 1'});
	$node->safe_psql('postgres', q{INSERT INTO b VALUES (1, 'loaded', 'before')});
	$node->failpoint_wait('worker-before-compile');
	my $other = $node->background_psql('postgres');
	$other->query_until(qr/begun/, "\\echo begun\nALTER TABLE b ADD later int DEFAULT 7;\n");
	$node->poll(
		q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'b'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted},
		what => 'ALTER TABLE to wait for the worker');
	$node->failpoint_clear('worker-before-compile');
	$other->quit;
	same_events('a column that is added while the worker loads',
		q{INSERT INTO b VALUES (2, 'loaded', 'after', 8); UPDATE b SET v = 'changed' WHERE v = 'after'});
}

# ---- many subtransactions ----------------------------------------------------

same_events('10 000 subtransactions', <<'SQL');
TRUNCATE a;
DO $$
BEGIN
	FOR n IN 1..10000 LOOP
		BEGIN
			IF n % 4 = 1 THEN
				INSERT INTO a VALUES (n, n, 'inserted');
			ELSIF n % 4 = 2 THEN
				UPDATE a SET v = 'updated', k = n WHERE id IN (n - 1, n - 5);
			ELSIF n % 4 = 3 THEN
				DELETE FROM a WHERE id = n - 40 - 2;
			ELSE
				INSERT INTO b VALUES (n, 'subtransaction', NULL);
			END IF;
			IF n % 5 = 0 THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
END $$;
SQL

# ---- many tables -------------------------------------------------------------

# 200 sources, each with its own pipeline, and 200 tables that are none.
$node->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR n IN 1..200 LOOP
		EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY, v int); CREATE TABLE other_%1$s (LIKE many_%1$s)', n);
		PERFORM pipeline.create_pipeline('many_' || n, ('many_' || n)::regclass, operations => '{insert,update,delete}'),
			pipeline.add_stage('many_' || n, 's', 'transform', query => format('SELECT %s AS source, id, v FROM event', n));
	END LOOP;
END $$;
CREATE TABLE many_out (source int, id int, v int);
CREATE TABLE many_oracle (LIKE many_out);
SELECT pipeline.add_output('many_' || n, 'many_out', mode => 'append'), pipeline.start('many_' || n)
FROM generate_series(1, 200) n;
SQL
$node->safe_psql('postgres', <<'SQL');
DO $$
BEGIN
	FOR round IN 1..3 LOOP
		FOR n IN 1..200 LOOP
			EXECUTE format('INSERT INTO other_%s VALUES (1, 1); INSERT INTO many_%1$s VALUES (%2$s, 0), (-%2$s, 0)', n, round);
			INSERT INTO many_oracle VALUES (n, round, 0), (n, -round, 0);
			BEGIN
				EXECUTE format('UPDATE many_%s SET v = v + 1 WHERE id = %s', n, round);
				INSERT INTO many_oracle VALUES (n, round, 1);
				IF n % 2 = 0 THEN
					RAISE division_by_zero;
				END IF;
			EXCEPTION WHEN division_by_zero THEN
				EXECUTE format('DELETE FROM many_%s WHERE id = %s', n, round);
			END;
		END LOOP;
	END LOOP;
END $$;
SQL
$node->caught_up("many_$_") for 1 .. 200;
$node->same_rows('TABLE many_out', 'TABLE many_oracle', '200 sources in one transaction');
is( $node->value(q{SELECT string_agg(DISTINCT concat_ws(' ', pipeline ~ '[02468]$', events, produced, filtered), ', ')
	FROM pipeline.status WHERE pipeline ~ 'many'}),
	'f 9 9 0, t 9 6 3', 'each got its own');
is($node->value(q{SELECT count(DISTINCT (commit_lsn, xid::text)) FROM pipeline.lineage WHERE pipeline ~ 'many'}),
	'1', 'of one transaction');
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('many_' || n) FROM generate_series(1, 200) n});

# Partitions that come and go, more than capture remembers.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE days (id int NOT NULL, day int NOT NULL) PARTITION BY RANGE (day);
CREATE TABLE days_out (id int, day int);
CREATE TABLE days_oracle (id int, day int);
SELECT pipeline.create_pipeline('days', 'days', operations => '{insert,update,delete}'),
	pipeline.add_output('days', 'days_out', mode => 'append'), pipeline.start('days');
CREATE PROCEDURE days(first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN first..last LOOP
		EXECUTE format('CREATE TABLE day_%s (%s) ', n, CASE n % 3 WHEN 0 THEN 'day int NOT NULL, id int NOT NULL' ELSE 'id int NOT NULL, day int NOT NULL' END);
		EXECUTE format('ALTER TABLE days ATTACH PARTITION day_%s FOR VALUES FROM (%1$s) TO (%s)', n, n + 1);
		INSERT INTO days VALUES (-n, n);
		INSERT INTO days_oracle VALUES (-n, n);
		IF n > 1 THEN
			UPDATE days SET day = n, id = id - 10000 WHERE day = n - 1;
			INSERT INTO days_oracle SELECT id, day FROM days WHERE day = n AND id <> -n;
			EXECUTE format('DROP TABLE day_%s', n - 1);
		END IF;
		IF n % 100 = 0 THEN
			DELETE FROM days;
			COMMIT;
		END IF;
	END LOOP;
END $$;
CALL days(1, 1500);
SQL
$node->caught_up('days');
$node->same_rows('TABLE days_out', 'TABLE days_oracle', '1500 partitions that come and go');
$node->ledger_balanced('days', 'and the ledger is balanced');

# ---- a large transaction -----------------------------------------------------

# The default: what capture keeps of transactions in memory.
$node->append_conf('postgresql.conf', "logical_decoding_work_mem = 64MB\npipeline.worker_idle_timeout = 0\n");
$node->restart;
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE large (id int PRIMARY KEY, v varchar(40));
CREATE TABLE large_out (id int, v text);
CREATE TABLE large_oracle (id int, v text);
SELECT pipeline.create_pipeline('large', 'large', operations => '{insert,update,delete}'),
	pipeline.add_output('large', 'large_out', mode => 'append'), pipeline.start('large');
INSERT INTO large SELECT n, md5(n::text) FROM generate_series(-20000, -1) n;
INSERT INTO large_oracle TABLE large;
SQL
$node->caught_up('large');

# Process and resident memory at its peak, in MB.
sub memory
{
	my ($type) = @_;
	my $pid = $type eq 'capture'
	  ? $node->process_pid('pipeline capture', wait => 1)
	  : $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'large'});
	my $status = slurp_file("/proc/$pid/status");
	my ($peak) = $status =~ /^VmHWM:\s+(\d+) kB/m;
	return ($pid, $peak / 1024);
}

my %before = map { $_ => [ memory($_) ] } 'capture', 'worker';
$node->safe_psql('postgres', <<'SQL');
BEGIN;
INSERT INTO large SELECT n, md5(n::text) FROM generate_series(1, 400000) n;
UPDATE large SET v = v || '!' WHERE id % 5 = 0 AND id > 0;
DELETE FROM large WHERE id % 20 = 1 AND id > 0;
INSERT INTO large_oracle SELECT n, md5(n::text) FROM generate_series(1, 400000) n;
INSERT INTO large_oracle SELECT n, md5(n::text) || '!' FROM generate_series(1, 400000) n WHERE n % 5 = 0;
COMMIT;
SQL
$node->caught_up('large');
my %after = map { $_ => [ memory($_) ] } 'capture', 'worker';
$node->same_rows('TABLE large_out', 'TABLE large_oracle', '500 000 events in one transaction');
is($node->value(q{SELECT concat_ws(' ', events, produced, filtered) FROM pipeline.status WHERE pipeline = 'large'}),
	'520000 500000 20000', 'each of them once');

# Capture: changes of up to logical_decoding_work_mem, and as much again for what
# the allocator cannot give back.  The worker: a batch, and the shared buffers.
my %bound = (capture => 2 * 64, worker => 32 + 16);
for my $type ('capture', 'worker')
{
	is($after{$type}[0], $before{$type}[0], "the $type is the same");
	cmp_ok($after{$type}[1] - $before{$type}[1], '<', $bound{$type}, "and has grown by less than $bound{$type} MB");
	diag sprintf '%s: %.0f MB, before %.0f MB', $type, $after{$type}[1], $before{$type}[1];
}

$node->stop;
done_testing();
