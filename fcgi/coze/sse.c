/*
 * sse.c - see sse.h.
 */
#include "coze/sse.h"

#include <string.h>

#define KEEP 1024 /* bytes of buffer kept from event to event: a stream may be silent for long */

void sse_init(struct sse *sse, size_t max, sse_event_fn on_event, void *arg)
{
	*sse = (struct sse){ .on_event = on_event, .arg = arg };
	buf_init(&sse->line, max);
	buf_init(&sse->data, max);
}

void sse_fini(struct sse *sse)
{
	buf_free(&sse->line);
	buf_free(&sse->data);
}

static enum err overflow(const struct buf *buf)
{
	return buf->starved ? ERR_NOMEM : ERR_ANSWER_TOO_BIG;
}

static void dispatch(struct sse *sse)
{
	const char *data = sse->lent != NULL ? sse->lent : buf_bytes(&sse->data);
	size_t len = sse->lent != NULL ? sse->lent_len : buf_size(&sse->data);

	sse->lent = NULL;
	if ((sse->has_name || sse->has_data) && !sse->on_event(sse->arg, sse->name, data, len))
		sse->stopped = true;
	buf_reset(&sse->data, KEEP);
	sse->name[0] = '\0';
	sse->has_name = sse->has_data = false;
}

static bool is_field(const char *line, size_t name_len, const char *name)
{
	return name_len == strlen(name) && memcmp(line, name, name_len) == 0;
}

/* What was lent is about to go. */
static enum err keep_lent(struct sse *sse)
{
	if (sse->lent != NULL)
		buf_append(&sse->data, sse->lent, sse->lent_len);
	sse->lent = NULL;
	return sse->data.failed ? overflow(&sse->data) : ERR_OK;
}

static enum err take_data(struct sse *sse, const char *value, size_t len, bool stays)
{
	bool first = !sse->has_data;

	sse->has_data = true;
	if (first && stays && len > 0 && len <= sse->data.max) {
		sse->lent = value;
		sse->lent_len = len;
		return ERR_OK;
	}
	keep_lent(sse);
	if (!first)
		buf_append_char(&sse->data, '\n');
	buf_append(&sse->data, value, len);
	return sse->data.failed ? overflow(&sse->data) : ERR_OK;
}

/* `stays`: the line is there until sse_feed() returns. */
static enum err take_line(struct sse *sse, const char *line, size_t len, bool stays)
{
	const char *colon, *value;
	size_t name_len, value_len;

	if (!sse->begun && len >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
		line += 3;
		len -= 3;
	}
	sse->begun = true;
	if (len == 0) {
		dispatch(sse);
		return ERR_OK;
	}
	colon = memchr(line, ':', len);
	name_len = colon != NULL ? (size_t)(colon - line) : len;
	value = colon != NULL ? colon + 1 : line + len;
	value_len = len - (size_t)(value - line);
	if (value_len > 0 && value[0] == ' ') {
		value++;
		value_len--;
	}
	if (is_field(line, name_len, "event")) {
		size_t cut = value_len < sizeof sse->name ? value_len : sizeof sse->name - 1;

		memcpy(sse->name, value, cut);
		sse->name[cut] = '\0';
		sse->has_name = true;
	} else if (is_field(line, name_len, "data")) {
		return take_data(sse, value, value_len, stays);
	}
	return ERR_OK;
}

/* A line has ended; `tail` is its part in the current input, what came before lies in sse->line. */
static enum err end_line(struct sse *sse, const char *tail, size_t len)
{
	enum err rc;

	if (len > sse->line.max - buf_size(&sse->line))
		return ERR_ANSWER_TOO_BIG;
	if (buf_size(&sse->line) == 0)
		return take_line(sse, tail, len, true);
	buf_append(&sse->line, tail, len);
	if (sse->line.failed)
		return overflow(&sse->line);
	rc = take_line(sse, buf_bytes(&sse->line), buf_size(&sse->line), false);
	buf_reset(&sse->line, KEEP);
	return rc;
}

/* The first CR or LF, or `end`. */
static const char *line_end(const char *p, const char *end)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p));
	const char *stop = lf != NULL ? lf : end;
	const char *cr = memchr(p, '\r', (size_t)(stop - p));

	return cr != NULL ? cr : stop;
}

enum err sse_feed(struct sse *sse, const char *bytes, size_t len)
{
	const char *p = bytes, *end = bytes + len;
	enum err rc = ERR_OK;

	while (p < end && !sse->stopped && rc == ERR_OK) {
		const char *stop;

		if (sse->after_cr && *p == '\n') {
			sse->after_cr = false;
			p++;
			continue;
		}
		sse->after_cr = false;
		stop = line_end(p, end);
		if (stop == end) {
			buf_append(&sse->line, p, (size_t)(end - p));
			rc = sse->line.failed ? overflow(&sse->line) : ERR_OK;
			break;
		}
		rc = end_line(sse, p, (size_t)(stop - p));
		sse->after_cr = *stop == '\r';
		p = stop + 1;
	}
	return rc == ERR_OK ? keep_lent(sse) : rc;
}

enum err sse_finish(struct sse *sse)
{
	enum err rc = ERR_OK;

	if (sse->stopped)
		return ERR_OK;
	if (buf_size(&sse->line) > 0)
		rc = end_line(sse, "", 0);
	if (rc == ERR_OK && !sse->stopped)
		dispatch(sse);
	return rc;
}
