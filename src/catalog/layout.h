/*
 * layout.h
 *		How the sources of pipelines look, and what changed.
 */
#ifndef PPL_LAYOUT_H
#define PPL_LAYOUT_H

#include "catalog/sql.h"

extern void ppl_layout_store(int pipeline_id);
extern PplSqlResult *ppl_layout_missing(int pipeline_id);
extern int	ppl_layout_note(int pipeline_id, TransactionId xid, bool *pauses);

#endif							/* PPL_LAYOUT_H */
