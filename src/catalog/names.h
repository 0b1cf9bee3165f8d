/*
 * names.h
 *		Names of all that the extension made in the database.
 *
 * Relations are qualified, ready to stand in constant SQL.
 */
#ifndef PPL_NAMES_H
#define PPL_NAMES_H

#define PPL_EXTENSION			"pipeline"
#define PPL_SCHEMA				"pipeline"
#define PPL_PRIVATE_SCHEMA		"_pipeline"

#define PPL_PIPELINES_RELNAME	"pipelines"
#define PPL_PIPELINES			PPL_PRIVATE_SCHEMA "." PPL_PIPELINES_RELNAME
#define PPL_STAGES				PPL_PRIVATE_SCHEMA ".stages"
#define PPL_STAGE_VERSIONS		PPL_PRIVATE_SCHEMA ".stage_versions"
#define PPL_OUTPUTS				PPL_PRIVATE_SCHEMA ".outputs"
#define PPL_KEPT				PPL_PRIVATE_SCHEMA ".kept"
#define PPL_CHECKPOINTS			PPL_PRIVATE_SCHEMA ".checkpoints"
#define PPL_BACKLOG				PPL_PRIVATE_SCHEMA ".backlog"
#define PPL_SLOT				PPL_PRIVATE_SCHEMA ".slot"
#define PPL_COUNTS				PPL_PRIVATE_SCHEMA ".counts"
#define PPL_STAGE_COUNTS		PPL_PRIVATE_SCHEMA ".stage_counts"
#define PPL_BATCHES				PPL_PRIVATE_SCHEMA ".batches"
#define PPL_RERUNS				PPL_PRIVATE_SCHEMA ".reruns"
#define PPL_DEAD_LETTERS		PPL_PRIVATE_SCHEMA ".dead_letters"
#define PPL_LAYOUTS				PPL_PRIVATE_SCHEMA ".layouts"
#define PPL_SCHEMA_EVENTS		PPL_PRIVATE_SCHEMA ".schema_events"
#define PPL_PARTITION_NUMBER	PPL_PRIVATE_SCHEMA ".partition_number"
#define PPL_AUDIT_LOG			PPL_PRIVATE_SCHEMA ".audit_log"

#define PPL_STREAM_HANDLER		"stream_handler"

#define PPL_ROLE_READER			"pipeline_reader"
#define PPL_ROLE_OPERATOR		"pipeline_operator"
#define PPL_ROLE_ADMIN			"pipeline_admin"

#endif							/* PPL_NAMES_H */
