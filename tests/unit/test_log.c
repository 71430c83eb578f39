/*
 * test_log.c - one event is one line of printable UTF-8, whatever its values hold, and it can be taken
 * apart again.
 */
#include "unit.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
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
	(void)state;
	log_open(-1, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	log_event(LOG_LEVEL_ERROR, "test", LOG_NUMBER("n", 1));
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
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
	};

	return cmocka_run_group_tests(tests, open_log, close_log);
}
