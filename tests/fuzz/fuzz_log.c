/*
 * fuzz_log.c - whatever a value holds, an event is one line that no terminal and no parser of logs stumbles over: as text
 * it has no control characters, as JSON it is an object whose members say what was given.
 *
 * Input: texts with NULs between, one for each field.
 */
#include "fuzz.h"

#include <json-c/json.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

#define FIELDS 4
#define SHOWN  512 /* bytes of a value that are shown for sure */

static const char *const keys[FIELDS] = { "one", "two", "three", "four" };

/* What was logged; to be freed. */
static char *log_line(int fd, enum log_format format, const struct log_field *fields, size_t *len)
{
	char *line;
	off_t size;

	CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	log_open(fd, LOG_LEVEL_DEBUG, format);
	log_fields(LOG_LEVEL_INFO, "fuzz", fields, FIELDS);
	size = lseek(fd, 0, SEEK_CUR);
	CHECK(size > 0);
	*len = (size_t)size;
	line = malloc(*len + 1);
	CHECK(line != NULL && pread(fd, line, *len, 0) == size);
	line[*len] = '\0';
	return line;
}

static void check_printable(const char *line, size_t len)
{
	CHECK(line[len - 1] == '\n' && utf8_valid(line, len));
	for (size_t i = 0; i + 1 < len; i++) {
		CHECK((unsigned char)line[i] >= 0x20 && line[i] != 0x7F);
		CHECK((unsigned char)line[i] != 0xC2 || (unsigned char)line[i + 1] >= 0xA0);
	}
}

/* Each field once, in order, and what is between quotes has none of its own. */
static void check_text(const char *line, const struct log_field *fields)
{
	const char *p = strstr(line, " event=fuzz");

	CHECK(p != NULL);
	p += strlen(" event=fuzz");
	for (size_t i = 0; i < FIELDS; i++) {
		size_t len;

		if (fields[i].text[0] == '\0')
			continue;
		CHECK(*p == ' ' && strncmp(p + 1, keys[i], strlen(keys[i])) == 0);
		p += 1 + strlen(keys[i]);
		CHECK(*p++ == '=');
		if (*p == '"') {
			for (p++; *p != '"'; p++) {
				CHECK(*p != '\n');
				p += *p == '\\';
			}
			p++;
			continue;
		}
		len = strcspn(p, " \"=\n");
		CHECK(len > 0);
		p += len;
	}
	CHECK(strcmp(p, "\n") == 0);
}

static void check_member(struct json_object *doc, const struct log_field *field)
{
	struct json_object *value;
	const char *text;
	size_t len = strlen(field->text);

	if (len == 0) {
		CHECK(!json_object_object_get_ex(doc, field->key, &value));
		return;
	}
	CHECK(json_object_object_get_ex(doc, field->key, &value) &&
	      json_object_is_type(value, json_type_string));
	text = json_object_get_string(value);
	CHECK(len > SHOWN || !utf8_valid(field->text, len) || strcmp(text, field->text) == 0);
	CHECK(len <= SHOWN || strcmp(text + strlen(text) - strlen("…"), "…") == 0);
}

static void check_json(const char *line, size_t len, const struct log_field *fields)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *doc;

	CHECK(tokener != NULL);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	doc = json_tokener_parse_ex(tokener, line, (int)len - 1);
	CHECK(json_tokener_get_error(tokener) == json_tokener_success);
	CHECK(json_tokener_get_parse_end(tokener) == len - 1);
	for (size_t i = 0; i < FIELDS; i++)
		check_member(doc, &fields[i]);
	json_object_put(doc);
	json_tokener_free(tokener);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static int fd = -1;
	struct input input = input_of(bytes, len);
	struct log_field fields[FIELDS];
	char *texts[FIELDS], *line;

	if (fd < 0)
		fd = memfd_create("log", MFD_CLOEXEC);
	for (size_t i = 0; i < FIELDS; i++) {
		struct input part = input_until(&input, '\0');

		texts[i] = exact_string(part.at, part.left);
		fields[i] = LOG_TEXT(keys[i], texts[i]);
	}
	line = log_line(fd, LOG_FORMAT_TEXT, fields, &len);
	check_printable(line, len);
	check_text(line, fields);
	free(line);
	line = log_line(fd, LOG_FORMAT_JSON, fields, &len);
	check_printable(line, len);
	check_json(line, len, fields);
	free(line);
	log_open(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	for (size_t i = 0; i < FIELDS; i++)
		free(texts[i]);
	return 0;
}
