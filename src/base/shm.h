/*
 * shm.h
 *		All shared memory of the extension: one struct, one lock, atomics.
 *
 * Locks: shared->lock (LWLock) protects every field not marked atomic.  It is
 * a leaf: nothing else is acquired, no catalog read and no wait happens under
 * it.  Atomics are published in the order given beside them.
 *
 * Processes are woken by ppl_wake(procno): PGPROC structs never move, and a
 * latch set by mistake costs its owner one turn of a loop.
 */
#ifndef PPL_SHM_H
#define PPL_SHM_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

#include "base/place.h"

#define PPL_NO_PROC PG_UINT32_MAX
#define PPL_ERROR_LEN 512
#define PPL_LATENCY_BUCKETS 64

/* How soon after a change that may be the repair it is tried again. */
#define PPL_REPAIR_MS		100
#define PPL_REPAIR_SHIFT	6	/* up to 6.4 s */

typedef enum PplDatabaseState
{
	PPL_DB_CHECK = 1,			/* is the extension there? capture finds out */
	PPL_DB_SLOT,				/* capture is building the slot */
	PPL_DB_READY,				/* the slot is consistent, definitions work */
	PPL_DB_FAILED,				/* capture cannot work, error says why */
	PPL_DB_GONE,				/* no extension; the launcher frees the entry */
	PPL_DB_CLOSING				/* DROP DATABASE is under way */
} PplDatabaseState;

typedef enum PplWorkerState
{
	PPL_WORKER_IDLE = 0,		/* no process, none needed */
	PPL_WORKER_WAITING,			/* needs a process and found none free */
	PPL_WORKER_STARTING,
	PPL_WORKER_RUNNING,
	PPL_WORKER_RETRYING,
	PPL_WORKER_PAUSED,			/* more fails than is to be borne; probes */
	PPL_WORKER_FAILED,
	PPL_WORKER_LOST
} PplWorkerState;

/* How the launcher stands with one background process. */
typedef struct PplProcess
{
	pid_t		pid;			/* 0 = none attached */
	uint64		generation;		/* grows with each start that was ordered */
	bool		ordered;		/* registered, not attached yet */
	int			failures;		/* in a row */
	int64		not_before;		/* back-off, by ppl_clock_ms() */
	int64		ordered_at;		/* likewise */
	TimestampTz started_at;
	bool		leaving;		/* it gives its process to one that waits */
	pg_atomic_uint32 procno;	/* PPL_NO_PROC = none */
	pg_atomic_uint32 spare;		/* it sleeps, and would leave if one waits */
	pg_atomic_uint32 asked;		/* capture asked the launcher for it, and none
								 * came yet */
} PplProcess;

typedef struct PplError
{
	int			sqlstate;		/* 0 = no error */
	TimestampTz at;
	char		message[PPL_ERROR_LEN];
	char		detail[PPL_ERROR_LEN];
	char		hint[PPL_ERROR_LEN];
} PplError;

typedef struct PplDatabase
{
	Oid			dboid;			/* InvalidOid = free */
	PplDatabaseState state;
	TimestampTz since;			/* when state changed */
	PplProcess	capture;
	PplError	error;
	int64		logged_at;		/* when capture logged error, by
								 * ppl_clock_ms() */
	XLogRecPtr	slot_lsn;		/* where the slot was made; set before READY */
	uint32		next_segno;		/* first segment of the next capture, which
								 * alone writes it; outlives a reset */
	bool		recheck;		/* CREATE or DROP EXTENSION committed */
	uint64		secret;			/* of control messages; 0 = not known yet */
	/* atomics; capture publishes spool_end before decoded_lsn */
	pg_atomic_uint64 spool_start;	/* nothing before it can be read */
	pg_atomic_uint64 spool_end;
	pg_atomic_uint64 decoded_lsn;	/* all commits up to here are in the spool */
	pg_atomic_uint64 confirmed_lsn; /* of the slot */
	pg_atomic_uint64 wanted_lsn;	/* highest commit end a backend published */
	pg_atomic_uint32 mover_wanted;	/* some consumer's events shall move */
	pg_atomic_uint32 retired;	/* some consumer is */
	pg_atomic_uint32 has_consumers; /* else commits wake only once a segment */
	pg_atomic_uint32 capture_asleep;	/* 1 = needs its latch set */
	pg_atomic_uint32 has_stuck; /* some consumer may have failed or paused */
	pg_atomic_uint64 transactions;	/* replayed by this capture */
	ConditionVariable changed;	/* state, decoded_lsn or a consumer moved */
} PplDatabase;

/*
 * What a worker that left of its own accord has its successor know, so that
 * back-off, pauses and the breaker do not begin anew with each turn (turn.c).
 */
typedef struct PplTurn
{
	bool		valid;
	bool		stuck;			/* it could not go on; the state says how */
	uint32		stops;			/* of the consumer then: a restart forgets all */
	int			failures;		/* attempts in a row that had to wait */
	int			shortcuts;		/* waits in a row cut short by some change */
	int			probings;		/* of the breaker, in a row */
	int			breaker_failed; /* events of the window */
	int			breaker_span;	/* so many events ago was the first of them */
	int			breaker_calm;	/* events since it was closed */
	int			row_us;			/* microseconds an event, 0 = not known */
	TransactionId letters_seen; /* letters_xid that was acted on */
	int64		letters_open;	/* dead letters, -1 = not counted */
	TimestampTz letters_oldest;
	int			logged_sqlstate;	/* of the last error in the log */
	int64		logged_at;		/* likewise, by ppl_clock_ms() */
}			PplTurn;

/* One per (pipeline, segment, partition); made and removed by capture. */
typedef struct PplConsumer
{
	Oid			dboid;			/* InvalidOid = free */
	PplPlace	place;
	Oid			owner;
	Oid			source;			/* relation whose events it takes */
	uint16		operations;		/* PPL_OP_* of the source */
	bool		running;		/* what its owner asked for */
	bool		dropped;
	TransactionId reserved_by;	/* starts the pipeline, and may still fail;
								 * invalid once capture knows it */
	bool		lost;			/* nothing is held for it, until a new birth */
	bool		retired;		/* the segment has fewer workers now: capture
								 * drops it, unless it is wanted again */
	bool		barrier;		/* waits for the others at a change of their
								 * number; with no process until that is over */
	PplWorkerState state;
	TimestampTz since;			/* when state changed */
	PplProcess	process;
	uint64		ticket;			/* its place in the line of those that wait
								 * for a process; 0 = it does not */
	int64		queued_at;		/* since then, by ppl_clock_ms() */
	PplTurn		turn;
	PplError	error;

	/*
	 * atomics; the worker publishes commit_end, then its two positions; the
	 * mover commit_end, moved_lsn, moves, then read_pos
	 */
	pg_atomic_uint64 commit_end;	/* WAL end of its last commit */
	pg_atomic_uint64 processed_lsn; /* all transactions ending before are done */
	pg_atomic_uint64 read_pos;	/* spool position after the last record that
								 * is done, or moved to the backlog */
	pg_atomic_uint64 moved_lsn; /* all transactions ending before are done, or
								 * in the backlog */
	pg_atomic_uint64 moves;		/* counts steps of the mover */
	pg_atomic_uint64 moves_done;	/* so many when the worker found it empty */
	pg_atomic_uint32 move_wanted;	/* set by capture */
	pg_atomic_uint64 events_pos;	/* end of the last event meant for it;
									 * published before pending_pos */
	pg_atomic_uint64 pending_pos;	/* end of the last record meant for it */
	pg_atomic_uint32 letters_xid;	/* transaction that was the last to
									 * redrive or discard; written by capture */
	pg_atomic_uint32 stops;		/* how often it was told to stop; written by
								 * capture */
	pg_atomic_uint32 repairs;	/* changes that may mend what it fails at */
	pg_atomic_uint64 confirm_lsn;	/* capture only: the slot may go up to
									 * here */
	/* statistics since the slot was taken */
	pg_atomic_uint64 batches;
	pg_atomic_uint64 retries;
	pg_atomic_uint64 last_commit_time;	/* of the last event done */
	pg_atomic_uint64 rate_window;	/* see rate.h */
	pg_atomic_uint64 rate_events;
	pg_atomic_uint64 rate_before;
	pg_atomic_uint64 latency[PPL_LATENCY_BUCKETS];	/* events by commit to
													 * visible */
} PplConsumer;

typedef struct PplShared
{
	LWLock	   *lock;
	uint64		epoch;			/* this start of shared memory */
	PplProcess	launcher;
	PplProcess	mover;
	Oid			mover_dboid;	/* where it is connected */
	uint64		tickets;		/* given so far to consumers that wait */
	int			leaving;		/* processes that give way, and are there yet */
	int			gone;			/* that gave way, and whose place was not
								 * taken */
	int64		gone_at;		/* when the last of them did, by
								 * ppl_clock_ms() */
	pg_atomic_uint32 waiting;	/* so many more have to give way; the launcher
								 * sets it, who gives way takes one off */
	pg_atomic_uint64 next_segment_lsn;	/* commits beyond wake every capture */
	int			ndatabases;		/* slots, used or not */
	int			nconsumers;
	int			nused;			/* consumers beyond were never used; grows */
	pg_atomic_uint64 births;	/* counts the consumers that were made */
	PplDatabase *databases;
	PplConsumer *consumers;
} PplShared;

extern PplShared *ppl_shared;	/* NULL when not preloaded */

extern void ppl_shm_install(void);
extern void ppl_wake(pg_atomic_uint32 *procno);
extern void ppl_wake_launcher(void);
extern bool ppl_atomic_max(pg_atomic_uint64 *target, uint64 value);
extern PplDatabase *ppl_database_find(Oid dboid);
extern bool ppl_database_request(Oid dboid);
extern PplConsumer *ppl_consumer_find(Oid dboid, PplPlace place);
extern PplConsumer *ppl_consumer_create(Oid dboid, PplPlace place);
extern void ppl_consumer_open_barrier(Oid dboid, PplPlace place);
extern bool ppl_consumer_reserve(PplPlace place, TransactionId xid);
extern bool ppl_database_has_spool(PplDatabase *db);
extern bool ppl_consumer_spool_done(PplConsumer *consumer);
extern bool ppl_consumer_all_done(PplConsumer *consumer);
extern void ppl_consumer_set_state(PplConsumer *consumer, PplWorkerState state);
extern void ppl_database_set_state(PplDatabase *db, PplDatabaseState state);
extern void ppl_error_set(PplError *target, int sqlstate, const char *message,
						  const char *detail, const char *hint);

#endif							/* PPL_SHM_H */
