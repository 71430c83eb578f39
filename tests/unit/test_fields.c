/*
 * test_fields.c - a request body is read by its table or refused with a text that names what is wrong.
 */
#include "unit.h"

#include "failing_alloc.h"
#include "http/fields.h"

struct body {
	struct text message, user_id, session_id;
};

static const struct field table[] = {
	{ "message", FIELD_TEXT, true, offsetof(struct body, message), "", "", "" },
	{ "user_id", FIELD_ID, false, offsetof(struct body, user_id), "", "", "" },
	{ "session_id", FIELD_ID, false, offsetof(struct body, session_id), "", "", "" },
};

static const struct field required_id[] = {
	{ "user_id", FIELD_ID, true, offsetof(struct body, user_id), "", "", "" },
};

static enum err read_body(struct fields_doc **doc, struct body *body, const char *json, size_t len,
			  struct error *why)
{
	char *copy = exact_copy(json, len);
	enum err rc;

	*body = (struct body){ .message = { NULL, 0 } };
	*doc = NULL;
	rc = fields_parse(doc, body, table, COUNT(table), copy, len, why);
	free(copy); /* texts belong to the document */
	return rc;
}

/* The same body with an escape in a name, which only json-c reads; the caller's to free. */
static char *make_odd(const char *json, size_t *len)
{
	static const char member[] = "{\"\\u0078\":0,";
	const char *brace = memchr(json, '{', *len);
	size_t before = (size_t)(brace - json);
	char *odd = get_memory(*len + sizeof member);

	memcpy(odd, json, before);
	memcpy(odd + before, member, sizeof member - 1);
	memcpy(odd + before + sizeof member - 1, brace + 1, *len - before - 1);
	*len += sizeof member - 2;
	return odd;
}

static void assert_reads(const char *json, size_t len, const char *message, size_t message_len)
{
	struct fields_doc *doc;
	struct body body;
	struct error why = { .detail = "" };

	if (read_body(&doc, &body, json, len, &why) != ERR_OK)
		fail_msg("%.*s: %s", (int)len, json, why.detail);
	assert_non_null(doc);
	assert_bytes(body.message.bytes, body.message.len, message, message_len);
	fields_free(doc);
}

/* Plain and odd bodies are read in different ways, and mean the same. */
static void assert_takes(const char *json, size_t len, const char *message, size_t message_len)
{
	size_t odd_len = len;
	char *odd = make_odd(json, &odd_len);

	assert_reads(json, len, message, message_len);
	assert_reads(odd, odd_len, message, message_len);
	free(odd);
}

static void assert_refuses(const char *json, size_t len, const char *detail)
{
	struct fields_doc *doc;
	struct body body;
	struct error why;
	enum err rc = read_body(&doc, &body, json, len, &why);

	if (rc != ERR_BAD_REQUEST)
		fail_msg("took %.*s", (int)len, json);
	assert_int_equal(why.code, ERR_BAD_REQUEST);
	assert_null(doc);
	if (strstr(why.detail, detail) == NULL)
		fail_msg("%.*s: said \"%s\" and not \"%s\"", (int)len, json, why.detail, detail);
	assert_true(why.cause[0] != '\0');
}

#define REFUSES(json, detail)       \
	{                           \
		BYTES(json), detail \
	}

#define NO_JSON   "请求体不是有效的 JSON"
#define NO_OBJECT "请求体必须是 JSON 对象"
#define NO_UTF8   "请求体不是有效的 UTF-8"
#define EMPTY     "请求体为空"
#define NUL_NAME  "请求体的字段名不能包含 NUL"

struct refusal {
	const char *json;
	size_t len;
	const char *detail;
};

static void assert_all_refused(const struct refusal *cases, size_t count)
{
	for (size_t i = 0; i < count; i++)
		assert_refuses(cases[i].json, cases[i].len, cases[i].detail);
}

static void test_fields_reads_a_body(void **state)
{
	static const char json[] =
	    " {\"message\":\"你好\\n\\u0041\",\"user_id\":\"u1\",\"session_id\":null,\"x\":[1]} \r\n";
	struct fields_doc *doc;
	struct body body;
	struct error why;

	(void)state;
	assert_int_equal(read_body(&doc, &body, BYTES(json), &why), ERR_OK);
	assert_bytes(body.message.bytes, body.message.len, BYTES("你好\nA"));
	assert_bytes(body.user_id.bytes, body.user_id.len, BYTES("u1"));
	assert_null(body.session_id.bytes); /* null counts as absent */
	assert_int_equal(body.session_id.len, 0);
	fields_free(doc);
	fields_free(NULL);
}

static void test_fields_takes_unusual_but_good_bodies(void **state)
{
	static const struct {
		const char *json;
		size_t len;
		const char *message;
		size_t message_len;
	} cases[] = {
		{ BYTES("{\"message\":\"x\"}"), BYTES("x") },
		{ BYTES("\t\r\n {\n\"message\" : \"x\"\t}\n"), BYTES("x") },
		{ BYTES("{\"message\":\" x \"}"), BYTES(" x ") },
		{ BYTES("{\"m\\u0065ssage\":\"x\"}"), BYTES("x") },
		{ BYTES("{\"message\":\"a\",\"message\":\"b\"}"),
		  BYTES("b") }, /* the last one counts, as in Python */
		{ BYTES("{\"message\":\"a\\u0000b\"}"), BYTES("a\0b") },
		{ BYTES("{\"message\":\"\\ud83d\\ude00\"}"), BYTES("😀") },
		{ BYTES("{\"message\":\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"}"), BYTES("/\b\f\n\r\t\"\\") },
		{ BYTES("{\"message\":\"x\",\"user_id\":null,\"session_id\":null}"), BYTES("x") },
		{ BYTES("{\"message\":\"x\",\"Message\":1,\"USER_ID\":2}"), BYTES("x") },
		{ BYTES("{\"message\":\"x\",\"a\":{\"b\":[true,false,null,-1.5e3,\"]}\"]}}"), BYTES("x") },
		{ BYTES("{\"message\":\"\xE2\x80\x8B\"}"),
		  BYTES("\xE2\x80\x8B") }, /* U+200B is no white space */
		{ BYTES("{\"message\":\"\x7F\"}"), BYTES("\x7F") },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_takes(cases[i].json, cases[i].len, cases[i].message, cases[i].message_len);
}

static void test_fields_refuses_what_is_not_json(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("", EMPTY),
		REFUSES(" ", EMPTY),
		REFUSES("\r\n\t ", EMPTY),
		REFUSES("{", NO_JSON),
		REFUSES("}", NO_JSON),
		REFUSES("{\"message\"", NO_JSON),
		REFUSES("{\"message\":", NO_JSON),
		REFUSES("{\"message\":\"x", NO_JSON),
		REFUSES("{\"message\":\"x\"", NO_JSON),
		REFUSES("{\"message\":\"x\",", NO_JSON),
		REFUSES("{\"message\":\"x\",}", NO_JSON),
		REFUSES("{,\"message\":\"x\"}", NO_JSON),
		REFUSES("{\"message\":\"x\"}}", NO_JSON),
		REFUSES("{\"message\":\"x\"}x", NO_JSON),
		REFUSES("{\"message\":\"x\"}{}", NO_JSON),
		REFUSES("{\"message\":\"x\"} \n,", NO_JSON),
		REFUSES("{\"message\":\"x\"}\0", NO_JSON),
		REFUSES("\0{\"message\":\"x\"}", NO_JSON),
		REFUSES("{\"message\":\"x\"\0}", NO_JSON),
		REFUSES("{'message':'x'}", NO_JSON),
		REFUSES("{message:\"x\"}", NO_JSON),
		REFUSES("{\"message\" \"x\"}", NO_JSON),
		REFUSES("{\"message\"::\"x\"}", NO_JSON),
		REFUSES("{\"message\":\"x\" \"user_id\":\"y\"}", NO_JSON),
		REFUSES("{\"message\":\"\\x41\"}", NO_JSON),
		REFUSES("{\"message\":\"\\u12\"}", NO_JSON),
		REFUSES("{\"message\":\"\\u12G4\"}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":tru}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":True}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":NULL}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":undefined}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":+1}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":01}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":.5}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":1..2}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":-}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":1e}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":0x10}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":[1,]}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":[1 2]}", NO_JSON),
		REFUSES("{\"message\":\"x\",\"a\":]}", NO_JSON),
		REFUSES("/* hi */{\"message\":\"x\"}", NO_JSON),
		REFUSES("{\"message\":\"x\" // hi\n}", NO_JSON),
		REFUSES("message=x", NO_JSON),
		REFUSES("<message>x</message>", NO_JSON),
		REFUSES("\xEF\xBB\xBF{\"message\":\"x\"}", NO_JSON),
	};

	(void)state;
	assert_all_refused(cases, COUNT(cases));
}

/* RFC 8259 allows none of these, and Python's parser (strict) refuses them. */
static void test_fields_refuses_raw_control_characters(void **state)
{
	(void)state;
	for (unsigned c = 0; c < 0x20; c++) {
		char json[] = "{\"message\":\"a?b\"}";

		*strchr(json, '?') = (char)c;
		assert_refuses(json, sizeof json - 1, NO_JSON);
	}
}

static void test_fields_refuses_what_is_no_object(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("\"message\"", NO_OBJECT),
		REFUSES("[]", NO_OBJECT),
		REFUSES("[{\"message\":\"x\"}]", NO_OBJECT),
		REFUSES(" 1 ", NO_OBJECT),
		REFUSES("1.5\n", NO_OBJECT),
		REFUSES(" null ", NO_OBJECT),
	};

	(void)state;
	assert_all_refused(cases, COUNT(cases));
}

/* A bare word or number has no end of its own: json-c has to be told that nothing follows. */
static void test_fields_refuses_a_bare_word_as_no_object(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("null", NO_OBJECT), REFUSES("true", NO_OBJECT), REFUSES("false", NO_OBJECT),
		REFUSES("1", NO_OBJECT),    REFUSES("-2.5", NO_OBJECT), REFUSES("\n0", NO_OBJECT),
	};

	(void)state;
	assert_all_refused(cases, COUNT(cases));
}

static void test_fields_refuses_invalid_utf8(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("\xFF", NO_UTF8),
		REFUSES("{\"message\":\"\xFF\"}", NO_UTF8),
		REFUSES("{\"message\":\"\xC3\"}", NO_UTF8),
		REFUSES("{\"message\":\"\xE4\xBD\"}", NO_UTF8),
		REFUSES("{\"message\":\"\xC0\xAF\"}", NO_UTF8),
		REFUSES("{\"message\":\"\xED\xA0\x80\"}", NO_UTF8),
		REFUSES("{\"message\":\"\xF4\x90\x80\x80\"}", NO_UTF8),
		REFUSES("{\"message\":\"x\",\"\x80\":1}", NO_UTF8),
		REFUSES("\xFF\xFE{\0}\0", NO_UTF8),                     /* UTF-16 */
		REFUSES("{\"message\":\"\xC4\xE3\xBA\xC3\"}", NO_UTF8), /* GBK */
	};

	(void)state;
	assert_all_refused(cases, COUNT(cases));
}

static void test_fields_refuses_wrong_fields_by_name(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("{}", "缺少必填字段: message"),
		REFUSES("{\"message\":null}", "缺少必填字段: message"),
		REFUSES("{\"Message\":\"x\"}", "缺少必填字段: message"),
		REFUSES("{\"user_id\":\"u\"}", "缺少必填字段: message"),
		REFUSES("{\"message\":1}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":1.5}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":true}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":[\"x\"]}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":{}}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":\"x\",\"message\":1}", "字段 message 必须是字符串"),
		REFUSES("{\"message\":\"x\",\"user_id\":1}", "字段 user_id 必须是字符串"),
		REFUSES("{\"message\":\"x\",\"session_id\":[]}", "字段 session_id 必须是字符串"),
		REFUSES("{\"message\":\"x\",\"session_id\":false}", "字段 session_id 必须是字符串"),
		REFUSES("{\"message\":\"x\",\"user_id\":\"\"}", "字段 user_id 无效"),
		REFUSES("{\"message\":\"x\",\"user_id\":\"a\\nb\"}", "字段 user_id 无效"),
		REFUSES("{\"message\":\"x\",\"user_id\":\"a\\u0000\"}", "字段 user_id 无效"),
		REFUSES("{\"message\":\"x\",\"user_id\":\"\\u007f\"}", "字段 user_id 无效"),
		REFUSES("{\"message\":\"x\",\"session_id\":\"\\u0085\"}", "字段 session_id 无效"),
		REFUSES("{\"message\":\"\"}", "字段 message 不能为空"),
	};
	struct fields_doc *doc;
	struct body body;
	struct error why;

	(void)state;
	assert_all_refused(cases, COUNT(cases));
	for (size_t i = 1; i < COUNT(cases); i++) { /* the first one has no members */
		size_t len = cases[i].len;
		char *odd = make_odd(cases[i].json, &len);

		assert_refuses(odd, len, cases[i].detail);
		free(odd);
	}
	assert_int_equal(fields_parse(&doc, &body, required_id, 1, BYTES("{}"), &why), ERR_BAD_REQUEST);
	assert_string_equal(why.detail, "缺少必填字段: user_id");
}

/* Whoever reads the body before us sees other fields there than json-c does: so nobody is right. */
static void test_fields_refuses_names_with_a_nul(void **state)
{
	static const struct refusal cases[] = {
		REFUSES("{\"message\\u0000\":\"x\"}", NUL_NAME),
		REFUSES("{\"message\":\"x\",\"user_id\":\"me\",\"user_id\\u0000z\":\"you\"}", NUL_NAME),
		REFUSES("{\"message\":\"x\",\"other\":{\"\\u0000\":1}}", NUL_NAME),
	};

	(void)state;
	assert_all_refused(cases, COUNT(cases));
}

/* Unicode's White_Space, and the four separators that Python's str.isspace() adds. */
static void test_fields_refuses_blank_texts(void **state)
{
	static const uint32_t blanks[] = { 0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x1C,   0x1D,
					   0x1E,   0x1F,   0x20,   0x85,   0xA0,   0x1680, 0x2000,
					   0x2003, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000 };
	static const uint32_t visible[] = { 'x',    0x84,   0x86,   0xA1,   0x180E, 0x1FFF, 0x200B,
					    0x202A, 0x205E, 0x2060, 0x2FFF, 0x3001, 0xFEFF };
	char json[100];

	(void)state;
	for (size_t i = 0; i < COUNT(blanks); i++) {
		snprintf(json, sizeof json, "{\"message\":\"\\u%04x\"}", blanks[i]);
		assert_refuses(json, strlen(json), "字段 message 不能为空");
		snprintf(json, sizeof json, "{\"message\":\" \\u%04x\\u3000\\t\"}", blanks[i]);
		assert_refuses(json, strlen(json), "字段 message 不能为空");
	}
	for (size_t i = 0; i < COUNT(visible); i++) {
		char text[8];
		size_t len = put_character(text, visible[i]);

		snprintf(json, sizeof json, "{\"message\":\"\\u%04x\"}", visible[i]);
		assert_takes(json, strlen(json), text, len);
	}
}

static void test_fields_ids_have_up_to_128_bytes(void **state)
{
	(void)state;
	for (int len = 126; len <= 130; len++) {
		char json[300];

		snprintf(json, sizeof json, "{\"message\":\"x\",\"user_id\":\"%0*d\"}", len, 7);
		if (len <= 128)
			assert_takes(json, strlen(json), "x", 1);
		else
			assert_refuses(json, strlen(json), "字段 user_id 无效");
	}
}

static void test_fields_refuses_nesting_and_crowds(void **state)
{
	struct buf json;

	(void)state;
	buf_init(&json, 10 * 1024 * 1024);
	buf_append_str(&json, "{\"message\":\"x\",\"a\":");
	for (int i = 0; i < 100; i++)
		buf_append_char(&json, '[');
	assert_refuses(buf_bytes(&json), buf_size(&json), "请求体的 JSON 嵌套过深");
	buf_reset(&json, 0);
	buf_append_str(&json, "{\"message\":\"x\",\"a\":[");
	for (int i = 0; i < 20000; i++)
		buf_append_str(&json, "0,");
	buf_append_str(&json, "0]}");
	assert_refuses(buf_bytes(&json), buf_size(&json), "请求体的 JSON 过于复杂");
	/* The same characters inside a text are only text. */
	buf_reset(&json, 0);
	buf_append_str(&json, "{\"message\":\"\\\"");
	for (int i = 0; i < 20000; i++)
		buf_append_str(&json, "[,:{");
	buf_append_str(&json, "\"}");
	assert_takes(buf_bytes(&json), buf_size(&json), buf_bytes(&json) + 13, 80001);
	buf_free(&json);
}

static void test_fields_takes_a_message_of_megabytes(void **state)
{
	enum { HUGE = 4 * 1024 * 1024 };
	struct buf json;

	(void)state;
	buf_init(&json, 2 * HUGE);
	buf_append_str(&json, "{\"message\":\"");
	while (buf_size(&json) < HUGE)
		buf_append_str(&json, "你好吗？");
	buf_append_str(&json, "\"}");
	assert_takes(buf_bytes(&json), buf_size(&json), buf_bytes(&json) + 12, buf_size(&json) - 14);
	buf_free(&json);
}

static void test_fields_survives_every_truncation(void **state)
{
	static const char json[] =
	    "{\"message\":\"\\u4f60\\n好\",\"user_id\":\"u\",\"a\":[1.5e3,{\"b\":null}]}";

	(void)state;
	for (size_t len = 0; len < sizeof json - 1; len++)
		assert_refuses(json, len, "请求体");
}

static const char whole[] =
    "{\"x\":[1,{\"y\":\"z\"}],\"message\":\"\\u4f60 and a text that is longer than json-c's first buffer\","
    "\"user_id\":\"u1\",\"session_id\":\"s1\"}";

/* A body that was not read for want of memory is not the client's fault, and no part of it is lost in silence. */
static void assert_read_or_not(enum err rc, bool failed, struct fields_doc *doc, const struct body *body)
{
	if (rc != ERR_OK) {
		assert_true(failed);
		assert_int_equal(rc, ERR_NOMEM);
		assert_null(doc);
		return;
	}
	assert_bytes(body->message.bytes, body->message.len,
		     BYTES("你 and a text that is longer than json-c's first buffer"));
	assert_bytes(body->user_id.bytes, body->user_id.len, BYTES("u1"));
	assert_bytes(body->session_id.bytes, body->session_id.len, BYTES("s1"));
	fields_free(doc);
}

static void test_fields_survives_each_failed_allocation(void **state)
{
	bool failed = true;

	(void)state;
	for (long good = 0; failed; good++) {
		struct body body = { .message = { NULL, 0 } };
		struct fields_doc *doc;
		struct error why;
		enum err rc;

		alloc_fail_after(good);
		rc = fields_parse(&doc, &body, table, COUNT(table), BYTES(whole), &why);
		failed = alloc_failed();
		assert_int_equal(rc == ERR_OK, !failed);
		assert_read_or_not(rc, failed, doc, &body);
	}
}

/* json-c would lose the last member, with only some bytes left. */
static void test_fields_asks_json_c_only_when_there_is_memory(void **state)
{
	size_t len = sizeof whole - 1;
	char *odd = make_odd(whole, &len);
	bool failed = true;

	(void)state;
	for (size_t bytes = 0; failed; bytes++) {
		struct body body = { .message = { NULL, 0 } };
		struct fields_doc *doc;
		struct error why;
		enum err rc;

		alloc_leave(bytes);
		rc = fields_parse(&doc, &body, table, COUNT(table), odd, len, &why);
		failed = alloc_failed();
		assert_read_or_not(rc, failed, doc, &body);
	}
	free(odd);
}

static void test_fields_content_types(void **state)
{
	static const struct {
		const char *type;
		bool good;
	} cases[] = {
		{ "", true },
		{ "application/json", true },
		{ "Application/JSON", true },
		{ "application/json;charset=utf-8", true },
		{ "application/json; charset=UTF-8", true },
		{ "application/json ; charset=\"utf-8\"", true },
		{ "application/json; charset=utf8", true },
		{ "application/json; charset=us-ascii", true },
		{ "application/json;", true },
		{ "application/json; version=1", true },
		{ "application/json; version=1; charset=utf-8", true },
		{ "application/problem+json", true },
		{ "application/vnd.api+json; charset=utf-8", true },
		{ "application/json; charset=gbk", false },
		{ "application/json; charset=utf-16", false },
		{ "application/json; version=1; charset=latin1", false },
		{ "application/json; charset=", false },
		{ "application/json; charset=\"", false },
		{ "application/json; charset=utf-8x", false },
		{ "application/jsonx", false },
		{ "application/jso", false },
		{ "application/x-www-form-urlencoded", false },
		{ "multipart/form-data; boundary=application/json", false },
		{ "text/plain", false },
		{ "text/json", false },
		{ "application/+json", false },
		{ "image/svg+json", false },
		{ "application", false },
		{ ";", false },
		{ "json", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *type = exact_copy(cases[i].type, strlen(cases[i].type) + 1);

		if (fields_content_type_ok(type) != cases[i].good)
			fail_msg("\"%s\"", cases[i].type);
		free(type);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields_reads_a_body),
		cmocka_unit_test(test_fields_takes_unusual_but_good_bodies),
		cmocka_unit_test(test_fields_refuses_what_is_not_json),
		cmocka_unit_test(test_fields_refuses_raw_control_characters),
		cmocka_unit_test(test_fields_refuses_what_is_no_object),
		cmocka_unit_test(test_fields_refuses_a_bare_word_as_no_object),
		cmocka_unit_test(test_fields_refuses_invalid_utf8),
		cmocka_unit_test(test_fields_refuses_wrong_fields_by_name),
		cmocka_unit_test(test_fields_refuses_names_with_a_nul),
		cmocka_unit_test(test_fields_refuses_blank_texts),
		cmocka_unit_test(test_fields_ids_have_up_to_128_bytes),
		cmocka_unit_test(test_fields_refuses_nesting_and_crowds),
		cmocka_unit_test(test_fields_takes_a_message_of_megabytes),
		cmocka_unit_test(test_fields_survives_every_truncation),
		cmocka_unit_test(test_fields_survives_each_failed_allocation),
		cmocka_unit_test(test_fields_asks_json_c_only_when_there_is_memory),
		cmocka_unit_test(test_fields_content_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
