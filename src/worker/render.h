/*
 * render.h
 *		Rows of events as jsonb, and back.
 */
#ifndef PPL_RENDER_H
#define PPL_RENDER_H

#include "worker/plan.h"

/* An event as it is kept in a dead letter. */
typedef struct PplRendered
{
	Datum		row;			/* that stages see, as jsonb; 0 = none */
	Datum		old;			/* the old row, as jsonb; 0 = none */
	const char *flaw;			/* why it cannot be restored, else NULL */
} PplRendered;

extern PplRendered ppl_render_event(PplProgram *program, const PplEvent *event);
extern Datum ppl_render_old(PplProgram *program, const PplEvent *event);
extern HeapTuple ppl_render_restore(PplProgram *program, Datum row,
									bool partial, ErrorData **error);

#endif							/* PPL_RENDER_H */
