/*
 * settings_file.h - settings in a file of NAME=value lines, in the syntax of `.env`.
 *
 * A value is bare (a comment may follow after a blank and #), 'in single quotes' (nothing is special in there) or "in
 * double quotes" (\" \\ \$ stand for the character). A leading `export ` is allowed, empty lines and # comments are
 * skipped, and nothing is ever executed. The last line of a name counts.
 */
#ifndef APP_SETTINGS_FILE_H
#define APP_SETTINGS_FILE_H

#include <stdbool.h>

#include "base/buf.h"

struct settings_file;

/*
 * Reads `path`. NULL when that fails: then each problem is a line in `problems`, naming the file and the line's number,
 * never its text: it may hold a secret. The result is the caller's to free, which also wipes it.
 */
struct settings_file *settings_file_read(const char *path, struct buf *problems);
void settings_file_free(struct settings_file *file);

/* The value of `name`, lent; NULL when the file does not name it. */
const char *settings_file_get(const struct settings_file *file, const char *name);

#endif
