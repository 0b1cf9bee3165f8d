/*
 * supersede.h
 *		Dead letters that a later event of the same source row made stale.
 */
#ifndef PPL_SUPERSEDE_H
#define PPL_SUPERSEDE_H

#include "worker/digest.h"
#include "worker/worker.h"

/* What is to be known of a dead letter when it is run again. */
typedef struct PplLetterKeys
{
	bool		has_row;
	PplDigest	row;			/* the source row that the event leaves */
	bool		owes_removal;	/* what its row produced before is still there */
	PplDigest	removal;		/* the source row that it was then */
	bool		superseded;		/* a later event changed the row already */
} PplLetterKeys;

extern PplLetterKeys *ppl_supersede_letters(PplWorker *worker,
											const PplBatch *batch,
											bool redrive);

extern void ppl_supersede_forget(void);

#endif							/* PPL_SUPERSEDE_H */
