/*
 * test_clock.c - dates are ISO 8601 in local time, always with six digits of microseconds and never with a
 * zone.
 */
#include "unit.h"

#include <time.h>

#include "base/clock.h"

static void set_zone(const char *zone)
{
	assert_int_equal(setenv("TZ", zone, 1), 0);
	tzset();
}

static void test_clock_writes_local_time(void **state)
{
	static const struct {
		const char *zone; /* POSIX rules: they need no zone files */
		uint64_t unix_us;
		const char *written;
	} cases[] = {
		{ "UTC0", 0, "1970-01-01T00:00:00.000000" },
		{ "UTC0", 1, "1970-01-01T00:00:00.000001" },
		{ "UTC0", 999999, "1970-01-01T00:00:00.999999" },
		{ "UTC0", 1000000, "1970-01-01T00:00:01.000000" },
		{ "CST-8", 0, "1970-01-01T08:00:00.000000" },
		{ "CST-8", UINT64_C(1705285815123456), "2024-01-15T10:30:15.123456" },
		{ "UTC0", UINT64_C(1705285815123456), "2024-01-15T02:30:15.123456" },
		{ "EST5", 0, "1969-12-31T19:00:00.000000" },
		{ "UTC0", UINT64_C(1709164800000000), "2024-02-29T00:00:00.000000" }, /* leap day */
		{ "UTC0", UINT64_C(1704067199999999), "2023-12-31T23:59:59.999999" },
		{ "UTC0", UINT64_C(2147483648000000), "2038-01-19T03:14:08.000000" }, /* beyond 32 bits */
		{ "EST5EDT,M3.2.0,M11.1.0", UINT64_C(1710054000000000), "2024-03-10T03:00:00.000000" },
		{ "EST5EDT,M3.2.0,M11.1.0", UINT64_C(1710053999000000), "2024-03-10T01:59:59.000000" },
		{ "NPT-5:45", 0, "1970-01-01T05:45:00.000000" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char out[CLOCK_ISO_SIZE];

		set_zone(cases[i].zone);
		clock_iso(out, cases[i].unix_us);
		assert_string_equal(out, cases[i].written);
	}
}

static void test_clock_stays_within_its_room(void **state)
{
	static const uint64_t times[] = { UINT64_MAX, UINT64_MAX / 2, UINT64_C(253402300800000000) };

	(void)state;
	set_zone("UTC0");
	for (size_t i = 0; i < COUNT(times); i++) {
		char *out = exact_copy("zzzzzzzzzzzzzzzzzzzzzzzzzzz", CLOCK_ISO_SIZE);

		clock_iso(out, times[i]);
		assert_true(memchr(out, '\0', CLOCK_ISO_SIZE) != NULL);
		free(out);
	}
}

static void test_clock_tells_the_time(void **state)
{
	uint64_t before = (uint64_t)time(NULL) * 1000000;
	uint64_t now = clock_unix_us();

	(void)state;
	assert_true(now + 2000000 >= before);
	assert_true(now < before + 60000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock_writes_local_time),
		cmocka_unit_test(test_clock_stays_within_its_room),
		cmocka_unit_test(test_clock_tells_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
