#!/bin/sh
# compat.sh - what differs between majors is in base/compat.h alone.
cd "$(dirname "$0")/../.." || exit
! grep -rnE 'PG_VERSION_NUM|PG_MAJORVERSION' src --include='*.[ch]' | grep -v '^src/base/compat\.h:'
