/*
 * identity.c
 *		Which slot the definitions of this database belong to.
 *
 * One row in _pipeline.slot, written by capture when it has made the slot and
 * read by capture and workers.  Each function needs a transaction with an
 * active snapshot.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/pg_lsn.h"

#include "catalog/definition.h"
#include "catalog/identity.h"

/*
 * Read the stored identity; false if there is none.
 */
bool
ppl_identity_load(PplIdentity *identity)
{
	PplElevation elevation;
	bool		found;

	memset(identity, 0, sizeof(*identity));
	ppl_elevate_begin(&elevation);
	SPI_connect();
	if (SPI_execute("SELECT system_identifier, database, slot_lsn, secret, timeline"
					" FROM _pipeline.slot", true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read _pipeline.slot");
	found = (SPI_processed == 1);
	if (found)
	{
		HeapTuple	tuple = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bool		isnull;

		identity->system_identifier = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		identity->database = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		identity->slot_lsn = DatumGetLSN(SPI_getbinval(tuple, desc, 3, &isnull));
		identity->secret = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
		identity->timeline = (TimeLineID) DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
	}
	SPI_finish();
	ppl_elevate_end(&elevation);
	return found;
}

/*
 * Was it made by this server for this database?
 */
bool
ppl_identity_is_ours(const PplIdentity *identity)
{
	return identity->system_identifier == GetSystemIdentifier() &&
		identity->database == MyDatabaseId;
}

/*
 * Store a new identity for identity->slot_lsn and fill in the rest.  What was loaded
 * into it is there before.  A database keeps its secret when its slot is made anew: a
 * transaction that has written messages may still run.
 */
void
ppl_identity_store(PplIdentity *identity)
{
	PplElevation elevation;
	bool		keep = ppl_identity_is_ours(identity) && identity->secret != 0;
	Oid			types[] = {INT8OID, OIDOID, LSNOID, INT8OID, INT8OID};
	Datum		values[5];

	identity->system_identifier = GetSystemIdentifier();
	identity->database = MyDatabaseId;
	identity->timeline = GetWALInsertionTimeLine();
	while (!keep)
	{
		if (!pg_strong_random(&identity->secret, sizeof(identity->secret)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		keep = identity->secret != 0;
	}

	values[0] = Int64GetDatum((int64) identity->system_identifier);
	values[1] = ObjectIdGetDatum(identity->database);
	values[2] = LSNGetDatum(identity->slot_lsn);
	values[3] = Int64GetDatum((int64) identity->secret);
	values[4] = Int64GetDatum((int64) identity->timeline);

	ppl_elevate_begin(&elevation);
	SPI_connect();
	if (SPI_execute("DELETE FROM _pipeline.slot", false, 0) != SPI_OK_DELETE ||
		SPI_execute_with_args("INSERT INTO _pipeline.slot"
							  " (system_identifier, database, slot_lsn, secret, timeline)"
							  " VALUES ($1, $2, $3, $4, $5)",
							  5, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write _pipeline.slot");
	SPI_finish();
	ppl_elevate_end(&elevation);
}
