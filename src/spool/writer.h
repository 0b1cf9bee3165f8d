/*
 * writer.h
 *		Append records to the spool of one database.  Used by capture alone.
 *
 * Usage: create once; for each replayed transaction begin, any number of
 * change and control, commit; now and then flush, and publish what it
 * returns.  An error leaves the writer unusable: free it (or exit) and create
 * a new one, which begins behind all segments of the old one.
 */
#ifndef PPL_SPOOL_WRITER_H
#define PPL_SPOOL_WRITER_H

#include "access/htup.h"
#include "access/tupdesc.h"

#include "spool/format.h"
#include "spool/record.h"

typedef struct PplSpoolWriter PplSpoolWriter;

/*
 * Called when the file system has no room for a file, before the write is tried
 * again, as often as it takes; and with NULL when it has worked after that.  It
 * waits, may remove what is not needed, and may throw.
 */
typedef void (*PplSpoolNoRoom) (const char *path);

/* The transaction being replayed; goes into every record. */
typedef struct PplSpoolTxn
{
	TransactionId xid;
	XLogRecPtr	commit_lsn;
	XLogRecPtr	end_lsn;
	TimestampTz committed_at;
	int32		writer;			/* pipeline whose batch it is, 0 = none */
} PplSpoolTxn;

/* A change of a relation. */
typedef struct PplSpoolChange
{
	PplRecordKind kind;			/* PPL_REC_INSERT to PPL_REC_TRUNCATE */
	uint8		flags;			/* of the record's header */
	uint32		seq;
	const PplSpoolSchema *schema;	/* relation, and layout of both tuples */
	uint32		schema_version;
	HeapTuple	old_tuple;		/* NULL if there is none */
	HeapTuple	new_tuple;
	const PplOriginId *origin;	/* of what was handed over, with no old_tuple;
								 * nobody's own work */
} PplSpoolChange;

/*
 * Remove all spool files of the database and begin with segment first_segno,
 * which must be above every number used since epoch.  The writer lives in a
 * child of TopMemoryContext, for the life of capture.  Throws what the file system
 * says.
 */
extern PplSpoolWriter *ppl_spool_writer_create(Oid database, uint64 epoch,
											   XLogRecPtr slot_lsn,
											   uint32 first_segno,
											   PplSpoolNoRoom no_room);

/* Remember the transaction of the following records; writes nothing. */
extern void ppl_spool_writer_begin(PplSpoolWriter *writer,
								   const PplSpoolTxn *txn);

/*
 * Append one change.  Its schema is stored once per relation, schema_version and
 * segment: no two schemas of a relation may have the same version.  The tuples
 * hold no pointer into memory (indirect or expanded values); on-disk toast
 * pointers stay what they are.  Returns the position after the record, which is
 * what a reader has as `next`.  Nothing is kept of the argument.  Throws what
 * the file system says.
 */
extern PplSpoolPos ppl_spool_writer_change(PplSpoolWriter *writer,
										   const PplSpoolChange *change);

/* Append a control message, with relid = its source; result and errors as
 * of ppl_spool_writer_change. */
extern PplSpoolPos ppl_spool_writer_control(PplSpoolWriter *writer, uint32 seq,
											const PplControl *control);

/*
 * End the transaction: append a COMMIT record if it wrote anything.  Returns
 * the position after it, or else the present end.
 */
extern PplSpoolPos ppl_spool_writer_commit(PplSpoolWriter *writer);

/*
 * Write the buffer out and return the end of the spool.  Everything before it
 * can be read by other processes from now on, so the caller may publish it.
 */
extern PplSpoolPos ppl_spool_writer_flush(PplSpoolWriter *writer);

/*
 * Remove the segments before segno; the current one always stays.  Nothing
 * happens for segments removed before.
 */
extern void ppl_spool_writer_remove_before(PplSpoolWriter *writer,
										   uint32 segno);

/*
 * Bytes appended since the writer was created; what is still in the buffer
 * counts.
 */
extern uint64 ppl_spool_writer_bytes(PplSpoolWriter *writer);

/*
 * The records of the current transaction from here on are the work of this
 * pipeline's batch.
 */
extern void ppl_spool_writer_attribute(PplSpoolWriter *writer,
									   int32 pipeline_id);

#endif							/* PPL_SPOOL_WRITER_H */
