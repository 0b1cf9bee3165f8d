/*
 * segment.h
 *		The spool's files: names, creation, reading, writing, removal.
 */
#ifndef PPL_SPOOL_SEGMENT_H
#define PPL_SPOOL_SEGMENT_H

#include "storage/fd.h"

#include "spool/format.h"

/*
 * Make the file of header->database and header->segno, with the directories
 * that are missing, and write header as its first bytes.  The file must not
 * exist.  The caller closes the File with FileClose.  -1 if there is no room for
 * it; throws whatever else the file system says.
 */
extern File ppl_spool_segment_create(const PplSpoolFileHeader *header);

/*
 * Open a file for reading and check that it is what the arguments and this
 * server say.  The caller closes it with FileClose.  A file that is not there
 * is ERRCODE_UNDEFINED_FILE, a foreign one ERRCODE_DATA_CORRUPTED; in both
 * cases nothing stays open.
 */
extern File ppl_spool_segment_open(Oid database, uint64 epoch, uint32 segno);

/*
 * Write all of data at offset.  False if there is no room for it: some of it may
 * be written then.  Throws whatever else the file system says.
 */
extern bool ppl_spool_segment_write(File file, const char *data, Size len,
									off_t offset);

/*
 * Read up to len bytes at offset; fewer come back only at the end of the
 * file.  Processes interrupts.  A file that was removed meanwhile and can no
 * longer be opened is ERRCODE_UNDEFINED_FILE.
 */
extern Size ppl_spool_segment_read(File file, char *data, Size len,
								   off_t offset);

/*
 * Remove one file, or all of a database with their directory.  What is not
 * there is fine; what cannot be removed is a LOG line, not an error, because
 * the start of the server removes it too.
 */
extern void ppl_spool_segment_unlink(Oid database, uint32 segno);
extern void ppl_spool_segment_unlink_all(Oid database);

#endif							/* PPL_SPOOL_SEGMENT_H */
