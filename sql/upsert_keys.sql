-- Keys of an upsert are equal or not as the type says, whatever they look like.
SET client_min_messages = warning;
CREATE SCHEMA upsert_keys;
SET search_path = upsert_keys;
CREATE EXTENSION citext SCHEMA upsert_keys;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE differences (type text, step text, mirror bigint, kept bigint);
CREATE FUNCTION compare(type text, step text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pipeline.wait_for('mirror'), pipeline.wait_for('kept');
	INSERT INTO differences SELECT type, step,
		(SELECT count(*) FROM (SELECT k::text, v FROM src EXCEPT ALL SELECT k::text, v FROM mirror) d) + (SELECT count(*) FROM mirror) - (SELECT count(*) FROM src),
		(SELECT count(*) FROM (SELECT k::text, v FROM src EXCEPT ALL SELECT k::text, v FROM kept) d) + (SELECT count(*) FROM kept) - (SELECT count(*) FROM src);
END $$;
-- All values in one transaction, so in one batch; all are changed, some keys shift,
-- then half of them go, and come again in the transaction in which all go.
CREATE PROCEDURE try(type text, vals text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE src (k %s PRIMARY KEY, v int)', type);
	ALTER TABLE src REPLICA IDENTITY FULL;
	CREATE TABLE mirror (LIKE src INCLUDING ALL);
	CREATE TABLE kept (LIKE src INCLUDING ALL);
	PERFORM pipeline.create_pipeline('mirror', 'src', operations => '{insert,update,delete,truncate}'),
		pipeline.add_output('mirror', 'mirror'),
		pipeline.create_pipeline('kept', 'src', operations => '{insert,update,delete,truncate}'),
		pipeline.add_stage('kept', 'same', 'transform', query => 'SELECT v, k FROM event'),
		pipeline.add_output('kept', 'kept'),
		pipeline.start('mirror'), pipeline.start('kept');
	COMMIT;
	EXECUTE format('INSERT INTO src SELECT k::%s, row_number() OVER () FROM unnest(%L::text[]) k', type, vals);
	COMMIT;
	PERFORM compare(type, 'insert');
	COMMIT;
	UPDATE src SET v = v + 100;
	DELETE FROM src WHERE v % 2 = 0;
	COMMIT;
	PERFORM compare(type, 'delete');
	COMMIT;
	CREATE TEMPORARY TABLE was AS TABLE src;
	DELETE FROM src;
	INSERT INTO src TABLE was;
	DELETE FROM src WHERE v % 3 = 0;
	DROP TABLE was;
	COMMIT;
	PERFORM compare(type, 'again');
	PERFORM pipeline.drop_pipeline('mirror'), pipeline.drop_pipeline('kept');
	DROP TABLE src, mirror, kept;
END $$;
CALL try('int8', '{0,1,-1,4294967296,-4294967296,4294967297,9223372036854775807,-9223372036854775808}');
CALL try('int2', '{0,1,-1,32767}');
CALL try('numeric', '{5,-5,0,NaN,Infinity,-Infinity,0.1,100000000000000000000,1e-20}');
CALL try('float4', '{0,1,-1,NaN,Infinity,-Infinity}');
CALL try('float8', '{0,1,-1,NaN,Infinity,-Infinity,4.9e-324}');
SELECT array_agg(timestamp '2026-01-01' + i * interval '1 day 1 us')::text AS times FROM generate_series(1, 3000) i \gset
CALL try('timestamp', :'times');
CALL try('timestamptz', '{infinity,-infinity,2026-01-01 00:00:00+00,0044-03-15 BC}');
CALL try('date', '{infinity,-infinity,2026-01-01,0044-03-15 BC}');
CALL try('time', '{00:00,24:00,12:00:00.000001}');
CALL try('timetz', '{00:00+00,01:00+01,12:00+00}');
CALL try('interval', '{1 day,25 hours,1 mon,1 year,-1 day,00:00}');
CALL try('text', '{"",a,A," a","a ",ä}');
CALL try('citext', '{"",a,b," a","a "}');
CALL try('char(5)', '{"",a,A," a"}');
CALL try('name', '{a,b}');
CALL try('bytea', '{"","\\x00","\\x0000"}');
CALL try('bool', '{t,f}');
CALL try('uuid', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12}');
CALL try('inet', '{::1,10.0.0.1/8,10.0.0.1,10.0.0.0/8}');
CALL try('macaddr8', '{08:00:2b:01:02:03:04:05,08:00:2b:01:02:03:04:06}');
CALL try('money', '{1,-1,4294967.296}');
CALL try('bit(3)', '{000,001,111}');
CALL try('pg_lsn', '{0/1,1/0,1/1}');
CALL try('mood', '{sad,ok,happy}');
CALL try('int4range', '{empty,"[1,2)","[1,3)","(,)"}');
CALL try('nummultirange', '{"{}","{[1,2)}","{[1,3)}"}');
CALL try('int[]', '{"{1,2}","{1,3}"}');
CALL try('pair', '{"(1,a)","(1,b)","(2,a)"}');
CALL try('jsonb', '{1,-1,"[1]","{}"}');
SELECT * FROM differences WHERE mirror <> 0 OR kept <> 0;
SELECT count(DISTINCT type), count(*) FROM differences;

-- Equal values that look different: what another row wrote since stays.
CREATE PROCEDURE try_equal(type text, one text, two text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE src (id int PRIMARY KEY, k %s)', type);
	EXECUTE format('CREATE TABLE kept (k %s PRIMARY KEY, id int)', type);
	ALTER TABLE src REPLICA IDENTITY FULL;
	PERFORM pipeline.create_pipeline('kept', 'src', operations => '{insert,update,delete,truncate}'),
		pipeline.add_output('kept', 'kept'), pipeline.start('kept');
	COMMIT;
	EXECUTE format('INSERT INTO src VALUES (1, %L), (2, %L)', one, two);
	COMMIT;
	PERFORM pipeline.wait_for('kept');
	DELETE FROM src WHERE id = 1;
	COMMIT;
	PERFORM pipeline.wait_for('kept');
	INSERT INTO differences SELECT type, 'equal', (SELECT count(*) FROM src) - (SELECT count(*) FROM kept),
		(SELECT count(*) FROM (SELECT id, k::text FROM src EXCEPT ALL SELECT id, k::text FROM kept) d);
	PERFORM pipeline.drop_pipeline('kept');
	DROP TABLE src, kept;
END $$;
CALL try_equal('numeric', '1.0', '1.00');
CALL try_equal('float8', '0', '-0');
CALL try_equal('interval', '1 day', '24 hours');
CALL try_equal('citext', 'a', 'A');
SELECT * FROM differences WHERE step = 'equal';
DROP SCHEMA upsert_keys CASCADE;
