/*
 * reader.c
 *		Read the spool of one database from a position.
 *
 * Runs in workers and in the mover.  Blocks on the disk only, takes no locks;
 * that the files from its position on stay there is capture's duty, which
 * removes only what all consumers have behind them.
 *
 * Memory: "pipeline spool reader", a child of TopMemoryContext, holds the
 * reader, its window on the current segment and the schemas.  The window has
 * 256 kB and is as large as a record that needs more, until the next record.
 * Schemas are found by their place in the current segment; those with the
 * same columns are kept once, so a reader that runs for months holds as many
 * as its relations ever had versions.
 *
 * A reader made with a PplSpoolLoad has its segments in memory instead of
 * files; all else is the same.  Used for the backlog.
 *
 * Each field is set so that an error leaves a reader that a seek repairs.
 */
#include "postgres.h"
#include "base/compat.h"

#include "nodes/pg_list.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "spool/reader.h"
#include "spool/record.h"
#include "spool/segment.h"

#define WINDOW_SIZE		((Size) 256 * 1024)

/* A schema with the bytes it was made from. */
typedef struct KnownSchema
{
	PplSpoolSchema schema;
	uint32		len;
	char	   *body;
} KnownSchema;

/* Where the current segment holds a schema. */
typedef struct SchemaPlace
{
	uint32		offset;			/* hash key */
	KnownSchema *known;
} SchemaPlace;

struct PplSpoolReader
{
	MemoryContext context;
	Oid			database;
	uint64		epoch;

	PplSpoolPos pos;			/* the next record */
	bool		peeked;			/* header is the one at pos */
	PplRecordHeader header;

	File		file;			/* -1 = none open */
	uint32		file_segno;

	PplSpoolLoad load;			/* NULL: from files */
	void	   *load_arg;
	char	   *loaded;			/* instead of file, NULL = none */
	Size		loaded_len;

	char	   *window;			/* a part of that file */
	Size		window_size;	/* allocated */
	uint32		window_start;	/* offset in the file */
	Size		window_len;		/* bytes that are valid */

	HTAB	   *places;			/* SchemaPlace, of the segment of file */
	SchemaPlace *last_place;	/* last one looked up, or NULL */
	List	   *known;			/* KnownSchema *, of all segments */
};

static bool find_record(PplSpoolReader *reader, PplSpoolPos end);
static void check_header(PplSpoolReader *reader, PplSpoolPos end);
static bool open_segment(PplSpoolReader *reader, uint32 segno);
static Size read_segment(PplSpoolReader *reader, char *data, Size len,
						 uint32 offset);
static char *window_at(PplSpoolReader *reader, PplSpoolPos end, uint32 offset,
					   Size len);
static void fill_window(PplSpoolReader *reader, PplSpoolPos end,
						uint32 offset, Size len);
static void resize_window(PplSpoolReader *reader, Size size);
static KnownSchema *find_schema(PplSpoolReader *reader,
								const PplRecordHeader *header);
static KnownSchema *find_known(PplSpoolReader *reader, uint32 offset);
static KnownSchema *read_schema(PplSpoolReader *reader, uint32 offset);
static KnownSchema *learn_schema(PplSpoolReader *reader, Oid relid,
								 char *body, uint32 len);
static void corrupted(PplSpoolReader *reader, uint32 offset,
					  const char *detail) pg_attribute_noreturn();

PplSpoolReader *
ppl_spool_reader_create(Oid database, uint64 epoch)
{
	MemoryContext context;
	PplSpoolReader *reader;

	context = AllocSetContextCreate(TopMemoryContext, "pipeline spool reader",
									ALLOCSET_DEFAULT_SIZES);
	reader = MemoryContextAllocZero(context, sizeof(*reader));
	reader->context = context;
	reader->database = database;
	reader->epoch = epoch;
	reader->file = -1;
	return reader;
}

PplSpoolReader *
ppl_spool_reader_create_loaded(PplSpoolLoad load, void *arg)
{
	PplSpoolReader *reader = ppl_spool_reader_create(InvalidOid, 0);

	reader->load = load;
	reader->load_arg = arg;
	return reader;
}

void
ppl_spool_reader_close(PplSpoolReader *reader)
{
	reader->window_len = 0;
	reader->peeked = false;
	if (reader->places != NULL)
		hash_destroy(reader->places);
	reader->places = NULL;
	reader->last_place = NULL;
	if (reader->file >= 0)
		FileClose(reader->file);
	reader->file = -1;
	if (reader->loaded != NULL)
		pfree(reader->loaded);
	reader->loaded = NULL;
}

void
ppl_spool_reader_seek(PplSpoolReader *reader, PplSpoolPos pos)
{
	if (PPL_SPOOL_OFFSET(pos) < PPL_SPOOL_FIRST_OFFSET)
		pos = PPL_SPOOL_POS(PPL_SPOOL_SEGNO(pos), PPL_SPOOL_FIRST_OFFSET);
	reader->pos = pos;
	reader->peeked = false;
}

PplSpoolPos
ppl_spool_reader_position(PplSpoolReader *reader)
{
	return reader->pos;
}

bool
ppl_spool_reader_peek(PplSpoolReader *reader, PplSpoolPos end,
					  PplRecordHeader *header)
{
	if (!find_record(reader, end))
		return false;
	*header = reader->header;
	return true;
}

bool
ppl_spool_reader_next(PplSpoolReader *reader, PplSpoolPos end,
					  PplSpoolRecord *record)
{
	char	   *data;

	if (!find_record(reader, end))
		return false;

	record->schema = NULL;
	if (reader->header.schema_offset != 0)
		record->schema = &find_schema(reader, &reader->header)->schema;
	data = window_at(reader, end, PPL_SPOOL_OFFSET(reader->pos),
					 reader->header.len);
	ppl_record_decode(&reader->header, data, record);
	record->pos = reader->pos;
	ppl_spool_reader_skip(reader);
	record->next = reader->pos;
	return true;
}

void
ppl_spool_reader_raw(PplSpoolReader *reader, PplSpoolPos end, PplSpoolRaw *raw)
{
	KnownSchema *known = NULL;

	if (!reader->peeked)
		elog(ERROR, "no spool record was looked at");
	if (reader->header.schema_offset != 0)
		known = find_schema(reader, &reader->header);
	raw->header = reader->header;
	raw->schema = known ? known->body : NULL;
	raw->schema_len = known ? known->len : 0;
	raw->body = window_at(reader, end, PPL_SPOOL_OFFSET(reader->pos),
						  reader->header.len) + sizeof(PplRecordHeader);
	ppl_spool_reader_skip(reader);
}

void
ppl_spool_reader_skip(PplSpoolReader *reader)
{
	if (!reader->peeked)
		elog(ERROR, "no spool record was looked at");
	reader->pos += reader->header.len;
	reader->peeked = false;
}

/*
 * Have the header of the next record that callers see in reader->header;
 * false if there is none before end.
 */
static bool
find_record(PplSpoolReader *reader, PplSpoolPos end)
{
	while (!reader->peeked)
	{
		if (reader->pos >= end)
			return false;
		if ((reader->file < 0 && reader->loaded == NULL) ||
			reader->file_segno != PPL_SPOOL_SEGNO(reader->pos))
		{
			if (!open_segment(reader, PPL_SPOOL_SEGNO(reader->pos)))
				return false;
		}

		memcpy(&reader->header,
			   window_at(reader, end, PPL_SPOOL_OFFSET(reader->pos),
						 sizeof(PplRecordHeader)),
			   sizeof(PplRecordHeader));
		check_header(reader, end);

		switch ((PplRecordKind) reader->header.kind)
		{
			case PPL_REC_INSERT:
			case PPL_REC_UPDATE:
			case PPL_REC_DELETE:
			case PPL_REC_TRUNCATE:
			case PPL_REC_CONTROL:
			case PPL_REC_COMMIT:
				reader->peeked = true;
				break;
			case PPL_REC_SCHEMA:
				reader->pos += reader->header.len;
				break;
			case PPL_REC_NEXT:
				reader->pos = PPL_SPOOL_POS(reader->file_segno + 1,
											PPL_SPOOL_FIRST_OFFSET);
				break;
		}
	}
	return true;
}

/*
 * Refuse a header that would lead astray, also when end is not at the
 * boundary of a record.
 */
static void
check_header(PplSpoolReader *reader, PplSpoolPos end)
{
	uint32		offset = PPL_SPOOL_OFFSET(reader->pos);

	if (!ppl_record_header_valid(&reader->header))
		corrupted(reader, offset, "There is no record.");
	if (reader->header.schema_offset >= offset)
		corrupted(reader, offset, "Its schema does not come before it.");
	if (PPL_SPOOL_SEGNO(end) == reader->file_segno &&
		reader->pos + reader->header.len > end)
		corrupted(reader, offset, "It is longer than what was published.");
}

/*
 * False if there is none; only with a PplSpoolLoad.
 */
static bool
open_segment(PplSpoolReader *reader, uint32 segno)
{
	HASHCTL		ctl = {0};

	ppl_spool_reader_close(reader);
	ctl.keysize = sizeof(uint32);
	ctl.entrysize = sizeof(SchemaPlace);
	ctl.hcxt = reader->context;
	reader->places = hash_create("pipeline spool schemas", 32, &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (reader->load == NULL)
		reader->file = ppl_spool_segment_open(reader->database, reader->epoch,
											  segno);
	else
	{
		uint32		found = segno;

		reader->loaded = reader->load(reader->load_arg, reader->context,
									  &found, &reader->loaded_len);
		if (reader->loaded == NULL)
			return false;
		if (found != segno)
			reader->pos = PPL_SPOOL_POS(found, PPL_SPOOL_FIRST_OFFSET);
		segno = found;
	}
	reader->file_segno = segno;
	return true;
}

/* As ppl_spool_segment_read, of the current segment. */
static Size
read_segment(PplSpoolReader *reader, char *data, Size len, uint32 offset)
{
	if (reader->load == NULL)
		return ppl_spool_segment_read(reader->file, data, len, offset);
	if (offset >= reader->loaded_len)
		return 0;
	len = Min(len, reader->loaded_len - offset);
	memcpy(data, reader->loaded + offset, len);
	return len;
}

/*
 * A pointer to len bytes of the current segment, valid until the next call.
 */
static char *
window_at(PplSpoolReader *reader, PplSpoolPos end, uint32 offset, Size len)
{
	if (offset < reader->window_start ||
		(uint64) offset + len > reader->window_start + reader->window_len)
		fill_window(reader, end, offset, len);
	return reader->window + (offset - reader->window_start);
}

static void
fill_window(PplSpoolReader *reader, PplSpoolPos end, uint32 offset, Size len)
{
	Size		wanted = Max(len, WINDOW_SIZE);

	reader->window_len = 0;
	if (wanted > reader->window_size ||
		(wanted == WINDOW_SIZE && reader->window_size > WINDOW_SIZE))
		resize_window(reader, wanted);

	/* Of the segment that is being written only a part is ours to read. */
	if (PPL_SPOOL_SEGNO(end) == reader->file_segno)
		wanted = Min(wanted, PPL_SPOOL_OFFSET(end) - offset);

	reader->window_start = offset;
	reader->window_len = read_segment(reader, reader->window, wanted, offset);
	if (reader->window_len < len)
		corrupted(reader, offset, "The file ends within it.");
}

static void
resize_window(PplSpoolReader *reader, Size size)
{
	char	   *old_window = reader->window;

	reader->window = NULL;
	reader->window_size = 0;
	if (old_window != NULL)
		pfree(old_window);
	reader->window = MemoryContextAllocHuge(reader->context, size);
	reader->window_size = size;
}

/* The schema that a record of the current segment refers to. */
static KnownSchema *
find_schema(PplSpoolReader *reader, const PplRecordHeader *header)
{
	KnownSchema *known = find_known(reader, header->schema_offset);

	if (known->schema.relid != header->relid)
		corrupted(reader, PPL_SPOOL_OFFSET(reader->pos),
				  "It refers to the schema of another relation.");
	return known;
}

static KnownSchema *
find_known(PplSpoolReader *reader, uint32 offset)
{
	SchemaPlace *place = reader->last_place;

	if (place != NULL && place->offset == offset)
		return place->known;

	place = hash_search(reader->places, &offset, HASH_FIND, NULL);
	if (place == NULL)
	{
		KnownSchema *known = read_schema(reader, offset);

		place = hash_search(reader->places, &offset, HASH_ENTER, NULL);
		place->known = known;
	}
	reader->last_place = place;
	return place->known;
}

/*
 * Read a schema record past the window: most often it lies far before it.
 */
static KnownSchema *
read_schema(PplSpoolReader *reader, uint32 offset)
{
	PplRecordHeader header;
	MemoryContext old_context;
	KnownSchema *known;
	char	   *body;

	if (read_segment(reader, (char *) &header, sizeof(header), offset) != sizeof(header) ||
		!ppl_record_header_valid(&header) || header.kind != PPL_REC_SCHEMA ||
		header.new_len > MaxAllocSize)
		corrupted(reader, offset, "There is no schema.");

	old_context = MemoryContextSwitchTo(reader->context);
	body = palloc(header.new_len);
	if (read_segment(reader, body, header.new_len, offset + sizeof(header)) != header.new_len)
		corrupted(reader, offset, "The file ends within it.");
	known = learn_schema(reader, header.relid, body, header.new_len);
	MemoryContextSwitchTo(old_context);
	return known;
}

/*
 * The schema with these columns; takes over body.
 */
static KnownSchema *
learn_schema(PplSpoolReader *reader, Oid relid, char *body, uint32 len)
{
	KnownSchema *known;
	ListCell   *cell;

	foreach(cell, reader->known)
	{
		known = lfirst(cell);
		if (known->schema.relid == relid && known->len == len &&
			memcmp(known->body, body, len) == 0)
		{
			pfree(body);
			return known;
		}
	}

	known = palloc0(sizeof(*known));
	ppl_record_decode_schema(relid, body, len, &known->schema);
	known->body = body;
	known->len = len;
	reader->known = lappend(reader->known, known);
	return known;
}

static void
corrupted(PplSpoolReader *reader, uint32 offset, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("spool record at offset %u of segment %u is corrupted",
					offset, reader->file_segno),
			 errdetail_internal("%s", detail),
			 reader->load != NULL ? 0 :
			 errhint("The spool is written again from the WAL when capture starts anew.")));
}
