# Coverage: `make coverage`. Included by the Makefile.
#
# All tests against a build that counts, in build/coverage. A process writes its counters when it exits: what one does that is
# killed is not counted. Two tests look at the program itself, which is another one here.

COVERAGE = BUILD=build/coverage CFLAGS='-g -O0' FORTIFY=-U_FORTIFY_SOURCE EXTRA='--coverage -fprofile-update=atomic'
COVERAGE_LEAVES_OUT = --ignore=tests/e2e/test_hardening.py \
	--deselect=tests/e2e/test_install.py::test_no_name_is_left_open_and_no_file_knows_where_it_was_built

coverage: install-test ## run all tests and say which lines of fcgi/ they leave out; fails when one is not a known exception
	@$(MAKE) --no-print-directory $(PARALLEL) programs $(COVERAGE)
	@find build/coverage -name '*.gcda' -delete
	@PYTEST_ADDOPTS='$(COVERAGE_LEAVES_OUT)' $(MAKE) --no-print-directory unit e2e $(COVERAGE); rc=$$?; \
	$(PYTHON) tests/coverage/report.py build/coverage/obj || rc=$$?; exit $$rc

.PHONY: coverage
