# The publishers, one executable per broker in build/.
#
# Part of the top Makefile, and usable alone from the top directory:
#   make -f src/publishers/publishers.mk publishers
#
# eo-publish-kafka is built where librdkafka is found, eo-publish-stub with
# EO_TEST=1 or by name.

PUBLISHER_CC ?= $(CC)
PUBLISHER_WARNINGS = -Wall -Wextra -Wshadow
ifneq ($(WERROR),no)
PUBLISHER_WARNINGS += -Werror
endif
PUBLISHER_CFLAGS = -std=gnu99 -O2 -g $(PUBLISHER_WARNINGS) -fPIE \
	-fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -Isrc -MMD -MP
# PUBLISHER_SANITIZE=address,undefined builds them for the parts asan and tsan of
# test/run; their sanitizers write what they find to files in PUBLISHER_REPORTS.
ifneq ($(PUBLISHER_SANITIZE),)
PUBLISHER_CFLAGS = -std=gnu99 -O1 -g $(PUBLISHER_WARNINGS) -fPIE -Isrc -MMD -MP \
	-fsanitize=$(PUBLISHER_SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-DEO_REPORTS='"$(PUBLISHER_REPORTS)"'
PUBLISHER_EXTRA = build/obj/sanitizer_options.o
ifeq ($(PUBLISHER_SANITIZE),thread)
PUBLISHER_EXTRA += build/obj/tsan_threads.o
else
PUBLISHER_EXTRA += build/obj/asan_reports.o build/obj/asan_exit.o
endif
endif
ifneq ($(findstring --coverage,$(PUBLISHER_CC)),)
PUBLISHER_EXTRA = build/obj/coverage_exit.o
endif
ifdef EO_TEST
PUBLISHER_CFLAGS += -DEO_TEST_SWITCHES
endif
PUBLISHER_LDFLAGS = -pie -Wl,-z,relro,-z,now

PUBLISHER_KINDS = file
ifneq ($(wildcard src/publishers/kafka.c),)
ifeq ($(shell pkg-config --exists rdkafka && echo yes),yes)
PUBLISHER_KINDS += kafka
endif
endif
ifdef EO_TEST
PUBLISHER_KINDS += stub
endif
PUBLISHERS = $(PUBLISHER_KINDS:%=build/eo-publish-%)

publisher_objects = $(patsubst src/%.c,build/obj/%.o,$(sort $(wildcard $(1))))
PUBLISHER_COMMON = $(call publisher_objects,src/wire/*.c \
	$(addprefix src/publishers/,harness.c channel.c ring.c cloudevents.c points.c)) $(PUBLISHER_EXTRA)

.PHONY: publishers install-publishers uninstall-publishers clean-publishers FORCE_PUBLISHER_FLAGS
publishers: $(PUBLISHERS)

build/eo-publish-file: $(call publisher_objects,src/publishers/file*.c)
build/eo-publish-file: PUBLISHER_LIBS = -pthread
build/eo-publish-kafka: $(call publisher_objects,src/publishers/kafka*.c)
build/eo-publish-kafka: PUBLISHER_LIBS = $(shell pkg-config --libs rdkafka)
build/eo-publish-stub: $(call publisher_objects,src/publishers/stub*.c)

build/obj/publishers/kafka%.o: PUBLISHER_LIB_CFLAGS = $(shell pkg-config --cflags rdkafka)

build/eo-publish-%: $(PUBLISHER_COMMON)
	$(PUBLISHER_CC) $(PUBLISHER_CFLAGS) $(PUBLISHER_LDFLAGS) $^ -o $@ $(PUBLISHER_LIBS)

# Rebuilds when the flags change, and only then.
build/obj/.flags: FORCE_PUBLISHER_FLAGS
	@mkdir -p $(@D)
	@echo '$(PUBLISHER_CC) $(PUBLISHER_CFLAGS)' >$@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

FORCE_PUBLISHER_FLAGS:

build/obj/%.o: src/%.c build/obj/.flags
	@mkdir -p $(@D)
	$(PUBLISHER_CC) $(PUBLISHER_CFLAGS) $(PUBLISHER_LIB_CFLAGS) -c $< -o $@

build/obj/%.o: test/analysis/%.c
	@mkdir -p $(@D)
	$(PUBLISHER_CC) $(PUBLISHER_CFLAGS) -c $< -o $@

.SECONDARY: $(PUBLISHER_COMMON)

clean-publishers:
	rm -rf build

-include $(wildcard build/obj/*/*.d)

ifdef PGXS
all: publishers
install: install-publishers
uninstall: uninstall-publishers
clean: clean-publishers

install-publishers: publishers
	$(MKDIR_P) '$(DESTDIR)$(pkglibdir)/eo_outbox'
	$(INSTALL_PROGRAM) $(PUBLISHERS) '$(DESTDIR)$(pkglibdir)/eo_outbox/'

uninstall-publishers:
	rm -rf '$(DESTDIR)$(pkglibdir)/eo_outbox'
endif
