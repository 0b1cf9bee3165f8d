/*
 * worker.h
 *		State of a worker, shared by the files of this folder.
 */
#ifndef PPL_WORKER_H
#define PPL_WORKER_H

#include "base/shm.h"
#include "spool/reader.h"
#include "worker/checkpoint.h"
#include "worker/plan.h"

typedef struct PplWorker
{
	PplDatabase *db;
	PplConsumer *consumer;
	PplPlace	place;
	PplPartitioner *partitioner;	/* NULL = one worker for ever */
	MemoryContext partition_context;	/* it is here */
	int			pipeline_id;	/* the one of its place */
	char	   *name;			/* of the pipeline */
	bool		reads_source;	/* else what another segment hands over */
	PplSettings settings;		/* of its own, 0 = the server's */
	const PplPipeline *definition;	/* as of the last refresh, or NULL */
	MemoryContext definition_context;	/* it is here */
	MemoryContext context;		/* for the worker's life */
	PplSpoolReader *spool;
	PplSpoolReader *backlog;
	PplSpoolReader *reader;		/* the one of the two that batches come from */
	PplProgram *program;		/* NULL = not loaded */
	PplCheckpoint checkpoint;	/* as committed */
	int			code_version;	/* of the definition that the last batch ran;
								 * 0 = none yet */
	XLogRecPtr	slot_lsn;		/* of the slot that was there when it was read */
	bool		connected;
	uint32		stops;			/* of the consumer, when this worker began */
	bool		stuck;			/* its predecessor could not go on, and it has
								 * not been tried since */
	bool		stopped;		/* the definition says so, or is gone */
	uint64		chunks;			/* run so far */
	int			failures;		/* attempts in a row that had to wait */
	int			shortcuts;		/* waits in a row cut short by some change */
	TransactionId letters_seen; /* letters_xid that was acted on */
	bool		letters_waiting;	/* run queued dead letters next */
} PplWorker;

extern bool ppl_worker_disturbed(const PplWorker *worker);
extern PplPortion ppl_worker_portion(const PplWorker *worker);
extern PplSpoolPos ppl_worker_end(const PplWorker *worker);
extern bool ppl_worker_is_owner(PplWorker *worker,
								const PplPipeline *pipeline);
extern void ppl_worker_refresh(PplWorker *worker);
extern void ppl_worker_request(PplWorker *worker, PplGatherRequest *request);

#endif							/* PPL_WORKER_H */
