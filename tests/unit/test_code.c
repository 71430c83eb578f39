/*
 * test_code.c - each Coze code and HTTP status leads to the right class of failure, and only what passes
 * by itself is asked again.
 */
#include "unit.h"

#include "coze/code.h"

static void test_code_knows_the_documented_codes(void **state)
{
	static const struct {
		int64_t code;
		enum err err;
		unsigned traits; /* without CODE_ALARM, see below */
	} cases[] = {
		{ 4000, ERR_COZE_CONFIG, 0 },
		{ 4001, ERR_COZE_BUSY, 0 },
		{ 4002, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION },
		{ 4003, ERR_COZE_CONFIG, 0 },
		{ 4004, ERR_COZE_CONFIG, 0 },
		{ 4005, ERR_COZE_CONFIG, 0 },
		{ 4006, ERR_COZE_CONFIG, 0 },
		{ 4007, ERR_COZE_CONFIG, 0 },
		{ 4008, ERR_COZE_BUSY, 0 },
		{ 4009, ERR_COZE_BUSY, CODE_RETRY },
		{ 4010, ERR_COZE_REFUSED, 0 },
		{ 4011, ERR_COZE_BUSY, 0 },
		{ 4012, ERR_COZE_CONFIG, 0 },
		{ 4013, ERR_COZE_BUSY, CODE_RETRY },
		{ 4014, ERR_COZE_REFUSED, 0 },
		{ 4015, ERR_COZE_CONFIG, 0 },
		{ 4016, ERR_COZE_BUSY, CODE_OCCUPIED },
		{ 4019, ERR_COZE_BUSY, 0 },
		{ 4020, ERR_COZE_BUSY, CODE_RETRY },
		{ 4021, ERR_COZE_CONFIG, 0 },
		{ 4022, ERR_COZE_BUSY, 0 },
		{ 4027, ERR_COZE_BUSY, 0 }, /* not documented anywhere: as any unknown code */
		{ 4028, ERR_COZE_BUSY, 0 },
		{ 4100, ERR_COZE_CONFIG, 0 },
		{ 4101, ERR_COZE_CONFIG, 0 },
		{ 4102, ERR_COZE_BUSY, 0 },
		{ 4104, ERR_COZE_BUSY, 0 },
		{ 4105, ERR_COZE_REFUSED, 0 },
		{ 4200, ERR_COZE_CONFIG, 0 },
		{ 5000, ERR_COZE_BUSY, CODE_RETRY },
		{ 700012006, ERR_COZE_CONFIG, 0 },
		{ 710005002, ERR_COZE_BUSY, CODE_RETRY },
		{ 720701013, ERR_COZE_BUSY, CODE_RETRY },
		{ 720702204, ERR_COZE_CONFIG, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct code *code = code_find(cases[i].code);

		if (code->err != cases[i].err || (code->traits & ~(unsigned)CODE_ALARM) != cases[i].traits)
			fail_msg("code %d", (int)cases[i].code);
		assert_true(code->meaning[0] != '\0');
	}
}

static void test_code_alarms_where_an_operator_has_to_act(void **state)
{
	static const int64_t alarms[] = { 4006, 4008, 4011, 4012, 4015,     4019,
					  4022, 4028, 4100, 4101, 700012006 };
	static const int64_t quiet[] = { 4000, 4002, 4009, 4013, 4014, 4016, 4020, 4105, 5000, 12345 };

	(void)state;
	for (size_t i = 0; i < COUNT(alarms); i++)
		assert_true(code_find(alarms[i])->traits & CODE_ALARM);
	for (size_t i = 0; i < COUNT(quiet); i++)
		assert_false(code_find(quiet[i])->traits & CODE_ALARM);
}

/* A code that nobody knows is Coze's trouble, never ours or the user's, and asking again would be a guess. */
static void test_code_unknown_is_not_retried(void **state)
{
	static const int64_t codes[] = { 1,         -1,        999,       4017,   4201,      4300,
					 4314,      4315,      5001,      701231, 708230702, 777777775,
					 INT64_MAX, INT64_MIN, 4294971296 /* 4000 + 2^32 */ };

	(void)state;
	for (size_t i = 0; i < COUNT(codes); i++) {
		const struct code *code = code_find(codes[i]);

		assert_non_null(code);
		assert_int_equal(code->err, ERR_COZE_BUSY);
		assert_int_equal(code->traits, 0);
	}
}

static void test_code_of_status(void **state)
{
	static const struct {
		long status;
		enum err err;
		const char *reason;
	} cases[] = {
		{ 302, ERR_COZE_CONFIG, "" },
		{ 400, ERR_COZE_CONFIG, "Bad Request" },
		{ 401, ERR_COZE_CONFIG, "Unauthorized" },
		{ 403, ERR_COZE_CONFIG, "Forbidden" },
		{ 404, ERR_COZE_CONFIG, "Not Found" },
		{ 408, ERR_COZE_BUSY, "Request Timeout" },
		{ 425, ERR_COZE_BUSY, "" },
		{ 429, ERR_COZE_BUSY, "Too Many Requests" },
		{ 499, ERR_COZE_CONFIG, "" },
		{ 500, ERR_COZE_BUSY, "Internal Server Error" },
		{ 502, ERR_COZE_BUSY, "Bad Gateway" },
		{ 503, ERR_COZE_BUSY, "Service Unavailable" },
		{ 504, ERR_COZE_BUSY, "Gateway Timeout" },
		{ 599, ERR_COZE_BUSY, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(code_of_status(cases[i].status), cases[i].err);
		assert_string_equal(code_status_reason(cases[i].status), cases[i].reason);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_code_knows_the_documented_codes),
		cmocka_unit_test(test_code_alarms_where_an_operator_has_to_act),
		cmocka_unit_test(test_code_unknown_is_not_retried),
		cmocka_unit_test(test_code_of_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
