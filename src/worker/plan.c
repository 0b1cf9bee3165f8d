/*
 * plan.c
 *		A definition, ready to run: compiled, with its saved plans.
 *
 * Runs in a worker, inside the batch's transaction, as the owner.  Two plans
 * are kept, since the number of rows of the batch's relation is an estimate
 * that is frozen when a statement is prepared: what is best for ten events
 * (index probes) is not for ten thousand (hash joins).
 *
 * A change of the definition, of its tables or of any function makes the program
 * stale; it is loaded anew before the next batch.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "storage/lmgr.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/failpoint.h"
#include "base/guc.h"
#include "base/mark.h"
#include "base/process.h"
#include "catalog/adopt.h"
#include "catalog/layout.h"
#include "catalog/own.h"
#include "worker/hand.h"
#include "worker/old.h"
#include "worker/outcome.h"
#include "worker/plan.h"
#include "worker/session.h"

#define PPL_SMALL_ROWS	10
#define PPL_LARGE_ROWS	10000
#define PPL_SWITCH_ROWS 2000	/* from here on the large plan */

/* State of this worker. */
static struct
{
	bool		stale;
	bool		changed;		/* any object, since last asked */
	bool		redefined;		/* any pipeline, since last asked */
	Oid			definitions;	/* the relation that stands for them all */
	List	   *watched;		/* OIDs of relations, in TopMemoryContext */
}			self = {true, false, true, InvalidOid, NIL};

static void
relcache_callback(Datum arg, Oid relid)
{
	self.changed = true;
	if (!OidIsValid(relid) || relid == self.definitions)
		self.redefined = true;
	if (!OidIsValid(relid) || list_member_oid(self.watched, relid))
		self.stale = true;
}

static void
syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	self.changed = true;
	if (cacheid == PROCOID)
		self.stale = true;
}

/*
 * Have changes of the catalogs make programs stale.  Once a process.
 */
void
ppl_program_watch(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, syscache_callback, (Datum) 0);
}

/* Changes of what a program was made of make it stale. */
static void
watch_relations(const PplProgram *program)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	list_free(self.watched);
	self.watched = lappend_oid(list_copy(program->statement->relids),
							   ppl_definition_relid());
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Must the program be loaded anew?  The caller holds the definition's lock, so
 * that the answer lasts until it releases that.
 */
bool
ppl_program_is_stale(void)
{
	return self.stale;
}

/*
 * Did any table, function, type, schema or role change since the last call?
 */
bool
ppl_program_objects_changed(void)
{
	bool		changed = self.changed;

	self.changed = false;
	return changed;
}

/*
 * Did the definition of any pipeline change since the last call?
 */
bool
ppl_program_redefined(void)
{
	bool		redefined = self.redefined;

	self.redefined = false;
	return redefined;
}

/*
 * From now on changes of definitions are seen.
 */
void
ppl_program_watch_definitions(void)
{
	self.definitions = ppl_definition_relid();
}

/*
 * Is a relation that a program depends on locked by its batches?  Not the row types
 * of what is handed over: nothing but rows in the log has them, and a segment shall
 * not wait for those behind it.
 */
static bool
is_locked(const PplProgram *program, Oid relid)
{
	return program == NULL ||
		(relid != program->pipeline->log &&
		 (relid != program->pipeline->source || program->pipeline->upstream == 0));
}

/*
 * Keep what a batch reads and writes as it is until the transaction ends: rows
 * are made by layouts that are known now.  Nothing is waited for, since a
 * transaction that changes one table may need another one, or the definition,
 * next; *busy is what could not be had, and false the result.  Without a
 * program, only the source.
 */
bool
ppl_program_lock(const PplProgram *program, Oid source, PplBusy *busy)
{
	PplStatement *statement = program ? program->statement : NULL;
	List	   *relids = program ? statement->relids : list_make1_oid(source);
	ListCell   *lc;

	for (int i = 0; program && i < statement->noutputs; i++)
	{
		busy->relid = statement->outputs[i]->target;
		busy->lockmode = RowExclusiveLock;
		if (!ConditionalLockRelationOid(busy->relid, busy->lockmode))
			return false;
	}
	foreach(lc, relids)
	{
		busy->relid = lfirst_oid(lc);
		busy->lockmode = AccessShareLock;
		if (!is_locked(program, busy->relid))
			continue;
		if (!ConditionalLockRelationOid(busy->relid, busy->lockmode))
			return false;
	}
	busy->relid = InvalidOid;
	return true;
}

/*
 * A transaction is about to write outputs: does it mark the rows?  Not while a
 * pipeline is being started over one of the targets, nor if one was since the
 * program was loaded.  The targets are locked as ppl_program_lock does.
 */
void
ppl_program_begin(PplProgram *program)
{
	const PplStatement *statement = program->statement;

	program->marking = statement->marks;
	for (int i = 0; program->marking && i < statement->noutputs; i++)
		program->marking = ppl_own_try_lock(statement->outputs[i]->target);
	program->marking &= !self.stale;
}

/* Note the source's row type and primary key; it stays locked. */
static void
load_source(PplProgram *program)
{
	Relation	source = try_relation_open(program->pipeline->source, AccessShareLock);
	Oid			pkey;
	PplSqlResult *missing;

	if (source == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the source of pipeline \"%s\" does not exist any more",
						program->pipeline->name),
				 errhint("SELECT pipeline.drop_pipeline(%s);",
						 quote_literal_cstr(program->pipeline->name))));
	pkey = RelationGetPrimaryKeyIndex(source);
	program->source_desc = CreateTupleDescCopyConstr(RelationGetDescr(source));
	program->rows = ppl_row_mapper_create(program->source_desc);
	if (program->pipeline->upstream != 0)
	{
		/* nobody waits for a batch to change the type of the log */
		relation_close(source, AccessShareLock);
		return;
	}
	missing = ppl_layout_missing(program->pipeline->pipeline_id);
	for (int64 row = 0; row < missing->nrows; row++)
		ppl_row_mapper_keep(program->rows, ppl_sql_int(missing, row, 0),
							ppl_sql_oid(missing, row, 1),
							ppl_sql_int(missing, row, 2),
							ppl_sql_text(missing, row, 3));
	if (OidIsValid(pkey))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(pkey));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for index %u", pkey);
		index = (Form_pg_index) GETSTRUCT(tuple);
		program->nkeys = index->indnkeyatts;
		program->key_attnums = palloc(program->nkeys * sizeof(AttrNumber));
		for (int i = 0; i < program->nkeys; i++)
		{
			program->key_attnums[i] = index->indkey.values[i];
			program->primary_key = bms_add_member(program->primary_key,
												  index->indkey.values[i]);
		}
		ReleaseSysCache(tuple);
	}
	relation_close(source, NoLock);
}

/* What is kept of source rows is found by the key that it was kept by, only. */
static void
check_source_key(const PplProgram *program, const PplOutput *output)
{
	const PplPipeline *pipeline = program->pipeline;
	List	   *words = ppl_key_words(program->source_key);
	bool		same = list_length(words) == list_length(output->source_key);

	for (int i = 0; same && i < list_length(words); i++)
		same = strcmp(list_nth(words, i), list_nth(output->source_key, i)) == 0;
	if (same)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the key of the source is not the one by which output \"%s\" keeps what rows produced",
					output->name),
			 errdetail("What rows produced up to now would never be removed."),
			 errhint("Restore the primary key and the replica identity of the source as they were; or SELECT pipeline.drop_output(%s, %s); and add the output again, over an empty table.",
					 quote_literal_cstr(pipeline->name),
					 quote_literal_cstr(output->name))));
}

/*
 * Prepare what outputs of mode upsert, here or behind, need to know of keys.  What is
 * handed over to a segment has the digests of the source's with it.
 */
static void
load_upserts(PplProgram *program)
{
	PplStatement *statement = program->statement;
	Relation	source;

	program->upserts = palloc0((statement->noutputs + 1) * sizeof(PplProgramUpsert));
	if (!statement->keyed)
		return;
	source = table_open(program->pipeline->origin, AccessShareLock);
	program->source_key = ppl_key_of_source(source);
	if (program->source_key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the rows of source \"%s\" cannot be told apart",
						RelationGetRelationName(source)),
				 errdetail("An output of mode upsert needs a primary key of the source, or a unique index over NOT NULL columns as its replica identity."),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...);",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(source)),
													RelationGetRelationName(source)))));
	table_close(source, NoLock);
	program->source_digester = ppl_digester_make(program->source_key);
	for (int i = 0; i < program->source_key->ncolumns; i++)
		program->key_columns = bms_add_member(program->key_columns,
											  program->source_key->columns[i].attnum);
	for (int i = 0; i < statement->noutputs; i++)
	{
		const PplUpsert *upsert = statement->upserts[i];

		if (upsert == NULL)
			continue;
		if (upsert->output->keeps)
			check_source_key(program, upsert->output);
		program->upserts[i].target_digester =
			ppl_digester_make(upsert->target->upsert);
		for (int j = 0; upsert->derived && j < upsert->target->upsert->ncolumns; j++)
			program->key_columns = bms_add_member(program->key_columns,
												  upsert->derived[j]);
	}
}

/*
 * What a stage runs, as the table has it and as this process would call it: a commit
 * is seen in the table a moment before the caches hear of it.
 */
static PplBody *
current_body(const PplPipeline *pipeline, const PplStage *stage)
{
	for (;;)
	{
		PplBody    *body = ppl_version_body(pipeline, stage->handler, stage->query);

		if (ppl_version_holds(body))
			return body;
		ppl_process_check();
		AcceptInvalidationMessages();
	}
}

/* What the stages run now, and whether that is what they are said to run. */
static void
load_bodies(PplProgram *program)
{
	List	   *stages = program->pipeline->stages;

	program->nbodies = list_length(stages);
	program->bodies = palloc0((program->nbodies + 1) * sizeof(PplBody *));
	for (int i = 0; i < program->nbodies; i++)
	{
		const PplStage *stage = list_nth(stages, i);

		program->bodies[i] = current_body(program->pipeline, stage);
		program->replaced |= stage->body_md5 == NULL ||
			strcmp(stage->body_md5, program->bodies[i]->md5) != 0;
	}
}

/*
 * Did all that ran since the program was loaded run the code that it was loaded
 * with?  A function may be replaced while a batch calls it.
 */
bool
ppl_program_holds(const PplProgram *program)
{
	for (int i = 0; i < program->nbodies; i++)
	{
		if (!ppl_version_holds(program->bodies[i]))
			return false;
	}
	return true;
}

/*
 * Load and compile a definition for events that see version; it lives below
 * parent, but only once it is complete.  Returns NULL if the definition is
 * gone.  Errors: all that ppl_compile says of a definition that does not fit
 * its objects any more; 42P01 if the source is gone.
 */
PplProgram *
ppl_program_load(MemoryContext parent, PplPlace place, int version)
{
	MemoryContext context = AllocSetContextCreate(CurTransactionContext,
												  "pipeline program",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	PplProgram *program = palloc0(sizeof(*program));
	PplPipeline *pipeline;

	/*
	 * plpgsql goes on with the types that fields of rows had when it saw them
	 * first, unless its plans are made anew.
	 */
	ResetPlanCache();
	self.stale = false;
	program->context = context;
	program->version = version;
	pipeline = ppl_definition_load(place.pipeline_id);
	if (pipeline != NULL)
		program->pipeline = ppl_definition_segment(pipeline, place.segment);
	if (program->pipeline != NULL)
	{
		program->pipeline->reached =
			ppl_definition_operations_at(program->pipeline, version);
		ppl_session_search_path(program->pipeline->search_path);
		load_source(program);
		ppl_partition_require(program->pipeline,
							  ppl_partition_make(program->pipeline));
		PPL_FAILPOINT("worker-before-compile");
		program->adopted = ppl_adopt_targets(program->pipeline);
		program->statement = ppl_compile(program->pipeline, version, true);
		program->stage_plans = palloc0((program->statement->nstages + 1) *
									   sizeof(SPIPlanPtr));
		load_upserts(program);
		ppl_hand_load(program);
		load_bodies(program);
		watch_relations(program);
		MemoryContextSetParent(context, parent);
	}
	MemoryContextSwitchTo(oldcontext);
	return program->pipeline ? program : NULL;
}

static void
free_plan(SPIPlanPtr plan)
{
	if (plan != NULL)
		SPI_freeplan(plan);
}

/*
 * Free a program and its plans; NULL is allowed.
 */
void
ppl_program_free(PplProgram *program)
{
	if (program == NULL)
		return;
	free_plan(program->small_plan);
	free_plan(program->large_plan);
	for (int i = 1; i <= program->statement->nstages; i++)
		free_plan(program->stage_plans[i]);
	for (int i = 0; i < program->statement->noutputs; i++)
	{
		free_plan(program->upserts[i].remove_plan);
		free_plan(program->upserts[i].insert_plan);
		free_plan(program->upserts[i].clear_plan);
	}
	MemoryContextDelete(program->context);
}

/*
 * Do the stages run over an event?  Over the new row of an insert or update, and
 * over the old one of a delete if an output takes it.
 */
bool
ppl_program_takes(const PplProgram *program, const PplEvent *event)
{
	if (event->concern != PPL_CONCERN_ALL || event->tuple == NULL ||
		(event->superseded && !program->statement->has_appends &&
		 program->statement->hand == NULL))
		return false;
	return event->kind == PPL_REC_INSERT || event->kind == PPL_REC_UPDATE ||
		(event->kind == PPL_REC_DELETE && program->statement->takes_deletes);
}

/*
 * The row that stages see, under today's row type; valid until the next call.
 * Errors: see ppl_row_today.
 */
const PplRow *
ppl_program_row(PplProgram *program, const PplEvent *event)
{
	return ppl_row_today(program->rows, event->desc, event->tuple, NULL);
}

/*
 * The same of one of an event's tuples, with the columns alone that keys of source
 * and outputs are made of: what else there is need neither be known nor fit.
 */
const PplRow *
ppl_program_key_row(PplProgram *program, const PplEvent *event, HeapTuple tuple)
{
	return ppl_row_today(program->rows, event->desc, tuple, program->key_columns);
}

/*
 * A tuplestore for rows of a batch.  It stays in memory, as their size is limited
 * by batch_bytes: a temporary file would be on the disk that the spool may have
 * filled, which then nobody empties.
 */
Tuplestorestate *
ppl_program_store(void)
{
	return tuplestore_begin_heap(false, false,
								 Max(work_mem, Min(ppl_guc_batch_bytes, MAX_KILOBYTES / 4) * 4));
}

/*
 * Put the events first to last into a tuplestore of the batch's relation.
 */
static Tuplestorestate *
fill_store(PplProgram *program, const PplBatch *batch, int first, int last,
		   bool (*skip) (int ordinal))
{
	Tuplestorestate *store = ppl_program_store();
	TupleDesc	desc = program->statement->batch_desc;
	TupleDesc	today = program->source_desc;
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc0(desc->natts * sizeof(bool));

	for (int ordinal = first; ordinal <= last; ordinal++)
	{
		const PplEvent *event = &batch->events[ordinal - 1];
		const PplRow *row;
		int			column = 1;

		if (!ppl_program_takes(program, event) || (skip && skip(ordinal)))
			continue;
		if (event->kind == PPL_REC_DELETE)
			ppl_old_require_whole(program, event);
		ppl_outcome_unpack(ordinal);
		row = ppl_program_row(program, event);
		values[0] = Int32GetDatum(ordinal);
		for (int i = 0; i < today->natts; i++)
		{
			if (TupleDescAttr(today, i)->attisdropped)
				continue;
			values[column] = row->values[i];
			nulls[column] = row->nulls[i];
			column++;
		}
		Assert(column == desc->natts);
		tuplestore_putvalues(store, desc, values, nulls);
	}
	ppl_outcome_unpack(0);
	pfree(values);
	pfree(nulls);
	return store;
}

static SPIPlanPtr
prepare(PplProgram *program, const char *sql)
{
	Oid			types[] = {INT8OID};
	SPIPlanPtr	plan = SPI_prepare_cursor(sql, program->statement->marks ? 1 : 0,
										  types, CURSOR_OPT_GENERIC_PLAN);

	if (plan == NULL)
		elog(ERROR, "could not prepare the statement of pipeline \"%s\": %s",
			 program->pipeline->name, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

/*
 * The value of $1, by which rows are marked; NULL if the statement has none.
 */
static ParamListInfo
mark_parameter(const PplProgram *program)
{
	ParamListInfo list;

	if (!program->statement->marks)
		return NULL;
	list = makeParamList(1);
	list->params[0].value = Int64GetDatum(program->marking ? ppl_mark_key() : 0);
	list->params[0].isnull = false;
	list->params[0].pflags = PARAM_FLAG_CONST;
	list->params[0].ptype = INT8OID;
	return list;
}

/*
 * Something changed while rows were marked, though a lock is held on each target:
 * CREATE INDEX CONCURRENTLY has the executor look at an index before it waits, and
 * a handler may come to return another type.  If these rows would not be marked
 * today, they must not be: error 40001, and the batch is run again.
 */
static void
check_marks(const PplProgram *program)
{
	if (!ppl_compile(program->pipeline, program->version, true)->marks)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a target of pipeline \"%s\" was changed while it was written",
						program->pipeline->name)));
}

/*
 * The last row was made; what may still fail are triggers at the end of the
 * statement, and no event is to be suspected for them.
 */
static void
rows_done(DestReceiver *receiver)
{
	ppl_outcome_clear_current();
}

/*
 * Run a statement over a relation whose rows are in a tuplestore, which is ended.
 * *plan is kept, and made if it is NULL, for so many rows.
 */
void
ppl_program_execute(PplProgram *program, SPIPlanPtr *plan, const char *sql,
					const char *relation, TupleDesc desc,
					Tuplestorestate *store, int estimate)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	DestReceiver receiver = *CreateDestReceiver(DestNone);
	SPIExecuteOptions options;
	int			result;

	receiver.rShutdown = rows_done;
	enr->md.name = unconstify(char *, relation);
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = estimate;
	enr->reldata = store;

	SPI_connect();
	if (SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the relation of the batch");
	if (*plan == NULL)
		*plan = prepare(program, sql);
	memset(&options, 0, sizeof(options));
	options.dest = &receiver;
	options.params = mark_parameter(program);
	result = SPI_execute_plan_extended(*plan, &options);
	if (result < 0)
		elog(ERROR, "could not run the statement of pipeline \"%s\": %s",
			 program->pipeline->name, SPI_result_code_string(result));
	SPI_finish();
	tuplestore_end(store);
	if (program->marking && self.stale)
		check_marks(program);
}

/*
 * A context for what one run needs, which also goes away with a subtransaction
 * that is rolled back: there may be thousands in one batch.
 */
static MemoryContext
begin_run(void)
{
	return MemoryContextSwitchTo(AllocSetContextCreate(CurTransactionContext,
													   "pipeline run",
													   ALLOCSET_DEFAULT_SIZES));
}

static void
end_run(MemoryContext oldcontext)
{
	MemoryContext context = MemoryContextSwitchTo(oldcontext);

	MemoryContextDelete(context);
}

/*
 * Run the statement over the events first to last (ordinals), without those
 * that skip() names.  Needs a transaction with an active snapshot; throws what
 * the statement throws.
 */
void
ppl_program_run(PplProgram *program, const PplBatch *batch, int first, int last,
				bool (*skip) (int ordinal))
{
	bool		large = last - first + 1 >= PPL_SWITCH_ROWS;
	MemoryContext oldcontext = begin_run();

	ppl_program_execute(program,
						large ? &program->large_plan : &program->small_plan,
						program->statement->sql, PPL_BATCH_RELATION,
						program->statement->batch_desc,
						fill_store(program, batch, first, last, skip),
						large ? PPL_LARGE_ROWS : PPL_SMALL_ROWS);
	end_run(oldcontext);
}

/*
 * Run only the first stages over one event, and nothing of the outputs.
 */
void
ppl_program_run_stages(PplProgram *program, const PplBatch *batch, int ordinal,
					   int nstages)
{
	MemoryContext oldcontext = begin_run();

	ppl_program_execute(program, &program->stage_plans[nstages],
						program->statement->stages_sql[nstages],
						PPL_BATCH_RELATION, program->statement->batch_desc,
						fill_store(program, batch, ordinal, ordinal, NULL), 1);
	end_run(oldcontext);
}

/*
 * Leave of an error what is said of it later, since thousands may be kept until
 * the end of a batch: its context without the statement of the batch and the
 * line that introduces it, which would be the same long text in each.
 */
void
ppl_program_trim_error(const PplProgram *program, ErrorData *error)
{
	char	   *context = error->context;
	char	   *statement;

	if (error->internalquery)
		pfree(error->internalquery);
	error->internalquery = NULL;
	if (context == NULL ||
		(statement = strstr(context, program->statement->sql)) == NULL)
		return;
	while (statement > context && statement[-1] != '\n')
		statement--;
	error->context = statement - 1 > context ?
		pnstrdup(context, statement - 1 - context) : NULL;
	pfree(context);
}
