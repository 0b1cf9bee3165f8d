/*
 * handler.h
 *		Functions that are stages or transforms: look up, check, call.
 */
#ifndef PPL_HANDLER_H
#define PPL_HANDLER_H

#include "catalog/shape.h"

/* A handler as the compiler needs it. */
typedef struct PplHandler
{
	Oid			oid;
	char	   *signature;		/* qualified, for messages */
	char	   *call_name;		/* quoted, qualified, without arguments */
	Oid			argtype;		/* composite */
	bool		takes_event;	/* pipeline.event as its second argument? */
	Oid			rettype;
	bool		retset;
	PplShape   *result;			/* the rows it returns, NULL of a scalar */
	bool		inlinable;		/* will the planner see through it? */
} PplHandler;

extern Oid	ppl_handler_find(const PplPipeline *pipeline,
							 const char *signature);
extern PplHandler *ppl_handler_resolve(const PplPipeline *pipeline,
									   const char *signature);
extern void ppl_handler_check_input(const PplHandler *handler,
									const PplShape *input);
extern void ppl_handler_check_result(const PplHandler *handler,
									 PplStageKind kind);

#endif							/* PPL_HANDLER_H */
