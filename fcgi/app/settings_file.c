/*
 * settings_file.c - see settings_file.h.
 */
#include "app/settings_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX  (1024 * 1024) /* bytes of the whole file */
#define LINES_MAX 2048

struct setting {
	char *name, *value; /* within `text` */
};

struct settings_file {
	char *text; /* the file, cut into names and values in place */
	size_t size;
	struct setting settings[LINES_MAX];
	size_t count;
};

/* As env/service has it; a line's end is none. */
static bool is_blank(char c)
{
	return c != '\0' && strchr(" \t\r\v\f", c) != NULL;
}

static char *skip_blanks(char *p)
{
	while (is_blank(*p))
		p++;
	return p;
}

/* Only a comment may follow a quoted value. */
static bool ends_here(char *p)
{
	p = skip_blanks(p);
	return *p == '\0' || *p == '#';
}

/* Takes the quotes off in place; NULL when they do not match. */
static char *unquote(char *value)
{
	char quote = *value, *from = value + 1, *to = value;

	for (; *from != '\0' && *from != quote; from++) {
		if (quote == '"' && from[0] == '\\' && from[1] != '\0' && strchr("\"\\$", from[1]) != NULL)
			from++;
		*to++ = *from;
	}
	if (*from != quote || !ends_here(from + 1))
		return NULL;
	*to = '\0';
	return value;
}

/* A # begins a comment after a blank; blanks at the ends do not count. */
static char *bare(char *value)
{
	char *end = value;

	for (char *p = value; *p != '\0'; p++) {
		if (*p == '#' && is_blank(p[-1]))
			break;
		if (!is_blank(*p))
			end = p + 1;
	}
	*end = '\0';
	return value;
}

/* Takes the line apart. False when it is neither empty, a comment nor NAME=value; *why then says so. */
static bool read_line(struct settings_file *file, char *line, const char **why)
{
	char *name = skip_blanks(line), *end, *value;

	*why = "is not NAME=value";
	if (*name == '\0' || *name == '#')
		return true;
	if (strncmp(name, "export", 6) == 0 && is_blank(name[6]))
		name = skip_blanks(name + 6);
	for (end = name; isalnum((unsigned char)*end) || *end == '_'; end++)
		;
	value = skip_blanks(end);
	if (end == name || isdigit((unsigned char)*name) || *value != '=')
		return false;
	value = skip_blanks(value + 1);
	*end = '\0';
	*why = "has quotes that do not match";
	value = *value == '"' || *value == '\'' ? unquote(value) : bare(value);
	if (value == NULL)
		return false;
	*why = "is one too many";
	if (file->count == LINES_MAX)
		return false;
	file->settings[file->count++] = (struct setting){ name, value };
	return true;
}

/* A problem is one line: a path that would break it is not shown. */
static const char *shown(const char *path)
{
	for (const char *p = path; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7F)
			return "(unprintable)";
	return path;
}

static bool parse(struct settings_file *file, const char *path, struct buf *problems)
{
	char *line = file->text, *next;
	bool good = true;

	if (strlen(line) != file->size) {
		buf_printf(problems, "%s: must be text, and has a zero byte\n", shown(path));
		return false;
	}
	if (strncmp(line, "\xEF\xBB\xBF", 3) == 0)
		line += 3;
	for (size_t number = 1; line != NULL; number++, line = next) {
		const char *why;

		next = strchr(line, '\n');
		if (next != NULL)
			*next++ = '\0';
		if (!read_line(file, line, &why)) {
			buf_printf(problems, "%s line %zu %s\n", shown(path), number, why);
			good = false;
		}
	}
	return good;
}

struct settings_file *settings_file_read(const char *path, struct buf *problems)
{
	struct settings_file *file = calloc(1, sizeof *file);
	FILE *stream = fopen(path, "re");
	bool good = false;

	if (file != NULL)
		file->text = malloc(FILE_MAX + 1);
	if (stream == NULL || file == NULL || file->text == NULL) {
		buf_printf(problems, "SETTINGS_FILE=%s: cannot be read: %s\n", shown(path), strerror(errno));
	} else {
		file->size = fread(file->text, 1, FILE_MAX, stream);
		file->text[file->size] = '\0';
		if (ferror(stream))
			buf_printf(problems, "SETTINGS_FILE=%s: cannot be read: %s\n", shown(path),
				   strerror(errno));
		else if (file->size == FILE_MAX)
			buf_printf(problems, "SETTINGS_FILE=%s: must have less than %d bytes\n", shown(path),
				   FILE_MAX);
		else
			good = parse(file, path, problems);
	}
	if (stream != NULL)
		(void)fclose(stream);
	if (good)
		return file;
	settings_file_free(file);
	return NULL;
}

void settings_file_free(struct settings_file *file)
{
	if (file == NULL)
		return;
	if (file->text != NULL)
		explicit_bzero(file->text, FILE_MAX);
	free(file->text);
	free(file);
}

const char *settings_file_get(const struct settings_file *file, const char *name)
{
	for (size_t i = file->count; i-- > 0;)
		if (strcmp(file->settings[i].name, name) == 0)
			return file->settings[i].value;
	return NULL;
}
