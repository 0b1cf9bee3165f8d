/*
 * stream.c
 *		pipeline.emit: put a row into a stream where INSERT does not fit.
 *
 * Runs in the caller's backend, with the caller's privileges.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "api/args.h"
#include "catalog/source.h"
#include "stream/fdw.h"

PPL_FUNCTION(pipeline_emit);

static Relation open_stream(Oid relid);
static char *qualified_name(Relation stream);
static void assign(Relation stream, HeapTupleHeader row, Datum *values,
				   bool *nulls);
static void refuse_row(Relation stream, const char *detail) pg_attribute_noreturn();

/*
 * pipeline.emit(stream regclass, row record)
 */
Datum
pipeline_emit(PG_FUNCTION_ARGS)
{
	Oid			relid = ppl_args_oid(fcinfo, 0, "stream");
	Relation	stream;
	Datum	   *values;
	bool	   *nulls;

	ppl_args_require(fcinfo, 1, "row");
	PreventCommandIfReadOnly("pipeline.emit");
	stream = open_stream(relid);
	values = palloc0(RelationGetNumberOfAttributes(stream) * sizeof(Datum));
	nulls = palloc0(RelationGetNumberOfAttributes(stream) * sizeof(bool));
	assign(stream, PG_GETARG_HEAPTUPLEHEADER(1), values, nulls);
	ppl_fdw_insert(stream, values, nulls);
	relation_close(stream, NoLock);
	PG_RETURN_VOID();
}

/*
 * Locked as by INSERT, until the end of the transaction.
 */
static Relation
open_stream(Oid relid)
{
	Relation	stream = try_relation_open(relid, RowExclusiveLock);

	if (stream == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the stream does not exist")));
	if (pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for stream %s",
						RelationGetRelationName(stream)),
				 errdetail("pipeline.emit needs INSERT on all of its columns."),
				 errhint("GRANT INSERT ON TABLE %s TO %s;",
						 qualified_name(stream),
						 quote_identifier(GetUserNameFromId(GetUserId(), false)))));
	if (!ppl_source_is_stream(stream))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a stream",
						RelationGetRelationName(stream)),
				 errhint("Use INSERT, or CREATE FOREIGN TABLE ... SERVER pipeline;")));
	return stream;
}

static char *
qualified_name(Relation stream)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(stream)),
									  RelationGetRelationName(stream));
}

/*
 * Give the values of a row to the columns of a stream: by name if the row is of a
 * named type, else by position.  Generated columns are left out.
 */
static void
assign(Relation stream, HeapTupleHeader row, Datum *values, bool *nulls)
{
	Oid			type = HeapTupleHeaderGetTypeId(row);
	TupleDesc	from = lookup_rowtype_tupdesc(type, HeapTupleHeaderGetTypMod(row));
	TupleDesc	to = RelationGetDescr(stream);
	HeapTupleData tuple = {.t_data = row};
	Datum	   *from_values = palloc(from->natts * sizeof(Datum));
	bool	   *from_nulls = palloc(from->natts * sizeof(bool));
	int			next = 0;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	heap_deform_tuple(&tuple, from, from_values, from_nulls);
	for (int i = 0; i < to->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(to, i);
		int			j = next;

		nulls[i] = true;
		if (att->attisdropped || att->attgenerated != '\0')
			continue;
		if (type != RECORDOID)
		{
			for (j = 0; j < from->natts; j++)
			{
				if (!TupleDescAttr(from, j)->attisdropped &&
					namestrcmp(&TupleDescAttr(from, j)->attname,
							   NameStr(att->attname)) == 0)
					break;
			}
		}
		if (j >= from->natts)
			refuse_row(stream, psprintf("The row has nothing for column \"%s\".",
										NameStr(att->attname)));
		if (!IsBinaryCoercible(TupleDescAttr(from, j)->atttypid, att->atttypid) ||
			(att->atttypmod >= 0 &&
			 TupleDescAttr(from, j)->atttypmod != att->atttypmod))
			refuse_row(stream, psprintf("Column \"%s\" is of type %s but the row has type %s.",
										NameStr(att->attname),
										format_type_with_typemod(att->atttypid, att->atttypmod),
										format_type_with_typemod(TupleDescAttr(from, j)->atttypid,
																 TupleDescAttr(from, j)->atttypmod)));
		values[i] = from_values[j];
		nulls[i] = from_nulls[j];
		next++;
	}
	if (type == RECORDOID && next < from->natts)
		refuse_row(stream, psprintf("The row has %d columns, needed are %d.",
									from->natts, next));
	ReleaseTupleDesc(from);
}

static void
refuse_row(Relation stream, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("row does not fit stream \"%s\"",
					RelationGetRelationName(stream)),
			 errdetail("%s", detail),
			 errhint("Cast it: ROW(...)::%s.", qualified_name(stream))));
}
