/*
 * log.c - see log.h.
 */
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/utf8.h"

#define VALUE_MAX 512 /* bytes of one value; what comes behind is cut */

static struct {
	int fd;
	enum log_level level;
} the_log = { STDERR_FILENO, LOG_LEVEL_INFO };

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void log_open(int fd, enum log_level level)
{
	the_log.fd = fd;
	the_log.level = level;
}

bool log_wants(enum log_level level)
{
	return level <= the_log.level;
}

static bool needs_quotes(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] <= ' ' || text[i] == '"' || text[i] == '=' || text[i] == '\\')
			return true;
	return false;
}

/* C1 controls (U+0080 to U+009F) steer terminals just as the C0 ones do. */
static bool is_control(const unsigned char *p, size_t len)
{
	return p[0] < 0x20 || p[0] == 0x7F || (len == 2 && p[0] == 0xC2 && p[1] < 0xA0);
}

static void append_value(struct buf *line, const char *text)
{
	size_t len = strlen(text);
	size_t cut = len > VALUE_MAX ? VALUE_MAX : len;
	bool quotes = needs_quotes(text, cut);

	if (quotes)
		buf_append_char(line, '"');
	for (size_t at = 0; at < cut;) {
		const unsigned char *p = (const unsigned char *)text + at;
		size_t step = 1;

		while (step < 4 && at + step < len && (p[step] & 0xC0) == 0x80)
			step++;
		if (!utf8_valid((const char *)p, step) || is_control(p, step)) {
			for (size_t i = 0; i < step; i++)
				buf_printf(line, "\\x%02x", p[i]);
		} else {
			if (p[0] == '"' || p[0] == '\\')
				buf_append_char(line, '\\');
			buf_append(line, p, step);
		}
		at += step;
	}
	if (cut < len)
		buf_append_str(line, "…");
	if (quotes)
		buf_append_char(line, '"');
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
	char date[CLOCK_ISO_SIZE];
	struct buf line;

	buf_init(&line, 512 + count * (4 * VALUE_MAX + 128)); /* room for every byte escaped */
	clock_iso(date, clock_unix_us());
	buf_printf(&line, "%s %s pid=%d event=%s", date, level_names[level], (int)getpid(), event);
	for (size_t i = 0; i < count; i++) {
		if (fields[i].text != NULL && fields[i].text[0] == '\0')
			continue;
		buf_printf(&line, " %s=", fields[i].key);
		if (fields[i].text != NULL)
			append_value(&line, fields[i].text);
		else
			buf_printf(&line, "%llu", (unsigned long long)fields[i].number);
	}
	buf_append_char(&line, '\n');
	/* A log that cannot be written must not stop the service: there is nowhere to report it. */
	if (!line.failed) {
		ssize_t written = write(the_log.fd, buf_bytes(&line), buf_size(&line));

		(void)written;
	}
	buf_free(&line);
}
