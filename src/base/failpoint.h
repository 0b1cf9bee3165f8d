/*
 * failpoint.h
 *		Places where a test can stop, fail or end a process.
 *
 * Real only in builds with FAILPOINTS=1; otherwise the macro is empty.
 * docs/debugging.md lists the names.
 */
#ifndef PPL_FAILPOINT_H
#define PPL_FAILPOINT_H

#ifdef PPL_FAILPOINTS
#define PPL_FAILPOINT(name) ppl_failpoint_hit(name)
#define PPL_FAILPOINT_FAILS(name) ppl_failpoint_fails(name)
extern void ppl_failpoint_hit(const char *name);
extern bool ppl_failpoint_fails(const char *name);
#else
#define PPL_FAILPOINT(name) ((void) 0)
#define PPL_FAILPOINT_FAILS(name) false
#endif

extern Size ppl_failpoint_shmem_size(void);
extern void ppl_failpoint_shmem_init(void);

#endif							/* PPL_FAILPOINT_H */
