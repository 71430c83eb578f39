/*
 * test_json.c - what is written reads back as the same text with json-c, stays on one line, and is cut to
 * a size exactly where it still fits.
 */
#include "unit.h"

#include <json-c/json.h>

#include "base/json.h"
#include "base/utf8.h"

static void assert_reads_back(const char *text, size_t len)
{
	struct json_object *doc;
	struct buf out;
	char *written;

	buf_init(&out, 1024 * 1024);
	json_string(&out, text, len);
	assert_false(out.failed);
	written = buf_string(&out);
	doc = json_tokener_parse(written);
	assert_non_null(doc);
	assert_int_equal(json_object_get_type(doc), json_type_string);
	assert_bytes(json_object_get_string(doc), (size_t)json_object_get_string_len(doc), text, len);
	for (size_t i = 0; written[i] != '\0'; i++)
		assert_true((unsigned char)written[i] >= 0x20);
	json_object_put(doc);
	free(written);
	buf_free(&out);
}

/* Random valid text with many of the characters that are written specially. */
static size_t random_text(char *out, size_t characters, uint64_t *seed)
{
	static const uint32_t special[] = { 0,      8,      9,      10,     12,       13,      31,     '"',
					    '\\',   127,    0x80,   0x84,   0x85,     0x86,    0x2027, 0x2028,
					    0x2029, 0x202A, 0x20AC, 0xFEFF, 0x10FFFF, 0x1F600, '/' };
	size_t len = 0;

	while (characters-- > 0) {
		uint32_t point = next_random(seed) % 3 == 0 ? special[next_random(seed) % COUNT(special)]
							    : next_random(seed) % 0x3000;

		len += put_character(out + len, point);
	}
	return len;
}

static void test_json_writes_one_exact_form(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		const char *written;
	} cases[] = {
		{ BYTES(""), "\"\"" },
		{ BYTES("plain"), "\"plain\"" },
		{ BYTES("你好，é😀"), "\"你好，é😀\"" },
		{ BYTES("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"" },
		{ BYTES("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\"" },
		{ BYTES("a\0b"), "\"a\\u0000b\"" },
		{ BYTES("\x01\x0B\x1B\x1F"), "\"\\u0001\\u000b\\u001b\\u001f\"" },
		{ BYTES("\x7F"), "\"\x7F\"" },
		{ BYTES("\xC2\x84\xC2\x85\xC2\x86"), "\"\xC2\x84\\u0085\xC2\x86\"" },
		/* NOLINTBEGIN(misc-misleading-bidirectional): the neighbours of what is escaped */
		{ BYTES("\xE2\x80\xA7\xE2\x80\xA8\xE2\x80\xA9\xE2\x80\xAA"),
		  "\"\xE2\x80\xA7\\u2028\\u2029\xE2\x80\xAA\"" },
		/* NOLINTEND(misc-misleading-bidirectional) */
		{ BYTES("\xE2\x82\xAC\xC2\xA9"), "\"€©\"" },
		{ BYTES("</script>&"), "\"</script>&\"" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i].text, cases[i].len);
		struct buf out;

		buf_init(&out, 1000);
		json_string(&out, text, cases[i].len);
		assert_buf(&out, cases[i].written, strlen(cases[i].written));
		buf_free(&out);
		free(text);
	}
}

static void test_json_reads_back_every_character(void **state)
{
	char text[4];

	(void)state;
	for (uint32_t point = 0; point < 0x3000; point++)
		assert_reads_back(text, put_character(text, point));
	for (uint32_t point = 0xE000; point <= 0x10FFFF; point += 997)
		assert_reads_back(text, put_character(text, point));
}

static void test_json_reads_back_random_texts(void **state)
{
	char text[400];
	uint64_t seed = 42;

	(void)state;
	for (int i = 0; i < 3000; i++)
		assert_reads_back(text, random_text(text, next_random(&seed) % 100, &seed));
}

static void test_json_writes_null_for_no_text(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 100);
	json_cstring(&out, NULL);
	json_cstring(&out, "");
	json_cstring(&out, "a\nb");
	assert_buf(&out, BYTES("null\"\"\"a\\nb\""));
	buf_free(&out);
}

static void test_json_marks_a_buffer_that_was_too_small(void **state)
{
	(void)state;
	for (size_t max = 0; max < 12; max++) {
		struct buf out;

		buf_init(&out, max);
		json_string(&out, BYTES("ab\n你\""));
		assert_int_equal(out.failed, max < 11);
		buf_free(&out);
	}
}

static size_t written_len(const char *text, size_t len)
{
	struct buf out;
	size_t written;

	buf_init(&out, 100000);
	json_string(&out, text, len);
	assert_false(out.failed);
	written = buf_size(&out) - 2;
	buf_free(&out);
	return written;
}

static size_t character_after(const char *text, size_t len, size_t at)
{
	do
		at++;
	while (at < len && ((unsigned char)text[at] & 0xC0) == 0x80);
	return at;
}

/* As much as fits and not one character more: json_string() is the judge. */
static void assert_fits(const char *text, size_t len, size_t max)
{
	size_t fitting = json_fitting(text, len, max);
	size_t first = len > 0 ? character_after(text, len, 0) : 0;

	assert_true(fitting <= len);
	assert_true(fitting >= first);
	assert_true(utf8_valid(text, fitting));
	if (fitting > first)
		assert_true(written_len(text, fitting) <= max);
	if (fitting < len)
		assert_true(written_len(text, character_after(text, len, fitting)) > max);
}

static void test_json_fitting_agrees_with_what_is_written(void **state)
{
	uint64_t seed = 99;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		char text[200];
		size_t len = random_text(text, next_random(&seed) % 50, &seed);
		char *copy = exact_copy(text, len);

		assert_fits(copy, len, next_random(&seed) % 200);
		free(copy);
	}
}

static void test_json_fitting_at_its_bounds(void **state)
{
	(void)state;
	assert_int_equal(json_fitting("", 0, 0), 0);
	assert_int_equal(json_fitting("", 0, 10), 0);
	assert_int_equal(json_fitting("abc", 3, 0), 1); /* always one, else a sender would never get on */
	assert_int_equal(json_fitting("你好", 6, 1), 3);
	assert_int_equal(json_fitting("abc", 3, 2), 2);
	assert_int_equal(json_fitting("abc", 3, 3), 3);
	assert_int_equal(json_fitting("abc", 3, SIZE_MAX), 3);
	assert_int_equal(json_fitting("a\nb", 3, 2), 1);
	assert_int_equal(json_fitting("a\nb", 3, 3), 2);
	assert_int_equal(json_fitting("a\x01"
				      "b",
				      3, 6),
			 1);
	assert_int_equal(json_fitting("a\x01"
				      "b",
				      3, 7),
			 2);
	assert_int_equal(json_fitting("a你", 4, 3), 1);
	assert_int_equal(json_fitting("a你", 4, 4), 4);
	assert_int_equal(json_fitting("\xE2\x80\xA8", 3, 1), 3);
}

static void test_json_writes_members_of_objects(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	buf_append_str(&out, "[{");
	json_member(&out, "a", "{");
	json_member(&out, "b", NULL);
	json_member_number(&out, "c", UINT64_MAX);
	buf_append_str(&out, ",\"d\":{");
	json_member_number(&out, "e", 0);
	buf_append_char(&out, '}');
	json_member(&out, "f", "\"你好");
	buf_append_char(&out, '}');
	assert_buf(&out, BYTES("[{\"a\":\"{\",\"b\":null,\"c\":18446744073709551615,\"d\":{\"e\":0},"
			       "\"f\":\"\\\"你好\"}"));
	buf_free(&out);
}

static void test_json_puts_commas_between_items(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	buf_append_char(&out, '[');
	json_item(&out);
	json_cstring(&out, "[");
	json_item(&out);
	buf_append_char(&out, '{');
	json_name(&out, "a");
	buf_append_str(&out, "[]}");
	json_item(&out);
	buf_append_str(&out, "1]");
	assert_buf(&out, BYTES("[\"[\",{\"a\":[]},1]"));
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_writes_one_exact_form),
		cmocka_unit_test(test_json_reads_back_every_character),
		cmocka_unit_test(test_json_reads_back_random_texts),
		cmocka_unit_test(test_json_writes_null_for_no_text),
		cmocka_unit_test(test_json_marks_a_buffer_that_was_too_small),
		cmocka_unit_test(test_json_fitting_agrees_with_what_is_written),
		cmocka_unit_test(test_json_fitting_at_its_bounds),
		cmocka_unit_test(test_json_writes_members_of_objects),
		cmocka_unit_test(test_json_puts_commas_between_items),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
