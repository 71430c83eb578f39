/*
 * test_breaker.c - the circuit opens after failures in a row, lets one probe at a time through when its pause is over,
 * closes when Coze answers, and pauses longer when it does not.
 */
#include "unit.h"

#include "coze/breaker.h"

#define NOW 100000

/* Lets it open at `now_ms`. */
static void open_it(struct breaker *breaker, uint64_t now_ms)
{
	breaker_init(breaker);
	for (int i = 0; i < BREAKER_FAILURES; i++) {
		assert_int_equal(breaker_ask(breaker, now_ms), BREAKER_PASS);
		breaker_failed(breaker, false, now_ms);
	}
	assert_true(breaker_is_open(breaker));
}

static void assert_closed(struct breaker *breaker, uint64_t now_ms)
{
	assert_false(breaker_is_open(breaker));
	assert_false(breaker_refuses(breaker, now_ms));
	assert_int_equal(breaker_wait_ms(breaker, now_ms), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(breaker_ask(breaker, now_ms), BREAKER_PASS);
}

static void test_breaker_begins_closed(void **state)
{
	struct breaker breaker;

	(void)state;
	breaker_init(&breaker);
	assert_closed(&breaker, 0);
	assert_closed(&breaker, NOW);
}

static void test_breaker_opens_after_failures_in_a_row(void **state)
{
	struct breaker breaker;

	(void)state;
	breaker_init(&breaker);
	for (int i = 0; i < BREAKER_FAILURES - 1; i++) {
		breaker_failed(&breaker, false, NOW);
		assert_closed(&breaker, NOW);
	}
	breaker_failed(&breaker, false, NOW);
	assert_true(breaker_is_open(&breaker));
	assert_true(breaker_refuses(&breaker, NOW));
	assert_int_equal(breaker_ask(&breaker, NOW), BREAKER_REFUSE);
	assert_int_equal(breaker_wait_ms(&breaker, NOW), BREAKER_PAUSE_MS);
}

static void test_breaker_counts_only_failures_in_a_row(void **state)
{
	struct breaker breaker;

	(void)state;
	breaker_init(&breaker);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < BREAKER_FAILURES - 1; i++)
			breaker_failed(&breaker, false, NOW);
		assert_closed(&breaker, NOW);
		breaker_succeeded(&breaker);
	}
}

static void test_breaker_refuses_until_its_pause_is_over(void **state)
{
	struct breaker breaker;

	(void)state;
	open_it(&breaker, NOW);
	for (uint64_t passed = 0; passed < BREAKER_PAUSE_MS; passed += 100) {
		assert_true(breaker_refuses(&breaker, NOW + passed));
		assert_int_equal(breaker_ask(&breaker, NOW + passed), BREAKER_REFUSE);
		assert_int_equal(breaker_wait_ms(&breaker, NOW + passed), BREAKER_PAUSE_MS - passed);
	}
	assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_PAUSE_MS - 1), BREAKER_REFUSE);
	assert_false(breaker_refuses(&breaker, NOW + BREAKER_PAUSE_MS));
	assert_int_equal(breaker_wait_ms(&breaker, NOW + BREAKER_PAUSE_MS), 0);
}

static void test_breaker_lets_one_probe_through(void **state)
{
	struct breaker breaker;
	uint64_t now = NOW + BREAKER_PAUSE_MS;

	(void)state;
	open_it(&breaker, NOW);
	assert_int_equal(breaker_ask(&breaker, now), BREAKER_PROBE);
	assert_true(breaker_is_open(&breaker));
	for (int i = 0; i < 100; i++) {
		assert_true(breaker_refuses(&breaker, now + 1000 * (uint64_t)i));
		assert_int_equal(breaker_ask(&breaker, now + 1000 * (uint64_t)i), BREAKER_REFUSE);
	}
}

static void test_breaker_only_looking_does_not_take_the_probe(void **state)
{
	struct breaker breaker;

	(void)state;
	open_it(&breaker, NOW);
	for (int i = 0; i < 3; i++)
		assert_false(breaker_refuses(&breaker, NOW + BREAKER_PAUSE_MS));
	assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_PAUSE_MS), BREAKER_PROBE);
}

static void test_breaker_closes_when_the_probe_succeeds(void **state)
{
	struct breaker breaker;

	(void)state;
	open_it(&breaker, NOW);
	assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_PAUSE_MS), BREAKER_PROBE);
	breaker_succeeded(&breaker);
	assert_closed(&breaker, NOW + BREAKER_PAUSE_MS);
	/* It has forgotten everything: it takes as many failures again, and the first pause is short again. */
	open_it(&breaker, NOW + BREAKER_PAUSE_MS);
	assert_int_equal(breaker_wait_ms(&breaker, NOW + BREAKER_PAUSE_MS), BREAKER_PAUSE_MS);
}

static void test_breaker_pauses_longer_after_each_failed_probe(void **state)
{
	struct breaker breaker;
	uint64_t now = NOW, pause = BREAKER_PAUSE_MS;

	(void)state;
	open_it(&breaker, now);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(breaker_wait_ms(&breaker, now), pause);
		now += pause;
		assert_int_equal(breaker_ask(&breaker, now), BREAKER_PROBE);
		now += 7;
		breaker_failed(&breaker, true, now);
		assert_true(breaker_refuses(&breaker, now));
		pause = pause * 2 < BREAKER_PAUSE_MAX_MS ? pause * 2 : BREAKER_PAUSE_MAX_MS;
	}
	assert_int_equal(pause, BREAKER_PAUSE_MAX_MS);
}

/* Requests that left before it opened come back one after the other: they must not keep it open for longer. */
static void test_breaker_is_not_prolonged_by_stragglers(void **state)
{
	struct breaker breaker;

	(void)state;
	open_it(&breaker, NOW);
	for (uint64_t passed = 0; passed < BREAKER_PAUSE_MS; passed += 10)
		breaker_failed(&breaker, false, NOW + passed);
	assert_false(breaker_refuses(&breaker, NOW + BREAKER_PAUSE_MS));
	assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_PAUSE_MS), BREAKER_PROBE);
	breaker_failed(&breaker, false, NOW + BREAKER_PAUSE_MS);
	/* Nor may one of them let a second probe through beside the first. */
	assert_int_equal(breaker_ask(&breaker, NOW + BREAKER_PAUSE_MS), BREAKER_REFUSE);
}

static void test_breaker_closes_when_a_straggler_succeeds(void **state)
{
	struct breaker breaker;

	(void)state;
	open_it(&breaker, NOW);
	breaker_succeeded(&breaker);
	assert_closed(&breaker, NOW + 1);
}

static void test_breaker_gives_the_probe_to_another_when_nobody_knows(void **state)
{
	struct breaker breaker;
	uint64_t now = NOW + BREAKER_PAUSE_MS;

	(void)state;
	open_it(&breaker, NOW);
	assert_int_equal(breaker_ask(&breaker, now), BREAKER_PROBE);
	breaker_unknown(&breaker);
	assert_true(breaker_is_open(&breaker));
	assert_int_equal(breaker_ask(&breaker, now), BREAKER_PROBE);
	assert_int_equal(breaker_ask(&breaker, now), BREAKER_REFUSE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_breaker_begins_closed),
		cmocka_unit_test(test_breaker_opens_after_failures_in_a_row),
		cmocka_unit_test(test_breaker_counts_only_failures_in_a_row),
		cmocka_unit_test(test_breaker_refuses_until_its_pause_is_over),
		cmocka_unit_test(test_breaker_lets_one_probe_through),
		cmocka_unit_test(test_breaker_only_looking_does_not_take_the_probe),
		cmocka_unit_test(test_breaker_closes_when_the_probe_succeeds),
		cmocka_unit_test(test_breaker_pauses_longer_after_each_failed_probe),
		cmocka_unit_test(test_breaker_is_not_prolonged_by_stragglers),
		cmocka_unit_test(test_breaker_closes_when_a_straggler_succeeds),
		cmocka_unit_test(test_breaker_gives_the_probe_to_another_when_nobody_knows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
