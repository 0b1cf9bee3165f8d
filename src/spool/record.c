/*
 * record.c
 *		Encode and decode one record of the spool, in memory alone.
 *
 * Pure functions: no I/O, no catalogs, no state, no locks.  Capture encodes,
 * workers decode.  Results are allocated in the current memory context and
 * belong to the caller.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/tupdesc_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "spool/record.h"

/* The bytes of one missing value; a pass-by-value one is the Datum itself. */
#define MISSING_SIZE(size)	(sizeof(uint64) + MAXALIGN(size))

static uint64 body_length(const PplRecordHeader *header);
static uint32 body_checksum(const PplRecordHeader *header,
							const char *old_data, const char *new_data);
static void set_tuple(HeapTuple tuple, Oid relid, char *data, uint32 len);
static void set_origin(PplOriginId *origin, const PplRecordHeader *header,
					   const char *data);
static void corrupted(const char *detail) pg_attribute_noreturn();
static void append_missing(StringInfo buf, TupleDesc desc, int attno);
static void decode_column(Form_pg_attribute attr,
						  const PplSchemaColumn *column, Oid relid, int attno);
static const char *decode_missing(AttrMissing *missing, Form_pg_attribute attr,
								  const char *at, const char *end);

void
ppl_record_seal(PplRecordHeader *header, const char *old_data,
				const char *new_data)
{
	uint64		len = sizeof(PplRecordHeader) + body_length(header);

	/* Two tuples have at most 2 GB; a segment must stay below 4 GB. */
	if (len > UINT64CONST(3) * 1024 * 1024 * 1024)
		elog(ERROR, "spool record of " UINT64_FORMAT " bytes is too long", len);
	header->len = (uint32) len;
	header->checksum = body_checksum(header, old_data, new_data);
}

bool
ppl_record_header_valid(const PplRecordHeader *header)
{
	return header->kind >= PPL_REC_INSERT && header->kind <= PPL_REC_NEXT &&
		header->len == sizeof(PplRecordHeader) + body_length(header);
}

bool
ppl_record_wanted(const PplRecordHeader *header, int32 pipeline_id, Oid source,
				  uint16 operations)
{
	return header->relid == source && header->writer != pipeline_id &&
		(operations & ppl_record_operation(header->kind)) != 0;
}

uint16
ppl_record_operation(PplRecordKind kind)
{
	switch (kind)
	{
		case PPL_REC_INSERT:
			return PPL_OP_INSERT;
		case PPL_REC_UPDATE:
			return PPL_OP_UPDATE;
		case PPL_REC_DELETE:
			return PPL_OP_DELETE;
		case PPL_REC_TRUNCATE:
			return PPL_OP_TRUNCATE;
		case PPL_REC_CONTROL:
		case PPL_REC_SCHEMA:
		case PPL_REC_COMMIT:
		case PPL_REC_NEXT:
			break;
	}
	return 0;
}

void
ppl_record_decode(const PplRecordHeader *header, char *data,
				  PplSpoolRecord *record)
{
	char	   *old_data = data + sizeof(PplRecordHeader);
	char	   *new_data = old_data + MAXALIGN64(header->old_len);

	if (header->checksum != body_checksum(header, old_data, new_data))
		corrupted("The checksum of a record is wrong.");

	record->header = *header;
	record->old_tuple.t_data = NULL;
	record->new_tuple.t_data = NULL;
	switch ((PplRecordKind) header->kind)
	{
		case PPL_REC_INSERT:
		case PPL_REC_UPDATE:
		case PPL_REC_DELETE:
			if ((header->flags & PPL_REC_HANDED) != 0)
				set_origin(&record->origin, header, old_data);
			else
				set_tuple(&record->old_tuple, header->relid, old_data,
						  header->old_len);
			set_tuple(&record->new_tuple, header->relid, new_data,
					  header->new_len);
			break;
		case PPL_REC_CONTROL:
			if (header->new_len != sizeof(PplControl))
				corrupted("A control message has a wrong length.");
			memcpy(&record->control, new_data, sizeof(PplControl));
			break;
		case PPL_REC_TRUNCATE:
			if ((header->flags & PPL_REC_HANDED) != 0)
				set_origin(&record->origin, header, old_data);
			break;
		case PPL_REC_SCHEMA:
		case PPL_REC_COMMIT:
		case PPL_REC_NEXT:
			break;
	}
}

char *
ppl_record_encode_schema(const PplSpoolSchema *schema, uint32 *len)
{
	TupleDesc	desc = schema->desc;
	StringInfoData buf;
	PplSchemaBody body = {
		.natts = desc->natts,
		.replident = schema->replident,
	};

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (char *) &body, sizeof(body));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		PplSchemaColumn column;

		memset(&column, 0, sizeof(column));
		column.name = attr->attname;
		column.type = attr->atttypid;
		column.typmod = attr->atttypmod;
		column.collation = attr->attcollation;
		column.len = attr->attlen;
		column.byval = attr->attbyval;
		column.align = attr->attalign;
		column.storage = attr->attstorage;
		column.generated = attr->attgenerated;
		column.identity = attr->attidentity;
		column.notnull = attr->attnotnull;
		column.dropped = attr->attisdropped;
		column.hasmissing = attr->atthasmissing && desc->constr != NULL &&
			desc->constr->missing != NULL &&
			desc->constr->missing[i].am_present;
		column.replident = schema->in_old[i];
		appendBinaryStringInfo(&buf, (char *) &column, sizeof(column));
	}
	for (int i = 0; i < desc->natts; i++)
	{
		const PplSchemaColumn *columns = (PplSchemaColumn *)
		(buf.data + sizeof(body));

		if (columns[i].hasmissing)
			append_missing(&buf, desc, i);
	}
	*len = buf.len;
	return buf.data;
}

void
ppl_record_decode_schema(Oid relid, const char *body, uint32 len,
						 PplSpoolSchema *schema)
{
	const PplSchemaBody *head = (const PplSchemaBody *) body;
	const PplSchemaColumn *columns;
	const char *at;
	TupleDesc	desc;
	TupleConstr *constr;

	if (len < sizeof(*head) || head->natts > MaxTupleAttributeNumber ||
		(len - sizeof(*head)) / sizeof(*columns) < head->natts)
		corrupted("A schema is longer than its record.");
	columns = (const PplSchemaColumn *) (body + sizeof(*head));
	at = (const char *) &columns[head->natts];

	desc = CreateTemplateTupleDesc((int) head->natts);
	schema->relid = relid;
	schema->desc = desc;
	schema->replident = head->replident;
	schema->in_old = palloc0(desc->natts * sizeof(bool));
	constr = palloc0(sizeof(*constr));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		decode_column(attr, &columns[i], relid, i);
		schema->in_old[i] = columns[i].replident != 0;
		constr->has_not_null |= attr->attnotnull;
		constr->has_generated_stored |=
			attr->attgenerated == ATTRIBUTE_GENERATED_STORED;
		if (!attr->atthasmissing)
			continue;
		if (constr->missing == NULL)
			constr->missing = palloc0(mul_size(desc->natts,
											   sizeof(AttrMissing)));
		at = decode_missing(&constr->missing[i], attr, at, body + len);
	}
	if (constr->has_not_null || constr->has_generated_stored ||
		constr->missing != NULL)
		desc->constr = constr;
	else
		pfree(constr);
}

/*
 * Bytes after the header, with the zeros that align its parts.
 */
static uint64
body_length(const PplRecordHeader *header)
{
	return MAXALIGN64((uint64) header->old_len) +
		MAXALIGN64((uint64) header->new_len);
}

static uint32
body_checksum(const PplRecordHeader *header, const char *old_data,
			  const char *new_data)
{
#ifdef USE_ASSERT_CHECKING
	uint32		sum = 0;

	if (header->old_len > 0)
		sum = hash_bytes((const unsigned char *) old_data, header->old_len);
	if (header->new_len > 0)
		sum = hash_combine(sum, hash_bytes((const unsigned char *) new_data,
										   header->new_len));
	return sum;
#else
	return 0;
#endif
}

static void
set_tuple(HeapTuple tuple, Oid relid, char *data, uint32 len)
{
	if (len == 0)
		return;
	if (len < SizeofHeapTupleHeader)
		corrupted("A tuple is shorter than its header.");
	tuple->t_len = len;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = relid;
	tuple->t_data = (HeapTupleHeader) data;
}

static void
set_origin(PplOriginId *origin, const PplRecordHeader *header, const char *data)
{
	if (header->old_len != sizeof(*origin))
		corrupted("The origin of a row has a wrong length.");
	memcpy(origin, data, sizeof(*origin));
}

static void
corrupted(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("spool record is corrupted"),
			 errdetail_internal("%s", detail),
			 errhint("The spool is written again from the WAL when capture starts anew.")));
}

static void
append_missing(StringInfo buf, TupleDesc desc, int attno)
{
	static const char zeros[MAXIMUM_ALIGNOF] = {0};
	Form_pg_attribute attr = TupleDescAttr(desc, attno);
	Datum		value = desc->constr->missing[attno].am_value;
	uint64		size = attr->attbyval ? sizeof(Datum) :
	datumGetSize(value, false, attr->attlen);

	appendBinaryStringInfo(buf, (char *) &size, sizeof(size));
	appendBinaryStringInfo(buf,
						   attr->attbyval ? (char *) &value : DatumGetPointer(value),
						   size);
	appendBinaryStringInfo(buf, zeros, MAXALIGN(size) - size);
}

static void
decode_column(Form_pg_attribute attr, const PplSchemaColumn *column, Oid relid,
			  int attno)
{
	memset(attr, 0, ATTRIBUTE_FIXED_PART_SIZE);
	attr->attrelid = relid;
	attr->attname = column->name;
	attr->atttypid = column->type;
	attr->atttypmod = column->typmod;
	attr->attcollation = column->collation;
	attr->attlen = column->len;
	attr->attnum = attno + 1;
	attr->attcacheoff = -1;
	attr->attbyval = column->byval;
	attr->attalign = column->align;
	attr->attstorage = column->storage;
	attr->attgenerated = column->generated;
	attr->attidentity = column->identity;
	attr->attnotnull = column->notnull;
	attr->attisdropped = column->dropped;
	attr->atthasmissing = column->hasmissing;
	attr->attislocal = true;
}

/*
 * Copy one missing value out of the body; returns where the next one begins.
 */
static const char *
decode_missing(AttrMissing *missing, Form_pg_attribute attr, const char *at,
			   const char *end)
{
	uint64		size;

	if (end - at < sizeof(size))
		corrupted("A schema ends within a missing value.");
	memcpy(&size, at, sizeof(size));
	if (size > MaxAllocSize || end - at < MISSING_SIZE(size))
		corrupted("A schema ends within a missing value.");
	at += sizeof(size);

	missing->am_present = true;
	if (attr->attbyval)
		memcpy(&missing->am_value, at, sizeof(Datum));
	else
	{
		char	   *copy = palloc(size);

		memcpy(copy, at, size);
		missing->am_value = PointerGetDatum(copy);
	}
	return at + MAXALIGN(size);
}
