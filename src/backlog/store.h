/*
 * store.h
 *		The table of the backlog.
 */
#ifndef PPL_STORE_H
#define PPL_STORE_H

#include "backlog/chunk.h"
#include "base/place.h"

/* How far the events of a place are done, or kept. */
typedef struct PplBacklogState
{
	bool		born;			/* there is a checkpoint of our slot */
	PplPosition position;		/* all up to here is done or in the backlog */
	int64		bytes;			/* in the backlog of its segment */
} PplBacklogState;

extern void ppl_backlog_load(PplPlace place, XLogRecPtr slot_lsn,
							 PplBacklogState *state);
extern void ppl_backlog_birth(PplPlace place, XLogRecPtr slot_lsn,
							  PplPosition position, int version,
							  int workers);
extern void ppl_backlog_add(PplPlace place, const PplChunk *chunk);
extern bool ppl_backlog_first(PplPlace place, PplPosition done,
							  uint32 *chunk_id);
extern char *ppl_backlog_fetch(PplPlace place, MemoryContext context,
							   uint32 *chunk_id, Size *len);
extern void ppl_backlog_delete(PplPlace place, PplPosition done);
extern bool ppl_backlog_join(PplPlace place, XLogRecPtr slot_lsn,
							 PplPosition position, int version, int workers);
extern void ppl_backlog_forget(PplPlace place);
extern void ppl_backlog_clear(int pipeline_id);
extern List *ppl_backlog_places(void);
extern bool ppl_backlog_has_place(const List *places, PplPlace place);

#endif							/* PPL_STORE_H */
