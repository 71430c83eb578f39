/*
 * test_error.c - every failure has its status, name and text; what the user is told is always whole UTF-8.
 */
#include "unit.h"

#include "base/error.h"
#include "base/utf8.h"

static const struct {
	enum err code;
	int status;
	bool retry; /* carries Retry-After */
} codes[] = {
	{ ERR_OK, 200, false },
	{ ERR_BAD_REQUEST, 400, false },
	{ ERR_UNAUTHORIZED, 401, false },
	{ ERR_FORBIDDEN, 403, false },
	{ ERR_NOT_FOUND, 404, false },
	{ ERR_METHOD, 405, false },
	{ ERR_TOO_BIG, 413, false },
	{ ERR_MEDIA_TYPE, 415, false },
	{ ERR_NOMEM, 503, true },
	{ ERR_STORE, 503, true },
	{ ERR_SESSION_BUSY, 409, true },
	{ ERR_RATE, 503, true },
	{ ERR_TOO_MANY, 503, true },
	{ ERR_STOPPING, 503, true },
	{ ERR_CIRCUIT, 503, true },
	{ ERR_COZE_CONFIG, 500, false },
	{ ERR_COZE_REFUSED, 400, false },
	{ ERR_COZE_BUSY, 503, true },
	{ ERR_COZE_UNREACHABLE, 503, true },
	{ ERR_COZE_PROTOCOL, 503, true },
	{ ERR_COZE_EMPTY, 503, true },
	{ ERR_TIMEOUT, 503, true },
	{ ERR_ANSWER_TOO_BIG, 503, true },
};

static void test_error_maps_every_code(void **state)
{
	(void)state;
	assert_int_equal(COUNT(codes), ERR__COUNT);
	for (size_t i = 0; i < COUNT(codes); i++) {
		struct error error;

		assert_int_equal(error_set(&error, codes[i].code, NULL, "while %s", "testing"),
				 codes[i].code);
		assert_int_equal(error.code, codes[i].code);
		assert_int_equal(error_status(codes[i].code), codes[i].status);
		assert_int_equal(error_retry_after_s(&error) > 0, codes[i].retry);
		assert_string_equal(error.cause, "while testing");
		assert_true(utf8_valid(error.detail, strlen(error.detail)));
		assert_int_equal(error.detail[0] != '\0', codes[i].code != ERR_OK);
	}
}

static void test_error_names_differ(void **state)
{
	(void)state;
	for (int a = 0; a < ERR__COUNT; a++) {
		const char *name = error_name((enum err)a);

		assert_non_null(name);
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
		assert_true(name[0] != '\0');
		for (int b = 0; b < a; b++)
			assert_string_not_equal(name, error_name((enum err)b));
	}
}

static void test_error_retry_after_may_be_given_where_the_status_has_one(void **state)
{
	struct error error;

	(void)state;
	error_set(&error, ERR_COZE_BUSY, NULL, "busy");
	error.retry_after_s = 77;
	assert_int_equal(error_retry_after_s(&error), 77);
	error_set(&error, ERR_BAD_REQUEST, NULL, "bad");
	assert_int_equal(error_retry_after_s(&error), 0); /* and error_set() forgot the 77 */
	error.retry_after_s = 77;
	assert_int_equal(error_retry_after_s(&error), 0);
}

static void test_error_detail_replaces_the_text_only(void **state)
{
	struct error error;

	(void)state;
	error_set(&error, ERR_COZE_CONFIG, "第一", "cause");
	assert_string_equal(error.detail, "第一");
	error_detail(&error, "Coze API请求失败: %d %s", 401, "Unauthorized");
	assert_string_equal(error.detail, "Coze API请求失败: 401 Unauthorized");
	assert_string_equal(error.cause, "cause");
	assert_int_equal(error.code, ERR_COZE_CONFIG);
}

/* Whatever the length, never half a character and never less than what fits. */
static void test_error_cuts_long_details_between_characters(void **state)
{
	static const char *const characters[] = { "x", "é", "你", "😀" };
	char text[1000];

	(void)state;
	for (size_t c = 0; c < COUNT(characters); c++) {
		size_t width = strlen(characters[c]);

		for (size_t lead = 0; lead < 4; lead++) {
			struct error error;
			size_t len;

			memset(text, 'a', lead);
			for (len = lead; len + width < sizeof text; len += width)
				memcpy(text + len, characters[c], width);
			text[len] = '\0';
			for (int way = 0; way < 2; way++) {
				error_set(&error, ERR_BAD_REQUEST, way == 0 ? text : NULL, "%s", text);
				if (way == 1)
					error_detail(&error, "%s", text);
				assert_true(utf8_valid(error.detail, strlen(error.detail)));
				assert_true(strlen(error.detail) + width >= sizeof error.detail);
				assert_memory_equal(error.detail, text, strlen(error.detail));
				assert_true(memchr(error.cause, '\0', sizeof error.cause) != NULL);
			}
		}
	}
}

static void test_error_details_are_valid_even_from_broken_text(void **state)
{
	struct error error;

	(void)state;
	error_set(&error, ERR_BAD_REQUEST,
		  "good\xFF"
		  "bad",
		  "x");
	assert_true(utf8_valid(error.detail, strlen(error.detail)));
	error_detail(&error, "%s", "\xE4\xBD");
	assert_true(utf8_valid(error.detail, strlen(error.detail)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_maps_every_code),
		cmocka_unit_test(test_error_names_differ),
		cmocka_unit_test(test_error_retry_after_may_be_given_where_the_status_has_one),
		cmocka_unit_test(test_error_detail_replaces_the_text_only),
		cmocka_unit_test(test_error_cuts_long_details_between_characters),
		cmocka_unit_test(test_error_details_are_valid_even_from_broken_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
