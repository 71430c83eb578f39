/*
 * test_percent.c - escapes are decoded exactly or refused, nothing is written beyond the room given, and
 * every byte but RFC 3986's unreserved ones is escaped.
 */
#include "unit.h"

#include "base/percent.h"

static void test_percent_decodes(void **state)
{
	static const struct {
		const char *text;
		const char *decoded;
		size_t len;
	} cases[] = {
		{ "", BYTES("") },
		{ "abc", BYTES("abc") },
		{ "a%20b", BYTES("a b") },
		{ "%41%42", BYTES("AB") },
		{ "%4a%4A", BYTES("JJ") },
		{ "%e4%BD%a0", BYTES("你") },
		{ "%2F%2f/", BYTES("///") },
		{ "%00", BYTES("\0") },
		{ "%FF%80", BYTES("\xFF\x80") },
		{ "%2541", BYTES("%41") }, /* once, not twice */
		{ "a+b", BYTES("a+b") },   /* a plus is a plus: this is no form */
		{ "\x01\xFF", BYTES("\x01\xFF") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i].text, strlen(cases[i].text));
		char out[64];
		size_t len = 99;

		assert_true(percent_decode(out, sizeof out, &len, text, strlen(cases[i].text)));
		assert_bytes(out, len, cases[i].decoded, cases[i].len);
		free(text);
	}
}

static void test_percent_refuses_broken_escapes(void **state)
{
	static const char *const cases[] = {
		"%",   "a%",  "%4",  "a%4", "%%41", "%4%", "%G0", "%0G", "%-1",
		"% 1", "%+1", "%0x", "%:0", "%@0",  "%`0", "%g0", "%/0", "ok%zz"
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i], strlen(cases[i]));
		char out[64];
		size_t len;

		if (percent_decode(out, sizeof out, &len, text, strlen(cases[i])))
			fail_msg("took \"%s\"", cases[i]);
		free(text);
	}
}

static void test_percent_stays_within_its_room(void **state)
{
	static const char text[] = "ab%63d%65"; /* abcde */

	(void)state;
	for (size_t size = 0; size < 10; size++) {
		char *out = exact_copy("zzzzzzzzzz", size);
		size_t len;
		bool fits = percent_decode(out, size, &len, BYTES(text));

		assert_int_equal(fits, size >= 5);
		if (fits)
			assert_bytes(out, len, BYTES("abcde"));
		free(out);
	}
}

static void test_percent_escapes_all_but_the_unreserved(void **state)
{
	static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

	(void)state;
	for (unsigned c = 0; c <= 0xFF; c++) {
		char byte = (char)c, expected[8];
		struct buf out;

		if (c != 0 && strchr(unreserved, byte) != NULL)
			snprintf(expected, sizeof expected, "%c", byte);
		else
			snprintf(expected, sizeof expected, "%%%02X", c);
		buf_init(&out, 100);
		percent_encode(&out, &byte, 1);
		assert_buf(&out, expected, strlen(expected));
		buf_free(&out);
	}
}

static void test_percent_comes_back_from_its_escapes(void **state)
{
	char bytes[256], back[256];
	struct buf out;
	size_t len;

	(void)state;
	for (unsigned c = 0; c <= 0xFF; c++)
		bytes[c] = (char)c;
	buf_init(&out, 1000);
	percent_encode(&out, bytes, sizeof bytes);
	assert_true(percent_decode(back, sizeof back, &len, buf_bytes(&out), buf_size(&out)));
	assert_bytes(back, len, bytes, sizeof bytes);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_percent_decodes),
		cmocka_unit_test(test_percent_refuses_broken_escapes),
		cmocka_unit_test(test_percent_stays_within_its_room),
		cmocka_unit_test(test_percent_escapes_all_but_the_unreserved),
		cmocka_unit_test(test_percent_comes_back_from_its_escapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
