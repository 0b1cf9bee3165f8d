/*
 * format.h
 *		Layout of the spool's files and records; docs/internals.md describes it.
 *
 * The spool is a series of segment files, each written once from its start to
 * its end.  A position is (segment number << 32 | offset in its file), so that
 * positions of one database only ever grow, also over restarts of capture,
 * which begins a new segment each time.  All integers are in native order:
 * the files never leave the server that wrote them.
 */
#ifndef PPL_SPOOL_FORMAT_H
#define PPL_SPOOL_FORMAT_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

#include "base/control.h"
#include "base/event.h"

typedef uint64 PplSpoolPos;

/* The place of an event in the order of processing. */
typedef struct PplPosition
{
	XLogRecPtr	commit_lsn;
	uint32		seq;
} PplPosition;

/* Is a after b in the order of processing? */
static inline bool
ppl_position_after(PplPosition a, PplPosition b)
{
	return a.commit_lsn > b.commit_lsn ||
		(a.commit_lsn == b.commit_lsn && a.seq > b.seq);
}

#define PPL_SPOOL_POS(segno, offset) (((uint64) (segno) << 32) | (uint32) (offset))
#define PPL_SPOOL_SEGNO(pos)	((uint32) ((pos) >> 32))
#define PPL_SPOOL_OFFSET(pos)	((uint32) (pos))

/* Where the first record of a segment begins; MAXALIGNed as all records. */
#define PPL_SPOOL_FIRST_OFFSET	MAXALIGN(sizeof(PplSpoolFileHeader))

/* A segment is closed after the record that reaches this size. */
#define PPL_SPOOL_SEGMENT_SIZE	(16 * 1024 * 1024)

#define PPL_SPOOL_MAGIC		0x50504C53	/* "SLPP" */
#define PPL_SPOOL_VERSION	1

/* First bytes of each segment file.  A file that differs is refused. */
typedef struct PplSpoolFileHeader
{
	uint32		magic;
	uint32		version;
	uint64		system_identifier;
	uint64		epoch;			/* start of the server that wrote it */
	XLogRecPtr	slot_lsn;		/* where the slot was made */
	Oid			database;
	uint32		segno;
} PplSpoolFileHeader;

typedef enum PplRecordKind
{
	PPL_REC_INSERT = 1,
	PPL_REC_UPDATE,
	PPL_REC_DELETE,
	PPL_REC_TRUNCATE,
	PPL_REC_CONTROL,			/* body is a PplControl; relid its source */
	PPL_REC_SCHEMA,				/* body is the columns of one relation */
	PPL_REC_COMMIT,				/* end of a transaction that wrote records */
	PPL_REC_NEXT				/* end of this segment, go on with the next */
} PplRecordKind;

/* Of a PPL_REC_TRUNCATE: only partitions of the relation were truncated. */
#define PPL_REC_PARTIAL		0x01

/* Handed over by a segment: a PplOriginId stands in the place of the old tuple. */
#define PPL_REC_HANDED		0x02

#define PPL_ORIGIN_LATE			0x01	/* it was a dead letter: later ones
										 * may have come before it */
#define PPL_ORIGIN_SUPERSEDED	0x02	/* one of them changed its source row */
#define PPL_ORIGIN_OLD_ROW		0x04	/* from a worker that had but the old
										 * row: the event itself comes from
										 * another */

/* The source's event that a row which a segment hands over was made of. */
typedef struct PplOriginId
{
	XLogRecPtr	commit_lsn;
	TimestampTz committed_at;
	TransactionId xid;
	uint32		seq;
	uint32		part;			/* tells rows of one event apart, from 1 */
	uint8		operation;		/* PplRecordKind */
	uint8		flags;			/* PPL_ORIGIN_* */
	uint16		unused;
	uint64		before[2];		/* digest of the source row's key before it,
								 * zeros = not known */
	uint64		after[2];
} PplOriginId;

/*
 * Every record begins with this header and is MAXALIGNed; len counts header
 * and body.  The body is the old tuple, zeros up to MAXALIGN, the new tuple,
 * zeros up to MAXALIGN; a schema and a control message stand in the place of
 * the new tuple.  Records carry all that identifies their event, so that a
 * reader can begin at any record.
 */
typedef struct PplRecordHeader
{
	uint32		len;
	uint8		kind;			/* PplRecordKind */
	uint8		flags;			/* PPL_REC_PARTIAL, PPL_REC_HANDED */
	uint16		unused;
	Oid			relid;
	TransactionId xid;			/* top level transaction */
	uint32		seq;			/* place in the transaction, from 1 */
	uint32		schema_offset;	/* where this segment holds the schema */
	uint32		old_len;		/* bytes of the old tuple, 0 = none */
	uint32		new_len;		/* bytes of the new tuple, 0 = none */
	uint32		checksum;		/* of the body; 0 outside assert builds */
	int32		writer;			/* pipeline whose batch wrote it, 0 = none */
	XLogRecPtr	commit_lsn;		/* start of the commit record */
	XLogRecPtr	end_lsn;		/* end of the commit record */
	TimestampTz committed_at;
} PplRecordHeader;

/*
 * Body of a PPL_REC_SCHEMA: this, natts PplSchemaColumn, and for each column
 * with hasmissing, at a MAXALIGNed place, a uint64 length and the bytes of
 * the value that tuples have which are older than the column (a pass-by-value
 * one as a Datum).
 */
typedef struct PplSchemaBody
{
	uint32		natts;			/* dropped ones included */
	char		replident;		/* REPLICA_IDENTITY_*; of a chunk of the
								 * backlog also 0, not known */
	uint8		unused[3];
} PplSchemaBody;

typedef struct PplSchemaColumn
{
	NameData	name;
	Oid			type;			/* InvalidOid of a dropped column */
	int32		typmod;
	Oid			collation;
	int16		len;			/* layout, also valid of a dropped column */
	uint8		byval;
	char		align;
	char		storage;
	char		generated;
	char		identity;
	uint8		notnull;
	uint8		dropped;
	uint8		hasmissing;
	uint8		replident;		/* old tuples have it: it is a column of the
								 * replica identity */
	uint8		unused;
} PplSchemaColumn;

StaticAssertDecl(sizeof(PplSpoolFileHeader) == 40, "spool file header has padding");
StaticAssertDecl(sizeof(PplOriginId) == 64, "origin of a row has padding");
StaticAssertDecl(sizeof(PplRecordHeader) == 64, "spool record header has padding");

#endif							/* PPL_SPOOL_FORMAT_H */
