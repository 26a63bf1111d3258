# eo_outbox: build with PGXS, test, demonstrate.
#
#   make                     build for the PostgreSQL of PG_CONFIG
#   make install             install into it
#   make test                everything: see test/run
#   make demo                see events leave: see test/demo/run
#   make bench               measure: see test/bench/run
#   make bench-peers         measure against others: see test/bench/peers/run
#   make test-matrix         test with 15, 17 and 18: see test/matrix
#   make test-asan           test the publishers under sanitizers: see test/run
#   make test-cassert        test the extension with assertions: see test/analysis/valgrind
#   make test-valgrind       test the extension under valgrind: see test/analysis/valgrind
#   make lint                check the rules of this code: see test/lint/run
#   make analyse             read all C code with cppcheck and clang-tidy: see test/analysis/clang-tidy
#   make coverage            tell what the tests reach of src/: see test/analysis/coverage
#   make mutants             break it and see the tests fail: see test/mutants
#   make setup               install what all this needs: see test/setup
#   make torture             try to break the promises: see test/torture/run
#
# PG_CONFIG=/path/to/pg_config chooses the PostgreSQL.
# EO_TEST=1 compiles the test-only switches in, and the stub publisher.
# WERROR=no lets a compiler that is newer than this code warn.

DRIVER_GOALS = test lint demo setup test-matrix bench bench-peers mutants torture help \
	test-asan test-cassert test-valgrind coverage analyse

.DEFAULT_GOAL = all

# The drivers install what is missing, PostgreSQL included, so they must run
# where there is no pg_config yet.
ifneq ($(filter-out $(DRIVER_GOALS),$(or $(MAKECMDGOALS),all)),)

EXTENSION = eo_outbox
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" eo_outbox.control)
MODULE_big = eo_outbox

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard $(addsuffix /*.c, \
	src src/wire src/store src/txn src/capture src/api src/relay))))

# In the order of execution; each may use what stands above it.
SQL_FRAGMENTS = $(addprefix src/sql/, \
	schema.sql types.sql log.sql foreign.sql produce.sql subscribe.sql \
	received.sql receive.sql idempotency.sql capture.sql apply.sql monitoring.sql snapshot.sql grants.sql install.sql)
DATA_built = $(EXTENSION)--$(EXTVERSION).sql

WARNINGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers
ifneq ($(WERROR),no)
WARNINGS += -Werror
endif

PG_CPPFLAGS = -Isrc -MMD -MP -DEO_VERSION='"$(EXTVERSION)"'
PG_CFLAGS = $(WARNINGS)
ifdef EO_TEST
PG_CPPFLAGS += -DEO_TEST_SWITCHES
endif
SHLIB_LINK = -Wl,--version-script=src/exports.map

EXTRA_CLEAN = $(OBJS:.o=.d) .build-flags

# pg_regress and isolation tests are listed in schedules, one group a line.
scheduled = $(shell sed -n 's/^test: *//p' $(1) 2>/dev/null)
REGRESS = $(call scheduled,sql/schedule)
REGRESS_OPTS = --inputdir=$(srcdir)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)

# No LLVM bitcode: nothing here is worth inlining into a query, and it would
# need clang.
override with_llvm := no

include $(PGXS)
include $(wildcard src/publishers/publishers.mk test/unit/unit.mk)

$(OBJS): .build-flags
$(shlib): src/exports.map

# Rebuilds when the flags or the server's version change, and only then.
.build-flags: FORCE
	@echo '$(VERSION) $(CC) $(CFLAGS) $(CPPFLAGS)' >$@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

$(DATA_built): eo_outbox.control $(SQL_FRAGMENTS) Makefile
	@echo "building $@"
	@{ printf '%s\n' '\echo Use "CREATE EXTENSION eo_outbox" to load this file. \quit'; \
	   cat $(SQL_FRAGMENTS); } >$@.new && mv -f $@.new $@

-include $(OBJS:.o=.d)

.PHONY: FORCE
FORCE:

endif

.PHONY: $(DRIVER_GOALS)

test:
	@test/run

lint:
	@test/run lint

demo:
	@test/demo/run

setup:
	@test/setup

test-matrix:
	@test/matrix

bench:
	@test/bench/run

bench-peers:
	@test/bench/peers/run

mutants:
	@test/mutants

torture:
	@test/torture/run

# The unit tests, Kafka's publisher, and all that a relay does with the others
test-asan:
	@TESTS="$${TESTS:-asan:relay_* asan:kafka_*}" test/run unit asan tsan

test-cassert:
	@test/analysis/valgrind --assertions

test-valgrind:
	@test/analysis/valgrind

coverage:
	@test/analysis/coverage

analyse:
	@test/analysis/clang-tidy

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^The drivers/,$$d'
