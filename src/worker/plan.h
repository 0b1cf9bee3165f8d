/*
 * plan.h
 *		A definition, ready to run: compiled, with its saved plans.
 */
#ifndef PPL_PLAN_H
#define PPL_PLAN_H

#include "executor/spi.h"
#include "storage/lockdefs.h"

#include "catalog/version.h"
#include "worker/compile.h"
#include "worker/digest.h"
#include "worker/gather.h"
#include "worker/row.h"

/* An output of mode upsert, ready to be written. */
typedef struct PplProgramUpsert
{
	PplDigester *target_digester;	/* of its key */
	SPIPlanPtr	remove_plan;
	SPIPlanPtr	insert_plan;
	SPIPlanPtr	clear_plan;
} PplProgramUpsert;

typedef struct PplProgram
{
	MemoryContext context;
	PplPipeline *pipeline;
	PplStatement *statement;
	int			version;		/* of the definition that events see */
	int			workers;		/* that share the events it is for */
	bool		adopted;		/* a new target, and that is not committed */
	bool		marking;		/* the transaction under way marks its rows */
	TupleDesc	source_desc;	/* rows of the source today */
	int			nkeys;			/* of the source's primary key */
	AttrNumber *key_attnums;
	Bitmapset  *primary_key;	/* the same */
	PplKey	   *source_key;		/* of its replica identity; for upserts only */
	TupleDesc	log_desc;		/* rows that are handed over */
	int		   *log_columns;	/* their columns, by those of the statement */
	bool		log_same;		/* these are the same */
	PplDigester *source_digester;
	Bitmapset  *key_columns;	/* of the source, with those of keys of
								 * outputs */
	PplProgramUpsert *upserts;	/* by output; zeros of append */
	SPIPlanPtr	small_plan;		/* for few events */
	SPIPlanPtr	large_plan;
	SPIPlanPtr *stage_plans;	/* [k] of the first k stages, or NULL */
	List	   *old_layouts;	/* of old.c, as they were needed */
	int			nbodies;
	PplBody   **bodies;			/* of the stages, as they were when it was
								 * loaded */
	bool		replaced;		/* a body is not that of the stage's version */
	PplRowMapper *rows;			/* from the layouts of events to source_desc */
} PplProgram;

/* A lock that somebody else is in the way of. */
typedef struct PplBusy
{
	Oid			relid;			/* invalid = none */
	LOCKMODE	lockmode;
} PplBusy;

extern void ppl_program_watch(void);
extern bool ppl_program_is_stale(void);
extern bool ppl_program_redefined(void);
extern void ppl_program_watch_definitions(void);
extern bool ppl_program_objects_changed(void);
extern PplProgram *ppl_program_load(MemoryContext parent, PplPlace place,
									int version);
extern bool ppl_program_lock(const PplProgram *program, Oid source,
							 PplBusy *busy);
extern bool ppl_program_holds(const PplProgram *program);
extern void ppl_program_begin(PplProgram *program);
extern void ppl_program_free(PplProgram *program);
extern void ppl_program_run(PplProgram *program, const PplBatch *batch,
							int first, int last, bool (*skip) (int ordinal));
extern void ppl_program_run_stages(PplProgram *program, const PplBatch *batch,
								   int ordinal, int nstages);
extern void ppl_program_trim_error(const PplProgram *program,
								   ErrorData *error);
extern bool ppl_program_takes(const PplProgram *program, const PplEvent *event);
extern const PplRow *ppl_program_row(PplProgram *program, const PplEvent *event);
extern const PplRow *ppl_program_key_row(PplProgram *program,
										 const PplEvent *event,
										 HeapTuple tuple);
extern void ppl_program_execute(PplProgram *program, SPIPlanPtr *plan,
								const char *sql, const char *relation,
								TupleDesc desc, Tuplestorestate *store,
								int estimate);
extern Tuplestorestate *ppl_program_store(void);

#endif							/* PPL_PLAN_H */
