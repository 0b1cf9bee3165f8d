/*
 * digest.c
 *		Short names of keys.
 *
 * Values that are equal by the type's hash function get the same digest, however
 * they look (1.0 and 1.00).  A type that has none goes by its bytes.  Digests are
 * stored (_pipeline.kept), and do not change between servers of one architecture.
 *
 * Runs in a worker, in the batch's transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/hashfn.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "worker/digest.h"

#define PPL_SEED_HIGH	UINT64CONST(0x70697065)
#define PPL_SEED_LOW	UINT64CONST(0x6C696E65)
#define PPL_NULL_HASH	UINT64CONST(0x6E756C6C)

struct PplDigestColumn
{
	Oid			collation;
	bool		hashed;			/* by function, else by its bytes */
	FmgrInfo	function;
	int16		len;
	bool		byval;
};

/*
 * For keys with these columns, in CurrentMemoryContext.
 */
PplDigester *
ppl_digester_make(const PplKey *key)
{
	PplDigester *digester = palloc0(sizeof(*digester));

	digester->ncolumns = key->ncolumns;
	digester->columns = palloc0(key->ncolumns * sizeof(struct PplDigestColumn));
	for (int i = 0; i < key->ncolumns; i++)
	{
		struct PplDigestColumn *column = &digester->columns[i];
		TypeCacheEntry *type = lookup_type_cache(getBaseType(key->columns[i].type),
												 TYPECACHE_HASH_EXTENDED_PROC);

		column->collation = key->columns[i].collation;
		column->hashed = OidIsValid(type->hash_extended_proc);
		if (column->hashed)
			fmgr_info(type->hash_extended_proc, &column->function);
		column->len = type->typlen;
		column->byval = type->typbyval;
	}
	return digester;
}

static uint64
hash_bytes_of(const struct PplDigestColumn *column, Datum value, uint64 seed)
{
	if (column->byval)
		return hash_bytes_extended((unsigned char *) &value, sizeof(value), seed);
	if (column->len == -1)
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

		return hash_bytes_extended((unsigned char *) VARDATA_ANY(bytes),
								   VARSIZE_ANY_EXHDR(bytes), seed);
	}
	return hash_bytes_extended((unsigned char *) DatumGetPointer(value),
							   column->len == -2 ? strlen(DatumGetCString(value)) :
							   column->len, seed);
}

static uint64
hash_value(struct PplDigestColumn *column, Datum value, uint64 seed)
{
	if (!column->hashed)
		return hash_bytes_of(column, value, seed);
	return DatumGetUInt64(FunctionCall2Coll(&column->function, column->collation,
											value, Int64GetDatum((int64) seed)));
}

/*
 * The digest of one key.  May leave memory in CurrentMemoryContext; throws what
 * the hash functions of user types throw.
 */
PplDigest
ppl_digest(PplDigester *digester, const Datum *values, const bool *nulls)
{
	PplDigest	digest = {PPL_SEED_HIGH, PPL_SEED_LOW};

	for (int i = 0; i < digester->ncolumns; i++)
	{
		struct PplDigestColumn *column = &digester->columns[i];

		digest.high = hash_combine64(digest.high, nulls[i] ? PPL_NULL_HASH :
									 hash_value(column, values[i], PPL_SEED_HIGH));
		digest.low = hash_combine64(digest.low, nulls[i] ? PPL_NULL_HASH :
									hash_value(column, values[i], PPL_SEED_LOW));
	}
	return digest;
}

/*
 * As it is stored, in CurrentMemoryContext.
 */
pg_uuid_t *
ppl_digest_to_uuid(PplDigest digest)
{
	pg_uuid_t  *uuid = palloc(sizeof(*uuid));

	StaticAssertStmt(sizeof(digest) == UUID_LEN, "a digest is not as long as a uuid");
	memcpy(uuid->data, &digest, UUID_LEN);
	return uuid;
}

/*
 * And back.
 */
PplDigest
ppl_digest_from_uuid(const pg_uuid_t *uuid)
{
	PplDigest	digest;

	memcpy(&digest, uuid->data, UUID_LEN);
	return digest;
}
