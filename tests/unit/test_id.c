/*
 * test_id.c - random ids are 32 hex digits and never the same; ids from outside are 1 to 128 bytes of
 * clean UTF-8.
 */
#include "unit.h"

#include "base/id.h"

static void test_id_random_is_hex(void **state)
{
	char id[ID_RANDOM_SIZE];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		memset(id, 'x', sizeof id);
		assert_true(id_random(id));
		assert_int_equal(strlen(id), 32);
		assert_int_equal(strspn(id, "0123456789abcdef"), 32);
	}
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, ID_RANDOM_SIZE);
}

static void test_id_random_does_not_repeat(void **state)
{
	enum { IDS = 5000 };
	char *ids = get_memory(IDS * ID_RANDOM_SIZE);

	(void)state;
	for (int i = 0; i < IDS; i++)
		assert_true(id_random(ids + i * ID_RANDOM_SIZE));
	qsort(ids, IDS, ID_RANDOM_SIZE, compare);
	for (int i = 1; i < IDS; i++)
		assert_string_not_equal(ids + (i - 1) * ID_RANDOM_SIZE, ids + i * ID_RANDOM_SIZE);
	free(ids);
}

static void test_id_takes_clean_text(void **state)
{
	static const char *const cases[] = { "a",
					     "session_0123456789abcdef",
					     "7500000000000000001",
					     "用户一号",
					     " ",
					     "a b",
					     "a/b?c&d#e%20",
					     "\"'<>\\{}",
					     "\xC2\xA0",
					     "😀",
					     "~" };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_true(id_valid(cases[i], strlen(cases[i])));
}

static void test_id_refuses_every_control_character(void **state)
{
	(void)state;
	for (unsigned point = 0; point <= 0xA0; point++) {
		bool control = point < 0x20 || (point >= 0x7F && point < 0xA0);
		char text[8] = "ab";
		size_t len = 2 + put_character(text + 2, point);

		if (id_valid(text, len) == control)
			fail_msg("U+%04X", point);
		text[len++] = 'c';
		assert_int_equal(id_valid(text, len), !control);
	}
}

static void test_id_refuses_what_is_not_utf8(void **state)
{
	static const char *const cases[] = {
		"\xFF", "a\x80", "\xC2", "\xC0\x81", "\xED\xA0\x80", "\xE4\xBD"
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i], strlen(cases[i]));

		assert_false(id_valid(text, strlen(cases[i])));
		free(text);
	}
}

static void test_id_is_1_to_128_bytes(void **state)
{
	char text[200];

	(void)state;
	memset(text, 'a', sizeof text);
	for (size_t len = 0; len < sizeof text; len++)
		assert_int_equal(id_valid(text, len), len >= 1 && len <= 128);
	memcpy(text + 126, "你", 3); /* 43 characters would fit, 129 bytes do not */
	assert_false(id_valid(text, 129));
	memcpy(text + 125, "你", 3);
	assert_true(id_valid(text, 128));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_id_random_is_hex),
		cmocka_unit_test(test_id_random_does_not_repeat),
		cmocka_unit_test(test_id_takes_clean_text),
		cmocka_unit_test(test_id_refuses_every_control_character),
		cmocka_unit_test(test_id_refuses_what_is_not_utf8),
		cmocka_unit_test(test_id_is_1_to_128_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
