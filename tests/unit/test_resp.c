/*
 * test_resp.c - commands are written as Redis' protocol wants them, and never longer than announced.
 */
#include "unit.h"

#include "store/resp.h"

static void test_a_command(void **state)
{
	static const char wanted[] = "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$5\r\na\0\r\nb\r\n";
	char out[3 * RESP_HEAD_MAX + 64];
	char *end = resp_begin(out, 3);

	(void)state;
	end = resp_text(end, BYTES("SET"));
	end = resp_text(end, BYTES(""));
	end = resp_text(end, BYTES("a\0\r\nb"));
	assert_int_equal(end - out, sizeof wanted - 1);
	assert_memory_equal(out, wanted, sizeof wanted - 1);
}

static void test_lengths_of_any_size(void **state)
{
	static const size_t lengths[] = { 0, 1, 9, 10, 11, 99, 100, 101, 65535, 1000000 };

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++) {
		size_t len = lengths[i];
		char *text = get_memory(len + 1), *out = get_memory(resp_text_max(len));
		char head[RESP_HEAD_MAX];
		size_t head_len = (size_t)snprintf(head, sizeof head, "$%zu\r\n", len);

		memset(text, 'x', len);
		assert_int_equal(resp_text(out, text, len) - out, head_len + len + 2);
		assert_memory_equal(out, head, head_len);
		assert_memory_equal(out + head_len, text, len);
		assert_memory_equal(out + head_len + len, "\r\n", 2);
		free(text);
		free(out);
	}
	{
		char out[RESP_HEAD_MAX];
		char wanted[RESP_HEAD_MAX + 1];
		int len = snprintf(wanted, sizeof wanted, "*%zu\r\n", SIZE_MAX);

		assert_int_equal(resp_begin(out, SIZE_MAX) - out, len);
		assert_memory_equal(out, wanted, (size_t)len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_command),
		cmocka_unit_test(test_lengths_of_any_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
