/*
 * record.h
 *		Encode and decode one record of the spool, in memory alone.
 */
#ifndef PPL_SPOOL_RECORD_H
#define PPL_SPOOL_RECORD_H

#include "access/htup.h"
#include "access/tupdesc.h"

#include "spool/format.h"

/* Columns of a relation as they were when a record was written. */
typedef struct PplSpoolSchema
{
	Oid			relid;
	TupleDesc	desc;			/* of a reader: lives as long as it */
	char		replident;		/* REPLICA_IDENTITY_* */
	bool	   *in_old;			/* by attribute number - 1: does an old tuple
								 * have this column?  All with
								 * REPLICA_IDENTITY_FULL, else those of the
								 * key of the replica identity */
} PplSpoolSchema;

/* One record; pointers are valid until the next call on the reader. */
typedef struct PplSpoolRecord
{
	PplRecordHeader header;
	PplSpoolPos pos;			/* where it begins */
	PplSpoolPos next;			/* where the record after it begins */
	const PplSpoolSchema *schema;	/* of changes, else NULL */
	HeapTupleData old_tuple;	/* t_data NULL if there is none */
	HeapTupleData new_tuple;
	PplOriginId origin;			/* of what was handed over */
	PplControl	control;		/* of PPL_REC_CONTROL */
} PplSpoolRecord;

/*
 * Set what follows from kind, old_len and new_len: len and, in assert builds,
 * the checksum of the two parts of the body (NULL where the length is 0).
 */
extern void ppl_record_seal(PplRecordHeader *header, const char *old_data,
							const char *new_data);

/* Can this be the header of a record?  Never throws. */
extern bool ppl_record_header_valid(const PplRecordHeader *header);

/* The bit of PPL_OP_* for a kind of record; 0 if it is no change. */
extern uint16 ppl_record_operation(PplRecordKind kind);

/*
 * Is this a change that a pipeline asked for and did not write itself?
 */
extern bool ppl_record_wanted(const PplRecordHeader *header, int32 pipeline_id,
							  Oid source, uint16 operations);

/*
 * Decode the header->len bytes at data, which are MAXALIGNed and begin with
 * header.  record's tuples then point into data; its pos, next and schema are
 * not touched.  Throws ERRCODE_DATA_CORRUPTED.
 */
extern void ppl_record_decode(const PplRecordHeader *header, char *data,
							  PplSpoolRecord *record);

/*
 * The body of a schema record, palloc'd in the current context, its length in
 * *len.  The same columns always give the same bytes.
 */
extern char *ppl_record_encode_schema(const PplSpoolSchema *schema,
									  uint32 *len);

/*
 * What the body of a schema record says, allocated in the current context, with
 * the layout of dropped columns and the values of missing ones.  The columns'
 * type is record.  Throws ERRCODE_DATA_CORRUPTED.
 */
extern void ppl_record_decode_schema(Oid relid, const char *body, uint32 len,
									 PplSpoolSchema *schema);

#endif							/* PPL_SPOOL_RECORD_H */
