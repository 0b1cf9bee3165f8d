/*
 * outcome.h
 *		What became of each event of a batch.
 *
 * The compiled statement tells it through the functions pipeline._accept,
 * _pass, _reach, _mark and _produced; batch.c reads it afterwards.
 */
#ifndef PPL_OUTCOME_H
#define PPL_OUTCOME_H

#include "access/htup.h"
#include "nodes/pg_list.h"
#include "utils/palloc.h"

#include "worker/digest.h"

typedef enum PplFate
{
	PPL_FATE_OPEN = 0,			/* not run, or filtered without a reason */
	PPL_FATE_REJECTED,			/* by a validation, or without a match */
	PPL_FATE_FAILED				/* an error was blamed on it */
} PplFate;

/* What an event did to a row of an output. */
typedef enum PplRowChange
{
	PPL_ROW_WRITTEN,			/* inserted, or put in the place of another */
	PPL_ROW_SUPERSEDED,			/* not written, as a later event of the batch
								 * changes the same row */
	PPL_ROW_REMOVED,
	PPL_ROW_CLEARED				/* no row: all of them were removed */
} PplRowChange;

/* A row that an event produced in an output. */
typedef struct PplProducedRow
{
	struct PplProducedRow *next;	/* of the same event */
	PplRowChange change;
	int			output;
	int			nkeys;
	char	  **key;			/* as text, NULL = SQL NULL */
	HeapTuple	handed;			/* the row, of what is handed over */
} PplProducedRow;

typedef struct PplEventOutcome
{
	PplFate		fate;
	bool		excluded;		/* not to be run (again): its fate is final */
	bool		suspected;		/* excluded for a while, until others are run */
	bool		inert;			/* excluded, and what its row produced before
								 * cannot even be removed */
	int			stage;			/* rejected or failed in it; 0 = an output */
	int			output;			/* number of that output, -1 = unknown */
	int			reached;		/* last stage that passed a row of it on */
	char	   *reason;			/* of a rejection */
	struct ErrorData *error;	/* of a failure */
	PplProducedRow *rows;		/* in the order they were produced */
	PplProducedRow *last_row;
	PplProducedRow *removed;	/* whatever became of its own row */
	PplDigest	before;			/* keys of its source row, if somebody behind
								 * has to know */
	PplDigest	after;
	int			attempts;
} PplEventOutcome;

/* What passed a stage in one batch. */
typedef struct PplStageTally
{
	int64		events;			/* rows that entered */
	int64		rows;			/* rows that left */
	int64		microseconds;
	int64		errors;
} PplStageTally;

extern void ppl_outcome_begin(MemoryContext context, int nevents, int nstages,
							  bool want_keys, bool timed);
extern void ppl_outcome_add_times(int scale);
extern void ppl_outcome_reset(int first, int last);
extern bool ppl_outcome_excluded(int ordinal);
extern PplEventOutcome *ppl_outcome_of(int ordinal);
extern void ppl_outcome_require(int ordinal);
extern PplStageTally *ppl_outcome_tally(int stage);
extern int	ppl_outcome_current(void);
extern int	ppl_outcome_current_stage(void);
extern uint32 ppl_outcome_moves(void);
extern void ppl_outcome_set_current(int ordinal);
extern void ppl_outcome_clear_current(void);
extern void ppl_outcome_unpack(int ordinal);
extern bool ppl_outcome_unpacking(void);
extern int	ppl_outcome_current_output(void);
extern bool ppl_outcome_wants_keys(void);
extern void ppl_outcome_to_output(int ordinal, int output);
extern void ppl_outcome_cleared(int ordinal, int output);
extern void ppl_outcome_unseen(int ordinal, int output, PplRowChange change,
							   int nkeys, char **key);
extern void ppl_outcome_handed(int ordinal, int output, HeapTuple tuple);
extern PplStageTally *ppl_outcome_save_tallies(void);
extern void ppl_outcome_restore_tallies(const PplStageTally *saved);
extern void ppl_outcome_end(void);

#endif							/* PPL_OUTCOME_H */
