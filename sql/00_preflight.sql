--
-- Is this server fit for the tests?  Everything must be true; if not, the
-- other tests fail for the reason that is false here.
--
SELECT 'pipeline' = ANY (pg_catalog.string_to_array(
         pg_catalog.replace(setting, ' ', ''), ',')) AS preloaded
  FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries';
SELECT setting = 'logical' AS wal_level_is_logical
  FROM pg_catalog.pg_settings WHERE name = 'wal_level';
-- One slot for this database, one for the database of the isolation tests.
SELECT setting::int - (SELECT pg_catalog.count(*)
                         FROM pg_catalog.pg_replication_slots
                        WHERE database IS DISTINCT FROM pg_catalog.current_database())
       >= 2 AS enough_slots
  FROM pg_catalog.pg_settings WHERE name = 'max_replication_slots';
-- Launcher, two captures, the workers of the pipelines, and parallel query.
SELECT setting::int >= 24 AS enough_workers
  FROM pg_catalog.pg_settings WHERE name = 'max_worker_processes';
SELECT pg_catalog.count(*) = 1 AS installed
  FROM pg_catalog.pg_extension WHERE extname = 'pipeline';
