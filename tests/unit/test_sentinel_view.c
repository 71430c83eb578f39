/*
 * test_sentinel_view.c - what Sentinels say is taken only when it is well-formed, and the latest configuration
 * wins, unless it can be told that there is none any more.
 */
#include "unit.h"

#include "store/sentinel_view.h"

static struct redis_arg arg(const char *bytes, size_t len)
{
	return (struct redis_arg){ exact_copy(bytes, len), len };
}

static void drop(struct redis_arg text)
{
	free((char *)text.bytes);
}

static void test_epoch_is_digits(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		uint64_t epoch;
	} cases[] = {
		{ BYTES("0"), 0 },
		{ BYTES("7"), 7 },
		{ BYTES("0012"), 12 },
		{ BYTES("18446744073709551615"), UINT64_MAX },
		{ BYTES(""), 0 },
		{ BYTES("-1"), 0 },
		{ BYTES("+1"), 0 },
		{ BYTES(" 1"), 0 },
		{ BYTES("1 "), 0 },
		{ BYTES("0x10"), 0 },
		{ BYTES("1\0"), 0 },
		{ BYTES("18446744073709551616"), 0 },
		{ BYTES("18446744073709551620"), 0 },
		{ BYTES("99999999999999999999999"), 0 },
		{ BYTES("\xB1"), 0 }, /* '1' with a high bit */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct redis_arg digits = arg(cases[i].bytes, cases[i].len);

		assert_int_equal(sentinel_epoch(digits), cases[i].epoch);
		drop(digits);
	}
}

static bool take(struct redis_place *place, const char *host, size_t host_len, const char *port,
		 size_t port_len)
{
	struct redis_arg host_arg = arg(host, host_len), port_arg = arg(port, port_len);
	bool taken = sentinel_place(place, host_arg, port_arg);

	drop(host_arg);
	drop(port_arg);
	return taken;
}

static void test_place_takes_names_and_addresses(void **state)
{
	static const char *const hosts[] = { "10.0.0.1", "redis-1.example.com", "::1", "fe80::1:2", "my_host",
					     "A" };
	static const char *const ports[] = { "1", "6379", "65535" };

	(void)state;
	for (size_t i = 0; i < COUNT(hosts); i++) {
		for (size_t k = 0; k < COUNT(ports); k++) {
			struct redis_place place;

			memset(&place, 'x', sizeof place);
			assert_true(take(&place, hosts[i], strlen(hosts[i]), ports[k], strlen(ports[k])));
			assert_string_equal(place.host, hosts[i]);
			assert_string_equal(place.port, ports[k]);
		}
	}
}

static void test_place_refuses(void **state)
{
	static const struct {
		const char *host;
		size_t host_len;
		const char *port;
		size_t port_len;
	} cases[] = {
		{ BYTES(""), BYTES("6379") },    { BYTES("h"), BYTES("") },
		{ BYTES("h"), BYTES("0") },      { BYTES("h"), BYTES("00000") },
		{ BYTES("h"), BYTES("65536") },  { BYTES("h"), BYTES("99999") },
		{ BYTES("h"), BYTES("006379") }, { BYTES("h"), BYTES("18446744073709551617") },
		{ BYTES("h"), BYTES("-1") },     { BYTES("h"), BYTES("80a") },
		{ BYTES("h"), BYTES("80\0") },   { BYTES("h\0"), BYTES("80") },
		{ BYTES("\0"), BYTES("80") },    { BYTES("a b"), BYTES("80") },
		{ BYTES("a\nb"), BYTES("80") },  { BYTES("a/b"), BYTES("80") },
		{ BYTES("[::1]"), BYTES("80") }, { BYTES("h\xC3\xA4"), BYTES("80") },
	};
	struct redis_place place;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		if (take(&place, cases[i].host, cases[i].host_len, cases[i].port, cases[i].port_len))
			fail_msg("took case %zu: %s:%s", i, place.host, place.port);
}

static void test_place_has_a_ceiling(void **state)
{
	char host[300];

	(void)state;
	memset(host, 'h', sizeof host);
	for (size_t len = 250; len < sizeof host; len++) {
		struct redis_place place;

		assert_int_equal(take(&place, host, len, "80", 2), len < sizeof place.host);
	}
}

static struct sentinel_word says(uint64_t epoch, const char *port)
{
	struct sentinel_word word = { .named = true, .epoch = epoch, .place = { .host = "h" } };

	snprintf(word.place.port, sizeof word.place.port, "%s", port);
	return word;
}

static void test_only_a_greater_epoch_is_news(void **state)
{
	const struct sentinel_word nothing = { 0 }, known = says(5, "1");
	const struct sentinel_word behind = says(4, "2"), same = says(5, "2"), ahead = says(6, "1");

	(void)state;
	assert_true(sentinel_is_news(&nothing, &behind));
	assert_false(sentinel_is_news(&nothing, &nothing));
	assert_false(sentinel_is_news(&known, &nothing));
	assert_false(sentinel_is_news(&known, &behind));
	assert_false(sentinel_is_news(&known, &same));
	assert_true(sentinel_is_news(&known, &ahead));
}

static void test_agreeing_is_on_epoch_and_place(void **state)
{
	const struct sentinel_word nothing = { 0 }, known = says(5, "1"), same = says(5, "1");
	const struct sentinel_word elsewhere = says(5, "2"), behind = says(4, "1");
	struct sentinel_word other_host = says(5, "1");

	(void)state;
	other_host.place.host[0] = 'g';
	assert_true(sentinel_agrees(&known, &same));
	assert_false(sentinel_agrees(&known, &elsewhere));
	assert_false(sentinel_agrees(&known, &other_host));
	assert_false(sentinel_agrees(&known, &behind));
	assert_false(sentinel_agrees(&known, &nothing));
	assert_false(sentinel_agrees(&nothing, &same));
	assert_false(sentinel_agrees(&nothing, &nothing));
}

/* Words of three Sentinels; 0 is one that says nothing. */
static int chosen(const struct sentinel_word *known, uint64_t first, uint64_t second, uint64_t third)
{
	struct sentinel_word words[3] = { says(first, "1"), says(second, "2"), says(third, "3") };
	const struct sentinel_word *word;

	for (size_t i = 0; i < 3; i++)
		words[i].named = words[i].epoch != 0;
	word = sentinel_fallback(known, words, 3);
	return word == NULL ? -1 : (int)(word - words);
}

static void test_fallback_is_the_latest_word(void **state)
{
	const struct sentinel_word nothing = { 0 }, known = says(5, "9");

	(void)state;
	assert_int_equal(chosen(&nothing, 0, 0, 0), -1);
	assert_int_equal(chosen(&nothing, 0, 0, 1), 2);
	assert_int_equal(chosen(&nothing, 1, 3, 2), 1);
	assert_int_equal(chosen(&known, 0, 0, 0), -1);
	assert_int_equal(chosen(&known, 0, 0, 5), 2); /* another place, in the same configuration */
	assert_int_equal(chosen(&known, 5, 0, 5), 0);
}

/* One of three may be cut off; two of three that know nothing of what was known were set up anew. */
static void test_a_few_that_are_behind_are_not_believed(void **state)
{
	const struct sentinel_word known = says(5, "9");

	(void)state;
	assert_int_equal(chosen(&known, 4, 0, 0), -1);
	assert_int_equal(chosen(&known, 0, 0, 1), -1);
	assert_int_equal(chosen(&known, 4, 0, 3), 0);
	assert_int_equal(chosen(&known, 1, 2, 1), 1);
}

static void test_half_is_not_enough_to_go_back(void **state)
{
	const struct sentinel_word known = says(5, "9");
	struct sentinel_word words[4] = { says(1, "1"), says(1, "1"), { 0 }, { 0 } };

	(void)state;
	assert_null(sentinel_fallback(&known, words, 4));
	words[2] = says(1, "1");
	assert_ptr_equal(sentinel_fallback(&known, words, 4), &words[0]);
	assert_ptr_equal(sentinel_fallback(&known, words, 1), &words[0]);
	assert_null(sentinel_fallback(&known, words, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_epoch_is_digits),
		cmocka_unit_test(test_place_takes_names_and_addresses),
		cmocka_unit_test(test_place_refuses),
		cmocka_unit_test(test_place_has_a_ceiling),
		cmocka_unit_test(test_only_a_greater_epoch_is_news),
		cmocka_unit_test(test_agreeing_is_on_epoch_and_place),
		cmocka_unit_test(test_fallback_is_the_latest_word),
		cmocka_unit_test(test_a_few_that_are_behind_are_not_believed),
		cmocka_unit_test(test_half_is_not_enough_to_go_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
