/*
 * old.h
 *		Old rows of events, as far as they are known.
 */
#ifndef PPL_OLD_H
#define PPL_OLD_H

#include "worker/plan.h"

extern const PplRow *ppl_old_row(PplProgram *program, const PplEvent *event,
								 TupleDesc *desc);
extern bool *ppl_old_columns_of(const PplProgram *program, Datum row,
								bool whole);
extern bool ppl_old_is_known(const PplProgram *program, const PplEvent *event,
							 int column);
extern bool ppl_old_is_whole(const PplProgram *program, const PplEvent *event);
extern void ppl_old_require_whole(const PplProgram *program,
								  const PplEvent *event);

#endif							/* PPL_OLD_H */
