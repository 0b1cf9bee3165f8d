/*
 * chunk.c
 *		A run of spool records that stands by itself, as kept in the backlog.
 *
 * A chunk has the layout of a spool file, with the records of one pipeline
 * only and the schemas that these refer to, so a spool reader reads it as it
 * is.  It outlives the server that wrote it, unlike the spool: its header has
 * the version of the layout, for which later releases keep a reader.
 *
 * Memory: the current context at ppl_chunk_begin; freed with it.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "backlog/chunk.h"
#include "spool/record.h"

/* Where the chunk holds a schema. */
typedef struct ChunkSchema
{
	const char *body;			/* as the reader of the spool gave it */
	uint32		offset;
} ChunkSchema;

static uint32 schema_offset(PplChunk *chunk, const PplSpoolRaw *raw);
static void append(PplChunk *chunk, const PplRecordHeader *header,
				   const char *body, Size len);

/*
 * Begin an empty chunk for the pipelines of this database.
 */
void
ppl_chunk_begin(PplChunk *chunk, XLogRecPtr slot_lsn)
{
	PplSpoolFileHeader header;

	memset(chunk, 0, sizeof(*chunk));
	memset(&header, 0, sizeof(header));
	header.magic = PPL_SPOOL_MAGIC;
	header.version = PPL_SPOOL_VERSION;
	header.system_identifier = GetSystemIdentifier();
	header.slot_lsn = slot_lsn;
	header.database = MyDatabaseId;

	initStringInfo(&chunk->bytes);
	appendBinaryStringInfo(&chunk->bytes, (char *) &header, sizeof(header));
	StaticAssertStmt(sizeof(header) == PPL_SPOOL_FIRST_OFFSET,
					 "records of a chunk are not aligned");
}

/*
 * Append a copy of a record, after its schema if the chunk has not got that
 * yet.  Error 54000 if a chunk cannot be that large.
 */
void
ppl_chunk_add(PplChunk *chunk, const PplSpoolRaw *raw)
{
	PplRecordHeader header = raw->header;

	if (raw->schema != NULL)
		header.schema_offset = schema_offset(chunk, raw);
	append(chunk, &header, raw->body, header.len - sizeof(header));
	if (header.kind == PPL_REC_COMMIT)
		return;
	chunk->last.commit_lsn = header.commit_lsn;
	chunk->last.seq = header.seq;
	if (XLogRecPtrIsInvalid(chunk->first.commit_lsn))
		chunk->first = chunk->last;
	if (header.kind != PPL_REC_CONTROL)
		chunk->events++;
}

/*
 * Has nothing been added?
 */
bool
ppl_chunk_is_empty(const PplChunk *chunk)
{
	return chunk->bytes.len == PPL_SPOOL_FIRST_OFFSET;
}

/*
 * Let a reader go on with the next chunk after this one.
 */
void
ppl_chunk_end(PplChunk *chunk)
{
	PplRecordHeader header;

	memset(&header, 0, sizeof(header));
	header.kind = PPL_REC_NEXT;
	ppl_record_seal(&header, NULL, NULL);
	append(chunk, &header, NULL, 0);
}

/*
 * Is this a chunk that this release can read?
 */
bool
ppl_chunk_is_valid(const char *bytes, Size len)
{
	PplSpoolFileHeader header;

	if (len < sizeof(header))
		return false;
	memcpy(&header, bytes, sizeof(header));
	return header.magic == PPL_SPOOL_MAGIC &&
		header.version == PPL_SPOOL_VERSION &&
		header.database == MyDatabaseId;
}

/* Where the chunk holds the schema of a record; appends it if need be. */
static uint32
schema_offset(PplChunk *chunk, const PplSpoolRaw *raw)
{
	static const char zeros[MAXIMUM_ALIGNOF] = {0};
	PplRecordHeader header;
	ChunkSchema *known;
	ListCell   *cell;

	foreach(cell, chunk->schemas)
	{
		known = lfirst(cell);
		if (known->body == raw->schema)
			return known->offset;
	}

	known = palloc(sizeof(*known));
	known->body = raw->schema;
	known->offset = (uint32) chunk->bytes.len;
	chunk->schemas = lappend(chunk->schemas, known);

	memset(&header, 0, sizeof(header));
	header.kind = PPL_REC_SCHEMA;
	header.relid = raw->header.relid;
	header.new_len = raw->schema_len;
	ppl_record_seal(&header, NULL, raw->schema);
	append(chunk, &header, raw->schema, raw->schema_len);
	appendBinaryStringInfo(&chunk->bytes, zeros,
						   MAXALIGN(raw->schema_len) - raw->schema_len);
	return known->offset;
}

static void
append(PplChunk *chunk, const PplRecordHeader *header, const char *body,
	   Size len)
{
	if (len >= MaxAllocSize - chunk->bytes.len - 4 * sizeof(*header))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("an event is too large for the backlog"),
				 errdetail("Its record has %zu bytes, a value of a table at most 1 GB.",
						   len)));
	appendBinaryStringInfo(&chunk->bytes, (const char *) header, sizeof(*header));
	if (len > 0)
		appendBinaryStringInfo(&chunk->bytes, body, (int) len);
}
