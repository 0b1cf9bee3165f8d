/*
 * process.h
 *		What our processes have in common: launcher, mover, capture, workers.
 */
#ifndef PPL_PROCESS_H
#define PPL_PROCESS_H

#include "postmaster/bgworker.h"

#include "base/shm.h"

/* Travels in bgw_extra: which order of the launcher this process answers. */
typedef struct PplOrder
{
	uint64		generation;
	Oid			dboid;
	PplPlace	place;			/* of a worker */
} PplOrder;

extern void ppl_process_describe(BackgroundWorker *worker, const char *kind,
								 const char *function);
extern void ppl_process_signals(bool cancellable);
extern void ppl_process_set_up_session(void);
extern bool ppl_process_attach(PplProcess *process, uint64 generation);
extern void ppl_process_exit(void) pg_attribute_noreturn();
extern void ppl_process_exit_early(void) pg_attribute_noreturn();
extern void ppl_process_steady(void);
extern int	ppl_process_failures(void);
extern void ppl_process_wait(long timeout_ms);
extern void ppl_process_wait_spare(long timeout_ms);
extern void ppl_process_check(void);
extern bool ppl_process_interrupts(void);

#endif							/* PPL_PROCESS_H */
