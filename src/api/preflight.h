/*
 * preflight.h
 *		Is everything there that a pipeline needs?
 */
#ifndef PPL_PREFLIGHT_H
#define PPL_PREFLIGHT_H

#include "base/shm.h"

extern PplDatabase *ppl_preflight(const char *function);

#endif							/* PPL_PREFLIGHT_H */
