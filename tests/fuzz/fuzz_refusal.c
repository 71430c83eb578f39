/*
 * fuzz_refusal.c - lines of libcurl's debug output: a request counts as not looked at only when it was refused by name, or
 * lies behind the last stream of a connection that is going away.
 *
 * Input: lines; the first character of each says for which of four calls it was spoken.
 */
#include "fuzz.h"

#include <ctype.h>

#include "coze/refusal.h"

#define CALLS   4
#define GOAWAYS 4096

/* All that was heard, by a simpler reading. */
struct model {
	struct {
		long connection, last_stream;
	} goaways[GOAWAYS];
	size_t count;
	bool refused[CALLS];
};

static bool says(struct input line, const char *words)
{
	return line.left > 0 && memmem(line.at, line.left, words, strlen(words)) != NULL;
}

static bool begins(struct input line, const char *words)
{
	return line.left >= strlen(words) && memcmp(line.at, words, strlen(words)) == 0;
}

static void hear(struct model *model, struct input line, unsigned number, const struct sending *call)
{
	if (begins(line, "Connected to ") || begins(line, "Re-using existing connection #")) {
		model->refused[number] = false;
	} else if (begins(line, "Using Stream ID: ")) {
		return;
	} else if (says(line, "GOAWAY, error=0,")) {
		char *text = exact_string(line.at, line.left), *p = text, *last = NULL;

		while ((p = memmem(p, (size_t)(text + line.left - p), "last_stream=", 12)) != NULL) {
			p += 12;
			last = isdigit((unsigned char)*p) ? p : last;
		}
		if (last != NULL && strtol(last, NULL, 10) <= INT32_MAX && call->connection >= 0 &&
		    model->count < GOAWAYS) {
			model->goaways[model->count].connection = call->connection;
			model->goaways[model->count++].last_stream = strtol(last, NULL, 10);
		}
		free(text);
	} else if (begins(line, "REFUSED_STREAM")) {
		model->refused[number] = true;
	}
}

/* Whether one of the last `count` GOAWAYs leaves the call's stream out. */
static bool left_out(const struct model *model, const struct sending *call, size_t count)
{
	for (size_t i = model->count; i-- > 0 && model->count - i <= count;)
		if (model->goaways[i].connection == call->connection && call->connection >= 0 &&
		    call->stream > 0 && call->stream > model->goaways[i].last_stream)
			return true;
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	struct model model = { .count = 0 };
	struct refusals refusals;
	struct sending calls[CALLS];

	refusals_init(&refusals);
	for (unsigned i = 0; i < CALLS; i++)
		sending_init(&calls[i]);
	while (input.left > 0) {
		struct input line = input_line(&input);
		unsigned number = input_byte(&line) % CALLS;
		struct sending *call = &calls[number];
		char *text = exact_copy(line.at, line.left);
		bool promised;

		refusal_hear(&refusals, call, text, line.left);
		free(text);
		hear(&model, line, number, call);
		promised = refusal_promised(&refusals, call);
		CHECK(refusals.next < REFUSAL_GOAWAYS);
		CHECK(call->refused == model.refused[number]);
		CHECK(!promised || call->refused || left_out(&model, call, GOAWAYS));
		CHECK(promised || !(call->refused || left_out(&model, call, REFUSAL_GOAWAYS)));
	}
	return 0;
}
