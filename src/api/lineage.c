/*
 * lineage.c
 *		_pipeline.lineage_unfold(): the rows in a batch's lineage.
 *
 * Runs in any backend; the views decide who may see what.  Takes no locks.
 * Key objects are built in the child context "pipeline lineage row", reset for
 * each row; the source key of an event is built once, in a second one.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/jsonapi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "worker/lineage.h"

#define UNFOLD_COLUMNS 14

typedef struct Unfold
{
	ReturnSetInfo *rsinfo;
	MemoryContext row_context;
	MemoryContext event_context;
	uint64		event;			/* of source_key */
	Jsonb	   *source_key;		/* in event_context, or NULL */
} Unfold;

static void unfold_row(const PplLineageHeader *header,
					   const PplLineageRow *row, void *arg);
static const char *reason_of(const PplLineageRow *row);
static Jsonb *key_object(int nkeys, const PplLineageColumn *columns,
						 const PplLineageValue *values);
static void set_json_value(JsonbValue *result, PplLineageKind kind,
						   const PplLineageValue *value);
static const char *operation_name(PplRecordKind operation);
static const char *outcome_name(PplLineageOutcome outcome);

PPL_FUNCTION(pipeline_lineage_unfold);

/*
 * pipeline_lineage_unfold(lineage bytea)
 *
 * One row per event and output, and per row where an event produced several.
 */
Datum
pipeline_lineage_unfold(PG_FUNCTION_ARGS)
{
	bytea	   *lineage = PG_GETARG_BYTEA_PP(0);
	Unfold		unfold = {0};

	InitMaterializedSRF(fcinfo, 0);
	unfold.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	if (unfold.rsinfo->setDesc->natts != UNFOLD_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the installed version of extension \"pipeline\" does not fit its library"),
				 errhint("Run ALTER EXTENSION pipeline UPDATE.")));

	unfold.row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "pipeline lineage row",
											   ALLOCSET_DEFAULT_SIZES);
	unfold.event_context = AllocSetContextCreate(CurrentMemoryContext,
												 "pipeline lineage source key",
												 ALLOCSET_DEFAULT_SIZES);
	ppl_lineage_decode(VARDATA_ANY(lineage), VARSIZE_ANY_EXHDR(lineage),
					   unfold_row, &unfold);
	MemoryContextDelete(unfold.row_context);
	MemoryContextDelete(unfold.event_context);
	return (Datum) 0;
}

static void
unfold_row(const PplLineageHeader *header, const PplLineageRow *row, void *arg)
{
	Unfold	   *unfold = arg;
	const PplLineageOutput *output = &header->outputs[row->output];
	MemoryContext old_context = CurrentMemoryContext;
	Datum		values[UNFOLD_COLUMNS] = {0};
	bool		nulls[UNFOLD_COLUMNS] = {0};
	const char *reason;

	if (unfold->event != row->event)
	{
		MemoryContextReset(unfold->event_context);
		MemoryContextSwitchTo(unfold->event_context);
		unfold->source_key = NULL;
		if (row->source_key != NULL)
			unfold->source_key = key_object(header->nkeys, header->keys,
											row->source_key);
		unfold->event = row->event;
	}

	MemoryContextSwitchTo(unfold->row_context);
	values[0] = LSNGetDatum(row->commit_lsn);
	values[1] = Int32GetDatum(row->seq);
	values[2] = TransactionIdGetDatum(row->xid);
	values[3] = TimestampTzGetDatum(row->committed_at);
	values[4] = ObjectIdGetDatum(header->source);
	values[5] = CStringGetTextDatum(operation_name(row->operation));
	values[6] = PointerGetDatum(unfold->source_key);
	nulls[6] = unfold->source_key == NULL;
	values[7] = CStringGetTextDatum(outcome_name(row->outcome));
	reason = reason_of(row);
	nulls[8] = reason == NULL;
	if (reason != NULL)
		values[8] = CStringGetTextDatum(reason);
	values[9] = CStringGetTextDatum(output->name);
	nulls[10] = row->output_key == NULL;
	if (row->output_key != NULL)
		values[10] = PointerGetDatum(key_object(output->nkeys, output->keys,
												row->output_key));
	values[11] = Int32GetDatum(row->part);
	values[12] = Int32GetDatum(row->attempts);
	values[13] = Int32GetDatum(row->event_part);
	tuplestore_putvalues(unfold->rsinfo->setResult, unfold->rsinfo->setDesc,
						 values, nulls);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(unfold->row_context);
}

/* Why an event ended as it did, or why a row that it produced is not there. */
static const char *
reason_of(const PplLineageRow *row)
{
	if (row->outcome != PPL_LINEAGE_PRODUCED)
		return row->reason;
	switch (row->change)
	{
		case PPL_LINEAGE_WRITTEN:
			return NULL;
		case PPL_LINEAGE_SUPERSEDED:
			return "superseded in batch";
		case PPL_LINEAGE_REMOVED:
			return "removed";
	}
	pg_unreachable();
}

/*
 * A key as a JSON object, in the current context.
 */
static Jsonb *
key_object(int nkeys, const PplLineageColumn *columns,
		   const PplLineageValue *values)
{
	JsonbParseState *state = NULL;
	JsonbValue *object;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < nkeys; i++)
	{
		JsonbValue	element;

		element.type = jbvString;
		element.val.string.val = unconstify(char *, columns[i].name);
		element.val.string.len = strlen(columns[i].name);
		pushJsonbValue(&state, WJB_KEY, &element);
		set_json_value(&element, columns[i].kind, &values[i]);
		pushJsonbValue(&state, WJB_VALUE, &element);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(object);
}

static void
set_json_value(JsonbValue *result, PplLineageKind kind,
			   const PplLineageValue *value)
{
	if (value->text == NULL)
	{
		result->type = jbvNull;
		return;
	}
	switch (kind)
	{
		case PPL_LINEAGE_NUMBER:
			if (IsValidJsonNumber(value->text, value->len))
			{
				char	   *digits = pnstrdup(value->text, value->len);

				result->type = jbvNumeric;
				result->val.numeric =
					DatumGetNumeric(DirectFunctionCall3(numeric_in,
														CStringGetDatum(digits),
														ObjectIdGetDatum(InvalidOid),
														Int32GetDatum(-1)));
				return;
			}
			break;				/* NaN and infinities */
		case PPL_LINEAGE_BOOLEAN:
			result->type = jbvBool;
			result->val.boolean = value->len > 0 && value->text[0] == 't';
			return;
		case PPL_LINEAGE_STRING:
			break;
	}
	result->type = jbvString;
	result->val.string.val = unconstify(char *, value->text);
	result->val.string.len = value->len;
}

static const char *
operation_name(PplRecordKind operation)
{
	switch (operation)
	{
		case PPL_REC_INSERT:
			return "insert";
		case PPL_REC_UPDATE:
			return "update";
		case PPL_REC_DELETE:
			return "delete";
		case PPL_REC_TRUNCATE:
			return "truncate";
		case PPL_REC_CONTROL:
		case PPL_REC_SCHEMA:
		case PPL_REC_COMMIT:
		case PPL_REC_NEXT:
			break;
	}
	elog(ERROR, "record kind %d is no operation", (int) operation);
	pg_unreachable();
}

static const char *
outcome_name(PplLineageOutcome outcome)
{
	switch (outcome)
	{
		case PPL_LINEAGE_FILTERED:
			return "filtered";
		case PPL_LINEAGE_PRODUCED:
			return "produced";
		case PPL_LINEAGE_REJECTED:
			return "rejected";
		case PPL_LINEAGE_FAILED:
			return "failed";
	}
	elog(ERROR, "outcome %d is unknown", (int) outcome);
	pg_unreachable();
}
