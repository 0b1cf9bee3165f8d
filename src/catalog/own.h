/*
 * own.h
 *		Which rows of outputs can be marked, so that nobody takes them for events.
 */
#ifndef PPL_OWN_H
#define PPL_OWN_H

#include "utils/relcache.h"

#include "catalog/target.h"

extern bool ppl_own_is_plain(Relation rel, const PplTarget *target,
							 const PplShape *row);
extern bool ppl_own_is_source(Oid relid);
extern bool ppl_own_try_lock(Oid relid);
extern void ppl_own_lock_source(Oid relid);

#endif							/* PPL_OWN_H */
