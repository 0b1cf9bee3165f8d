-- Guard, roles and schemas.
\echo Use "CREATE EXTENSION pipeline" to load this file. \quit

-- Roles belong to the whole cluster: another database may have made them.
DO LANGUAGE plpgsql $roles$
DECLARE
	wanted pg_catalog.text;
	purpose pg_catalog.text;
BEGIN
	FOR wanted, purpose IN VALUES
		('pipeline_reader', 'may see definitions, status and statistics of all pipelines'),
		('pipeline_operator', 'may also start and stop all pipelines, and see and redrive their dead letters'),
		('pipeline_admin', 'may do everything with all pipelines')
	LOOP
		BEGIN
			IF pg_catalog.to_regrole(wanted) IS NULL THEN
				EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN', wanted);
				EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted, purpose);
			END IF;
		EXCEPTION WHEN duplicate_object OR unique_violation THEN
			NULL;
		END;
	END LOOP;
END
$roles$;

CREATE SCHEMA pipeline;
COMMENT ON SCHEMA pipeline IS 'pipelines: functions and views for users';

CREATE SCHEMA _pipeline;
COMMENT ON SCHEMA _pipeline IS 'pipelines: tables of the extension, not for users';
