/*
 * test_utf8.c - every character that exists is taken, everything else is not, and cuts fall between
 * characters.
 */
#include "unit.h"

#include "base/utf8.h"

/* RFC 3629 by arithmetic, to compare with: the length of the character at `p`, or 0. */
static size_t reference(const unsigned char *p, size_t left)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	uint32_t point = p[0] & (0xFFu >> (len + 1));

	if (len == 0 || len > left)
		return 0;
	if (len == 1)
		return 1;
	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		point = point << 6 | (p[i] & 0x3F);
	}
	return point < smallest[len] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000) ? 0 : len;
}

static void test_utf8_takes_every_character_that_exists(void **state)
{
	char text[4];

	(void)state;
	for (uint32_t point = 0; point <= 0x110000; point++) {
		size_t len = put_character(text, point);
		bool exists = point <= 0x10FFFF && !(point >= 0xD800 && point <= 0xDFFF);

		if (utf8_valid(text, len) != exists)
			fail_msg("U+%04X", point);
		for (size_t cut = 1; cut < len; cut++)
			assert_false(utf8_valid(text, cut));
	}
}

static void test_utf8_agrees_with_the_rfc_on_short_sequences(void **state)
{
	static const unsigned char thirds[] = { 0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90,
						0x9F, 0xA0, 0xBF, 0xC0, 0xFF };
	unsigned char p[4];

	(void)state;
	for (unsigned first = 0x80; first <= 0xFF; first++) {
		for (unsigned second = 0; second <= 0xFF; second++) {
			for (unsigned i = 0; i < COUNT(thirds) * COUNT(thirds); i++) {
				size_t len;

				p[0] = (unsigned char)first;
				p[1] = (unsigned char)second;
				p[2] = thirds[i / COUNT(thirds)];
				p[3] = thirds[i % COUNT(thirds)];
				len = reference(p, sizeof p);
				if (len == 0)
					assert_int_equal(utf8_valid_prefix((char *)p, sizeof p), 0);
				else
					assert_true(utf8_valid((char *)p, len));
			}
		}
	}
}

static void test_utf8_refuses_what_is_not_utf8(void **state)
{
	static const struct {
		const char *text;
		size_t len, prefix;
	} cases[] = {
		{ BYTES("\x80"), 0 },
		{ BYTES("\xBF"), 0 },
		{ BYTES("\xC0\x80"), 0 },                 /* overlong NUL */
		{ BYTES("\xC1\xBF"), 0 },                 /* overlong DEL */
		{ BYTES("\xE0\x80\x80"), 0 },             /* overlong, three bytes */
		{ BYTES("\xE0\x9F\xBF"), 0 },             /* U+07FF overlong */
		{ BYTES("\xF0\x80\x80\x80"), 0 },         /* overlong, four bytes */
		{ BYTES("\xF0\x8F\xBF\xBF"), 0 },         /* U+FFFF overlong */
		{ BYTES("\xED\xA0\x80"), 0 },             /* U+D800 */
		{ BYTES("\xED\xBF\xBF"), 0 },             /* U+DFFF */
		{ BYTES("\xED\xA0\xBD\xED\xB8\x80"), 0 }, /* CESU-8 */
		{ BYTES("\xF4\x90\x80\x80"), 0 },         /* U+110000 */
		{ BYTES("\xF5\x80\x80\x80"), 0 },
		{ BYTES("\xF8\x88\x80\x80\x80"), 0 }, /* five bytes */
		{ BYTES("\xFE"), 0 },
		{ BYTES("\xFF\xFE"), 0 },
		{ BYTES("ab\xC3"), 2 }, /* cut off */
		{ BYTES("ab\xE4\xBD"), 2 },
		{ BYTES("ab\xF0\x9F\x98"), 2 },
		{ BYTES("\xC3("), 0 },
		{ BYTES("\xE4\xBD"
			"A"),
		  0 },
		{ BYTES("你\xE5\xA5"), 3 },
		{ BYTES("a\0b\xFF"), 3 },
		{ BYTES("abcdefgh\x80"), 8 },
		{ BYTES("abcdefghijklmnop\xC3"), 16 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i].text, cases[i].len);

		assert_int_equal(utf8_valid_prefix(text, cases[i].len), cases[i].prefix);
		assert_false(utf8_valid(text, cases[i].len));
		free(text);
	}
}

static void test_utf8_takes_nothing_and_nul(void **state)
{
	(void)state;
	assert_true(utf8_valid("", 0));
	assert_int_equal(utf8_valid_prefix("", 0), 0);
	assert_true(utf8_valid(BYTES("\0")));
	assert_true(utf8_valid(BYTES("a\0b你\0")));
}

/* Plain ASCII is checked eight bytes at a time: the seams must not show. */
static void test_utf8_finds_a_bad_byte_at_any_place(void **state)
{
	(void)state;
	for (size_t len = 1; len <= 40; len++) {
		for (size_t at = 0; at < len; at++) {
			char *text = exact_copy("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", len);

			text[at] = '\xFF';
			assert_int_equal(utf8_valid_prefix(text, len), at);
			if (at + 1 < len) {
				memcpy(text + at, "é", 2);
				assert_true(utf8_valid(text, len));
			}
			free(text);
		}
	}
}

static void test_utf8_cuts_between_characters(void **state)
{
	static const char text[] = "aé你😀z"; /* characters begin at 0, 1, 3, 6, 10 */
	static const size_t cuts[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };

	(void)state;
	assert_int_equal(COUNT(cuts), sizeof text);
	for (size_t at = 0; at < COUNT(cuts); at++)
		assert_int_equal(utf8_cut(text, sizeof text - 1, at), cuts[at]);
	assert_int_equal(utf8_cut("", 0, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_utf8_takes_every_character_that_exists),
		cmocka_unit_test(test_utf8_agrees_with_the_rfc_on_short_sequences),
		cmocka_unit_test(test_utf8_refuses_what_is_not_utf8),
		cmocka_unit_test(test_utf8_takes_nothing_and_nul),
		cmocka_unit_test(test_utf8_finds_a_bad_byte_at_any_place),
		cmocka_unit_test(test_utf8_cuts_between_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
