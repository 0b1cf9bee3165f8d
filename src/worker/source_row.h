/*
 * source_row.h
 *		Which row of the source an event is about.
 */
#ifndef PPL_SOURCE_ROW_H
#define PPL_SOURCE_ROW_H

#include "worker/plan.h"

extern void ppl_source_row_require(const PplProgram *program,
								   const PplEvent *event, AttrNumber attnum);
extern const PplRow *ppl_source_row_before(PplProgram *program,
										   const PplEvent *event);
extern void ppl_source_row_digests(PplProgram *program, const PplEvent *event,
								   PplDigest *before, PplDigest *after);

#endif							/* PPL_SOURCE_ROW_H */
