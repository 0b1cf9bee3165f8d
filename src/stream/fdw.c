/*
 * fdw.c
 *		The foreign data wrapper: tables whose rows are events and nothing else.
 *
 * Runs in any backend that plans or runs a statement on a stream.  Rows go
 * to the buffer (buffer.c), whose messages are part of the transaction.  The server
 * does not check constraints of foreign tables: here they are checked.  Takes no
 * lock of its own; what is allocated belongs to the statement.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/reloptions.h"
#include "access/tableam.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "nodes/makefuncs.h"
#include "nodes/pathnodes.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "stream/buffer.h"
#include "stream/fdw.h"

PPL_FUNCTION(pipeline_stream_handler);
PPL_FUNCTION(pipeline_stream_validator);

static int	updatable(Relation rel);
static void refuse_scan(PlannerInfo *root, RelOptInfo *baserel, Oid relid);
static void begin_modify(ModifyTableState *mtstate, ResultRelInfo *info,
						 List *fdw_private, int subplan_index, int eflags);
static void begin_insert(ModifyTableState *mtstate, ResultRelInfo *info);
static TupleTableSlot *insert_row(EState *estate, ResultRelInfo *info,
								  TupleTableSlot *slot,
								  TupleTableSlot *planslot);
static void end_insert(EState *estate, ResultRelInfo *info);
static void refuse_truncate(List *rels, DropBehavior behavior,
							bool restart_seqs);
static void refuse(Oid relid, const char *what, bool reads) pg_attribute_noreturn();

/*
 * _pipeline.stream_handler()
 */
Datum
pipeline_stream_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = refuse_scan;
	routine->IsForeignRelUpdatable = updatable;
	routine->BeginForeignModify = begin_modify;
	routine->ExecForeignInsert = insert_row;
	routine->EndForeignModify = end_insert;
	routine->BeginForeignInsert = begin_insert;
	routine->EndForeignInsert = end_insert;
	routine->ExecForeignTruncate = refuse_truncate;
	PG_RETURN_POINTER(routine);
}

/*
 * _pipeline.stream_validator(options text[], catalog oid): there are none.
 */
Datum
pipeline_stream_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));

	if (options != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\"",
						((DefElem *) linitial(options))->defname),
				 errdetail("Streams have no options."),
				 errhint("Leave OPTIONS out; what is done with the rows is said of the pipelines that read them.")));
	PG_RETURN_VOID();
}

static int
updatable(Relation rel)
{
	return 1 << CMD_INSERT;
}

/* Whatever wants to read a stream is planned with its size first. */
static void
refuse_scan(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	if (!bms_is_member(baserel->relid, root->all_result_relids))
		refuse(relid, "read", true);
	refuse(relid, root->parse->commandType == CMD_DELETE ? "delete from" : "update",
		   false);
}

static void
refuse_truncate(List *rels, DropBehavior behavior, bool restart_seqs)
{
	refuse(RelationGetRelid((Relation) linitial(rels)), "truncate", false);
}

static void
refuse(Oid relid, const char *what, bool reads)
{
	const char *name = get_rel_name(relid);

	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot %s stream \"%s\"", what, name),
			 errdetail("Rows that are inserted into a stream are events for its pipelines, and are stored nowhere else."),
			 reads ?
			 errhint("Query the outputs of a pipeline over it, or declare one: SELECT pipeline.create_pipeline(..., source => %s);",
					 quote_literal_cstr(quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
																   name))) :
			 errhint("Change the outputs of its pipelines, or insert a row that says what has changed.")));
}

static void
begin_modify(ModifyTableState *mtstate, ResultRelInfo *info,
			 List *fdw_private, int subplan_index, int eflags)
{
	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
		begin_insert(mtstate, info);
}

/* Does the table run triggers after its rows? */
static bool
has_after_triggers(const TriggerDesc *triggers)
{
	return triggers != NULL &&
		(triggers->trig_insert_after_row || triggers->trig_insert_after_statement);
}

static void
begin_insert(ModifyTableState *mtstate, ResultRelInfo *info)
{
	PplInserter *inserter = palloc0(sizeof(*inserter));

	ppl_buffer_begin(inserter, RelationGetRelid(info->ri_RelationDesc));
	/* other partitions write their rows at once, too */
	inserter->row_by_row = info->ri_RootResultRelInfo != NULL ||
		has_after_triggers(info->ri_TrigDesc);
	info->ri_FdwState = inserter;
}

static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *info, TupleTableSlot *slot,
		   TupleTableSlot *planslot)
{
	Relation	rel = info->ri_RelationDesc;
	MemoryContext oldcontext;

	if (rel->rd_att->constr != NULL)
		ExecConstraints(info, slot, estate);
	/* a row that was routed here fits, unless a trigger has changed it */
	if (rel->rd_rel->relispartition &&
		(info->ri_RootResultRelInfo == NULL ||
		 (info->ri_TrigDesc != NULL && info->ri_TrigDesc->trig_insert_before_row)))
		ExecPartitionCheck(info, slot, estate, true);

	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	ppl_buffer_add(info->ri_FdwState, slot);
	MemoryContextSwitchTo(oldcontext);
	return slot;
}

static void
end_insert(EState *estate, ResultRelInfo *info)
{
	if (info->ri_FdwState != NULL)
		ppl_buffer_flush();
}

/*
 * Insert a row of all columns into a stream, as a statement would: constraints hold and
 * triggers fire, generated columns are computed, defaults are not.
 */
void
ppl_fdw_insert(Relation stream, Datum *values, bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(stream);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	MemoryContext oldcontext = MemoryContextSwitchTo(estate->es_query_cxt);
	TupleTableSlot *slot;

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(stream);
	rte->relkind = stream->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	ExecInitRangeTable(estate, list_make1(rte));
	InitResultRelInfo(info, stream, 1, NULL, 0);
	CheckValidResultRel(info, CMD_INSERT);
	/* where triggers look for it */
	estate->es_opened_result_relations = list_make1(info);
	estate->es_output_cid = GetCurrentCommandId(true);
	AfterTriggerBeginQuery();
	begin_insert(NULL, info);

	slot = ExecInitExtraTupleSlot(estate, desc, table_slot_callbacks(stream));
	memcpy(slot->tts_values, values, desc->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, desc->natts * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(stream);

	ExecBSInsertTriggers(estate, info);
	if (info->ri_TrigDesc == NULL || !info->ri_TrigDesc->trig_insert_before_row ||
		ExecBRInsertTriggers(estate, info, slot))
	{
		if (desc->constr != NULL && desc->constr->has_generated_stored)
			ExecComputeStoredGenerated(info, estate, slot, CMD_INSERT);
		(void) insert_row(estate, info, slot, NULL);
		ExecARInsertTriggers(estate, info, slot, NIL, NULL);
	}
	ExecASInsertTriggers(estate, info, NULL);
	AfterTriggerEndQuery(estate);
	end_insert(estate, info);

	MemoryContextSwitchTo(oldcontext);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}
