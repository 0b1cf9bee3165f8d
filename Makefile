# Build, install and test the extension pipeline (PGXS).
#
#   make                      build          make install        install
#   make installcheck         regression and isolation tests on your server
#   make check                everything, in throw-away servers (test/run)
#   make check-long           mirrors: random changes, PostgreSQL's own tests, sqlsmith
#   make lint                 machine checks of the conventions
#   make demo, make bench     see README.md; make bench-quick: two minutes
#
# Variables: PG_CONFIG=path, FAILPOINTS=1 (test stops), COPT=-Werror.
# Parts of a check, an empty value skips the suite:
#   make check REGRESS='declare run' ISOLATION= PROVE_TESTS='test/t/003*.pl'

PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)

EXTENSION = pipeline
MODULE_big = pipeline
PGFILEDESC = "pipeline - exactly-once pipelines of SQL stages over tables"
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" pipeline.control)

OBJS := $(patsubst %.c,%.o,$(sort $(wildcard src/*/*.c)) src/pipeline.c)
DATA_built = pipeline--$(EXTVERSION).sql
DATA = $(wildcard sql/ext/pipeline--*--*.sql)

PG_CPPFLAGS = -Isrc $(if $(filter 1 yes,$(FAILPOINTS)),-DPPL_FAILPOINTS)
PG_CFLAGS += -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Werror=implicit-function-declaration \
	-fvisibility=hidden -MMD -MP

# Tests, in order: the named ones first, then the rest by name.
REGRESS_FIRST = 00_preflight
REGRESS ?= $(REGRESS_FIRST) $(filter-out $(REGRESS_FIRST),$(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = --load-extension=$(EXTENSION)
ISOLATION ?= $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=$(EXTENSION)
PROVE_TESTS ?= test/t/*.pl
LONG_TESTS ?= test/mirror/t/*.pl
LINTS = $(sort $(basename $(notdir $(wildcard test/lint/*.sh))))

EXTRA_CLEAN = $(OBJS:.o=.d) .build-flags tmp_check pipeline--*.sql

# Bitcode for JIT is built only on demand (with_llvm=yes): it needs clang.
ifneq ($(origin with_llvm),command line)
override with_llvm = no
endif

# PGXS has a "check" that tests nothing, so it stays out where only our own
# targets are wanted.  Those must also work before pg_config is installed.
OWN_GOALS = check check-long lint lint-% lints demo bench bench-quick
ifneq ($(filter-out $(OWN_GOALS),$(or $(MAKECMDGOALS),all)),)
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(wildcard $(PGXS)),)
$(error no PGXS from "$(PG_CONFIG)": install postgresql-server-dev-15 or give PG_CONFIG=path)
endif
include $(PGXS)

# Everything is rebuilt when the server or the flags change.
BUILD_FLAGS := $(shell $(PG_CONFIG) --version) $(PG_CONFIG) $(CFLAGS) $(CPPFLAGS)
ifneq ($(filter-out clean distclean maintainer-clean installcheck,$(or $(MAKECMDGOALS),all)),)
$(shell echo '$(subst ','\'',$(BUILD_FLAGS))' | cmp -s - .build-flags || \
	echo '$(subst ','\'',$(BUILD_FLAGS))' > .build-flags)
endif
.build-flags: ;
$(OBJS): Makefile .build-flags
-include $(OBJS:.o=.d)
endif

pipeline--$(EXTVERSION).sql: $(sort $(wildcard sql/ext/[0-9]*.sql)) pipeline.control Makefile
	cat $(filter %.sql,$^) > $@.tmp && mv $@.tmp $@

export PG_CONFIG

ifneq ($(filter check,$(MAKECMDGOALS)),)
check:
	@exec env REGRESS='$(REGRESS)' ISOLATION='$(ISOLATION)' PROVE_TESTS='$(PROVE_TESTS)' test/run
endif

# Half an hour on two cores; LONG_TESTS='test/mirror/t/regress.pl' runs a part.
check-long:
	@exec env REGRESS= ISOLATION= PROVE_TESTS='$(LONG_TESTS)' PIPELINE_WITNESS=1 \
		PIPELINE_MIRROR_SECONDS=$${PIPELINE_MIRROR_SECONDS:-300} \
		PIPELINE_SQLSMITH_SECONDS=$${PIPELINE_SQLSMITH_SECONDS:-600} \
		PACKAGES='postgresql-15-wal2json sqlsmith' test/run

# A lint is a script that prints what is wrong and exits non-zero.
lint: $(LINTS:%=lint-%)
lint-%:
	@test/lint/$*.sh && echo 'lint $*: ok' || { echo 'lint $*: FAILED'; exit 1; }
lint-symbols: lint-build
lint-build:
	@$(MAKE) --no-print-directory -s all
lints:
	@echo $(LINTS)

demo bench:
	@test/$@/run
bench-quick:
	@exec env BENCH_QUICK=1 test/bench/run

.PHONY: check check-long lint lint-build lints demo bench bench-quick
