/*-------------------------------------------------------------------------
 *
 * explain.c
 *		The plan of a compiled statement, as text.
 *
 * The statement is planned as a worker plans it, over a relation of the batch
 * that is empty but said to hold a number of events.  It is not run.  Runs in
 * backends that explain a pipeline, inside a transaction, as whoever is to
 * own the plan; takes the locks that planning takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

#include "worker/explain.h"

/*
 * The lines (char *) of the plan for batches of so many events, in
 * CurrentMemoryContext.  The current user and search_path must be those of
 * the pipeline.  Throws what planning throws.
 */
List *
ppl_explain_plan(const PplStatement *statement, double events)
{
	MemoryContext context = CurrentMemoryContext;
	EphemeralNamedRelation batch = palloc0(sizeof(*batch));
	List	   *lines = NIL;
	int			code;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");

	batch->md.name = PPL_BATCH_RELATION;
	batch->md.reliddesc = InvalidOid;
	batch->md.tupdesc = statement->batch_desc;
	batch->md.enrtype = ENR_NAMED_TUPLESTORE;
	batch->md.enrtuples = events;
	batch->reldata = tuplestore_begin_heap(false, false, work_mem);
	code = SPI_register_relation(batch);
	if (code != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the relation of the batch: %s",
			 SPI_result_code_string(code));

	code = SPI_execute(psprintf("EXPLAIN %s", statement->sql), false, 0);
	if (code != SPI_OK_UTILITY)
		elog(ERROR, "could not explain the statement of a pipeline: %s",
			 SPI_result_code_string(code));

	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *text = SPI_getvalue(SPI_tuptable->vals[i],
										SPI_tuptable->tupdesc, 1);
		MemoryContext spi_context = MemoryContextSwitchTo(context);

		lines = lappend(lines, pstrdup(text));
		MemoryContextSwitchTo(spi_context);
	}

	tuplestore_end(batch->reldata);
	SPI_finish();
	return lines;
}
