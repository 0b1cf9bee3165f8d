#!/bin/sh
# version.sh - control file, META.json and CHANGELOG.md name the same version.
cd "$(dirname "$0")/../.." || exit
rc=0
version=$(sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" pipeline.control)
same()
{
	[ "$2" = "$version" ] || { echo "$1 says \"$2\", pipeline.control \"$version\""; rc=1; }
}
echo "$version" | grep -qE '^[0-9]+\.[0-9]+\.[0-9]+$' || { echo "not a version: \"$version\""; rc=1; }
meta=$(sed -n 's/^ *"version": "\(.*\)".*/\1/p' META.json | head -n 2 | sort -u | tr '\n' ' ')
same META.json "${meta% }"
same CHANGELOG.md "$(sed -n 's/^## \([0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)"
if ls sql/ext/frozen/pipeline--*.sql >/dev/null 2>&1; then
	[ ! -e "sql/ext/frozen/pipeline--$version.sql" ] ||
		{ echo "$version is frozen; open the next version"; rc=1; }
	ls sql/ext/pipeline--*--"$version".sql >/dev/null 2>&1 ||
		{ echo "no upgrade script to $version"; rc=1; }
fi
exit $rc
