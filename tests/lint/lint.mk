# Static analysis: `make lint`. Included by the Makefile.
#
# C        gcc -fanalyzer, clang with the build's warnings, clang-tidy (.clang-tidy), cppcheck, clang-format
# others   shellcheck, pyflakes, luacheck (.luacheckrc), node --check
#
# Whatever lies in the tree is looked at, nothing is listed. The slow ones (clang-tidy, -fanalyzer) skip what they found
# clean and has not changed since. Findings that are wrong are named one by one, with the reason: NOLINT and
# cppcheck-suppress beside the code, tests/lint/analyzer.txt for gcc.

LINT     = $(BUILD)/lint
LINT_IN := $(shell find .ci env fcgi nginx redis tests \( -name node_modules -o -name corpus \) -prune -o -type f -print)
LINT_C  := $(filter %.c,$(LINT_IN))
LINT_H  := $(filter %.h,$(LINT_IN))
LINT_LUA = $(filter %.lua,$(LINT_IN))
LINT_PY  = $(filter-out tests/e2e/clients/%,$(filter %.py,$(LINT_IN))) # clients/ has others' programs, as they are documented
LINT_JS  = $(filter %.js %.mjs,$(LINT_IN))
LINT_SH  = $(shell awk 'FNR == 1 && /^\#!.*sh$$/ { print FILENAME } { nextfile }' $(LINT_IN))

# Tests are not analyzed: the analyzer does not know that a failed assertion ends its test.
LINT_TIDY    = $(LINT_C:%=$(LINT)/tidy/%)
LINT_ANALYZE = $(patsubst %,$(LINT)/analyze/%,$(filter-out tests/unit/% tests/fuzz/%,$(LINT_C)))

LINT_FLAGS = -std=gnu11 -D_GNU_SOURCE -Ifcgi -Itests/unit $(WARN) $(PKG_CFLAGS)

lint: install-lint ## look for what is wrong without running it: compilers' warnings, static analysis, layout, scripts
	@$(MAKE) --no-print-directory --output-sync=target --keep-going $(PARALLEL) \
		lint-clang lint-tidy lint-analyze lint-cppcheck lint-format lint-shell lint-python lint-lua lint-js
	@echo "lint passed: $(words $(LINT_C)) C files and $(words $(LINT_H)) headers, $(words $(LINT_SH)) shell," \
		"$(words $(LINT_PY)) Python, $(words $(LINT_LUA)) Lua, $(words $(LINT_JS)) JavaScript"

lint-clang:
	@$(MAKE) --no-print-directory programs BUILD=$(BUILD)/clang CC=clang

lint-tidy: $(LINT_TIDY)
	@:

$(LINT_TIDY): $(LINT)/tidy/%: % $(LINT_H) .clang-tidy tests/.clang-tidy
	@echo "  TIDY  $<"; mkdir -p $(@D)
	$(Q)clang-tidy --quiet $< -- $(LINT_FLAGS) -I$(<D) 2>$@.log || { cat $@.log; exit 1; }
	@touch $@

lint-analyze: $(LINT_ANALYZE)
	@:

$(LINT_ANALYZE): $(LINT)/analyze/%: % $(LINT_H) tests/lint/analyze tests/lint/analyzer.txt
	@echo "  CHECK $<"; mkdir -p $(@D)
	$(Q)tests/lint/analyze $< gcc $(LINT_FLAGS) -I$(<D) -O2 -fanalyzer -Wno-error -c -o /dev/null
	@touch $@

lint-cppcheck:
	@echo "  CPPCHECK"
	$(Q)cppcheck --quiet --error-exitcode=1 --enable=warning,style,performance,portability --inline-suppr \
		--suppressions-list=tests/lint/cppcheck.txt --library=bsd --std=c11 -D_GNU_SOURCE -D__GNUC__ -Ifcgi -Itests/unit $(LINT_C)

lint-format:
	@echo "  FORMAT"
	$(Q)clang-format --dry-run -Werror $(LINT_C) $(LINT_H)

lint-shell:
	@echo "  SHELL"
	$(Q)shellcheck $(LINT_SH)

lint-python:
	@echo "  PYTHON"
	$(Q)$(PYTHON) -m pyflakes $(LINT_PY)

lint-lua:
	@echo "  LUA"
	$(Q)luacheck --quiet --no-color $(LINT_LUA) | grep -v '^Total: 0 warnings / 0 errors'; exit $${PIPESTATUS[0]}

# The pages' scripts are modules, whatever their names.
lint-js:
	@echo "  JS"
	$(Q)failed=; for file in $(LINT_JS); do case $$file in \
		nginx/*) node --input-type=module --check <$$file ;; \
		*) node --check $$file ;; esac || failed="$$failed $$file"; done; \
	[ -z "$$failed" ] || { echo "not JavaScript:$$failed"; exit 1; }

format: install-lint ## lay out the C sources
	clang-format -i $(LINT_C) $(LINT_H)

.PHONY: lint lint-clang lint-tidy lint-analyze lint-cppcheck lint-format lint-shell lint-python lint-lua lint-js format
