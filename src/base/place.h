/*
 * place.h
 *		The place of a worker: which share of which pipeline is its work.
 */
#ifndef PPL_PLACE_H
#define PPL_PLACE_H

typedef struct PplPlace
{
	int32		pipeline_id;
	int32		segment;		/* of the pipeline, from 1 */
	int32		partition;		/* of the segment, from 1 */
} PplPlace;

/* Some of the partitions of a segment: one. */
typedef struct PplPortion
{
	int32		workers;		/* there are so many */
	int32		partition;		/* beyond them: it has nothing */
} PplPortion;

static inline bool
ppl_place_equal(PplPlace a, PplPlace b)
{
	return a.pipeline_id == b.pipeline_id && a.segment == b.segment &&
		a.partition == b.partition;
}

#endif							/* PPL_PLACE_H */
