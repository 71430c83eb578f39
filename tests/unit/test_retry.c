/*
 * test_retry.c - pauses double and are spread, Retry-After is a lower bound, and the budget lets an outage cost a tenth
 * more requests and a small floor, however many clients there are.
 */
#include "unit.h"

#include "coze/retry.h"

static void test_retry_pause_doubles(void **state)
{
	static const uint64_t middles_ms[] = { 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000 };

	(void)state;
	for (unsigned i = 0; i < COUNT(middles_ms); i++) {
		assert_int_equal(retry_pause_ms(i + 1, 0, 0.5), middles_ms[i]);
		assert_int_equal(retry_pause_ms(i + 1, 0, 0), middles_ms[i] * 3 / 4);
		assert_int_equal(retry_pause_ms(i + 1, 0, 1), middles_ms[i] * 5 / 4);
	}
}

/* Clients that failed together must not come back together. */
static void test_retry_pause_is_spread(void **state)
{
	uint64_t before = 0;

	(void)state;
	for (int i = 0; i <= 100; i++) {
		uint64_t pause = retry_pause_ms(2, 0, i / 100.0);

		assert_true(pause >= 750 && pause <= 1250);
		assert_true(i == 0 || pause > before);
		before = pause;
	}
}

static void test_retry_pause_of_odd_attempts_is_sane(void **state)
{
	static const unsigned attempts[] = { 0, 30, 31, 32, 33, 63, 64, 65, 1000000, UINT32_MAX };

	(void)state;
	assert_int_equal(retry_pause_ms(0, 0, 0.5), 500);
	for (unsigned i = 1; i < COUNT(attempts); i++)
		assert_int_equal(retry_pause_ms(attempts[i], 0, 0.5), 30000);
}

static void test_retry_after_is_a_lower_bound(void **state)
{
	(void)state;
	assert_int_equal(retry_pause_ms(4, 3, 0.5), 4000); /* its own pause is longer */
	for (unsigned attempt = 1; attempt < 10; attempt++)
		for (unsigned asked = 0; asked < 40; asked++)
			assert_true(retry_pause_ms(attempt, asked, 0) >= (uint64_t)asked * 1000);
}

/* Who were told the same seconds come back spread over half a second, and not before. */
static void test_retry_after_is_spread(void **state)
{
	static const unsigned asked[] = { 3, 120, 86400, UINT32_MAX };

	(void)state;
	for (unsigned i = 0; i < COUNT(asked); i++) {
		uint64_t least = (uint64_t)asked[i] * 1000;

		assert_true(retry_pause_ms(1, asked[i], 0) >= least);
		assert_true(retry_pause_ms(1, asked[i], 0) < retry_pause_ms(1, asked[i], 0.5));
		assert_true(retry_pause_ms(1, asked[i], 0.5) < retry_pause_ms(1, asked[i], 1));
		assert_true(retry_pause_ms(1, asked[i], 1) <= least + 510);
	}
}

/* How many retries the budget allows at this time. */
static unsigned spend_all(struct retry_budget *budget, uint64_t now_ms)
{
	unsigned count = 0;

	while (retry_budget_spend(budget, now_ms))
		assert_true(++count < 100000);
	return count;
}

static void test_retry_budget_begins_with_its_floor(void **state)
{
	struct retry_budget budget;

	(void)state;
	retry_budget_init(&budget, 5000);
	assert_int_equal(spend_all(&budget, 5000), RETRY_SAVINGS);
	assert_false(retry_budget_spend(&budget, 5000));
}

static void test_retry_budget_is_a_tenth_of_the_requests(void **state)
{
	struct retry_budget budget;
	unsigned retries = 0;

	(void)state;
	retry_budget_init(&budget, 0);
	spend_all(&budget, 0);
	for (int i = 0; i < 1000; i++) {
		retry_budget_earn(&budget, 0);
		retries += retry_budget_spend(&budget, 0);
	}
	assert_in_range(retries, 99, 100);
}

/* Every request fails, and each would be tried five times more. */
static void test_retry_budget_keeps_an_outage_from_being_multiplied(void **state)
{
	struct retry_budget budget;
	unsigned retries = 0;

	(void)state;
	retry_budget_init(&budget, 0);
	for (int i = 0; i < 200; i++) {
		retry_budget_earn(&budget, 0);
		for (int attempt = 0; attempt < 5; attempt++)
			retries += retry_budget_spend(&budget, 0);
	}
	assert_in_range(retries, 20, 20 + RETRY_SAVINGS);
}

static void test_retry_budget_gives_one_a_second(void **state)
{
	struct retry_budget budget;

	(void)state;
	retry_budget_init(&budget, 1000);
	spend_all(&budget, 1000);
	assert_false(retry_budget_spend(&budget, 1900));
	assert_true(retry_budget_spend(&budget, 2001));
	assert_false(retry_budget_spend(&budget, 2001));
	assert_int_equal(spend_all(&budget, 5002), 3);
}

/* A call each millisecond must not round the gift of time away. */
static void test_retry_budget_adds_up_small_times(void **state)
{
	struct retry_budget budget;
	unsigned retries = 0;

	(void)state;
	retry_budget_init(&budget, 0);
	spend_all(&budget, 0);
	for (uint64_t now_ms = 1; now_ms <= 10000; now_ms++)
		retries += retry_budget_spend(&budget, now_ms);
	assert_in_range(retries, 9, 10);
}

static void test_retry_budget_saves_no_more_than_its_ceilings(void **state)
{
	struct retry_budget budget;

	(void)state;
	retry_budget_init(&budget, 0);
	spend_all(&budget, 0);
	assert_int_equal(spend_all(&budget, 1000ULL * 86400 * 365), RETRY_SAVINGS);
	/* A good year must not pay for a storm either. */
	for (int i = 0; i < 1000000; i++)
		retry_budget_earn(&budget, 1000ULL * 86400 * 365);
	assert_in_range(spend_all(&budget, 1000ULL * 86400 * 365), RETRY_SAVINGS, 101);
}

/* What requests have saved up is not taken away by time passing. */
static void test_retry_budget_keeps_what_was_earned(void **state)
{
	struct retry_budget budget;

	(void)state;
	retry_budget_init(&budget, 0);
	for (int i = 0; i < 500; i++)
		retry_budget_earn(&budget, 0);
	assert_in_range(spend_all(&budget, 60000), 50 + RETRY_SAVINGS - 1, 50 + RETRY_SAVINGS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_retry_pause_doubles),
		cmocka_unit_test(test_retry_pause_is_spread),
		cmocka_unit_test(test_retry_pause_of_odd_attempts_is_sane),
		cmocka_unit_test(test_retry_after_is_a_lower_bound),
		cmocka_unit_test(test_retry_after_is_spread),
		cmocka_unit_test(test_retry_budget_begins_with_its_floor),
		cmocka_unit_test(test_retry_budget_is_a_tenth_of_the_requests),
		cmocka_unit_test(test_retry_budget_keeps_an_outage_from_being_multiplied),
		cmocka_unit_test(test_retry_budget_gives_one_a_second),
		cmocka_unit_test(test_retry_budget_adds_up_small_times),
		cmocka_unit_test(test_retry_budget_saves_no_more_than_its_ceilings),
		cmocka_unit_test(test_retry_budget_keeps_what_was_earned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
