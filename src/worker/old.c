/*
 * old.c
 *		Old rows of events, as far as they are known.
 *
 * The log has of an old row what the replica identity of the table says: the
 * columns of a key, or all; all others are null in the tuple, which means
 * nothing.  So an old row is handed out as a record of the known columns.
 * Runs in a worker, in the batch's transaction; records belong to the program.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "worker/old.h"

/* Old rows of which the same columns are known. */
typedef struct Layout
{
	PplOldColumns columns;
	TupleDesc	desc;			/* of a record with these */
	AttrNumber *attnums;		/* that they have in the source */
	PplRow		row;			/* scratch */
} Layout;

static const PplOldColumns *
columns_of(const PplProgram *program, const PplEvent *event)
{
	return event->old_columns ? event->old_columns : &program->old_columns;
}

static Layout *
make_layout(const PplProgram *program, const PplOldColumns *columns)
{
	TupleDesc	today = program->source_desc;
	Layout	   *layout = palloc0(sizeof(*layout));
	int			n = 0;

	layout->columns.whole = columns->whole;
	layout->columns.attnums = bms_copy(columns->attnums);
	layout->attnums = palloc(today->natts * sizeof(AttrNumber));
	for (int i = 0; i < today->natts; i++)
	{
		if (!TupleDescAttr(today, i)->attisdropped &&
			(columns->whole || bms_is_member(i + 1, columns->attnums)))
			layout->attnums[n++] = i + 1;
	}
	layout->row.values = palloc(n * sizeof(Datum));
	layout->row.nulls = palloc(n * sizeof(bool));
	layout->desc = CreateTemplateTupleDesc(n);
	for (int i = 0; i < n; i++)
		TupleDescCopyEntry(layout->desc, i + 1, today, layout->attnums[i]);
	layout->desc = BlessTupleDesc(layout->desc);
	return layout;
}

/* There are as many as a program has seen replica identities: few. */
static Layout *
find_layout(PplProgram *program, const PplOldColumns *columns)
{
	MemoryContext oldcontext;
	Layout	   *layout;
	ListCell   *lc;

	foreach(lc, program->old_layouts)
	{
		layout = lfirst(lc);
		if (layout->columns.whole == columns->whole &&
			bms_equal(layout->columns.attnums, columns->attnums))
			return layout;
	}
	oldcontext = MemoryContextSwitchTo(program->context);
	layout = make_layout(program, columns);
	program->old_layouts = lappend(program->old_layouts, layout);
	MemoryContextSwitchTo(oldcontext);
	return layout;
}

/*
 * The old row of an update or delete, under today's column types, and the type
 * of the record of its known columns.  NULL if none is known, or if the event
 * has no old row.  Valid until the next call of this or ppl_program_map, whose
 * errors it throws.
 */
const PplRow *
ppl_old_row(PplProgram *program, const PplEvent *event, TupleDesc *desc)
{
	HeapTuple	tuple = event->tuple;
	const PplRow *row;
	Layout	   *layout;

	if (event->kind != PPL_REC_UPDATE && event->kind != PPL_REC_DELETE)
		return NULL;
	/* without an old tuple the key has not changed */
	if (event->old_tuple != NULL)
		tuple = event->old_tuple;
	if (tuple == NULL)
		return NULL;
	layout = find_layout(program, columns_of(program, event));
	if (layout->desc->natts == 0)
		return NULL;
	row = ppl_program_map(program, event->desc, tuple);
	for (int i = 0; i < layout->desc->natts; i++)
	{
		layout->row.values[i] = row->values[layout->attnums[i] - 1];
		layout->row.nulls[i] = row->nulls[layout->attnums[i] - 1];
	}
	*desc = layout->desc;
	return &layout->row;
}

/*
 * Are all columns of the old row of an event known?
 */
bool
ppl_old_is_whole(const PplProgram *program, const PplEvent *event)
{
	return columns_of(program, event)->whole;
}

/*
 * The columns that an old row has which was rendered as jsonb, in
 * CurrentMemoryContext.  With whole it is known to have had all that there were.
 */
PplOldColumns *
ppl_old_columns_of(const PplProgram *program, Datum row, bool whole)
{
	PplOldColumns *columns = palloc0(sizeof(*columns));
	JsonbContainer *object = &DatumGetJsonbP(row)->root;

	columns->whole = true;
	for (int i = 0; i < program->source_desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(program->source_desc, i);
		JsonbValue	value;

		if (att->attisdropped)
			continue;
		if (getKeyJsonValueFromContainer(object, NameStr(att->attname),
										 strlen(NameStr(att->attname)),
										 &value) != NULL)
			columns->attnums = bms_add_member(columns->attnums, i + 1);
		else
			columns->whole = whole;
	}
	return columns;
}
