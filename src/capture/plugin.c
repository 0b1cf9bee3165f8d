/*
 * plugin.c
 *		The output plugin: replayed transactions into the spool.
 *
 * Runs in capture only, inside the reorder buffer's transactions, under a
 * historic snapshot: it reads catalogs through the relation it is given and
 * writes nothing but the spool.  seq counts every callback of a transaction,
 * wanted or not, so that an event's id does not depend on who wants what.
 *
 * Memory: "pipeline change" is reset after each change.
 */
#include "postgres.h"
#include "base/compat.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "replication/reorderbuffer.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/control.h"
#include "base/mark.h"
#include "capture/filter.h"
#include "capture/plugin.h"
#include "capture/route.h"
#include "capture/row.h"
#include "stream/message.h"

#define PPL_PUBLISH_BYTES	(64 * 1024)
#define PPL_PUBLISH_US		500

extern PPL_EXPORT void _PG_output_plugin_init(OutputPluginCallbacks *cb);

/* State of the plugin in capture's process. */
static struct
{
	PplDatabase *db;			/* NULL in any other process */
	PplSpoolWriter *writer;
	MemoryContext change_context;
	uint32		seq;			/* callbacks of this transaction so far */
	XLogRecPtr	commit_lsn;		/* of this transaction */
	uint64		published_bytes;
	int64		published_at;
	bool		appended;		/* something since the last publication */
}			self;

static PplSpoolPos publish(bool within);
static void startup(LogicalDecodingContext *ctx, OutputPluginOptions *options,
					bool is_init);
static bool filter_origin(LogicalDecodingContext *ctx, RepOriginId origin);
static void begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn);
static void change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
				   Relation relation, ReorderBufferChange *change);
static void append(const PplRoute *route, PplSpoolChange *record);
static void truncate_tables(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
							int nrelations, Relation relations[],
							ReorderBufferChange *change);
static void message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
					XLogRecPtr lsn, bool transactional, const char *prefix,
					Size size, const char *data);
static void rows(PplRowsReader *reader);
static void commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
				   XLogRecPtr commit_lsn);

void
_PG_output_plugin_init(OutputPluginCallbacks *cb)
{
	cb->startup_cb = startup;
	cb->begin_cb = begin;
	cb->change_cb = change;
	cb->truncate_cb = truncate_tables;
	cb->message_cb = message;
	cb->commit_cb = commit;
	cb->filter_by_origin_cb = filter_origin;
}

/*
 * This process is capture: records go to writer, news to db.
 */
void
ppl_plugin_open(PplDatabase *db, PplSpoolWriter *writer)
{
	self.db = db;
	self.writer = writer;
	self.change_context = AllocSetContextCreate(TopMemoryContext,
												"pipeline change",
												ALLOCSET_DEFAULT_SIZES);
	self.published_bytes = ppl_spool_writer_bytes(writer);
}

/* Only capture may decode with this plugin; the slot is made before it opens. */
static void
startup(LogicalDecodingContext *ctx, OutputPluginOptions *options, bool is_init)
{
	if (self.db == NULL && MyBackendType != B_BG_WORKER)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("output plugin \"pipeline\" is for the capture process of pipeline only"),
				 errhint("Use another output plugin, for example \"pgoutput\".")));
	options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	options->receive_rewrites = false;
}

/* Rows that batches mark as nobody's events are not even queued. */
static bool
filter_origin(LogicalDecodingContext *ctx, RepOriginId origin)
{
	return ppl_mark_is(origin);
}

/*
 * Has enough been appended, or has it waited long enough, to be published?
 */
bool
ppl_plugin_publication_due(void)
{
	if (!self.appended)
		return false;
	if (ppl_spool_writer_bytes(self.writer) - self.published_bytes >= PPL_PUBLISH_BYTES)
		return true;
	return ppl_clock_us() - self.published_at >= PPL_PUBLISH_US;
}

/*
 * Write out the spool, publish its end, wake who waits for it.
 */
PplSpoolPos
ppl_plugin_publish(void)
{
	return publish(false);
}

static PplSpoolPos
publish(bool within)
{
	PplSpoolPos end = ppl_spool_writer_flush(self.writer);

	/* No position that anybody has seen may come again in another spool. */
	self.db->next_segno = PPL_SPOOL_SEGNO(end) + 1;
	pg_write_barrier();
	pg_atomic_write_u64(&self.db->spool_end, end);
	pg_memory_barrier();
	ppl_filter_publish(within);
	self.published_bytes = ppl_spool_writer_bytes(self.writer);
	self.published_at = ppl_clock_us();
	self.appended = false;
	return end;
}

/* A large transaction is published while it is replayed. */
static void
note_appended(PplSource *source, PplSpoolPos end)
{
	ppl_filter_touch(source, end);
	self.appended = true;
	if (ppl_spool_writer_bytes(self.writer) - self.published_bytes >= 16 * PPL_PUBLISH_BYTES)
		(void) publish(true);
}

static void
begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
	PplSpoolTxn spool_txn;

	spool_txn.xid = txn->xid;
	spool_txn.commit_lsn = txn->final_lsn;
	spool_txn.end_lsn = txn->end_lsn;
	spool_txn.committed_at = txn->xact_time.commit_time;
	spool_txn.writer = 0;
	ppl_route_begin();
	self.seq = 0;
	self.commit_lsn = txn->final_lsn;
	if (self.writer)
		ppl_spool_writer_begin(self.writer, &spool_txn);
}

static void
change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
	   ReorderBufferChange *change)
{
	PplOrigin  *origin;
	PplSpoolChange record = {.flags = 0};
	uint16		operation;
	HeapTuple	old_tuple = NULL;
	HeapTuple	new_tuple = NULL;
	MemoryContext oldcontext;
	ListCell   *lc;

	self.seq++;
	switch (change->action)
	{
		case REORDER_BUFFER_CHANGE_INSERT:
			record.kind = PPL_REC_INSERT;
			operation = PPL_OP_INSERT;
			break;
		case REORDER_BUFFER_CHANGE_UPDATE:
			record.kind = PPL_REC_UPDATE;
			operation = PPL_OP_UPDATE;
			break;
		case REORDER_BUFFER_CHANGE_DELETE:
			record.kind = PPL_REC_DELETE;
			operation = PPL_OP_DELETE;
			break;
		default:
			return;
	}

	oldcontext = MemoryContextSwitchTo(self.change_context);
	origin = ppl_route_find(relation);
	foreach(lc, origin ? origin->routes : NIL)
	{
		PplRoute   *route = lfirst(lc);

		if ((route->source->operations & operation) == 0)
			continue;
		if (old_tuple == NULL && change->data.tp.oldtuple)
			old_tuple = &change->data.tp.oldtuple->tuple;
		if (new_tuple == NULL && change->data.tp.newtuple)
			new_tuple = ppl_row_complete(&change->data.tp.newtuple->tuple, old_tuple,
										 relation, origin->in_old);
		record.old_tuple = ppl_row_convert(old_tuple, relation, route);
		record.new_tuple = ppl_row_convert(new_tuple, relation, route);
		append(route, &record);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(self.change_context);
}

/* Append a change to the spool, as an event of a source. */
static void
append(const PplRoute *route, PplSpoolChange *record)
{
	record->seq = self.seq;
	record->schema = &route->as->schema;
	record->schema_version = route->as->version;
	note_appended(route->source,
				  ppl_spool_writer_change(self.writer, record));
}

/*
 * A source is truncated, or only partitions of it.  A statement on a partitioned
 * table names that and all of its partitions, in one list.
 */
static void
truncate_tables(LogicalDecodingContext *ctx, ReorderBufferTXN *txn,
				int nrelations, Relation relations[],
				ReorderBufferChange *change)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(self.change_context);
	List	   *done = NIL;
	ListCell   *lc;

	for (int i = 0; i < nrelations; i++)
		done = lappend_oid(done, RelationGetRelid(relations[i]));
	for (int i = 0; i < nrelations; i++)
	{
		PplOrigin  *origin = ppl_route_find(relations[i]);

		self.seq++;
		foreach(lc, origin ? origin->routes : NIL)
		{
			PplRoute   *route = lfirst(lc);
			PplSpoolChange record = {.kind = PPL_REC_TRUNCATE};

			if ((route->source->operations & PPL_OP_TRUNCATE) == 0)
				continue;
			if (route->source->relid != RelationGetRelid(relations[i]))
			{
				if (list_member_oid(done, route->source->relid))
					continue;
				done = lappend_oid(done, route->source->relid);
				record.flags = PPL_REC_PARTIAL;
			}
			append(route, &record);
		}
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(self.change_context);
}

static void
message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr lsn,
		bool transactional, const char *prefix, Size size, const char *data)
{
	PplControl	control;
	PplRowsReader reader;
	PplSpoolPos begin_pos;
	PplSpoolPos end_pos;

	if (!transactional)
		return;
	if (ppl_rows_open(&reader, prefix, data, size, self.db->secret))
	{
		rows(&reader);
		return;
	}
	self.seq++;
	if (!ppl_control_read(prefix, data, size, &control) ||
		control.secret != self.db->secret)
		return;
	if (control.action == PPL_CONTROL_BATCH)
	{
		ppl_spool_writer_attribute(self.writer, control.pipeline_id);
		return;
	}

	control.secret = 0;
	begin_pos = ppl_spool_writer_flush(self.writer);
	end_pos = ppl_spool_writer_control(self.writer, self.seq, &control);
	ppl_filter_control(&control, txn->xid, self.commit_lsn, begin_pos, end_pos);
	self.appended = true;
}

/*
 * Rows of a stream, or what a segment hands over.  Each counts, wanted or not.  The
 * relation is there as it was then, even if it is dropped by now.
 */
static void
rows(PplRowsReader *reader)
{
	bool		handed = (reader->header.flags & PPL_ROWS_ORIGINS) != 0;
	MemoryContext oldcontext;
	Relation	relation = NULL;
	PplOrigin  *origin = NULL;
	uint32		last = self.seq + reader->header.nrows;
	ListCell   *lc;

	oldcontext = MemoryContextSwitchTo(self.change_context);
	relation = RelationIdGetRelation(reader->header.relid);
	if (RelationIsValid(relation))
		origin = ppl_route_find(relation);
	while (origin != NULL && reader->left > 0)
	{
		HeapTuple	tuple = ppl_rows_next(reader);
		PplSpoolChange record = {.kind = PPL_REC_INSERT};

		self.seq++;
		if (handed)
		{
			record.kind = reader->origin.operation;
			record.origin = &reader->origin;
		}
		foreach(lc, origin->routes)
		{
			PplRoute   *route = lfirst(lc);

			if ((route->source->operations &
				 ppl_record_operation(record.kind)) == 0)
				continue;
			record.new_tuple = ppl_row_convert(tuple, relation, route);
			append(route, &record);
		}
		MemoryContextReset(self.change_context);
	}
	self.seq = last;
	if (RelationIsValid(relation))
		RelationClose(relation);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(self.change_context);
}

static void
commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	PplSpoolPos end = ppl_spool_writer_commit(self.writer);

	if (ppl_filter_finish(end))
		self.appended = true;
	if (rbtxn_has_catalog_changes(txn))
		ppl_filter_catalog_changed();
	pg_atomic_fetch_add_u64(&self.db->transactions, 1);
	PPL_FAILPOINT("capture-after-decode");
}
