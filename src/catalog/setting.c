/*
 * setting.c
 *		Settings of a stage or a pipeline of its own, in place of the server's.
 *
 * They are stored as they were given, an object of jsonb, and mean what SET would
 * make of them.  Runs wherever definitions are read or changed.
 */
#include "postgres.h"
#include "base/compat.h"

#include <limits.h>

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"

#include "base/guc.h"
#include "catalog/setting.h"

#define ALLOWED "batch_bytes, batch_rows, work_mem"
#define MIN_WORK_MEM 64			/* kB, as in guc.c of the server */

typedef struct Known
{
	const char *name;
	int			flags;			/* GUC_UNIT_* */
	int			min;
	int			max;
}			Known;

static const Known known[PPL_NSETTINGS] = {
	[PPL_SETTING_BATCH_BYTES] = {"batch_bytes", GUC_UNIT_KB, PPL_MIN_BATCH_KB, PPL_MAX_BATCH_KB},
	[PPL_SETTING_BATCH_ROWS] = {"batch_rows", 0, 1, PPL_MAX_BATCH_ROWS},
	[PPL_SETTING_WORK_MEM] = {"work_mem", GUC_UNIT_KB, MIN_WORK_MEM, MAX_KILOBYTES},
};

static int	find_setting(const JsonbValue *key);
static int	read_value(const Known * setting, const JsonbValue *value);
static void refuse_shape(void) pg_attribute_noreturn();

/*
 * What an object sets.  Errors, 22023: it is no object; a key is not known; a value
 * is neither a number nor a string, or not in the range of its setting.
 */
void
ppl_setting_parse(Jsonb *json, PplSettings * settings)
{
	JsonbIterator *iterator = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	int			setting = 0;

	memset(settings, 0, sizeof(*settings));
	if (!JB_ROOT_IS_OBJECT(json))
		refuse_shape();
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			setting = find_setting(&value);
		else if (token == WJB_VALUE)
			settings->values[setting] = read_value(&known[setting], &value);
	}
}

static void
refuse_shape(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("settings must be an object"),
			 errhint("Use settings => '{\"batch_rows\": 1000}'; known are " ALLOWED ".")));
}

static int
find_setting(const JsonbValue *key)
{
	for (int i = 0; i < PPL_NSETTINGS; i++)
	{
		if (strlen(known[i].name) == key->val.string.len &&
			memcmp(known[i].name, key->val.string.val, key->val.string.len) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown setting \"%s\"",
					pnstrdup(key->val.string.val, key->val.string.len)),
			 errhint("Use one of: " ALLOWED ".")));
}

/* As in SET, a number without a unit is in that of the setting. */
static int
read_value(const Known * setting, const JsonbValue *value)
{
	const char *text = NULL;
	const char *hint = NULL;
	const char *unit = setting->flags & GUC_UNIT_KB ? " kB" : "";
	int			result;

	if (value->type == jbvNumeric)
		text = DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));

	else if (value->type == jbvString)
		text = pnstrdup(value->val.string.val, value->val.string.len);

	if (text == NULL || !parse_int(text, &result, setting->flags, &hint))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 text !=NULL ?
				 errmsg("invalid value for setting \"%s\": \"%s\"", setting->name, text) :
				 errmsg("the value of setting \"%s\" is neither a number nor a string",
						setting->name),
				 hint != NULL ? errhint("%s", hint) :
				 errhint("Known settings are " ALLOWED ".")));
	if (result < setting->min || result > setting->max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d%s is outside the valid range for setting \"%s\"",
						result, unit, setting->name),
				 errdetail("It goes from %d%s to %d%s.", setting->min, unit,
						   setting->max, unit)));
	return result;
}
