/*
 * test_response.c - answers leave in CGI form with exact headers, and an error tells the client its detail
 * only.
 */
#include "unit.h"

#include "failing_alloc.h"
#include "fake_nginx.h"
#include "http/response.h"

static void json_get(struct request *request, void *app)
{
	struct buf body;

	(void)app;
	buf_init(&body, 100);
	buf_append_str(&body, "{\"text\":\"你好\"}");
	response_json(request, 200, "会话 1\r\nX: y", &body);
	buf_free(&body);
}

static void full_get(struct request *request, void *app)
{
	struct buf body;

	(void)app;
	buf_init(&body, 3);
	buf_append_str(&body, "too long");
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

static void error_get(struct request *request, void *app)
{
	struct error why;

	(void)app;
	error_set(&why, ERR_COZE_BUSY, "细节 \"引号\"", "HIDDEN cause");
	why.retry_after_s = 17;
	response_error(request, &why);
}

static void stream_get(struct request *request, void *app)
{
	(void)app;
	assert_int_equal(response_stream_open(request, "s1"), ERR_OK);
	assert_int_equal(response_stream_send(request, BYTES("data: 1\n\n")), ERR_OK);
	response_stream_end(request, BYTES("data: 2\n\n"));
}

static void starved_get(struct request *request, void *app)
{
	char event[2001];

	(void)app;
	memset(event, 'e', 2000);
	event[2000] = '\0';
	assert_int_equal(response_stream_open(request, "s1"), ERR_OK);
	assert_int_equal(response_stream_send(request, BYTES("data: 1\n\n")), ERR_OK);
	alloc_leave(0);
	assert_true(response_stream_may_end(request, 2000));
	response_stream_end(request, BYTES(event));
	alloc_failed();
}

/* Nobody reads while this runs: the socket fills. */
static void behind_get(struct request *request, void *app)
{
	static const char words[20000];

	(void)app;
	assert_int_equal(response_stream_open(request, "s1"), ERR_OK);
	while (response_backlog(request) < sizeof words)
		assert_int_equal(response_stream_send(request, words, sizeof words), ERR_OK);
	alloc_leave(0);
	assert_false(response_stream_may_end(request, 50000));
	assert_true(alloc_failed());
	assert_true(response_stream_may_end(request, 50000));
	response_stream_end(request, BYTES("data: 2\n\n"));
}

static const struct route routes[] = {
	{ "GET", "/json", ACCESS_OPEN, json_get, NULL },
	{ "GET", "/full", ACCESS_OPEN, full_get, NULL },
	{ "GET", "/error", ACCESS_OPEN, error_get, NULL },
	{ "GET", "/stream", ACCESS_OPEN, stream_get, NULL },
	{ "GET", "/behind", ACCESS_OPEN, behind_get, NULL },
	{ "GET", "/starved", ACCESS_OPEN, starved_get, NULL },
};

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

static void assert_exact_answer(const char *uri, const char *expected)
{
	char *answer = nginx_ask(&nginx, &(struct ask){ .uri = uri });

	assert_string_equal(answer, expected);
	free(answer);
}

static void test_response_json_has_exact_headers(void **state)
{
	(void)state;
	/* A session_id is the client's own text: it must not become a header of its own. */
	assert_exact_answer("/json",
			    "Status: 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n"
			    "X-Session-ID: %E4%BC%9A%E8%AF%9D%201%0D%0AX%3A%20y\r\n\r\n"
			    "{\"text\":\"你好\"}");
}

static void test_response_of_a_full_buffer_is_503(void **state)
{
	(void)state;
	assert_answer(&nginx, &(struct ask){ .uri = "/full" }, "503 Service Unavailable\r\n",
		      "\r\nRetry-After: ");
}

static void test_response_error_tells_detail_and_retry_after(void **state)
{
	(void)state;
	assert_exact_answer("/error", "Status: 503 Service Unavailable\r\nContent-Type: application/json\r\n"
				      "Content-Length: 30\r\nRetry-After: 17\r\n\r\n"
				      "{\"detail\":\"细节 \\\"引号\\\"\"}");
}

static void test_response_stream_is_what_was_sent(void **state)
{
	char *answer = nginx_ask(&nginx, &(struct ask){ .uri = "/stream" });
	char *end = strstr(answer, "\r\n\r\n");

	(void)state;
	assert_non_null(end);
	assert_string_equal(end + 4, "data: 1\n\ndata: 2\n\n");
	/* FastCGI pads records to eight bytes, and nginx holds a header back that padding follows. */
	assert_int_equal((end + 4 - answer) % 8, 0);
	assert_int_equal(strncmp(answer, "Status: 200 OK\r\n", 16), 0);
	assert_contains(answer, "\r\nContent-Type: text/event-stream; charset=utf-8\r\n");
	assert_contains(answer, "\r\nCache-Control: no-cache");
	assert_contains(answer, "\r\nX-Accel-Buffering: no\r\n");
	assert_contains(answer, "\r\nX-Session-ID: s1\r\n");
	free(answer);
}

static void test_response_stream_of_a_client_behind_ends_when_there_is_memory(void **state)
{
	char *answer = nginx_ask(&nginx, &(struct ask){ .uri = "/behind" });

	(void)state;
	assert_int_equal(strncmp(answer, "Status: 200 OK\r\n", 16), 0);
	free(answer);
}

static void test_response_stream_ends_without_memory(void **state)
{
	char *answer = nginx_ask(&nginx, &(struct ask){ .uri = "/starved" });
	char *text = strstr(answer, "data: 1\n\ne");

	(void)state;
	assert_non_null(text);
	assert_int_equal(strspn(text + 9, "e"), 2000);
	assert_int_equal(strlen(text), 2009);
	free(answer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_response_json_has_exact_headers),
		cmocka_unit_test(test_response_of_a_full_buffer_is_503),
		cmocka_unit_test(test_response_error_tells_detail_and_retry_after),
		cmocka_unit_test(test_response_stream_is_what_was_sent),
		cmocka_unit_test(test_response_stream_ends_without_memory),
		cmocka_unit_test(test_response_stream_of_a_client_behind_ends_when_there_is_memory),
	};

	return cmocka_run_group_tests(tests, open_nginx, close_nginx);
}
