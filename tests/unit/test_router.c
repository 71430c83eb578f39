/*
 * test_router.c - each request finds its one handler, or is told by status, Allow and detail why there is
 * none.
 */
#include "unit.h"

#include "base/json.h"
#include "fake_nginx.h"
#include "http/response.h"

/* Answers the route's name, the method and the decoded id. */
static void answer(struct request *request, const char *name)
{
	struct buf body;

	buf_init(&body, 10000);
	buf_printf(&body, "[\"%s\",\"%s\",", name, request->method);
	json_cstring(&body, request->path_id);
	buf_append_char(&body, ']');
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

#define HANDLER(name)                                        \
	static void name(struct request *request, void *app) \
	{                                                    \
		assert_ptr_equal(app, (void *)routes);       \
		answer(request, #name);                      \
	}

static const struct route routes[8];

HANDLER(root)
HANDLER(chat)
HANDLER(info)
HANDLER(clear)
HANDLER(put_info)
HANDLER(user)
HANDLER(admin)
HANDLER(single)

static const struct route routes[8] = {
	{ "GET", "/", ACCESS_OPEN, root, NULL },
	{ "POST", "/chat", ACCESS_OPEN, chat, NULL },
	{ "GET", "/session/{session_id}/info", ACCESS_OPEN, info, NULL },
	{ "PUT", "/session/{session_id}/info", ACCESS_OPEN, put_info, NULL },
	{ "POST", "/session/{session_id}/clear", ACCESS_OPEN, clear, NULL },
	{ "GET", "/user", ACCESS_USER, user, NULL },
	{ "GET", "/admin", ACCESS_ADMIN, admin, NULL },
	{ "GET", "/single/{id}", ACCESS_OPEN, single, NULL },
};

struct expectation {
	struct ask ask;
	const char *status, *part;
};

static void assert_answers(const char *api_keys, const char *admin_api_keys, const struct expectation *cases,
			   size_t count)
{
	struct nginx nginx;

	nginx_open(&nginx, routes, COUNT(routes), api_keys, admin_api_keys, (void *)routes);
	for (size_t i = 0; i < count; i++)
		assert_answer(&nginx, &cases[i].ask, cases[i].status, cases[i].part);
	nginx_close(&nginx);
}

static void test_router_finds_the_handler(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/" }, "200 OK\r\n", "[\"root\",\"GET\",\"\"]" },
		{ { .uri = "/?x=/chat" }, "200", "root" },
		{ { .method = "POST", .uri = "/chat" }, "200", "[\"chat\",\"POST\",\"\"]" },
		{ { .uri = "/session/abc/info" }, "200", "[\"info\",\"GET\",\"abc\"]" },
		{ { .uri = "/session/abc/info?limit=1" }, "200", "[\"info\",\"GET\",\"abc\"]" },
		{ { .method = "PUT", .uri = "/session/abc/info" }, "200", "put_info" },
		{ { .method = "POST", .uri = "/session/info/clear" },
		  "200",
		  "[\"clear\",\"POST\",\"info\"]" },
		{ { .method = "HEAD", .uri = "/" }, "200", "[\"root\",\"HEAD\",\"\"]" },
		{ { .uri = "/single/x" }, "200", "[\"single\",\"GET\",\"x\"]" },
	};

	(void)state;
	assert_answers("", "", cases, COUNT(cases));
}

static void test_router_decodes_the_id(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/single/%E4%BD%A0%e5%a5%bd" }, "200", "\"你好\"]" },
		{ { .uri = "/single/a%2Fb%3Fc%25" }, "200", "\"a/b?c%\"]" }, /* one segment, as it was sent */
		{ { .uri = "/single/%61%20" }, "200", "\"a \"]" },
		{ { .uri = "/single/a+b" }, "200", "\"a+b\"]" },
		{ { .uri = "/single/.." }, "200", "\"..\"]" },
		{ { .uri = "/single/%" }, "400 Bad Request", "路径中的 ID 无效" },
		{ { .uri = "/single/%zz" }, "400", "路径中的 ID 无效" },
		{ { .uri = "/single/%00" }, "400", "路径中的 ID 无效" },
		{ { .uri = "/single/%0A" }, "400", "路径中的 ID 无效" },
		{ { .uri = "/single/%C2%85" }, "400", "路径中的 ID 无效" },
		{ { .uri = "/single/%FF" }, "400", "路径中的 ID 无效" },
		{ { .uri = "/session/%ED%A0%80/info" }, "400", "路径中的 ID 无效" },
	};

	(void)state;
	assert_answers("", "", cases, COUNT(cases));
}

static void test_router_ids_have_up_to_128_bytes(void **state)
{
	struct nginx nginx;

	(void)state;
	nginx_open(&nginx, routes, COUNT(routes), "", "", (void *)routes);
	for (int len = 127; len <= 130; len++) {
		for (int escaped = 0; escaped < 2; escaped++) {
			char uri[500] = "/single/";

			for (int i = 0; i < len; i++)
				strcat(uri, escaped ? "%41" : "A");
			assert_answer(&nginx, &(struct ask){ .uri = uri }, len <= 128 ? "200" : "400",
				      len <= 128 ? "A\"]" : "超过 128 字节");
		}
	}
	nginx_close(&nginx);
}

static void test_router_says_what_is_not_found(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/nothing" }, "404 Not Found\r\n", "{\"detail\":\"接口不存在: /nothing\"}" },
		{ { .uri = "/nothing?key=hidden" }, "404", "接口不存在: /nothing\"}" },
		{ { .uri = "/chat/" }, "404", "接口不存在: /chat/" },
		{ { .uri = "/chatx" }, "404", "接口不存在" },
		{ { .uri = "/cha" }, "404", "接口不存在" },
		{ { .uri = "//" }, "404", "接口不存在" },
		{ { .uri = "/CHAT" }, "404", "接口不存在" },
		{ { .uri = "/%63hat" }, "404", "接口不存在" }, /* paths are compared as they were sent */
		{ { .uri = "/session//info" }, "404", "接口不存在" },
		{ { .uri = "/session/abc" }, "404", "接口不存在" },
		{ { .uri = "/session/abc/" }, "404", "接口不存在" },
		{ { .uri = "/session/abc/info/" }, "404", "接口不存在" },
		{ { .uri = "/session/a/b/info" }, "404", "接口不存在" },
		{ { .uri = "/single/" }, "404", "接口不存在" },
		{ { .uri = "/single" }, "404", "接口不存在" },
		{ { .uri = "/\xFF\xFE" },
		  "404",
		  "{\"detail\":\"接口不存在\"}" }, /* not shown: no clean text */
		{ { .uri = "/a\"b" }, "404", "接口不存在: /a\\\"b\"}" },
		{ { .uri = "*" }, "404", "接口不存在" },
		{ { .uri = "" }, "404", "接口不存在" },
	};

	(void)state;
	assert_answers("", "", cases, COUNT(cases));
}

static void test_router_lists_the_methods_that_exist(void **state)
{
	static const struct expectation cases[] = {
		{ { .method = "GET", .uri = "/chat" }, "405 Method Not Allowed\r\n", "\r\nAllow: POST\r\n" },
		{ { .method = "HEAD", .uri = "/chat" }, "405", "\r\nAllow: POST\r\n" },
		{ { .method = "POST", .uri = "/" }, "405", "\r\nAllow: GET, HEAD\r\n" },
		{ { .method = "DELETE", .uri = "/session/x/info" }, "405", "\r\nAllow: GET, HEAD, PUT\r\n" },
		{ { .method = "DELETE", .uri = "/session/x/info" }, "405", "仅支持: GET, HEAD, PUT\"}" },
		{ { .method = "post", .uri = "/chat" }, "405", "Allow: POST" },
		{ { .method = "", .uri = "/chat" }, "405", "Allow: POST" },
	};

	(void)state;
	assert_answers("", "", cases, COUNT(cases));
}

static void test_router_without_keys_is_open_but_for_admins(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/user" }, "200", "user" },
		{ { .uri = "/user", .api_key = "whatever" }, "200", "user" },
		{ { .uri = "/admin" }, "403 Forbidden\r\n", "管理接口只允许本机访问" },
		{ { .uri = "/admin", .api_key = "" }, "403", "" },
		{ { .uri = "/admin", .address = "127.0.0.1" }, "200", "admin" },
		{ { .uri = "/admin", .address = "127.1.2.3" }, "200", "admin" },
		{ { .uri = "/admin", .address = "::1" }, "200", "admin" },
		{ { .uri = "/admin", .address = "::ffff:127.0.0.1" }, "200", "admin" },
		{ { .uri = "/admin", .address = "unix:" }, "200", "admin" },
		{ { .uri = "/admin", .address = "::11" }, "403", "" },
		{ { .uri = "/admin", .address = "128.0.0.1" }, "403", "" },
		{ { .uri = "/admin", .address = "10.127.0.1" }, "403", "" },
		{ { .uri = "/admin", .address = "" }, "403", "" },
	};

	(void)state;
	assert_answers("", "", cases, COUNT(cases));
}

static void test_router_asks_for_keys(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/" }, "200", "root" },
		{ { .uri = "/user" }, "401 Unauthorized\r\n", "\r\nWWW-Authenticate: Bearer\r\n" },
		{ { .uri = "/user" }, "401", "缺少 API 密钥" },
		{ { .uri = "/user", .api_key = "wrong" }, "401", "API 密钥无效" },
		{ { .uri = "/user", .api_key = "u1,u2" }, "401", "API 密钥无效" },
		{ { .uri = "/user", .api_key = "u1" }, "200", "user" },
		{ { .uri = "/user", .api_key = "u2" }, "200", "user" },
		{ { .uri = "/user", .authorization = "Bearer u1" }, "200", "user" },
		{ { .uri = "/user", .authorization = "bearer  u2" }, "200", "user" },
		{ { .uri = "/user", .authorization = "Basic u1" }, "401", "缺少 API 密钥" },
		{ { .uri = "/user", .authorization = "u1" }, "401", "缺少 API 密钥" },
		{ { .uri = "/user", .authorization = "Bearer " }, "401", "缺少 API 密钥" },
		{ { .uri = "/user", .authorization = "Basic x", .api_key = "u1" }, "200", "user" },
		{ { .uri = "/user", .authorization = "Bearer wrong", .api_key = "u1" }, "401", "密钥无效" },
		{ { .uri = "/user", .authorization = "Bearer u1", .api_key = "wrong" }, "200", "user" },
		{ { .uri = "/user", .authorization = "Bearer ", .api_key = "u1" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .authorization = "Bearer u1", .api_key = "a1" }, "403", "管理员" },
		{ { .uri = "/user", .api_key = "a1" }, "200", "user" }, /* an admin may do what users may */
		{ { .uri = "/user", .address = "127.0.0.1" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .api_key = "a1" }, "200", "admin" },
		{ { .uri = "/admin", .authorization = "Bearer a1" }, "200", "admin" },
		{ { .uri = "/admin", .api_key = "u1" }, "403", "需要管理员 API 密钥" },
		{ { .uri = "/admin", .api_key = "wrong" }, "401", "API 密钥无效" },
		{ { .uri = "/admin" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .address = "127.0.0.1" }, "401", "缺少 API 密钥" },
	};

	(void)state;
	assert_answers("u1, u2", "a1", cases, COUNT(cases));
}

static void test_router_believes_nginx_about_admins(void **state)
{
	static const struct expectation cases[] = {
		{ { .uri = "/admin", .trusted = "1" }, "200", "admin" },
		{ { .uri = "/admin", .trusted = "1", .api_key = "wrong" }, "200", "admin" },
		{ { .uri = "/user", .trusted = "1" }, "200", "user" },
		{ { .uri = "/admin", .trusted = "" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .trusted = "0" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .trusted = "11" }, "401", "缺少 API 密钥" },
		{ { .uri = "/admin", .trusted = "1 " }, "401", "缺少 API 密钥" },
	};
	static const struct expectation without_keys[] = {
		{ { .uri = "/admin", .trusted = "1" }, "200", "admin" },
		{ { .uri = "/admin", .trusted = "yes" }, "403", "管理接口只允许本机访问" },
	};

	(void)state;
	assert_answers("u1", "a1", cases, COUNT(cases));
	assert_answers("", "", without_keys, COUNT(without_keys));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_router_finds_the_handler),
		cmocka_unit_test(test_router_decodes_the_id),
		cmocka_unit_test(test_router_ids_have_up_to_128_bytes),
		cmocka_unit_test(test_router_says_what_is_not_found),
		cmocka_unit_test(test_router_lists_the_methods_that_exist),
		cmocka_unit_test(test_router_without_keys_is_open_but_for_admins),
		cmocka_unit_test(test_router_asks_for_keys),
		cmocka_unit_test(test_router_believes_nginx_about_admins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
