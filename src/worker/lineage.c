/*
 * lineage.c
 *		Write the lineage of one batch as one compact binary value.
 *
 * Runs in workers, in the transaction of a batch.  Pure memory: no catalogs,
 * no I/O, no locks.  lineage.h has the format, lineage_decode.c reads it.
 *
 * An event is put together in pieces (its first byte and number, its keys, the
 * rows of each output), because how many rows it produced is known only when
 * the next one begins.  All memory belongs to the context of the caller.
 *
 * An event with integer keys and one output takes some five bytes, and its
 * transaction seven: differences of integers are small, and what is the same
 * for all of the batch is said once.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

#include "worker/lineage.h"

/* A delta of a value has one bit for the sign and one for the tag. */
#define MAX_DELTA	(INT64CONST(1) << 61)

/* Texts of reasons beyond these are written again each time. */
#define MAX_REASONS 64

/* One output of the event that is being put together. */
typedef struct PendingOutput
{
	PplLineageOutcome outcome;
	uint64		nrows;
	StringInfoData rows;		/* encoded */
	int64	   *last;			/* per key column, integer before */
} PendingOutput;

struct PplLineage
{
	MemoryContext context;
	const PplLineageHeader *header;
	StringInfoData buf;			/* the value, with room for its length word */
	List	   *reasons;		/* char *, as written */

	/* values that deltas refer to */
	bool		in_transaction;
	TransactionId xid;
	XLogRecPtr	commit_lsn;
	TimestampTz committed_at;
	int			seq;
	int64	   *last;			/* per column of the source key */

	/* the event that is being put together */
	bool		pending;
	uint8		flags;
	StringInfoData head;		/* what follows its first byte */
	StringInfoData key_text;	/* texts of the source key, one after another */
	PplLineageValue *key;		/* pointing into key_text */
	PendingOutput *outputs;
};

static void put_varint(StringInfo buf, uint64 value);
static void put_delta(StringInfo buf, int64 value, int64 last);
static void put_string(StringInfo buf, const char *text, int len);
static void put_count(StringInfo buf, int count);
static void put_columns(StringInfo buf, int n, const PplLineageColumn *columns);
static void put_reason(PplLineage *lineage, StringInfo buf,
					   const char *reason);
static void put_value(StringInfo buf, const PplLineageValue *value,
					  int64 *last, const PplLineageValue *same);
static bool canonical_integer(const char *text, int len, int64 *result);
static void remember_key(PplLineage *lineage, const PplLineageValue *key);
static void end_event(PplLineage *lineage);
static PendingOutput *pending_output(PplLineage *lineage, int output);

PplLineageKind
ppl_lineage_kind_of_type(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return PPL_LINEAGE_NUMBER;
		case BOOLOID:
			return PPL_LINEAGE_BOOLEAN;
		default:
			return PPL_LINEAGE_STRING;
	}
}

PplLineage *
ppl_lineage_begin(MemoryContext context, const PplLineageHeader *header)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	PplLineage *lineage = palloc0(sizeof(*lineage));

	lineage->context = context;
	lineage->header = header;
	lineage->last = palloc0(mul_size(header->nkeys, sizeof(int64)));
	lineage->key = palloc0(mul_size(header->nkeys, sizeof(PplLineageValue)));
	lineage->outputs = palloc0(mul_size(header->noutputs,
										sizeof(PendingOutput)));
	initStringInfo(&lineage->head);
	initStringInfo(&lineage->key_text);
	initStringInfo(&lineage->buf);

	appendStringInfoSpaces(&lineage->buf, VARHDRSZ);
	appendStringInfoChar(&lineage->buf, header->parts ?
						 PPL_LINEAGE_VERSION_PARTS : PPL_LINEAGE_VERSION);
	put_varint(&lineage->buf, header->source);
	put_columns(&lineage->buf, header->nkeys, header->keys);
	put_count(&lineage->buf, header->noutputs);
	for (int i = 0; i < header->noutputs; i++)
	{
		const PplLineageOutput *output = &header->outputs[i];

		put_string(&lineage->buf, output->name, strlen(output->name));
		put_columns(&lineage->buf, output->nkeys, output->keys);
		initStringInfo(&lineage->outputs[i].rows);
		lineage->outputs[i].last = palloc0(mul_size(output->nkeys,
													sizeof(int64)));
	}
	MemoryContextSwitchTo(old_context);
	return lineage;
}

void
ppl_lineage_transaction(PplLineage *lineage, TransactionId xid,
						XLogRecPtr commit_lsn, TimestampTz committed_at)
{
	StringInfo	buf = &lineage->buf;

	end_event(lineage);
	appendStringInfoChar(buf, 0);
	put_delta(buf, xid, lineage->xid);
	put_delta(buf, (int64) commit_lsn, (int64) lineage->commit_lsn);
	put_delta(buf, committed_at, lineage->committed_at);
	lineage->in_transaction = true;
	lineage->xid = xid;
	lineage->commit_lsn = commit_lsn;
	lineage->committed_at = committed_at;
	lineage->seq = 0;
}

void
ppl_lineage_event(PplLineage *lineage, int seq, int part,
				  PplRecordKind operation, int attempts,
				  const PplLineageValue *source_key, const char *reason)
{
	StringInfo	head = &lineage->head;

	if (!lineage->in_transaction || operation < PPL_REC_INSERT ||
		operation > PPL_REC_TRUNCATE)
		elog(ERROR, "lineage of an event without transaction or operation");

	end_event(lineage);
	lineage->pending = true;
	lineage->flags = operation;
	if (seq == lineage->seq + 1)
		lineage->flags |= PPL_LINEAGE_EV_NEXT_SEQ;
	else
		put_delta(head, seq, lineage->seq);
	lineage->seq = seq;
	if (lineage->header->parts)
		put_varint(head, part);
	if (attempts != 1)
	{
		lineage->flags |= PPL_LINEAGE_EV_ATTEMPTS;
		put_varint(head, attempts);
	}
	if (reason != NULL)
	{
		lineage->flags |= PPL_LINEAGE_EV_REASON;
		put_reason(lineage, head, reason);
	}
	if (source_key != NULL && lineage->header->nkeys > 0)
	{
		lineage->flags |= PPL_LINEAGE_EV_KEY;
		for (int i = 0; i < lineage->header->nkeys; i++)
			put_value(head, &source_key[i], &lineage->last[i], NULL);
		remember_key(lineage, source_key);
	}
}

void
ppl_lineage_output(PplLineage *lineage, int output, PplLineageOutcome outcome)
{
	pending_output(lineage, output)->outcome = outcome;
}

void
ppl_lineage_row(PplLineage *lineage, int output, PplLineageChange change,
				const PplLineageValue *key)
{
	PendingOutput *pending = pending_output(lineage, output);
	int			nkeys = lineage->header->outputs[output].nkeys;
	int			nsame = 0;

	if ((lineage->flags & PPL_LINEAGE_EV_KEY) != 0)
		nsame = lineage->header->nkeys;
	pending->outcome = PPL_LINEAGE_PRODUCED;
	pending->nrows++;
	if (change == PPL_LINEAGE_SUPERSEDED)
		appendStringInfoChar(&pending->rows, PPL_LINEAGE_ROW_SUPERSEDED);
	else if (change == PPL_LINEAGE_REMOVED)
		appendStringInfoChar(&pending->rows, PPL_LINEAGE_ROW_REMOVED);
	for (int i = 0; i < nkeys; i++)
		put_value(&pending->rows, &key[i], &pending->last[i],
				  i < nsame ? &lineage->key[i] : NULL);

	/* So that no number of rows can be larger than the value. */
	if (nkeys == 0)
		appendStringInfoChar(&pending->rows, 0);
}

bytea *
ppl_lineage_finish(PplLineage *lineage)
{
	end_event(lineage);
	lineage->in_transaction = false;
	SET_VARSIZE(lineage->buf.data, lineage->buf.len);
	return (bytea *) lineage->buf.data;
}

static void
put_varint(StringInfo buf, uint64 value)
{
	char		bytes[10];
	int			n = 0;

	while (value >= 0x80)
	{
		bytes[n++] = (char) (value | 0x80);
		value >>= 7;
	}
	bytes[n++] = (char) value;
	appendBinaryStringInfo(buf, bytes, n);
}

/*
 * The difference may wrap around: the reader's sum wraps back.
 */
static void
put_delta(StringInfo buf, int64 value, int64 last)
{
	uint64		delta = (uint64) value - (uint64) last;

	put_varint(buf, (delta << 1) ^ (uint64) ((int64) delta < 0 ? -1 : 0));
}

static void
put_string(StringInfo buf, const char *text, int len)
{
	put_varint(buf, len);
	appendBinaryStringInfo(buf, text, len);
}

static void
put_count(StringInfo buf, int count)
{
	if (count < 0 || count > PPL_LINEAGE_MAX_COUNT)
		elog(ERROR, "lineage cannot name %d columns or outputs", count);
	put_varint(buf, count);
}

static void
put_columns(StringInfo buf, int n, const PplLineageColumn *columns)
{
	put_count(buf, n);
	for (int i = 0; i < n; i++)
	{
		put_string(buf, columns[i].name, strlen(columns[i].name));
		appendStringInfoChar(buf, (char) columns[i].kind);
	}
}

static void
put_reason(PplLineage *lineage, StringInfo buf, const char *reason)
{
	ListCell   *cell;

	foreach(cell, lineage->reasons)
	{
		if (strcmp(lfirst(cell), reason) == 0)
		{
			put_varint(buf, foreach_current_index(cell) + 1);
			return;
		}
	}

	put_varint(buf, 0);
	put_string(buf, reason, strlen(reason));
	if (list_length(lineage->reasons) < MAX_REASONS)
	{
		MemoryContext old_context = MemoryContextSwitchTo(lineage->context);

		lineage->reasons = lappend(lineage->reasons, pstrdup(reason));
		MemoryContextSwitchTo(old_context);
	}
}

/*
 * One value of a key; same is the source key's value of the same column.
 */
static void
put_value(StringInfo buf, const PplLineageValue *value, int64 *last,
		  const PplLineageValue *same)
{
	int64		integer;
	int64		delta;

	if (value->text == NULL)
		put_varint(buf, PPL_LINEAGE_VALUE_NULL << 1 | 1);
	else if (canonical_integer(value->text, value->len, &integer) &&
			 !pg_sub_s64_overflow(integer, *last, &delta) &&
			 delta < MAX_DELTA && delta >= -MAX_DELTA)
	{
		uint64		zigzag = ((uint64) delta << 1) ^
		(uint64) (delta < 0 ? -1 : 0);

		put_varint(buf, zigzag << 1);
		*last = integer;
	}
	else if (same && same->len == value->len && same->text &&
			 memcmp(same->text, value->text, value->len) == 0)
		put_varint(buf, PPL_LINEAGE_VALUE_SAME << 1 | 1);
	else
	{
		put_varint(buf, ((uint64) value->len + PPL_LINEAGE_VALUE_TEXT) << 1 | 1);
		appendBinaryStringInfo(buf, value->text, value->len);
	}
}

/*
 * Is a text what an int8 would be printed as?
 */
static bool
canonical_integer(const char *text, int len, int64 *result)
{
	bool		negative = len > 0 && text[0] == '-';
	int			i = negative ? 1 : 0;
	int64		value = 0;

	if (len == i || len - i > 19)
		return false;
	if (text[i] == '0' && (negative || len > 1))
		return false;
	for (; i < len; i++)
	{
		/* The digits of a negative number are subtracted: no overflow. */
		int			digit = text[i] - '0';

		if (digit < 0 || digit > 9 ||
			pg_mul_s64_overflow(value, 10, &value) ||
			(negative ? pg_sub_s64_overflow(value, digit, &value) :
			 pg_add_s64_overflow(value, digit, &value)))
			return false;
	}
	*result = value;
	return true;
}

/*
 * Keep the source key of the pending event for comparison.
 */
static void
remember_key(PplLineage *lineage, const PplLineageValue *key)
{
	char	   *at;

	resetStringInfo(&lineage->key_text);
	for (int i = 0; i < lineage->header->nkeys; i++)
		if (key[i].text)
			appendBinaryStringInfo(&lineage->key_text, key[i].text, key[i].len);

	/* Only now does the buffer stay where it is. */
	at = lineage->key_text.data;
	for (int i = 0; i < lineage->header->nkeys; i++)
	{
		lineage->key[i].text = key[i].text ? at : NULL;
		lineage->key[i].len = key[i].len;
		if (key[i].text)
			at += key[i].len;
	}
}

/*
 * Write the pending event, if there is one.
 */
static void
end_event(PplLineage *lineage)
{
	StringInfo	buf = &lineage->buf;
	bool		simple = true;

	if (!lineage->pending)
		return;
	for (int i = 0; i < lineage->header->noutputs; i++)
		simple &= lineage->outputs[i].outcome == PPL_LINEAGE_PRODUCED &&
			lineage->outputs[i].nrows == 1;
	if (simple)
		lineage->flags |= PPL_LINEAGE_EV_SIMPLE;

	appendStringInfoChar(buf, (char) lineage->flags);
	appendBinaryStringInfo(buf, lineage->head.data, lineage->head.len);
	for (int i = 0; i < lineage->header->noutputs; i++)
	{
		PendingOutput *output = &lineage->outputs[i];

		if (!simple)
			put_varint(buf, output->nrows << 2 | output->outcome);
		appendBinaryStringInfo(buf, output->rows.data, output->rows.len);
		resetStringInfo(&output->rows);
		output->nrows = 0;
		output->outcome = PPL_LINEAGE_FILTERED;
	}
	resetStringInfo(&lineage->head);
	lineage->pending = false;
}

static PendingOutput *
pending_output(PplLineage *lineage, int output)
{
	if (!lineage->pending || output < 0 || output >= lineage->header->noutputs)
		elog(ERROR, "lineage of output %d without an event", output);
	return &lineage->outputs[output];
}
