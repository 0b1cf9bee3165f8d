/*
 * wake.h
 *		How a commit in any backend reaches the capture process.
 */
#ifndef PPL_WAKE_H
#define PPL_WAKE_H

#include "access/xlogdefs.h"

#include "base/shm.h"

extern void ppl_wake_install(void);
extern void ppl_wake_at_commit(void);
extern XLogRecPtr ppl_wake_record_end(XLogRecPtr lsn);
extern void ppl_wake_capture(PplDatabase *db, XLogRecPtr upto);

#endif							/* PPL_WAKE_H */
