/*
 * explain.h
 *		The plan of a compiled statement, as text.
 */
#ifndef PPL_EXPLAIN_H
#define PPL_EXPLAIN_H

#include "worker/compile.h"

extern List *ppl_explain_plan(const PplStatement *statement, double events);

#endif							/* PPL_EXPLAIN_H */
