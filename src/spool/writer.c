/*
 * writer.c
 *		Append records to the spool of one database.
 *
 * Runs in capture alone, inside the callbacks of logical decoding.  Blocks on
 * the disk only, takes no locks.  Readers learn how far they may read from the
 * position that capture publishes after a flush; before that, bytes of the
 * buffer may be in the file, also half a record.
 *
 * Memory: "pipeline spool writer", a child of TopMemoryContext, holds the
 * writer, its buffer and the table of the schemas
 * that the current segment holds.  Records larger than the buffer go to the
 * file from where they are, so no copy of them is made.
 *
 * An error can leave half a record behind.  Capture then starts anew with a
 * new writer, therefore nothing is repaired here; `broken` only makes sure
 * that nobody goes on.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "spool/record.h"
#include "spool/segment.h"
#include "spool/writer.h"

#define BUFFER_SIZE		((Size) 256 * 1024)

typedef struct SchemaKey
{
	Oid			relid;
	uint32		version;
} SchemaKey;

/* Where the current segment holds the schema of a relation. */
typedef struct SchemaEntry
{
	SchemaKey	key;
	uint32		offset;
} SchemaEntry;

struct PplSpoolWriter
{
	MemoryContext context;
	PplSpoolNoRoom no_room;
	PplSpoolFileHeader file_header; /* of the current segment */
	File		file;
	bool		broken;			/* an append did not come to its end */

	char	   *buffer;
	Size		buffered;
	uint32		written;		/* bytes of the current segment in the file */

	uint32		first_segno;	/* oldest one that was not removed */
	uint64		closed_bytes;	/* of all segments that were closed */

	HTAB	   *schemas;		/* SchemaEntry, of the current segment */
	SchemaEntry last_schema;	/* last one looked up; relid 0 = none */

	PplSpoolTxn txn;
	uint32		txn_records;	/* written by the current transaction */
	uint32		txn_seq;		/* highest of them */
};

static void begin_segment(PplSpoolWriter *writer, uint32 segno);
static void end_segment(PplSpoolWriter *writer);
static void fill_header(PplSpoolWriter *writer, PplRecordHeader *header,
						PplRecordKind kind, Oid relid, uint32 seq);
static uint32 schema_offset(PplSpoolWriter *writer,
							const PplSpoolSchema *schema, uint32 version);
static uint32 append_schema(PplSpoolWriter *writer,
							const PplSpoolSchema *schema);
static PplSpoolPos append_record(PplSpoolWriter *writer,
								 PplRecordHeader *header, const char *old_data,
								 const char *new_data);
static void put_record(PplSpoolWriter *writer, PplRecordHeader *header,
					   const char *old_data, const char *new_data);
static void put_aligned(PplSpoolWriter *writer, const char *data, Size len);
static void write_buffer(PplSpoolWriter *writer);
static void write_out(PplSpoolWriter *writer, const char *data, Size len);
static uint32 end_offset(PplSpoolWriter *writer);
static PplSpoolPos end_position(PplSpoolWriter *writer);
#ifdef USE_ASSERT_CHECKING
static bool tuple_is_flat(TupleDesc desc, HeapTuple tuple);
#endif

PplSpoolWriter *
ppl_spool_writer_create(Oid database, uint64 epoch, XLogRecPtr slot_lsn,
						uint32 first_segno, PplSpoolNoRoom no_room)
{
	MemoryContext context;
	PplSpoolWriter *writer;

	ppl_spool_segment_unlink_all(database);

	context = AllocSetContextCreate(TopMemoryContext, "pipeline spool writer",
									ALLOCSET_DEFAULT_SIZES);
	writer = MemoryContextAllocZero(context, sizeof(*writer));
	writer->context = context;
	writer->buffer = MemoryContextAlloc(context, BUFFER_SIZE);
	writer->first_segno = first_segno;
	writer->file = -1;
	writer->no_room = no_room;

	writer->file_header.magic = PPL_SPOOL_MAGIC;
	writer->file_header.version = PPL_SPOOL_VERSION;
	writer->file_header.system_identifier = GetSystemIdentifier();
	writer->file_header.epoch = epoch;
	writer->file_header.slot_lsn = slot_lsn;
	writer->file_header.database = database;

	begin_segment(writer, first_segno);
	return writer;
}

void
ppl_spool_writer_begin(PplSpoolWriter *writer, const PplSpoolTxn *txn)
{
	writer->txn = *txn;
	writer->txn_records = 0;
	writer->txn_seq = 0;
}

PplSpoolPos
ppl_spool_writer_change(PplSpoolWriter *writer, const PplSpoolChange *change)
{
	HeapTuple	old_tuple = change->old_tuple;
	HeapTuple	new_tuple = change->new_tuple;
	PplRecordHeader header;
	const char *old_data = NULL;

	Assert(change->kind <= PPL_REC_TRUNCATE);
	Assert(change->kind != PPL_REC_TRUNCATE || (!old_tuple && !new_tuple));
	Assert(tuple_is_flat(change->schema->desc, old_tuple));
	Assert(tuple_is_flat(change->schema->desc, new_tuple));

	fill_header(writer, &header, change->kind, change->schema->relid,
				change->seq);
	header.flags = change->flags;
	if (old_tuple != NULL)
		header.old_len = old_tuple->t_len;
	if (change->origin != NULL)
	{
		header.flags |= PPL_REC_HANDED;
		header.writer = 0;
		header.old_len = sizeof(PplOriginId);
		old_data = (const char *) change->origin;
	}
	if (new_tuple != NULL)
		header.new_len = new_tuple->t_len;
	header.schema_offset = schema_offset(writer, change->schema,
										 change->schema_version);

	return append_record(writer, &header,
						 old_tuple ? (char *) old_tuple->t_data : old_data,
						 new_tuple ? (char *) new_tuple->t_data : NULL);
}

PplSpoolPos
ppl_spool_writer_control(PplSpoolWriter *writer, uint32 seq,
						 const PplControl *control)
{
	PplRecordHeader header;

	fill_header(writer, &header, PPL_REC_CONTROL, control->source, seq);
	header.new_len = sizeof(*control);
	return append_record(writer, &header, NULL, (const char *) control);
}

PplSpoolPos
ppl_spool_writer_commit(PplSpoolWriter *writer)
{
	PplRecordHeader header;

	if (writer->txn_records == 0)
		return end_position(writer);

	fill_header(writer, &header, PPL_REC_COMMIT, InvalidOid, writer->txn_seq);
	writer->txn_records = 0;
	return append_record(writer, &header, NULL, NULL);
}

PplSpoolPos
ppl_spool_writer_flush(PplSpoolWriter *writer)
{
	if (writer->broken)
		elog(ERROR, "spool writer stopped in the middle of a record");
	writer->broken = true;
	write_buffer(writer);
	writer->broken = false;
	return end_position(writer);
}

void
ppl_spool_writer_remove_before(PplSpoolWriter *writer, uint32 segno)
{
	segno = Min(segno, writer->file_header.segno);
	while (writer->first_segno < segno)
		ppl_spool_segment_unlink(writer->file_header.database,
								 writer->first_segno++);
}

uint64
ppl_spool_writer_bytes(PplSpoolWriter *writer)
{
	return writer->closed_bytes + end_offset(writer);
}

void
ppl_spool_writer_attribute(PplSpoolWriter *writer, int32 pipeline_id)
{
	writer->txn.writer = pipeline_id;
}

/*
 * Open a new file; the one before is closed already.
 */
static void
begin_segment(PplSpoolWriter *writer, uint32 segno)
{
	HASHCTL		ctl = {0};
	bool		waited = false;

	writer->broken = true;
	/* Only what this segment holds may be referred to in it. */
	if (writer->schemas != NULL)
		hash_destroy(writer->schemas);
	ctl.keysize = sizeof(SchemaKey);
	ctl.entrysize = sizeof(SchemaEntry);
	ctl.hcxt = writer->context;
	writer->schemas = hash_create("pipeline spool schemas", 32, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	writer->last_schema.key.relid = InvalidOid;

	writer->file_header.segno = segno;
	while ((writer->file = ppl_spool_segment_create(&writer->file_header)) < 0)
	{
		writer->no_room("base/" PG_TEMP_FILES_DIR);
		waited = true;
	}
	if (waited)
		writer->no_room(NULL);
	writer->buffered = 0;
	writer->written = PPL_SPOOL_FIRST_OFFSET;
	writer->broken = false;
}

/*
 * Say that the next segment follows, and close the file.  All of it is
 * written then, so that a position in the next one can be published.
 */
static void
end_segment(PplSpoolWriter *writer)
{
	PplRecordHeader header;
	File		file = writer->file;

	fill_header(writer, &header, PPL_REC_NEXT, InvalidOid, 0);
	put_record(writer, &header, NULL, NULL);
	writer->broken = true;		/* until there is a new one */
	write_buffer(writer);

	writer->closed_bytes += writer->written;
	writer->file = -1;
	FileClose(file);
}

static void
fill_header(PplSpoolWriter *writer, PplRecordHeader *header,
			PplRecordKind kind, Oid relid, uint32 seq)
{
	memset(header, 0, sizeof(*header));
	header->kind = kind;
	header->relid = relid;
	header->seq = seq;
	header->xid = writer->txn.xid;
	header->commit_lsn = writer->txn.commit_lsn;
	header->end_lsn = writer->txn.end_lsn;
	header->committed_at = writer->txn.committed_at;
	header->writer = writer->txn.writer;
}

/*
 * Where the current segment holds a schema; appends it if it does not yet.
 * No segment ends between a schema and the first record that needs it.
 */
static uint32
schema_offset(PplSpoolWriter *writer, const PplSpoolSchema *schema,
			  uint32 version)
{
	SchemaKey	key = {schema->relid, version};
	SchemaEntry *entry;
	bool		found;

	if (writer->last_schema.key.relid == key.relid &&
		writer->last_schema.key.version == version)
		return writer->last_schema.offset;

	entry = hash_search(writer->schemas, &key, HASH_FIND, NULL);
	if (entry == NULL)
	{
		uint32		offset = append_schema(writer, schema);

		entry = hash_search(writer->schemas, &key, HASH_ENTER, &found);
		entry->offset = offset;
	}
	writer->last_schema = *entry;
	return entry->offset;
}

static uint32
append_schema(PplSpoolWriter *writer, const PplSpoolSchema *schema)
{
	MemoryContext old_context = MemoryContextSwitchTo(writer->context);
	PplRecordHeader header;
	uint32		offset = end_offset(writer);
	char	   *body;

	fill_header(writer, &header, PPL_REC_SCHEMA, schema->relid, 0);
	body = ppl_record_encode_schema(schema, &header.new_len);
	put_record(writer, &header, NULL, body);
	pfree(body);
	MemoryContextSwitchTo(old_context);
	return offset;
}

/*
 * Append a record of the current transaction, and go on in a new segment if
 * this one is full then.
 */
static PplSpoolPos
append_record(PplSpoolWriter *writer, PplRecordHeader *header,
			  const char *old_data, const char *new_data)
{
	PplSpoolPos pos;

	put_record(writer, header, old_data, new_data);
	if (header->kind != PPL_REC_COMMIT)
	{
		writer->txn_records++;
		writer->txn_seq = Max(writer->txn_seq, header->seq);
	}

	pos = end_position(writer);
	if (PPL_SPOOL_OFFSET(pos) >= PPL_SPOOL_SEGMENT_SIZE)
	{
		end_segment(writer);
		begin_segment(writer, PPL_SPOOL_SEGNO(pos) + 1);
	}
	return pos;
}

static void
put_record(PplSpoolWriter *writer, PplRecordHeader *header,
		   const char *old_data, const char *new_data)
{
	if (writer->broken)
		elog(ERROR, "spool writer stopped in the middle of a record");
	writer->broken = true;

	ppl_record_seal(header, old_data, new_data);
	put_aligned(writer, (const char *) header, sizeof(*header));
	put_aligned(writer, old_data, header->old_len);
	put_aligned(writer, new_data, header->new_len);

	writer->broken = false;
}

/*
 * Append bytes, and zeros up to the alignment.  What does not fit into an
 * empty buffer goes to the file at once.
 */
static void
put_aligned(PplSpoolWriter *writer, const char *data, Size len)
{
	Size		padding = MAXALIGN(len) - len;

	if (BUFFER_SIZE - writer->buffered < len + padding)
		write_buffer(writer);

	if (len <= BUFFER_SIZE - MAXIMUM_ALIGNOF)
	{
		char	   *to = writer->buffer + writer->buffered;

		if (len > 0)
			memcpy(to, data, len);
		memset(to + len, 0, padding);
		writer->buffered += len + padding;
		return;
	}

	write_out(writer, data, len);
	writer->written += len;
	memset(writer->buffer, 0, padding);
	writer->buffered = padding;
}

static void
write_buffer(PplSpoolWriter *writer)
{
	if (writer->buffered == 0)
		return;
	write_out(writer, writer->buffer, writer->buffered);
	writer->written += writer->buffered;
	writer->buffered = 0;
}

/* Write behind what the file holds; waits for room on a full disk. */
static void
write_out(PplSpoolWriter *writer, const char *data, Size len)
{
	bool		waited = false;

	while (!ppl_spool_segment_write(writer->file, data, len, writer->written))
	{
		writer->no_room(FilePathName(writer->file));
		waited = true;
	}
	if (waited)
		writer->no_room(NULL);
}

static uint32
end_offset(PplSpoolWriter *writer)
{
	return writer->written + (uint32) writer->buffered;
}

/* The end of the spool, what is still in the buffer included. */
static PplSpoolPos
end_position(PplSpoolWriter *writer)
{
	return PPL_SPOOL_POS(writer->file_header.segno, end_offset(writer));
}

#ifdef USE_ASSERT_CHECKING
/*
 * Does a tuple hold all of its values, but for on-disk toast pointers?
 */
static bool
tuple_is_flat(TupleDesc desc, HeapTuple tuple)
{
	if (tuple == NULL || !HeapTupleHasExternal(tuple))
		return true;
	for (int i = 0; i < desc->natts; i++)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, i + 1, desc, &isnull);

		if (!isnull && TupleDescAttr(desc, i)->attlen == -1 &&
			(VARATT_IS_EXTERNAL_INDIRECT(DatumGetPointer(value)) ||
			 VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(value))))
			return false;
	}
	return true;
}
#endif
