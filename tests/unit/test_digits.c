/*
 * test_digits.c - numbers are written as printf() would.
 */
#include "unit.h"

#include <inttypes.h>

#include "base/digits.h"

static void check(uint64_t number)
{
	char *out = get_memory(DIGITS_SIZE), wanted[32];
	int len = snprintf(wanted, sizeof wanted, "%" PRIu64, number);

	assert_int_equal(digits_write(out, number), len);
	assert_string_equal(out, wanted);
	free(out);
}

static void test_digits(void **state)
{
	uint64_t random = 1;

	(void)state;
	check(0);
	check(UINT64_MAX);
	for (uint64_t power = 1; power < UINT64_MAX / 10; power *= 10) {
		check(power - 1);
		check(power);
		check(power + 1);
	}
	for (int i = 0; i < 1000; i++)
		check((uint64_t)next_random(&random) * next_random(&random));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_digits) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
