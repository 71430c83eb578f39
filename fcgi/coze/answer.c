/*
 * answer.c - see answer.h.
 */
#include "coze/answer.h"

#include <stdlib.h>
#include <string.h>

struct answer_part {
	char id[64]; /* cut when longer: Coze's have 19 digits */
	size_t id_len;
	size_t delivered;
};

void answer_init(struct answer *answer)
{
	*answer = (struct answer){ .parts = NULL };
}

void answer_fini(struct answer *answer)
{
	free(answer->parts);
	answer_init(answer);
}

/* The newest part is nearly always the one: look from the end. */
static struct answer_part *find(struct answer *answer, const char *id, size_t len)
{
	for (size_t i = answer->count; i > 0; i--) {
		struct answer_part *part = &answer->parts[i - 1];

		if (part->id_len == len && memcmp(part->id, id, len) == 0)
			return part;
	}
	return NULL;
}

static struct answer_part *add(struct answer *answer, const char *id, size_t len)
{
	struct answer_part *part;

	if (answer->count == answer->cap) {
		size_t cap = answer->cap == 0 ? 1 : answer->cap * 2;
		struct answer_part *parts = realloc(answer->parts, cap * sizeof *parts);

		if (parts == NULL)
			return NULL;
		answer->parts = parts;
		answer->cap = cap;
	}
	part = &answer->parts[answer->count++];
	memcpy(part->id, id, len);
	part->id_len = len;
	part->delivered = 0;
	return part;
}

enum err answer_take(struct answer *answer, const struct event_message *message, bool whole,
		     struct event_text *text)
{
	size_t id_len =
	    message->id.len < sizeof answer->parts->id ? message->id.len : sizeof answer->parts->id;
	struct answer_part *part = find(answer, message->id.bytes, id_len);

	*text = (struct event_text){ "", 0 };
	if (part == NULL) {
		if (answer->count == ANSWER_PARTS_MAX)
			return ERR_ANSWER_TOO_BIG;
		part = add(answer, message->id.bytes, id_len);
		if (part == NULL)
			return ERR_NOMEM;
	}
	*text = message->content;
	if (whole) {
		size_t skip = part->delivered < text->len ? part->delivered : text->len;

		/* Coze changed its words between deltas and whole: nothing sensible can be added. */
		if (skip < text->len && ((unsigned char)text->bytes[skip] & 0xC0) == 0x80)
			skip = text->len;
		text->bytes += skip;
		text->len -= skip;
	}
	part->delivered += text->len;
	return ERR_OK;
}
