/*
 * main.h
 *		Entry point of a worker; nobody calls it but the postmaster.
 */
#ifndef PPL_WORKER_MAIN_H
#define PPL_WORKER_MAIN_H

extern PPL_EXPORT void pipeline_worker_main(Datum arg);

#endif							/* PPL_WORKER_MAIN_H */
