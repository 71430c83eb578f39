/*
 * test_shape.c - one table writes an answer: every kind of member, both styles, nested and in lists; and its examples.
 */
#include "unit.h"

#include "base/clock.h"
#include "http/shape.h"

struct inner {
	uint64_t number;
	const char *name;
};

struct outer {
	const char *text, *id, *word;
	struct shape_bytes bytes;
	uint64_t time, count;
	struct inner object;
	struct shape_list list;
};

static const char *const words[] = { "first", "second", NULL };

static const struct member inner_members[] = {
	{ "number", MEMBER_COUNT, offsetof(struct inner, number), "", "", .example = "7" },
	{ "name", MEMBER_TEXT, offsetof(struct inner, name), "", "", .nullable = true },
};

static const struct shape inner_shape = { "Inner", inner_members, COUNT(inner_members) };

static const struct member outer_members[] = {
	{ "text", MEMBER_TEXT, offsetof(struct outer, text), "", "", .example = "a \"b\"" },
	{ "id", MEMBER_ID, offsetof(struct outer, id), "", "", .example = "s1" },
	{ "word", MEMBER_WORD, offsetof(struct outer, word), "", "", .words = words },
	{ "bytes", MEMBER_BYTES, offsetof(struct outer, bytes), "", "", .example = "你好" },
	{ "time", MEMBER_TIME, offsetof(struct outer, time), "", "",
	  .example = "2024-01-15T10:30:15.123456" },
	{ "count", MEMBER_COUNT, offsetof(struct outer, count), "", "", .example = "12" },
	{ "object", MEMBER_OBJECT, offsetof(struct outer, object), "", "", .shape = &inner_shape },
	{ "list", MEMBER_LIST, offsetof(struct outer, list), "", "", .shape = &inner_shape },
};

static const struct shape outer_shape = { "Outer", outer_members, COUNT(outer_members) };

static const struct inner inners[] = { { 0, "zero" }, { UINT64_MAX, NULL } };

static struct outer outer_values(void)
{
	return (struct outer){
		.text = "tab\t",
		.word = "second",
		.bytes = { BYTES("nul\0😀") },
		.time = UINT64_C(1700000000123456),
		.count = 10,
		.object = { 1, "one" },
		.list = { inners, COUNT(inners), sizeof inners[0] },
	};
}

static void assert_written(const struct shape *shape, const void *values, enum shape_style style,
			   const char *expected)
{
	struct buf out;

	buf_init(&out, 10000);
	shape_write(&out, shape, values, style);
	assert_buf(&out, expected, strlen(expected));
	buf_free(&out);
}

static void test_shape_writes_every_kind(void **state)
{
	const struct outer values = outer_values();
	char iso[CLOCK_ISO_SIZE], expected[1000];

	(void)state;
	clock_iso(iso, values.time);
	snprintf(
	    expected, sizeof expected,
	    "{\"text\":\"tab\\t\",\"id\":null,\"word\":\"second\",\"bytes\":\"nul\\u0000😀\",\"time\":\"%s\","
	    "\"count\":10,\"object\":{\"number\":1,\"name\":\"one\"},\"list\":[{\"number\":0,\"name\":"
	    "\"zero\"},"
	    "{\"number\":18446744073709551615,\"name\":null}]}",
	    iso);
	assert_written(&outer_shape, &values, SHAPE_COMPACT, expected);
}

static void test_shape_writes_events_with_spaces(void **state)
{
	const struct outer values = outer_values();
	char iso[CLOCK_ISO_SIZE], expected[1000];

	(void)state;
	clock_iso(iso, values.time);
	snprintf(expected, sizeof expected,
		 "{\"text\": \"tab\\t\", \"id\": null, \"word\": \"second\", \"bytes\": \"nul\\u0000😀\", "
		 "\"time\": \"%s\", \"count\": 10, \"object\": {\"number\": 1, \"name\": \"one\"}, "
		 "\"list\": [{\"number\": 0, \"name\": \"zero\"}, {\"number\": 18446744073709551615, "
		 "\"name\": null}]}",
		 iso);
	assert_written(&outer_shape, &values, SHAPE_SPACED, expected);
}

static void test_shape_writes_what_is_empty(void **state)
{
	static const struct member members[] = { { "list", MEMBER_LIST, 0, "", "", .shape = &inner_shape } };
	const struct shape_list none = { .count = 0 };

	(void)state;
	assert_written(&(struct shape){ "None", members, 0 }, &none, SHAPE_COMPACT, "{}");
	assert_written(&(struct shape){ "One", members, 1 }, &none, SHAPE_SPACED, "{\"list\": []}");
}

/* What a long text is put into afterwards. */
static void test_shape_tells_where_pieces_belong(void **state)
{
	struct frame {
		const char *before;
		size_t *text;
		const char *after;
	};
	static const struct member members[] = {
		{ "before", MEMBER_TEXT, offsetof(struct frame, before), "", "", .example = "" },
		{ "text", MEMBER_PIECES, offsetof(struct frame, text), "", "", .example = "" },
		{ "after", MEMBER_TEXT, offsetof(struct frame, after), "", "", .example = "" },
	};
	static const struct shape shape = { "Frame", members, COUNT(members) };
	size_t place = 0;
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	buf_append_str(&out, "data: ");
	shape_write(&out, &shape, &(struct frame){ "\"\"", &place, "x" }, SHAPE_SPACED);
	assert_bytes(buf_bytes(&out), place, BYTES("data: {\"before\": \"\\\"\\\"\", \"text\": \""));
	assert_bytes(buf_bytes(&out) + place, buf_size(&out) - place, BYTES("\", \"after\": \"x\"}"));
	buf_free(&out);
}

static void test_shape_that_does_not_fit_fails(void **state)
{
	const struct outer values = outer_values();

	(void)state;
	for (size_t max = 0; max < 200; max++) {
		struct buf out;

		buf_init(&out, max);
		shape_write(&out, &outer_shape, &values, SHAPE_COMPACT);
		assert_true(out.failed);
		buf_free(&out);
	}
}

static void test_shape_has_an_example(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	shape_example(&out, &outer_shape, SHAPE_COMPACT);
	assert_buf(&out,
		   BYTES("{\"text\":\"a \\\"b\\\"\",\"id\":\"s1\",\"word\":\"first\",\"bytes\":\"你好\","
			 "\"time\":\"2024-01-15T10:30:15.123456\",\"count\":12,"
			 "\"object\":{\"number\":7,\"name\":null},\"list\":[{\"number\":7,\"name\":null}]}"));
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shape_writes_every_kind),
		cmocka_unit_test(test_shape_writes_events_with_spaces),
		cmocka_unit_test(test_shape_writes_what_is_empty),
		cmocka_unit_test(test_shape_tells_where_pieces_belong),
		cmocka_unit_test(test_shape_that_does_not_fit_fails),
		cmocka_unit_test(test_shape_has_an_example),
	};

	return cmocka_run_group_tests_name("shape", tests, NULL, NULL);
}
