/*
 * compat.h
 *		All that differs between PostgreSQL's majors, in one place.
 *
 * Included first after postgres.h by every file.  A shim has the newest
 * signature and the suffix _compat; nothing else in the tree tests
 * PG_VERSION_NUM.
 */
#ifndef PPL_COMPAT_H
#define PPL_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "pipeline needs PostgreSQL 15 or later"
#endif

/* Everything is built with -fvisibility=hidden; what core must find is not. */
#define PPL_EXPORT __attribute__((visibility("default")))

/* PG_FUNCTION_INFO_V1 exports nothing on ELF before 16. */
#define PPL_FUNCTION(name) \
	extern PPL_EXPORT Datum name(PG_FUNCTION_ARGS); \
	extern PPL_EXPORT const Pg_finfo_record *CppConcat(pg_finfo_, name) (void); \
	PG_FUNCTION_INFO_V1(name)

/* Neither does PG_MODULE_MAGIC. */
#define PPL_MODULE_MAGIC \
	extern PPL_EXPORT const Pg_magic_struct *PG_MAGIC_FUNCTION_NAME(void); \
	PG_MODULE_MAGIC

#endif							/* PPL_COMPAT_H */
