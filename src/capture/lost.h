/*
 * lost.h
 *		Pipelines whose position is of a slot that is gone.
 */
#ifndef PPL_LOST_H
#define PPL_LOST_H

#include "access/xlogdefs.h"

extern void ppl_lost_tell(XLogRecPtr slot_lsn, const char *reason);

#endif							/* PPL_LOST_H */
