# Unit tests and the fuzzer, in build/unit/.
#
# Part of the top Makefile, and usable alone from the top directory:
#   make -f test/unit/unit.mk unit-tests
#   make -f test/unit/unit.mk fuzz FUZZ_SECONDS=600 FUZZ_SEED=1
#
# All is built with sanitizers, so that reading beyond a message ends a test.

ifndef PUBLISHERS
include src/publishers/publishers.mk
endif

SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
UNIT_CFLAGS = -std=gnu99 -O1 -g $(PUBLISHER_WARNINGS) $(SANITIZE) -Isrc -Itest/unit -MMD -MP
# Branches are counted only in code that was built alike.
ifneq ($(findstring --coverage,$(PUBLISHER_CC)),)
UNIT_CFLAGS = $(PUBLISHER_CFLAGS) -Itest/unit
endif
unit_objects = $(patsubst %.c,build/unit/obj/%.o,$(sort $(wildcard $(1))))

UNIT_PROGRAMS = build/unit/wire_test build/unit/cloudevents_test build/unit/backoff_test
UNIT_PUBLISHERS = build/unit/eo-publish-file build/unit/eo-publish-stub
UNIT_FUZZER = build/unit/fuzz_decoders
UNIT_LIST = $(UNIT_PROGRAMS) test/unit/harness_test.py test/unit/file_test.py \
	test/unit/powerloss_test.py test/unit/checker_test.py test/unit/rig_test.py \
	test/unit/report_test.py test/unit/coverage_test.py $(UNIT_FUZZER)

UNIT_WIRE = $(call unit_objects,src/wire/*.c)
UNIT_COMMON = $(UNIT_WIRE) $(call unit_objects,$(addprefix src/publishers/, \
	harness.c channel.c ring.c cloudevents.c points.c))

.PHONY: unit-tests unit-tests-build unit-tests-list fuzz
unit-tests: unit-tests-build
	perl test/lib/tap.pl --log build/unit/log $(UNIT_LIST)

# The publishers without sanitizers are for tests that look from outside.
unit-tests-build: $(UNIT_PROGRAMS) $(UNIT_PUBLISHERS) $(UNIT_FUZZER) build/unit/fault_shim.so \
	build/eo-publish-file build/eo-publish-stub

unit-tests-list:
	@printf '%s\n' $(UNIT_LIST)

fuzz: $(UNIT_FUZZER)
	$(UNIT_FUZZER)

build/unit/wire_test: $(call unit_objects,test/unit/wire_test.c) $(UNIT_WIRE)
build/unit/cloudevents_test: $(call unit_objects,test/unit/cloudevents_test.c \
	src/publishers/cloudevents.c src/publishers/ring.c) $(UNIT_WIRE)
build/unit/backoff_test: $(call unit_objects,test/unit/backoff_test.c src/relay/backoff.c)
build/unit/fuzz_decoders: $(call unit_objects,test/fuzz/decoders.c \
	src/publishers/cloudevents.c src/publishers/file_resume.c) $(UNIT_WIRE)
build/unit/eo-publish-file: $(call unit_objects,src/publishers/file*.c) $(UNIT_COMMON)
build/unit/eo-publish-stub: $(call unit_objects,src/publishers/stub*.c) $(UNIT_COMMON)

$(UNIT_PROGRAMS) $(UNIT_PUBLISHERS) $(UNIT_FUZZER):
	$(PUBLISHER_CC) $(UNIT_CFLAGS) $^ -o $@

build/unit/fault_shim.so: test/unit/fault_shim.c
	@mkdir -p $(@D)
	$(PUBLISHER_CC) -std=gnu99 -O1 $(PUBLISHER_WARNINGS) -fPIC -shared $< -o $@

build/unit/obj/%.o: %.c
	@mkdir -p $(@D)
	$(PUBLISHER_CC) $(UNIT_CFLAGS) -c $< -o $@

-include $(wildcard build/unit/obj/*/*.d build/unit/obj/*/*/*.d)
