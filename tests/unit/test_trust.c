/*
 * test_trust.c - the system's authorities and those of COZE_CA_FILE are in one file, which can be opened again and again.
 */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "coze/trust.h"

#define LARGE 100000 /* more than one read */

static char directory[] = "/tmp/trust-XXXXXX";
static char system_file[sizeof directory + 8], own_file[sizeof directory + 8];

static void write_file(const char *path, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static int make_directory(void **state)
{
	(void)state;
	if (mkdtemp(directory) == NULL)
		return -1;
	snprintf(system_file, sizeof system_file, "%s/system", directory);
	snprintf(own_file, sizeof own_file, "%s/own", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(system_file);
	unlink(own_file);
	return rmdir(directory);
}

static void test_trust_has_both_files(void **state)
{
	char *large = get_memory(LARGE), *got = get_memory(2 * LARGE);
	struct trust trust;

	(void)state;
	memset(large, 's', LARGE);
	write_file(system_file, large, LARGE);
	write_file(own_file, "own\n", 4);
	assert_true(trust_open(&trust, system_file, own_file));
	for (int again = 0; again < 2; again++) {
		int fd = open(trust.path, O_RDONLY);

		assert_true(fd >= 0);
		assert_int_equal(read(fd, got, 2 * LARGE), LARGE + 6);
		assert_memory_equal(got, large, LARGE);
		assert_memory_equal(got + LARGE, "\nown\n\n", 6);
		close(fd);
	}
	trust_close(&trust);
	assert_int_equal(trust.fd, -1);
	free(large);
	free(got);
}

static void test_trust_needs_both_files(void **state)
{
	struct trust trust;

	(void)state;
	write_file(system_file, "system\n", 7);
	unlink(own_file);
	assert_false(trust_open(&trust, system_file, own_file));
	assert_int_equal(trust.fd, -1);
	assert_false(trust_open(&trust, own_file, system_file));
	assert_int_equal(trust.fd, -1);
	assert_false(trust_open(&trust, system_file, directory));
	assert_int_equal(trust.fd, -1);
	trust_close(&trust);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trust_has_both_files),
		cmocka_unit_test(test_trust_needs_both_files),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
