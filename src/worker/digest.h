/*
 * digest.h
 *		Short names of keys.
 */
#ifndef PPL_DIGEST_H
#define PPL_DIGEST_H

#include "fmgr.h"
#include "utils/uuid.h"

#include "catalog/key.h"

/* Equal keys have equal ones, and others differ, for all that will ever be. */
typedef struct PplDigest
{
	uint64		high;
	uint64		low;
} PplDigest;

/* How the columns of a key go into a digest. */
typedef struct PplDigester
{
	int			ncolumns;
	struct PplDigestColumn *columns;
} PplDigester;

extern PplDigester *ppl_digester_make(const PplKey *key);
extern PplDigest ppl_digest(PplDigester *digester, const Datum *values,
							const bool *nulls);
extern pg_uuid_t *ppl_digest_to_uuid(PplDigest digest);
extern PplDigest ppl_digest_from_uuid(const pg_uuid_t *uuid);

#endif							/* PPL_DIGEST_H */
