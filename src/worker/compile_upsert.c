/*-------------------------------------------------------------------------
 *
 * compile_upsert.c
 *		The statements that write an output of mode upsert.
 *
 * A batch removes first what is not produced any more, then it inserts what is,
 * replacing rows of the same key: upsert.c says which.  As in the statement of
 * the chain, _mark stands directly before each row is written, so that an error
 * finds its event; in the removal it takes a column of the target, so that
 * the planner cannot ask it below the join.
 *
 * Runs in workers and in backends that explain a pipeline, as compile.c does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "worker/compile_upsert.h"

static const char *only(const PplTarget *target);
static char *remove_sql(const PplTarget *target, int number, const char *mark);
static char *insert_sql(const PplTarget *target, int number, const char *mark);
static char *returning(const PplTarget *target);
static AttrNumber *derive(const PplPipeline *pipeline, const PplOutput *output,
						  const PplTarget *target);

/*
 * The argument of _put: the columns that the target is given, and then its key as
 * it will be there.
 */
char *
ppl_compile_put_row(const PplTarget *target, const char *alias)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "ROW(");
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(&buf, "%s.%s, ", alias,
						 quote_identifier(target->columns[i]));
	for (int i = 0; i < target->upsert->ncolumns; i++)
	{
		const PplKeyColumn *column = &target->upsert->columns[i];

		appendStringInfo(&buf, "%s%s.%s::%s", i > 0 ? ", " : "", alias,
						 quote_identifier(column->name),
						 format_type_extended(column->type, column->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * How output number of a statement is written.  Error 55000 if what its source
 * rows produced was to be told from their old rows, and is not any more.
 */
PplUpsert *
ppl_compile_upsert(const PplPipeline *pipeline, PplOutput *output,
				   PplTarget *target, const PplShape *row, int number,
				   const char *ordinal, bool marks)
{
	PplUpsert  *upsert = palloc0(sizeof(*upsert));
	const PplKey *key = target->upsert;
	char	   *mark = psprintf("pipeline.%s(x.%s, %d%s", marks ? "_write" : "_mark",
								quote_identifier(ordinal), number,
								marks ? ", $1" : "");

	upsert->output = output;
	upsert->target = target;
	upsert->row_desc = CreateTemplateTupleDesc(target->ncolumns + 1);
	TupleDescInitEntry(upsert->row_desc, 1, ordinal, INT4OID, -1, 0);
	for (int i = 0; i < target->ncolumns; i++)
	{
		const PplColumn *column = ppl_shape_column(row, target->columns[i]);

		TupleDescInitEntry(upsert->row_desc, i + 2, column->name, column->type,
						   column->typmod, 0);
		TupleDescInitEntryCollation(upsert->row_desc, i + 2, column->collation);
	}
	upsert->gone_desc = CreateTemplateTupleDesc(key->ncolumns + 1);
	TupleDescInitEntry(upsert->gone_desc, 1, ordinal, INT4OID, -1, 0);
	for (int i = 0; i < key->ncolumns; i++)
	{
		const PplKeyColumn *column = &key->columns[i];

		TupleDescInitEntry(upsert->gone_desc, i + 2, column->name, column->type,
						   column->typmod, 0);
		TupleDescInitEntryCollation(upsert->gone_desc, i + 2, column->collation);
	}
	upsert->remove_sql = remove_sql(target, number, mark);
	upsert->insert_sql = insert_sql(target, number, mark);
	upsert->clear_sql = psprintf("DELETE FROM %s%s", only(target),
								 target->qualified_name);
	if (!output->keeps)
		upsert->derived = derive(pipeline, output, target);
	return upsert;
}

/* What is written into an ordinary table is not in its children. */
static const char *
only(const PplTarget *target)
{
	return target->partitioned ? "" : "ONLY ";
}

static char *
remove_sql(const PplTarget *target, int number, const char *mark)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "DELETE FROM %s%s AS _t\nUSING "
					 PPL_GONE_RELATION " x\nWHERE ", only(target),
					 target->qualified_name);
	for (int i = 0; i < target->upsert->ncolumns; i++)
	{
		const PplKeyColumn *column = &target->upsert->columns[i];
		const char *name = quote_identifier(column->name);

		if (column->nullable)
			appendStringInfo(&buf, "(_t.%s %s x.%s OR _t.%s IS NULL AND x.%s IS NULL)\n  AND ",
							 name, column->equals, name, name, name);
		else
			appendStringInfo(&buf, "_t.%s %s x.%s\n  AND ", name,
							 column->equals, name);
	}
	appendStringInfo(&buf, "%s, _t.%s)\nRETURNING pipeline._removed(%d%s)",
					 mark, quote_identifier(target->keys[0]), number,
					 returning(target));
	return buf.data;
}

static char *
insert_sql(const PplTarget *target, int number, const char *mark)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "INSERT INTO %s AS _t (", target->qualified_name);
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(target->columns[i]));
	appendStringInfo(&buf, ")\n%sSELECT", target->overriding ?
					 "OVERRIDING SYSTEM VALUE\n" : "");
	for (int i = 0; i < target->ncolumns; i++)
		appendStringInfo(&buf, "%s x.%s", i > 0 ? "," : "",
						 quote_identifier(target->columns[i]));
	appendStringInfo(&buf, "\nFROM " PPL_ROWS_RELATION " x\n"
					 "WHERE %s)\nON CONFLICT (", mark);
	for (int i = 0; i < target->upsert->ncolumns; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(target->upsert->columns[i].name));
	appendStringInfoString(&buf, ") DO UPDATE SET ");
	for (int i = 0; i < target->nupdates; i++)
	{
		const char *name = quote_identifier(target->updates[i]);

		appendStringInfo(&buf, "%s%s = excluded.%s", i > 0 ? ", " : "", name,
						 name);
	}
	appendStringInfo(&buf, "\nRETURNING pipeline._produced(%d%s)", number,
					 returning(target));
	return buf.data;
}

/* ", _t.a, _t.b" for the key. */
static char *
returning(const PplTarget *target)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(&buf, ", _t.%s", quote_identifier(target->keys[i]));
	return buf.data;
}

/*
 * The columns of the source that are the key of an output.
 */
static AttrNumber *
derive(const PplPipeline *pipeline, const PplOutput *output,
	   const PplTarget *target)
{
	const PplKey *key = target->upsert;
	AttrNumber *columns = palloc(key->ncolumns * sizeof(AttrNumber));

	if (!ppl_target_derives(pipeline, output))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("what rows produced in output \"%s\" cannot be told from their old rows any more",
						output->name),
				 errdetail("The key of target %s must be made of columns that are in the replica identity of the source, and hold a unique key of it.",
						   target->qualified_name),
				 errhint("Restore the primary key and the replica identity of the source as they were, or SELECT pipeline.drop_output(%s, %s); and add the output again.",
						 quote_literal_cstr(pipeline->name),
						 quote_literal_cstr(output->name))));
	for (int i = 0; i < key->ncolumns; i++)
		columns[i] = get_attnum(pipeline->source, key->columns[i].name);
	return columns;
}
