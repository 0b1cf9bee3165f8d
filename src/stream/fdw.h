/*
 * fdw.h
 *		The foreign data wrapper: tables whose rows are events and nothing else.
 */
#ifndef PPL_FDW_H
#define PPL_FDW_H

#include "utils/rel.h"

extern void ppl_fdw_insert(Relation stream, Datum *values, bool *nulls);

#endif							/* PPL_FDW_H */
