/*
 * render.c
 *		Rows of events as jsonb, and back.
 *
 * Runs in the batch's transaction, as the owner: casts, input and output
 * functions of user types may be called.  Each row is rendered and restored in a
 * subtransaction: not every value has a jsonb (json may have \u0000 in it), and
 * one that has none must not stand in the way of all others.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "worker/judge.h"
#include "worker/old.h"
#include "worker/render.h"
#include "worker/run.h"

/* One row or one of its columns, on its way to jsonb. */
typedef struct Rendering
{
	PplProgram *program;
	const PplEvent *event;
	bool		old;			/* its old row */
	TupleDesc	desc;
	const PplRow *row;			/* NULL if it does not fit */
	int			column;			/* from 0 */
	Bitmapset  *left_out;		/* columns that were not logged */
	JsonbValue *columns;		/* as text, or null */
	Datum		result;
} Rendering;

/* One row on its way back. */
typedef struct Restoring
{
	PplProgram *program;
	Datum		row;
	bool		partial;
	HeapTuple	tuple;
} Restoring;

/*
 * Prepare a call of a polymorphic function whose first argument has this type.
 */
static void
prepare_call(FmgrInfo *function, Oid oid, Oid result, Oid argument)
{
	fmgr_info(oid, function);
	fmgr_info_set_expr((Node *) makeFuncExpr(oid, result,
											 list_make1(makeNullConst(argument, -1, InvalidOid)),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   function);
}

/* Errors of the moment are thrown: the next attempt may do better. */
static ErrorData *
try(PplRunWork work, void *arg)
{
	ErrorData  *error = ppl_run_subtransaction(CurrentMemoryContext, true, work, arg);

	if (error != NULL && ppl_judge(error->sqlerrcode) == PPL_VERDICT_MOMENT)
		ReThrowError(error);
	return error;
}

static void
render_row(void *arg)
{
	Rendering  *rendering = arg;
	HeapTuple	tuple;
	FmgrInfo	to_jsonb;

	rendering->desc = rendering->program->source_desc;
	rendering->row = rendering->old ?
		ppl_old_row(rendering->program, rendering->event, &rendering->desc) :
		ppl_program_row(rendering->program, rendering->event);
	if (rendering->row == NULL)
		return;
	tuple = heap_form_tuple(rendering->desc, rendering->row->values,
							rendering->row->nulls);
	prepare_call(&to_jsonb, F_TO_JSONB, JSONBOID, rendering->desc->tdtypeid);
	rendering->result = FunctionCall1(&to_jsonb,
									  heap_copy_tuple_as_datum(tuple, rendering->desc));
}

/* What is no text in the server's encoding becomes question marks. */
static void
mend_encoding(char *string, int len)
{
	int			good = 0;

	for (;;)
	{
		good += pg_encoding_verifymbstr(GetDatabaseEncoding(), string + good,
										len - good);
		if (good >= len)
			break;
		string[good++] = '?';
	}
}

static void
render_column(void *arg)
{
	Rendering  *rendering = arg;
	JsonbValue *value = &rendering->columns[rendering->column];
	Oid			function;
	bool		is_varlena;
	char	   *string;

	getTypeOutputInfo(TupleDescAttr(rendering->desc, rendering->column)->atttypid,
					  &function, &is_varlena);
	string = OidOutputFunctionCall(function,
								   rendering->row->values[rendering->column]);
	value->type = jbvString;
	value->val.string.val = string;
	value->val.string.len = strlen(string);
	mend_encoding(string, value->val.string.len);
}

static void
render_object(void *arg)
{
	Rendering  *rendering = arg;
	JsonbParseState *state = NULL;
	JsonbValue *object;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < rendering->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(rendering->desc, i);
		JsonbValue	key;

		if (att->attisdropped || bms_is_member(i, rendering->left_out))
			continue;
		key.type = jbvString;
		key.val.string.val = NameStr(att->attname);
		key.val.string.len = strlen(NameStr(att->attname));
		(void) pushJsonbValue(&state, WJB_KEY, &key);
		(void) pushJsonbValue(&state, WJB_VALUE, &rendering->columns[i]);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	rendering->result = JsonbPGetDatum(JsonbValueToJsonb(object));
}

/*
 * The columns of a row as text, without those that have no text; if there is no
 * room for that, nothing.
 */
static void
render_as_text(Rendering *rendering)
{
	rendering->columns = palloc0(rendering->desc->natts * sizeof(JsonbValue));
	for (int i = 0; i < rendering->desc->natts; i++)
	{
		rendering->column = i;
		rendering->columns[i].type = jbvNull;
		if (!rendering->row->nulls[i] &&
			!TupleDescAttr(rendering->desc, i)->attisdropped)
			(void) try(render_column, rendering);
	}
	rendering->result = (Datum) 0;
	(void) try(render_object, rendering);
}

/*
 * A row of an event as jsonb.  If it has none, its columns as text; if it does not
 * fit today's row type, its columns as they were, without those that were not
 * logged.  Then *flaw says why.
 */
static Datum
render(PplProgram *program, const PplEvent *event, bool old, const char **flaw)
{
	Rendering	rendering;
	ErrorData  *error;

	memset(&rendering, 0, sizeof(rendering));
	rendering.program = program;
	rendering.event = event;
	rendering.old = old;
	error = try(render_row, &rendering);
	if (error == NULL)
		return rendering.result;
	*flaw = error->message;
	if (rendering.row == NULL)
	{
		HeapTuple	tuple = old && event->old_tuple != NULL ?
		event->old_tuple : event->tuple;

		rendering.desc = event->desc;
		rendering.left_out = ppl_row_unlogged(event->desc, tuple);
		for (int i = 0; old && i < event->desc->natts; i++)
		{
			if (!event->in_old[i])
				rendering.left_out = bms_add_member(rendering.left_out, i);
		}
		rendering.row = ppl_row_then(program->rows, event->desc, tuple);
	}
	render_as_text(&rendering);
	return rendering.result;
}

/*
 * An event as it is kept, in CurrentMemoryContext: the row that the stages see,
 * and the old one as far as it is known.
 */
PplRendered
ppl_render_event(PplProgram *program, const PplEvent *event)
{
	PplRendered rendered = {(Datum) 0, (Datum) 0, NULL};

	if (ppl_program_takes(program, event) &&
		(event->kind != PPL_REC_DELETE || ppl_old_is_whole(program, event)))
		rendered.row = render(program, event, false, &rendered.flaw);
	if (event->kind == PPL_REC_UPDATE || event->kind == PPL_REC_DELETE)
		rendered.old = render(program, event, true, &rendered.flaw);
	return rendered;
}

/*
 * The old row of an event as jsonb; 0 if there is none.  Throws whatever is wrong
 * with it.
 */
Datum
ppl_render_old(PplProgram *program, const PplEvent *event)
{
	Rendering	rendering;

	memset(&rendering, 0, sizeof(rendering));
	rendering.program = program;
	rendering.event = event;
	rendering.old = true;
	render_row(&rendering);
	return rendering.result;
}

/* What a row begins with whose other columns are left as they are. */
static Datum
row_of_nulls(TupleDesc desc)
{
	Datum	   *values = palloc0(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));

	memset(nulls, true, desc->natts * sizeof(bool));
	return heap_copy_tuple_as_datum(heap_form_tuple(desc, values, nulls), desc);
}

static void
restore_row(void *arg)
{
	Restoring  *restoring = arg;

	LOCAL_FCINFO(fcinfo, 2);
	Oid			type = restoring->program->source_desc->tdtypeid;
	FmgrInfo	populate;
	HeapTupleData tuple;
	Datum		value;

	prepare_call(&populate, F_JSONB_POPULATE_RECORD, type, type);
	InitFunctionCallInfoData(*fcinfo, &populate, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].isnull = !restoring->partial;
	fcinfo->args[0].value = restoring->partial ?
		row_of_nulls(restoring->program->source_desc) : (Datum) 0;
	fcinfo->args[1].value = restoring->row;
	fcinfo->args[1].isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "could not restore an event");

	memset(&tuple, 0, sizeof(tuple));
	tuple.t_data = DatumGetHeapTupleHeader(value);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	restoring->tuple = heap_copytuple(&tuple);
}

/*
 * A rendered row without a flaw as a tuple of today's row type; the columns that
 * a partial one does not have are null, whatever their domains say.  If it does
 * not fit, NULL and the error; without error that is thrown, which spares the
 * subtransaction.
 */
HeapTuple
ppl_render_restore(PplProgram *program, Datum row, bool partial,
				   ErrorData **error)
{
	Restoring	restoring = {program, row, partial, NULL};

	if (error == NULL)
		restore_row(&restoring);
	else
		*error = try(restore_row, &restoring);
	return restoring.tuple;
}
