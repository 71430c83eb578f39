/*
 * test_settings_file.c - lines of NAME=value are taken as the syntax of `.env` says, whatever else is in the file is
 * refused with its place and without its text. tests/e2e/test_settings_file.py compares with env/service, line by line.
 */
#include "unit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/settings_file.h"
#include "failing_alloc.h"

#define FILE_MAX (1024 * 1024)

static char directory[] = "/tmp/test_settings_file.XXXXXX";

static int make_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink("settings");
	return chdir("/") != 0 || rmdir(directory) != 0;
}

static void put_file(const char *bytes, size_t len)
{
	int fd = open("settings", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static struct settings_file *read_good(const char *bytes, size_t len)
{
	struct settings_file *file;
	struct buf problems;

	put_file(bytes, len);
	buf_init(&problems, 65536);
	file = settings_file_read("settings", &problems);
	if (file == NULL)
		fail_msg("\"%.*s\": %.*s", (int)len, bytes, (int)buf_size(&problems), buf_bytes(&problems));
	assert_int_equal(buf_size(&problems), 0);
	buf_free(&problems);
	return file;
}

/* What is wrong with `path`; to be freed. */
static char *complaint(const char *path)
{
	struct buf problems;
	char *text;

	buf_init(&problems, 1024 * 1024);
	assert_null(settings_file_read(path, &problems));
	text = buf_string(&problems);
	buf_free(&problems);
	assert_true(strlen(text) > 1 && text[strlen(text) - 1] == '\n');
	assert_lacks(text, "SECRET");
	return text;
}

static void assert_refused(const char *bytes, size_t len, const char *expected)
{
	char *text;

	put_file(bytes, len);
	text = complaint("settings");
	assert_string_equal(text, expected);
	free(text);
}

static void test_a_line_names_a_setting(void **state)
{
	static const struct {
		const char *line, *value; /* of A; NULL: there is none */
	} cases[] = {
		{ "A=", "" },
		{ "A=b", "b" },
		{ "A=b\n", "b" },
		{ "A=b\r\n", "b" },
		{ "A=b\r", "b" },
		{ "A=b\r\r\n", "b" },
		{ "\v\fA\v=\fb\v\n", "b" },
		{ "A=b\v# c", "b" },
		{ " \tA\t = \t b \t", "b" },
		{ "A=b c  d", "b c  d" },
		{ "A==", "=" },
		{ "A=b=c", "b=c" },
		{ "A=b#c", "b#c" },
		{ "A=b #c", "b" },
		{ "A=b\t#c", "b" },
		{ "A=b # c # d", "b" },
		{ "A=# c", "# c" },
		{ "A= # c", "" },
		{ "A= #", "" },
		{ "A=b\\nc", "b\\nc" },
		{ "A=b'c", "b'c" },
		{ "A=b\"c\"", "b\"c\"" },
		{ "A=$HOME", "$HOME" },
		{ "A=`id`$(id)", "`id`$(id)" },
		{ "A=\"\"", "" },
		{ "A=''", "" },
		{ "A=\"b\"", "b" },
		{ "A='b'", "b" },
		{ "A=\" b \"", " b " },
		{ "A=' b '", " b " },
		{ "A= \"b\" ", "b" },
		{ "A=\"b\" # c", "b" },
		{ "A=\"b\"# c", "b" },
		{ "A='b' # c", "b" },
		{ "A='b'#'c", "b" },
		{ "A=\"b # c\"", "b # c" },
		{ "A='b # c'", "b # c" },
		{ "A=\"b\\\"c\"", "b\"c" },
		{ "A=\"b\\\\c\"", "b\\c" },
		{ "A=\"b\\$c\"", "b$c" },
		{ "A=\"b$c\"", "b$c" },
		{ "A=\"b\\nc\"", "b\\nc" },
		{ "A=\"b\\'c\"", "b\\'c" },
		{ "A=\"\\\\\"", "\\" },
		{ "A=\"\\\\\\\\\"", "\\\\" },
		{ "A=\"\\\\\\\"\"", "\\\"" },
		{ "A=\"\\\\$\"", "\\$" },
		{ "A=\"'\"", "'" },
		{ "A='\"'", "\"" },
		{ "A='b\\'", "b\\" },
		{ "A='\\\"'", "\\\"" },
		{ "export A=b", "b" },
		{ "export\t A=b", "b" },
		{ "  export A=b", "b" },
		{ "export=c\nA=b", "b" },
		{ "exportA=b", NULL },
		{ "_A=b", NULL },
		{ "A1=b", NULL },
		{ "a=b", NULL },
		{ "", NULL },
		{ "\n\n", NULL },
		{ " \t", NULL },
		{ "#A=b", NULL },
		{ " \t# A=b", NULL },
		{ "\xEF\xBB\xBF"
		  "A=b",
		  "b" },
		{ "\xEF\xBB\xBF# A=c\nA=b", "b" },
		{ "A=\xEF\xBB\xBF", "\xEF\xBB\xBF" },
		{ "A=你好 😀", "你好 😀" },
		{ "A=\xFF", "\xFF" }, /* config.c refuses it, with the setting's name */
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct settings_file *file = read_good(cases[i].line, strlen(cases[i].line));
		const char *value = settings_file_get(file, "A");

		if ((value == NULL) != (cases[i].value == NULL) ||
		    (value != NULL && strcmp(value, cases[i].value) != 0))
			fail_msg("\"%s\" gave \"%s\"", cases[i].line, value != NULL ? value : "nothing");
		settings_file_free(file);
	}
}

static void test_the_last_line_of_a_name_counts(void **state)
{
	struct settings_file *file = read_good(BYTES("A=1\nB=2\nA=3\nA=\n"));

	(void)state;
	assert_string_equal(settings_file_get(file, "A"), "");
	assert_string_equal(settings_file_get(file, "B"), "2");
	assert_null(settings_file_get(file, "C"));
	assert_null(settings_file_get(file, ""));
	settings_file_free(file);
}

static void test_what_is_no_setting_is_refused(void **state)
{
	static const char *const not_a_setting[] = {
		"SECRET",  "=SECRET",        "1A=SECRET",  "A-B=SECRET",   "A B=SECRET", "export",
		"export ", "export =SECRET", "A.B=SECRET", "\"A\"=SECRET", "你=SECRET",  "A[0]=SECRET",
	};
	static const char *const bad_quotes[] = {
		"A=\"SECRET",
		"A='SECRET",
		"A=\"SECRET'",
		"A=\"SECRET\" SECRET",
		"A=\"SECRET\"SECRET",
		"A=\"SECRET\\\"",
		"A='SECRET'SECRET",
		"A='SECRET\\''",
		"A=\"\\\\\"SECRET\"",
		"A=\"",
		"A='",
		"A=\"SECRET\" \"",
		"A=\"SECRET\\",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(not_a_setting); i++)
		assert_refused(not_a_setting[i], strlen(not_a_setting[i]),
			       "settings line 1 is not NAME=value\n");
	for (size_t i = 0; i < COUNT(bad_quotes); i++)
		assert_refused(bad_quotes[i], strlen(bad_quotes[i]),
			       "settings line 1 has quotes that do not match\n");
}

static void test_every_bad_line_is_named(void **state)
{
	(void)state;
	assert_refused(BYTES("\xEF\xBB\xBFSECRET\r\nA=1\n\n# x\nB='SECRET\nSECRET"),
		       "settings line 1 is not NAME=value\n"
		       "settings line 5 has quotes that do not match\n"
		       "settings line 6 is not NAME=value\n");
}

/* A file that is not text was not meant, and half of one must not be taken for the whole. */
static void test_a_zero_byte_is_refused(void **state)
{
	(void)state;
	assert_refused(BYTES("A=1\0\nB=SECRET\n"), "settings: must be text, and has a zero byte\n");
	assert_refused(BYTES("\0"), "settings: must be text, and has a zero byte\n");
	assert_refused(BYTES("A=1\n\0"), "settings: must be text, and has a zero byte\n");
}

static void test_a_file_has_a_largest_size(void **state)
{
	char *bytes = get_memory(FILE_MAX + 1);
	struct settings_file *file;
	char expected[100];

	(void)state;
	snprintf(expected, sizeof expected, "SETTINGS_FILE=settings: must have less than %d bytes\n",
		 FILE_MAX);
	memset(bytes, 'x', FILE_MAX + 1);
	memcpy(bytes, "A=", 2);
	file = read_good(bytes, FILE_MAX - 1);
	assert_int_equal(strlen(settings_file_get(file, "A")), FILE_MAX - 3);
	settings_file_free(file);
	assert_refused(bytes, FILE_MAX, expected);
	assert_refused(bytes, FILE_MAX + 1, expected);
	free(bytes);
}

static void test_a_file_has_a_largest_number_of_settings(void **state)
{
	struct settings_file *file;
	struct buf text;

	(void)state;
	buf_init(&text, FILE_MAX);
	for (unsigned i = 0; i < 2048; i++)
		buf_printf(&text, "A%u=%u\n", i, i);
	file = read_good(buf_bytes(&text), buf_size(&text));
	assert_string_equal(settings_file_get(file, "A0"), "0");
	assert_string_equal(settings_file_get(file, "A2047"), "2047");
	settings_file_free(file);
	buf_append_str(&text, "# but comments are free\n\nA=SECRET\n");
	assert_refused(buf_bytes(&text), buf_size(&text), "settings line 2051 is one too many\n");
	buf_free(&text);
}

static void test_what_cannot_be_read_is_told(void **state)
{
	static const struct {
		const char *path, *problem;
	} cases[] = {
		{ "/nowhere/settings",
		  "SETTINGS_FILE=/nowhere/settings: cannot be read: No such file or directory\n" },
		{ "/tmp", "SETTINGS_FILE=/tmp: cannot be read: Is a directory\n" },
		{ "settings/x", "SETTINGS_FILE=settings/x: cannot be read: Not a directory\n" },
	};

	(void)state;
	put_file("", 0);
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = complaint(cases[i].path);

		assert_string_equal(text, cases[i].problem);
		free(text);
	}
}

static void test_an_unreadable_file_is_told(void **state)
{
	char *text;

	(void)state;
	if (geteuid() == 0)
		skip(); /* root reads everything */
	put_file("A=SECRET\n", 9);
	assert_int_equal(chmod("settings", 0), 0);
	text = complaint("settings");
	assert_int_equal(chmod("settings", 0600), 0);
	assert_string_equal(text, "SETTINGS_FILE=settings: cannot be read: Permission denied\n");
	free(text);
}

/* A problem is one line: else a path could forge the next one. */
static void test_a_hostile_path_forges_no_problem(void **state)
{
	char *text = complaint("nowhere\nWORKERS=0: forged\x1B[31m");

	(void)state;
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	assert_null(strchr(text, '\x1B'));
	free(text);
}

/* Anything may be in the file: it is taken or refused, and every read stays within. */
static void test_random_bytes_are_survived(void **state)
{
	static const char alphabet[] = "A=\"'\\$# \t\r\n\xEF\xBB\xBF_1e\x0b";
	uint64_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 3000; round++) {
		size_t len = next_random(&random) % 40;
		struct settings_file *file;
		struct buf problems;
		char bytes[40];

		for (size_t i = 0; i < len; i++)
			bytes[i] = alphabet[next_random(&random) % (sizeof alphabet - 1)];
		put_file(bytes, len);
		buf_init(&problems, 65536);
		file = settings_file_read("settings", &problems);
		assert_int_equal(file == NULL, buf_size(&problems) > 0);
		if (file != NULL)
			settings_file_get(file, "A");
		settings_file_free(file);
		buf_free(&problems);
	}
}

static void test_each_failed_allocation_is_told(void **state)
{
	bool failed = true;

	(void)state;
	put_file("A=b\n", 4);
	for (long good = 0; failed; good++) {
		struct settings_file *file;
		struct buf problems;

		buf_init(&problems, 65536);
		buf_append_str(&problems, "room\n");
		buf_consume(&problems, buf_size(&problems));
		alloc_fail_after(good);
		file = settings_file_read("settings", &problems);
		failed = alloc_failed();
		assert_true(file != NULL || failed); /* reading itself can do without a buffer */
		assert_int_equal(file == NULL, buf_size(&problems) > 0);
		settings_file_free(file);
		buf_free(&problems);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_names_a_setting),
		cmocka_unit_test(test_the_last_line_of_a_name_counts),
		cmocka_unit_test(test_what_is_no_setting_is_refused),
		cmocka_unit_test(test_every_bad_line_is_named),
		cmocka_unit_test(test_a_zero_byte_is_refused),
		cmocka_unit_test(test_a_file_has_a_largest_size),
		cmocka_unit_test(test_a_file_has_a_largest_number_of_settings),
		cmocka_unit_test(test_what_cannot_be_read_is_told),
		cmocka_unit_test(test_an_unreadable_file_is_told),
		cmocka_unit_test(test_a_hostile_path_forges_no_problem),
		cmocka_unit_test(test_random_bytes_are_survived),
		cmocka_unit_test(test_each_failed_allocation_is_told),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
