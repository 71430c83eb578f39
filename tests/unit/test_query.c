/*
 * test_query.c - a number in the query is read exactly, or its parameter is named in the refusal.
 */
#include "unit.h"

#include "fake_nginx.h"
#include "http/query.h"
#include "http/response.h"

struct numbers {
	uint64_t few, many;
};

static const struct query_field table[] = {
	{ "few", offsetof(struct numbers, few), 10, 1, 50, "", "" },
	{ "many", offsetof(struct numbers, many), 7, 0, 1000000000, "", "" },
};

/* Answers "[few many]". */
static void numbers_get(struct request *request, void *app)
{
	struct numbers numbers = { 0, 0 };
	struct error why;
	struct buf body;

	(void)app;
	if (query_read(&numbers, table, COUNT(table), request, &why) != ERR_OK) {
		response_error(request, &why);
		return;
	}
	buf_init(&body, 1000);
	buf_printf(&body, "[%llu %llu]", (unsigned long long)numbers.few, (unsigned long long)numbers.many);
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

static const struct route routes[] = { { "GET", "/", ACCESS_OPEN, numbers_get, NULL } };

static struct nginx nginx;

static int open_nginx(void **state)
{
	(void)state;
	nginx_open(&nginx, routes, COUNT(routes), "", "", NULL);
	return 0;
}

static int close_nginx(void **state)
{
	(void)state;
	nginx_close(&nginx);
	return 0;
}

static void test_query_reads_numbers(void **state)
{
	static const struct {
		const char *uri, *answer;
	} cases[] = {
		{ "/", "[10 7]" },
		{ "/?", "[10 7]" },
		{ "/?few=1", "[1 7]" },
		{ "/?few=50&many=1000000000", "[50 1000000000]" },
		{ "/?many=0&few=2", "[2 0]" },
		{ "/?few=007", "[7 7]" },
		{ "/?few=%35", "[5 7]" },
		{ "/?fe%77=5", "[5 7]" },
		{ "/?other=x&few=3&&", "[3 7]" },
		{ "/?FEW=x&fewer=x", "[10 7]" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_answer(&nginx, &(struct ask){ .uri = cases[i].uri }, "200", cases[i].answer);
}

static void test_query_names_what_is_wrong(void **state)
{
	static const char *const values[] = {
		"",
		"0",
		"51",
		"-1",
		"+1",
		"%2B1",
		"%201",
		"1%20",
		"1.0",
		"1e1",
		"1e99",
		"0x10",
		"abc",
		"1a",
		"1%00",
		"%EF%BC%91", /* a full-width 1 */
		"%",
		"NaN",
		"null",
		"4294967297",           /* 1 in 32 bits */
		"18446744073709551617", /* 1 in 64 bits */
		"99999999999999999999",
		"000000000000000000001",
		"999999999999999999",
		"1&few=1",
		"1&few=",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(values); i++) {
		char uri[200];

		snprintf(uri, sizeof uri, "/?many=1&few=%s", values[i]);
		assert_answer(&nginx, &(struct ask){ .uri = uri }, "400 Bad Request",
			      "{\"detail\":\"参数 few 无效: 必须是 1-50 之间的整数，且只能出现一次\"}");
	}
	assert_answer(&nginx, &(struct ask){ .uri = "/?few" }, "400", "参数 few 无效");
	assert_answer(&nginx, &(struct ask){ .uri = "/?few=1&many=-1" }, "400",
		      "参数 many 无效: 必须是 0-1000000000 之间的整数");
	assert_answer(&nginx, &(struct ask){ .uri = "/?many=1000000001" }, "400", "参数 many 无效");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_query_reads_numbers),
		cmocka_unit_test(test_query_names_what_is_wrong),
	};

	return cmocka_run_group_tests(tests, open_nginx, close_nginx);
}
