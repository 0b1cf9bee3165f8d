/*
 * ddl.h
 *		Reactions to CREATE and DROP of the extension and of databases.
 */
#ifndef PPL_DDL_H
#define PPL_DDL_H

extern void ppl_ddl_install(void);

#endif							/* PPL_DDL_H */
