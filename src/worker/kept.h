/*
 * kept.h
 *		What source rows have in upsert outputs, as stored in _pipeline.kept.
 */
#ifndef PPL_KEPT_H
#define PPL_KEPT_H

#include "base/place.h"
#include "spool/format.h"
#include "worker/digest.h"

/* A row of an output, and the source row that wrote it. */
typedef struct PplKeptRow
{
	PplDigest	source;
	PplPosition event;
	int			part;			/* of the event's rows here, from 1 */
	PplDigest	target;
	int			nkeys;
	char	  **key;			/* its values as text, NULL = SQL NULL */
	uint64		hash;			/* of the columns of partition_by */
	PplPosition last;			/* the last event that wrote a row of this
								 * key; set by ppl_kept_load */
} PplKeptRow;

extern int	ppl_kept_load(int output_id, PplPortion portion,
						  const PplDigest *sources, int nsources,
						  PplKeptRow **rows);
extern void ppl_kept_last(int output_id, const PplDigest *targets, int ntargets,
						  PplPosition *last);
extern void ppl_kept_remove(int output_id, PplPortion portion,
							const PplDigest *sources, int nsources);
extern void ppl_kept_add(int output_id, const PplKeptRow *rows, int nrows);
extern void ppl_kept_clear(int output_id);

#endif							/* PPL_KEPT_H */
