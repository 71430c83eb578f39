/*
 * test_strict.c - proves that strict_json() finds every string, word and number that is no JSON, and nothing else.
 */
#include "unit.h"

#include "base/strict.h"

static void test_strict_takes_what_is_json(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"{}",
		"[]",
		"true",
		"[null,false]",
		"0",
		"-0",
		"10",
		"1.5",
		"-1.05e10",
		"1E+5",
		"1e-07",
		"\"\"",
		"\"a\\\"b\"",
		"\"\\\\\"",
		"{\"NaN\":\"01\"}",
		"\"\\u0001 \\n\"",
		"\"tab is \\t\"",
		"\"\x7f\xE4\xBD\xA0\"",
	};

	(void)state;
	for (unsigned i = 0; i < COUNT(texts); i++) {
		size_t len = strlen(texts[i]);
		char *text = exact_copy(texts[i], len);

		assert_int_equal(strict_json(text, len).bad, len);
		free(text);
	}
}

static void test_strict_names_the_first_bad_byte(void **state)
{
	static const struct {
		const char *text;
		size_t bad;
	} cases[] = {
		{ "NaN", 0 },        { "[Infinity]", 1 }, { "-Infinity", 0 }, { "01", 0 },     { "-01", 0 },
		{ "1.", 0 },         { ".5", 0 },         { "-.5", 0 },       { "+1", 0 },     { "1e", 0 },
		{ "1e+", 0 },        { "0x10", 0 },       { "-", 0 },         { "1.e5", 0 },   { "True", 0 },
		{ "[true,nul]", 6 }, { "\"a\nb\"", 2 },   { "\"\x01\"", 1 },  { "\"a\tb", 2 }, { "1-1", 0 },
		{ "{\"a\":00}", 5 }, { "nullnull", 0 },   { "1.5.5", 0 },     { "--1", 0 },    { "1e5e5", 0 },
	};

	(void)state;
	for (unsigned i = 0; i < COUNT(cases); i++) {
		size_t len = strlen(cases[i].text);
		char *text = exact_copy(cases[i].text, len);

		if (strict_json(text, len).bad != cases[i].bad)
			fail_msg("%s: bad at %zu, expected %zu", cases[i].text, strict_json(text, len).bad,
				 cases[i].bad);
		free(text);
	}
}

static void test_strict_counts_values_outside_of_strings(void **state)
{
	(void)state;
	assert_int_equal(strict_json("{\"a,b\":[1,2,\"[[,\"]}", 19).values, 5);
	assert_int_equal(strict_json("\",,,,\"", 6).values, 0);
}

/* json-c keeps names as C strings. */
static void test_strict_finds_a_nul_in_a_name(void **state)
{
	static const struct {
		const char *text;
		bool nul_in_name;
	} cases[] = {
		{ "{\"a\\u0000\":1}", true },
		{ "{\"\\u0000\" \n:1}", true },
		{ "{\"a\":{\"b\":[{\"\\\"\\u0000x\":1}]}}", true },
		{ "{\"a\":\"\\u0000\"}", false },
		{ "{\"a\":\"\\u0000\",\"b\":1}", false },
		{ "[\"\\u0000\",{\"a\":1}]", false },
		{ "{\"a\\\\u0000\":1}", false }, /* a backslash and "u0000" */
		{ "{\"a\\u00001\":1}", true },
		{ "{\"a\\u0001\":1}", false },
		{ "{\"a\\u000\":1}", false },
	};

	(void)state;
	for (unsigned i = 0; i < COUNT(cases); i++) {
		size_t len = strlen(cases[i].text);
		char *text = exact_copy(cases[i].text, len);

		if (strict_json(text, len).nul_in_name != cases[i].nul_in_name)
			fail_msg("%s", cases[i].text);
		free(text);
	}
}

/* Eight bytes are looked at together: each byte in each of their places. */
static void test_strict_sees_each_byte_anywhere_in_a_string(void **state)
{
	(void)state;
	for (unsigned byte = 0; byte < 256; byte++) {
		for (size_t at = 1; at < 20; at++) {
			char text[21];
			size_t expected = sizeof text;

			memset(text, 'x', sizeof text);
			text[0] = text[20] = '"';
			text[at] = (char)byte;
			if (byte < 0x20)
				expected = at;
			else if (byte == '"' && at < 19) /* what follows it is no JSON */
				expected = at + 1;
			assert_int_equal(strict_json(text, sizeof text).bad, expected);
		}
	}
}

/* Texts may end anywhere: nothing is read beyond (AddressSanitizer would tell). */
static void test_strict_stays_inside_of_its_text(void **state)
{
	static const char whole[] = "{\"a\\\"\":[1.5e5,true,\"\\u00e9\"],\"b\\\\\":-0}";

	(void)state;
	for (size_t len = 0; len < sizeof whole; len++) {
		char *text = exact_copy(whole, len);
		struct strict_scan scan = strict_json(text, len);

		assert_true(scan.bad <= len);
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strict_takes_what_is_json),
		cmocka_unit_test(test_strict_names_the_first_bad_byte),
		cmocka_unit_test(test_strict_counts_values_outside_of_strings),
		cmocka_unit_test(test_strict_finds_a_nul_in_a_name),
		cmocka_unit_test(test_strict_sees_each_byte_anywhere_in_a_string),
		cmocka_unit_test(test_strict_stays_inside_of_its_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
