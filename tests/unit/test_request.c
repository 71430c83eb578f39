/*
 * test_request.c - what a handler gets to see of a request: query parameters, and a body that was checked.
 */
#include "unit.h"

#include <json-c/json.h>

#include "fake_nginx.h"
#include "http/fields.h"
#include "http/response.h"

static struct nginx nginx;

/* Answers the parameter "q" in brackets, with room for eight bytes. */
static void query_get(struct request *request, void *app)
{
	char value[9];
	bool present;
	bool good = request_query(request, "q", value, sizeof value, &present);
	struct buf body;

	(void)app;
	assert_true(present || !good);
	buf_init(&body, 1000);
	buf_printf(&body, "[%s]", good ? value : present ? "!" : "?");
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

static const struct field table[] = { { "message", FIELD_TEXT, true, 0, "", "", "" } };

/* Answers the message's first bytes, and how many there are. */
static void on_fields(struct request *request, void *arg, const void *fields)
{
	const struct text *message = fields;
	struct buf body;

	assert_ptr_equal(arg, (const void *)table);
	buf_init(&body, 10000);
	buf_append(&body, message->bytes, message->len < 10 ? message->len : 10);
	buf_printf(&body, "|%zu", message->len);
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

static void fields_post(struct request *request, void *app)
{
	(void)app;
	fields_take(request, &nginx.loop, table, COUNT(table), on_fields, (void *)table);
}

static const struct route routes[] = {
	{ "GET", "/", ACCESS_OPEN, query_get, NULL },
	{ "POST", "/", ACCESS_OPEN, fields_post, NULL },
};

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

static void test_request_finds_query_parameters(void **state)
{
	static const struct {
		const char *uri, *answer;
	} cases[] = {
		{ "/", "[?]" },
		{ "/?", "[?]" },
		{ "/?q", "[]" },
		{ "/?q=", "[]" },
		{ "/?q=1", "[1]" },
		{ "/?a=0&q=1&b=2", "[1]" },
		{ "/?q=1&q=2", "[!]" }, /* proxies in front may have read the other one */
		{ "/?q=1&%71=2", "[!]" },
		{ "/?q&q", "[!]" },
		{ "/?%71=1", "[1]" },
		{ "/?%7=1", "[?]" },
		{ "/?q=%001", "[!]" },
		{ "/?&&q=1&", "[1]" },
		{ "/?qq=1", "[?]" },
		{ "/?Q=1", "[?]" },
		{ "/?x=q", "[?]" },
		{ "/?x=q=1", "[?]" },
		{ "/?=1", "[?]" },
		{ "/?q=a=b", "[a=b]" },
		{ "/?q=%E4%BD%A0", "[你]" },
		{ "/?q=%26%3D", "[&=]" },
		{ "/?q=12345678", "[12345678]" },
		{ "/?q=123456789", "[!]" },
		{ "/?q=%", "[!]" },
		{ "/?q=%4", "[!]" },
		{ "/?q=?q", "[?q]" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_answer(&nginx, &(struct ask){ .uri = cases[i].uri }, "200", cases[i].answer);
}

static void test_request_body_is_checked(void **state)
{
	static const struct {
		const char *type, *body, *status, *part;
	} cases[] = {
		{ "application/json", "{\"message\":\"hello\"}", "200", "\r\n\r\nhello|5" },
		{ "", "{\"message\":\"hello\"}", "200", "hello" },
		{ "text/plain", "{\"message\":\"hello\"}", "415 Unsupported Media Type\r\n",
		  "application/json" },
		{ "application/json", "", "400 Bad Request\r\n", "{\"detail\":\"请求体为空" },
		{ "application/json", "{\"message\":\" \"}", "400", "字段 message 不能为空" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_answer(&nginx,
			      &(struct ask){ .method = "POST", .type = cases[i].type, .body = cases[i].body },
			      cases[i].status, cases[i].part);
}

static void test_request_body_has_a_ceiling(void **state)
{
	char body[NGINX_BODY_MAX + 2];

	(void)state;
	memset(body, ' ', sizeof body);
	memcpy(body, "{\"message\":\"x\"}", 15);
	for (size_t len = NGINX_BODY_MAX - 1; len <= sizeof body; len++)
		assert_answer(&nginx, &(struct ask){ .method = "POST", .body = body, .body_len = len },
			      len <= NGINX_BODY_MAX ? "200" : "413 Content Too Large\r\n",
			      len <= NGINX_BODY_MAX ? "\r\n\r\nx|1" : "请求体过大");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_finds_query_parameters),
		cmocka_unit_test(test_request_body_is_checked),
		cmocka_unit_test(test_request_body_has_a_ceiling),
	};

	return cmocka_run_group_tests(tests, open_nginx, close_nginx);
}
