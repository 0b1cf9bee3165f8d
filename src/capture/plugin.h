/*
 * plugin.h
 *		The output plugin: replayed transactions into the spool.
 */
#ifndef PPL_PLUGIN_H
#define PPL_PLUGIN_H

#include "base/shm.h"
#include "spool/writer.h"

extern void ppl_plugin_open(PplDatabase *db, PplSpoolWriter *writer);
extern bool ppl_plugin_publication_due(void);
extern PplSpoolPos ppl_plugin_publish(void);

#endif							/* PPL_PLUGIN_H */
