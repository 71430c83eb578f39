/*
 * fuzz_refusal.c - lines of libcurl's debug output: a request counts as not looked at only when it was refused by name, or
 * lies behind the last stream of a connection that is going away.
 *
 * Input: lines; the first character of each says for which of four calls it was spoken.
 */
#include "fuzz.h"

#include "coze/refusal.h"

#define CALLS 4

static bool says(struct input line, const char *words)
{
	return line.left > 0 && memmem(line.at, line.left, words, strlen(words)) != NULL;
}

static bool begins(struct input line, const char *words)
{
	return line.left >= strlen(words) && memcmp(line.at, words, strlen(words)) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	struct refusals refusals;
	struct sending calls[CALLS];
	bool goaway = false, refused[CALLS] = { false };

	refusals_init(&refusals);
	for (unsigned i = 0; i < CALLS; i++)
		sending_init(&calls[i]);
	while (input.left > 0) {
		struct input line = input_line(&input);
		unsigned number = input_byte(&line) % CALLS;
		struct sending *call = &calls[number];
		char *text = exact_copy(line.at, line.left);

		refusal_hear(&refusals, call, text, line.left);
		free(text);
		goaway = goaway || (says(line, "GOAWAY") && says(line, "last_stream="));
		refused[number] = refused[number] || begins(line, "REFUSED_STREAM");
		CHECK(refusals.next < REFUSAL_GOAWAYS);
		CHECK(call->connection >= -1 && call->stream >= -1);
		CHECK(!call->refused || refused[number]);
		CHECK(!refusal_promised(&refusals, call) || call->refused ||
		      (goaway && call->connection >= 0 && call->stream > 0));
		/* Sent anew, on a connection that has never been heard of: nothing is promised. */
		if (begins(line, "Connected to ") && call->connection < 0)
			CHECK(!refusal_promised(&refusals, call));
	}
	return 0;
}
