/*
 * session.h
 *		The worker's session as its pipeline's owner.
 */
#ifndef PPL_SESSION_H
#define PPL_SESSION_H

#include "catalog/definition.h"

extern void ppl_session_setup(void);
extern void ppl_session_settings(const PplPipeline *pipeline);
extern void ppl_session_search_path(const char *search_path);
extern int	ppl_session_pin_formats(void);
extern void ppl_session_unpin_formats(int level);
extern void ppl_session_discard(void);
extern void ppl_session_clean(void);

#endif							/* PPL_SESSION_H */
