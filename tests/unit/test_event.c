/*
 * test_event.c - Coze's JSON decodes to what it says; whatever is absent, odd or hostile decodes as empty,
 * never worse.
 */
#include "unit.h"

#include <json-c/json.h>

#include "base/utf8.h"
#include "coze/event.h"

static struct json_tokener *tokener;
static char *lent; /* the input that was decoded last: texts point into it */

static int open_tokener(void **state)
{
	(void)state;
	tokener = json_tokener_new();
	return tokener == NULL;
}

static int close_tokener(void **state)
{
	(void)state;
	json_tokener_free(tokener);
	free(lent);
	return 0;
}

static bool decode(struct event *event, const char *name, const char *data, size_t len)
{
	free(lent);
	lent = exact_copy(data, len);
	return event_decode(event, tokener, name, lent, len);
}

static bool open_envelope(struct envelope *envelope, const char *body, size_t len)
{
	char *copy = exact_copy(body, len);
	bool good = envelope_decode(envelope, tokener, copy, len);

	free(copy);
	return good;
}

static void assert_text(const struct event_text *text, const char *expected)
{
	assert_non_null(text->bytes);
	assert_bytes(text->bytes, text->len, expected, strlen(expected));
}

static void test_event_name_decides_kind_and_status(void **state)
{
	static const struct {
		const char *name;
		enum event_kind kind;
		enum chat_status status;
	} cases[] = {
		{ "conversation.chat.created", EVENT_CHAT, CHAT_CREATED },
		{ "conversation.chat.in_progress", EVENT_CHAT, CHAT_IN_PROGRESS },
		{ "conversation.chat.completed", EVENT_CHAT, CHAT_COMPLETED },
		{ "conversation.chat.failed", EVENT_CHAT, CHAT_FAILED },
		{ "conversation.chat.expired", EVENT_CHAT, CHAT_FAILED },
		{ "conversation.chat.requires_action", EVENT_CHAT, CHAT_REQUIRES_ACTION },
		{ "conversation.chat.required_action", EVENT_CHAT, CHAT_REQUIRES_ACTION },
		{ "conversation.chat.canceled", EVENT_CHAT, CHAT_CANCELED },
		{ "conversation.chat.cancelled", EVENT_CHAT, CHAT_CANCELED },
		{ "conversation.message.delta", EVENT_DELTA, CHAT_UNKNOWN },
		{ "conversation.message.completed", EVENT_MESSAGE, CHAT_UNKNOWN },
		{ "error", EVENT_ERROR, CHAT_UNKNOWN },
		{ "done", EVENT_DONE, CHAT_UNKNOWN },
		{ "conversation.stream.done", EVENT_DONE, CHAT_UNKNOWN },
		{ "conversation.audio.delta", EVENT_OTHER, CHAT_UNKNOWN },
		{ "conversation.chat.something_new", EVENT_OTHER, CHAT_UNKNOWN },
		{ "", EVENT_OTHER, CHAT_UNKNOWN },
		{ "DONE", EVENT_OTHER, CHAT_UNKNOWN },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct event event;

		/* The data names another status: the event's name wins. */
		assert_true(decode(&event, cases[i].name, BYTES("{\"status\":\"in_progress\"}")));
		assert_int_equal(event.kind, cases[i].kind);
		if (event.kind == EVENT_CHAT)
			assert_int_equal(event.chat.status, cases[i].status);
		event_free(&event);
		event_free(&event);
	}
}

static void test_event_decodes_a_message(void **state)
{
	static const char data[] =
	    "{\"id\":\"7500000000000000201\",\"conversation_id\":\"1\",\"bot_id\":\"9\",\"role\":"
	    "\"assistant\","
	    "\"type\":\"answer\",\"content\":\"你\\u0026\\n\\\"😀\\ud83d\\ude00\",\"content_type\":\"text\","
	    "\"chat_id\":\"101\",\"created_at\":1764700000,\"new_field\":{\"a\":[1,2,null]}}";
	struct event event;

	(void)state;
	assert_true(decode(&event, "conversation.message.delta", BYTES(data)));
	assert_text(&event.message.id, "7500000000000000201");
	assert_text(&event.message.conversation_id, "1");
	assert_text(&event.message.chat_id, "101");
	assert_text(&event.message.type, "answer");
	assert_text(&event.message.content_type, "text");
	assert_text(&event.message.content, "你&\n\"😀😀");
	assert_int_equal(event.message.created_at, 1764700000);
	assert_true(event_is_answer(&event.message));
	event_free(&event);
}

static void test_event_decodes_a_failed_chat(void **state)
{
	static const struct {
		const char *data;
		int64_t code;
		const char *msg;
	} cases[] = {
		{ "{\"id\":\"1\",\"status\":\"failed\",\"last_error\":{\"code\":4028,\"msg\":\"no quota\"}}",
		  4028, "no quota" },
		{ "{\"last_error\":{\"code\":\"720702204\",\"msg\":\"name\"}}", 720702204, "name" },
		{ "{\"code\":5000,\"msg\":\"event interval error\"}", 5000,
		  "event interval error" }, /* bare */
		{ "{\"code\":\"5000\",\"msg\":\"x\"}", 5000, "x" },
		{ "{\"last_error\":null,\"code\":4013,\"msg\":\"y\"}", 4013, "y" },
		{ "{\"last_error\":{\"code\":0,\"msg\":\"\"}}", 0, "" },
		{ "{\"last_error\":\"odd\",\"code\":1}", 1, "" },
		{ "{\"last_error\":{\"code\":\"not a number\"}}", -1, "" },
		{ "{\"last_error\":{\"code\":\"12x\"}}", -1, "" },
		{ "{\"last_error\":{\"code\":\"\"}}", -1, "" },
		{ "{\"last_error\":{\"code\":\"99999999999999999999999\"}}", -1, "" },
		{ "{\"last_error\":{\"code\":710005002}}", 710005002, "" },
		{ "{\"last_error\":{\"code\":null,\"msg\":null}}", 0, "" },
		{ "{\"last_error\":{\"code\":true,\"msg\":[]}}", 0, "" },
		{ "{\"last_error\":{\"code\":{},\"msg\":{}}}", 0, "" },
		{ "{}", 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		static const char *const names[] = { "conversation.chat.failed", "error" };

		for (size_t n = 0; n < COUNT(names); n++) {
			struct event event;

			assert_true(decode(&event, names[n], cases[i].data, strlen(cases[i].data)));
			if (event.chat.error_code != cases[i].code)
				fail_msg("%s: %d", cases[i].data, (int)event.chat.error_code);
			assert_text(&event.chat.error_msg, cases[i].msg);
			event_free(&event);
		}
	}
}

/* Each field in turn as each type that it is not. */
static void test_event_takes_any_type_anywhere(void **state)
{
	static const char *const fields[] = {
		"id",     "conversation_id", "chat_id", "type", "content_type", "content", "created_at",
		"status", "last_error",      "code",    "msg",  "detail",       "data",    "usage"
	};
	static const char *const values[] = {
		"null", "true",  "0",  "-1",      "1.5", "1e300",         "7500000000000000101",
		"\"\"", "\"x\"", "[]", "[1,[2]]", "{}",  "{\"code\":[]}", "[null,\"a\",{}]"
	};
	static const char *const names[] = { "conversation.message.delta", "conversation.message.completed",
					     "conversation.chat.failed", "error" };

	(void)state;
	for (size_t f = 0; f < COUNT(fields); f++) {
		for (size_t v = 0; v < COUNT(values); v++) {
			bool is_string = values[v][0] == '"';
			char data[200];
			struct event event;
			struct envelope envelope;
			struct event_message message;

			snprintf(data, sizeof data, "{\"%s\":%s}", fields[f], values[v]);
			for (size_t n = 0; n < COUNT(names); n++) {
				assert_true(decode(&event, names[n], data, strlen(data)));
				if (event.kind == EVENT_DELTA || event.kind == EVENT_MESSAGE) {
					assert_non_null(event.message.content.bytes);
					if (!is_string)
						assert_int_equal(event.message.content.len, 0);
				} else {
					assert_non_null(event.chat.id.bytes);
					if (!is_string)
						assert_int_equal(event.chat.id.len, 0);
				}
				event_free(&event);
			}
			assert_true(open_envelope(&envelope, data, strlen(data)));
			for (size_t i = 0; envelope_message(&envelope, i, &message); i++)
				assert_int_equal(message.id.len, 0);
			envelope_free(&envelope);
		}
	}
}

static void test_event_refuses_what_is_no_object(void **state)
{
	static const char *const cases[] = { "",
					     " ",
					     "null",
					     "true",
					     "1",
					     "\"text\"",
					     "[]",
					     "[{}]",
					     "{",
					     "{\"id\"",
					     "{\"id\":",
					     "{\"id\":\"x\"",
					     "{\"id\":\"x",
					     "}",
					     "[DONE]",
					     "<html>",
					     "nul",
					     "{\"content\":\"\\u12\"}",
					     "{\"content\":\"\\x\"}" };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct event event;
		struct envelope envelope;

		if (decode(&event, "conversation.message.delta", cases[i], strlen(cases[i])))
			fail_msg("took %s", cases[i]);
		event_free(&event);
		assert_false(open_envelope(&envelope, cases[i], strlen(cases[i])));
		envelope_free(&envelope);
		/* These need no object: their name says it all. */
		assert_true(decode(&event, "done", cases[i], strlen(cases[i])));
		assert_int_equal(event.kind, EVENT_DONE);
		event_free(&event);
		assert_true(decode(&event, "unknown", cases[i], strlen(cases[i])));
		event_free(&event);
	}
}

static void test_event_goes_on_after_a_broken_one(void **state)
{
	struct event event;

	(void)state;
	assert_false(decode(&event, "error", BYTES("{\"code\":[[{\"a")));
	event_free(&event);
	assert_true(decode(&event, "error", BYTES("{\"code\":1}")));
	assert_int_equal(event.chat.error_code, 1);
	event_free(&event);
}

static void test_event_never_passes_invalid_utf8_on(void **state)
{
	static const char *const cases[] = { "\xFF",           "a\x80z",           "\xC0\xAF",
					     "\xED\xA0\x80",   "\xF4\x90\x80\x80", "\xE4\xBD",
					     "\\ud83d",        "\\ude00",          "\\ud83dx",
					     "\\ud83d\\u0041", "\\ude00\\ud83d" };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char data[100];
		struct event event;

		snprintf(data, sizeof data, "{\"content\":\"%s\",\"id\":\"%s\"}", cases[i], cases[i]);
		if (decode(&event, "conversation.message.delta", data, strlen(data))) {
			assert_true(utf8_valid(event.message.content.bytes, event.message.content.len));
			assert_true(utf8_valid(event.message.id.bytes, event.message.id.len));
		}
		event_free(&event);
	}
}

static void test_event_survives_every_truncation(void **state)
{
	static const char data[] =
	    "{\"id\":\"101\",\"last_error\":{\"code\":-40.5e1,\"msg\":\"\\u4f60\\n\"},\"a\":[true,"
	    "null]}";

	(void)state;
	for (size_t len = 0; len < sizeof data - 1; len++) {
		struct event event;

		assert_false(decode(&event, "conversation.chat.failed", data, len));
		event_free(&event);
	}
}

static void test_event_takes_huge_texts_and_refuses_deep_nesting(void **state)
{
	enum { HUGE = 3 * 1024 * 1024, DEEP = 100000 };
	char *data = get_memory(HUGE + 100);
	struct event event;

	(void)state;
	strcpy(data, "{\"content\":\"");
	memset(data + 12, 'x', HUGE);
	strcpy(data + 12 + HUGE, "\"}");
	assert_true(decode(&event, "conversation.message.delta", data, HUGE + 14));
	assert_int_equal(event.message.content.len, HUGE);
	event_free(&event);
	memset(data, '[', DEEP);
	memcpy(data, "{\"a\":", 5);
	assert_false(decode(&event, "conversation.message.delta", data, DEEP));
	event_free(&event);
	free(data);
}

static void test_event_is_an_answer_only_as_plain_text(void **state)
{
	static const struct {
		const char *type, *content_type;
		bool answer;
	} cases[] = {
		{ "answer", "text", true },
		{ "answer", "", true },
		{ "answer", "object_string", false },
		{ "answer", "card", false },
		{ "answer", "audio", false },
		{ "", "text", false },
		{ "", "", false },
		{ "verbose", "text", false },
		{ "follow_up", "text", false },
		{ "function_call", "text", false },
		{ "tool_response", "text", false },
		{ "tool_output", "text", false },
		{ "knowledge", "text", false },
		{ "question", "text", false },
		{ "Answer", "text", false },
		{ "answers", "text", false },
		{ "answe", "text", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct event_message message = {
			.type = { cases[i].type, strlen(cases[i].type) },
			.content_type = { cases[i].content_type, strlen(cases[i].content_type) },
		};

		assert_int_equal(event_is_answer(&message), cases[i].answer);
	}
}

static void test_envelope_decodes_a_chat(void **state)
{
	static const struct {
		const char *word;
		enum chat_status status;
	} words[] = {
		{ "created", CHAT_CREATED },
		{ "in_progress", CHAT_IN_PROGRESS },
		{ "completed", CHAT_COMPLETED },
		{ "failed", CHAT_FAILED },
		{ "requires_action", CHAT_REQUIRES_ACTION },
		{ "required_action", CHAT_REQUIRES_ACTION },
		{ "canceled", CHAT_CANCELED },
		{ "cancelled", CHAT_CANCELED },
		{ "expired", CHAT_FAILED },
		{ "brand_new", CHAT_UNKNOWN },
		{ "", CHAT_UNKNOWN },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(words); i++) {
		struct envelope envelope;
		char body[300];

		snprintf(body, sizeof body,
			 "{\"code\":0,\"msg\":\"\",\"data\":{\"id\":\"101\",\"conversation_id\":\"1\","
			 "\"status\":\"%s\","
			 "\"last_error\":{\"code\":7,\"msg\":\"m\"}},\"detail\":{\"logid\":\"2025AB\"}}",
			 words[i].word);
		assert_true(open_envelope(&envelope, body, strlen(body)));
		assert_true(envelope.is_envelope);
		assert_int_equal(envelope.code, 0);
		assert_text(&envelope.msg, "");
		assert_text(&envelope.logid, "2025AB");
		assert_text(&envelope.chat.id, "101");
		assert_text(&envelope.chat.conversation_id, "1");
		assert_int_equal(envelope.chat.status, words[i].status);
		assert_int_equal(envelope.chat.error_code, 7);
		assert_text(&envelope.chat.error_msg, "m");
		assert_null(envelope.list);
		envelope_free(&envelope);
	}
}

static void test_envelope_decodes_an_error(void **state)
{
	static const struct {
		const char *body;
		bool is_envelope;
		int64_t code;
		const char *msg;
	} cases[] = {
		{ "{\"code\":4100,\"msg\":\"bad token\"}", true, 4100, "bad token" },
		{ "{\"msg\":\"m\",\"code\":\"4016\"}", true, 4016, "m" },
		{ "{\"code\":0,\"msg\":\"\"}", true, 0, "" }, /* message/list of a failed chat has no data */
		{ "{\"code\":0,\"data\":null}", true, 0, "" },
		{ "{\"data\":{}}", true, 0, "" },
		{ "{\"error\":\"nginx\"}", false, 0, "" },
		{ "{}", false, 0, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct envelope envelope;

		assert_true(open_envelope(&envelope, cases[i].body, strlen(cases[i].body)));
		assert_int_equal(envelope.is_envelope, cases[i].is_envelope);
		assert_int_equal(envelope.code, cases[i].code);
		assert_text(&envelope.msg, cases[i].msg);
		assert_int_equal(envelope.chat.status, CHAT_UNKNOWN);
		envelope_free(&envelope);
		envelope_free(&envelope);
	}
}

static void test_envelope_lists_messages(void **state)
{
	static const char body[] =
	    "{\"code\":0,\"data\":[{\"id\":\"1\",\"type\":\"verbose\",\"content\":\"{}\"},null,"
	    "\"odd\",[],42,{\"id\":\"2\",\"type\":\"answer\",\"content\":\"hi\"}]}";
	struct envelope envelope;
	struct event_message message;

	(void)state;
	assert_true(open_envelope(&envelope, BYTES(body)));
	assert_true(envelope_message(&envelope, 0, &message));
	assert_text(&message.type, "verbose");
	for (size_t i = 1; i < 5; i++) {
		assert_true(envelope_message(&envelope, i, &message));
		assert_text(&message.type, "");
	}
	assert_true(envelope_message(&envelope, 5, &message));
	assert_text(&message.content, "hi");
	assert_false(envelope_message(&envelope, 6, &message));
	assert_false(envelope_message(&envelope, SIZE_MAX, &message));
	envelope_free(&envelope);
	assert_true(open_envelope(&envelope, BYTES("{\"code\":0}")));
	assert_false(envelope_message(&envelope, 0, &message));
	envelope_free(&envelope);
}

/* ---- without json-c, and with ---- */

static void assert_same(const struct event_text *left, const struct event_text *right)
{
	assert_bytes(left->bytes, left->len, right->bytes, right->len);
}

/* Decodes both ways, and compares all that there is. True when json-c was not needed. */
static bool decode_both(const char *name, const char *data, size_t len)
{
	struct event read, built;
	bool good = decode(&read, name, data, len), plain = good && read.doc == NULL;

	assert_int_equal(event_decode_built(&built, tokener, name, lent, len), good);
	if (good && read.kind == EVENT_CHAT) {
		assert_same(&read.chat.id, &built.chat.id);
		assert_same(&read.chat.conversation_id, &built.chat.conversation_id);
		assert_same(&read.chat.error_msg, &built.chat.error_msg);
		assert_int_equal(read.chat.error_code, built.chat.error_code);
		assert_int_equal(read.chat.status, built.chat.status);
	} else if (good) {
		assert_same(&read.message.id, &built.message.id);
		assert_same(&read.message.chat_id, &built.message.chat_id);
		assert_same(&read.message.conversation_id, &built.message.conversation_id);
		assert_same(&read.message.type, &built.message.type);
		assert_same(&read.message.content_type, &built.message.content_type);
		assert_same(&read.message.content, &built.message.content);
		assert_int_equal(read.message.created_at, built.message.created_at);
		assert_true(utf8_valid(read.message.content.bytes, read.message.content.len));
	}
	event_free(&read);
	event_free(&built);
	return plain;
}

#define DELTA "conversation.message.delta"
#define DONE  "conversation.chat.completed"

static void test_event_needs_no_json_c_for_what_coze_sends(void **state)
{
	static const struct {
		const char *name, *data;
		bool plain;
	} cases[] = {
		{ DELTA, "{\"id\":\"1\",\"conversation_id\":\"2\",\"type\":\"answer\",\"content\":\"你\"}",
		  true },
		{ DELTA, " {\t\"id\" : \"1\" ,\r\n\"created_at\": -12 } ", true },
		{ DELTA,
		  "{\"content\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u00e9\\u4F60\\ud83d\\uDE00\\uffff\"}",
		  true },
		{ DELTA, "{\"id\":\"\\n\",\"content\":\"\\t\",\"type\":\"a\\/b\"}", true },
		{ DELTA, "{\"id\":\"1\",\"id\":2}", true },
		{ DELTA, "{\"id\":\"\\n\\n\",\"id\":\"\\t\\t\",\"id\":\"\\r\\r\"}", true },
		{ DELTA, "{}", true },
		{ DELTA, "{\"content\":null,\"type\":true,\"id\":[1,{\"a\":[]}],\"chat_id\":{\"b\":1e5}}",
		  true },
		{ DELTA, "{\"created_at\":999999999999999999}", true },
		{ DELTA, "{\"created_at\":9999999999999999999}", false },
		{ DELTA, "{\"created_at\":\"12\"}", false },
		{ DELTA, "{\"created_at\":1.5}", false },
		{ DELTA, "{\"created_at\":1E2}", false },
		{ DELTA, "{\"content\":\"\\ud83d\"}", false },
		{ DELTA, "{\"content\":\"\\ude00\\ud83d\"}", false },
		{ DELTA, "{\"content\":\"\\u0000\"}", false },
		{ DELTA, "{\"content\":\"\xff\"}", false },
		{ DELTA, "{\"content\":\"a\nb\"}", false }, /* a control character as it is */
		{ DELTA, "{'content':'x'}", false },
		{ DELTA, "{\"content\":\"x\",}", false },
		{ DELTA, "{\"content\":\"x\"} x", false },
		{ DELTA, "{\"content\":\"x\"/**/}", false },
		{ DELTA, "{\"content\":\"x\",\"a\":NaN}", false },
		{ DELTA, "{\"content\":\"x\",\"a\":01}", false },
		{ DELTA, "{\"con\\u0074ent\":\"x\"}", false },
		{ DELTA, "{\"content\":\"x\"", false },
		{ DELTA, "[]", false },
		{ DELTA, "", false },
		{ DONE,
		  "{\"id\":\"1\",\"conversation_id\":\"2\",\"last_error\":{\"code\":0,\"msg\":\"\"},"
		  "\"usage\":{\"n\":1}}",
		  true },
		{ DONE, "{\"last_error\":{\"code\":4028,\"msg\":\"\\u4f60\"},\"code\":7,\"msg\":\"outer\"}",
		  true },
		{ DONE, "{\"last_error\":{\"msg\":\"x\"},\"code\":7}", true },
		{ DONE, "{\"last_error\":{\"code\":1},\"last_error\":null,\"code\":7}", true },
		{ DONE, "{\"last_error\":{},\"code\":7,\"msg\":\"outer\"}", true },
		{ DONE, "{\"code\":\"5000\"}", false },
		{ DONE, "{\"code\":null}", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_int_equal(decode_both(cases[i].name, cases[i].data, strlen(cases[i].data)),
				 cases[i].plain);
}

static void test_event_is_not_changed_by_half_a_character_before_it(void **state)
{
	struct event event;

	(void)state;
	assert_true(decode(&event, DELTA, BYTES("{\"content\":\"a\\ud83d\"}")));
	event_free(&event);
	/* A string for a number: json-c reads it. */
	assert_true(decode(&event, DELTA, BYTES("{\"content\":\"b\\u0026\",\"created_at\":\"1\"}")));
	assert_text(&event.message.content, "b&");
	event_free(&event);
}

/* Whatever is done to an event, what is read without json-c is what json-c reads. */
static void test_event_reads_the_same_with_and_without_json_c(void **state)
{
	static const char *const whole[] = {
		"{\"id\":\"75\",\"conversation_id\":\"1\",\"type\":\"answer\",\"content\":"
		"\"你\\u0026\\n\\\"😀\\ud83d\\ude00\","
		"\"content_type\":\"text\",\"chat_id\":\"101\",\"created_at\":1764700000,\"x\":{\"a\":[1,-2."
		"5e3,null,true]}}",
		"{\"id\":\"1\",\"conversation_id\":\"2\",\"last_error\":{\"code\":4028,\"msg\":\"no\"},"
		"\"code\":0,\"msg\":\"\"}",
	};
	static const char spare[] = "{}[]:,\"\\ue0d81aftn-.'/* \n\xe4\xbd\xa0\xff";
	uint64_t random = 7;
	unsigned plain = 0;

	(void)state;
	for (unsigned round = 0; round < 60000; round++) {
		const char *from = whole[round % 2];
		size_t len = strlen(from);
		char data[512];

		memcpy(data, from, len);
		for (unsigned edits = next_random(&random) % 4; edits > 0 && len > 1; edits--) {
			size_t at = next_random(&random) % len;
			char byte = spare[next_random(&random) % (sizeof spare - 1)];

			if (next_random(&random) % 3 == 0) { /* one byte less */
				memmove(data + at, data + at + 1, len - at - 1);
				len--;
			} else if (next_random(&random) % 2 == 0) { /* one more */
				memmove(data + at + 1, data + at, len - at);
				data[at] = byte;
				len++;
			} else {
				data[at] = byte;
			}
		}
		plain += decode_both(round % 2 == 0 ? DELTA : DONE, data, len);
	}
	assert_true(plain > 20000);
	assert_true(plain < 50000);
}

/* Coze may send much in one document, but not make a worker take gigabytes for it. */
static void test_event_refuses_a_host_of_values(void **state)
{
	static const char *const hosts[] = { "[],",     "{},",           "1,",
					     "\"\",",   "[[[{}]]],",     "{\"\":{\"\":[]}},",
					     "NaN,[],", "'\"',[],[],[]," };
	static const char head[] = "{\"id\":\"\\ud800\",\"x\":[";

	(void)state;
	for (size_t i = 0; i < COUNT(hosts); i++) {
		struct envelope envelope;
		struct event event;
		struct buf body;

		buf_init(&body, 2000000);
		buf_append_str(&body, head);
		while (buf_size(&body) < 1000000)
			buf_append_str(&body, hosts[i]);
		buf_append_str(&body, "1]}");
		assert_false(decode(&event, DELTA, buf_bytes(&body), buf_size(&body)));
		assert_false(open_envelope(&envelope, buf_bytes(&body), buf_size(&body)));
		buf_free(&body);
	}
}

/* The same characters in a text are none. */
static void test_event_takes_a_text_full_of_commas(void **state)
{
	struct event event;
	struct buf body;

	(void)state;
	buf_init(&body, 2000000);
	buf_append_str(&body, "{\"id\":\"1\",\"odd\":\"\\ud800\",\"content\":\"");
	while (buf_size(&body) < 1000000)
		buf_append_str(&body, "\\\"[{\\\":1},{}],\\\\");
	buf_append_str(&body, "\"}");
	assert_true(decode(&event, DELTA, buf_bytes(&body), buf_size(&body)));
	assert_true(event.message.content.len > 600000);
	event_free(&event);
	buf_free(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_event_name_decides_kind_and_status),
		cmocka_unit_test(test_event_decodes_a_message),
		cmocka_unit_test(test_event_needs_no_json_c_for_what_coze_sends),
		cmocka_unit_test(test_event_is_not_changed_by_half_a_character_before_it),
		cmocka_unit_test(test_event_reads_the_same_with_and_without_json_c),
		cmocka_unit_test(test_event_decodes_a_failed_chat),
		cmocka_unit_test(test_event_takes_any_type_anywhere),
		cmocka_unit_test(test_event_refuses_what_is_no_object),
		cmocka_unit_test(test_event_goes_on_after_a_broken_one),
		cmocka_unit_test(test_event_never_passes_invalid_utf8_on),
		cmocka_unit_test(test_event_survives_every_truncation),
		cmocka_unit_test(test_event_takes_huge_texts_and_refuses_deep_nesting),
		cmocka_unit_test(test_event_refuses_a_host_of_values),
		cmocka_unit_test(test_event_takes_a_text_full_of_commas),
		cmocka_unit_test(test_event_is_an_answer_only_as_plain_text),
		cmocka_unit_test(test_envelope_decodes_a_chat),
		cmocka_unit_test(test_envelope_decodes_an_error),
		cmocka_unit_test(test_envelope_lists_messages),
	};

	return cmocka_run_group_tests(tests, open_tokener, close_tokener);
}
