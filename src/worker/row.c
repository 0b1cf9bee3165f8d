/*
 * row.c
 *		Rows of events under the layout that the source has today.
 *
 * Runs in a worker, inside the batch's transaction, as the owner.  An event was
 * written under the layout that its table had at the command that made it; the
 * stages see the row type of today.  Columns are matched by attribute number,
 * which never changes hands: what was dropped since is gone, what was added since
 * takes what the table shows in its older rows, what has another type since is
 * converted as in an assignment.
 *
 * What a layout needs is worked out once and kept: "pipeline row" has the
 * expressions, below it "pipeline row values" the values of one row.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "worker/row.h"
#include "worker/session.h"

#define PPL_LAYOUTS 8			/* whose conversions are kept */

/* A column whose value is not simply that of the event. */
typedef struct Column
{
	int			index;			/* from 0 */
	bool		absent;			/* from the event, or from today's row */
	bool		lost;			/* its type of then is gone */
	const char *missing;		/* instead of the event's value */
	ExprState  *convert;
	Form_pg_attribute then;		/* NULL if absent */
	Form_pg_attribute today;
} Column;

/* From one layout of events to that of today. */
typedef struct Layout
{
	TupleDesc	then;			/* lives as long as the worker */
	MemoryContext context;
	ExprContext *econtext;
	int			ncolumns;
	Column	   *columns;
} Layout;

/* What older rows have in a column, though today's layout does not say so. */
typedef struct Kept
{
	const char *missing;		/* NULL = nothing; as an array of one */
	Oid			type;
	int32		typmod;
} Kept;

struct PplRowMapper
{
	MemoryContext context;
	MemoryContext values;		/* of the last row */
	TupleDesc	today;
	PplRow		row;
	Kept	   *kept;			/* by column */
	Layout	   *layouts[PPL_LAYOUTS];
	int			next;			/* to be replaced */
};

static Layout *find_layout(PplRowMapper *mapper, TupleDesc then);
static Layout *make_layout(PplRowMapper *mapper, TupleDesc then);
static Node *conversion(Form_pg_attribute then, Form_pg_attribute today);
static void deform(PplRowMapper *mapper, TupleDesc then, HeapTuple tuple);
static bool is_unlogged(Form_pg_attribute att, Datum value, bool isnull);
static void refuse_unlogged(PplRowMapper *mapper, TupleDesc then,
							const Bitmapset *columns);
static void convert_column(PplRowMapper *mapper, Layout *layout,
						   const Column *column);

/*
 * What makes rows of today's layout, in CurrentMemoryContext, where today must
 * be, too.
 */
PplRowMapper *
ppl_row_mapper_create(TupleDesc today)
{
	PplRowMapper *mapper = palloc0(sizeof(*mapper));

	mapper->context = AllocSetContextCreate(CurrentMemoryContext, "pipeline row",
											ALLOCSET_DEFAULT_SIZES);
	mapper->values = AllocSetContextCreate(mapper->context, "pipeline row values",
										   ALLOCSET_DEFAULT_SIZES);
	mapper->today = today;
	mapper->row.values = palloc0(today->natts * sizeof(Datum));
	mapper->row.nulls = palloc0(today->natts * sizeof(bool));
	mapper->kept = palloc0(today->natts * sizeof(Kept));
	return mapper;
}

/*
 * Rows from before a column was added have this value, an array of one element of
 * this type, in text form.  The table has forgotten it if it was rewritten since.
 */
void
ppl_row_mapper_keep(PplRowMapper *mapper, AttrNumber attnum, Oid type,
					int32 typmod, const char *missing)
{
	Kept	   *kept = &mapper->kept[attnum - 1];

	if (attnum > mapper->today->natts ||
		TupleDescAttr(mapper->today, attnum - 1)->atthasmissing)
		return;
	kept->missing = missing;
	kept->type = type;
	kept->typmod = typmod;
}

/*
 * The columns of an event under today's row type; valid until the next call with
 * this mapper, and as long as tuple is.  then must live as long as the mapper.
 * Unless columns is NULL, only those (numbers from 1) are looked at: of an old
 * row more may not be known, or need not fit.
 * Errors: what a conversion says; 22000 if a value was not logged, or if it has a
 * type that is gone.
 */
const PplRow *
ppl_row_today(PplRowMapper *mapper, TupleDesc then, HeapTuple tuple,
			  const Bitmapset *columns)
{
	Layout	   *layout = find_layout(mapper, then);

	deform(mapper, then, tuple);
	ResetExprContext(layout->econtext);
	if (HeapTupleHasExternal(tuple))
		refuse_unlogged(mapper, then, columns);
	for (int i = 0; i < layout->ncolumns; i++)
	{
		const Column *column = &layout->columns[i];

		if (columns != NULL && !bms_is_member(column->index + 1, columns))
			continue;
		if (!column->absent)
			convert_column(mapper, layout, column);
		else if (column->today->attisdropped)
			mapper->row.nulls[column->index] = true;
		else
			mapper->row.values[column->index] =
				getmissingattr(mapper->today, column->index + 1,
							   &mapper->row.nulls[column->index]);
	}
	return &mapper->row;
}

/*
 * The columns of an event as they were, those that were not logged as null; valid
 * like the result of ppl_row_today.  Throws nothing of the event.
 */
const PplRow *
ppl_row_then(PplRowMapper *mapper, TupleDesc then, HeapTuple tuple)
{
	deform(mapper, then, tuple);
	for (int i = 0; i < then->natts; i++)
	{
		if (is_unlogged(TupleDescAttr(then, i), mapper->row.values[i],
						mapper->row.nulls[i]))
			mapper->row.nulls[i] = true;
	}
	return &mapper->row;
}

/*
 * The columns of an event, from 0, whose values were not logged, in
 * CurrentMemoryContext.
 */
Bitmapset *
ppl_row_unlogged(TupleDesc then, HeapTuple tuple)
{
	Bitmapset  *columns = NULL;

	if (!HeapTupleHasExternal(tuple))
		return NULL;
	for (int i = 0; i < then->natts; i++)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, i + 1, then, &isnull);

		if (is_unlogged(TupleDescAttr(then, i), value, isnull))
			columns = bms_add_member(columns, i);
	}
	return columns;
}

static Layout *
find_layout(PplRowMapper *mapper, TupleDesc then)
{
	Layout	   *layout;

	for (int i = 0; i < PPL_LAYOUTS; i++)
	{
		if (mapper->layouts[i] != NULL && mapper->layouts[i]->then == then)
			return mapper->layouts[i];
	}
	layout = make_layout(mapper, then);
	if (mapper->layouts[mapper->next] != NULL)
		MemoryContextDelete(mapper->layouts[mapper->next]->context);
	mapper->layouts[mapper->next] = layout;
	mapper->next = (mapper->next + 1) % PPL_LAYOUTS;
	return layout;
}

/* A column that the event does not have, as if it had it. */
static Form_pg_attribute
kept_attribute(const Kept *kept)
{
	Form_pg_attribute att = palloc0(ATTRIBUTE_FIXED_PART_SIZE);

	att->atttypid = kept->type;
	att->atttypmod = kept->typmod;
	att->attcollation = get_typcollation(kept->type);
	return att;
}

/* Note what to do about one column; false if its value can be taken as it is. */
static bool
plan_column(PplRowMapper *mapper, Column *column, TupleDesc then, int index)
{
	Node	   *expr;

	column->index = index;
	column->today = TupleDescAttr(mapper->today, index);
	column->absent = column->today->attisdropped ||
		(index >= then->natts && mapper->kept[index].missing == NULL);
	if (column->absent)
		return true;
	if (index < then->natts)
		column->then = TupleDescAttr(then, index);
	else
	{
		column->missing = mapper->kept[index].missing;
		column->then = kept_attribute(&mapper->kept[index]);
	}
	if (column->then->atttypid == column->today->atttypid &&
		column->then->atttypmod == column->today->atttypmod)
		return column->missing != NULL;
	if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(column->then->atttypid)))
	{
		column->lost = true;
		return true;
	}
	expr = conversion(column->then, column->today);
	if (IsA(expr, CaseTestExpr))
		return column->missing != NULL;
	column->convert = ExecInitExpr(expression_planner((Expr *) expr), NULL);
	return true;
}

/*
 * Work out how to come from a layout to that of today.  It may throw, so it is
 * built below CurrentMemoryContext.
 */
static Layout *
make_layout(PplRowMapper *mapper, TupleDesc then)
{
	TupleDesc	today = mapper->today;
	MemoryContext context;
	MemoryContext oldcontext;
	Layout	   *layout;

	if (then->natts > today->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("event has more columns than its source")));
	context = AllocSetContextCreate(CurrentMemoryContext, "pipeline layout",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	layout = palloc0(sizeof(*layout));
	layout->then = then;
	layout->context = context;
	layout->columns = palloc0(today->natts * sizeof(Column));
	for (int i = 0; i < today->natts; i++)
		layout->ncolumns += plan_column(mapper, &layout->columns[layout->ncolumns],
										then, i);
	layout->econtext = CreateStandaloneExprContext();
	MemoryContextSwitchTo(oldcontext);
	MemoryContextSetParent(context, mapper->context);
	return layout;
}

/*
 * From one type to another as in an assignment, with the length or precision of
 * the column and the constraints of its domain.  Where that has no cast, somebody
 * wrote USING, most likely with an explicit one; else it is over text.
 */
static Node *
conversion(Form_pg_attribute then, Form_pg_attribute today)
{
	CaseTestExpr *value = makeNode(CaseTestExpr);
	CoerceViaIO *text = makeNode(CoerceViaIO);
	Oid			base;
	Node	   *expr;

	value->typeId = then->atttypid;
	value->typeMod = then->atttypmod;
	value->collation = then->attcollation;
	expr = coerce_to_target_type(NULL, (Node *) value, then->atttypid,
								 today->atttypid, today->atttypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		expr = coerce_to_target_type(NULL, (Node *) value, then->atttypid,
									 today->atttypid, today->atttypmod,
									 COERCION_EXPLICIT, COERCE_IMPLICIT_CAST, -1);
	if (expr != NULL)
		return expr;

	base = getBaseType(today->atttypid);
	text	  ->arg = (Expr *) value;
	text	  ->resulttype = base;
	text	  ->resultcollid = get_typcollation(base);
	text	  ->coerceformat = COERCE_IMPLICIT_CAST;
	text	  ->location = -1;

	expr = coerce_to_target_type(NULL, (Node *) text, base,
								 today->atttypid, today->atttypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		elog(ERROR, "could not coerce type %u to type %u", base, today->atttypid);
	return expr;
}

/* The columns as they were, where today's will be. */
static void
deform(PplRowMapper *mapper, TupleDesc then, HeapTuple tuple)
{
	MemoryContextReset(mapper->values);
	heap_deform_tuple(tuple, then, mapper->row.values, mapper->row.nulls);
}

/*
 * An unchanged value out of line stays a pointer, which may lead to anything by
 * now: it must never be followed.
 */
static bool
is_unlogged(Form_pg_attribute att, Datum value, bool isnull)
{
	return !isnull && !att->attisdropped && att->attlen == -1 &&
		VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value));
}

/* Error if a column that is still there has a value that was not logged. */
static void
refuse_unlogged(PplRowMapper *mapper, TupleDesc then,
				const Bitmapset *columns)
{
	for (int i = 0; i < then->natts; i++)
	{
		Form_pg_attribute today = TupleDescAttr(mapper->today, i);
		Oid			relid = today->attrelid;

		if (today->attisdropped ||
			(columns != NULL && !bms_is_member(i + 1, columns)) ||
			!is_unlogged(TupleDescAttr(then, i), mapper->row.values[i],
						 mapper->row.nulls[i]))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("the value of column \"%s\" was not logged",
						NameStr(today->attname)),
				 errdetail("It is stored out of line, and the update did not change it."),
				 errhint("ALTER TABLE %s REPLICA IDENTITY FULL; has such values logged from then on.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													get_rel_name(relid)))));
	}
}

/* Say which column it was. */
static void
explain_column(void *arg)
{
	const Column *column = arg;

	errcontext("converting column \"%s\" of the event from type %s to type %s",
			   NameStr(column->today->attname),
			   format_type_with_typemod(column->then->atttypid,
										column->then->atttypmod),
			   format_type_with_typemod(column->today->atttypid,
										column->today->atttypmod));
}

/* The one element of an array in text form. */
static Datum
read_missing(const Column *column, bool *isnull)
{
	Oid			type = column->then->atttypid;
	int			formats = ppl_session_pin_formats();
	Datum		array = OidFunctionCall3(F_ARRAY_IN,
										 CStringGetDatum(column->missing),
										 ObjectIdGetDatum(type),
										 Int32GetDatum(column->then->atttypmod));
	int			one = 1;
	int16		len;
	bool		byval;
	char		align;

	ppl_session_unpin_formats(formats);
	get_typlenbyvalalign(type, &len, &byval, &align);
	return array_get_element(array, 1, &one, -1, len, byval, align, isnull);
}

static void
convert_column(PplRowMapper *mapper, Layout *layout, const Column *column)
{
	Datum	   *value = &mapper->row.values[column->index];
	bool	   *isnull = &mapper->row.nulls[column->index];
	ErrorContextCallback callback;
	MemoryContext oldcontext;

	if (column->lost)
	{
		if (column->missing == NULL && *isnull)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("the type that column \"%s\" had in the event does not exist any more",
						NameStr(column->today->attname))));
	}
	callback.callback = explain_column;
	callback.arg = (void *) column;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	oldcontext = MemoryContextSwitchTo(mapper->values);
	if (column->missing != NULL)
		*value = read_missing(column, isnull);
	if (column->convert != NULL)
	{
		layout->econtext->caseValue_datum = *value;
		layout->econtext->caseValue_isNull = *isnull;
		*value = ExecEvalExpr(column->convert, layout->econtext, isnull);
	}
	MemoryContextSwitchTo(oldcontext);
	error_context_stack = callback.previous;
}
