/*
 * fuzz_settings.c - a file of settings is read, or each problem is one line that names a line and shows nothing of it; a value
 * that was read is read again when it is written in quotes.
 *
 * Input: the file.
 */
#include "fuzz.h"

#include <ctype.h>
#include <regex.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/settings_file.h"

#define ROOM (4 * 1024 * 1024)

static struct settings_file *read_file(int fd, const char *bytes, size_t len, struct buf *problems)
{
	char path[64];

	CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return settings_file_read(path, problems);
}

#define BLANKS "[ \t\r\v\f]*"
#define BEHIND BLANKS "(#.*)?"

/* What settings_file.h says of a line; and that `export` with a blank behind it is no name. */
static const char good_line[] =
    "^" BLANKS "(#.*|(export[ \t\r\v\f]" BLANKS ")?[A-Za-z_][A-Za-z0-9_]*" BLANKS "=" BLANKS
    "(\"(\\\\.|[^\"\\])*\"" BEHIND "|'[^']*'" BEHIND "|[^\"' \t\r\v\f].*|))?$";
static const char nameless_line[] = "^" BLANKS "(export)[ \t\r\v\f]" BLANKS "=";

static bool fits(regex_t *compiled, const char *pattern, const char *text)
{
	if (compiled->re_nsub == 0) /* neither pattern is without a group, once it is compiled */
		CHECK(regcomp(compiled, pattern, REG_EXTENDED) == 0);
	return regexec(compiled, text, 0, NULL, 0) == 0;
}

static bool plainly_good(struct input input)
{
	static regex_t good_regex, nameless_regex;
	bool good = input.left == 0 || memchr(input.at, '\0', input.left) == NULL;

	if (input.left >= 3 && memcmp(input.at, "\xEF\xBB\xBF", 3) == 0) {
		input.at += 3;
		input.left -= 3;
	}
	while (good && input.left > 0) {
		struct input line = input_line(&input);
		char *text = exact_string(line.at, line.left);

		good = fits(&good_regex, good_line, text) && !fits(&nameless_regex, nameless_line, text);
		free(text);
	}
	return good;
}

/* Only the words that settings_file.h promises. */
static void check_problems(const struct buf *problems)
{
	struct input rest = { buf_bytes(problems), buf_size(problems) };

	CHECK(!problems->failed && rest.left > 0 && rest.at[rest.left - 1] == '\n');
	while (rest.left > 0) {
		struct input line = input_line(&rest);
		char *text = exact_string(line.at, line.left), why[64];
		int fd, end = 0;
		unsigned number;

		if (sscanf(text, "/proc/self/fd/%d line %u %63[a-zA-Z= ]%n", &fd, &number, why, &end) != 3)
			CHECK(strstr(text, ": must be text, and has a zero byte") != NULL);
		else
			CHECK(text[end] == '\0' && number > 0);
		free(text);
	}
}

/* NAME="value", with everything escaped that means something in double quotes. */
static void write_setting(struct buf *out, const char *name, const char *value)
{
	buf_printf(out, "%s=\"", name);
	for (; *value != '\0'; value++) {
		if (strchr("\"\\$", *value) != NULL)
			buf_append_char(out, '\\');
		buf_append_char(out, *value);
	}
	buf_append_str(out, "\" # a comment\r\n");
}

static bool is_name_byte(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

/* Calls `fn` with everything in the input that may be a name. */
static void each_name(struct input input, void (*fn)(void *arg, const char *name), void *arg)
{
	while (input.left > 0) {
		size_t len = 0;

		while (len < input.left && is_name_byte(input.at[len]))
			len++;
		if (len > 0) {
			char *name = exact_string(input.at, len);

			fn(arg, name);
			free(name);
		}
		len += len < input.left;
		input.at += len;
		input.left -= len;
	}
}

struct pair {
	const struct settings_file *first, *again;
	struct buf written;
};

static void write_name(void *arg, const char *name)
{
	struct pair *pair = arg;
	const char *value = settings_file_get(pair->first, name);

	if (value == NULL)
		return;
	CHECK(strchr(value, '\n') == NULL && !isdigit((unsigned char)name[0]));
	write_setting(&pair->written, name, value);
}

static void compare_name(void *arg, const char *name)
{
	const struct pair *pair = arg;
	const char *value = settings_file_get(pair->first, name),
		   *again = settings_file_get(pair->again, name);

	CHECK((value == NULL) == (again == NULL));
	CHECK(value == NULL || strcmp(value, again) == 0);
}

static void check_again(int fd, struct settings_file *file, struct input input, struct buf *problems)
{
	struct pair pair = { .first = file };

	buf_init(&pair.written, ROOM);
	each_name(input, write_name, &pair);
	CHECK(!pair.written.failed);
	pair.again = read_file(fd, buf_bytes(&pair.written), buf_size(&pair.written), problems);
	if (pair.again != NULL) /* a name may stand in the input more often than a file may have lines */
		each_name(input, compare_name, &pair);
	else
		CHECK(memmem(buf_bytes(problems), buf_size(problems), "one too many", 12) != NULL ||
		      memmem(buf_bytes(problems), buf_size(problems), "must have less than", 19) != NULL);
	settings_file_free((struct settings_file *)pair.again);
	buf_free(&pair.written);
}

/* The same file with a mark at its front, with CRLF, and with another comment: nothing changes. */
static void check_dressed(int fd, const struct settings_file *file, struct input input)
{
	struct pair pair = { .first = file };
	struct buf dressed, problems;

	buf_init(&dressed, ROOM);
	buf_init(&problems, ROOM);
	buf_append_str(&dressed, "\xEF\xBB\xBF");
	for (size_t i = 0; i < input.left; i++) {
		if (input.at[i] == '\n')
			buf_append_char(&dressed, '\r');
		buf_append_char(&dressed, input.at[i]);
	}
	buf_append_str(&dressed, "\r\n # a comment");
	pair.again = read_file(fd, buf_bytes(&dressed), buf_size(&dressed), &problems);
	CHECK((pair.again != NULL) == (file != NULL));
	if (file != NULL)
		each_name(input, compare_name, &pair);
	settings_file_free((struct settings_file *)pair.again);
	buf_free(&dressed);
	buf_free(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static int fd = -1;
	struct settings_file *file;
	struct buf problems;

	if (fd < 0)
		fd = memfd_create("settings", MFD_CLOEXEC);
	buf_init(&problems, ROOM);
	file = read_file(fd, (const char *)bytes, len, &problems);
	if (file == NULL) {
		check_problems(&problems);
	} else {
		CHECK(buf_size(&problems) == 0);
		check_again(fd, file, input_of(bytes, len), &problems);
	}
	if (len <= 4096) /* longer ones may have a line too many */
		CHECK((file != NULL) == plainly_good(input_of(bytes, len)));
	/* cppcheck-suppress knownConditionTrueFalse ; it takes `len` for 4096 here */
	if (len < 3 || memcmp(bytes, "\xEF\xBB\xBF", 3) != 0)
		check_dressed(fd, file, input_of(bytes, len));
	settings_file_free(file);
	buf_free(&problems);
	return 0;
}
