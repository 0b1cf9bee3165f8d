/*
 * row.h
 *		Rows of changes, as the spool keeps them.
 */
#ifndef PPL_ROW_H
#define PPL_ROW_H

#include "access/htup.h"
#include "utils/rel.h"

#include "capture/route.h"

extern HeapTuple ppl_row_complete(HeapTuple tuple, HeapTuple old_tuple,
								  Relation relation, const bool *in_old);
extern HeapTuple ppl_row_convert(HeapTuple tuple, Relation relation,
								 const PplRoute *route);

#endif							/* PPL_ROW_H */
