/*
 * test_access.c - a key matches one of the list exactly, or not at all. Who may call what: see
 * test_router.c.
 */
#include "unit.h"

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
		{ "same,same", "same" },
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_access_finds_a_key_in_the_list),
		cmocka_unit_test(test_access_takes_no_other_key),
		cmocka_unit_test(test_access_wants_every_bit_of_a_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
