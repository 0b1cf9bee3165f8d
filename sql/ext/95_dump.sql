-- What pg_dump takes along.  Not _pipeline.slot: a slot is never in a dump; nor
-- _pipeline.backlog, which continues a position in that slot; nor
-- _pipeline.layouts, which are written anew by a start.

SELECT pg_catalog.pg_extension_config_dump('_pipeline.pipelines', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.pipelines_pipeline_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.stages', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.stages_stage_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.stage_versions', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.outputs', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.outputs_output_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.kept', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.checkpoints', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.counts', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.stage_counts', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.batches', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.batches_batch_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.reruns', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.dead_letters', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.dead_letters_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.schema_events', 'WHERE state <> ''pending''');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.schema_events_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.audit_log', '');
SELECT pg_catalog.pg_extension_config_dump('_pipeline.audit_log_id_seq', '');

SELECT _pipeline.installed();
