/*
 * fuzz_sse.c - an event stream holds the same events however its bytes are split, and those that a plain reading of the
 * standard finds.
 *
 * Input: three bytes (ceiling, split, when to stop), then the stream.
 */
#include "fuzz.h"

#include "coze/sse.h"

struct heard {
	struct buf text; /* name, NUL, length, data of each event */
	unsigned stop_after, count;
};

static bool hear(void *arg, const char *name, const char *data, size_t len)
{
	struct heard *heard = arg;

	buf_append(&heard->text, name, strlen(name) + 1);
	buf_printf(&heard->text, "%zu:", len);
	buf_append(&heard->text, data, len);
	return ++heard->count != heard->stop_after;
}

static void heard_init(struct heard *heard, unsigned stop_after)
{
	*heard = (struct heard){ .stop_after = stop_after };
	buf_init(&heard->text, 16 * 1024 * 1024);
}

/* ---- the parser, given pieces ---- */

/* In pieces of `piece` bytes; 0: of a few, as `seed` has it; with both 0: whole. */
static enum err feed_pieces(struct sse *sse, struct input stream, size_t piece, uint64_t seed)
{
	enum err rc = ERR_OK;

	while (stream.left > 0 && rc == ERR_OK) {
		size_t step = piece > 0 ? piece : seed > 0 ? 1 + next_random(&seed) % 9 : stream.left;
		char *bytes;

		step = step < stream.left ? step : stream.left;
		bytes = exact_copy(stream.at, step);
		rc = sse_feed(sse, bytes, step);
		free(bytes);
		stream.at += step;
		stream.left -= step;
	}
	return rc == ERR_OK ? sse_finish(sse) : rc;
}

static enum err parse(struct heard *heard, struct input stream, size_t max, size_t piece, uint64_t seed)
{
	struct sse sse;
	enum err rc;

	sse_init(&sse, max, hear, heard);
	rc = feed_pieces(&sse, stream, piece, seed);
	sse_fini(&sse);
	return rc;
}

/* ---- the standard, read plainly: the whole stream at hand ---- */

struct reading {
	struct heard *heard;
	struct buf data;
	char name[64];
	bool any, has_data, stopped;
	size_t max;
};

static void give(struct reading *reading)
{
	if (reading->any &&
	    !hear(reading->heard, reading->name, buf_bytes(&reading->data), buf_size(&reading->data)))
		reading->stopped = true;
	buf_reset(&reading->data, 0);
	reading->name[0] = '\0';
	reading->any = reading->has_data = false;
}

static bool read_line(struct reading *reading, struct input line)
{
	struct input field;

	if (line.left > reading->max)
		return false;
	field = input_until(&line, ':');
	if (line.left > 0 && line.at[0] == ' ') {
		line.at++;
		line.left--;
	}
	if (input_is(&field, "event")) {
		snprintf(reading->name, sizeof reading->name, "%.*s", (int)line.left, line.at);
		reading->any = true;
	} else if (input_is(&field, "data")) {
		if (reading->has_data)
			buf_append_char(&reading->data, '\n');
		buf_append(&reading->data, line.at, line.left);
		reading->any = reading->has_data = true;
	}
	return buf_size(&reading->data) <= reading->max && !reading->data.failed;
}

static bool read_stream(struct reading *reading, struct input stream)
{
	bool first = true;

	while (stream.left > 0 && !reading->stopped) {
		size_t len = 0, whole;
		struct input line = { stream.at, 0 };

		while (len < stream.left && stream.at[len] != '\r' && stream.at[len] != '\n')
			len++;
		whole = len;
		if (len < stream.left)
			whole += stream.left - len > 1 && memcmp(stream.at + len, "\r\n", 2) == 0 ? 2 : 1;
		line.left = len;
		stream.at += whole;
		stream.left -= whole;
		if (len > reading->max)
			return false;
		if (first && line.left >= 3 && memcmp(line.at, "\xEF\xBB\xBF", 3) == 0) {
			line.at += 3;
			line.left -= 3;
		}
		first = false;
		if (line.left == 0 && whole > len)
			give(reading);
		else if (line.left > 0 && !read_line(reading, line))
			return false;
	}
	if (!reading->stopped)
		give(reading);
	return true;
}

static bool read_plainly(struct heard *heard, struct input stream, size_t max)
{
	struct reading reading = { .heard = heard, .max = max };
	bool good;

	buf_init(&reading.data, 2 * max + 2);
	good = read_stream(&reading, stream);
	buf_free(&reading.data);
	return good;
}

/* ---- the target ---- */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input stream = input_of(bytes, len);
	unsigned ceiling = input_byte(&stream), split = input_byte(&stream), stop_after = input_byte(&stream);
	size_t max = ceiling & 1 ? 65536 : (size_t)4 << (ceiling >> 1 & 7);
	struct heard whole, other;
	enum err rc;

	stop_after = stop_after & 1 ? 0 : stop_after >> 1 & 7;
	heard_init(&whole, stop_after);
	rc = parse(&whole, stream, max, 0, 0);
	CHECK(rc == ERR_OK || rc == ERR_ANSWER_TOO_BIG);
	for (unsigned way = 0; way < 4; way++) {
		heard_init(&other, stop_after);
		if (way == 3)
			CHECK(read_plainly(&other, stream, max) == (rc == ERR_OK));
		else
			CHECK(parse(&other, stream, max, way == 2 ? split % 64 + 2 : way == 0, split + 1) ==
			      rc);
		CHECK(other.count == whole.count && same_buf(&other.text, &whole.text));
		buf_free(&other.text);
	}
	buf_free(&whole.text);
	return 0;
}
