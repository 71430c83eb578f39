/*
 * log.c - see log.h.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/utf8.h"

#define LINE_ROOM 4096 /* bytes that nearly every line fits */
#define VALUE_MAX 512  /* bytes of one value; what comes behind is cut */

static struct {
	int fd;
	enum log_level level;
	enum log_format format;
	char path[PATH_MAX]; /* "" when the descriptor is somebody else's */
} the_log = { .fd = STDERR_FILENO, .level = LOG_LEVEL_INFO };

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void log_open(int fd, enum log_level level, enum log_format format)
{
	the_log.fd = fd;
	the_log.level = level;
	the_log.format = format;
	the_log.path[0] = '\0';
}

static int open_path(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

bool log_open_file(const char *path, enum log_level level, enum log_format format)
{
	int fd = STDERR_FILENO;

	if (strcmp(path, "-") == 0) {
		log_open(fd, level, format);
		return true;
	}
	if (strlen(path) >= sizeof the_log.path) {
		errno = ENAMETOOLONG;
		return false;
	}
	fd = open_path(path);
	if (fd < 0)
		return false;
	log_open(fd, level, format);
	snprintf(the_log.path, sizeof the_log.path, "%s", path);
	return true;
}

void log_reopen(void)
{
	int fd;

	if (the_log.path[0] == '\0')
		return;
	fd = open_path(the_log.path);
	if (fd < 0) {
		log_event(LOG_LEVEL_ERROR, "log", LOG_TEXT("why", strerror(errno)));
		return;
	}
	close(the_log.fd);
	the_log.fd = fd;
}

bool log_wants(enum log_level level)
{
	return level <= the_log.level;
}

static bool needs_quotes(const char *text)
{
	for (size_t i = 0; i < VALUE_MAX && text[i] != '\0'; i++)
		if ((unsigned char)text[i] <= ' ' || strchr("\"'=\\", text[i]) != NULL)
			return true;
	return false;
}

/* C1 controls (U+0080 to U+009F) steer terminals just as the C0 ones do. */
static bool is_control(const unsigned char *p, size_t len)
{
	return p[0] < 0x20 || p[0] == 0x7F || (len == 2 && p[0] == 0xC2 && p[1] < 0xA0);
}

/* The bytes of the character at `p`, of which `len` are there; *good: it is one that may be shown as it is. */
static size_t character(const unsigned char *p, size_t len, bool *good)
{
	size_t step = 1;

	while (step < 4 && step < len && (p[step] & 0xC0) == 0x80)
		step++;
	*good = utf8_valid((const char *)p, step) && !is_control(p, step);
	return step;
}

static void append_bytes_escaped(struct buf *line, const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf_printf(line, "\\x%02x", p[i]);
}

/* JSON knows no \x: what is no character becomes U+FFFD, a control character its \u escape. */
static void append_json_escaped(struct buf *line, const unsigned char *p, size_t len)
{
	if (is_control(p, len) && utf8_valid((const char *)p, len))
		buf_printf(line, "\\u%04x", len == 2 ? p[1] : p[0]);
	else
		buf_append_str(line, "\\ufffd");
}

/* The text of a value, cut and escaped, without quotes around it. */
static void append_escaped(struct buf *line, const char *text, bool json)
{
	size_t len = strlen(text);
	size_t cut = len > VALUE_MAX ? VALUE_MAX : len;

	/* cppcheck-suppress knownConditionTrueFalse ; it takes `cut` for 0 when it need not be VALUE_MAX */
	for (size_t at = 0; at < cut;) {
		const unsigned char *p = (const unsigned char *)text + at;
		bool good;
		size_t step = character(p, len - at, &good);

		if (!good && json)
			append_json_escaped(line, p, step);
		else if (!good)
			append_bytes_escaped(line, p, step);
		else if (p[0] == '"' || p[0] == '\\')
			buf_printf(line, "\\%c", p[0]);
		else
			buf_append(line, p, step);
		at += step;
	}
	if (cut < len)
		buf_append_str(line, "…");
}

static void append_field(struct buf *line, const struct log_field *field)
{
	bool json = the_log.format == LOG_FORMAT_JSON;
	bool quotes = field->kind == LOG_KIND_TEXT && (json || needs_quotes(field->text));

	buf_printf(line, json ? ",\"%s\":" : " %s=", field->key);
	if (quotes)
		buf_append_char(line, '"');
	if (field->kind == LOG_KIND_TEXT)
		append_escaped(line, field->text, json);
	else if (field->kind == LOG_KIND_NUMBER)
		buf_printf(line, "%llu", (unsigned long long)field->number);
	else
		buf_printf(line, "%llu.%03u", (unsigned long long)(field->number / 1000),
			   (unsigned)(field->number % 1000));
	if (quotes)
		buf_append_char(line, '"');
}

static void write_line(struct buf *line, enum log_level level, const char *event,
		       const struct log_field *fields, size_t count)
{
	char date[CLOCK_ISO_SIZE];
	bool json = the_log.format == LOG_FORMAT_JSON;

	clock_iso(date, clock_unix_us());
	buf_printf(line,
		   json ? "{\"time\":\"%s\",\"level\":\"%s\",\"pid\":%d,\"event\":\"%s\""
			: "%s %s pid=%d event=%s",
		   date, level_names[level], (int)getpid(), event);
	for (size_t i = 0; i < count; i++)
		if (fields[i].kind != LOG_KIND_TEXT || fields[i].text[0] != '\0')
			append_field(line, &fields[i]);
	buf_append_str(line, json ? "}\n" : "\n");
}

void log_fields(enum log_level level, const char *event, const struct log_field *fields, size_t count)
{
	char room[LINE_ROOM];
	struct buf line;

	/* What is told of a shortage of memory must need none. */
	buf_init_in(&line, room, sizeof room);
	write_line(&line, level, event, fields, count);
	if (line.failed) {
		buf_init(&line, 512 + count * (6 * VALUE_MAX + 128)); /* room for every byte escaped */
		write_line(&line, level, event, fields, count);
	}
	/* A log that cannot be written must not stop the service: it is counted, and shown among the metrics. */
	if (line.failed || write(the_log.fd, buf_bytes(&line), buf_size(&line)) != (ssize_t)buf_size(&line))
		metric_add(&metrics->counters.log_failures, 1);
	buf_free(&line);
}
