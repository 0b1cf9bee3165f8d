/*-------------------------------------------------------------------------
 *
 * key.c
 *		Columns that tell the rows of a table apart.
 *
 * Of a source, those by which the old row of an update or delete is known: the
 * key of its replica identity.  Of a target, those by which an upsert finds the
 * row that it replaces.  Both are the columns of a unique index that is checked
 * at once, for all rows and without expressions.
 *
 * Runs in any backend and in workers, inside a transaction, on relations that
 * the caller has locked; results are in CurrentMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "catalog/key.h"

static Oid	find_index(Relation rel, List *columns, bool nulls);
static bool is_key(Relation rel, Relation index, List *columns, bool nulls);
static PplKey *read_key(Relation rel, Oid indexoid);
static char *equality(Relation index, int column);

/*
 * The columns that are always in the old row of an update or delete, and that no
 * two rows share: those of the replica identity, with REPLICA IDENTITY FULL those
 * of the primary key or else of any unique index.  NULL if there are none.
 */
PplKey *
ppl_key_of_source(Relation source)
{
	Oid			index;

	if (source->rd_rel->relreplident == REPLICA_IDENTITY_NOTHING)
		return NULL;
	if (source->rd_rel->relreplident != REPLICA_IDENTITY_FULL)
		index = RelationGetReplicaIndex(source);
	else
	{
		index = RelationGetPrimaryKeyIndex(source);
		if (!OidIsValid(index))
			index = find_index(source, NIL, false);
	}
	return OidIsValid(index) ? read_key(source, index) : NULL;
}

/*
 * Could an index of a source be its replica identity?
 */
bool
ppl_key_is_index(Relation rel, Relation index)
{
	return is_key(rel, index, NIL, false);
}

/*
 * The columns of an upsert: these, in any order, or those of the primary key if
 * columns is NIL.  NULL if no unique index is made for them.
 */
PplKey *
ppl_key_of_target(Relation target, List *columns)
{
	Oid			index = InvalidOid;

	if (columns == NIL)
		index = RelationGetPrimaryKeyIndex(target);
	else
		index = find_index(target, columns, true);
	return OidIsValid(index) ? read_key(target, index) : NULL;
}

/*
 * What digests of a key depend on, as words (char *): the columns in their order,
 * and their types.  Integers of all sizes are alike.
 */
List *
ppl_key_words(const PplKey *key)
{
	List	   *words = NIL;

	for (int i = 0; i < key->ncolumns; i++)
	{
		Oid			type = key->columns[i].type;

		if (type == INT2OID || type == INT4OID)
			type = INT8OID;
		words = lappend(words, psprintf("%d %s", key->columns[i].attnum,
										format_type_be_qualified(type)));
	}
	return words;
}

/*
 * The column of this name, or NULL.
 */
const PplKeyColumn *
ppl_key_column(const PplKey *key, const char *name)
{
	for (int i = 0; i < key->ncolumns; i++)
	{
		if (strcmp(key->columns[i].name, name) == 0)
			return &key->columns[i];
	}
	return NULL;
}

/*
 * The first unique index that is a key: over these columns, or over any if NIL.
 * Nullable columns are allowed if nulls, and their nulls are not distinct.
 */
static Oid
find_index(Relation rel, List *columns, bool nulls)
{
	List	   *indexes = RelationGetIndexList(rel);
	Oid			found = InvalidOid;
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (is_key(rel, index, columns, nulls))
			found = lfirst_oid(lc);
		index_close(index, NoLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

static bool
is_key(Relation rel, Relation index, List *columns, bool nulls)
{
	Form_pg_index form = index->rd_index;
	int			nmatched = 0;

	if (!form->indisunique || !form->indisvalid || !form->indimmediate ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int i = 0; i < form->indnkeyatts; i++)
	{
		AttrNumber	attnum = form->indkey.values[i];
		Form_pg_attribute att;
		ListCell   *lc;

		if (attnum <= 0)
			return false;
		att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
		if (!att->attnotnull && !(nulls && form->indnullsnotdistinct))
			return false;
		foreach(lc, columns)
			nmatched += strcmp(lfirst(lc), NameStr(att->attname)) == 0;
	}
	return columns == NIL || (nmatched == list_length(columns) &&
							  nmatched == form->indnkeyatts);
}

static PplKey *
read_key(Relation rel, Oid indexoid)
{
	Relation	index = index_open(indexoid, AccessShareLock);
	PplKey	   *key = palloc0(sizeof(*key));

	key->ncolumns = index->rd_index->indnkeyatts;
	key->columns = palloc0(key->ncolumns * sizeof(PplKeyColumn));
	for (int i = 0; i < key->ncolumns; i++)
	{
		PplKeyColumn *column = &key->columns[i];
		Form_pg_attribute att;

		column->attnum = index->rd_index->indkey.values[i];
		att = TupleDescAttr(RelationGetDescr(rel), column->attnum - 1);
		column->name = pstrdup(NameStr(att->attname));
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->collation = index->rd_indcollation[i];
		column->equals = equality(index, i);
		column->nullable = !att->attnotnull;
	}
	index_close(index, NoLock);
	return key;
}

/*
 * The operator by which the index compares a column, "OPERATOR(pg_catalog.=)".
 */
static char *
equality(Relation index, int column)
{
	Oid			type = index->rd_opcintype[column];
	Oid			oid = get_opfamily_member(index->rd_opfamily[column], type, type,
										  BTEqualStrategyNumber);
	HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(oid));
	Form_pg_operator form;
	char	   *result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", oid);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)",
					  quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return result;
}
