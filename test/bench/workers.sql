-- workers.sql - what several workers do: the source "work", and handlers.
CREATE TABLE work (k int, n int);
CREATE TABLE worked (k int, n int);
CREATE FUNCTION work_waits(w work) RETURNS text LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM pg_sleep(0.001); RETURN NULL; END $$;
CREATE FUNCTION work_computes(w work) RETURNS text LANGUAGE plpgsql VOLATILE AS
$$ DECLARE x text := w.n; BEGIN FOR i IN 1 .. 300 LOOP x := md5(x); END LOOP; RETURN nullif(x, x); END $$;
CREATE FUNCTION work_passes(w work) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT NULL::text';
