/*
 * held.h
 *		What consumers hold back of the WAL.
 */
#ifndef PPL_HELD_H
#define PPL_HELD_H

#include "nodes/pg_list.h"

#include "base/shm.h"

extern XLogRecPtr ppl_held_confirmable(const List *consumers,
									   XLogRecPtr decoded,
									   bool *progress_expected);
extern bool ppl_held_request_moves(const List *consumers, PplDatabase *db,
								   XLogRecPtr decoded);

#endif							/* PPL_HELD_H */
