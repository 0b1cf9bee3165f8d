/*
 * digest.c
 *		Short names of keys.
 *
 * A digest is a hash of 128 bits of a form of the value that is the same for all
 * values that are equal, and for no others.  The type's own hash functions will not
 * do: many fold a value to 32 bits before the seed comes in.  So for most types it
 * is the bytes of the value (those whose index may be deduplicated: equal values
 * look alike), for some a form that is made here.  Types of which nothing is known
 * but a hash function are trusted to have a good one.  Arrays, ranges, records and
 * jsonb go by their text: in them 1.0 and 1.00 differ.  So do enums, whose OIDs
 * are others after a restore.
 *
 * Digests are stored (_pipeline.kept), and do not change between servers of one
 * architecture, nor with settings: the caller has pinned the formats of text
 * (session.c).  Runs in a worker, in the batch's transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/nbtree.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "common/int128.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "worker/digest.h"

#define PPL_SEED_HIGH	UINT64CONST(0x70697065)
#define PPL_SEED_LOW	UINT64CONST(0x6C696E65)
#define PPL_NULL_HASH	UINT64CONST(0x6E756C6C)

/* What is hashed of a value. */
typedef enum DigestForm
{
	FORM_BYTES,
	FORM_NUMERIC,				/* without zeros at its end */
	FORM_FLOAT4,				/* one zero, one NaN */
	FORM_FLOAT8,
	FORM_INTERVAL,				/* a month has 30 days, a day 24 hours */
	FORM_BPCHAR,				/* without blanks at its end */
	FORM_TEXT,					/* what the output function makes of it */
	FORM_HASH					/* the type's hash function */
} DigestForm;

struct PplDigestColumn
{
	DigestForm	form;
	Oid			collation;
	FmgrInfo	function;		/* output or hash */
	int16		len;
	bool		byval;
};

/* Do equal values of a type have the same bytes? */
static bool
is_equal_image(Oid type, Oid collation)
{
	Oid			opclass = GetDefaultOpClass(type, BTREE_AM_OID);
	Oid			input;
	Oid			proc;

	if (!OidIsValid(opclass))
		return false;
	input = get_opclass_input_type(opclass);
	proc = get_opfamily_proc(get_opclass_family(opclass), input, input,
							 BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		DatumGetBool(OidFunctionCall1Coll(proc, collation, ObjectIdGetDatum(input)));
}

static DigestForm
form_of(Oid type, Oid collation)
{
	switch (type)
	{
		case NUMERICOID:
			return FORM_NUMERIC;
		case FLOAT4OID:
			return FORM_FLOAT4;
		case FLOAT8OID:
			return FORM_FLOAT8;
		case INTERVALOID:
			return FORM_INTERVAL;
		case BPCHAROID:
			return get_collation_isdeterministic(collation) ? FORM_BPCHAR : FORM_HASH;
		case TIMETZOID:
			return FORM_BYTES;
		case JSONBOID:
			return FORM_TEXT;
	}
	switch (get_typtype(type))
	{
		case TYPTYPE_COMPOSITE:
		case TYPTYPE_RANGE:
		case TYPTYPE_MULTIRANGE:
		case TYPTYPE_ENUM:
			return FORM_TEXT;
	}
	if (OidIsValid(get_element_type(type)))
		return FORM_TEXT;
	if (is_equal_image(type, collation))
		return FORM_BYTES;
	return OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc) ?
		FORM_HASH : FORM_BYTES;
}

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
		Oid			type = getBaseType(key->columns[i].type);
		Oid			function;
		bool		is_varlena;

		column->collation = key->columns[i].collation;
		column->form = form_of(type, column->collation);
		get_typlenbyval(type, &column->len, &column->byval);
		if (column->form == FORM_TEXT)
		{
			getTypeOutputInfo(type, &function, &is_varlena);
			fmgr_info(function, &column->function);
		}
		else if (column->form == FORM_HASH)
			fmgr_info(lookup_type_cache(type, TYPECACHE_HASH_EXTENDED_PROC)->hash_extended_proc,
					  &column->function);
	}
	return digester;
}

/* Both halves for some bytes. */
static PplDigest
digest_bytes(const void *bytes, Size len)
{
	PplDigest	digest;

	digest.high = hash_bytes_extended(bytes, (int) len, PPL_SEED_HIGH);
	digest.low = hash_bytes_extended(bytes, (int) len, PPL_SEED_LOW);
	return digest;
}

static PplDigest
digest_string(const char *string)
{
	return digest_bytes(string, strlen(string));
}

static PplDigest
digest_varlena(Datum value, bool blanks)
{
	struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);
	Size		len = VARSIZE_ANY_EXHDR(bytes);

	while (!blanks && len > 0 && VARDATA_ANY(bytes)[len - 1] == ' ')
		len--;
	return digest_bytes(VARDATA_ANY(bytes), len);
}

static PplDigest
digest_image(const struct PplDigestColumn *column, Datum value)
{
	if (column->byval)
		return digest_bytes(&value, sizeof(value));
	if (column->len == -1)
		return digest_varlena(value, true);
	if (column->len == -2)
		return digest_string(DatumGetCString(value));
	return digest_bytes(DatumGetPointer(value), column->len);
}

static PplDigest
digest_float(float8 value)
{
	if (isnan(value))
		value = get_float8_nan();
	else if (value == 0)
		value = 0;
	return digest_bytes(&value, sizeof(value));
}

static PplDigest
digest_interval(const Interval *interval)
{
	INT128		span = int64_to_int128(interval->time);

	int128_add_int64_mul_int64(&span, interval->month * INT64CONST(30) + interval->day,
							   USECS_PER_DAY);
	return digest_bytes(&span, sizeof(span));
}

static PplDigest
digest_hash(struct PplDigestColumn *column, Datum value)
{
	PplDigest	digest;

	digest.high = DatumGetUInt64(FunctionCall2Coll(&column->function, column->collation, value,
												   Int64GetDatum((int64) PPL_SEED_HIGH)));
	digest.low = DatumGetUInt64(FunctionCall2Coll(&column->function, column->collation, value,
												  Int64GetDatum((int64) PPL_SEED_LOW)));
	return digest;
}

static PplDigest
digest_value(struct PplDigestColumn *column, Datum value)
{
	switch (column->form)
	{
		case FORM_BYTES:
			return digest_image(column, value);
		case FORM_NUMERIC:
			return digest_string(numeric_normalize(DatumGetNumeric(value)));
		case FORM_FLOAT4:
			return digest_float(DatumGetFloat4(value));
		case FORM_FLOAT8:
			return digest_float(DatumGetFloat8(value));
		case FORM_INTERVAL:
			return digest_interval(DatumGetIntervalP(value));
		case FORM_BPCHAR:
			return digest_varlena(value, false);
		case FORM_TEXT:
			return digest_string(OutputFunctionCall(&column->function, value));
		case FORM_HASH:
			return digest_hash(column, value);
	}
	pg_unreachable();
}

/*
 * The digest of one key.  May leave memory in CurrentMemoryContext; throws what
 * the functions of user types throw.
 */
PplDigest
ppl_digest(PplDigester *digester, const Datum *values, const bool *nulls)
{
	PplDigest	digest = {PPL_SEED_HIGH, PPL_SEED_LOW};

	for (int i = 0; i < digester->ncolumns; i++)
	{
		PplDigest	column = {PPL_NULL_HASH, PPL_NULL_HASH};

		if (!nulls[i])
			column = digest_value(&digester->columns[i], values[i]);
		digest.high = hash_combine64(digest.high, column.high);
		digest.low = hash_combine64(digest.low, column.low);
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
