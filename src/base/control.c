/*
 * control.c
 *		Write control messages into the WAL.
 *
 * Runs in the backend that changes a definition, and in a worker for its
 * batches.  Takes no lock and waits for nothing.  The message carries a secret
 * that capture keeps in shared memory: pg_logical_emit_message is open to
 * everybody, and a message of somebody else's making must mean nothing.  It is in
 * hexadecimal digits, as there are output plugins that show messages as text.
 */
#include "postgres.h"
#include "base/compat.h"

#include <ctype.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "utils/builtins.h"

#include "base/control.h"
#include "base/shm.h"
#include "base/wake.h"

static void write_message(PplControl *control);

/* See control.h.  Errors: 55000 if the slot of this database is not ready. */
void
ppl_control_emit(PplControl *control)
{
	write_message(control);
	ppl_wake_at_commit();
}

/* See control.h.  Errors: 55000 if the slot of this database is not ready. */
void
ppl_control_schema(int32 pipeline_id, Oid source, bool pauses)
{
	PplControl	control;

	memset(&control, 0, sizeof(control));
	control.action = PPL_CONTROL_SCHEMA;
	control.pipeline_id = pipeline_id;
	control.source = source;
	control.flags = pauses ? PPL_CONTROL_PAUSES : 0;
	write_message(&control);
	ppl_wake_at_commit();
}

/* See control.h.  Called by workers, so the slot is ready. */
void
ppl_control_batch(int32 pipeline_id)
{
	PplControl	control;

	memset(&control, 0, sizeof(control));
	control.action = PPL_CONTROL_BATCH;
	control.pipeline_id = pipeline_id;
	write_message(&control);
}

static void
write_message(PplControl *control)
{
	char text[	2 * sizeof(*control)];
	PplDatabase *db = ppl_shared ? ppl_database_find(MyDatabaseId) : NULL;

	if (db == NULL || db->secret == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the pipeline slot of this database is not ready"),
				 errhint("Try again in a moment; SELECT * FROM pipeline.status shows the state.")));

	control->format = PPL_CONTROL_VERSION;
	control->secret = db->secret;
	(void) hex_encode((const char *) control, sizeof(*control), text);
	(void) LogLogicalMessage(PPL_CONTROL_PREFIX, text, sizeof(text), true);
}

/* See control.h. */
bool
ppl_control_read(const char *prefix, const char *text, Size size,
				 PplControl *control)
{
	if (strcmp(prefix, PPL_CONTROL_PREFIX) != 0 || size != 2 * sizeof(*control))
		return false;
	for (Size i = 0; i < size; i++)
	{
		if (!isxdigit((unsigned char) text[i]))
			return false;
	}
	(void) hex_decode(text, size, (char *) control);
	return control->format == PPL_CONTROL_VERSION;
}

/* See control.h. */
bool
ppl_control_concerns(const PplControl *control, PplPlace place)
{
	return control->pipeline_id == place.pipeline_id &&
		(control->segment == 0 || control->segment == place.segment) &&
		(control->partition == 0 || control->partition == place.partition);
}
