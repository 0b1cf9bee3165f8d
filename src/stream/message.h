/*
 * message.h
 *		Rows in the WAL: logical messages that carry rows of no table.
 *
 * A message is a header, then rows, without any padding, since every byte of it is
 * written:
 *
 *		PplRowsHeader
 *		[PplOriginId] PplRowsRow, bytes of the tuple	nrows times
 *
 * The bytes are those of a heap tuple behind its fixed header: null bitmap, padding,
 * data.  No value in them is external.
 */
#ifndef PPL_MESSAGE_H
#define PPL_MESSAGE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "lib/stringinfo.h"

#include "spool/format.h"

#define PPL_ROWS_PREFIX		"pipeline.rows"
#define PPL_ROWS_VERSION	1

/* Before each row stands the event that it was made of. */
#define PPL_ROWS_ORIGINS	0x01

/* A row has at most so many bytes. */
#define PPL_ROWS_MAX_ROW	(256 * 1024 * 1024)

/* Begin of a message.  In native byte order, as all of the WAL. */
typedef struct PplRowsHeader
{
	uint8		format;			/* PPL_ROWS_VERSION */
	uint8		flags;			/* PPL_ROWS_ORIGINS */
	uint16		unused;
	uint32		nrows;
	Oid			relid;			/* stream, or row type of a hand-over */
	int32		pipeline_id;	/* 0 = rows of a stream */
	uint64		secret;			/* proves that the extension wrote it */
} PplRowsHeader;

/* Begin of a row. */
typedef struct PplRowsRow
{
	uint32		len;			/* of the bytes that follow */
	uint16		infomask;		/* t_infomask */
	uint16		infomask2;		/* t_infomask2 */
	uint8		hoff;			/* t_hoff */
	/* BYTES FOLLOW */
} PplRowsRow;

#define SizeOfPplRowsRow	(offsetof(PplRowsRow, hoff) + sizeof(uint8))

StaticAssertDecl(sizeof(PplRowsHeader) == 24, "header of rows has padding");
StaticAssertDecl(offsetof(PplRowsHeader, secret) == 16,
				 "header of rows has padding");
StaticAssertDecl(SizeOfPplRowsRow == 9, "row header has padding");

/* A message that is being made. */
typedef struct PplRowsMessage
{
	StringInfoData data;		/* header and rows */
	char	   *scratch;		/* where rows are formed */
	Size		scratch_size;
} PplRowsMessage;

/* A message that is being read. */
typedef struct PplRowsReader
{
	PplRowsHeader header;
	const char *next;			/* the row that comes next */
	const char *end;
	uint32		left;			/* rows that were not read yet */
	PplOriginId origin;			/* of the last row that was read */
} PplRowsReader;

/* Make room for messages, in the current context. */
extern void ppl_rows_init(PplRowsMessage *message);

/* Give the room back. */
extern void ppl_rows_free(PplRowsMessage *message);

/* Forget all rows. */
extern void ppl_rows_reset(PplRowsMessage *message);

/* Begin a message with these header fields; what was in it is forgotten. */
extern void ppl_rows_begin(PplRowsMessage *message, Oid relid,
						   int32 pipeline_id, uint64 secret);

/*
 * The row that is added next was made of this event.  For all rows of a message or
 * none.
 */
extern void ppl_rows_add_origin(PplRowsMessage *message,
								const PplOriginId *origin);

/* The event of the last call made no row. */
extern void ppl_rows_add_nothing(PplRowsMessage *message);

/* How many rows are in it? */
extern uint32 ppl_rows_count(const PplRowsMessage *message);

/*
 * Add a row of this type.  Values that are external are put in; what that needs is
 * allocated in the current context.  After an error the message is as before.
 * Error 54000 if the row is too large.
 */
extern void ppl_rows_add_tuple(PplRowsMessage *message, TupleDesc desc,
							   HeapTuple tuple);

/* The same with the values of all columns. */
extern void ppl_rows_add_values(PplRowsMessage *message, TupleDesc desc,
								Datum *values, bool *nulls);

/*
 * Write the message into the WAL, as part of the current (sub)transaction, to which
 * this gives an xid, and forget its rows.
 */
extern void ppl_rows_write(PplRowsMessage *message);

/*
 * Begin to read a message in the WAL.  False if it is none of rows, or was
 * written by somebody who does not know the secret.
 */
extern bool ppl_rows_open(PplRowsReader *reader, const char *prefix,
						  const char *data, Size size, uint64 secret);

/*
 * The next row, as it would be in the heap, in the current context.  NULL of an event
 * that made none, and after the last one.  Throws ERRCODE_DATA_CORRUPTED.
 */
extern HeapTuple ppl_rows_next(PplRowsReader *reader);

#endif							/* PPL_MESSAGE_H */
