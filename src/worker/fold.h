/*
 * fold.h
 *		From the rows that events made to what changes in an upsert output.
 */
#ifndef PPL_FOLD_H
#define PPL_FOLD_H

#include "worker/digest.h"
#include "worker/kept.h"
#include "worker/worker.h"

/* A row that the statement handed to pipeline._put(). */
typedef struct PplPut
{
	int			ordinal;		/* of its event */
	int			number;			/* in the order in which they came */
	Datum	   *values;			/* the columns of the target, then its key */
	bool	   *nulls;
} PplPut;

/* A key whose row goes, because of an event. */
typedef struct PplGone
{
	int			ordinal;
	Datum	   *key;
	bool	   *nulls;
} PplGone;

/* What some events change in an output.  Both lists are in event order. */
typedef struct PplChange
{
	int			nstay;
	PplPut	  **stay;			/* rows that are written */
	int			ngone;
	PplGone    *gone;
	int			nsources;		/* of one that keeps: source rows whose stored
								 * rows go */
	PplDigest  *sources;
	int			nkept;			/* rows to be stored */
	PplKeptRow *kept;
} PplChange;

extern PplChange *ppl_fold(PplWorker *worker, const PplBatch *batch, int first,
						   int last, int output, PplPut *puts, int nputs);

#endif							/* PPL_FOLD_H */
