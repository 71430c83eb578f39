/*
 * refusal.c - see refusal.h. The words are those of libcurl 7.88: "Connected to HOST (IP) port N (#5)", "Re-using
 * existing connection #5 with host …", "Using Stream ID: 7 (easy handle …)", "recveived GOAWAY, error=0, last_stream=39",
 * "REFUSED_STREAM, retrying a fresh connect".
 */
#include "coze/refusal.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

void refusals_init(struct refusals *refusals)
{
	*refusals = (struct refusals){ .next = 0 };
	for (unsigned i = 0; i < REFUSAL_GOAWAYS; i++)
		refusals->goaways[i].connection = -1;
}

void sending_init(struct sending *sending)
{
	*sending = (struct sending){ .connection = -1 };
}

/* The number behind the last `mark` in the text; -1 when there is none, or one that no stream has (RFC 9113, 5.1.1). */
static long number_behind(const char *text, size_t len, const char *mark)
{
	size_t mark_len = strlen(mark);
	long number = -1;

	for (size_t at = 0; at + mark_len < len; at++) {
		if (memcmp(text + at, mark, mark_len) != 0 || !isdigit((unsigned char)text[at + mark_len]))
			continue;
		number = 0;
		for (size_t i = at + mark_len;
		     i < len && isdigit((unsigned char)text[i]) && number <= INT32_MAX; i++)
			number = number * 10 + (text[i] - '0');
	}
	return number <= INT32_MAX ? number : -1;
}

static bool starts(const char *text, size_t len, const char *words)
{
	return len >= strlen(words) && memcmp(text, words, strlen(words)) == 0;
}

static bool holds(const char *text, size_t len, const char *words)
{
	return memmem(text, len, words, strlen(words)) != NULL;
}

static void note_goaway(struct refusals *refusals, long connection, long last_stream)
{
	if (connection < 0 || last_stream < 0)
		return;
	refusals->goaways[refusals->next].connection = connection;
	refusals->goaways[refusals->next].last_stream = last_stream;
	refusals->next = (refusals->next + 1) % REFUSAL_GOAWAYS;
}

void refusal_hear(struct refusals *refusals, struct sending *sending, const char *text, size_t len)
{
	if (starts(text, len, "Connected to ") || starts(text, len, "Re-using existing connection #")) {
		sending->connection = number_behind(text, len, "#");
		sending->stream = 0;
		sending->refused = false;
	} else if (starts(text, len, "Using Stream ID: ")) {
		sending->stream = number_behind(text, len, "ID: ");
	} else if (holds(text, len, "GOAWAY, error=0,")) {
		note_goaway(refusals, sending->connection, number_behind(text, len, "last_stream="));
	} else if (starts(text, len, "REFUSED_STREAM")) {
		sending->refused = true;
	}
}

bool refusal_promised(const struct refusals *refusals, const struct sending *sending)
{
	if (sending->refused)
		return true;
	if (sending->connection < 0 || sending->stream <= 0)
		return false;
	for (unsigned i = 0; i < REFUSAL_GOAWAYS; i++)
		if (refusals->goaways[i].connection == sending->connection &&
		    sending->stream > refusals->goaways[i].last_stream)
			return true;
	return false;
}
