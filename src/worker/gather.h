/*
 * gather.h
 *		Take events from the spool into a batch.
 */
#ifndef PPL_GATHER_H
#define PPL_GATHER_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/bitmapset.h"

#include "base/place.h"
#include "catalog/partitioner.h"
#include "spool/reader.h"

/* A transaction of a batch. */
typedef struct PplBatchTxn
{
	TransactionId xid;
	XLogRecPtr	commit_lsn;
	XLogRecPtr	end_lsn;
	TimestampTz committed_at;
	int			first;			/* ordinal of its first event here */
	int			nevents;
	bool		schema;			/* it changed the source, and that is no
								 * reason to stop */
	PplSpoolPos end_pos;		/* in the spool, when it is complete */
} PplBatchTxn;

/* What a worker has to do with an event, see share.c. */
typedef enum PplConcern
{
	PPL_CONCERN_ALL = 0,		/* it is its own */
	PPL_CONCERN_OLD_ROW,		/* its row is, or went, in another partition:
								 * what its source row produced here before is
								 * removed, and that is all */
	PPL_CONCERN_UNSURE,			/* not known yet */
	PPL_CONCERN_NONE
} PplConcern;

typedef struct PplEvent
{
	PplRecordKind kind;
	uint32		seq;			/* place in the log; its id is in origin */
	PplOriginId origin;			/* the source's event that it is, or that it
								 * was made of */
	int			txn;			/* index in the batch's transactions */
	int			attempts;		/* runs before this batch */
	int64		dead_letter_id; /* of a redriven event, else 0 */
	int			dead_letter_version;	/* definition under which it became
										 * one */
	bool		was_rejected;	/* else failed */
	bool		was_handing;	/* its segment handed over at that time */
	bool		superseded;		/* redriven, but a later event changed its
								 * source row: nothing for upserts */
	bool		removed;		/* what its old row produced is removed by
								 * another partition; or redriven, and that is
								 * gone since it failed */
	PplConcern	concern;
	bool		hashed;			/* is hash known? */
	uint64		hash;			/* of the columns of partition_by */
	TupleDesc	desc;			/* layout of tuple */
	bool		partial;		/* truncate of partitions of the source only */
	HeapTuple	tuple;			/* new row, or the old one of a delete; NULL
								 * of a truncate, and if none was handed over */
	HeapTuple	old_tuple;		/* of an update, as far as the replica
								 * identity has it; NULL = its key did not
								 * change */
	const bool *in_old;			/* by attribute number in desc - 1: which
								 * columns of an old row are known */
} PplEvent;

/* What is processed in one statement. Lives in its own memory context. */
typedef struct PplBatch
{
	MemoryContext context;
	MemoryContext scratch;		/* what one attempt notes, below context */
	int			nevents;
	int			max_events;
	PplEvent   *events;			/* ordinal - 1 is the index */
	int			ntxns;
	int			max_txns;
	PplBatchTxn *txns;
	Size		bytes;
	bool		complete;		/* ends at the end of a transaction */
	bool		backlog;		/* from there: its transactions are visible,
								 * its positions not of the spool */
	PplPosition last;			/* all up to here is done with this batch */
	PplPosition passed;			/* up to here there is nothing else, if it is
								 * empty */
	PplSpoolPos begin_pos;		/* where it was gathered from */
	PplSpoolPos end_pos;		/* where the next batch begins */
	XLogRecPtr	end_lsn;		/* end of the last complete transaction */
	bool		has_control;	/* a control record follows the events */
	PplControl	control;
	TransactionId control_xid;
	TimestampTz control_committed_at;
	PplPosition control_position;
	PplSpoolPos control_end;
} PplBatch;

/* Whose events, from where. */
typedef struct PplGatherRequest
{
	PplPlace	place;
	Oid			source;
	uint16		operations;
	bool		born;			/* false: look for the birth record only */
	PplPosition done;			/* skip up to here */
	PplPortion	portion;
	PplPartitioner *partitioner;	/* NULL = one worker for ever */
	XLogRecPtr	only;			/* end with the transaction of this
								 * commit_lsn; 0 = take what fits */
	int			max_rows;
	int			enough_rows;	/* no transaction more than fit into these */
	Size		max_bytes;
} PplGatherRequest;

/* Is nothing left of the source after this event? */
#define PPL_EVENT_CLEARS(event) \
	((event)->kind == PPL_REC_TRUNCATE && !(event)->partial)

/*
 * May rows that its source row made before go because of an event of this kind?  An
 * inserted row made some only if operations do not tell all by which it could go.
 */
static inline bool
ppl_event_takes_away(PplRecordKind kind, uint16 operations)
{
	const uint16 all = PPL_OP_UPDATE | PPL_OP_DELETE;

	return kind == PPL_REC_UPDATE || kind == PPL_REC_DELETE ||
		(kind == PPL_REC_INSERT && (operations & all) != all);
}

extern PplBatch *ppl_batch_create(MemoryContext parent);
extern void ppl_batch_add_event(PplBatch *batch, const PplRecordHeader *header,
								TupleDesc desc, HeapTuple old_tuple,
								HeapTuple new_tuple);
extern void ppl_batch_cut(PplBatch *batch, int ntxns);
extern void ppl_gather(PplBatch *batch, PplSpoolReader *reader, PplSpoolPos end,
					   const PplGatherRequest *request);

#endif							/* PPL_GATHER_H */
