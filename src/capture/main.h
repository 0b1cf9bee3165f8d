/*
 * main.h
 *		Entry point of the capture process; nobody calls it but the postmaster.
 */
#ifndef PPL_CAPTURE_MAIN_H
#define PPL_CAPTURE_MAIN_H

extern PPL_EXPORT void pipeline_capture_main(Datum arg);

#endif							/* PPL_CAPTURE_MAIN_H */
