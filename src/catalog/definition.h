/*
 * definition.h
 *		Definitions of pipelines, stages and outputs, as stored in _pipeline.
 */
#ifndef PPL_DEFINITION_H
#define PPL_DEFINITION_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "base/place.h"
#include "catalog/setting.h"

typedef enum PplStageKind
{
	PPL_STAGE_VALIDATE,
	PPL_STAGE_ENRICH,
	PPL_STAGE_TRANSFORM
} PplStageKind;

typedef enum PplOnError
{
	PPL_ON_ERROR_DEAD_LETTER,
	PPL_ON_ERROR_HALT,
	PPL_ON_ERROR_SKIP
} PplOnError;

typedef struct PplStage
{
	int			stage_id;
	char	   *name;
	PplStageKind kind;
	char	   *handler;		/* qualified signature, or NULL */
	char	   *query;			/* or NULL */
	PplOnError	on_error;
	int			max_attempts;	/* of a batch, at the pace of the moment */
	int			timeout;		/* ms for one event, 0 = none */
	int			version;		/* of this stage */
	int			segment;		/* that it runs in */
	PplSettings settings;
	char	   *body_md5;		/* of that version, NULL if it is not known */

	/* if it begins a segment behind a hand-over */
	int			workers;
	int			since;			/* definition version from which that holds */
	List	   *partition_by;	/* columns of that, char * */
	List	   *key;			/* the same by number and type, char * */
} PplStage;

typedef struct PplOutput
{
	int			output_id;
	char	   *name;
	Oid			target;
	char	   *target_name;	/* qualified, as it was declared */
	char	   *transform;		/* qualified signature, or NULL */
	bool		upsert;			/* else append */
	List	   *key;			/* of an upsert: columns of the target, char
								 * *; NIL = its primary key */
	bool		keeps;			/* an upsert that keeps what rows produced */
	List	   *source_key;		/* by which it does (ppl_key_words), char * */
	int			since;			/* definition version that added it */
	int			segment;		/* its own if it is isolated, else 0 */
} PplOutput;

/* How the events of a segment are shared out among its workers. */
typedef struct PplPartitioning
{
	bool		ordered;		/* strong: one worker */
	int			workers;
	int			since;			/* definition version from which that holds */
	List	   *columns;		/* partition_by, char *; NIL = by event id */
	List	   *key;			/* the same by number and type, char * */
	bool		chosen;			/* not declared: taken from keys of outputs */
} PplPartitioning;

typedef struct PplPipeline
{
	int			pipeline_id;
	char	   *name;
	Oid			owner;
	Oid			source;			/* of a segment behind a hand-over, the row
								 * type of its log */
	Oid			origin;			/* the source of the pipeline itself */
	uint16		operations;		/* PPL_OP_*, of source */
	List	   *former;			/* pairs of integers: the version that changed
								 * them, and what they were before it */
	uint16		reached;		/* a worker's part alone: in force where it
								 * is, if it is not at the last change yet */
	bool		lineage;		/* keep rows of lineage? */
	char	   *search_path;	/* for user code */
	bool		running;		/* what its owner asked for */
	bool		born;			/* was started at least once */
	XLogRecPtr	slot_lsn;		/* slot that it was born with */
	int			version;		/* of the definition */
	char	   *consistency;
	PplPartitioning partitioning;
	PplSettings settings;		/* where the first stage says nothing */
	List	   *stages;			/* PplStage *, in order */
	List	   *outputs;		/* PplOutput *, by output_id */
	int			next_segment;	/* number that was never used */
	List	   *lost;			/* segments whose backlog was too large, int */

	/* of a part alone, see ppl_definition_segment */
	int			segment;		/* 0 = this is the whole pipeline */
	int			upstream;		/* segment that hands over to it, 0 = none */
	bool		unordered;		/* in which several workers do so */
	char	   *hand;			/* what it hands over is named so, NULL = it
								 * hands nothing over */
	Oid			log;			/* row type of that, if it exists */
	bool		hands_keys;		/* with what tells source rows apart, as there
								 * are outputs of mode upsert behind */
} PplPipeline;

/* What one worker of a pipeline does. */
typedef struct PplShare
{
	PplPlace	place;
	int			upstream;		/* segment that hands over to it, 0 = none */
	Oid			source;			/* relation whose events it takes */
	uint16		operations;		/* PPL_OP_* of it */
	int			workers;		/* that share the events with it */
} PplShare;

/*
 * Which operations were in force in some version, in any version from this one on, and
 * in all that there ever were.
 */
extern uint16 ppl_definition_operations_at(const PplPipeline *pipeline,
										   int version);
extern uint16 ppl_definition_operations_since(const PplPipeline *pipeline,
											  int version);
extern uint16 ppl_definition_operations_always(const PplPipeline *pipeline);

/* What a segment takes from its source: all that is handed over to it, if it is behind. */
extern uint16 ppl_definition_takes(const PplPipeline *segment);

/* What holds for these stages, of the first of them or the pipeline; 0 = the server's. */
extern int	ppl_definition_setting(const PplPipeline *pipeline,
								   PplSetting setting);

/* How far a place has come. */
typedef struct PplPlaceVersion
{
	PplPlace	place;
	int			version;		/* of the definition */
} PplPlaceVersion;

/* All places that have begun, PplPlaceVersion *, in CurrentMemoryContext. */
extern List *ppl_definition_positions(void);

/* The shares of a pipeline's work, PplShare *, in CurrentMemoryContext. */
extern List *ppl_definition_shares(const PplPipeline *pipeline);

/*
 * Shares, and of their segments the places that are not among them any more, but have
 * not come to the change that says so.
 */
extern List *ppl_definition_remaining(const List *shares, const List *positions);

/* Which version has a place reached?  0 if it has not begun. */
extern int	ppl_definition_reached(const List *positions, PplPlace place);

/*
 * A segment as a small pipeline: its source, stages and outputs.  NULL if the
 * pipeline has none of this number, or if there is nothing for it to do.  Shares
 * memory with the whole.
 */
extern PplPipeline *ppl_definition_segment(const PplPipeline *pipeline,
										   int segment);

/* All of them, PplPipeline *, each behind those that hand over to it. */
extern List *ppl_definition_segments(const PplPipeline *pipeline);

/* The segment of the last stage, to which outputs belong. */
extern int	ppl_definition_last_segment(const PplPipeline *pipeline);

/* Name of the row type of what a segment hands over, in schema _pipeline. */
extern char *ppl_definition_log_name(int pipeline_id, int segment);

/* That type's relation, if it exists. */
extern Oid	ppl_definition_log(int pipeline_id, int segment);

/*
 * Read one definition under the active snapshot, into CurrentMemoryContext;
 * NULL if there is none.  Elevates itself: any role may be current.
 */
extern PplPipeline *ppl_definition_load(int pipeline_id);
extern PplPipeline *ppl_definition_load_by_name(const char *name);

/* The words of the SQL interface; the spellings stand in the tables. */
extern bool ppl_definition_kind(const char *word, PplStageKind *kind);
extern uint16 ppl_definition_operation(const char *word);

/* OID of the table of pipelines, whose relcache entry stands for them all. */
extern Oid	ppl_definition_relid(void);

/* All definitions that were born; for capture. */
extern List *ppl_definition_load_born(void);

/* Lock tag of a definition: share for a batch, exclusive for a change. */
extern void ppl_definition_lock(int pipeline_id, int lockmode);

/* The same in share mode, if it can be had at once. */
extern bool ppl_definition_try_lock(int pipeline_id);

/*
 * Run our own constant SQL with the rights of the bootstrap superuser and
 * search_path pinned to pg_catalog.  Between begin and end no user code may
 * run.  An error in between leaves restoring to transaction abort.
 */
typedef struct PplElevation
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} PplElevation;

extern void ppl_elevate_begin(PplElevation *elevation);
extern void ppl_elevate_end(const PplElevation *elevation);

#endif							/* PPL_DEFINITION_H */
