/*
 * render.h
 *		Rows of events as jsonb, and back.
 */
#ifndef PPL_RENDER_H
#define PPL_RENDER_H

#include "worker/plan.h"

/* A row as it is kept in a dead letter. */
typedef struct PplRendered
{
	Datum		row;			/* jsonb; 0 = none */
	const char *flaw;			/* why it cannot be restored, else NULL */
} PplRendered;

extern PplRendered ppl_render_row(PplProgram *program, const PplEvent *event);
extern HeapTuple ppl_render_restore(PplProgram *program, Datum row,
									ErrorData **error);

#endif							/* PPL_RENDER_H */
