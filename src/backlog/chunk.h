/*
 * chunk.h
 *		A run of spool records that stands by itself, as kept in the backlog.
 */
#ifndef PPL_CHUNK_H
#define PPL_CHUNK_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "spool/reader.h"

typedef struct PplChunk
{
	StringInfoData bytes;		/* laid out as a spool file */
	List	   *schemas;		/* that it holds */
	int			events;			/* without control records */
	PplPosition first;			/* of its events and control records */
	PplPosition last;
} PplChunk;

extern void ppl_chunk_begin(PplChunk *chunk, XLogRecPtr slot_lsn);
extern void ppl_chunk_add(PplChunk *chunk, const PplSpoolRaw *raw);
extern bool ppl_chunk_is_empty(const PplChunk *chunk);
extern void ppl_chunk_end(PplChunk *chunk);
extern bool ppl_chunk_is_valid(const char *bytes, Size len);

#endif							/* PPL_CHUNK_H */
