/*
 * reader.h
 *		Read the WAL through a decoding context.  Used by capture alone.
 */
#ifndef PPL_CAPTURE_READER_H
#define PPL_CAPTURE_READER_H

#include "access/xlogdefs.h"

extern void ppl_reader_open(void);
extern XLogRecPtr ppl_reader_advance(bool (*pause) (void));
extern void ppl_reader_close(void);

#endif							/* PPL_CAPTURE_READER_H */
