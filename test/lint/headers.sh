#!/bin/sh
# headers.sh - each header compiles alone, and has the include guard of its name.
cd "$(dirname "$0")/../.." || exit
pg_config=${PG_CONFIG:-pg_config}
include=$("$pg_config" --includedir-server) || exit
cc=${CC:-$("$pg_config" --cc)}
rc=0
for header in $(cd src && find . -name '*.h' | sed 's,^\./,,' | sort); do
	printf '#include "postgres.h"\n#include "base/compat.h"\n#include "%s"\n' "$header" |
		$cc -fsyntax-only -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
			-Wno-missing-field-initializers -D_GNU_SOURCE -Isrc -I"$include" -x c - ||
		{ echo "src/$header is not self-contained"; rc=1; }
	file=$(basename "$header" .h | tr 'a-z-' 'A-Z_')
	layer=$(dirname "$header" | tr 'a-z' 'A-Z')
	grep -qE "^#ifndef PPL_(${layer}_)?${file}_H\$" "src/$header" ||
		{ echo "src/$header: include guard is not PPL_${layer}_${file}_H"; rc=1; }
done
exit $rc
