/*
 * lost.h
 *		Segments whose backlog would be larger than it may.
 */
#ifndef PPL_BACKLOG_LOST_H
#define PPL_BACKLOG_LOST_H

#include "base/place.h"

extern void ppl_backlog_lose(PplPlace place, int64 bytes);
extern void ppl_backlog_tell_lost(PplPlace place, const char *name, bool now);

#endif							/* PPL_BACKLOG_LOST_H */
