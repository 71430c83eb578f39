/*
 * test_failure.c - whatever shape an error of Coze has, the user gets a text and a status, and the turn learns what may
 * help: only what surely did not reach Coze, or what Coze itself calls passing, is tried again.
 */
#include "unit.h"

#include "base/utf8.h"
#include "coze/code.h"
#include "coze/failure.h"

static struct event_text text(const char *words)
{
	return (struct event_text){ words, strlen(words) };
}

static struct failure of_code(int64_t code, const char *words)
{
	const struct event_text msg = text(words);
	struct failure failure;

	memset(&failure, 0xA5, sizeof failure);
	failure_of_code(&failure, code, &msg);
	assert_true(utf8_valid(failure.error.detail, strlen(failure.error.detail)));
	return failure;
}

static void test_failure_of_our_own_has_no_traits(void **state)
{
	struct failure failure;

	(void)state;
	memset(&failure, 0xA5, sizeof failure);
	failure_set(&failure, ERR_COZE_EMPTY, NULL, "completed without any text");
	assert_int_equal(failure.traits, 0);
	assert_int_equal(failure.error.code, ERR_COZE_EMPTY);
	assert_int_equal(failure.error.retry_after_s, 0);
	assert_string_equal(failure.error.detail, "Coze API返回空回复");
	assert_string_equal(failure.error.cause, "completed without any text");
	failure_set(&failure, ERR_COZE_BUSY, "对话已在 Coze 端被取消", "100 % odd %s");
	assert_string_equal(failure.error.detail, "对话已在 Coze 端被取消");
	assert_string_equal(failure.error.cause, "100 % odd %s");
}

static void test_failure_of_code_takes_the_table(void **state)
{
	static const int64_t codes[] = { 4000, 4002, 4009, 4013, 4014,      4016,      4020,
					 4028, 4100, 5000, 9999, 700012006, 710005002, 123456789012 };

	(void)state;
	for (size_t i = 0; i < COUNT(codes); i++) {
		struct failure failure = of_code(codes[i], "原因");
		char detail[64], cause[32];

		snprintf(detail, sizeof detail, "Coze API请求失败: %lld 原因", (long long)codes[i]);
		snprintf(cause, sizeof cause, "%lld", (long long)codes[i]);
		assert_string_equal(failure.error.detail, detail);
		assert_contains(failure.error.cause, cause);
		assert_int_equal(failure.error.code, code_find(codes[i])->err);
		assert_int_equal(failure.traits, code_find(codes[i])->traits);
	}
}

/* What Coze says comes from outside: it reaches the user, cut between characters, and never the log. */
static void test_failure_of_code_cuts_long_words(void **state)
{
	static const char *const characters[] = { "x", "é", "扣", "😀" };
	char words[2000];

	(void)state;
	for (size_t c = 0; c < COUNT(characters); c++) {
		size_t len = 0, prefix = strlen("Coze API请求失败: 4000 ");
		struct failure failure;

		while (len + strlen(characters[c]) < sizeof words) {
			memcpy(words + len, characters[c], strlen(characters[c]));
			len += strlen(characters[c]);
		}
		words[len] = '\0';
		failure = of_code(4000, words);
		assert_in_range(strlen(failure.error.detail), prefix + 150, prefix + 200);
		assert_memory_equal(failure.error.detail + prefix, words,
				    strlen(failure.error.detail) - prefix);
		assert_lacks(failure.error.cause, characters[c][0] == 'x' ? "xxx" : characters[c]);
	}
}

static void test_failure_without_words_or_number(void **state)
{
	(void)state;
	assert_string_equal(of_code(4009, "").error.detail, "Coze API请求失败: 4009 ");
	assert_string_equal(of_code(0, "原因").error.detail, "Coze API请求失败: 原因");
	assert_string_equal(of_code(0, "").error.detail, "Coze API请求失败: 未知错误");
	assert_string_equal(of_code(-1, "").error.detail, "Coze API请求失败: 未知错误");
	assert_int_equal(of_code(0, "").traits, 0);
	assert_string_equal(of_code(4000, "100 %s %n").error.detail, "Coze API请求失败: 4000 100 %s %n");
}

static void test_failure_of_status(void **state)
{
	static const struct {
		long status;
		int64_t code;
		enum err err;
		unsigned traits; /* without CODE_ALARM */
	} cases[] = {
		{ 400, 0, ERR_COZE_CONFIG, 0 },
		{ 401, 0, ERR_COZE_CONFIG, 0 },
		{ 403, 0, ERR_COZE_CONFIG, 0 },
		{ 404, 0, ERR_COZE_CONFIG, 0 },
		{ 302, 0, ERR_COZE_CONFIG, 0 },
		{ 429, 0, ERR_COZE_BUSY, CODE_RETRY },
		{ 500, 0, ERR_COZE_BUSY, CODE_RETRY | CODE_DOWN },
		{ 502, 0, ERR_COZE_BUSY, CODE_RETRY | CODE_DOWN },
		{ 503, 0, ERR_COZE_BUSY, CODE_RETRY | CODE_DOWN },
		{ 504, 0, ERR_COZE_BUSY, CODE_RETRY | CODE_DOWN },
		/* A code that is known says more than the status. */
		{ 429, 4028, ERR_COZE_BUSY, 0 },
		{ 400, 4009, ERR_COZE_BUSY, CODE_RETRY },
		{ 400, 4002, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION },
		{ 409, 4016, ERR_COZE_BUSY, CODE_OCCUPIED },
		{ 401, 4100, ERR_COZE_CONFIG, 0 },
		{ 400, 4014, ERR_COZE_REFUSED, 0 },
		/* And one that is not known says nothing. */
		{ 503, 987654, ERR_COZE_BUSY, CODE_RETRY | CODE_DOWN },
		{ 401, 987654, ERR_COZE_CONFIG, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct failure failure;
		char number[32];

		memset(&failure, 0xA5, sizeof failure);
		failure_of_status(&failure, cases[i].status, cases[i].code);
		if (failure.error.code != cases[i].err ||
		    (failure.traits & ~(unsigned)CODE_ALARM) != cases[i].traits)
			fail_msg("status %ld code %lld: error %d, traits %u", cases[i].status,
				 (long long)cases[i].code, (int)failure.error.code, failure.traits);
		snprintf(number, sizeof number, "Coze API请求失败: %ld ", cases[i].status);
		assert_contains(failure.error.detail, number);
		assert_contains(failure.error.cause, "HTTP");
		assert_int_equal(failure.error.retry_after_s, 0);
	}
}

/* A POST that may have reached Coze is never sent again: it would be a second chat. */
static void test_failure_of_call_repeats_only_what_was_not_sent(void **state)
{
	static const struct {
		enum call_end end;
		enum err err;
		unsigned traits;
		const char *cause;
	} cases[] = {
		{ CALL_OK, ERR_COZE_UNREACHABLE, 0, "ended" },
		{ CALL_NOT_SENT, ERR_COZE_UNREACHABLE, CODE_RETRY | CODE_DOWN, "no connection" },
		{ CALL_CONNECT_TIMEOUT, ERR_TIMEOUT, CODE_RETRY | CODE_DOWN, "COZE_CONNECT_TIMEOUT_SECONDS" },
		{ CALL_FIRST_BYTE_TIMEOUT, ERR_TIMEOUT, CODE_DOWN, "COZE_FIRST_BYTE_TIMEOUT_SECONDS" },
		{ CALL_IDLE_TIMEOUT, ERR_TIMEOUT, 0, "COZE_IDLE_TIMEOUT_SECONDS" },
		{ CALL_CUT, ERR_COZE_UNREACHABLE, 0, "broke" },
		{ CALL_NO_MEMORY, ERR_NOMEM, 0, "memory is short" },
		{ CALL_UNANSWERED, ERR_COZE_UNREACHABLE, CODE_DOWN, "before an answer" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct failure failure;

		memset(&failure, 0xA5, sizeof failure);
		failure_of_call(&failure, cases[i].end, "waiting for Coze", "Recv failure");
		assert_int_equal(failure.error.code, cases[i].err);
		assert_int_equal(failure.traits, cases[i].traits);
		assert_contains(failure.error.cause, "while waiting for Coze: ");
		assert_contains(failure.error.cause, cases[i].cause);
		assert_contains(failure.error.cause, ": Recv failure");
		assert_true(failure.error.detail[0] != '\0');
		assert_lacks(failure.error.detail, "Recv failure");
		failure_of_call(&failure, cases[i].end, "waiting for Coze", "");
		assert_contains(failure.error.cause, cases[i].cause);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failure_of_our_own_has_no_traits),
		cmocka_unit_test(test_failure_of_code_takes_the_table),
		cmocka_unit_test(test_failure_of_code_cuts_long_words),
		cmocka_unit_test(test_failure_without_words_or_number),
		cmocka_unit_test(test_failure_of_status),
		cmocka_unit_test(test_failure_of_call_repeats_only_what_was_not_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
