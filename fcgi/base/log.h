/*
 * log.h - one line per event, `key=value`, led by the ids in hand.
 *
 *   2024-01-15T10:30:15.123456 info pid=71 event=request req=9f… status=200 …
 *   {"time":"2024-01-15T10:30:15.123456","level":"info","pid":71,"event":"request","req":"9f…","status":200,…}
 *
 * The log is the process's, like its standard error, so this module has a state of its own. Lines are written with one
 * write(2) each, so those of several workers never mix. Message text, tokens and keys are never passed in.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

enum log_kind { LOG_KIND_TEXT, LOG_KIND_NUMBER, LOG_KIND_THOUSANDTHS };

struct log_field {
	const char *key;
	const char *text;
	uint64_t number;
	enum log_kind kind;
};

#define LOG_TEXT(key, text)     ((struct log_field){ (key), (text) != NULL ? (text) : "-", 0, LOG_KIND_TEXT })
#define LOG_NUMBER(key, number) ((struct log_field){ (key), NULL, (uint64_t)(number), LOG_KIND_NUMBER })
/* Microseconds, shown as milliseconds: 1234 as 1.234. */
#define LOG_MS(key, us) ((struct log_field){ (key), NULL, (uint64_t)(us), LOG_KIND_THOUSANDTHS })

/* Where lines go from now on: a file descriptor (borrowed), in which form, and what is worth a line. */
void log_open(int fd, enum log_level level, enum log_format format);

/*
 * The same for a file, which is made if need be and appended to; "-" is standard error. Remembers `path` (copied).
 * False, and nothing changed, when it cannot be opened (errno says why).
 */
bool log_open_file(const char *path, enum log_level level, enum log_format format);

/* Opens the file again by its name, after somebody has moved it away. On failure lines go on into the old one. */
void log_reopen(void);

bool log_wants(enum log_level level);

/*
 * Writes a line of `count` fields. Values may be hostile: control characters, quotes and invalid UTF-8 are
 * escaped, long ones are cut, a value with blanks or quotes is quoted. Fields without text ("") are left out.
 */
void log_fields(enum log_level level, const char *event, const struct log_field *fields, size_t count);

#define log_event(level, event, ...)                                                                       \
	do {                                                                                               \
		if (log_wants(level)) {                                                                    \
			const struct log_field log__fields[] = { __VA_ARGS__ };                            \
			log_fields(level, event, log__fields, sizeof log__fields / sizeof log__fields[0]); \
		}                                                                                          \
	} while (0)

#endif
