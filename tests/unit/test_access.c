/*
 * test_access.c - a key matches one of the list exactly, or not at all. Who may call what: see
 * test_router.c.
 */
#include "unit.h"

#include <uv.h>

#include "http/access.h"

static void test_access_finds_a_key_in_the_list(void **state)
{
	static const struct {
		const char *keys, *key;
	} cases[] = {
		{ "one", "one" },           { "one,two,three", "one" },
		{ "one,two,three", "two" }, { "one,two,three", "three" },
		{ " one , two ", "one" },   { " one , two ", "two" },
		{ ",,one,,two,,", "two" },  { "inner space,x", "inner space" },
		{ "钥匙,x", "钥匙" },       { "a", "a" },
		{ "same,same", "same" },    { ",one", "one" },
		{ " ,  one  , ", "one" },   { "one,", "one" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *keys = exact_copy(cases[i].keys, strlen(cases[i].keys) + 1);

		if (!access_key_in(keys, cases[i].key))
			fail_msg("\"%s\" not in \"%s\"", cases[i].key, cases[i].keys);
		free(keys);
	}
}

static void test_access_takes_no_other_key(void **state)
{
	static const struct {
		const char *keys, *key;
	} cases[] = {
		{ "", "" },
		{ "", "one" },
		{ "one", "" },
		{ ",", "" },
		{ " , , ", "" },
		{ " , , ", " " },
		{ "one,,two", "" },
		{ "one", "on" },
		{ "one", "onee" },
		{ "one", "oneone" }, /* a repetition of the key */
		{ "one", "ONE" },
		{ "one", " one" },
		{ "one", "one " },
		{ "one", "One" },
		{ "one", "onf" },
		{ "one,two", "one,two" },
		{ "one,two", "onetwo" },
		{ "one,two", "two,one" },
		{ "one,two", "," },
		{ "aaaa", "aaa" },
		{ "aaaa", "aaaaa" },
		{ "aaaa", "aaaaaaaa" },
		{ "\x01", "\x81" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *keys = exact_copy(cases[i].keys, strlen(cases[i].keys) + 1);
		char *key = exact_copy(cases[i].key, strlen(cases[i].key) + 1);

		if (access_key_in(keys, key))
			fail_msg("took \"%s\" for one of \"%s\"", cases[i].key, cases[i].keys);
		free(keys);
		free(key);
	}
}

static void test_access_wants_every_bit_of_a_key(void **state)
{
	static const char keys[] = "first-key,0123456789abcdef";

	(void)state;
	for (unsigned bit = 0; bit < 16 * 8; bit++) {
		char key[] = "0123456789abcdef";

		key[bit / 8] = (char)(key[bit / 8] ^ (1 << bit % 8));
		assert_false(access_key_in(keys, key));
	}
	assert_true(access_key_in(keys, "0123456789abcdef"));
}

/* The fastest of many tries, nanoseconds: whatever disturbs a try makes it longer. */
static uint64_t fastest_ns(const char *keys, const char *key)
{
	uint64_t fastest = UINT64_MAX;

	for (int i = 0; i < 300; i++) {
		uint64_t began = uv_hrtime(), took;
		bool found = access_key_in(keys, key);

		took = uv_hrtime() - began;
		assert_false(found);
		if (took < fastest)
			fastest = took;
	}
	return fastest;
}

/* With keys this long, a comparison that stops at the first difference is a thousand times faster for the first. */
static void test_access_takes_as_long_for_a_near_miss_as_for_a_far_one(void **state)
{
	enum { LEN = 20000 };
	char *keys = get_memory(2 * LEN + 2), *key = get_memory(LEN + 1);
	uint64_t shortest = UINT64_MAX, longest = 0;

	(void)state;
	for (size_t i = 0; i < LEN; i++)
		keys[i] = keys[LEN + 1 + i] = (char)('a' + i % 7);
	keys[LEN] = ',';
	keys[LEN + 1] ^= 1; /* the second key differs from the first, at its beginning */
	for (size_t wrong = 0; wrong < LEN; wrong += LEN / 4 - 1) {
		uint64_t ns;

		memcpy(key, keys, LEN);
		key[wrong] ^= 2;
		ns = fastest_ns(keys, key);
		shortest = ns < shortest ? ns : shortest;
		longest = ns > longest ? ns : longest;
	}
	assert_true(longest < shortest * 3 / 2);
	free(keys);
	free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access_finds_a_key_in_the_list),
		cmocka_unit_test(test_access_takes_no_other_key),
		cmocka_unit_test(test_access_wants_every_bit_of_a_key),
		cmocka_unit_test(test_access_takes_as_long_for_a_near_miss_as_for_a_far_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
