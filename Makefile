# Builds, runs and tests the service. `make help` lists the targets; `make up` is the one to start with.
#
# BUILD  where output goes: other builds (ASan, clang) stand beside the usual one
# CC, CFLAGS, EXTRA   the compiler, its flags, and flags on top; changing any of them builds anew
# ARGS   passed on to pytest: make e2e ARGS='-k stream'
# BENCH  what `make bench` measures
# V=1    shows the whole commands

SHELL  := /bin/bash
BUILD  ?= build
CC     = gcc
CFLAGS ?= -g -O2
EXTRA  ?=
FORTIFY ?= -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
ARGS   ?=
BENCH  ?=
FUZZ_MAIN = $(BUILD)/obj/replay.o
PYTHON ?= /usr/bin/python3
Q      := $(if $(V),,@)

WARN   = -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2
# tests/e2e/test_hardening.py looks for each of these in the program.
BRANCHES  = $(if $(filter x86_64%,$(call once,MACHINE,$(shell $(CC) -dumpmachine))),-fcf-protection=full)
HARDEN    = $(FORTIFY) -fstack-protector-strong -fstack-clash-protection $(BRANCHES) -fPIE
HARDEN_LD = -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code

# Asked when first needed, and once: the packages may not be installed yet when this file is read.
LIBS       = fcgi libcurl json-c hiredis libuv
once       = $(eval $(1) := $(2))$($(1))
PKG_CFLAGS = $(call once,PKG_CFLAGS,$(shell pkg-config --cflags $(LIBS)))
PKG_LIBS   = $(call once,PKG_LIBS,$(shell pkg-config --libs $(LIBS) || echo -lpackages-missing-run-env/install-run) -lm)

# For the targets that build much: a job for each core, unless the caller has said how many.
PARALLEL = $(if $(findstring -j,$(MAKEFLAGS)),,-j$$(nproc))

# What is built does not tell where it was built.
COMPILE = $(CC) -std=gnu11 -D_GNU_SOURCE -ffile-prefix-map="$(CURDIR)"=. -Ifcgi $(CFLAGS) $(WARN) $(HARDEN) $(EXTRA) \
	$(PKG_CFLAGS) -MMD -MP -c
LINK    = $(CC) $(HARDEN_LD) $(CFLAGS) $(EXTRA) $(LDFLAGS)

SRC  := $(sort $(shell find fcgi -name '*.c'))
OBJ  := $(SRC:fcgi/%.c=$(BUILD)/obj/%.o)
CORE := $(filter-out %/main.o,$(OBJ))
UNIT := $(sort $(shell find tests/unit -name 'test_*.c' 2>/dev/null))
UNIT_BIN := $(UNIT:tests/unit/%.c=$(BUILD)/unit/%)
FUZZ     := $(sort $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_BIN := $(FUZZ:%=$(BUILD)/fuzz/%)
PRELOAD  := $(patsubst tests/alloc/%.c,$(BUILD)/%.so,$(wildcard tests/alloc/*.c))

export PYTHONDONTWRITEBYTECODE := 1

all: $(BUILD)/coze-chatd ## build the worker

include env/install.mk
include $(wildcard tests/lint/lint.mk tests/coverage/coverage.mk) # images are built without tests

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: install-run ## install what is missing, build, start everything, wait until it is healthy
	@$(MAKE) --no-print-directory all
	@env/service up

reload: ## take changed settings, or a newly built program, into use without losing a request
	@env/service reload

down: ## stop exactly what `make up` started
	@env/service down

status: ## say what runs; fails unless all does
	@env/service status

logs: ## follow the logs
	@env/service logs

test: install-test ## install what is missing, then unit and e2e
	@$(MAKE) --no-print-directory $(PARALLEL) programs
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e

unit: $(UNIT_BIN) $(FUZZ_BIN) ## run the unit tests, and the fuzz targets over their corpus
	@failed=; for test in $(UNIT_BIN); do echo "== $$test"; $$test || failed="$$failed $$test"; done; \
	echo "== tests/fuzz/corpus"; \
	for name in $(FUZZ); do $(BUILD)/fuzz/$$name tests/fuzz/corpus/$$name || failed="$$failed fuzz/$$name"; done; \
	if [ -n "$$failed" ]; then echo "unit tests failed:$$failed"; exit 1; fi; \
	echo "unit tests passed: $(words $(UNIT_BIN)) programs; corpus passed: $(words $(FUZZ)) fuzz targets"

# Tests wait more than they work: the files of tests share TESTERS processes. Those that work or measure (`alone`) follow.
PYTEST  = ENV_FILE=/dev/null CHATD='$(abspath $(BUILD))/coze-chatd' $(PYTHON) -m pytest -p no:cacheprovider
TESTERS = 3
e2e: $(BUILD)/coze-chatd $(PRELOAD) ## run the end-to-end tests (ARGS= goes to pytest: one process, in order)
ifneq ($(ARGS),)
	@$(PYTEST) tests $(ARGS)
else
	@$(PYTEST) tests -n $(TESTERS) --dist loadfile -m 'not alone'; rc=$$?; $(PYTEST) tests -m alone || rc=$$?; exit $$rc
endif

# A report written by any worker process fails the run, also when its exit status was seen by nobody. The sanitizers
# make gcc warn of what cannot happen, so there warnings are no errors.
ASAN_OPTIONS_  = detect_leaks=1:abort_on_error=0:log_path=$(abspath build/asan)/report
UBSAN_OPTIONS_ = print_stacktrace=1:log_path=$(abspath build/asan)/report
ASAN = BUILD=build/asan FORTIFY=-U_FORTIFY_SOURCE EXTRA='-fsanitize=address,undefined -fno-omit-frame-pointer -w'
asan: install-test ## unit and e2e against a build with AddressSanitizer and UBSan (ARGS='-m smoke': a part of e2e)
	@$(MAKE) --no-print-directory $(PARALLEL) programs $(ASAN)
	@rm -f build/asan/report.*
	@export ASAN_OPTIONS='$(ASAN_OPTIONS_)' UBSAN_OPTIONS='$(UBSAN_OPTIONS_)'; \
	$(MAKE) --no-print-directory unit e2e $(ASAN); rc=$$?; \
	for report in build/asan/report.*; do [ -e "$$report" ] || break; cat "$$report"; rc=1; done; \
	exit $$rc

# tests/fuzz/README.md. The same targets, but libFuzzer's main in the place of replay.c, and every allocation and every
# branch watched.
FUZZER  = BUILD=build/libfuzzer CC=clang FORTIFY=-U_FORTIFY_SOURCE FUZZ_MAIN=-fsanitize=fuzzer CFLAGS='-g -O1' \
	EXTRA='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer'
fuzz fuzz-merge: install-lint
	@$(MAKE) --no-print-directory fuzz-targets $(FUZZER) $(if $(TARGET),FUZZ='$(TARGET)')
	@tests/fuzz/run $@ build/libfuzzer/fuzz '$(or $(SECONDS),60)' $(TARGET)
fuzz: ## look for inputs that break a parser: every fuzz target for SECONDS=60 (TARGET=sse: just that one)
fuzz-merge: ## take what `make fuzz` found into tests/fuzz/corpus, as few files as cover the same
fuzz-targets: $(FUZZ_BIN)
fuzz-coverage: install-lint ## say how much of the code behind the fuzz targets their corpus runs through
	@$(MAKE) --no-print-directory fuzz-targets BUILD=build/fuzz-coverage CC=clang CFLAGS='-g -O0' FORTIFY=-U_FORTIFY_SOURCE \
		EXTRA='-fprofile-instr-generate -fcoverage-mapping'
	@tests/fuzz/coverage build/fuzz-coverage/fuzz

MEMCHECK = valgrind -q --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite \
	--error-exitcode=99 --num-callers=30 --trace-children=yes --log-file=$(abspath build/valgrind)/report.%p
valgrind: install-lint ## e2e with every worker under valgrind
	@mkdir -p build/valgrind && rm -f build/valgrind/report.*
	@CHATD_WRAPPER='$(MEMCHECK)' $(MAKE) --no-print-directory e2e; rc=$$?; \
	for report in build/valgrind/report.*; do [ -s "$$report" ] || continue; cat "$$report"; rc=1; done; \
	exit $$rc

CHAOS = $(foreach name,MINUTES SECONDS SEED RATE JSON KEEP,$(if $($(name)),'$(name)=$($(name))'))
chaos: install-test $(BUILD)/coze-chatd ## load with an oracle while all is killed, stopped and cut off (MINUTES=1 or SECONDS=, SEED=)
	@ENV_FILE=/dev/null CHATD='$(abspath $(BUILD))/coze-chatd' $(PYTHON) tests/chaos/chaos.py $(CHAOS)

# Parts of it (BENCH=): throughput streams memory workers instructions; quick: all, for a look only; long: ten minutes of load.
# BENCH_RUNS, BENCH_SECONDS: how often, and how long each measurement lasts.
bench: install-bench ## measure it beside nginx alone and a service in Python, print a table (BENCH=quick: roughly)
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory $(BUILD)/bench/streams
	@CHATD='$(abspath $(BUILD))/coze-chatd' STREAMS_CLIENT='$(abspath $(BUILD))/bench/streams' \
		$(PYTHON) tests/bench/bench.py $(BENCH)

bench-streams: ## hold 10,000 streams open at once for a minute, and let 5,000 come at once
	@$(MAKE) --no-print-directory bench BENCH=crowd

bench-instructions: ## count the instructions of a chat and of a chunk (callgrind)
	@$(MAKE) --no-print-directory bench BENCH=instructions

programs: $(BUILD)/coze-chatd $(UNIT_BIN) $(FUZZ_BIN) $(PRELOAD) $(BUILD)/bench/streams

clean: ## remove what was built (not RUN_DIR)
	rm -rf build

install-run install-bench install-test install-lint: install-%:
	@env/install $*

$(BUILD)/coze-chatd: $(OBJ)
	@echo "  LD    $@"
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

$(BUILD)/obj/%.o: fcgi/%.c $(BUILD)/flags
	@echo "  CC    $@"; mkdir -p $(@D)
	$(Q)$(COMPILE) -o $@ $<

# The Lua scripts are compiled in.
$(BUILD)/obj/store/scripts.o: $(wildcard redis/*.lua)

# All but main. A unit test that plays a module itself is linked without that one: it takes only what it lacks.
$(BUILD)/core.a: $(CORE)
	@echo "  AR    $@"; rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/unit/%: tests/unit/%.c $(BUILD)/core.a $(BUILD)/flags
	@echo "  TEST  $@"; mkdir -p $(@D)
	$(Q)$(COMPILE) -MT $@ -Itests/unit -o $@.o $<
	$(Q)$(LINK) -o $@ $@.o $(BUILD)/core.a $(PKG_LIBS) -lcmocka

$(BUILD)/bench/streams: tests/bench/streams.c $(BUILD)/flags
	@echo "  CC    $@"; mkdir -p $(@D)
	$(Q)$(COMPILE) -MT $@ -o $@.o $<
	$(Q)$(LINK) -o $@ $@.o

# Goes between a worker and its allocator (tests/e2e/test_starvation.py). Without EXTRA: no sanitizer bears it beside itself.
$(BUILD)/%.so: tests/alloc/%.c $(BUILD)/flags
	@echo "  SO    $@"; mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(CFLAGS) $(WARN) -fPIC -shared -o $@ $<

$(BUILD)/fuzz/%: tests/fuzz/fuzz_%.c $(BUILD)/obj/replay.o $(BUILD)/core.a $(BUILD)/flags
	@echo "  FUZZ  $@"; mkdir -p $(@D)
	$(Q)$(COMPILE) -MT $@ -o $@.o $<
	$(Q)$(LINK) -o $@ $@.o $(FUZZ_MAIN) $(BUILD)/core.a $(PKG_LIBS)

$(BUILD)/obj/replay.o: tests/fuzz/replay.c $(BUILD)/flags
	@echo "  CC    $@"; mkdir -p $(@D)
	$(Q)$(COMPILE) -o $@ $<

# Rewritten only when the commands change, so that other flags build anew and the same flags build nothing.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); flags='$(COMPILE) $(LINK) $(FUZZ_MAIN) $(PKG_LIBS)'; \
	[ "$$flags" = "$$(cat $@ 2>/dev/null)" ] || echo "$$flags" > $@

-include $(OBJ:.o=.d) $(UNIT_BIN:=.d) $(FUZZ_BIN:=.d) $(BUILD)/bench/streams.d

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: FORCE all help up reload down status logs test unit e2e asan fuzz fuzz-merge fuzz-coverage fuzz-targets valgrind chaos \
	bench bench-streams bench-instructions programs clean install-run install-bench install-test install-lint
