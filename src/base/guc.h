/*
 * guc.h
 *		Settings of the extension, all defined in guc.c.
 */
#ifndef PPL_GUC_H
#define PPL_GUC_H

/* Limits that hold for settings of a stage, too. */
#define PPL_MIN_BATCH_KB	64
#define PPL_MAX_BATCH_KB	(1024 * 1024)
#define PPL_MAX_BATCH_ROWS	1000000

extern int	ppl_guc_batch_bytes;	/* kB */
extern int	ppl_guc_batch_rows;
extern double ppl_guc_breaker_failures; /* share, 1 = off */
extern int	ppl_guc_breaker_window; /* events */
extern int	ppl_guc_dead_letter_limit;	/* rows, 0 = none */
extern int	ppl_guc_dead_letter_max_age;	/* s, 0 = none */
extern int	ppl_guc_max_backlog;	/* MB */
extern int	ppl_guc_max_databases;
extern int	ppl_guc_max_retained_wal;	/* MB */
extern int	ppl_guc_max_segments;
extern int	ppl_guc_max_workers;	/* 0 = no limit of ours */
extern int	ppl_guc_worker_idle_timeout;	/* ms, 0 = never */

extern void ppl_guc_define(void);

#endif							/* PPL_GUC_H */
