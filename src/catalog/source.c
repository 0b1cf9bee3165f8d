/*
 * source.c
 *		What a table must be, to be the source of a pipeline.
 *
 * What the log has of an update or delete depends on the replica identity of the
 * table, and that is checked here: when a pipeline is declared or started, and
 * when a worker compiles it, since it may have changed; but not each time that one
 * of very many partitions came.  Of a partitioned table the leaves are asked, where
 * the rows are.
 *
 * Runs in any backend and in workers, inside a transaction; takes share locks on
 * the relations it looks at, and gives back those on partitions.  Results are in
 * CurrentMemoryContext.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/event.h"
#include "catalog/key.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"

/* A value of at most this size always stays in its row (heaptoast.c). */
#define MAX_INLINE_SIZE 24

static void check_stream(Relation rel, uint16 operations);
static void check_inheritance(Relation rel);
static void check_rows(Relation rel, const char *what, uint16 operations,
					   bool whole);
static Form_pg_attribute find_toastable(Relation rel);
static Bitmapset *identity_columns(Relation rel);
static const char *identity_problem(Relation rel);
static const char *best_identity(Relation rel);
static bool has_primary_key(Relation rel);
static char *qualified_name(Oid relid);

/*
 * Is this a stream, a foreign table of our wrapper?  That is known by its handler, since
 * everything of it can be renamed.
 */
bool
ppl_source_is_stream(Relation rel)
{
	ForeignServer *server;
	Oid			handler;

	if (rel->rd_rel->relkind != RELKIND_FOREIGN_TABLE)
		return false;
	server = GetForeignServer(GetForeignTable(RelationGetRelid(rel))->serverid);
	handler = GetForeignDataWrapper(server->fdwid)->fdwhandler;
	return OidIsValid(handler) &&
		get_func_namespace(handler) == get_namespace_oid(PPL_PRIVATE_SCHEMA, false) &&
		strcmp(get_func_name(handler), PPL_STREAM_HANDLER) == 0;
}

/*
 * Does the log have of a table what a pipeline with these operations needs?  With
 * whole, that includes the whole of rows that are deleted.  Of a partitioned table
 * nothing is asked unless partitions, since there may be very many.  Errors: 55000 with
 * the command that mends it, 0A000 for inheritance, 22023 for operations that a
 * stream has not.  A table that is gone is no error here.
 */
void
ppl_source_check(Oid relid, uint16 operations, bool whole, bool partitions)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	ListCell   *lc;

	if (rel == NULL)
		return;
	check_inheritance(rel);
	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		check_stream(rel, operations);
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		check_rows(rel, "source", operations, whole);
	else if (partitions)
	{
		foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		{
			Relation	leaf = try_relation_open(lfirst_oid(lc), AccessShareLock);

			if (leaf == NULL)
				continue;
			if (leaf->rd_rel->relkind == RELKIND_RELATION)
				check_rows(leaf, "partition", operations, whole);
			relation_close(leaf, AccessShareLock);
		}
	}
	relation_close(rel, NoLock);
}

/* What is in a stream is never updated, deleted or truncated. */
static void
check_stream(Relation rel, uint16 operations)
{
	if ((operations & ~PPL_OP_INSERT) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source \"%s\" is a stream, which has inserts only",
						RelationGetRelationName(rel)),
				 errhint("Use operations => '{insert}'.")));
}

/* A table and its children are one for queries, and several in the log. */
static void
check_inheritance(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	List	   *children;

	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ||
		rel->rd_rel->relispartition)
		return;
	children = find_inheritance_children(relid, NoLock);
	if (children != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("source \"%s\" has tables that inherit from it",
						RelationGetRelationName(rel)),
				 errdetail("Rows of \"%s\" are seen in it, but are none of its own in the log.",
						   get_rel_name(linitial_oid(children))),
				 errhint("Make it a partitioned table, or ALTER TABLE %s NO INHERIT %s;",
						 qualified_name(linitial_oid(children)),
						 qualified_name(relid))));
	if (has_superclass(relid))
	{
		PplSqlArg	args[] = {ppl_sql_arg(OIDOID, ObjectIdGetDatum(relid))};
		Oid			parent =
		ppl_sql_oid(ppl_sql_read("SELECT min(inhparent) FROM pg_inherits"
								 " WHERE inhrelid = $1",
								 lengthof(args), args), 0, 0);

		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("source \"%s\" inherits from another table",
						RelationGetRelationName(rel)),
				 errdetail("Its rows are seen, and changed, by way of \"%s\", too, and so are its columns.",
						   get_rel_name(parent)),
				 errhint("Make that a partitioned table, or ALTER TABLE %s NO INHERIT %s;",
						 qualified_name(relid), qualified_name(parent))));
	}
}

static void
check_rows(Relation rel, const char *what, uint16 operations, bool whole)
{
	const char *name = RelationGetRelationName(rel);
	Form_pg_attribute att;
	const char *problem;

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s \"%s\" is unlogged now", what, name),
				 errdetail("What is done to its rows makes no events."),
				 errhint("ALTER TABLE %s SET LOGGED;",
						 qualified_name(RelationGetRelid(rel)))));
	if ((operations & (PPL_OP_UPDATE | PPL_OP_DELETE)) == 0 ||
		rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return;
	att = (operations & PPL_OP_UPDATE) != 0 ? find_toastable(rel) : NULL;
	if (att != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("updates of %s \"%s\" do not have all of its columns",
						what, name),
				 errdetail("A large value of column \"%s\" that an update leaves as it is, is logged only with REPLICA IDENTITY FULL.",
						   NameStr(att->attname)),
				 errhint("ALTER TABLE %s REPLICA IDENTITY FULL;",
						 qualified_name(RelationGetRelid(rel)))));
	if (whole)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("deletes of %s \"%s\" do not have all of its columns",
						what, name),
				 errdetail("A handler takes pipeline.event, and so the rows that are deleted, which are logged only with REPLICA IDENTITY FULL."),
				 errhint("ALTER TABLE %s REPLICA IDENTITY FULL;",
						 qualified_name(RelationGetRelid(rel)))));
	problem = identity_problem(rel);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s \"%s\" has no usable replica identity", what, name),
				 errdetail("It %s. Without one the log does not say which row was updated or deleted.",
						   problem),
				 errhint("ALTER TABLE %s REPLICA IDENTITY %s;",
						 qualified_name(RelationGetRelid(rel)),
						 best_identity(rel))));
}

/*
 * A column whose value may be left out of the log when an update does not change
 * it, because it is in the toast table.  Columns of the replica identity are
 * logged with the old row then.
 */
static Form_pg_attribute
find_toastable(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *identity;

	if (!OidIsValid(rel->rd_rel->reltoastrelid))
		return NULL;
	identity = identity_columns(rel);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int32		typmod = att->atttypmod;
		Oid			type;
		int32		size;

		if (att->attisdropped || att->attlen != -1 ||
			att->attstorage == TYPSTORAGE_PLAIN ||
			bms_is_member(att->attnum, identity))
			continue;
		type = getBaseTypeAndTypmod(att->atttypid, &typmod);
		size = type_maximum_size(type, typmod);
		if (size < 0 || size > MAX_INLINE_SIZE)
			return att;
	}
	return NULL;
}

/* Those of the index that the replica identity names; NULL if there is none. */
static Bitmapset *
identity_columns(Relation rel)
{
	Bitmapset  *columns = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_IDENTITY_KEY);
	Bitmapset  *attnums = NULL;
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
		attnums = bms_add_member(attnums, column + FirstLowInvalidHeapAttributeNumber);
	bms_free(columns);
	return attnums;
}

/* What is wrong with the replica identity, which is not FULL; NULL if nothing. */
static const char *
identity_problem(Relation rel)
{
	switch (rel->rd_rel->relreplident)
	{
		case REPLICA_IDENTITY_NOTHING:
			return "is NOTHING";
		case REPLICA_IDENTITY_INDEX:
			if (OidIsValid(RelationGetReplicaIndex(rel)))
				return NULL;
			return "is an index that is gone or not valid";
		case REPLICA_IDENTITY_DEFAULT:
			if (OidIsValid(RelationGetReplicaIndex(rel)))
				return NULL;
			if (has_primary_key(rel))
				return "is DEFAULT, and the primary key is deferrable";
			return "is DEFAULT, and there is no primary key";
	}
	elog(ERROR, "unexpected replica identity of \"%s\"",
		 RelationGetRelationName(rel));
	pg_unreachable();
}

/* The one that costs least. */
static const char *
best_identity(Relation rel)
{
	const char *best = "FULL";
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (ppl_key_is_index(rel, index))
		{
			if (index->rd_index->indisprimary)
				best = "DEFAULT";
			else if (strcmp(best, "FULL") == 0)
				best = psprintf("USING INDEX %s",
								quote_identifier(RelationGetRelationName(index)));
		}
		index_close(index, AccessShareLock);
	}
	return best;
}

static bool
has_primary_key(Relation rel)
{
	ListCell   *lc;
	bool		found = false;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		found |= index->rd_index->indisprimary;
		index_close(index, AccessShareLock);
	}
	return found;
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}
