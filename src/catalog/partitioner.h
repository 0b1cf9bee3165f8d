/*
 * partitioner.h
 *		Which partition of a segment an event belongs to.
 */
#ifndef PPL_PARTITIONER_H
#define PPL_PARTITIONER_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "fmgr.h"
#include "utils/rel.h"

#include "catalog/definition.h"

/* A column of the source by whose values events are shared out. */
typedef struct PplPartitionColumn
{
	AttrNumber	attnum;
	char	   *name;			/* as it was declared: outputs have it by this
								 * name */
	Oid			type;			/* invalid: it is not what it was declared as */
	int32		typmod;
	Oid			collation;
	FmgrInfo	hash;
} PplPartitionColumn;

typedef struct PplPartitioner
{
	int			ncolumns;		/* 0 = by event id */
	PplPartitionColumn *columns;
} PplPartitioner;

extern List *ppl_partition_words(Relation source, List *names);
extern PplPartitioner *ppl_partition_make(const PplPipeline *pipeline);
extern void ppl_partition_require(const PplPipeline *pipeline,
								  const PplPartitioner *partitioner);
extern void ppl_partition_require_old(const PplPipeline *pipeline,
									  bool partitions);
extern uint64 ppl_partition_hash(PplPartitioner *partitioner,
								 const Datum *values, const bool *nulls);
extern bool ppl_partition_hash_tuple(PplPartitioner *partitioner,
									 TupleDesc desc, HeapTuple tuple,
									 uint64 *hash);
extern uint64 ppl_partition_hash_id(XLogRecPtr commit_lsn, uint32 seq);
extern int	ppl_partition_number(uint64 hash, int workers);

#endif							/* PPL_PARTITIONER_H */
