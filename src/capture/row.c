/*
 * row.c
 *		Rows of changes, as the spool keeps them.
 *
 * Capture alone runs this, inside the callbacks of logical decoding.  It reads
 * no tables and blocks on nothing.  Results are the tuple that was given or new
 * ones in the current context; these may point into what was given.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/detoast.h"
#include "access/htup_details.h"

#include "capture/row.h"

static HeapTuple form(TupleDesc desc, Datum *values, bool *nulls);

/*
 * The new row with all values that are known.  Changed toasted values are kept
 * by the reorder buffer, only for the time of the callback: their bytes are put
 * in.  Unchanged ones are pointers into the toast table; those that the server
 * logs with the old row (in_old, by attribute number - 1) are taken from there,
 * the others stay pointers: the mark of "unchanged".
 */
HeapTuple
ppl_row_complete(HeapTuple tuple, HeapTuple old_tuple, Relation relation,
				 const bool *in_old)
{
	TupleDesc	desc = RelationGetDescr(relation);
	Datum	   *values;
	bool	   *nulls;
	Datum	   *old_values = NULL;
	bool	   *old_nulls = NULL;
	bool		any = false;

	if (!HeapTupleHasExternal(tuple))
		return tuple;

	values = palloc(desc->natts * sizeof(Datum));
	nulls = palloc(desc->natts * sizeof(bool));
	heap_deform_tuple(tuple, desc, values, nulls);
	if (old_tuple != NULL)
	{
		old_values = palloc(desc->natts * sizeof(Datum));
		old_nulls = palloc(desc->natts * sizeof(bool));
		heap_deform_tuple(old_tuple, desc, old_values, old_nulls);
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		struct varlena *value = (struct varlena *) DatumGetPointer(values[i]);

		if (nulls[i] || att->attisdropped || att->attlen != -1)
			continue;
		if (VARATT_IS_EXTERNAL_INDIRECT(value))
			values[i] = PointerGetDatum(detoast_external_attr(value));
		else if (VARATT_IS_EXTERNAL_ONDISK(value) && old_tuple != NULL &&
				 in_old[i])
			values[i] = old_values[i];
		else
			continue;
		any = true;
	}
	return any ? form(desc, values, nulls) : tuple;
}

/*
 * A row of the route's relation as one of its source; NULL stays NULL.  A tuple
 * that is shorter than its relation's columns, as only old rows can be, gets the
 * values that its own relation has for them.
 */
HeapTuple
ppl_row_convert(HeapTuple tuple, Relation relation, const PplRoute *route)
{
	TupleDesc	from = RelationGetDescr(relation);
	TupleDesc	to = route->as->schema.desc;
	Datum	   *values;
	bool	   *nulls;
	Datum	   *to_values;
	bool	   *to_nulls;

	if (tuple == NULL || route->source->relid == RelationGetRelid(relation) ||
		(route->map == NULL &&
		 HeapTupleHeaderGetNatts(tuple->t_data) >= to->natts))
		return tuple;

	values = palloc(from->natts * sizeof(Datum));
	nulls = palloc(from->natts * sizeof(bool));
	to_values = palloc0(to->natts * sizeof(Datum));
	to_nulls = palloc(to->natts * sizeof(bool));
	heap_deform_tuple(tuple, from, values, nulls);
	for (int i = 0; i < to->natts; i++)
	{
		int			attnum = route->map ? route->map->attnums[i] : i + 1;

		to_nulls[i] = attnum == 0 || nulls[attnum - 1];
		if (!to_nulls[i])
			to_values[i] = values[attnum - 1];
	}
	return form(to, to_values, to_nulls);
}

/*
 * A tuple as it is in the heap, with nothing that a composite value has: that
 * says of which state of the row type it is, and the server refuses to read it by
 * other columns than that has by then.
 */
static HeapTuple
form(TupleDesc desc, Datum *values, bool *nulls)
{
	HeapTuple	tuple = heap_form_tuple(desc, values, nulls);

	memset(&tuple->t_data->t_choice, 0, sizeof(tuple->t_data->t_choice));
	ItemPointerSetInvalid(&tuple->t_data->t_ctid);
	return tuple;
}
