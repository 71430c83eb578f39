/*
 * test_sse.c - an event stream comes out as the same events however its bytes are split.
 *
 * Events are written down as "name=data;" so that a whole stream is one text. Every case is fed whole,
 * byte by byte and in every two parts.
 */
#include "unit.h"

#include "coze/sse.h"

struct heard {
	struct buf text;
	unsigned stop_after; /* events; 0: never */
	unsigned count;
};

static bool on_event(void *arg, const char *name, const char *data, size_t len)
{
	struct heard *heard = arg;

	buf_append_str(&heard->text, name);
	buf_append_char(&heard->text, '=');
	buf_append(&heard->text, data, len);
	buf_append_char(&heard->text, ';');
	return ++heard->count != heard->stop_after;
}

/* Feeds the stream in pieces of its own memory; `sizes` are repeated, 0 for "the rest". */
static enum err hear(struct heard *heard, size_t max, const char *stream, size_t len, const size_t sizes[2])
{
	struct sse sse;
	enum err rc = ERR_OK;

	buf_init(&heard->text, 1024 * 1024);
	heard->count = 0;
	sse_init(&sse, max, on_event, heard);
	for (size_t at = 0, turn = 0; at < len && rc == ERR_OK; turn++) {
		size_t step = sizes[turn % 2] == 0 || sizes[turn % 2] > len - at ? len - at : sizes[turn % 2];
		char *piece = exact_copy(stream + at, step);

		rc = sse_feed(&sse, piece, step);
		free(piece);
		at += step;
	}
	if (rc == ERR_OK)
		rc = sse_finish(&sse);
	sse_fini(&sse);
	return rc;
}

static void assert_hears_split(const char *stream, size_t len, const char *expected, size_t expected_len,
			       size_t first, size_t second)
{
	struct heard heard = { .stop_after = 0 };

	assert_int_equal(hear(&heard, 4096, stream, len, (const size_t[]){ first, second }), ERR_OK);
	if (buf_size(&heard.text) != expected_len ||
	    memcmp(buf_bytes(&heard.text), expected, expected_len) != 0)
		fail_msg("split at %zu: heard \"%.*s\", expected \"%s\"", first, (int)buf_size(&heard.text),
			 buf_bytes(&heard.text), expected);
	buf_free(&heard.text);
}

static void assert_hears_bytes(const char *stream, size_t len, const char *expected, size_t expected_len)
{
	assert_hears_split(stream, len, expected, expected_len, 0, 0);
	for (size_t at = 1; at < len; at++)
		assert_hears_split(stream, len, expected, expected_len, at, 0);
	for (size_t step = 1; step < 4; step++)
		assert_hears_split(stream, len, expected, expected_len, step, step);
}

static void assert_hears(const char *stream, const char *expected)
{
	assert_hears_bytes(stream, strlen(stream), expected, strlen(expected));
}

static void test_sse_joins_data_lines(void **state)
{
	(void)state;
	assert_hears("data: YHOO\ndata: +2\ndata: 10\n\n", "=YHOO\n+2\n10;");
	assert_hears("data: a\ndata\ndata:\ndata: b\n\n", "=a\n\n\nb;");
}

/* The examples of the WHATWG standard; its last, unfinished events are delivered here, as sse.h says. */
static void test_sse_understands_the_standards_examples(void **state)
{
	(void)state;
	assert_hears("data: This is the first message.\n\ndata: This is the second message, it\n"
		     "data: has two lines.\n\ndata: This is the third message.\n\n",
		     "=This is the first message.;=This is the second message, it\nhas two lines.;"
		     "=This is the third message.;");
	assert_hears(
	    "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
	    "add=73857293;remove=2153;add=113411;");
	assert_hears(
	    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
	    "=first event;=second event;= third event;");
	assert_hears("data\n\ndata\ndata\n\ndata:", "=;=\n;=;");
	assert_hears("data:test\n\ndata: test\n\n", "=test;=test;");
}

static void test_sse_takes_every_line_end(void **state)
{
	static const char *const ends[] = { "\n", "\r\n", "\r" };

	(void)state;
	for (size_t i = 0; i < COUNT(ends); i++) {
		char stream[200];

		snprintf(stream, sizeof stream, "event:a%sdata:1%sdata:2%s%sevent:b%sdata:3%s%s", ends[i],
			 ends[i], ends[i], ends[i], ends[i], ends[i], ends[i]);
		assert_hears(stream, "a=1\n2;b=3;");
	}
	assert_hears("data:1\r\ndata:2\rdata:3\n\r\ndata:4\r\rdata:5\n\n", "=1\n2\n3;=4;=5;");
	assert_hears("data:1\r\r\ndata:2\n\r", "=1;=2;");
}

static void test_sse_strips_one_space_only(void **state)
{
	(void)state;
	assert_hears("data:  two\n\n", "= two;");
	assert_hears("data:\ttab\n\n", "=\ttab;");
	assert_hears("data: a : b:c\n\n", "=a : b:c;");
	assert_hears("event: x \ndata: y \n\n", "x =y ;");
}

static void test_sse_ignores_comments_and_unknown_fields(void **state)
{
	(void)state;
	assert_hears(": ping\n\n:\n\n:data: no\n\n", "");
	assert_hears("id: 7\nretry: 1000\nfoo: bar\nfoo\n\n", "");
	assert_hears("id: 7\ndata: x\nretry: 5\n: between\n\n", "=x;");
	assert_hears(" data: x\n\nDATA: x\n\ndata : x\n\ndatax: x\n\ndat: x\n\n", "");
	assert_hears("\n\n\n\n", "");
	assert_hears("", "");
}

static void test_sse_skips_one_bom_at_the_beginning(void **state)
{
	(void)state;
	assert_hears("\xEF\xBB\xBF"
		     "data: x\n\n",
		     "=x;");
	assert_hears("\xEF\xBB\xBF\ndata: x\n\n", "=x;");
	assert_hears("\xEF\xBB\xBF\xEF\xBB\xBF"
		     "data: x\n\n",
		     "");
	assert_hears("data: x\n\xEF\xBB\xBF"
		     "data: y\n\n",
		     "=x;");
	assert_hears("data: \xEF\xBB\xBF\n\n", "=\xEF\xBB\xBF;");
}

static void test_sse_delivers_a_name_without_data(void **state)
{
	(void)state;
	assert_hears("event:done\n\n", "done=;");
	assert_hears("event:done\ndata:\n\n", "done=;");
	assert_hears("event:done\ndata\n\n", "done=;");
	assert_hears("event:a\nevent:b\ndata:x\n\ndata:y\n\n",
		     "b=x;=y;"); /* the last name counts, for one event */
}

static void test_sse_delivers_what_the_end_leaves_pending(void **state)
{
	(void)state;
	assert_hears("data: x\n", "=x;");
	assert_hears("data: x", "=x;");
	assert_hears("event:done", "done=;");
	assert_hears("event:done\ndata:\"[DONE]\"", "done=\"[DONE]\";");
	assert_hears("data: x\r", "=x;");
	assert_hears("data: x\n\n: bye", "=x;");
}

static void test_sse_reads_what_coze_sends(void **state)
{
	(void)state;
	assert_hears(
	    "event:conversation.message.delta\n"
	    "data:{\"id\":\"201\",\"type\":\"answer\",\"content\":\"你\"}\n\n"
	    "event:conversation.chat.completed\ndata:{\"id\":\"101\"}\n\nevent:done\ndata:\"[DONE]\"\n\n",
	    "conversation.message.delta={\"id\":\"201\",\"type\":\"answer\",\"content\":\"你\"};"
	    "conversation.chat.completed={\"id\":\"101\"};done=\"[DONE]\";");
}

static void test_sse_passes_nul_bytes_on(void **state)
{
	(void)state;
	assert_hears_bytes(BYTES("data: a\0b\n\n"), BYTES("=a\0b;"));
	assert_hears_bytes(BYTES("da\0ta: x\n\ndata: y\n\n"), BYTES("=y;"));
}

static void test_sse_cuts_long_names(void **state)
{
	char stream[300] = "event:", expected[300] = "";

	(void)state;
	memset(stream + 6, 'n', 200);
	strcpy(stream + 206, "\ndata:x\n\n");
	memset(expected, 'n', 63);
	strcpy(expected + 63, "=x;");
	assert_hears(stream, expected);
}

static void test_sse_stops_when_told(void **state)
{
	static const char stream[] = "data:1\n\ndata:2\n\ndata:3\n\ndata:4";

	(void)state;
	for (size_t at = 1; at <= sizeof stream - 1; at++) {
		struct heard heard = { .stop_after = 2 };

		assert_int_equal(hear(&heard, 100, BYTES(stream), (const size_t[]){ at, at }), ERR_OK);
		assert_buf(&heard.text, BYTES("=1;=2;"));
		buf_free(&heard.text);
	}
}

static enum err error_of_line(size_t max, size_t line_len, bool with_end, size_t split)
{
	struct heard heard = { .stop_after = 0 };
	char *stream = get_memory(line_len + 2);
	enum err rc;

	memset(stream, 'x', line_len);
	memcpy(stream, "data:", 5);
	memcpy(stream + line_len, "\n\n", 2);
	rc = hear(&heard, max, stream, line_len + (with_end ? 2 : 0), (const size_t[]){ split, split });
	if (rc == ERR_OK)
		assert_int_equal(heard.count, 1);
	buf_free(&heard.text);
	free(stream);
	return rc;
}

static void test_sse_refuses_an_endless_line(void **state)
{
	(void)state;
	for (size_t split = 0; split < 120; split++) {
		assert_int_equal(error_of_line(100, 100, false, split), ERR_OK);
		assert_int_equal(error_of_line(100, 101, false, split), ERR_ANSWER_TOO_BIG);
	}
}

/* The ceiling is the stream's, not the network's: where the bytes were split must not decide. */
static void test_sse_refuses_a_long_line_however_it_is_split(void **state)
{
	(void)state;
	for (size_t split = 0; split < 120; split++) {
		assert_int_equal(error_of_line(100, 100, true, split), ERR_OK);
		assert_int_equal(error_of_line(100, 101, true, split), ERR_ANSWER_TOO_BIG);
	}
}

static void test_sse_refuses_endless_data(void **state)
{
	static const char stream[] =
	    "data:12345\ndata:67890\ndata:abcdef\n\n"; /* 5 + 1 + 5 + 1 + 6 bytes of data */

	(void)state;
	for (size_t split = 0; split < sizeof stream; split++) {
		struct heard heard = { .stop_after = 0 };

		assert_int_equal(hear(&heard, 17, BYTES(stream), (const size_t[]){ split, split }),
				 ERR_ANSWER_TOO_BIG);
		buf_free(&heard.text);
		assert_int_equal(hear(&heard, 18, BYTES(stream), (const size_t[]){ split, split }), ERR_OK);
		assert_buf(&heard.text, BYTES("=12345\n67890\nabcdef;"));
		buf_free(&heard.text);
	}
}

static void test_sse_takes_many_and_large_events(void **state)
{
	enum { LARGE = 300000 };
	struct heard heard = { .stop_after = 0 };
	char *stream = get_memory(LARGE + 100);
	static const size_t splits[][2] = { { 0, 0 }, { 1000, 1 }, { 16384, 16384 }, { 65536, 7 } };

	(void)state;
	memcpy(stream, "data:a\n\ndata:", 13);
	memset(stream + 13, 'x', LARGE);
	memcpy(stream + 13 + LARGE, "\n\ndata:b\n\n", 10);
	for (size_t i = 0; i < COUNT(splits); i++) {
		assert_int_equal(hear(&heard, LARGE + 5, stream, LARGE + 23, splits[i]), ERR_OK);
		assert_int_equal(heard.count, 3);
		assert_int_equal(buf_size(&heard.text), 3 + LARGE + 2 + 3);
		buf_free(&heard.text);
	}
	free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sse_joins_data_lines),
		cmocka_unit_test(test_sse_understands_the_standards_examples),
		cmocka_unit_test(test_sse_takes_every_line_end),
		cmocka_unit_test(test_sse_strips_one_space_only),
		cmocka_unit_test(test_sse_ignores_comments_and_unknown_fields),
		cmocka_unit_test(test_sse_skips_one_bom_at_the_beginning),
		cmocka_unit_test(test_sse_delivers_a_name_without_data),
		cmocka_unit_test(test_sse_delivers_what_the_end_leaves_pending),
		cmocka_unit_test(test_sse_reads_what_coze_sends),
		cmocka_unit_test(test_sse_passes_nul_bytes_on),
		cmocka_unit_test(test_sse_cuts_long_names),
		cmocka_unit_test(test_sse_stops_when_told),
		cmocka_unit_test(test_sse_refuses_an_endless_line),
		cmocka_unit_test(test_sse_refuses_a_long_line_however_it_is_split),
		cmocka_unit_test(test_sse_refuses_endless_data),
		cmocka_unit_test(test_sse_takes_many_and_large_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
