/*
 * test_refusal.c - proves that a request counts as refused only when the peer has said so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coze/refusal.h"

static void hear(struct refusals *refusals, struct sending *sending, const char *text)
{
	refusal_hear(refusals, sending, text, strlen(text));
}

static void send_on(struct refusals *refusals, struct sending *sending, long stream)
{
	char text[64];

	sending_init(sending);
	hear(refusals, sending, "Re-using existing connection #7 with host localhost\n");
	snprintf(text, sizeof text, "Using Stream ID: %ld (easy handle 0x55)\n", stream);
	hear(refusals, sending, text);
}

static void test_streams_behind_the_last_one_are_refused(void **state)
{
	struct refusals refusals;
	struct sending before, behind, elsewhere;

	(void)state;
	refusals_init(&refusals);
	send_on(&refusals, &before, 39);
	send_on(&refusals, &behind, 41);
	sending_init(&elsewhere);
	hear(&refusals, &elsewhere, "Connected to localhost (127.0.0.1) port 4433 (#8)\n");
	hear(&refusals, &elsewhere, "Using Stream ID: 41 (easy handle 0x66)\n");
	assert_false(refusal_promised(&refusals, &behind));
	hear(&refusals, &before, "recveived GOAWAY, error=0, last_stream=39\n");
	assert_false(refusal_promised(&refusals, &before));
	assert_true(refusal_promised(&refusals, &behind));
	assert_false(refusal_promised(&refusals, &elsewhere));
}

static void test_a_connection_that_dies_promises_nothing(void **state)
{
	struct refusals refusals;
	struct sending sending;

	(void)state;
	refusals_init(&refusals);
	sending_init(&sending);
	assert_false(refusal_promised(&refusals, &sending));
	send_on(&refusals, &sending, 41);
	hear(&refusals, &sending, "Connection died, retrying a fresh connect (retry count: 1)\n");
	assert_false(refusal_promised(&refusals, &sending));
	hear(&refusals, &sending, "recveived GOAWAY, error=11, last_stream=39\n");
	assert_false(refusal_promised(&refusals, &sending));
}

static void test_a_refused_stream_is_refused_until_it_is_sent_again(void **state)
{
	struct refusals refusals;
	struct sending sending;

	(void)state;
	refusals_init(&refusals);
	send_on(&refusals, &sending, 41);
	hear(&refusals, &sending, "REFUSED_STREAM, retrying a fresh connect\n");
	assert_true(refusal_promised(&refusals, &sending));
	send_on(&refusals, &sending, 43);
	assert_false(refusal_promised(&refusals, &sending));
}

static void test_other_words_mean_nothing(void **state)
{
	static const char *const texts[] = { "",
					     "\n",
					     "#",
					     "GOAWAY, error=0,",
					     "GOAWAY, error=0, last_stream=",
					     "Using Stream ID: ",
					     "Connected to ",
					     "Re-using existing connection #",
					     "[HTTP/2] [41] OPENED stream for https://localhost/",
					     "GOAWAY, error=0, last_stream=99999999999999999999999" };
	struct refusals refusals;
	struct sending sending;

	(void)state;
	refusals_init(&refusals);
	sending_init(&sending);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		hear(&refusals, &sending, texts[i]);
		assert_false(refusal_promised(&refusals, &sending));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams_behind_the_last_one_are_refused),
		cmocka_unit_test(test_a_connection_that_dies_promises_nothing),
		cmocka_unit_test(test_a_refused_stream_is_refused_until_it_is_sent_again),
		cmocka_unit_test(test_other_words_mean_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
