/*
 * message.c
 *		Rows in the WAL: logical messages that carry rows of no table.
 *
 * Made in any backend, read by capture.  Takes no lock; ppl_rows_write blocks like
 * everything that writes WAL.  The message carries a secret that capture keeps in
 * shared memory: pg_logical_emit_message is open to everybody, and bytes of
 * somebody else's making must never be taken for a tuple.
 *
 * Memory: a message's buffers belong to the context that was current at
 * ppl_rows_init; large ones are given back after the write.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "replication/message.h"

#include "base/mark.h"
#include "stream/message.h"

/* Buffers larger than this are not kept. */
#define MAX_KEPT_SIZE (256 * 1024)

static void append(PplRowsMessage *message, uint16 infomask, uint16 infomask2,
				   uint8 hoff, const char *bytes, Size len);
static void refuse_large(Size len) pg_attribute_noreturn();
static void read_origin(PplRowsReader *reader);
static void damaged(void) pg_attribute_noreturn();

/* See message.h. */
void
ppl_rows_init(PplRowsMessage *message)
{
	initStringInfo(&message->data);
	message->scratch_size = 1024;
	message->scratch = palloc(message->scratch_size);
}

/* See message.h. */
void
ppl_rows_free(PplRowsMessage *message)
{
	pfree(message->data.data);
	pfree(message->scratch);
}

/* See message.h. */
void
ppl_rows_reset(PplRowsMessage *message)
{
	StringInfo	data = &message->data;

	resetStringInfo(data);
	if (data->maxlen > MAX_KEPT_SIZE)
	{
		data->data = repalloc(data->data, MAX_KEPT_SIZE);
		data->maxlen = MAX_KEPT_SIZE;
	}
	if (message->scratch_size > MAX_KEPT_SIZE)
	{
		message->scratch = repalloc(message->scratch, MAX_KEPT_SIZE);
		message->scratch_size = MAX_KEPT_SIZE;
	}
}

/* See message.h. */
void
ppl_rows_begin(PplRowsMessage *message, Oid relid, int32 pipeline_id,
			   uint64 secret)
{
	PplRowsHeader header;

	memset(&header, 0, sizeof(header));
	header.format = PPL_ROWS_VERSION;
	header.relid = relid;
	header.pipeline_id = pipeline_id;
	header.secret = secret;
	resetStringInfo(&message->data);
	appendBinaryStringInfo(&message->data, (char *) &header, sizeof(header));
}

/* See message.h. */
void
ppl_rows_add_origin(PplRowsMessage *message, const PplOriginId *origin)
{
	((PplRowsHeader *) message->data.data)->flags |= PPL_ROWS_ORIGINS;
	appendBinaryStringInfo(&message->data, (const char *) origin, sizeof(*origin));
}

/* See message.h. */
void
ppl_rows_add_nothing(PplRowsMessage *message)
{
	PplRowsRow	row;

	memset(&row, 0, sizeof(row));
	appendBinaryStringInfo(&message->data, (const char *) &row, SizeOfPplRowsRow);
	((PplRowsHeader *) message->data.data)->nrows++;
}

/* See message.h. */
uint32
ppl_rows_count(const PplRowsMessage *message)
{
	return message->data.len == 0 ? 0 :
		((const PplRowsHeader *) message->data.data)->nrows;
}

/* See message.h. */
void
ppl_rows_add_tuple(PplRowsMessage *message, TupleDesc desc, HeapTuple tuple)
{
	HeapTupleHeader header;

	if (HeapTupleHasExternal(tuple))
		tuple = toast_flatten_tuple(tuple, desc);
	header = tuple->t_data;
	append(message, header->t_infomask, header->t_infomask2, header->t_hoff,
		   (char *) header + SizeofHeapTupleHeader,
		   tuple->t_len - SizeofHeapTupleHeader);
}

/* See message.h. */
void
ppl_rows_add_values(PplRowsMessage *message, TupleDesc desc, Datum *values,
					bool *nulls)
{
	bool		hasnull = false;
	Size		hoff = SizeofHeapTupleHeader;
	Size		len;
	uint16		infomask = 0;
	HeapTupleHeader header;

	for (int i = 0; i < desc->natts && !hasnull; i++)
		hasnull = nulls[i];
	if (hasnull)
		hoff += BITMAPLEN(desc->natts);
	hoff = MAXALIGN(hoff);
	len = hoff + heap_compute_data_size(desc, values, nulls);
	if (len > PPL_ROWS_MAX_ROW)
		refuse_large(len);
	if (len > message->scratch_size)
	{
		message->scratch = repalloc(message->scratch, len);
		message->scratch_size = len;
	}

	/* padding must be zero */
	memset(message->scratch, 0, len);
	header = (HeapTupleHeader) message->scratch;
	heap_fill_tuple(desc, values, nulls, message->scratch + hoff, len - hoff,
					&infomask, hasnull ? header->t_bits : NULL);
	if ((infomask & HEAP_HASEXTERNAL) != 0)
	{
		ppl_rows_add_tuple(message, desc, heap_form_tuple(desc, values, nulls));
		return;
	}
	append(message, infomask, desc->natts, hoff,
		   message->scratch + SizeofHeapTupleHeader,
		   len - SizeofHeapTupleHeader);
}

static void
append(PplRowsMessage *message, uint16 infomask, uint16 infomask2, uint8 hoff,
	   const char *bytes, Size len)
{
	StringInfo	data = &message->data;
	PplRowsRow	row;

	if (len > PPL_ROWS_MAX_ROW)
		refuse_large(len);
	row.len = len;
	row.infomask = infomask & (HEAP_HASNULL | HEAP_HASVARWIDTH);
	row.infomask2 = infomask2 & HEAP_NATTS_MASK;
	row.hoff = hoff;
	enlargeStringInfo(data, SizeOfPplRowsRow + len);
	memcpy(data->data + data->len, &row, SizeOfPplRowsRow);
	memcpy(data->data + data->len + SizeOfPplRowsRow, bytes, len);
	data->len += SizeOfPplRowsRow + len;
	((PplRowsHeader *) data->data)->nrows++;
}

static void
refuse_large(Size len)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("row is too large for a stream"),
			 errdetail("It has %zu bytes, at most %d are possible.",
					   len, PPL_ROWS_MAX_ROW),
			 errhint("Insert it into a table, and use that as the source.")));
}

/* See message.h. */
void
ppl_rows_write(PplRowsMessage *message)
{
	StringInfo	data = &message->data;

	/* rows of streams are events, whatever is written around them */
	ppl_mark_clear();
	(void) LogLogicalMessage(PPL_ROWS_PREFIX, data->data, data->len, true);
	ppl_rows_reset(message);
}

/* See message.h. */
bool
ppl_rows_open(PplRowsReader *reader, const char *prefix, const char *data,
			  Size size, uint64 secret)
{
	if (strcmp(prefix, PPL_ROWS_PREFIX) != 0 ||
		size < sizeof(PplRowsHeader))
		return false;
	memcpy(&reader->header, data, sizeof(PplRowsHeader));
	if (reader->header.format != PPL_ROWS_VERSION ||
		reader->header.secret != secret || secret == 0)
		return false;
	reader->next = data + sizeof(PplRowsHeader);
	reader->end = data + size;
	reader->left = reader->header.nrows;
	return true;
}

/* See message.h. */
HeapTuple
ppl_rows_next(PplRowsReader *reader)
{
	PplRowsRow	row;
	HeapTuple	tuple;
	Size		size;

	if (reader->left == 0)
		return NULL;
	if ((reader->header.flags & PPL_ROWS_ORIGINS) != 0)
		read_origin(reader);
	if (reader->end - reader->next >= SizeOfPplRowsRow)
		memcpy(&row, reader->next, SizeOfPplRowsRow);
	if (reader->end - reader->next < SizeOfPplRowsRow ||
		row.len > reader->end - reader->next - SizeOfPplRowsRow ||
		(row.hoff != 0 && (row.hoff < SizeofHeapTupleHeader ||
						   row.hoff > row.len + SizeofHeapTupleHeader)))
		damaged();
	if (row.hoff == 0)
	{
		reader->next += SizeOfPplRowsRow;
		reader->left--;
		return NULL;
	}

	size = SizeofHeapTupleHeader + row.len;
	tuple = palloc(HEAPTUPLESIZE + size);
	memset(tuple, 0, HEAPTUPLESIZE + SizeofHeapTupleHeader);
	tuple->t_len = size;
	tuple->t_tableOid = reader->header.relid;
	tuple->t_data = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	ItemPointerSetInvalid(&tuple->t_self);
	ItemPointerSetInvalid(&tuple->t_data->t_ctid);
	tuple->t_data->t_infomask = row.infomask;
	tuple->t_data->t_infomask2 = row.infomask2;
	tuple->t_data->t_hoff = row.hoff;
	memcpy((char *) tuple->t_data + SizeofHeapTupleHeader,
		   reader->next + SizeOfPplRowsRow, row.len);
	reader->next += SizeOfPplRowsRow + row.len;
	reader->left--;
	return tuple;
}

static void
read_origin(PplRowsReader *reader)
{
	if (reader->end - reader->next < sizeof(reader->origin))
		damaged();
	memcpy(&reader->origin, reader->next, sizeof(reader->origin));
	if (reader->origin.operation < PPL_REC_INSERT ||
		reader->origin.operation > PPL_REC_TRUNCATE)
		damaged();
	reader->next += sizeof(reader->origin);
}

static void
damaged(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("message of rows is damaged")));
}
