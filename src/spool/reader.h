/*
 * reader.h
 *		Read the spool of one database from a position.  Used by workers.
 *
 * `end` is always the position that capture published: nothing beyond it is
 * looked at.  The records of schemas and segment ends are dealt with inside;
 * callers see changes, control messages and commits.
 */
#ifndef PPL_SPOOL_READER_H
#define PPL_SPOOL_READER_H

#include "spool/format.h"
#include "spool/record.h"

typedef struct PplSpoolReader PplSpoolReader;

/*
 * Where a reader gets the bytes of a segment if not from the spool's files:
 * those of the first segment from *segno on, palloc'd in context, laid out as
 * such a file; NULL if there is none.  Sets *segno and *len.  May throw.
 */
typedef char *(*PplSpoolLoad) (void *arg, MemoryContext context,
							   uint32 *segno, Size *len);

/* The end that a reader with a PplSpoolLoad is given: all there is. */
#define PPL_SPOOL_ALL	PG_UINT64_MAX

/* A record as it is in its segment, to be copied. */
typedef struct PplSpoolRaw
{
	PplRecordHeader header;
	char	   *body;			/* valid until the next call on the reader */
	const char *schema;			/* body of its schema record, NULL if it has
								 * none; one pointer for equal columns of a
								 * relation, as long as the reader lives */
	uint32		schema_len;
} PplSpoolRaw;

/*
 * A reader for the files that were written since epoch; seek before reading.
 * Opens nothing yet.  Lives in a child of TopMemoryContext until it is freed,
 * so it outlives transactions and errors.
 */
extern PplSpoolReader *ppl_spool_reader_create(Oid database, uint64 epoch);

/*
 * A reader for segments that load brings, one at a time.  Segment numbers need
 * not be consecutive: what is not there is passed over.
 */
extern PplSpoolReader *ppl_spool_reader_create_loaded(PplSpoolLoad load,
													  void *arg);

/* Forget the current segment, so that it is opened or loaded anew. */
extern void ppl_spool_reader_close(PplSpoolReader *reader);

/*
 * Go to a position that a writer or a reader returned, forward or back, or to
 * PPL_SPOOL_POS(segno, 0), the beginning of a segment.  Never throws.  After
 * an error of another function a seek makes the reader usable again.
 */
extern void ppl_spool_reader_seek(PplSpoolReader *reader, PplSpoolPos pos);

/* Where the next record is looked for: after the last one consumed. */
extern PplSpoolPos ppl_spool_reader_position(PplSpoolReader *reader);

/*
 * Copy the header of the next record, without consuming it; false if there is
 * none before end.  Throws ERRCODE_UNDEFINED_FILE if its segment is gone,
 * ERRCODE_DATA_CORRUPTED, and what the file system says.
 */
extern bool ppl_spool_reader_peek(PplSpoolReader *reader, PplSpoolPos end,
								  PplRecordHeader *header);

/*
 * Consume the next record, peeked or not, and decode it; false if there is
 * none before end.  Pointers in *record are valid until the next call on the
 * reader, but for the schema, which lives as long as the reader: equal
 * columns of a relation are the same pointer.  Throws as peek.
 */
extern bool ppl_spool_reader_next(PplSpoolReader *reader, PplSpoolPos end,
								  PplSpoolRecord *record);

/*
 * Consume the record that the last call of peek returned, without reading its
 * body.
 */
extern void ppl_spool_reader_skip(PplSpoolReader *reader);

/* The same with reading it as it is. */
extern void ppl_spool_reader_raw(PplSpoolReader *reader, PplSpoolPos end,
								 PplSpoolRaw *raw);

#endif							/* PPL_SPOOL_READER_H */
