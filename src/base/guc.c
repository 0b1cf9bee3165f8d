/*
 * guc.c
 *		Settings of the extension, in alphabetical order.
 *
 * Those that size shared memory need a restart; the others are read again by
 * every process on reload, between two batches.
 */
#include "postgres.h"
#include "base/compat.h"

#include <limits.h>

#include "utils/guc.h"

#include "base/guc.h"

#define PPL_MAX_DATABASES	1024
#define PPL_MAX_SEGMENTS	65536
#define PPL_MAX_WINDOW		100000

int			ppl_guc_batch_bytes = 16 * 1024;
int			ppl_guc_batch_rows = 10000;
double		ppl_guc_breaker_failures = 0.5;
int			ppl_guc_breaker_window = 1000;
int			ppl_guc_dead_letter_limit = 100000;
int			ppl_guc_dead_letter_max_age = 0;
int			ppl_guc_max_backlog = 10 * 1024;
int			ppl_guc_max_databases = 16;
int			ppl_guc_max_retained_wal = 1024;
int			ppl_guc_max_segments = 4096;
int			ppl_guc_max_workers = 0;
int			ppl_guc_worker_idle_timeout = 60 * 1000;

static void define_limits(void);

/*
 * Define all settings.  Called once, while shared_preload_libraries is loaded.
 */
void
ppl_guc_define(void)
{
	DefineCustomIntVariable("pipeline.batch_bytes",
							"Events that one statement takes, in bytes of their rows",
							"A larger transaction is taken in several statements.",
							&ppl_guc_batch_bytes,
							16 * 1024, PPL_MIN_BATCH_KB, PPL_MAX_BATCH_KB,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.batch_rows",
							"Events that one statement takes",
							"A larger transaction is taken in several statements.",
							&ppl_guc_batch_rows,
							10000, 1, PPL_MAX_BATCH_ROWS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomRealVariable("pipeline.breaker_failures",
							 "Share of the last events that may fail before their pipeline pauses",
							 "Errors count, rejections do not. 1 means that it never pauses.",
							 &ppl_guc_breaker_failures,
							 0.5, 0.0, 1.0,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.breaker_window",
							"Number of last events whose failures are counted",
							"See pipeline.breaker_failures.",
							&ppl_guc_breaker_window,
							1000, 1, PPL_MAX_WINDOW,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.dead_letter_limit",
							"Open dead letters of a pipeline beyond which it pauses",
							"Zero means no limit.",
							&ppl_guc_dead_letter_limit,
							100000, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.dead_letter_max_age",
							"Age of an open dead letter beyond which its pipeline pauses",
							"Counted from its last failure. Zero means no limit.",
							&ppl_guc_dead_letter_max_age,
							0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);

	define_limits();

	DefineCustomIntVariable("pipeline.worker_idle_timeout",
							"Time without events after which a worker process ends",
							"It is started again when events arrive. Zero means never.",
							&ppl_guc_worker_idle_timeout,
							60 * 1000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);

	MarkGUCPrefixReserved("pipeline");
}

/* What the server has to give. */
static void
define_limits(void)
{
	DefineCustomIntVariable("pipeline.max_backlog",
							"Size of a backlog beyond which its segment is lost",
							"See pipeline.max_retained_wal.",
							&ppl_guc_max_backlog,
							10 * 1024, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.max_databases",
							"Databases of this server that can hold the extension",
							NULL,
							&ppl_guc_max_databases,
							16, 1, PPL_MAX_DATABASES,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.max_retained_wal",
							"WAL held for a pipeline beyond which its events move to the backlog",
							"The backlog is a table, from which the pipeline takes them when it goes on.",
							&ppl_guc_max_retained_wal,
							1024, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.max_segments",
							"Segments of pipelines that can be started on this server",
							"A pipeline without an isolated stage is one segment.",
							&ppl_guc_max_segments,
							4096, 1, PPL_MAX_SEGMENTS,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);

	DefineCustomIntVariable("pipeline.max_workers",
							"Worker processes that pipelines of this server may have at a time",
							"More busy pipelines take turns. Zero means as many as max_worker_processes leaves.",
							&ppl_guc_max_workers,
							0, 0, PPL_MAX_SEGMENTS,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}
