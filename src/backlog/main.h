/*
 * main.h
 *		The mover: from the spool to the backlog, where the WAL must go.
 */
#ifndef PPL_BACKLOG_MAIN_H
#define PPL_BACKLOG_MAIN_H

extern void ppl_mover_register(void);

#endif							/* PPL_BACKLOG_MAIN_H */
