/*
 * test_buf.c - a buffer keeps what was appended in order, up to its ceiling, and is quiet and whole beyond
 * it.
 */
#include "unit.h"

#include "base/buf.h"
#include "failing_alloc.h"

static void test_buf_is_empty_at_birth(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 10);
	assert_buf(&buf, "", 0);
	assert_non_null(buf_bytes(&buf));
	buf_append(&buf, NULL, 0);
	buf_append_str(&buf, "");
	buf_truncate(&buf, 0);
	assert_buf(&buf, "", 0);
	buf_free(&buf);
	buf_free(&buf);
}

static void test_buf_takes_bytes_up_to_its_ceiling(void **state)
{
	(void)state;
	for (size_t max = 0; max < 300; max++) {
		struct buf buf;

		buf_init(&buf, max);
		for (size_t i = 0; i < max; i++)
			buf_append_char(&buf, (char)i);
		assert_false(buf.failed);
		assert_int_equal(buf_size(&buf), max);
		buf_append_char(&buf, 'x');
		assert_true(buf.failed);
		assert_int_equal(buf_size(&buf), max);
		for (size_t i = 0; i < max; i++)
			assert_int_equal(buf_bytes(&buf)[i], (char)i);
		buf_free(&buf);
	}
}

static void test_buf_that_failed_keeps_what_it_had(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 5);
	buf_append_str(&buf, "abc");
	buf_append_str(&buf, "def"); /* all or nothing */
	assert_true(buf.failed);
	buf_append_str(&buf, "d"); /* would fit, but comes behind what is missing */
	buf_printf(&buf, "%d", 1);
	assert_null(buf_room(&buf, 1));
	assert_bytes(buf_bytes(&buf), buf_size(&buf), "abc", 3);
	buf_reset(&buf, 1024);
	assert_false(buf.failed);
	buf_append_str(&buf, "12345");
	assert_buf(&buf, "12345", 5);
	buf_free(&buf);
	assert_buf(&buf, "", 0);
	buf_append_str(&buf, "after"); /* the ceiling is still there */
	assert_buf(&buf, "after", 5);
	buf_append_str(&buf, "!");
	assert_true(buf.failed);
	buf_free(&buf);
}

static void test_buf_consumed_bytes_do_not_count(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 8);
	buf_append_str(&buf, "12345678");
	buf_consume(&buf, 3);
	assert_buf(&buf, "45678", 5);
	buf_append_str(&buf, "abc");
	assert_buf(&buf, "45678abc", 8);
	buf_append_str(&buf, "x");
	assert_true(buf.failed);
	buf_consume(&buf, 8);
	assert_int_equal(buf_size(&buf), 0);
	buf_free(&buf);
}

static void test_buf_truncates_its_end(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 100);
	buf_append_str(&buf, "0123456789");
	buf_consume(&buf, 2);
	buf_truncate(&buf, 100);
	assert_buf(&buf, "23456789", 8);
	buf_truncate(&buf, 3);
	assert_buf(&buf, "234", 3);
	buf_append_str(&buf, "ab");
	assert_buf(&buf, "234ab", 5);
	buf_truncate(&buf, 0);
	assert_buf(&buf, "", 0);
	buf_free(&buf);
}

static void test_buf_lends_room(void **state)
{
	struct buf buf;
	char *room;

	(void)state;
	buf_init(&buf, 1000);
	buf_append_str(&buf, "head ");
	room = buf_room(&buf, 995);
	assert_non_null(room);
	memset(room, 'x', 995);
	buf_claim(&buf, 3); /* less than was lent */
	assert_buf(&buf, "head xxx", 8);
	assert_null(buf_room(&buf, 993));
	assert_true(buf.failed);
	buf_free(&buf);
}

static void test_buf_prints_any_length(void **state)
{
	static const size_t lengths[] = { 0, 1, 254, 255, 256, 257, 1000, 5000 };
	char text[5001];

	(void)state;
	memset(text, 'a', sizeof text);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		struct buf buf;

		buf_init(&buf, 10000);
		buf_append_str(&buf, "<");
		buf_printf(&buf, "%.*s>%d", (int)lengths[i], text, 42);
		assert_false(buf.failed);
		assert_int_equal(buf_size(&buf), lengths[i] + 4);
		assert_memory_equal(buf_bytes(&buf) + 1, text, lengths[i]);
		assert_memory_equal(buf_bytes(&buf) + 1 + lengths[i], ">42", 3);
		buf_free(&buf);
	}
}

static void test_buf_prints_up_to_its_ceiling(void **state)
{
	static const size_t lengths[] = { 1, 255, 256, 257, 1000 };
	char text[1000];

	(void)state;
	memset(text, 'a', sizeof text);
	for (size_t i = 0; i < COUNT(lengths); i++) {
		struct buf buf;

		buf_init(&buf, lengths[i]);
		buf_printf(&buf, "%.*s", (int)lengths[i], text);
		assert_buf(&buf, text, lengths[i]);
		buf_free(&buf);
		buf_init(&buf, lengths[i] - 1);
		buf_printf(&buf, "%.*s", (int)lengths[i], text);
		assert_true(buf.failed);
		assert_int_equal(buf_size(&buf), 0);
		buf_free(&buf);
	}
}

static void test_buf_gives_memory_back_beyond_what_is_kept(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 100000);
	buf_append_str(&buf, "short");
	buf_reset(&buf, 1024);
	assert_buf(&buf, "", 0);
	assert_non_null(buf.base);
	for (int i = 0; i < 3000; i++)
		buf_append_char(&buf, 'x');
	buf_reset(&buf, 1024);
	assert_buf(&buf, "", 0);
	assert_null(buf.base);
	buf_append_str(&buf, "again");
	assert_buf(&buf, "again", 5);
	buf_free(&buf);
}

/* A queue that stays nearly full must not move all its bytes for each byte that comes. */
static void test_buf_used_as_a_queue_seldom_moves_its_bytes(void **state)
{
	struct buf buf;
	unsigned moves = 0;

	(void)state;
	buf_init(&buf, 1024 * 1024);
	while (buf_size(&buf) < 4096)
		buf_append_char(&buf, 'x');
	for (int i = 0; i < 4096; i++) {
		buf_consume(&buf, 1);
		buf_append_char(&buf, 'y');
		moves += buf.start == 0;
	}
	assert_int_equal(buf_size(&buf), 4096);
	assert_in_range(moves, 0, 8);
	buf_free(&buf);
}

/* Thousands of random calls against a plain array that does the same. */
static void test_buf_behaves_as_a_plain_queue(void **state)
{
	enum { MAX = 700 };
	char model[MAX], piece[400];
	size_t size = 0;
	uint64_t seed = 7;
	struct buf buf;

	(void)state;
	buf_init(&buf, MAX);
	for (int round = 0; round < 50000; round++) {
		size_t len = next_random(&seed) % sizeof piece;

		for (size_t i = 0; i < len; i++)
			piece[i] = (char)next_random(&seed);
		switch (next_random(&seed) % 5) {
		case 0:
			len = len < size ? len : size;
			memmove(model, model + len, size - len);
			size -= len;
			buf_consume(&buf, len);
			break;
		case 1:
			size = len < size ? len : size;
			buf_truncate(&buf, len);
			break;
		case 2:
			if (next_random(&seed) % 20 == 0) {
				size = 0;
				buf_reset(&buf, len);
			}
			break;
		default:
			if (len > MAX - size)
				break;
			memcpy(model + size, piece, len);
			size += len;
			buf_append(&buf, piece, len);
		}
		assert_false(buf.failed);
		assert_int_equal(buf_size(&buf), size);
		assert_true(buf.cap <= MAX);
		if (size > 0)
			assert_memory_equal(buf_bytes(&buf), model, size);
	}
	buf_free(&buf);
}

static void test_buf_survives_each_failed_allocation(void **state)
{
	bool failed = true;

	(void)state;
	for (long good = 0; failed; good++) {
		struct buf buf;
		size_t held = 0;

		buf_init(&buf, 10000);
		alloc_fail_after(good);
		for (int i = 0; i < 20; i++) {
			buf_append(&buf, "0123456789", 10);
			held = buf.failed ? held : buf_size(&buf);
			buf_printf(&buf, "%300d", i);
			held = buf.failed ? held : buf_size(&buf);
		}
		failed = alloc_failed();
		assert_true(failed || !buf.failed);
		assert_int_equal(buf_size(&buf), buf.failed ? held : 20 * 310);
		if (held >= 10)
			assert_memory_equal(buf_bytes(&buf), "0123456789", 10);
		buf_free(&buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_is_empty_at_birth),
		cmocka_unit_test(test_buf_takes_bytes_up_to_its_ceiling),
		cmocka_unit_test(test_buf_that_failed_keeps_what_it_had),
		cmocka_unit_test(test_buf_consumed_bytes_do_not_count),
		cmocka_unit_test(test_buf_truncates_its_end),
		cmocka_unit_test(test_buf_lends_room),
		cmocka_unit_test(test_buf_prints_any_length),
		cmocka_unit_test(test_buf_prints_up_to_its_ceiling),
		cmocka_unit_test(test_buf_gives_memory_back_beyond_what_is_kept),
		cmocka_unit_test(test_buf_used_as_a_queue_seldom_moves_its_bytes),
		cmocka_unit_test(test_buf_behaves_as_a_plain_queue),
		cmocka_unit_test(test_buf_survives_each_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
