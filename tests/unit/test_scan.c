/*
 * test_scan.c - the members of an object are read as they were written, and nothing but a correct object is complete. That
 * they mean what json-c makes of them is held in test_event.c.
 */
#include "unit.h"

#include "base/scan.h"

/* Each member as name=value, with a letter for its kind; "!" behind them when the input is not one correct object. */
static void render(struct buf *out, const char *json, size_t len)
{
	static const char kinds[] = {
		[SCAN_STRING] = 's', [SCAN_INTEGER] = 'i', [SCAN_OBJECT] = 'o', [SCAN_OTHER] = '-'
	};
	struct scan_member member;
	struct scan scan;

	buf_init(out, 4096);
	scan_begin(&scan, json, len);
	while (scan_next(&scan, &member)) {
		buf_append(out, member.name.bytes, member.name.len);
		buf_append_char(out, '=');
		buf_append_char(out, kinds[member.kind]);
		if (member.kind != SCAN_OTHER)
			buf_append(out, member.value.bytes, member.value.len);
		buf_append_char(out, ' ');
	}
	assert_false(scan_next(&scan, &member)); /* nothing comes after the end */
	if (!scan_complete(&scan))
		buf_append_char(out, '!');
}

static void assert_scan(const char *json, const char *expected)
{
	char *copy = exact_copy(json, strlen(json));
	struct buf out;

	render(&out, copy, strlen(json));
	assert_buf(&out, expected, strlen(expected));
	buf_free(&out);
	free(copy);
}

static void test_scan_reads_members(void **state)
{
	(void)state;
	assert_scan("{}", "");
	assert_scan(" {\n} ", "");
	assert_scan("{\"a\":\"x\",\"b\":-0,\"a\":12}", "a=sx b=i-0 a=i12 ");
	assert_scan("{\"a\":{\"b\":[{}]} , \"\":null}", "a=o{\"b\":[{}]} =- ");
	assert_scan("{\"a\":\"\\u00e9\\\"\",\"你\":true}", "a=s\\u00e9\\\" 你=- ");
	assert_scan("{\"a\":1.5,\"b\":-1e-5,\"c\":1E+5,\"d\":1234567890123456789}", "a=- b=- c=- d=- ");
	assert_scan("{\"a\":[],\"b\":[1,\"x\",null,false]}", "a=- b=- ");
}

static void test_scan_gives_other_values_as_they_were_written(void **state)
{
	static const char json[] = "{\"\":null,\"\":true,\"\":false,\"\":-1.5e3,\"\":[1, {}]}";
	static const char *const values[] = { "null", "true", "false", "-1.5e3", "[1, {}]" };
	struct scan_member member;
	struct scan scan;

	(void)state;
	scan_begin(&scan, BYTES(json));
	for (size_t i = 0; i < COUNT(values); i++) {
		assert_true(scan_next(&scan, &member));
		assert_int_equal(member.kind, SCAN_OTHER);
		assert_bytes(member.value.bytes, member.value.len, values[i], strlen(values[i]));
	}
	assert_false(scan_next(&scan, &member));
	assert_true(scan_complete(&scan));
}

static void test_scan_takes_nothing_odd(void **state)
{
	static const char *const odd[] = {
		"",
		" ",
		"{",
		"}",
		"[]",
		"null",
		"\"a\"",
		"{a:1}",
		"{'a':1}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\" 1}",
		"{,}",

		"{\"a\":+1}",
		"{\"a\":-}",
		"{\"a\":1.}",
		"{\"a\":.5}",
		"{\"a\":1e}",
		"{\"a\":NaN}",
		"{\"a\":nul}",
		"{\"a\":True}",
		"{\"a\":\"x}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\\u12\"}",
		"{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\t\"}",
		"{\"\\u0061\":1}",
		"{\"a\":\"\\",
		"{\"a\":[1,]}",
		"{\"a\":[1}",
		"{\"a\":{\"b\"}}",
		"{\"a\":{b:1}}",
		"{\"a\":{\"b\":1,}}",
		"{/**/}",
	};
	(void)state;
	for (size_t i = 0; i < COUNT(odd); i++)
		assert_scan(odd[i], "!");
	assert_scan("{\"a\":1,}", "a=i1 !");
	assert_scan("{\"a\":1} x", "a=i1 !");
	assert_scan("{\"a\":1}{", "a=i1 !");
	assert_scan("{\"a\":01}", "a=i0 !");
	assert_scan("{\"a\":1 \"b\":2}", "a=i1 !");
	assert_scan("{\"a\":1", "a=i1 !");
}

static void test_scan_goes_only_so_deep(void **state)
{
	char json[128];

	(void)state;
	for (unsigned depth = 1; depth < 40; depth++) {
		struct buf out;
		size_t len = 5;

		memcpy(json, "{\"a\":", 5);
		memset(json + len, '[', depth);
		memset(json + len + depth, ']', depth);
		len += (size_t)depth * 2;
		json[len++] = '}';
		render(&out, json, len);
		assert_buf(&out, depth < 16 ? "a=- " : "!", depth < 16 ? 4 : 1);
		buf_free(&out);
	}
}

static void test_scan_unescapes(void **state)
{
	static const struct {
		const char *written, *text; /* NULL: not for us */
	} cases[] = {
		{ "", "" },
		{ "plain 你", "plain 你" },
		{ "\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t" },
		{ "a\\u0041b\\u00e9\\u4F60\\uD83D\\ude00c", "aAbé你😀c" },
		{ "\\ud800\\udc00\\uDBFF\\uDFFF\\ue000\\uffff",
		  "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xEE\x80\x80\xEF\xBF\xBF" },
		{ "\\u0000", NULL },
		{ "\\ud83d", NULL },
		{ "\\ud83dx", NULL },
		{ "\\ud83d\\n", NULL },
		{ "\\ud83d\\u0041", NULL },
		{ "\\ud83d\\ud83d\\ude00", NULL },
		{ "\\ude00", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		size_t len = strlen(cases[i].written);
		char *in = exact_copy(cases[i].written, len), *out = get_memory(len + 1);
		const struct scan_slice slice = { in, len };
		long got = scan_unescape(out, &slice);

		if (cases[i].text == NULL)
			assert_int_equal(got, -1);
		else
			assert_bytes(out, (size_t)got, cases[i].text, strlen(cases[i].text));
		free(in);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan_reads_members),
		cmocka_unit_test(test_scan_gives_other_values_as_they_were_written),
		cmocka_unit_test(test_scan_takes_nothing_odd),
		cmocka_unit_test(test_scan_goes_only_so_deep),
		cmocka_unit_test(test_scan_unescapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
