/*
 * lineage.h
 *		The lineage of one batch as one compact binary value.
 *
 * The value (_pipeline.batches.lineage) is made once, never changed, and read
 * as a whole.  It outlives the server's version: a change of the format gets
 * a new version byte and keeps the code that reads the old one.
 *
 * Format 2 is format 1 with the number of a part in each event.  "varint" is a LEB128 unsigned integer of at most 64 bits, "delta"
 * a varint of the zigzagged difference to the value before of its kind (the
 * first one: to 0), "string" a varint length and so many bytes in the encoding
 * of the database.
 *
 *	header		byte 1, varint source relation, columns of the source key,
 *				varint number of outputs, then for each output: string name,
 *				columns of its key
 *	columns		varint number, then for each: string name, byte PplLineageKind
 *	body		entries up to the end, each beginning with a byte
 *	transaction	byte 0, delta xid, delta commit LSN, delta commit time; the
 *				events after it belong to it, its seq begin at 0
 *	event		byte PPL_LINEAGE_EV_* and operation (1 insert, 2 update,
 *				3 delete, 4 truncate); delta seq unless ..EV_NEXT_SEQ; in
 *				format 2 varint part; varint attempts if ..EV_ATTEMPTS; reason if ..EV_REASON; the source
 *				key's values if ..EV_KEY; then for each output: varint (rows
 *				* 4 + PplLineageOutcome), left out with ..EV_SIMPLE (one row
 *				each), and its rows
 *	row			the values of the output's key, or a byte 0 if it has none; before
 *				them a byte PPL_LINEAGE_ROW_* if the row was not just written
 *	reason		varint 0 and a string, or varint n for the n-th string that
 *				was written in this value
 *	value		varint v.  v even: the integer as text which is v / 2
 *				unzigzagged more than the integer before of the same column of
 *				the same relation.  v odd, n = v / 2: 0 is NULL, 1 the text of
 *				the same column of this event's source key, 2 and 3 are what
 *				PPL_LINEAGE_ROW_* look like, else n - 4 bytes of text follow
 */
#ifndef PPL_LINEAGE_H
#define PPL_LINEAGE_H

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

#include "spool/format.h"

/* What the text of a key's value becomes in JSON. */
typedef enum PplLineageKind
{
	PPL_LINEAGE_STRING,
	PPL_LINEAGE_NUMBER,			/* a string if it is none, as NaN */
	PPL_LINEAGE_BOOLEAN			/* output of boolout, or true and false */
} PplLineageKind;

/* What became of an event in one output. */
typedef enum PplLineageOutcome
{
	PPL_LINEAGE_FILTERED,
	PPL_LINEAGE_PRODUCED,
	PPL_LINEAGE_REJECTED,
	PPL_LINEAGE_FAILED
} PplLineageOutcome;

/* What became of a row of an output that was produced. */
typedef enum PplLineageChange
{
	PPL_LINEAGE_WRITTEN,
	PPL_LINEAGE_SUPERSEDED,		/* by a later event of the batch */
	PPL_LINEAGE_REMOVED
} PplLineageChange;

typedef struct PplLineageColumn
{
	const char *name;
	PplLineageKind kind;
} PplLineageColumn;

typedef struct PplLineageOutput
{
	const char *name;
	int			nkeys;			/* 0 = it has no key */
	PplLineageColumn *keys;
} PplLineageOutput;

/* What holds for a whole batch. */
typedef struct PplLineageHeader
{
	bool		parts;			/* events are parts of those of the source */
	Oid			source;
	int			nkeys;			/* of the source, 0 = no key */
	PplLineageColumn *keys;
	int			noutputs;
	PplLineageOutput *outputs;
} PplLineageHeader;

/* One value of a key; text needs no terminator, NULL is an SQL NULL. */
typedef struct PplLineageValue
{
	const char *text;
	int			len;
} PplLineageValue;

typedef struct PplLineage PplLineage;

/* How values of a type (not a domain: see getBaseType) become JSON. */
extern PplLineageKind ppl_lineage_kind_of_type(Oid type);

/*
 * Begin the value of a batch.  All memory of it is allocated in context, which
 * the caller resets some time after the value is used.  header is copied only
 * as far as the value needs it: it must stay until finish.
 */
extern PplLineage *ppl_lineage_begin(MemoryContext context,
									 const PplLineageHeader *header);

/* The following events belong to this transaction. */
extern void ppl_lineage_transaction(PplLineage *lineage, TransactionId xid,
									XLogRecPtr commit_lsn,
									TimestampTz committed_at);

/*
 * One event, in any order of seq.  part is left out unless header->parts.  operation is one of PPL_REC_INSERT to
 * PPL_REC_TRUNCATE.  source_key has header->nkeys values, or is NULL if the
 * event has no key (a truncate).  reason may be NULL.  Everything is copied.
 * The event is filtered in each output of which nothing else is said.
 */
extern void ppl_lineage_event(PplLineage *lineage, int seq, int part,
							  PplRecordKind operation, int attempts,
							  const PplLineageValue *source_key,
							  const char *reason);

/* What became of the last event in an output (0 ... noutputs - 1). */
extern void ppl_lineage_output(PplLineage *lineage, int output,
							   PplLineageOutcome outcome);

/*
 * The last event produced one row, with these key values (ignored if the
 * output has no key), in an output, or removed it; sets the outcome to produced.
 */
extern void ppl_lineage_row(PplLineage *lineage, int output,
							PplLineageChange change,
							const PplLineageValue *key);

/* End the value; nothing may be appended after it. */
extern bytea *ppl_lineage_finish(PplLineage *lineage);

/* One produced row, or what else became of an event in one output. */
typedef struct PplLineageRow
{
	uint64		event;			/* number in the batch, from 1 */
	TransactionId xid;
	XLogRecPtr	commit_lsn;
	TimestampTz committed_at;
	int			seq;
	PplRecordKind operation;
	int			attempts;
	const char *reason;			/* or NULL */
	const PplLineageValue *source_key;	/* header->nkeys, or NULL */
	int			output;
	PplLineageOutcome outcome;
	PplLineageChange change;
	const PplLineageValue *output_key;	/* of the output's nkeys, or NULL */
	int			event_part;		/* of the source's event, 1 unless
								 * header->parts */
	int			part;			/* of the event in the output, from 1; with
								 * header->parts, event_part */
} PplLineageRow;

typedef void (*PplLineageCallback) (const PplLineageHeader *header,
									const PplLineageRow *row, void *arg);

/*
 * Call callback for each row of a detoasted value, in the order of the batch.
 * What it is given lives until it returns, but for the header, which lives
 * until decode returns.  An event appears once per output, and more often
 * where it produced several rows.  Memory comes from the current context.
 * Bytes that are no lineage are ERRCODE_DATA_CORRUPTED, whatever they are,
 * after any number of rows.
 */
extern void ppl_lineage_decode(const char *data, Size len,
							   PplLineageCallback callback, void *arg);

/* Shared by encoder and decoder. */
#define PPL_LINEAGE_VERSION			1
#define PPL_LINEAGE_VERSION_PARTS	2

/* Most columns of a key, and outputs, that there can be. */
#define PPL_LINEAGE_MAX_COUNT		10000

#define PPL_LINEAGE_EV_OPERATION	0x07	/* 0 = this is a transaction */
#define PPL_LINEAGE_EV_NEXT_SEQ		0x08
#define PPL_LINEAGE_EV_ATTEMPTS		0x10	/* more than one */
#define PPL_LINEAGE_EV_REASON		0x20
#define PPL_LINEAGE_EV_SIMPLE		0x40
#define PPL_LINEAGE_EV_KEY			0x80

#define PPL_LINEAGE_ROW_SUPERSEDED	(2 << 1 | 1)
#define PPL_LINEAGE_ROW_REMOVED		(3 << 1 | 1)

#define PPL_LINEAGE_VALUE_NULL		0
#define PPL_LINEAGE_VALUE_SAME		1
#define PPL_LINEAGE_VALUE_TEXT		4

#endif							/* PPL_LINEAGE_H */
