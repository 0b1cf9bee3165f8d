-- What becomes of an upsert output when events fail, and when they are run again:
-- it never goes back.
CREATE SCHEMA upsert_letters;
SET search_path = upsert_letters;
CREATE TABLE src (id int PRIMARY KEY, v int);
-- one that tells keys from old rows, and one that keeps them
CREATE TABLE derived (id int PRIMARY KEY, v int CONSTRAINT positive CHECK (v > 0));
CREATE TABLE kept (v int CONSTRAINT positive CHECK (v > 0), id int PRIMARY KEY);
CREATE TABLE derived_child (id int REFERENCES derived);
CREATE TABLE kept_child (id int REFERENCES kept);
CREATE FUNCTION same(s src) RETURNS SETOF src LANGUAGE sql STABLE AS $$ SELECT s.* $$;
SELECT pipeline.create_pipeline('derived', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('derived', 'derived'),
	pipeline.create_pipeline('kept', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('kept', 'kept', transform => 'same(src)'),
	pipeline.start('derived'), pipeline.start('kept');
SELECT count(*) FROM _pipeline.outputs WHERE target IN ('derived'::regclass, 'kept'::regclass) AND keeps;
CREATE FUNCTION done() RETURNS TABLE (derived text, kept text, letters text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.wait_for('derived'), pipeline.wait_for('kept');
	RETURN QUERY SELECT (SELECT string_agg(format('%s=%s', d.id, d.v), ' ' ORDER BY d.id) FROM derived d),
		(SELECT string_agg(format('%s=%s', k.id, k.v), ' ' ORDER BY k.id) FROM kept k),
		(SELECT string_agg(format('%s %s %s %s', l.pipeline, l.operation, coalesce(l.event->>'id', l.old_event->>'id'), l.state), ', ' ORDER BY l.pipeline, l.commit_lsn, l.seq)
			FROM pipeline.dead_letters l WHERE l.pipeline IN ('derived', 'kept') AND l.state = 'open');
END $$;
CREATE FUNCTION again() RETURNS TABLE (derived bigint, kept bigint) LANGUAGE sql AS
$$ SELECT pipeline.redrive('derived'), pipeline.redrive('kept') $$;
CREATE PROCEDURE reached(name text, wanted text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		IF (SELECT state FROM pipeline.status WHERE pipeline = name) = wanted THEN RETURN; END IF;
		PERFORM pipeline.wait_for(name, timeout => '10 ms');
		COMMIT;
	END LOOP;
	RAISE 'pipeline "%" is not %', name, wanted;
END $$;
INSERT INTO src SELECT i, i FROM generate_series(1, 5) i;
SELECT * FROM done();

-- An update that fails takes away what was there; when it can, it comes.
UPDATE src SET v = -10 WHERE id = 1;
SELECT * FROM done();
ALTER TABLE derived DROP CONSTRAINT positive;
ALTER TABLE kept DROP CONSTRAINT positive;
SELECT * FROM again();
SELECT * FROM done();
UPDATE src SET v = 1 WHERE id = 1;
SELECT * FROM done();

-- A later event of the same row makes it stale, in a later batch or in the same one.
ALTER TABLE derived ADD CONSTRAINT positive CHECK (v > 0);
ALTER TABLE kept ADD CONSTRAINT positive CHECK (v > 0);
UPDATE src SET v = -20 WHERE id = 2;
SELECT * FROM done();
UPDATE src SET v = 22 WHERE id = 2;
SELECT * FROM done();
BEGIN;
UPDATE src SET v = -30 WHERE id = 3;
UPDATE src SET v = 33 WHERE id = 3;
COMMIT;
SELECT * FROM done();
ALTER TABLE derived DROP CONSTRAINT positive;
ALTER TABLE kept DROP CONSTRAINT positive;
SELECT * FROM again();
SELECT * FROM done();
SELECT pipeline, operation, source_key, outcome, reason FROM pipeline.lineage
WHERE pipeline IN ('derived', 'kept') AND attempts > 1 ORDER BY pipeline, commit_lsn, seq;

-- What cannot be removed stays, and goes when it can.
INSERT INTO derived_child VALUES (4);
INSERT INTO kept_child VALUES (4);
DELETE FROM src WHERE id = 4;
SELECT * FROM done();
DELETE FROM derived_child;
DELETE FROM kept_child;
SELECT * FROM again();
SELECT * FROM done();

-- A key that was given up when its event failed may belong to another row since.
ALTER TABLE derived ADD CONSTRAINT positive CHECK (v > 0);
ALTER TABLE kept ADD CONSTRAINT positive CHECK (v > 0);
UPDATE src SET id = 50, v = -50 WHERE id = 5;
INSERT INTO src VALUES (5, 55);
SELECT * FROM done();
ALTER TABLE derived DROP CONSTRAINT positive;
ALTER TABLE kept DROP CONSTRAINT positive;
SELECT * FROM again();
SELECT * FROM done();
-- And one that could not be given up as well.
INSERT INTO derived_child VALUES (3);
INSERT INTO kept_child VALUES (3);
UPDATE src SET id = 30 WHERE id = 3;
SELECT * FROM done();
INSERT INTO src VALUES (3, 333);
SELECT * FROM done();
DELETE FROM derived_child;
DELETE FROM kept_child;
SELECT * FROM again();
SELECT * FROM done();
-- If it still is to be given up, it goes then.
INSERT INTO derived_child VALUES (3);
INSERT INTO kept_child VALUES (3);
UPDATE src SET id = 31 WHERE id = 3;
SELECT * FROM done();
DELETE FROM derived_child;
DELETE FROM kept_child;
SELECT * FROM again();
SELECT * FROM done();

-- Nothing that was before a truncate comes back.
ALTER TABLE derived ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
ALTER TABLE kept ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
INSERT INTO src VALUES (60, -60);
SELECT * FROM done();
TRUNCATE src;
SELECT * FROM done();
ALTER TABLE derived DROP CONSTRAINT positive;
ALTER TABLE kept DROP CONSTRAINT positive;
SELECT * FROM again();
SELECT * FROM done();
-- One that cannot be followed is waited for: what comes after it would be lost.
INSERT INTO src VALUES (1, 1), (2, 2);
SELECT * FROM done();
INSERT INTO derived_child VALUES (1);
INSERT INTO kept_child VALUES (1);
TRUNCATE src;
INSERT INTO src VALUES (7, 7);
CALL reached('derived', 'failed');
CALL reached('kept', 'failed');
SELECT pipeline, last_error FROM pipeline.status WHERE pipeline IN ('derived', 'kept') ORDER BY 1;
TRUNCATE derived_child, kept_child;
SELECT pipeline.restart('derived'), pipeline.restart('kept');
SELECT * FROM done();
SELECT l.* FROM (VALUES ('derived'), ('kept')) p(name), pipeline.ledger(p.name) l;
SELECT pipeline.drop_pipeline('derived'), pipeline.drop_pipeline('kept');

-- Another source row may have the key by the time that a letter is run again: the later
-- event stays, and what it wrote is its source row's.
CREATE TABLE wishes (id int PRIMARY KEY, seat int, ok bool);
CREATE TABLE seats (seat int PRIMARY KEY, id int);
CREATE FUNCTION wish(w wishes) RETURNS SETOF seats LANGUAGE sql STABLE AS $$ SELECT w.seat, w.id $$;
SELECT pipeline.create_pipeline('seats', 'wishes', operations => '{insert,update,delete}'),
	pipeline.add_stage('seats', 'ok', 'validate', query => 'SELECT ok FROM event'),
	pipeline.add_output('seats', 'seats', transform => 'wish(wishes)'), pipeline.start('seats');
INSERT INTO wishes VALUES (1, 7, false), (2, 7, true), (3, 8, false);
SELECT pipeline.wait_for('seats');
SELECT pipeline.drop_stage('seats', 'ok');
SELECT pipeline.redrive('seats');
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
SELECT source_key, outcome, reason, output_key FROM pipeline.lineage WHERE pipeline = 'seats' ORDER BY seq;
DELETE FROM wishes WHERE id = 1;
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
DELETE FROM wishes WHERE id IN (2, 3);
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
SELECT * FROM pipeline.ledger('seats');

-- What is kept is found by the key of the source that it was kept by; with another one
-- nothing would ever be removed.
ALTER TABLE wishes DROP CONSTRAINT wishes_pkey, ADD PRIMARY KEY (id, seat);
INSERT INTO wishes VALUES (4, 9, true);
CALL reached('seats', 'failed');
SELECT last_error FROM pipeline.status WHERE pipeline = 'seats';
ALTER TABLE wishes DROP CONSTRAINT wishes_pkey, ADD PRIMARY KEY (id);
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
ALTER TABLE wishes REPLICA IDENTITY FULL;
UPDATE wishes SET seat = 10;
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
ALTER TABLE wishes ALTER seat SET NOT NULL, DROP CONSTRAINT wishes_pkey, ADD PRIMARY KEY (seat);
DELETE FROM wishes;
CALL reached('seats', 'failed');
SELECT last_error FROM pipeline.status WHERE pipeline = 'seats';
ALTER TABLE wishes DROP CONSTRAINT wishes_pkey, ADD PRIMARY KEY (id);
SELECT pipeline.wait_for('seats');
TABLE seats ORDER BY seat;
SELECT pipeline.drop_pipeline('seats');
SET client_min_messages = warning;
DROP SCHEMA upsert_letters CASCADE;
