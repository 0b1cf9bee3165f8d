/*
 * reader.c
 *		Read the WAL through one decoding context, open for capture's life.
 *
 * Works outside any transaction: the reorder buffer starts and aborts one of
 * its own for each transaction it replays.  The resource owner is capture's
 * own and is put back after each record, since the end of those transactions
 * takes it away.
 */
#include "postgres.h"
#include "base/compat.h"

#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "miscadmin.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "base/process.h"
#include "capture/reader.h"

/* State of the open context. */
static struct
{
	LogicalDecodingContext *ctx;
	ResourceOwner owner;
	XLogRecPtr	flushed;		/* flush pointer as last seen */
}			self;

static void open_segment(XLogReaderState *state, XLogSegNo segno,
						 TimeLineID *timeline);
static int	read_page(XLogReaderState *state, XLogRecPtr page, int len,
					  XLogRecPtr target, char *buffer);

/*
 * Open the context over the acquired slot, at its confirmed position.
 */
void
ppl_reader_open(void)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	self.owner = ResourceOwnerCreate(NULL, "pipeline capture");
	CurrentResourceOwner = self.owner;
	self.ctx = CreateDecodingContext(InvalidXLogRecPtr, NIL, false,
									 XL_ROUTINE(.page_read = read_page,
												.segment_open = open_segment,
												.segment_close = wal_segment_close),
									 NULL, NULL, NULL);
	XLogBeginRead(self.ctx->reader, MyReplicationSlot->data.restart_lsn);
	InvalidateSystemCaches();
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Decode what is flushed, or until pause() says to stop between two records.
 * Returns up to where everything is decoded, which is always the end of a
 * record: the flush pointer may stand within a commit record, and a slot that
 * is confirmed up to there begins behind that commit.  Errors: a WAL record
 * that cannot be read (XX001), and whatever the output plugin throws.
 */
XLogRecPtr
ppl_reader_advance(bool (*pause) (void))
{
	self.flushed = GetFlushRecPtr(NULL);
	for (;;)
	{
		char	   *error = NULL;
		XLogRecord *record = XLogReadRecord(self.ctx->reader, &error);

		if (record == NULL)
		{
			if (error != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("could not read WAL: %s", error)));
			return self.ctx->reader->EndRecPtr;
		}
		LogicalDecodingProcessRecord(self.ctx, self.ctx->reader);
		CurrentResourceOwner = self.owner;
		CHECK_FOR_INTERRUPTS();
		if (pause())
			return self.ctx->reader->EndRecPtr;
	}
}

/* Close the context; the slot stays acquired. */
void
ppl_reader_close(void)
{
	if (self.ctx == NULL)
		return;
	FreeDecodingContext(self.ctx);
	self.ctx = NULL;
	InvalidateSystemCaches();
}

/*
 * As core's, but says what to do when the file is not there: it may still be
 * in an archive, so it is not for us to give up what it holds.
 */
static void
open_segment(XLogReaderState *state, XLogSegNo segno, TimeLineID *timeline)
{
	char		path[MAXPGPATH];

	XLogFilePath(path, *timeline, segno, state->segcxt.ws_segsize);
	if (access(path, F_OK) != 0 && errno == ENOENT)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("WAL file \"%s\", which the pipelines of this database still need, is missing",
						path),
				 errhint("Copy the file from the archive to pg_wal. Without it, SELECT pg_drop_replication_slot('%s'); gives up what it holds, and the pipelines are lost.",
						 NameStr(MyReplicationSlot->data.name))));
	wal_segment_open(state, segno, timeline);
}

/*
 * Give a page of WAL, or -1 beyond the flush pointer, also within a record:
 * core's reader would wait there by polling.  The caller then gets no record
 * and no error, and may try again later.
 */
static int
read_page(XLogReaderState *state, XLogRecPtr page, int len, XLogRecPtr target,
		  char *buffer)
{
	if (page + len > self.flushed)
	{
		self.flushed = GetFlushRecPtr(NULL);
		if (page + len > self.flushed)
			return -1;
	}
	return read_local_xlog_page(state, page, len, target, buffer);
}
