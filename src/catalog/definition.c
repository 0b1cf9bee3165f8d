/*
 * definition.c
 *		Read the definitions of pipelines, and lock them.
 *
 * Runs in backends, capture and workers, inside a transaction.  A definition
 * is read as a whole into CurrentMemoryContext, under the active snapshot;
 * whoever needs the latest one takes the lock of the definition first and a
 * snapshot after it.
 *
 * The rows say in which database a pipeline was started.  In any other one,
 * as after a restore from a dump or in a copy made from a template, it counts
 * as never started: its position belongs to a WAL that is not here.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"

#include "base/event.h"
#include "catalog/definition.h"
#include "catalog/names.h"
#include "catalog/sql.h"

#define PIPELINE_COLUMNS \
	" pipeline_id, name, owner::oid, source::oid, operations," \
	" lineage = 'row', search_path," \
	" coalesce(running AND system_identifier = $1 AND database = $2, false)," \
	" coalesce(born AND system_identifier = $1 AND database = $2, false)," \
	" version, slot_lsn, consistency, workers, partition_since, partition_by," \
	" partition_key, partition_chosen, settings, next_segment, former_operations," \
	" lost_segments"

/* The extension, as last looked up. */
static struct
{
	Oid			relid;			/* of the table of pipelines then */
	Oid			extension;
}			self;

static PplPipeline *load_whole(const PplSqlResult *rows);
static PplPipeline *read_pipeline(const PplSqlResult *rows, int64 row);
static void read_settings(const PplSqlResult *rows, int64 row, int column,
						  PplSettings * settings);
static void read_partitioning(const PplSqlResult *rows, int64 row,
							  PplPartitioning *partitioning);
static List *read_words(Datum array);
static uint16 read_operations(Datum array);
static List *read_numbers(Datum array);
static void load_parts(List *pipelines);
static PplPipeline *find_pipeline(List *pipelines, int pipeline_id);
static void load_stages(List *pipelines, const PplSqlArg *ids);
static PplOnError read_on_error(const char *word);
static void load_outputs(List *pipelines, const PplSqlArg *ids);
static char *last_stage_name(const PplPipeline *pipeline);
static void share_out(PplPipeline *part, const PplPipeline *pipeline);
static Oid	extension_oid(void);

/* See definition.h. */
PplPipeline *
ppl_definition_load(int pipeline_id)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg_int(pipeline_id),
	};

	return load_whole(ppl_sql_read("SELECT" PIPELINE_COLUMNS
								   " FROM " PPL_PIPELINES
								   " WHERE pipeline_id = $3",
								   lengthof(args), args));
}

/* See definition.h. */
PplPipeline *
ppl_definition_load_by_name(const char *name)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
		ppl_sql_arg_text(name),
	};

	return load_whole(ppl_sql_read("SELECT" PIPELINE_COLUMNS
								   " FROM " PPL_PIPELINES
								   " WHERE name = $3",
								   lengthof(args), args));
}

/* See definition.h. */
List *
ppl_definition_load_born(void)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(INT8OID, Int64GetDatum((int64) GetSystemIdentifier())),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(MyDatabaseId)),
	};
	PplSqlResult *rows = ppl_sql_read("SELECT" PIPELINE_COLUMNS
									  " FROM " PPL_PIPELINES
									  " WHERE born AND system_identifier = $1"
									  " AND database = $2"
									  " ORDER BY pipeline_id",
									  lengthof(args), args);
	List	   *pipelines = NIL;

	for (int64 row = 0; row < rows->nrows; row++)
		pipelines = lappend(pipelines, read_pipeline(rows, row));
	load_parts(pipelines);
	return pipelines;
}

/* See definition.h. */
List *
ppl_definition_positions(void)
{
	PplSqlResult *rows =
	ppl_sql_read("SELECT pipeline_id, segment, partition, version"
				 " FROM " PPL_CHECKPOINTS " ORDER BY 1, 2, 3", 0, NULL);
	List	   *positions = NIL;

	for (int64 row = 0; row < rows->nrows; row++)
	{
		PplPlaceVersion *position = palloc(sizeof(*position));

		position->place.pipeline_id = ppl_sql_int(rows, row, 0);
		position->place.segment = ppl_sql_int(rows, row, 1);
		position->place.partition = ppl_sql_int(rows, row, 2);
		position->version = ppl_sql_int(rows, row, 3);
		positions = lappend(positions, position);
	}
	return positions;
}

/* See definition.h. */
List *
ppl_definition_shares(const PplPipeline *pipeline)
{
	List	   *shares = NIL;
	ListCell   *lc;

	foreach(lc, ppl_definition_segments(pipeline))
	{
		PplPipeline *segment = lfirst(lc);

		for (int i = 1; i <= segment->partitioning.workers; i++)
		{
			PplShare   *share = palloc0(sizeof(*share));

			share->place.pipeline_id = pipeline->pipeline_id;
			share->place.segment = segment->segment;
			share->place.partition = i;
			share->upstream = segment->upstream;
			share->source = segment->source;
			share->operations = ppl_definition_takes(segment);
			share->workers = segment->partitioning.workers;
			shares = lappend(shares, share);
		}
	}
	return shares;
}

/* See definition.h. */
List *
ppl_definition_remaining(const List *shares, const List *positions)
{
	List	   *result = list_copy(shares);
	ListCell   *lc;

	foreach(lc, positions)
	{
		const PplPlaceVersion *position = lfirst(lc);
		const PplShare *sibling = NULL;
		bool		known = false;
		ListCell   *lc2;

		foreach(lc2, shares)
		{
			const PplShare *share = lfirst(lc2);

			known |= ppl_place_equal(share->place, position->place);
			if (share->place.pipeline_id == position->place.pipeline_id &&
				share->place.segment == position->place.segment)
				sibling = share;
		}
		if (sibling != NULL && !known)
		{
			PplShare   *share = palloc(sizeof(*share));

			*share = *sibling;
			share->place = position->place;
			result = lappend(result, share);
		}
	}
	return result;
}

/* See definition.h. */
int
ppl_definition_reached(const List *positions, PplPlace place)
{
	ListCell   *lc;

	foreach(lc, positions)
	{
		const PplPlaceVersion *position = lfirst(lc);

		if (ppl_place_equal(position->place, place))
			return position->version;
	}
	return 0;
}

/* See definition.h. */
int
ppl_definition_last_segment(const PplPipeline *pipeline)
{
	return pipeline->stages == NIL ? 1 :
		((PplStage *) llast(pipeline->stages))->segment;
}

/* See definition.h. */
char *
ppl_definition_log_name(int pipeline_id, int segment)
{
	return psprintf("log_%d_%d", pipeline_id, segment);
}

/* See definition.h. */
Oid
ppl_definition_log(int pipeline_id, int segment)
{
	return get_relname_relid(ppl_definition_log_name(pipeline_id, segment),
							 get_namespace_oid(PPL_PRIVATE_SCHEMA, false));
}

static char *
last_stage_name(const PplPipeline *pipeline)
{
	return ((PplStage *) llast(pipeline->stages))->name;
}

/* See definition.h. */
PplPipeline *
ppl_definition_segment(const PplPipeline *pipeline, int segment)
{
	PplPipeline *part = palloc(sizeof(*part));
	int			last = ppl_definition_last_segment(pipeline);
	bool		own = false;	/* of one output alone */
	bool		read = false;	/* by others */
	int			before = 0;
	ListCell   *lc;

	*part = *pipeline;
	part->segment = segment;
	part->stages = part->outputs = NIL;
	part->hands_keys = part->unordered = false;
	foreach(lc, pipeline->stages)
	{
		PplStage   *stage = lfirst(lc);

		if (stage->segment == segment)
			part->stages = lappend(part->stages, stage);
		else if (part->stages == NIL)
			before = stage->segment;
		else
			read = true;
	}
	foreach(lc, pipeline->outputs)
	{
		PplOutput  *output = lfirst(lc);

		own |= output->segment == segment;
		if (output->segment == segment ||
			(output->segment == 0 && segment == last))
			part->outputs = lappend(part->outputs, output);
		else
		{
			read |= output->segment != 0 && segment == last;
			part->hands_keys |= output->upsert;
		}
	}
	if (part->stages == NIL && !own &&
		(pipeline->stages != NIL || segment != 1 ||
		 (part->outputs == NIL && pipeline->outputs != NIL)))
		return NULL;

	part->upstream = before;
	part->hands_keys &= read && part->stages != NIL;
	if (part->upstream != 0)
	{
		part->unordered = !pipeline->partitioning.ordered;
		share_out(part, pipeline);
		part->source = ppl_definition_log(pipeline->pipeline_id, part->upstream);
	}
	if (part->stages != NIL && read)
	{
		part->hand = psprintf("(%s)", last_stage_name(part));
		part->log = ppl_definition_log(pipeline->pipeline_id, segment);
	}
	return part;
}

/*
 * A segment behind a hand-over has the workers of its first stage; one for ever, if
 * it is an isolated output.
 */
static void
share_out(PplPipeline *part, const PplPipeline *pipeline)
{
	PplPartitioning *how = &part->partitioning;
	const PplStage *first = part->stages ? linitial(part->stages) : NULL;

	memset(how, 0, sizeof(*how));
	how->ordered = first == NULL || pipeline->partitioning.ordered;
	how->workers = first ? first->workers : 1;
	if (first != NULL)
	{
		how->since = first->since;
		how->columns = first->partition_by;
		how->key = first->key;
	}
}

/* See definition.h. */
List *
ppl_definition_segments(const PplPipeline *pipeline)
{
	List	   *numbers = list_make1_int(1);
	List	   *segments = NIL;
	ListCell   *lc;

	foreach(lc, pipeline->stages)
		numbers = list_append_unique_int(numbers,
										 ((PplStage *) lfirst(lc))->segment);
	foreach(lc, pipeline->outputs)
	{
		if (((PplOutput *) lfirst(lc))->segment != 0)
			numbers = lappend_int(numbers, ((PplOutput *) lfirst(lc))->segment);
	}
	list_sort(numbers, list_int_cmp);
	foreach(lc, numbers)
	{
		PplPipeline *segment = ppl_definition_segment(pipeline, lfirst_int(lc));

		if (segment != NULL)
			segments = lappend(segments, segment);
	}
	return segments;
}

/*
 * Lock a definition until the end of the transaction.  pipeline_id 0, which
 * no pipeline has, stands for the graph of all pipelines.  The lock is on a
 * row of the table of pipelines as an object, so it is seen in pg_locks.
 *
 * Before it the extension itself is locked: DROP EXTENSION begins with that
 * lock and goes on with the tables in an order of its own, so it would run
 * into a deadlock with a batch that uses them in another one.
 */
void
ppl_definition_lock(int pipeline_id, int lockmode)
{
	LockDatabaseObject(ExtensionRelationId, extension_oid(), 0, AccessShareLock);
	LockDatabaseObject(ppl_definition_relid(), (Oid) pipeline_id, 0, lockmode);
}

/* See definition.h. */
bool
ppl_definition_try_lock(int pipeline_id)
{
	return ConditionalLockDatabaseObject(ExtensionRelationId, extension_oid(),
										 0, AccessShareLock) &&
		ConditionalLockDatabaseObject(ppl_definition_relid(),
									  (Oid) pipeline_id, 0, AccessShareLock);
}

/* OID of the extension; it comes and goes together with the table. */
static Oid
extension_oid(void)
{
	Oid			relid = ppl_definition_relid();

	if (relid != self.relid)
	{
		self.extension = get_extension_oid("pipeline", false);
		self.relid = relid;
	}
	return self.extension;
}

/*
 * OID of the table of pipelines.  A change of a definition invalidates its
 * relcache entry, which is how others hear of it.
 */
Oid
ppl_definition_relid(void)
{
	Oid			namespace = get_namespace_oid(PPL_PRIVATE_SCHEMA, false);
	Oid			relid = get_relname_relid(PPL_PIPELINES_RELNAME, namespace);

	if (!OidIsValid(relid))
		elog(ERROR, "table %s does not exist", PPL_PIPELINES);
	return relid;
}

/*
 * The kind of stage that a word stands for; false if there is none.
 */
bool
ppl_definition_kind(const char *word, PplStageKind *kind)
{
	if (strcmp(word, "validate") == 0)
		*kind = PPL_STAGE_VALIDATE;
	else if (strcmp(word, "enrich") == 0)
		*kind = PPL_STAGE_ENRICH;
	else if (strcmp(word, "transform") == 0)
		*kind = PPL_STAGE_TRANSFORM;
	else
		return false;
	return true;
}

/*
 * The operation that a word stands for, as a bit; 0 if there is none.
 */
uint16
ppl_definition_operation(const char *word)
{
	if (strcmp(word, "insert") == 0)
		return PPL_OP_INSERT;
	if (strcmp(word, "update") == 0)
		return PPL_OP_UPDATE;
	if (strcmp(word, "delete") == 0)
		return PPL_OP_DELETE;
	if (strcmp(word, "truncate") == 0)
		return PPL_OP_TRUNCATE;
	return 0;
}

static PplPipeline *
load_whole(const PplSqlResult *rows)
{
	PplPipeline *pipeline;

	if (rows->nrows == 0)
		return NULL;
	pipeline = read_pipeline(rows, 0);
	load_parts(list_make1(pipeline));
	return pipeline;
}

/* The stages and outputs of pipelines, which are in the order of their numbers. */
static void
load_parts(List *pipelines)
{
	PplSqlArg  *ids = palloc((list_length(pipelines) + 1) * sizeof(PplSqlArg));
	PplSqlArg	arg;
	ListCell   *lc;

	if (pipelines == NIL)
		return;
	foreach(lc, pipelines)
		ids[foreach_current_index(lc)] =
		ppl_sql_arg_int(((PplPipeline *) lfirst(lc))->pipeline_id);
	arg = ppl_sql_arg_array(ids, list_length(pipelines));
	load_stages(pipelines, &arg);
	load_outputs(pipelines, &arg);
}

static PplPipeline *
find_pipeline(List *pipelines, int pipeline_id)
{
	int			low = 0;
	int			high = list_length(pipelines) - 1;

	while (low <= high)
	{
		int			middle = (low + high) / 2;
		PplPipeline *pipeline = list_nth(pipelines, middle);

		if (pipeline->pipeline_id == pipeline_id)
			return pipeline;
		if (pipeline->pipeline_id < pipeline_id)
			low = middle + 1;
		else
			high = middle - 1;
	}
	elog(ERROR, "pipeline %d was not asked for", pipeline_id);
	pg_unreachable();
}

static PplPipeline *
read_pipeline(const PplSqlResult *rows, int64 row)
{
	PplPipeline *pipeline = palloc0(sizeof(*pipeline));

	pipeline->pipeline_id = ppl_sql_int(rows, row, 0);
	pipeline->name = ppl_sql_text(rows, row, 1);
	pipeline->owner = ppl_sql_oid(rows, row, 2);
	pipeline->source = ppl_sql_oid(rows, row, 3);
	pipeline->origin = pipeline->source;
	pipeline->operations = read_operations(ppl_sql_value(rows, row, 4));
	pipeline->lineage = ppl_sql_bool(rows, row, 5);
	pipeline->search_path = ppl_sql_text(rows, row, 6);
	pipeline->running = ppl_sql_bool(rows, row, 7);
	pipeline->born = ppl_sql_bool(rows, row, 8);
	if (!ppl_sql_isnull(rows, row, 10))
		pipeline->slot_lsn = DatumGetLSN(ppl_sql_value(rows, row, 10));
	pipeline->version = ppl_sql_int(rows, row, 9);
	pipeline->consistency = ppl_sql_text(rows, row, 11);
	read_partitioning(rows, row, &pipeline->partitioning);
	read_settings(rows, row, 17, &pipeline->settings);
	pipeline->next_segment = ppl_sql_int(rows, row, 18);
	pipeline->former = read_numbers(ppl_sql_value(rows, row, 19));
	pipeline->lost = read_numbers(ppl_sql_value(rows, row, 20));
	return pipeline;
}

static void
read_settings(const PplSqlResult *rows, int64 row, int column,
			  PplSettings * settings)
{
	if (!ppl_sql_isnull(rows, row, column))
		ppl_setting_parse(DatumGetJsonbP(ppl_sql_value(rows, row, column)),
						  settings);
}

/* See definition.h. */
int
ppl_definition_setting(const PplPipeline *pipeline, PplSetting setting)
{
	const PplStage *first = pipeline->stages ? linitial(pipeline->stages) : NULL;

	if (first != NULL && first->settings.values[setting] != 0)
		return first->settings.values[setting];
	return pipeline->settings.values[setting];
}

static void
read_partitioning(const PplSqlResult *rows, int64 row,
				  PplPartitioning *partitioning)
{
	partitioning->ordered = strcmp(ppl_sql_text(rows, row, 11), "strong") == 0;
	partitioning->workers = ppl_sql_int(rows, row, 12);
	partitioning->since = ppl_sql_int(rows, row, 13);
	if (!ppl_sql_isnull(rows, row, 14))
		partitioning->columns = read_words(ppl_sql_value(rows, row, 14));
	if (!ppl_sql_isnull(rows, row, 15))
		partitioning->key = read_words(ppl_sql_value(rows, row, 15));
	partitioning->chosen = ppl_sql_bool(rows, row, 16);
}

/* The elements of a text[], as char *. */
static List *
read_words(Datum array)
{
	Datum	   *elements;
	int			nelements;
	List	   *words = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &nelements);
	for (int i = 0; i < nelements; i++)
		words = lappend(words, TextDatumGetCString(elements[i]));
	return words;
}

static uint16
read_operations(Datum array)
{
	ListCell   *lc;
	uint16		operations = 0;

	foreach(lc, read_words(array))
		operations |= ppl_definition_operation(lfirst(lc));
	return operations;
}

/* The elements of an int[]. */
static List *
read_numbers(Datum array)
{
	Datum	   *elements;
	int			nelements;
	List	   *numbers = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), INT4OID, sizeof(int32), true,
					  TYPALIGN_INT, &elements, NULL, &nelements);
	for (int i = 0; i < nelements; i++)
		numbers = lappend_int(numbers, DatumGetInt32(elements[i]));
	return numbers;
}

/* See definition.h. */
uint16
ppl_definition_operations_at(const PplPipeline *pipeline, int version)
{
	for (int i = 0; i < list_length(pipeline->former); i += 2)
	{
		if (version < list_nth_int(pipeline->former, i))
			return list_nth_int(pipeline->former, i + 1);
	}
	return pipeline->operations;
}

/* See definition.h. */
uint16
ppl_definition_operations_since(const PplPipeline *pipeline, int version)
{
	uint16		operations = pipeline->operations;

	for (int i = 0; i < list_length(pipeline->former); i += 2)
	{
		if (version < list_nth_int(pipeline->former, i))
			operations |= list_nth_int(pipeline->former, i + 1);
	}
	return operations;
}

/* See definition.h. */
uint16
ppl_definition_operations_always(const PplPipeline *pipeline)
{
	uint16		operations = pipeline->operations;

	for (int i = 0; i < list_length(pipeline->former); i += 2)
		operations &= list_nth_int(pipeline->former, i + 1);
	return operations;
}

/* See definition.h. */
uint16
ppl_definition_takes(const PplPipeline *segment)
{
	return segment->upstream == 0 ? segment->operations : PPL_OP_ALL;
}

static void
load_stages(List *pipelines, const PplSqlArg *ids)
{
	PplSqlResult *rows = ppl_sql_read("SELECT stage_id, name, kind, handler, query,"
									  " on_error, max_attempts, version,"
									  " coalesce(ceil(extract(epoch FROM timeout) * 1000), 0)::int,"
									  " segment, pipeline_id,"
									  " (SELECT v.body_md5 FROM " PPL_STAGE_VERSIONS " v"
									  "  WHERE v.pipeline_id = s.pipeline_id"
									  "  AND v.stage_id = s.stage_id AND v.until IS NULL), settings,"
									  " workers, partition_since, partition_by, partition_key"
									  " FROM " PPL_STAGES " s"
									  " WHERE pipeline_id = ANY ($1)"
									  " ORDER BY pipeline_id, position",
									  1, ids);

	for (int64 row = 0; row < rows->nrows; row++)
	{
		PplPipeline *pipeline = find_pipeline(pipelines, ppl_sql_int(rows, row, 10));
		PplStage   *stage = palloc0(sizeof(*stage));

		stage->stage_id = ppl_sql_int(rows, row, 0);
		stage->name = ppl_sql_text(rows, row, 1);
		if (!ppl_definition_kind(ppl_sql_text(rows, row, 2), &stage->kind))
			elog(ERROR, "unexpected kind of stage %d", stage->stage_id);
		stage->handler = ppl_sql_text(rows, row, 3);
		stage->query = ppl_sql_text(rows, row, 4);
		stage->on_error = read_on_error(ppl_sql_text(rows, row, 5));
		stage->max_attempts = ppl_sql_int(rows, row, 6);
		stage->version = ppl_sql_int(rows, row, 7);
		stage->timeout = ppl_sql_int(rows, row, 8);
		stage->segment = ppl_sql_int(rows, row, 9);
		stage->body_md5 = ppl_sql_text(rows, row, 11);
		read_settings(rows, row, 12, &stage->settings);
		stage->workers = ppl_sql_int(rows, row, 13);
		stage->since = ppl_sql_int(rows, row, 14);
		if (!ppl_sql_isnull(rows, row, 15))
			stage->partition_by = read_words(ppl_sql_value(rows, row, 15));
		if (!ppl_sql_isnull(rows, row, 16))
			stage->key = read_words(ppl_sql_value(rows, row, 16));
		pipeline->stages = lappend(pipeline->stages, stage);
	}
}

static PplOnError
read_on_error(const char *word)
{
	if (strcmp(word, "halt") == 0)
		return PPL_ON_ERROR_HALT;
	if (strcmp(word, "skip") == 0)
		return PPL_ON_ERROR_SKIP;
	return PPL_ON_ERROR_DEAD_LETTER;
}

static void
load_outputs(List *pipelines, const PplSqlArg *ids)
{
	PplSqlResult *rows = ppl_sql_read("SELECT output_id, name, target::oid,"
									  " transform, since, target_name, mode = 'upsert', key,"
									  " keeps, source_key, coalesce(segment, 0), pipeline_id"
									  " FROM " PPL_OUTPUTS
									  " WHERE pipeline_id = ANY ($1)"
									  " ORDER BY pipeline_id, output_id",
									  1, ids);

	for (int64 row = 0; row < rows->nrows; row++)
	{
		PplPipeline *pipeline = find_pipeline(pipelines, ppl_sql_int(rows, row, 11));
		PplOutput  *output = palloc0(sizeof(*output));

		output->output_id = ppl_sql_int(rows, row, 0);
		output->name = ppl_sql_text(rows, row, 1);
		output->target = ppl_sql_oid(rows, row, 2);
		output->transform = ppl_sql_text(rows, row, 3);
		output->since = ppl_sql_int(rows, row, 4);
		output->target_name = ppl_sql_text(rows, row, 5);
		output->upsert = ppl_sql_bool(rows, row, 6);
		if (!ppl_sql_isnull(rows, row, 7))
			output->key = read_words(ppl_sql_value(rows, row, 7));
		output->keeps = ppl_sql_bool(rows, row, 8);
		if (!ppl_sql_isnull(rows, row, 9))
			output->source_key = read_words(ppl_sql_value(rows, row, 9));
		output->segment = ppl_sql_int(rows, row, 10);
		pipeline->outputs = lappend(pipeline->outputs, output);
	}
}
