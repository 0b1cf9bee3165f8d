/*
 * control.h
 *		Control messages: how a change of a definition reaches capture.
 */
#ifndef PPL_CONTROL_H
#define PPL_CONTROL_H

#include "spool/format.h"

#define PPL_CONTROL_PREFIX "pipeline"

/*
 * Write a transactional control message and have this transaction's commit
 * wake capture.  Assigns an xid.  Capture acts on it at its place in the
 * commit order; a rollback (also to a savepoint) takes it back.
 */
extern void ppl_control_emit(PplControlAction action, int32 pipeline_id,
							 int32 version, Oid source, Oid owner,
							 uint16 operations);

#endif							/* PPL_CONTROL_H */
