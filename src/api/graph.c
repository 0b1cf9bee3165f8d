/*
 * graph.c
 *		pipeline.graph(): pipelines as a Mermaid flowchart.
 *
 * Runs in the caller's backend, without locks: what is drawn is as of the
 * statement.  A table is one node, however many pipelines read or write it, so
 * chained pipelines hang together.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "api/access.h"
#include "api/args.h"
#include "catalog/names.h"
#include "catalog/sql.h"

PPL_FUNCTION(pipeline_graph);

/* What is drawn, and what it is drawn of. */
typedef struct Graph
{
	StringInfoData nodes;
	StringInfoData edges;
	List	   *tables;			/* OIDs; the number of a node is the place
								 * here */
	PplSqlResult *segments;		/* by pipeline and segment */
	PplSqlResult *stages;		/* by pipeline and position */
	PplSqlResult *outputs;
}			Graph;

/* Columns of segments; the first two are those of stages and outputs, too. */
enum
{
	OF_PIPELINE, OF_SEGMENT, SEGMENT_WORKERS, SEGMENT_STATE, SEGMENT_LAG
};

/* Columns of stages and outputs. */
enum
{
	ITEM_NAME = 2, ITEM_KIND, STAGE_VERSION, OUTPUT_TARGET = STAGE_VERSION,
	OUTPUT_TARGET_NAME
};

static void load_parts(Graph * graph, PplSqlArg pipeline_id);
static int	table_node(Graph * graph, Oid relid, const char *name);
static void draw_segments(Graph * graph, int pipeline_id, int number,
						  const char *state);
static void draw_flow(Graph * graph, int pipeline_id, int number, int source);
static void put_label(StringInfo out, const char *text);

/*
 * pipeline.graph(name text) returns text
 */
Datum
pipeline_graph(PG_FUNCTION_ARGS)
{
	char	   *name = ppl_args_text_or_null(fcinfo, 0);
	PplSqlArg	args[1];
	PplSqlResult *pipelines;
	Graph		graph = {0};
	int			number = 0;

	args[0] = name == NULL ? ppl_sql_arg_null(INT4OID) :
		ppl_sql_arg_int(ppl_access_open(name, PPL_RIGHT_SEE, NoLock)->pipeline_id);
	pipelines = ppl_sql_run("SELECT p.pipeline_id, p.name, p.owner::oid, p.source::oid,"
							" p.source::text, s.state"
							" FROM " PPL_PIPELINES " p"
							" JOIN pipeline.status s ON s.pipeline = p.name"
							" WHERE p.pipeline_id = coalesce($1, p.pipeline_id)"
							" ORDER BY p.name COLLATE \"C\"",
							lengthof(args), args);
	load_parts(&graph, args[0]);
	initStringInfo(&graph.nodes);
	initStringInfo(&graph.edges);
	appendStringInfoString(&graph.nodes, "flowchart LR\n");
	for (int64 row = 0; row < pipelines->nrows; row++)
	{
		int			pipeline_id = ppl_sql_int(pipelines, row, 0);
		char	   *state = ppl_sql_text(pipelines, row, 5);
		int			source;

		if (!ppl_access_allows(ppl_sql_oid(pipelines, row, 2), PPL_RIGHT_SEE))
			continue;
		source = table_node(&graph, ppl_sql_oid(pipelines, row, 3),
							ppl_sql_text(pipelines, row, 4));
		number++;
		appendStringInfo(&graph.nodes, "    subgraph p%d [\"", number);
		put_label(&graph.nodes, ppl_sql_text(pipelines, row, 1));
		appendStringInfo(&graph.nodes, ": %s\"]\n", state);
		draw_segments(&graph, pipeline_id, number, state);
		appendStringInfoString(&graph.nodes, "    end\n");
		draw_flow(&graph, pipeline_id, number, source);
	}
	appendStringInfoString(&graph.nodes, graph.edges.data);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(graph.nodes.data, graph.nodes.len));
}

/* One that is not isolated is in the segment of the last stage. */
#define OUTPUT_SEGMENT \
	"coalesce(o.segment, (SELECT s.segment FROM " PPL_STAGES " s" \
	" WHERE s.pipeline_id = o.pipeline_id ORDER BY s.position DESC LIMIT 1), 1)"

/*
 * What pipelines are made of, of one or all.  A segment has the state of its worst
 * worker, as a pipeline in pipeline.status.
 */
static void
load_parts(Graph * graph, PplSqlArg pipeline_id)
{
	graph->segments =
		ppl_sql_run("SELECT g.pipeline_id, g.segment, count(w.pid)::int,"
					" (array_agg(w.worker_state ORDER BY array_position('{lost,failed,paused,"
					"retrying,waiting,starting,catching up,running}', w.worker_state)))[1],"
					" CASE WHEN bool_and(w.caught_up) THEN '0'"
					"  ELSE floor(extract(epoch FROM clock_timestamp() - min(w.last_event_at)))::text END"
					" FROM (SELECT pipeline_id, segment FROM " PPL_STAGES
					"  UNION SELECT pipeline_id, " OUTPUT_SEGMENT " FROM " PPL_OUTPUTS " o"
					"  UNION SELECT pipeline_id, 1 FROM " PPL_PIPELINES
					"  WHERE pipeline_id NOT IN (SELECT pipeline_id FROM " PPL_STAGES
					"   UNION ALL SELECT pipeline_id FROM " PPL_OUTPUTS ")) g"
					" LEFT JOIN " PPL_PRIVATE_SCHEMA ".worker_states w"
					"  ON w.pipeline_id = g.pipeline_id AND w.segment = g.segment"
					" WHERE g.pipeline_id = coalesce($1, g.pipeline_id)"
					" GROUP BY g.pipeline_id, g.segment ORDER BY g.pipeline_id, g.segment",
					1, &pipeline_id);
	graph->stages =
		ppl_sql_run("SELECT pipeline_id, segment, name, kind, version FROM " PPL_STAGES
					" WHERE pipeline_id = coalesce($1, pipeline_id)"
					" ORDER BY pipeline_id, position",
					1, &pipeline_id);
	graph->outputs =
		ppl_sql_run("SELECT pipeline_id, " OUTPUT_SEGMENT ", name, mode, target::oid,"
					" target::text"
					" FROM " PPL_OUTPUTS " o WHERE pipeline_id = coalesce($1, pipeline_id)"
					" ORDER BY pipeline_id, output_id",
					1, &pipeline_id);
}

/* The number of a table's node, which is drawn when it is first asked for. */
static int
table_node(Graph * graph, Oid relid, const char *name)
{
	ListCell   *lc;

	foreach(lc, graph->tables)
	{
		if (lfirst_oid(lc) == relid)
			return foreach_current_index(lc) + 1;
	}
	graph->tables = lappend_oid(graph->tables, relid);
	appendStringInfo(&graph->nodes, "    t%d[(\"", list_length(graph->tables));
	put_label(&graph->nodes, name);
	appendStringInfoString(&graph->nodes, "\")]\n");
	return list_length(graph->tables);
}

/* Is this row of the segment, or, with segment 0, of the pipeline? */
static bool
is_part(const PplSqlResult *rows, int64 row, int pipeline_id, int segment)
{
	return ppl_sql_int(rows, row, OF_PIPELINE) == pipeline_id &&
		(segment == 0 || ppl_sql_int(rows, row, OF_SEGMENT) == segment);
}

/* The how manieth of its pipeline is this row? */
static int
ordinal(const PplSqlResult *rows, int64 row, int pipeline_id)
{
	int			n = 0;

	for (int64 i = 0; i <= row; i++)
		n += is_part(rows, i, pipeline_id, 0);
	return n;
}

/* Stages and outputs, each in the box of its segment. */
static void
draw_segments(Graph * graph, int pipeline_id, int number, const char *state)
{
	const PplSqlResult *rows = graph->segments;
	StringInfo	out = &graph->nodes;

	for (int64 i = 0; i < rows->nrows; i++)
	{
		int			segment = ppl_sql_int(rows, i, OF_SEGMENT);
		char	   *own = ppl_sql_text(rows, i, SEGMENT_STATE);
		char	   *lag = ppl_sql_text(rows, i, SEGMENT_LAG);

		if (!is_part(rows, i, pipeline_id, 0))
			continue;
		appendStringInfo(out, "        subgraph p%dg%d [\"segment %d: ", number,
						 segment, segment);
		put_label(out, strcmp(state, "stopped") == 0 || own == NULL ? state : own);
		appendStringInfo(out, ", workers %d", ppl_sql_int(rows, i, SEGMENT_WORKERS));
		if (lag != NULL)
			appendStringInfo(out, ", lag %s s", lag);
		appendStringInfoString(out, "\"]\n");
		for (int64 j = 0; j < graph->stages->nrows; j++)
		{
			if (!is_part(graph->stages, j, pipeline_id, segment))
				continue;
			appendStringInfo(out, "            p%ds%d[\"", number,
							 ordinal(graph->stages, j, pipeline_id));
			put_label(out, ppl_sql_text(graph->stages, j, ITEM_NAME));
			appendStringInfo(out, "<br/>%s, version %d\"]\n",
							 ppl_sql_text(graph->stages, j, ITEM_KIND),
							 ppl_sql_int(graph->stages, j, STAGE_VERSION));
		}
		for (int64 j = 0; j < graph->outputs->nrows; j++)
		{
			if (!is_part(graph->outputs, j, pipeline_id, segment))
				continue;
			appendStringInfo(out, "            p%do%d([\"", number,
							 ordinal(graph->outputs, j, pipeline_id));
			put_label(out, ppl_sql_text(graph->outputs, j, ITEM_NAME));
			appendStringInfo(out, "<br/>%s\"])\n",
							 ppl_sql_text(graph->outputs, j, ITEM_KIND));
		}
		appendStringInfoString(out, "        end\n");
	}
}

/* From the source over the stages to each output, and on to its target. */
static void
draw_flow(Graph * graph, int pipeline_id, int number, int source)
{
	char	   *from = psprintf("t%d", source);

	for (int64 i = 0; i < graph->stages->nrows; i++)
	{
		char	   *to = psprintf("p%ds%d", number,
								  ordinal(graph->stages, i, pipeline_id));

		if (!is_part(graph->stages, i, pipeline_id, 0))
			continue;
		appendStringInfo(&graph->edges, "    %s --> %s\n", from, to);
		from = to;
	}
	for (int64 i = 0; i < graph->outputs->nrows; i++)
	{
		if (!is_part(graph->outputs, i, pipeline_id, 0))
			continue;
		appendStringInfo(&graph->edges, "    %s --> p%do%d --> t%d\n", from, number,
						 ordinal(graph->outputs, i, pipeline_id),
						 table_node(graph, ppl_sql_oid(graph->outputs, i, OUTPUT_TARGET),
									ppl_sql_text(graph->outputs, i, OUTPUT_TARGET_NAME)));
	}
}

/*
 * Text within the quotes of a label.  What could mean something to Mermaid, or to
 * the HTML and Markdown that it makes of labels, becomes a code: all but letters,
 * digits and a few signs; a point after a digit and a dash at the start would make
 * a list.  Letters beyond ASCII stay.
 */
static void
put_label(StringInfo out, const char *text)
{
	for (int i = 0; text[i] != '\0'; i++)
	{
		unsigned char c = text[i];
		bool		lists = (c == '.' && i > 0 && isdigit((unsigned char) text[i - 1])) ||
		(c == '-' && i == 0);

		if (IS_HIGHBIT_SET(c) || isalnum(c) || (strchr(" _.,-:/", c) && !lists))
			appendStringInfoChar(out, c);
		else
			appendStringInfo(out, "#%d;", c);
	}
}
