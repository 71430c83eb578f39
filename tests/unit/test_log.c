/*
 * test_log.c - one event is one line of printable UTF-8, whatever its values hold, and it can be taken
 * apart again.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/utf8.h"

static int log_fd = -1;

static int open_log(void **state)
{
	(void)state;
	log_fd = memfd_create("log", MFD_CLOEXEC);
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	return log_fd < 0;
}

static int close_log(void **state)
{
	(void)state;
	log_open(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	return close(log_fd);
}

/* What was logged since the last call; to be freed. */
static char *logged(void)
{
	off_t size = lseek(log_fd, 0, SEEK_END);
	char *text = get_memory((size_t)size + 1);

	assert_int_equal(pread(log_fd, text, (size_t)size, 0), size);
	assert_int_equal(ftruncate(log_fd, 0), 0);
	assert_int_equal(lseek(log_fd, 0, SEEK_SET), 0);
	return text;
}

/* Nothing in a line may end it early, steer a terminal, or be no UTF-8. */
static void assert_is_one_clean_line(const char *line)
{
	size_t len = strlen(line);

	assert_true(len > 0 && line[len - 1] == '\n');
	assert_true(utf8_valid(line, len));
	for (size_t i = 0; i + 1 < len; i++) {
		unsigned char c = (unsigned char)line[i];

		assert_true(c >= 0x20 && c != 0x7F);
		assert_false(c == 0xC2 && (unsigned char)line[i + 1] < 0xA0);
	}
}

static void assert_logs_value(const char *value, const char *written)
{
	char expected[4096];
	char *line;

	log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value), LOG_NUMBER("after", 1));
	line = logged();
	snprintf(expected, sizeof expected, " event=test key=%s after=1\n", written);
	assert_is_one_clean_line(line);
	assert_contains(line, expected);
	free(line);
}

static void test_log_writes_a_line_per_event(void **state)
{
	unsigned year, month, day, hour, minute, second, micro, pid;
	char level[8] = "";
	char *line;

	(void)state;
	log_event(LOG_LEVEL_WARN, "request", LOG_TEXT("req", "9f"), LOG_NUMBER("status", 200),
		  LOG_NUMBER("bytes", UINT64_MAX), LOG_NUMBER("zero", 0));
	line = logged();
	assert_int_equal(sscanf(line, "%4u-%2u-%2uT%2u:%2u:%2u.%6u %7s pid=%u", &year, &month, &day, &hour,
				&minute, &second, &micro, level, &pid),
			 9);
	assert_string_equal(level, "warn");
	assert_int_equal(pid, getpid());
	assert_contains(line, " event=request req=9f status=200 bytes=18446744073709551615 zero=0\n");
	assert_is_one_clean_line(line);
	free(line);
}

static void test_log_leaves_out_fields_without_text(void **state)
{
	char *line;

	(void)state;
	log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("empty", ""), LOG_TEXT("null", (const char *)NULL));
	line = logged();
	assert_contains(line, " event=test null=-\n");
	free(line);
}

static void test_log_takes_events_without_fields(void **state)
{
	char *line;

	(void)state;
	log_fields(LOG_LEVEL_ERROR, "alone", NULL, 0);
	line = logged();
	assert_contains(line, " error pid=");
	assert_contains(line, " event=alone\n");
	free(line);
}

static void test_log_keeps_silent_below_its_level(void **state)
{
	(void)state;
	for (enum log_level level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
		log_open(log_fd, level, LOG_FORMAT_TEXT);
		for (enum log_level event = LOG_LEVEL_ERROR; event <= LOG_LEVEL_DEBUG; event++) {
			char *line;

			assert_int_equal(log_wants(event), event <= level);
			log_event(event, "test", LOG_NUMBER("n", 1));
			line = logged();
			assert_int_equal(line[0] != '\0', event <= level);
			free(line);
		}
	}
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void test_log_escapes_hostile_values(void **state)
{
	static const struct {
		const char *value, *written;
	} cases[] = {
		{ "plain", "plain" },
		{ "你好😀", "你好😀" },
		{ "/chat?x=1", "\"/chat?x=1\"" }, /* an equals sign could pass for a field */
		{ "two words", "\"two words\"" },
		{ " ", "\" \"" },
		{ "a\"b", "\"a\\\"b\"" },
		{ "\"", "\"\\\"\"" },
		{ "it's", "\"it's\"" }, /* what cuts words as a shell does must not see a begin here */
		{ "back\\slash", "\"back\\\\slash\"" },
		{ "\\", "\"\\\\\"" },
		{ "\\x0a", "\"\\\\x0a\"" }, /* not to be taken for an escaped line feed */
		{ "a\nb", "\"a\\x0ab\"" },
		{ "a\r\nevent=forged", "\"a\\x0d\\x0aevent=forged\"" },
		{ "\t", "\"\\x09\"" },
		{ "\x1B[31m", "\"\\x1b[31m\"" },
		{ "\x01", "\"\\x01\"" },
		{ "a\x7F", "a\\x7f" },
		{ "\xC2\x80", "\\xc2\\x80" },
		{ "x\xC2\x85y", "x\\xc2\\x85y" }, /* NEL */
		{ "\xC2\x9B"
		  "31m",
		  "\\xc2\\x9b31m" }, /* CSI in one byte */
		{ "\xC2\x9F", "\\xc2\\x9f" },
		{ "\xC2\xA0", "\xC2\xA0" },
		{ "\xFF", "\\xff" },
		{ "\xC2", "\\xc2" },
		{ "\xC0\x8A", "\\xc0\\x8a" }, /* overlong line feed */
		{ "\xED\xA0\x80", "\\xed\\xa0\\x80" },
		{ "你\xFF好", "你\\xff好" },
		{ "ok\xE4\xBD", "ok\\xe4\\xbd" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		assert_logs_value(cases[i].value, cases[i].written);
}

static void test_log_cannot_be_forged_by_any_short_value(void **state)
{
	(void)state;
	for (unsigned pair = 1; pair <= 0xFFFF; pair++) {
		char value[] = { (char)(pair & 0xFF), (char)(pair >> 8), '\0' };
		char *line;

		if (value[0] == '\0')
			continue;
		log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value));
		line = logged();
		assert_is_one_clean_line(line);
		free(line);
	}
}

/* The cut may not fall within a character, whatever its width and place. */
static void test_log_cuts_long_values(void **state)
{
	static const char *const characters[] = { "x", "é", "你", "😀", "\xFF", "\n", "\"" };

	(void)state;
	for (size_t c = 0; c < COUNT(characters); c++) {
		for (size_t lead = 0; lead < 5; lead++) {
			char value[2000] = "abcde";
			char *line;

			value[lead] = '\0';
			while (strlen(value) + 5 < sizeof value)
				strcat(value, characters[c]);
			log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value), LOG_NUMBER("after", 7));
			line = logged();
			assert_is_one_clean_line(line);
			assert_contains(line, "…");
			assert_contains(line, " after=7\n");
			assert_true(strlen(line) < 2300);
			free(line);
		}
	}
}

static void test_log_cuts_nothing_short(void **state)
{
	char value[600];
	char *line;

	(void)state;
	memset(value, 'v', sizeof value);
	value[512] = '\0';
	log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value));
	line = logged();
	assert_lacks(line, "…");
	assert_contains(line, value);
	free(line);
	value[512] = 'v';
	value[513] = '\0';
	log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value));
	line = logged();
	assert_contains(line, "v…\n");
	free(line);
}

/* A request's line has up to 21 fields. Somebody who makes all of them long must not escape being logged. */
static void test_log_writes_many_long_hostile_values(void **state)
{
	struct log_field fields[21];
	char value[2000];
	char *line;

	(void)state;
	memset(value, '\x01', sizeof value - 1);
	value[sizeof value - 1] = '\0';
	for (size_t i = 0; i < COUNT(fields); i++)
		fields[i] = LOG_TEXT("key", value);
	log_fields(LOG_LEVEL_INFO, "test", fields, COUNT(fields));
	line = logged();
	assert_is_one_clean_line(line);
	assert_contains(line, " event=test key=");
	free(line);
}

static void test_log_that_cannot_be_written_is_given_up(void **state)
{
	uint64_t before = metrics->counters.log_failures;
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	log_open(-1, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_event(LOG_LEVEL_ERROR, "test", LOG_NUMBER("n", 1));
	assert_int_equal(metrics->counters.log_failures, before + 1);
	log_open(full, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	log_event(LOG_LEVEL_ERROR, "test", LOG_NUMBER("n", 1));
	log_event(LOG_LEVEL_DEBUG, "test", LOG_NUMBER("n", 1)); /* not wanted: not lost */
	assert_int_equal(metrics->counters.log_failures, before + 2);
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_event(LOG_LEVEL_ERROR, "test", LOG_NUMBER("n", 1));
	assert_int_equal(metrics->counters.log_failures, before + 2);
	free(logged());
	close(full);
}

static void test_log_writes_milliseconds(void **state)
{
	static const struct {
		uint64_t us;
		const char *written;
	} cases[] = {
		{ 0, " ms=0.000\n" },          { 1, " ms=0.001\n" },
		{ 999, " ms=0.999\n" },        { 1000, " ms=1.000\n" },
		{ 1234567, " ms=1234.567\n" }, { UINT64_MAX, " ms=18446744073709551.615\n" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *line;

		log_event(LOG_LEVEL_INFO, "test", LOG_MS("ms", cases[i].us));
		line = logged();
		assert_contains(line, cases[i].written);
		free(line);
	}
}

/* ---- JSON ---- */

/* The line as an object: one object, nothing before it, a line feed behind it, and read as strictly as can be. */
static struct json_object *parsed(const char *line)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object;
	size_t len = strlen(line);

	assert_is_one_clean_line(line);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	object = json_tokener_parse_ex(tokener, line, (int)len - 1);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    json_tokener_get_parse_end(tokener) != len - 1)
		fail_msg("no JSON: %s", line);
	assert_int_equal(json_object_get_type(object), json_type_object);
	json_tokener_free(tokener);
	return object;
}

/* Logs a value as JSON and returns what a reader gets; to be freed. */
static char *through_json(const char *value)
{
	struct json_object *object, *member;
	char *line, *seen;

	log_event(LOG_LEVEL_INFO, "test", LOG_TEXT("key", value), LOG_NUMBER("after", 1));
	line = logged();
	object = parsed(line);
	assert_int_equal(json_object_object_length(object), 6);
	assert_true(json_object_object_get_ex(object, "after", &member));
	assert_int_equal(json_object_get_int(member), 1);
	assert_true(json_object_object_get_ex(object, "key", &member));
	assert_int_equal(json_object_get_type(member), json_type_string);
	assert_int_equal(json_object_get_string_len(member), strlen(json_object_get_string(member)));
	seen = strdup(json_object_get_string(member));
	json_object_put(object);
	free(line);
	return seen;
}

static void test_log_writes_json(void **state)
{
	struct json_object *object, *member;
	char *line;

	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	log_event(LOG_LEVEL_WARN, "request", LOG_TEXT("req", "9f"), LOG_NUMBER("status", 200),
		  LOG_MS("total_ms", 1234), LOG_TEXT("empty", ""), LOG_NUMBER("large", UINT64_MAX));
	line = logged();
	object = parsed(line);
	assert_int_equal(json_object_object_length(object), 8);
	assert_true(json_object_object_get_ex(object, "time", &member));
	assert_int_equal(json_object_get_string_len(member), 26);
	assert_true(json_object_object_get_ex(object, "level", &member));
	assert_string_equal(json_object_get_string(member), "warn");
	assert_true(json_object_object_get_ex(object, "pid", &member));
	assert_int_equal(json_object_get_int(member), getpid());
	assert_true(json_object_object_get_ex(object, "event", &member));
	assert_string_equal(json_object_get_string(member), "request");
	assert_contains(
	    line, ",\"req\":\"9f\",\"status\":200,\"total_ms\":1.234,\"large\":18446744073709551615}\n");
	json_object_put(object);
	free(line);
	log_fields(LOG_LEVEL_ERROR, "alone", NULL, 0);
	line = logged();
	json_object_put(parsed(line));
	free(line);
}

static void test_log_shows_in_json_what_was_logged(void **state)
{
	static const struct {
		const char *value, *seen; /* NULL: the same */
	} cases[] = {
		{ "plain", NULL },
		{ "a\"b\\c/d", NULL },
		{ "\",\"status\":200,\"x\":\"", NULL },
		{ "\\\"}\n{", NULL },
		{ "a\nb\r\t\x01\x1B[31m\x7F", NULL },
		{ "\xC2\x80\xC2\x85\xC2\x9B", NULL },
		{ "你好 😀 é \xE2\x80\xA8", NULL }, /* also the line separator of JavaScript */
		{ "\xFF", "\xEF\xBF\xBD" },
		{ "a\xC0\x8A", "a\xEF\xBF\xBD" },
		{ "\xED\xA0\x80z", "\xEF\xBF\xBDz" },
		{ "你\xE4\xBD", "你\xEF\xBF\xBD" },
		{ "a\n\x80", NULL }, /* what follows a bad byte, or leads to it, may go along with it */
	};

	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *seen = through_json(cases[i].value);

		if (!utf8_valid(cases[i].value, strlen(cases[i].value)) && cases[i].seen == NULL)
			assert_contains(seen, "\xEF\xBF\xBD");
		else
			assert_string_equal(seen, cases[i].seen != NULL ? cases[i].seen : cases[i].value);
		free(seen);
	}
}

static void test_log_writes_json_whatever_bytes_come(void **state)
{
	uint64_t random = 7;

	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	for (unsigned round = 0; round < 20000; round++) {
		static const char special[] =
		    "\"\\{}:,\n\r\t\x1B\x7F\xC2\x80\x9B\xE4\xBD\xA0\xF0\x9F\x98\xFF";
		size_t len = 1 + next_random(&random) % (round % 50 == 0 ? 600 : 12);
		char value[601];
		char *seen;

		for (size_t i = 0; i < len; i++) {
			uint32_t choice = next_random(&random);

			if (choice & 1)
				value[i] = special[(choice >> 8) % (sizeof special - 1)];
			else
				value[i] = (char)(1 + (choice >> 8) % 255);
		}
		value[len] = '\0';
		seen = through_json(value);
		if (len < 512 && utf8_valid(value, len))
			assert_string_equal(seen, value);
		free(seen);
	}
}

static void test_log_cuts_long_json_values(void **state)
{
	static const char *const characters[] = { "x", "é", "你", "😀", "\xFF", "\n", "\"" };

	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	for (size_t c = 0; c < COUNT(characters); c++) {
		for (size_t lead = 0; lead < 5; lead++) {
			char value[2000] = "abcde";
			char *seen;

			value[lead] = '\0';
			while (strlen(value) + 5 < sizeof value)
				strcat(value, characters[c]);
			seen = through_json(value);
			assert_string_equal(seen + strlen(seen) - strlen("…"), "…");
			assert_in_range(strlen(seen), 300, 1600);
			free(seen);
		}
	}
}

/* ---- files ---- */

static char path[] = "/tmp/test_log.XXXXXX", moved[sizeof path + 4];

static void assert_in_file(const char *name, const char *text)
{
	char bytes[4096] = "";
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_true(read(fd, bytes, sizeof bytes - 1) > 0);
	close(fd);
	assert_contains(bytes, text);
}

static int make_path(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	snprintf(moved, sizeof moved, "%s.old", path);
	return fd < 0 || close(fd) != 0;
}

static int remove_path(void **state)
{
	(void)state;
	unlink(path);
	unlink(moved);
	rmdir(path);
	memcpy(strrchr(path, '.'), ".XXXXXX", 7);
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	return 0;
}

static void test_log_appends_to_a_file(void **state)
{
	struct stat info;

	(void)state;
	assert_int_equal(unlink(path), 0);
	assert_true(log_open_file(path, LOG_LEVEL_INFO, LOG_FORMAT_TEXT));
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0137, 0); /* nobody else reads it */
	log_event(LOG_LEVEL_INFO, "one", LOG_NUMBER("n", 1));
	assert_true(log_open_file(path, LOG_LEVEL_INFO, LOG_FORMAT_TEXT));
	log_event(LOG_LEVEL_INFO, "two", LOG_NUMBER("n", 1));
	assert_in_file(path, "event=one");
	assert_in_file(path, "event=two");
}

static void test_log_goes_on_in_a_new_file(void **state)
{
	struct stat before, after;

	(void)state;
	assert_true(log_open_file(path, LOG_LEVEL_WARN, LOG_FORMAT_JSON));
	assert_int_equal(rename(path, moved), 0);
	log_event(LOG_LEVEL_WARN, "before", LOG_NUMBER("n", 1));
	assert_in_file(moved, "before");
	log_reopen();
	assert_int_equal(stat(moved, &before), 0);
	log_event(LOG_LEVEL_WARN, "after", LOG_NUMBER("n", 1));
	assert_in_file(path, "\"event\":\"after\"");
	assert_int_equal(stat(moved, &after), 0);
	assert_int_equal(before.st_size, after.st_size);
	assert_false(log_wants(LOG_LEVEL_INFO));
}

/* The directory may have gone, or the disk may be full: lines go on into the file that there is. */
static void test_log_that_cannot_be_reopened_goes_on(void **state)
{
	(void)state;
	assert_true(log_open_file(path, LOG_LEVEL_INFO, LOG_FORMAT_TEXT));
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	log_reopen();
	log_event(LOG_LEVEL_INFO, "after", LOG_NUMBER("n", 1));
	assert_in_file(moved, " event=log why=\"Is a directory\"\n");
	assert_in_file(moved, " event=after ");
	assert_int_equal(rmdir(path), 0);
	log_reopen();
	log_event(LOG_LEVEL_INFO, "later", LOG_NUMBER("n", 1));
	assert_in_file(path, " event=later ");
}

static void test_log_leaves_all_as_it_was_when_it_cannot_be_opened(void **state)
{
	char longest[5000];

	(void)state;
	memset(longest, '/', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_true(log_open_file(path, LOG_LEVEL_INFO, LOG_FORMAT_TEXT));
	assert_false(log_open_file("/nowhere/log", LOG_LEVEL_ERROR, LOG_FORMAT_JSON));
	assert_int_equal(errno, ENOENT);
	assert_false(log_open_file("/tmp", LOG_LEVEL_ERROR, LOG_FORMAT_JSON));
	assert_int_equal(errno, EISDIR);
	assert_false(log_open_file(longest, LOG_LEVEL_ERROR, LOG_FORMAT_JSON));
	assert_int_equal(errno, ENAMETOOLONG);
	log_event(LOG_LEVEL_INFO, "still", LOG_NUMBER("n", 1));
	assert_in_file(path, " event=still ");
}

static void test_log_on_somebody_else_s_descriptor_is_not_reopened(void **state)
{
	char *line;

	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_reopen();
	log_event(LOG_LEVEL_INFO, "same", LOG_NUMBER("n", 1));
	line = logged();
	assert_contains(line, " event=same ");
	free(line);
}

static int back_to_text(void **state)
{
	(void)state;
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_writes_a_line_per_event),
		cmocka_unit_test(test_log_leaves_out_fields_without_text),
		cmocka_unit_test(test_log_takes_events_without_fields),
		cmocka_unit_test(test_log_keeps_silent_below_its_level),
		cmocka_unit_test(test_log_escapes_hostile_values),
		cmocka_unit_test(test_log_cannot_be_forged_by_any_short_value),
		cmocka_unit_test(test_log_cuts_long_values),
		cmocka_unit_test(test_log_cuts_nothing_short),
		cmocka_unit_test(test_log_writes_many_long_hostile_values),
		cmocka_unit_test(test_log_that_cannot_be_written_is_given_up),
		cmocka_unit_test(test_log_writes_milliseconds),
		cmocka_unit_test_teardown(test_log_writes_json, back_to_text),
		cmocka_unit_test_teardown(test_log_shows_in_json_what_was_logged, back_to_text),
		cmocka_unit_test_teardown(test_log_writes_json_whatever_bytes_come, back_to_text),
		cmocka_unit_test_teardown(test_log_cuts_long_json_values, back_to_text),
		cmocka_unit_test_setup_teardown(test_log_appends_to_a_file, make_path, remove_path),
		cmocka_unit_test_setup_teardown(test_log_goes_on_in_a_new_file, make_path, remove_path),
		cmocka_unit_test_setup_teardown(test_log_that_cannot_be_reopened_goes_on, make_path,
						remove_path),
		cmocka_unit_test_setup_teardown(test_log_leaves_all_as_it_was_when_it_cannot_be_opened,
						make_path, remove_path),
		cmocka_unit_test(test_log_on_somebody_else_s_descriptor_is_not_reopened),
	};

	return cmocka_run_group_tests(tests, open_log, close_log);
}
