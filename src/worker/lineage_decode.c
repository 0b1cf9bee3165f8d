/*
 * lineage_decode.c
 *		Read the lineage of one batch from its binary value.
 *
 * Runs in the backends that ask for lineage.  lineage.h has the format.  The
 * bytes are not trusted: each read is checked against the end, and no number
 * in them makes more memory or more rows than there are bytes.
 *
 * Memory: all in the current context, to live as long as the decoding; only
 * the header and the texts of reasons take any.  The rows of an output share
 * one array of values, texts stay where they are in the value.
 */
#include "postgres.h"
#include "base/compat.h"

#include "common/int.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"

#include "worker/lineage.h"

/* Digits of an int64, sign and terminator. */
#define INTEGER_LEN 21

typedef struct KeyReader
{
	int			nkeys;
	int64	   *last;			/* integers before */
	char	   *digits;			/* INTEGER_LEN for each column */
	PplLineageValue *values;
} KeyReader;

typedef struct Decoder
{
	const uint8 *at;
	const uint8 *end;
	PplLineageHeader header;
	KeyReader	source;
	KeyReader  *outputs;
	List	   *reasons;		/* char * */
	bool		in_transaction;
	PplLineageRow row;			/* what the callback gets */
	PplLineageCallback callback;
	void	   *arg;
} Decoder;

static void corrupted(const char *detail) pg_attribute_noreturn();
static uint8 get_byte(Decoder *d);
static uint64 get_varint(Decoder *d);
static int64 get_delta(Decoder *d, int64 last);
static int	get_count(Decoder *d);
static const char *get_bytes(Decoder *d, uint64 len);
static char *get_string(Decoder *d);
static int	get_columns(Decoder *d, PplLineageColumn **columns);
static void make_key_reader(KeyReader *reader, int nkeys);
static void get_header(Decoder *d);
static void get_transaction(Decoder *d);
static void get_event(Decoder *d, uint8 flags);
static const char *get_reason(Decoder *d);
static void get_output(Decoder *d, int output, bool simple);
static PplLineageChange get_change(Decoder *d);
static void get_key(Decoder *d, KeyReader *reader, const KeyReader *same);
static void get_integer(KeyReader *reader, int column, uint64 zigzag);

void
ppl_lineage_decode(const char *data, Size len, PplLineageCallback callback,
				   void *arg)
{
	Decoder		d;

	memset(&d, 0, sizeof(d));
	d.at = (const uint8 *) data;
	d.end = d.at + len;
	d.callback = callback;
	d.arg = arg;
	get_header(&d);

	while (d.at < d.end)
	{
		uint8		flags = get_byte(&d);

		CHECK_FOR_INTERRUPTS();
		if ((flags & PPL_LINEAGE_EV_OPERATION) == 0)
		{
			if (flags != 0)
				corrupted("An entry is of an unknown kind.");
			get_transaction(&d);
			continue;
		}
		get_event(&d, flags);
		for (int i = 0; i < d.header.noutputs; i++)
			get_output(&d, i, (flags & PPL_LINEAGE_EV_SIMPLE) != 0);
	}
}

static void
corrupted(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("lineage of a batch is corrupted"),
			 errdetail_internal("%s", detail)));
}

static uint8
get_byte(Decoder *d)
{
	if (d->at >= d->end)
		corrupted("It ends too early.");
	return *d->at++;
}

static uint64
get_varint(Decoder *d)
{
	uint64		value = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		uint8		byte = get_byte(d);

		if (shift == 63 && byte > 1)
			break;
		value |= (uint64) (byte & 0x7F) << shift;
		if ((byte & 0x80) == 0)
			return value;
	}
	corrupted("A number has more than 64 bits.");
}

static int64
get_delta(Decoder *d, int64 last)
{
	uint64		zigzag = get_varint(d);

	return (int64) ((uint64) last + ((zigzag >> 1) ^ -(zigzag & 1)));
}

/*
 * A number of columns or outputs.
 */
static int
get_count(Decoder *d)
{
	uint64		count = get_varint(d);

	if (count > PPL_LINEAGE_MAX_COUNT)
		corrupted("A number is too large.");
	return (int) count;
}

static const char *
get_bytes(Decoder *d, uint64 len)
{
	const char *bytes = (const char *) d->at;

	if (len > d->end - d->at)
		corrupted("A string is longer than the value.");
	if (!pg_verify_mbstr(GetDatabaseEncoding(), bytes, (int) len, true))
		corrupted("A string is not in the encoding of the database.");
	d->at += len;
	return bytes;
}

static char *
get_string(Decoder *d)
{
	uint64		len = get_varint(d);
	const char *bytes = get_bytes(d, len);

	return pnstrdup(bytes, (Size) len);
}

static int
get_columns(Decoder *d, PplLineageColumn **columns)
{
	int			n = get_count(d);

	*columns = palloc0(mul_size(n, sizeof(PplLineageColumn)));
	for (int i = 0; i < n; i++)
	{
		uint8		kind;

		(*columns)[i].name = get_string(d);
		kind = get_byte(d);
		if (kind > PPL_LINEAGE_BOOLEAN)
			corrupted("A key column is of an unknown kind.");
		(*columns)[i].kind = kind;
	}
	return n;
}

static void
make_key_reader(KeyReader *reader, int nkeys)
{
	reader->nkeys = nkeys;
	reader->last = palloc0(mul_size(nkeys, sizeof(int64)));
	reader->digits = palloc(mul_size(nkeys, INTEGER_LEN));
	reader->values = palloc0(mul_size(nkeys, sizeof(PplLineageValue)));
}

static void
get_header(Decoder *d)
{
	PplLineageHeader *header = &d->header;
	uint64		source;

	switch (get_byte(d))
	{
		case PPL_LINEAGE_VERSION:
			break;
		case PPL_LINEAGE_VERSION_PARTS:
			header->parts = true;
			break;
		default:
			corrupted("Its format is unknown.");
	}
	source = get_varint(d);
	if (source > PG_UINT32_MAX)
		corrupted("The source is no relation.");
	header->source = (Oid) source;
	header->nkeys = get_columns(d, &header->keys);
	make_key_reader(&d->source, header->nkeys);

	header->noutputs = get_count(d);
	header->outputs = palloc0(mul_size(header->noutputs,
									   sizeof(PplLineageOutput)));
	d->outputs = palloc0(mul_size(header->noutputs, sizeof(KeyReader)));
	for (int i = 0; i < header->noutputs; i++)
	{
		PplLineageOutput *output = &header->outputs[i];

		output->name = get_string(d);
		output->nkeys = get_columns(d, &output->keys);
		make_key_reader(&d->outputs[i], output->nkeys);
	}
}

static void
get_transaction(Decoder *d)
{
	PplLineageRow *row = &d->row;

	row->xid = (TransactionId) get_delta(d, row->xid);
	row->commit_lsn = (XLogRecPtr) get_delta(d, (int64) row->commit_lsn);
	row->committed_at = get_delta(d, row->committed_at);
	row->seq = 0;
	if (!IS_VALID_TIMESTAMP(row->committed_at))
		corrupted("A commit time is out of range.");
	d->in_transaction = true;
}

/*
 * An event up to its outputs.
 */
static void
get_event(Decoder *d, uint8 flags)
{
	PplLineageRow *row = &d->row;

	row->operation = flags & PPL_LINEAGE_EV_OPERATION;
	if (row->operation > PPL_REC_TRUNCATE)
		corrupted("An operation is unknown.");
	if (!d->in_transaction)
		corrupted("An event has no transaction.");

	row->event++;
	if ((flags & PPL_LINEAGE_EV_NEXT_SEQ) == 0)
		row->seq = (int) get_delta(d, row->seq);
	else if (pg_add_s32_overflow(row->seq, 1, &row->seq))
		corrupted("The number of an event is out of range.");
	row->event_part = d->header.parts ? (int) get_varint(d) : 1;
	row->attempts = 1;
	if ((flags & PPL_LINEAGE_EV_ATTEMPTS) != 0)
		row->attempts = (int) get_varint(d);
	row->reason = NULL;
	if ((flags & PPL_LINEAGE_EV_REASON) != 0)
		row->reason = get_reason(d);
	row->source_key = NULL;
	if ((flags & PPL_LINEAGE_EV_KEY) != 0)
	{
		get_key(d, &d->source, NULL);
		row->source_key = d->source.values;
	}
}

static const char *
get_reason(Decoder *d)
{
	uint64		n = get_varint(d);
	char	   *reason;

	if (n > list_length(d->reasons))
		corrupted("A reason refers to one that is not there.");
	if (n > 0)
		return list_nth(d->reasons, (int) n - 1);

	reason = get_string(d);
	d->reasons = lappend(d->reasons, reason);
	return reason;
}

/*
 * What became of the current event in one output.
 */
static void
get_output(Decoder *d, int output, bool simple)
{
	PplLineageRow *row = &d->row;
	KeyReader  *reader = &d->outputs[output];
	uint64		nrows = 1;

	row->output = output;
	row->outcome = PPL_LINEAGE_PRODUCED;
	row->change = PPL_LINEAGE_WRITTEN;
	row->output_key = NULL;
	row->part = row->event_part;
	if (!simple)
	{
		nrows = get_varint(d);
		row->outcome = nrows & 3;
		nrows >>= 2;
		if (nrows > d->end - d->at)
			corrupted("A number is too large.");
		if (nrows == 0)
			d->callback(&d->header, row, d->arg);
	}

	for (uint64 i = 0; i < nrows; i++)
	{
		CHECK_FOR_INTERRUPTS();
		row->change = get_change(d);
		if (reader->nkeys > 0)
		{
			get_key(d, reader, row->source_key != NULL ? &d->source : NULL);
			row->output_key = reader->values;
		}
		else if (get_byte(d) != 0)
			corrupted("A row without key has one.");
		if (!d->header.parts)
			row->part = (int) i + 1;
		d->callback(&d->header, row, d->arg);
	}
}

static PplLineageChange
get_change(Decoder *d)
{
	if (d->at < d->end && *d->at == PPL_LINEAGE_ROW_SUPERSEDED)
	{
		d->at++;
		return PPL_LINEAGE_SUPERSEDED;
	}
	if (d->at < d->end && *d->at == PPL_LINEAGE_ROW_REMOVED)
	{
		d->at++;
		return PPL_LINEAGE_REMOVED;
	}
	return PPL_LINEAGE_WRITTEN;
}

/*
 * The values of a key into reader->values, where same is the source key that
 * they may refer to, or NULL.
 */
static void
get_key(Decoder *d, KeyReader *reader, const KeyReader *same)
{
	for (int i = 0; i < reader->nkeys; i++)
	{
		PplLineageValue *value = &reader->values[i];
		uint64		v = get_varint(d);

		if ((v & 1) == 0)
		{
			get_integer(reader, i, v >> 1);
			continue;
		}
		v >>= 1;
		value->text = NULL;
		value->len = 0;
		if (v == PPL_LINEAGE_VALUE_SAME)
		{
			if (same == NULL || i >= same->nkeys)
				corrupted("A key refers to a source key that is not there.");
			*value = same->values[i];
		}
		else if (v >= PPL_LINEAGE_VALUE_TEXT)
		{
			value->text = get_bytes(d, v - PPL_LINEAGE_VALUE_TEXT);
			value->len = (int) (v - PPL_LINEAGE_VALUE_TEXT);
		}
		else if (v != PPL_LINEAGE_VALUE_NULL)
			corrupted("A value is of an unknown kind.");
	}
}

static void
get_integer(KeyReader *reader, int column, uint64 zigzag)
{
	char	   *digits = reader->digits + column * INTEGER_LEN;
	int64		delta = (int64) ((zigzag >> 1) ^ -(zigzag & 1));

	if (pg_add_s64_overflow(reader->last[column], delta,
							&reader->last[column]))
		corrupted("A key is out of range.");
	reader->values[column].text = digits;
	reader->values[column].len = pg_lltoa(reader->last[column], digits);
}
