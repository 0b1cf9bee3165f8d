/*
 * slot.h
 *		The one replication slot of a database.  Used by capture alone.
 */
#ifndef PPL_SLOT_H
#define PPL_SLOT_H

#include "access/xlogdefs.h"

extern void ppl_slot_allow_plugin(void);
extern const char *ppl_slot_defect(XLogRecPtr confirmed);
extern XLogRecPtr ppl_slot_create(void);
extern void ppl_slot_acquire(void);
extern void ppl_slot_drop(void);
extern XLogRecPtr ppl_slot_confirmed(void);
extern void ppl_slot_confirm(XLogRecPtr upto);
extern bool ppl_slot_save(bool force);

#endif							/* PPL_SLOT_H */
