/*
 * log.c
 *		Row types of what segments hand over.
 *
 * Rows between two segments are in no table, but capture and workers know their
 * columns as they know those of a table: by a relation in the catalogs, of which
 * every version can be seen by whoever decodes an old row.  It is a composite type,
 * made, changed and dropped here, and a member of the extension: a dump leaves it
 * out, and it goes with DROP EXTENSION.
 *
 * No utility statement is run for that, since event triggers of users see those.
 * Runs in backends that change a definition, and in workers where a stage has come
 * to return something else; inside a transaction, elevated.  Takes an exclusive lock
 * on the type.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/tablecmds.h"
#include "commands/typecmds.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "catalog/log.h"
#include "catalog/names.h"
#include "catalog/sql.h"

static List *differences(Oid relid, const PplShape *rows);
static List *add_command(List *commands, AlterTableType type, const char *name,
						 const PplColumn *column);
static Oid	create(PplPipeline *segment, const PplShape *rows);
static void alter(Oid relid, List *commands);
static void drop(int pipeline_id, int segment);

/*
 * Have the row type of what a segment hands over be that of these rows: true if
 * it was another one, or is new.
 */
bool
ppl_log_settle(PplPipeline *segment, const PplShape *rows)
{
	PplElevation saved;
	List	   *commands = NIL;

	if (OidIsValid(segment->log))
	{
		if (differences(segment->log, rows) == NIL)
			return false;

		/* other workers may be doing the same: by now it may be done */
		LockRelationOid(segment->log, AccessExclusiveLock);
		commands = differences(segment->log, rows);
		if (commands == NIL)
			return true;
	}
	ppl_elevate_begin(&saved);
	if (OidIsValid(segment->log))
		alter(segment->log, commands);
	else
		segment->log = create(segment, rows);
	ppl_elevate_end(&saved);
	CommandCounterIncrement();
	return true;
}

/*
 * The same for all segments of a pipeline, in their order.  Errors: those of the
 * checks of its stages.
 */
void
ppl_logs_settle(const PplPipeline *pipeline)
{
	List	   *numbers = NIL;
	ListCell   *lc;

	foreach(lc, ppl_definition_segments(pipeline))
		numbers = lappend_int(numbers, ((PplPipeline *) lfirst(lc))->segment);
	foreach(lc, numbers)
	{
		/* looked up anew, as its source may just have been made */
		PplPipeline *segment = ppl_definition_segment(pipeline, lfirst_int(lc));

		if (segment->hand != NULL)
			(void) ppl_log_settle(segment, ppl_shape_after_stages(segment));
	}
	ppl_logs_drop(pipeline, false);
}

/*
 * Drop the row types that no segment of a pipeline has any more, or all of them.
 */
void
ppl_logs_drop(const PplPipeline *pipeline, bool all)
{
	for (int number = 1; number < pipeline->next_segment; number++)
	{
		const PplPipeline *segment = all ? NULL :
		ppl_definition_segment(pipeline, number);

		if ((segment == NULL || segment->hand == NULL) &&
			OidIsValid(ppl_definition_log(pipeline->pipeline_id, number)))
			drop(pipeline->pipeline_id, number);
	}
}

/*
 * What is to be done to a type so that it has these columns, of which only the
 * names and types count, as AlterTableCmd *.  Columns that stay keep their numbers:
 * rows under way are read by them.
 */
static List *
differences(Oid relid, const PplShape *rows)
{
	PplShape   *today = ppl_shape_of_relation(relid);
	List	   *commands = NIL;

	for (int i = 0; i < today->ncolumns; i++)
	{
		if (ppl_shape_column(rows, today->columns[i].name) == NULL)
			commands = add_command(commands, AT_DropColumn,
								   today->columns[i].name, NULL);
	}
	for (int i = 0; i < rows->ncolumns; i++)
	{
		const PplColumn *column = &rows->columns[i];
		const PplColumn *old = ppl_shape_column(today, column->name);

		if (old == NULL)
			commands = add_command(commands, AT_AddColumn, NULL, column);
		else if (old->type != column->type || old->typmod != column->typmod ||
				 old->collation != column->collation)
			commands = add_command(commands, AT_AlterColumnType, column->name,
								   column);
	}
	return commands;
}

static List *
add_command(List *commands, AlterTableType type, const char *name,
			const PplColumn *column)
{
	AlterTableCmd *command = makeNode(AlterTableCmd);

	command->subtype = type;
	command->name = name ? pstrdup(name) : NULL;
	command->behavior = DROP_RESTRICT;
	if (column != NULL)
		command->def = (Node *) makeColumnDef(column->name, column->type,
											  column->typmod, column->collation);
	return lappend(commands, command);
}

static Oid
create(PplPipeline *segment, const PplShape *rows)
{
	char	   *name = ppl_definition_log_name(segment->pipeline_id, segment->segment);
	List	   *columns = NIL;
	ObjectAddress type;
	ObjectAddress extension;

	for (int i = 0; i < rows->ncolumns; i++)
	{
		const PplColumn *column = &rows->columns[i];

		columns = lappend(columns, makeColumnDef(column->name, column->type,
												 column->typmod,
												 column->collation));
	}
	type = DefineCompositeType(makeRangeVar(PPL_PRIVATE_SCHEMA, name, -1), columns);
	ObjectAddressSet(extension, ExtensionRelationId,
					 get_extension_oid(PPL_EXTENSION, false));
	recordDependencyOn(&type, &extension, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
	return get_typ_typrelid(type.objectId);
}

static void
alter(Oid relid, List *commands)
{
	AlterTableStmt *statement = makeNode(AlterTableStmt);
	AlterTableUtilityContext context;

	statement->relation = makeRangeVar(PPL_PRIVATE_SCHEMA, get_rel_name(relid), -1);
	statement->cmds = commands;
	statement->objtype = OBJECT_TYPE;
	memset(&context, 0, sizeof(context));
	context.queryString = "";
	context.relid = relid;
	AlterTable(statement, AccessExclusiveLock, &context);
}

static void
drop(int pipeline_id, int segment)
{
	PplElevation saved;
	ObjectAddress type;

	ObjectAddressSet(type, TypeRelationId,
					 get_rel_type_id(ppl_definition_log(pipeline_id, segment)));
	ppl_elevate_begin(&saved);
	performDeletion(&type, DROP_CASCADE,
					PERFORM_DELETION_INTERNAL | PERFORM_DELETION_QUIETLY |
					PERFORM_DELETION_SKIP_EXTENSIONS);
	ppl_elevate_end(&saved);
	CommandCounterIncrement();
}
