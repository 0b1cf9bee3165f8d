/*
 * identity.h
 *		Which slot the definitions of this database belong to.
 */
#ifndef PPL_IDENTITY_H
#define PPL_IDENTITY_H

#include "access/xlogdefs.h"

/*
 * A dump that is restored, a base backup, a database made from a template all
 * bring definitions with them, but not the slot: what was made elsewhere has
 * another identity.
 */
typedef struct PplIdentity
{
	uint64		system_identifier;
	Oid			database;
	TimeLineID	timeline;		/* on which the slot was made */
	XLogRecPtr	slot_lsn;		/* where the slot was made */
	uint64		secret;			/* of control messages, never 0 */
} PplIdentity;

extern bool ppl_identity_load(PplIdentity *identity);
extern bool ppl_identity_is_ours(const PplIdentity *identity);
extern void ppl_identity_store(PplIdentity *identity);

#endif							/* PPL_IDENTITY_H */
