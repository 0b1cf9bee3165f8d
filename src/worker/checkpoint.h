/*
 * checkpoint.h
 *		Position, counts and the batch's record: what commits with the outputs.
 */
#ifndef PPL_CHECKPOINT_H
#define PPL_CHECKPOINT_H

#include "base/place.h"
#include "worker/gather.h"

typedef struct PplCheckpoint
{
	bool		exists;
	bool		foreign;		/* made for another slot than ours */
	PplPosition position;
	int			version;		/* of the definition reached */
	int			workers;		/* partitions that share the events from here */
	int			since;			/* version from which so many do */
} PplCheckpoint;

/* Number of what is handed over, among outputs. */
#define PPL_HAND_ID		(-1)

/* Events of one output by what became of them. */
typedef struct PplCounts
{
	int64		events;
	int64		produced;
	int64		filtered;
	int64		rejected;
	int64		failed;
} PplCounts;

/* All that one batch adds to our tables but its dead letters. */
typedef struct PplBatchRecord
{
	PplPlace	place;
	int			version;		/* that the events see */
	int			code_version;	/* whose stages ran */
	bool		redrive;		/* else the checkpoint moves from before to
								 * position */
	PplPosition before;
	PplPosition first;
	PplPosition position;
	int			transactions;
	int			attempts;
	TimestampTz started_at;
	int			noutputs;
	int		   *output_ids;		/* [0] is 0: the segment itself */
	PplCounts  *counts;
	int			nstages;
	int		   *stage_ids;
	struct PplStageTally *tallies;
	bytea	   *lineage;		/* or NULL */
} PplBatchRecord;

extern void ppl_checkpoint_load(PplPlace place, PplCheckpoint *checkpoint);
extern bool ppl_checkpoint_confirm(PplPlace place, PplCheckpoint *checkpoint);
extern void ppl_checkpoint_birth(PplPlace place, PplPosition position,
								 int version, int workers);
extern void ppl_checkpoint_version(PplPlace place, PplPosition position,
								   int version);
extern int64 ppl_checkpoint_record(const PplBatchRecord *record);

#endif							/* PPL_CHECKPOINT_H */
