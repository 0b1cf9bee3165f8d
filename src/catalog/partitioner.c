/*
 * partitioner.c
 *		Which partition of a segment an event belongs to.
 *
 * Events are shared out by a hash of columns of the source, made as that of hash
 * partitioning is: the extended hash function of each type, with its seed.  So
 * partition k of n has the rows that the k-th of n hash partitions over the same
 * columns would have, counted from 1, and that stays so over restarts, dumps and
 * layouts.  Without columns it is a hash of the event's id.
 *
 * Runs in any backend, in workers and in the mover, inside a transaction, as type
 * caches are read.  Hash functions belong to operator classes, which only
 * superusers make.  Results are in CurrentMemoryContext.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_inherits.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "base/event.h"
#include "catalog/partitioner.h"

#define PPL_PARTITION_SEED	UINT64CONST(0x7A5B22367996DCFD) /* HASH_PARTITION_SEED */

/* What the hash of a column depends on. */
static char *
column_word(Form_pg_attribute att)
{
	char	   *word = psprintf("%d %s", att->attnum,
								format_type_be_qualified(att->atttypid));

	if (OidIsValid(att->attcollation) &&
		!get_collation_isdeterministic(att->attcollation))
		word = psprintf("%s collate %s", word, get_collation_name(att->attcollation));
	return word;
}

/*
 * The columns of these names by number and type, char *.  Errors: 42703 and 42701
 * for the names, 42883 for a type that has no hash function.
 */
List *
ppl_partition_words(Relation source, List *names)
{
	List	   *words = NIL;
	ListCell   *lc;

	foreach(lc, names)
	{
		const char *name = lfirst(lc);
		AttrNumber	attnum = get_attnum(RelationGetRelid(source), name);
		Form_pg_attribute att;

		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of source \"%s\" does not exist",
							name, RelationGetRelationName(source)),
					 errhint("Name columns of the source in partition_by.")));
		for (int i = 0; i < foreach_current_index(lc); i++)
		{
			if (strcmp(list_nth(names, i), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is named twice in partition_by", name)));
		}
		att = TupleDescAttr(RelationGetDescr(source), attnum - 1);
		if (!OidIsValid(lookup_type_cache(att->atttypid,
										  TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not identify an extended hash function for type %s",
							format_type_be(att->atttypid)),
					 errdetail("Column \"%s\" is in partition_by.", name),
					 errhint("Name columns in partition_by whose types can be hashed.")));
		words = lappend(words, column_word(att));
	}
	return words;
}

/*
 * What tells the partitions of a segment's events, NULL if there is but one for
 * ever.  A column that is not what it was declared as has no type.
 */
PplPartitioner *
ppl_partition_make(const PplPipeline *pipeline)
{
	const PplPartitioning *how = &pipeline->partitioning;
	PplPartitioner *partitioner;
	Relation	source;

	if (how->ordered)
		return NULL;
	partitioner = palloc0(sizeof(*partitioner));
	partitioner->ncolumns = list_length(how->key);
	partitioner->columns = palloc0((partitioner->ncolumns + 1) * sizeof(PplPartitionColumn));
	source = try_relation_open(pipeline->source, AccessShareLock);
	for (int i = 0; i < partitioner->ncolumns; i++)
	{
		PplPartitionColumn *column = &partitioner->columns[i];
		const char *word = list_nth(how->key, i);
		Form_pg_attribute att;

		column->name = pstrdup(list_nth(how->columns, i));
		column->attnum = (AttrNumber) atoi(word);
		if (source == NULL || column->attnum > RelationGetNumberOfAttributes(source))
			continue;
		att = TupleDescAttr(RelationGetDescr(source), column->attnum - 1);
		if (att->attisdropped || strcmp(column_word(att), word) != 0)
			continue;
		column->type = att->atttypid;
		column->typmod = att->atttypmod;
		column->collation = att->attcollation;
		fmgr_info(lookup_type_cache(att->atttypid,
									TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc,
				  &column->hash);
	}
	if (source != NULL)
		relation_close(source, NoLock);
	return partitioner;
}

/* The name of a column, NULL if it was dropped. */
static char *
live_column(Oid relid, AttrNumber attnum)
{
	return OidIsValid(get_atttype(relid, attnum)) ?
		get_attname(relid, attnum, true) : NULL;
}

/*
 * Are all columns what they were declared as?  Error 55000 with the way out.
 */
void
ppl_partition_require(const PplPipeline *pipeline,
					  const PplPartitioner *partitioner)
{
	for (int i = 0; partitioner != NULL && i < partitioner->ncolumns; i++)
	{
		const PplPartitionColumn *column = &partitioner->columns[i];
		char	   *type;
		char	   *name;
		char	   *table;

		if (OidIsValid(column->type))
			continue;
		if (pipeline->upstream != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" in partition_by of segment %d is not what it was",
							column->name, pipeline->segment),
					 errdetail("Rows that were handed over and not processed yet were shared out by it."),
					 errhint("Have the stage before return the column with the type that it had.")));
		type = strchr(list_nth(pipeline->partitioning.key, i), ' ') + 1;
		name = live_column(pipeline->source, column->attnum);
		table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(pipeline->source)),
										   get_rel_name(pipeline->source));
		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("column \"%s\" of partition_by was dropped", column->name),
					 errdetail("Which partition an event belongs to cannot be told without it."),
					 errhint("SELECT pipeline.drop_pipeline(%s); and declare it anew with other columns in partition_by.",
							 quote_literal_cstr(pipeline->name))));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of partition_by has another type", name),
				 errdetail("It was %s, and events not processed yet were shared out by it.", type),
				 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s; or SELECT pipeline.drop_pipeline(%s); and declare it anew.",
						 table, quote_identifier(name), type,
						 quote_literal_cstr(pipeline->name))));
	}
}

/* Has the log the values of these columns in old rows? */
static void
require_old_of(const PplPipeline *pipeline, Relation rel, const Relation root)
{
	Bitmapset  *identity;

	if (rel->rd_rel->relreplident == REPLICA_IDENTITY_FULL)
		return;
	identity = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_IDENTITY_KEY);
	for (int i = 0; i < list_length(pipeline->partitioning.key); i++)
	{
		AttrNumber	attnum = (AttrNumber) atoi(list_nth(pipeline->partitioning.key, i));
		char	   *name = live_column(RelationGetRelid(root), attnum);

		if (name == NULL ||
			bms_is_member(get_attnum(RelationGetRelid(rel), name) -
						  FirstLowInvalidHeapAttributeNumber, identity))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("old rows of \"%s\" do not have column \"%s\" of partition_by",
						RelationGetRelationName(rel), name),
				 errdetail("An update or delete must reach the worker that has the row; the column is not in the replica identity, so the log does not say which."),
				 errhint("ALTER TABLE %s REPLICA IDENTITY FULL;",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)))));
	}
}

/*
 * Does the log tell of updates and deletes from which partition a row goes?  Error
 * 55000 with the command that mends it.  Of a partitioned table its partitions are
 * asked, if partitions is set.  What is handed over has no old rows, and needs none.
 */
void
ppl_partition_require_old(const PplPipeline *pipeline, bool partitions)
{
	Relation	source;
	ListCell   *lc;

	if (pipeline->upstream != 0 ||
		(pipeline->operations & (PPL_OP_UPDATE | PPL_OP_DELETE)) == 0 ||
		pipeline->partitioning.key == NIL)
		return;
	source = try_relation_open(pipeline->source, AccessShareLock);
	if (source == NULL)
		return;
	if (source->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		require_old_of(pipeline, source, source);
	else if (partitions)
	{
		foreach(lc, find_all_inheritors(pipeline->source, NoLock, NULL))
		{
			Relation	leaf = try_relation_open(lfirst_oid(lc), AccessShareLock);

			if (leaf == NULL)
				continue;
			if (leaf->rd_rel->relkind == RELKIND_RELATION)
				require_old_of(pipeline, leaf, source);
			relation_close(leaf, AccessShareLock);
		}
	}
	relation_close(source, NoLock);
}

static uint64
add_value(PplPartitionColumn *column, uint64 hash, Datum value)
{
	uint64		one = DatumGetUInt64(FunctionCall2Coll(&column->hash, column->collation, value,
													   UInt64GetDatum(PPL_PARTITION_SEED)));

	return hash_combine64(hash, one);
}

/*
 * The hash of some values, in the order of the columns.  As in hash partitioning
 * null adds nothing.
 */
uint64
ppl_partition_hash(PplPartitioner *partitioner, const Datum *values,
				   const bool *nulls)
{
	uint64		hash = 0;

	for (int i = 0; i < partitioner->ncolumns; i++)
	{
		if (!nulls[i])
			hash = add_value(&partitioner->columns[i], hash, values[i]);
	}
	return hash;
}

/*
 * The hash of a row of the source, whatever layout it has; no more of it is looked
 * at than is needed.  False if a column had another type then, or was not logged.
 */
bool
ppl_partition_hash_tuple(PplPartitioner *partitioner, TupleDesc desc,
						 HeapTuple tuple, uint64 *hash)
{
	*hash = 0;
	for (int i = 0; i < partitioner->ncolumns; i++)
	{
		PplPartitionColumn *column = &partitioner->columns[i];
		Form_pg_attribute att;
		bool		isnull;
		Datum		value;

		if (column->attnum > desc->natts)
			return false;
		att = TupleDescAttr(desc, column->attnum - 1);
		if (!OidIsValid(column->type) || att->atttypid != column->type)
			return false;
		value = heap_getattr(tuple, column->attnum, desc, &isnull);
		if (isnull)
			continue;
		if (att->attlen == -1 &&
			VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(value)))
			return false;
		*hash = add_value(column, *hash, value);
	}
	return true;
}

/*
 * The hash of an event's id.
 */
uint64
ppl_partition_hash_id(XLogRecPtr commit_lsn, uint32 seq)
{
	uint64		id[2] = {commit_lsn, seq};

	return hash_bytes_extended((const unsigned char *) id, sizeof(id),
							   PPL_PARTITION_SEED);
}

/*
 * The partition of a hash among so many.
 */
int
ppl_partition_number(uint64 hash, int workers)
{
	return (int) (hash % (uint64) workers) + 1;
}
