/*
 * setting.h
 *		Settings of a stage or a pipeline of its own, in place of the server's.
 */
#ifndef PPL_SETTING_H
#define PPL_SETTING_H

#include "utils/jsonb.h"

typedef enum PplSetting
{
	PPL_SETTING_BATCH_BYTES,	/* kB */
	PPL_SETTING_BATCH_ROWS,
	PPL_SETTING_WORK_MEM		/* kB */
}			PplSetting;

#define PPL_NSETTINGS (PPL_SETTING_WORK_MEM + 1)

/* By PplSetting; 0 = not set. */
typedef struct PplSettings
{
	int			values[PPL_NSETTINGS];
}			PplSettings;

extern void ppl_setting_parse(Jsonb *json, PplSettings * settings);

#endif							/* PPL_SETTING_H */
