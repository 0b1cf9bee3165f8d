/*
 * owner.h
 *		Look at user code as the owner of a pipeline sees it.
 */
#ifndef PPL_OWNER_H
#define PPL_OWNER_H

#include "catalog/definition.h"

extern void ppl_owner_begin(PplElevation *saved, Oid owner,
							const char *search_path);
extern void ppl_owner_end(const PplElevation *saved);

#endif							/* PPL_OWNER_H */
