/*
 * main.h
 *		The launcher: starts capture and workers.
 */
#ifndef PPL_LAUNCHER_MAIN_H
#define PPL_LAUNCHER_MAIN_H

extern void ppl_launcher_register(void);

#endif							/* PPL_LAUNCHER_MAIN_H */
