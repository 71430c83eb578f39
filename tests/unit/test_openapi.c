/*
 * test_openapi.c - the API document says what the tables say, and no more: whatever is taken out of a table is gone from it.
 */
#include "unit.h"

#include <json-c/json.h>

#include "failing_alloc.h"
#include "http/openapi.h"

#define DOCUMENT_MAX (256 * 1024)

struct body {
	struct text message, user_id, conversation_id;
};

static const struct field fields[] = {
	{ "message", FIELD_TEXT, true, offsetof(struct body, message), "消息", "message", "你好" },
	{ "user_id", FIELD_ID, false, offsetof(struct body, user_id), "用户", "user", "u1" },
	{ "conversation_id", FIELD_ID, false, offsetof(struct body, conversation_id), "对话", "conversation",
	  NULL },
};

static const struct field path_id = { "session_id", FIELD_ID, true, 0, "会话", "session", "s1" };
static const struct query_field query[] = { { "limit", 0, 10, 1, 50, "多少", "how many" } };

struct item {
	const char *name;
	uint64_t at;
};

struct answer {
	const char *status;
	uint64_t count;
	struct item item;
};

static const char *const words[] = { "up", "down", NULL };
static const char *const word[] = { "chunk", NULL };
static const struct member item_members[] = {
	{ "name", MEMBER_ID, offsetof(struct item, name), "名", "name", .example = "n1", .nullable = true },
	{ "at", MEMBER_TIME, offsetof(struct item, at), "时", "time",
	  .example = "2024-01-15T10:30:15.123456" },
};
static const struct shape item_shape = { "Item", item_members, COUNT(item_members) };
static const struct member answer_members[] = {
	{ "status", MEMBER_WORD, offsetof(struct answer, status), "状态", "state", .words = words },
	{ "count", MEMBER_COUNT, offsetof(struct answer, count), "数", "number", .example = "3" },
	{ "item", MEMBER_OBJECT, offsetof(struct answer, item), "项", "item", .shape = &item_shape },
};
static const struct shape answer_shape = { "Answer", answer_members, COUNT(answer_members) };
static const struct member chunk_members[] = { { "type", MEMBER_WORD, 0, "类型", "kind", .words = word } };
static const struct shape chunk_shape = { "Chunk", chunk_members, 1 };
static const struct shape end_shape = { "End", chunk_members, 1 };
static const struct shape *const events[] = { &chunk_shape, &end_shape, NULL };

static const struct about_tag tag = { "对话", "说", "talk" };

static const struct about ask_about = {
	.id = "ask",
	.tag = &tag,
	.summary = "问",
	.summary_en = "ask",
	.description = "说明",
	.description_en = "explained",
	.path_id = &path_id,
	.body = { "Ask", fields, COUNT(fields) },
	.answers = { { 200, "好", "good", .shape = &answer_shape, .names_session = true },
		     { 503, "不好", "bad", .shape = &answer_shape } },
	.errors = { { ERR_FORBIDDEN, "别人的会话" }, { ERR_STORE, NULL }, { ERR_BAD_REQUEST, "再来" } },
};

static const struct about list_about = {
	.id = "list",
	.tag = &tag,
	.summary = "列",
	.summary_en = "list",
	.query = { query, 1 },
	.answers = { { 200, "流", "stream", .type = "text/event-stream", .events = events } },
};

static const struct about text_about = {
	.id = "text",
	.tag = &tag,
	.summary = "文",
	.summary_en = "text",
	.answers = { { 200, "文", "text", .type = "text/plain" } },
};

static const struct route routes[] = {
	{ "POST", "/ask/{session_id}", ACCESS_USER, NULL, &ask_about },
	{ "GET", "/list", ACCESS_ADMIN, NULL, &list_about },
	{ "PUT", "/ask/{session_id}", ACCESS_OPEN, NULL, &text_about },
	{ "GET", "/hidden", ACCESS_OPEN, NULL, NULL },
};

static const struct openapi whole = {
	.title = "接口",
	.title_en = "API",
	.version = "1.2.3",
	.description = "描述",
	.description_en = "text",
	.routes = routes,
	.count = COUNT(routes),
	.body_max = 12345,
	.needs_key = true,
	.needs_admin_key = true,
};

/* The document, parsed; to be put back. */
static struct json_object *document(const struct openapi *api)
{
	struct json_object *doc;
	struct buf out;
	char *text;

	buf_init(&out, DOCUMENT_MAX);
	openapi_write(&out, api);
	assert_false(out.failed);
	text = buf_string(&out);
	buf_free(&out);
	doc = json_tokener_parse(text);
	if (doc == NULL)
		fail_msg("no JSON: %s", text);
	free(text);
	return doc;
}

/* What a path of names and numbers leads to, written; "" when there is nothing. Lent until the next call. */
static const char *at(struct json_object *doc, const char *const *path)
{
	for (; *path != NULL; path++) {
		if (json_object_is_type(doc, json_type_array))
			doc = json_object_array_get_idx(doc, (size_t)atoi(*path));
		else if (!json_object_object_get_ex(doc, *path, &doc))
			return "";
	}
	return json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

#define AT(doc, ...) at((doc), (const char *const[]){ __VA_ARGS__, NULL })
#define ASK          "paths", "/ask/{session_id}", "post"

static void test_openapi_describes_itself(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(AT(doc, "openapi"), "\"3.1.0\"");
	assert_string_equal(
	    AT(doc, "info"),
	    "{\"title\":\"接口 / API\",\"version\":\"1.2.3\",\"description\":\"描述\\n\\ntext\"}");
	assert_string_equal(AT(doc, "tags"), "[{\"name\":\"对话\",\"description\":\"说 / talk\"}]");
	json_object_put(doc);
}

static void test_openapi_has_a_route_by_method_and_path(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(AT(doc, ASK, "operationId"), "\"ask\"");
	assert_string_equal(AT(doc, ASK, "summary"), "\"问 / ask\"");
	assert_string_equal(AT(doc, ASK, "description"), "\"说明\\n\\nexplained\"");
	assert_string_equal(AT(doc, ASK, "tags"), "[\"对话\"]");
	assert_string_equal(AT(doc, "paths", "/ask/{session_id}", "put", "operationId"), "\"text\"");
	assert_string_equal(AT(doc, "paths", "/list", "get", "operationId"), "\"list\"");
	assert_string_equal(AT(doc, "paths", "/hidden"), "");
	json_object_put(doc);
}

static void test_openapi_describes_the_request(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(AT(doc, ASK, "parameters", "0", "name"), "\"session_id\"");
	assert_string_equal(AT(doc, ASK, "parameters", "0", "schema", "maxLength"), "128");
	assert_string_equal(AT(doc, ASK, "parameters", "0", "example"), "\"s1\"");
	assert_string_equal(AT(doc, "paths", "/list", "get", "parameters", "0", "schema"),
			    "{\"type\":\"integer\",\"minimum\":1,\"maximum\":50,\"default\":10}");
	assert_contains(AT(doc, ASK, "requestBody", "description"), "12345");
	assert_string_equal(AT(doc, ASK, "requestBody", "content", "application/json", "schema"),
			    "{\"$ref\":\"#/components/schemas/Ask\"}");
	assert_string_equal(
	    AT(doc, ASK, "requestBody", "content", "application/json", "examples", "minimal", "value"),
	    "{\"message\":\"你好\"}");
	assert_string_equal(
	    AT(doc, ASK, "requestBody", "content", "application/json", "examples", "full", "value"),
	    "{\"message\":\"你好\",\"user_id\":\"u1\"}");
	assert_string_equal(AT(doc, "components", "schemas", "Ask", "required"), "[\"message\"]");
	assert_string_equal(AT(doc, "components", "schemas", "Ask", "properties", "message", "type"),
			    "\"string\"");
	assert_string_equal(AT(doc, "components", "schemas", "Ask", "properties", "user_id", "type"),
			    "[\"string\",\"null\"]");
	json_object_put(doc);
}

static void test_openapi_describes_the_answer(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(
	    AT(doc, ASK, "responses", "200", "content", "application/json"),
	    "{\"schema\":{\"$ref\":\"#/components/schemas/Answer\"},\"examples\":{\"answer\":{\"value\":"
	    "{\"status\":\"up\",\"count\":3,\"item\":{\"name\":\"n1\","
	    "\"at\":\"2024-01-15T10:30:15.123456\"}}}}}");
	assert_contains(AT(doc, ASK, "responses", "200", "headers"), "X-Session-ID");
	assert_string_equal(AT(doc, "components", "schemas", "Answer", "required"),
			    "[\"status\",\"count\",\"item\"]");
	assert_string_equal(AT(doc, "components", "schemas", "Answer", "properties", "status", "enum"),
			    "[\"up\",\"down\"]");
	assert_string_equal(AT(doc, "components", "schemas", "Chunk", "properties", "type", "const"),
			    "\"chunk\"");
	assert_string_equal(AT(doc, "components", "schemas", "Answer", "properties", "item", "$ref"),
			    "\"#/components/schemas/Item\"");
	assert_string_equal(AT(doc, "components", "schemas", "Item", "properties", "name", "type"),
			    "[\"string\",\"null\"]");
	assert_string_equal(
	    AT(doc, "paths", "/ask/{session_id}", "put", "responses", "200", "content", "text/plain"),
	    "{\"schema\":{\"type\":\"string\"}}");
	json_object_put(doc);
}

static void test_openapi_describes_a_stream(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(
	    AT(doc, "paths", "/list", "get", "responses", "200", "content", "text/event-stream"),
	    "{\"schema\":{\"type\":\"string\",\"contentMediaType\":\"text/"
	    "event-stream\",\"contentSchema\":{\"type\":"
	    "\"array\",\"items\":{\"oneOf\":[{\"$ref\":\"#/components/schemas/Chunk\"},"
	    "{\"$ref\":\"#/components/schemas/End\"}]}}},\"examples\":{\"End\":{\"value\":"
	    "\"data: {\\\"type\\\": \\\"chunk\\\"}\\n\\ndata: {\\\"type\\\": \\\"chunk\\\"}\\n\\n\"}}}");
	json_object_put(doc);
}

/* Its own, those of its access level, of its body and path, and nginx'. */
static void test_openapi_lists_every_error_of_a_route(void **state)
{
	struct json_object *doc = document(&whole);

	(void)state;
	assert_string_equal(AT(doc, ASK, "responses", "400", "content", "application/json", "examples"),
			    "{\"bad_request\":{\"value\":{\"detail\":\"缺少必填字段: "
			    "message\"}},\"bad_request_2\":{\"value\":{\"detail\":"
			    "\"请求参数错误\"}},\"bad_request_3\":{\"value\":{\"detail\":\"再来\"}}}");
	assert_string_equal(
	    AT(doc, ASK, "responses", "403", "content", "application/json", "examples", "forbidden"),
	    "{\"value\":{\"detail\":\"别人的会话\"}}");
	assert_contains(AT(doc, ASK, "responses", "401", "headers"), "WWW-Authenticate");
	assert_string_equal(AT(doc, ASK, "responses", "503", "content", "application/json", "schema"),
			    "{\"anyOf\":[{\"$ref\":\"#/components/schemas/Answer\"},"
			    "{\"$ref\":\"#/components/schemas/Error\"}]}");
	assert_contains(AT(doc, ASK, "responses", "503", "headers"), "Retry-After");
	for (size_t i = 0; i < 4; i++) {
		static const char *const statuses[] = { "413", "415", "429", "default" };

		assert_string_not_equal(AT(doc, ASK, "responses", statuses[i]), "");
	}
	assert_string_equal(AT(doc, ASK, "responses", "404"), "");
	assert_contains(AT(doc, "paths", "/list", "get", "responses", "400"),
			"参数 limit 无效: 必须是 1-50 之间的整数");
	assert_string_not_equal(AT(doc, "paths", "/list", "get", "responses", "403"), "");
	assert_string_equal(AT(doc, "paths", "/list", "get", "responses", "413"), "");
	assert_string_equal(AT(doc, "paths", "/ask/{session_id}", "put", "responses", "401"), "");
	json_object_put(doc);
}

static void test_openapi_asks_for_keys_where_there_are_some(void **state)
{
	static const struct {
		bool key, admin_key;
		const char *user, *admin;
	} cases[] = {
		{ true, true, "[{\"bearer\":[]},{\"apiKey\":[]}]", "[{\"bearer\":[]},{\"apiKey\":[]}]" },
		{ false, true, "[{},{\"bearer\":[]},{\"apiKey\":[]}]", "[{\"bearer\":[]},{\"apiKey\":[]}]" },
		{ true, false, "[{\"bearer\":[]},{\"apiKey\":[]}]", "[]" },
		{ false, false, "[{},{\"bearer\":[]},{\"apiKey\":[]}]", "[]" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct openapi api = whole;
		struct json_object *doc;

		api.needs_key = cases[i].key;
		api.needs_admin_key = cases[i].admin_key;
		doc = document(&api);
		assert_string_equal(AT(doc, ASK, "security"), cases[i].user);
		assert_string_equal(AT(doc, "paths", "/list", "get", "security"), cases[i].admin);
		assert_string_equal(AT(doc, "paths", "/ask/{session_id}", "put", "security"), "[]");
		json_object_put(doc);
	}
}

static void test_openapi_loses_a_route_with_all_that_was_its_own(void **state)
{
	struct openapi api = whole;
	struct json_object *doc;

	(void)state;
	api.routes = routes + 1;
	api.count = COUNT(routes) - 1;
	doc = document(&api);
	assert_string_equal(AT(doc, ASK), "");
	assert_string_not_equal(AT(doc, "paths", "/ask/{session_id}", "put"), "");
	assert_string_equal(AT(doc, "components", "schemas", "Ask"), "");
	assert_string_equal(AT(doc, "components", "schemas", "Answer"), "");
	assert_string_equal(AT(doc, "components", "schemas", "Item"), "");
	assert_string_not_equal(AT(doc, "components", "schemas", "Chunk"), "");
	json_object_put(doc);
}

static void test_openapi_loses_a_field_and_a_member(void **state)
{
	struct shape smaller_shape = answer_shape;
	struct about about = ask_about;
	const struct route route = { "POST", "/ask/{session_id}", ACCESS_USER, NULL, &about };
	struct openapi api = whole;
	struct json_object *doc;

	(void)state;
	smaller_shape.count = 2;
	about.body.count = 1;
	about.answers[0].shape = about.answers[1].shape = &smaller_shape;
	api.routes = &route;
	api.count = 1;
	doc = document(&api);
	assert_string_equal(AT(doc, "components", "schemas", "Ask", "properties", "user_id"), "");
	assert_string_equal(AT(doc, ASK, "requestBody", "content", "application/json", "examples", "full"),
			    "");
	assert_string_equal(AT(doc, "components", "schemas", "Answer", "required"), "[\"status\",\"count\"]");
	assert_string_equal(AT(doc, "components", "schemas", "Item"), "");
	assert_string_equal(
	    AT(doc, ASK, "responses", "200", "content", "application/json", "examples", "answer", "value"),
	    "{\"status\":\"up\",\"count\":3}");
	json_object_put(doc);
}

/* A document that lacks something must not be taken for a whole one. */
static void test_openapi_survives_each_failed_allocation(void **state)
{
	struct buf good, out;

	(void)state;
	buf_init(&good, DOCUMENT_MAX);
	openapi_write(&good, &whole);
	assert_false(good.failed);
	for (long i = 0;; i++) {
		bool failed;

		buf_init(&out, DOCUMENT_MAX);
		alloc_fail_after(i);
		openapi_write(&out, &whole);
		failed = alloc_failed();
		if (!out.failed)
			assert_buf(&out, buf_bytes(&good), buf_size(&good));
		buf_free(&out);
		if (!failed)
			break;
	}
	buf_free(&good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openapi_describes_itself),
		cmocka_unit_test(test_openapi_has_a_route_by_method_and_path),
		cmocka_unit_test(test_openapi_describes_the_request),
		cmocka_unit_test(test_openapi_describes_the_answer),
		cmocka_unit_test(test_openapi_describes_a_stream),
		cmocka_unit_test(test_openapi_lists_every_error_of_a_route),
		cmocka_unit_test(test_openapi_asks_for_keys_where_there_are_some),
		cmocka_unit_test(test_openapi_loses_a_route_with_all_that_was_its_own),
		cmocka_unit_test(test_openapi_loses_a_field_and_a_member),
		cmocka_unit_test(test_openapi_survives_each_failed_allocation),
	};

	return cmocka_run_group_tests_name("openapi", tests, NULL, NULL);
}
