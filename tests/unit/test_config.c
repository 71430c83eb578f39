/*
 * test_config.c - settings come from the environment or from files, wrong ones stop the start with a line
 * each, secrets are never shown, and what is printed is safe for a shell.
 */
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>

#include "app/config.h"
#include "base/log.h"
#include "failing_alloc.h"

static char directory[] = "/tmp/test_config.XXXXXX";

static int make_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink("value");
	return chdir("/") != 0 || rmdir(directory) != 0;
}

/* Only what a worker cannot do without. */
static int set_required(void **state)
{
	(void)state;
	clearenv();
	setenv("PATH", "/usr/bin:/bin", 1);
	setenv("COZE_API_TOKEN", "pat_SECRET", 1);
	setenv("COZE_BOT_ID", "7400000000000000009", 1);
	setenv("REDIS_URL", "redis://:SECRET@localhost", 1);
	return 0;
}

static void put_file(const char *bytes, size_t len)
{
	int fd = open("value", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
}

static struct config load_good(void)
{
	struct config config;
	struct buf problems;

	buf_init(&problems, 65536);
	if (!config_load(&config, &problems))
		fail_msg("%.*s", (int)buf_size(&problems), buf_bytes(&problems));
	assert_int_equal(buf_size(&problems), 0);
	buf_free(&problems);
	return config;
}

/* The problems of the environment as it is, one line each; to be freed. */
static char *load_bad(void)
{
	struct config config;
	struct buf problems;
	char *text;

	buf_init(&problems, 65536);
	assert_false(config_load(&config, &problems));
	assert_false(problems.failed);
	text = buf_string(&problems);
	config_fini(&config);
	buf_free(&problems);
	assert_lacks(text, "SECRET");
	return text;
}

static void assert_refused(const char *name, const char *value, const char *problem)
{
	char *text;

	setenv(name, value, 1);
	text = load_bad();
	if (strstr(text, problem) == NULL || strchr(text, '\n') != text + strlen(text) - 1)
		fail_msg("%s=%s: said \"%s\" and not one line with \"%s\"", name, value, text, problem);
	free(text);
	unsetenv(name);
}

static void test_config_has_the_documented_defaults(void **state)
{
	struct config config = load_good();
	char run_dir[100];

	(void)state;
	snprintf(run_dir, sizeof run_dir, "%s/run", directory);
	assert_string_equal(config.coze_api_token, "pat_SECRET");
	assert_string_equal(config.coze_bot_id, "7400000000000000009");
	assert_string_equal(config.coze_user_id, "default_user");
	assert_string_equal(config.coze_base_url, "https://api.coze.cn/v3");
	assert_string_equal(config.coze_ca_file, "");
	assert_int_equal(config.coze_chat_mode, CHAT_MODE_STREAM);
	assert_int_equal(config.coze_connect_timeout_ms, 5000);
	assert_int_equal(config.coze_first_byte_timeout_ms, 30000);
	assert_int_equal(config.coze_idle_timeout_ms, 60000);
	assert_int_equal(config.coze_max_event_bytes, 8 << 20);
	assert_int_equal(config.max_answer_bytes, 32 << 20);
	assert_int_equal(config.chat_timeout_ms, 60000);
	assert_int_equal(config.stream_timeout_ms, 300000);
	assert_int_equal(config.stream_heartbeat_ms, 15000);
	assert_int_equal(config.coze_max_retries, 5);
	assert_int_equal(config.coze_min_interval_ms, 500);
	assert_int_equal(config.coze_rate_wait_ms, 10000);
	assert_int_equal(config.session_ttl_ms, 86400000);
	assert_int_equal(config.session_wait_ms, 30000);
	assert_int_equal(config.session_lock_ms, 10000);
	assert_string_equal(config.run_dir, run_dir);
	assert_string_equal(config.server_host, "0.0.0.0");
	assert_int_equal(config.server_port, 6001);
	assert_string_equal(config.allowed_origins, "*");
	assert_string_equal(config.api_keys, "");
	assert_string_equal(config.admin_api_keys, "");
	assert_string_equal(config.redis_password, "");
	assert_int_equal(config.max_request_size, 10485760);
	assert_int_equal(config.workers, sysconf(_SC_NPROCESSORS_ONLN));
	assert_int_equal(config.drain_timeout_ms, 300000);
	assert_int_equal(config.debug, 0);
	assert_int_equal(config.log_level, LOG_LEVEL_INFO);
	config_fini(&config);
	assert_null(config.coze_api_token);
}

static void test_config_takes_numbers(void **state)
{
	static const struct {
		const char *name, *value;
		size_t offset;
		uint64_t number;
	} cases[] = {
		{ "SERVER_PORT", "1", offsetof(struct config, server_port), 1 },
		{ "SERVER_PORT", "65535", offsetof(struct config, server_port), 65535 },
		{ "SERVER_PORT", "007", offsetof(struct config, server_port), 7 },
		{ "WORKERS", "512", offsetof(struct config, workers), 512 },
		{ "MAX_REQUEST_SIZE", "1024", offsetof(struct config, max_request_size), 1024 },
		{ "MAX_REQUEST_SIZE", "1073741824", offsetof(struct config, max_request_size), 1 << 30 },
		{ "CHAT_TIMEOUT_SECONDS", "0.1", offsetof(struct config, chat_timeout_ms), 100 },
		{ "CHAT_TIMEOUT_SECONDS", "3600", offsetof(struct config, chat_timeout_ms), 3600000 },
		{ "CHAT_TIMEOUT_SECONDS", "1.2345", offsetof(struct config, chat_timeout_ms), 1235 },
		{ "CHAT_TIMEOUT_SECONDS", ".5", offsetof(struct config, chat_timeout_ms), 500 },
		{ "CHAT_TIMEOUT_SECONDS", "2.", offsetof(struct config, chat_timeout_ms), 2000 },
		{ "DRAIN_TIMEOUT_SECONDS", "0", offsetof(struct config, drain_timeout_ms), 0 },
		{ "COZE_IDLE_TIMEOUT_SECONDS", "0.01", offsetof(struct config, coze_idle_timeout_ms), 10 },
		{ "DEBUG", "true", offsetof(struct config, debug), 1 },
		{ "DEBUG", "ON", offsetof(struct config, debug), 1 },
		{ "DEBUG", "1", offsetof(struct config, debug), 1 },
		{ "DEBUG", "Yes", offsetof(struct config, debug), 1 },
		{ "DEBUG", "False", offsetof(struct config, debug), 0 },
		{ "DEBUG", "0", offsetof(struct config, debug), 0 },
		{ "DEBUG", "no", offsetof(struct config, debug), 0 },
		{ "DEBUG", "off", offsetof(struct config, debug), 0 },
		{ "COZE_CHAT_MODE", "poll", offsetof(struct config, coze_chat_mode), CHAT_MODE_POLL },
		{ "COZE_CHAT_MODE", "STREAM", offsetof(struct config, coze_chat_mode), CHAT_MODE_STREAM },
		{ "LOG_LEVEL", "warn", offsetof(struct config, log_level), LOG_LEVEL_WARN },
		{ "LOG_LEVEL", "", offsetof(struct config, log_level), LOG_LEVEL_INFO }, /* empty is unset */
		{ "SERVER_PORT", "", offsetof(struct config, server_port), 6001 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct config config;
		uint64_t number;

		setenv(cases[i].name, cases[i].value, 1);
		config = load_good();
		memcpy(&number, (char *)&config + cases[i].offset, sizeof number);
		if (number != cases[i].number)
			fail_msg("%s=%s: %d", cases[i].name, cases[i].value, (int)number);
		config_fini(&config);
		unsetenv(cases[i].name);
	}
}

static void test_config_takes_texts(void **state)
{
	char relative[100];
	const struct {
		const char *name, *value;
		size_t offset;
		const char *text;
	} cases[] = {
		{ "COZE_BASE_URL", "http://127.0.0.1:8080/v3", offsetof(struct config, coze_base_url),
		  "http://127.0.0.1:8080/v3" },
		{ "COZE_BASE_URL", "https://api.coze.com/v3//", offsetof(struct config, coze_base_url),
		  "https://api.coze.com/v3" },
		{ "COZE_BASE_URL", "https://h/", offsetof(struct config, coze_base_url), "https://h" },
		{ "RUN_DIR", "/run/coze", offsetof(struct config, run_dir), "/run/coze" },
		{ "RUN_DIR", "value", offsetof(struct config, run_dir), relative },
		{ "COZE_CA_FILE", "value", offsetof(struct config, coze_ca_file), relative },
		{ "COZE_CA_FILE", "", offsetof(struct config, coze_ca_file), "" },
		{ "COZE_USER_ID", "用户", offsetof(struct config, coze_user_id), "用户" },
		{ "REDIS_URL", "unix:///run/redis.sock", offsetof(struct config, redis_url),
		  "unix:///run/redis.sock" },
		{ "API_KEYS", "one, two", offsetof(struct config, api_keys), "one, two" },
		{ "REDIS_PASSWORD", "p@:/", offsetof(struct config, redis_password), "p@:/" },
	};

	(void)state;
	snprintf(relative, sizeof relative, "%s/value", directory);
	put_file("x", 1);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct config config;
		char *text;

		set_required(NULL);
		setenv(cases[i].name, cases[i].value, 1);
		config = load_good();
		memcpy(&text, (char *)&config + cases[i].offset, sizeof text);
		assert_string_equal(text, cases[i].text);
		config_fini(&config);
	}
}

static void test_config_refuses_and_says_what_is_allowed(void **state)
{
	static const struct {
		const char *name, *value, *problem;
	} cases[] = {
		{ "SERVER_PORT", "0", "SERVER_PORT=0: must be a whole number from 1 to 65535\n" },
		{ "SERVER_PORT", "65536", "SERVER_PORT=65536: must be a whole number from 1 to 65535\n" },
		{ "SERVER_PORT", "-1", "SERVER_PORT=-1: " },
		{ "SERVER_PORT", "+1", "SERVER_PORT=+1: " },
		{ "SERVER_PORT", " 1", "SERVER_PORT= 1: " },
		{ "SERVER_PORT", "1 ", "SERVER_PORT=1 : " },
		{ "SERVER_PORT", "80x", "SERVER_PORT=80x: " },
		{ "SERVER_PORT", "0x50", "SERVER_PORT=0x50: " },
		{ "SERVER_PORT", "6001.0", "SERVER_PORT=6001.0: " },
		{ "SERVER_PORT", "18446744073709551617", "SERVER_PORT=18446744073709551617: " },
		{ "WORKERS", "0", "WORKERS=0: " },
		{ "WORKERS", "513", "WORKERS=513: " },
		{ "MAX_REQUEST_SIZE", "10MB", "MAX_REQUEST_SIZE=10MB: " },
		{ "CHAT_TIMEOUT_SECONDS", "0.0999", "must be seconds from 0.1 to 3600, fractions allowed\n" },
		{ "CHAT_TIMEOUT_SECONDS", "3600.001", "CHAT_TIMEOUT_SECONDS=3600.001: " },
		{ "CHAT_TIMEOUT_SECONDS", "-5", "CHAT_TIMEOUT_SECONDS=-5: " },
		{ "CHAT_TIMEOUT_SECONDS", "1e3", "CHAT_TIMEOUT_SECONDS=1e3: " },
		{ "CHAT_TIMEOUT_SECONDS", "0x10", "CHAT_TIMEOUT_SECONDS=0x10: " },
		{ "CHAT_TIMEOUT_SECONDS", "inf", "CHAT_TIMEOUT_SECONDS=inf: " },
		{ "CHAT_TIMEOUT_SECONDS", "nan", "CHAT_TIMEOUT_SECONDS=nan: " },
		{ "CHAT_TIMEOUT_SECONDS", ".", "CHAT_TIMEOUT_SECONDS=.: " },
		{ "CHAT_TIMEOUT_SECONDS", "1.2.3", "CHAT_TIMEOUT_SECONDS=1.2.3: " },
		{ "CHAT_TIMEOUT_SECONDS", "60s", "CHAT_TIMEOUT_SECONDS=60s: " },
		{ "CHAT_TIMEOUT_SECONDS", "1,5", "CHAT_TIMEOUT_SECONDS=1,5: " },
		{ "DEBUG", "maybe", "DEBUG=maybe: must be true or false\n" },
		{ "DEBUG", "2", "DEBUG=2: " },
		{ "LOG_LEVEL", "trace", "LOG_LEVEL=trace: must be one of: error warn info debug\n" },
		{ "COZE_CHAT_MODE", "both", "COZE_CHAT_MODE=both: must be one of: stream poll\n" },
		{ "COZE_BASE_URL", "api.coze.cn", "COZE_BASE_URL=api.coze.cn: must be an http" },
		{ "COZE_BASE_URL", "ftp://h", "COZE_BASE_URL=ftp://h: " },
		{ "COZE_BASE_URL", "https://", "COZE_BASE_URL=https://: " },
		{ "COZE_BASE_URL", "https:///v3", "COZE_BASE_URL=https:///v3: " },
		{ "COZE_BASE_URL", "https://h/v3?x=1", "COZE_BASE_URL=" },
		{ "COZE_BASE_URL", "https://h/v3#x", "COZE_BASE_URL=" },
		{ "COZE_BASE_URL", "https://h /v3", "COZE_BASE_URL=" },
		{ "COZE_CA_FILE", "/nowhere/ca.pem",
		  "COZE_CA_FILE=/nowhere/ca.pem: must be a file that can be read\n" },
		{ "COZE_USER_ID", "a\nb", "COZE_USER_ID=(unprintable): " },
		{ "COZE_USER_ID", "\xFF", "COZE_USER_ID=(unprintable): " },
		{ "RUN_DIR", "run\x1B", "RUN_DIR=(unprintable): " },
		{ "COZE_API_TOKEN", "SECRET\n", "COZE_API_TOKEN: must be UTF-8 text" },
		{ "API_KEYS", "SECRET\x7F", "API_KEYS: must be UTF-8 text" },
		{ "API_KEYS", " ", "API_KEYS: must be keys with commas between, or empty\n" },
		{ "ADMIN_API_KEYS", ",, ,", "ADMIN_API_KEYS: must be keys" },
		{ "ADMIN_API_KEYS", "SECRET\xFF", "ADMIN_API_KEYS: must be UTF-8 text" },
		{ "REDIS_PASSWORD", "SECRET\n", "REDIS_PASSWORD: must be UTF-8 text" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		set_required(NULL);
		assert_refused(cases[i].name, cases[i].value, cases[i].problem);
	}
	set_required(NULL);
	assert_refused("REDIS_URL", "http://:SECRET@localhost", "REDIS_URL: must be redis://");
	set_required(NULL);
	assert_refused("REDIS_URL", "redis://:SECRET@localhost:port", "unix://path; ");
	set_required(NULL);
	assert_refused("REDIS_URL", "redis://:SECRET@localhost/db", "unix://path; ");
}

static void test_config_redis_url_is_taken_apart_at_once(void **state)
{
	(void)state;
	assert_refused("REDIS_URL", "redis://:SECRET@localhost:99999",
		       "REDIS_URL: must be redis://[[user]:password@]host[:port][/db] or unix://path; "
		       "the port is not between 1 and 65535\n");
	set_required(NULL);
	assert_refused("REDIS_URL", "unix://", "unix:// needs a path");
	set_required(NULL);
	assert_refused("REDIS_URL", "redis://SECRET@localhost", "a login is [user]:password");
}

static void test_config_sentinels_make_redis_url_optional(void **state)
{
	struct config config;

	(void)state;
	unsetenv("REDIS_URL");
	setenv("REDIS_SENTINELS", "10.0.0.1:26379,[::1]:26379,sentinel-2:26379", 1);
	config = load_good();
	assert_string_equal(config.redis_url, "");
	assert_string_equal(config.redis_sentinels, "10.0.0.1:26379,[::1]:26379,sentinel-2:26379");
	assert_string_equal(config.redis_master_name, "mymaster");
	config_fini(&config);
	setenv("REDIS_URL", "", 1);
	config = load_good();
	config_fini(&config);
	setenv("REDIS_URL", "redis://user:SECRET@unused/3", 1);
	config = load_good();
	assert_string_equal(config.redis_url, "redis://user:SECRET@unused/3");
	config_fini(&config);
	assert_refused(
	    "REDIS_URL", "unix:///run/redis.sock",
	    "REDIS_URL: must be redis://[user]:password@host[/db] or empty: REDIS_SENTINELS say where");
}

/* Wrong Sentinels are one problem: that REDIS_URL is missing is none besides. */
static void test_config_refuses_bad_sentinels(void **state)
{
	static const char *const lists[] = { "host",      "host:", "host:0",      ":26379",  "host:65536",
					     "a:1,",      ",a:1",  "a:1,,b:1",    "a:1 b:1", "a:1, b:1",
					     "::1:26379", "[::1]", "redis://a:1", "a:1/0" };
	char many[17 * 4 + 1] = "";
	struct config config;

	(void)state;
	for (size_t i = 0; i < COUNT(lists); i++) {
		set_required(NULL);
		unsetenv("REDIS_URL");
		assert_refused("REDIS_SENTINELS", lists[i],
			       ": must be host:port, or up to 16 with commas between\n");
	}
	for (size_t i = 0; i < 17; i++)
		strcat(many, "a:1,");
	many[16 * 4 - 1] = '\0';
	setenv("REDIS_SENTINELS", many, 1);
	config = load_good();
	config_fini(&config);
	many[16 * 4 - 1] = ',';
	many[17 * 4 - 1] = '\0';
	assert_refused("REDIS_SENTINELS", many, "up to 16");
	set_required(NULL);
	assert_refused("REDIS_MASTER_NAME", "my\nmaster", "REDIS_MASTER_NAME=(unprintable): ");
}

static void test_config_sentinel_password_has_a_ceiling(void **state)
{
	struct config config;
	char password[513];

	(void)state;
	memset(password, 'x', sizeof password);
	password[511] = '\0';
	setenv("REDIS_SENTINEL_PASSWORD", password, 1);
	config = load_good();
	assert_string_equal(config.redis_sentinel_password, password);
	config_fini(&config);
	memcpy(password, "SECRET", 6);
	password[511] = 'x';
	password[512] = '\0';
	assert_refused("REDIS_SENTINEL_PASSWORD", password,
		       "REDIS_SENTINEL_PASSWORD: must be at most 511 bytes\n");
}

static void test_config_wants_a_file_and_no_directory(void **state)
{
	(void)state;
	assert_refused("COZE_CA_FILE", "/tmp", "COZE_CA_FILE=/tmp: must be a file that can be read\n");
}

static void test_config_ids_have_up_to_128_bytes(void **state)
{
	struct config config;
	char id[130];

	(void)state;
	memset(id, 'x', sizeof id);
	id[128] = '\0';
	setenv("COZE_USER_ID", id, 1);
	config = load_good();
	config_fini(&config);
	id[128] = 'x';
	id[129] = '\0';
	assert_refused("COZE_USER_ID", id, "must be 1 to 128 bytes");
}

static void test_config_names_everything_that_is_missing_or_wrong_at_once(void **state)
{
	char *text;

	(void)state;
	clearenv();
	setenv("SERVER_PORT", "x", 1);
	setenv("DEBUG", "y", 1);
	text = load_bad();
	assert_contains(text, "COZE_API_TOKEN: is required and not set");
	assert_contains(text, "COZE_BOT_ID: is required and not set");
	assert_contains(text, "REDIS_URL: is required and not set");
	assert_contains(text, "SERVER_PORT=x: ");
	assert_contains(text, "DEBUG=y: ");
	free(text);
}

/* A value may hold anything, but a problem is one line: else a value could forge the next one. */
static void test_config_tells_each_problem_in_one_line(void **state)
{
	static const char *const names[] = { "SERVER_PORT",  "WORKERS",          "CHAT_TIMEOUT_SECONDS",
					     "DEBUG",        "LOG_LEVEL",        "COZE_BASE_URL",
					     "COZE_USER_ID", "RUN_DIR",          "COZE_CA_FILE",
					     "SERVER_HOST",  "SERVER_PORT_FILE", "API_KEYS_FILE" };

	(void)state;
	for (size_t i = 0; i < COUNT(names); i++) {
		char problem[40];

		set_required(NULL);
		snprintf(problem, sizeof problem, "%s=", names[i]);
		assert_refused(names[i], "/1\nDEBUG=1: forged", problem);
	}
}

static void test_config_reads_values_from_files(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *token;
	} cases[] = {
		{ BYTES("from_file"), "from_file" },
		{ BYTES("from_file\n"), "from_file" },
		{ BYTES("from_file\r\n"), "from_file" },
		{ BYTES(" inner blanks \n"), " inner blanks " },
	};
	struct config config;

	(void)state;
	unsetenv("COZE_API_TOKEN");
	setenv("COZE_API_TOKEN_FILE", "value", 1);
	for (size_t i = 0; i < COUNT(cases); i++) {
		put_file(cases[i].bytes, cases[i].len);
		config = load_good();
		assert_string_equal(config.coze_api_token, cases[i].token);
		config_fini(&config);
	}
	put_file("8080\n", 5);
	setenv("SERVER_PORT_FILE", "value", 1);
	setenv("WORKERS_FILE", "", 1); /* empty is unset */
	config = load_good();
	assert_int_equal(config.server_port, 8080);
	config_fini(&config);
}

static void test_config_refuses_bad_files(void **state)
{
	(void)state;
	assert_refused("COZE_API_TOKEN_FILE", "value", "COZE_API_TOKEN and COZE_API_TOKEN_FILE: only one");
	unsetenv("COZE_API_TOKEN");
	assert_refused("COZE_API_TOKEN_FILE", "/nowhere/token",
		       "COZE_API_TOKEN_FILE=/nowhere/token: cannot be read: No");
	assert_refused("COZE_API_TOKEN_FILE", "/tmp",
		       "COZE_API_TOKEN_FILE=/tmp: cannot be read: Is a directory");
	put_file("\n", 1);
	assert_refused("COZE_API_TOKEN_FILE", "value", "COZE_API_TOKEN: is required and not set");
	put_file(BYTES("SECRET\nSECOND LINE\n"));
	assert_refused("COZE_API_TOKEN_FILE", "value", "COZE_API_TOKEN: must be UTF-8 text");
	set_required(NULL);
	put_file(BYTES("70000\n"));
	assert_refused("SERVER_PORT_FILE", "value", "SERVER_PORT=70000: must be a whole number");
}

/* A value that is not taken whole must not be taken at all. */
static void test_config_refuses_files_it_cannot_take_whole(void **state)
{
	static char large[70000];

	(void)state;
	unsetenv("COZE_API_TOKEN");
	memset(large, 'x', sizeof large);
	put_file(large, sizeof large);
	assert_refused("COZE_API_TOKEN_FILE", "value", "COZE_API_TOKEN");
	put_file(BYTES("before\0after"));
	assert_refused("COZE_API_TOKEN_FILE", "value", "COZE_API_TOKEN");
}

static char *printed(void)
{
	struct config config = load_good();
	struct buf out;
	char *text;

	buf_init(&out, 1024 * 1024);
	config_print(&config, &out);
	assert_false(out.failed);
	text = buf_string(&out);
	buf_free(&out);
	config_fini(&config);
	return text;
}

static void test_config_never_prints_secrets(void **state)
{
	char *text;

	(void)state;
	setenv("API_KEYS", "SECRET", 1);
	setenv("ADMIN_API_KEYS", "SECRET", 1);
	text = printed();
	assert_lacks(text, "SECRET");
	assert_lacks(text, "TOKEN");
	assert_contains(text, "SERVER_PORT='6001'\n");
	assert_contains(text, "CHAT_TIMEOUT_SECONDS='60'\n");
	assert_contains(text, "LOG_LEVEL='info'\n");
	assert_contains(text, "DEBUG='false'\n");
	assert_contains(text, "COZE_CA_FILE=''\n");
	assert_contains(text, "ADMIN_KEYS_SET='yes'\n");
	free(text);
	unsetenv("ADMIN_API_KEYS");
	text = printed();
	assert_contains(text, "ADMIN_KEYS_SET='no'\n");
	free(text);
}

/* What a shell makes of the printed settings is what they were, and nothing in them runs. */
static void test_config_prints_what_a_shell_may_eval(void **state)
{
	static const char *const hostile[] = { "$(touch pwned)",
					       "`touch pwned`",
					       "'; touch pwned; '",
					       "'\\''",
					       "'",
					       "\\",
					       "a b  c",
					       "\"; touch pwned; \"",
					       "${HOME}",
					       "* ?",
					       "#x",
					       "\\'; touch pwned #",
					       "你好 😀",
					       "~",
					       "-n",
					       "%s%n",
					       "!!",
					       "a;b|c&d<e>f" };

	(void)state;
	for (size_t i = 0; i < COUNT(hostile); i++) {
		char seen[200] = "";
		char *text;
		FILE *shell;

		set_required(NULL);
		setenv("ALLOWED_ORIGINS", hostile[i], 1);
		text = printed();
		setenv("PRINTED", text, 1);
		unsetenv("ALLOWED_ORIGINS");
		/* NOLINTNEXTLINE(cert-env33-c): what a shell makes of it is the question */
		shell = popen("eval \"$PRINTED\"; printf '%s.' \"$ALLOWED_ORIGINS\"", "r");
		assert_non_null(shell);
		seen[fread(seen, 1, sizeof seen - 1, shell)] = '\0';
		assert_int_equal(pclose(shell), 0);
		assert_bytes(seen, strlen(seen) - 1, hostile[i], strlen(hostile[i]));
		assert_int_not_equal(access("pwned", F_OK), 0);
		free(text);
	}
}

static void test_config_prints_settings_that_load_again_as_the_same(void **state)
{
	char *first, *second, *lines, *rest;

	(void)state;
	setenv("CHAT_TIMEOUT_SECONDS", "0.123", 1);
	setenv("SESSION_TTL_SECONDS", "315360000", 1);
	setenv("COZE_CHAT_MODE", "poll", 1);
	setenv("DEBUG", "yes", 1);
	first = printed();
	lines = strdup(first);
	assert_non_null(lines);
	for (char *line = strtok_r(lines, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		char *value = strstr(line, "='");

		assert_non_null(value);
		line[strlen(line) - 1] = '\0';
		*value = '\0';
		setenv(line, value + 2, 1);
	}
	free(lines);
	second = printed();
	assert_string_equal(first, second);
	free(first);
	free(second);
}

static void test_config_debug_logs_everything(void **state)
{
	struct config config;

	(void)state;
	setenv("DEBUG", "1", 1);
	setenv("LOG_LEVEL", "error", 1);
	config = load_good();
	assert_int_equal(config.log_level, LOG_LEVEL_DEBUG);
	config_fini(&config);
}

static void test_config_help_names_every_variable(void **state)
{
	static const char *const names[] = { "ADMIN_API_KEYS", "COZE_API_TOKEN", "COZE_BOT_ID",
					     "REDIS_URL",      "RUN_DIR",        "WORKERS" };
	struct buf out;
	char *text;

	(void)state;
	buf_init(&out, 65536);
	config_help(&out);
	text = buf_string(&out);
	for (size_t i = 0; i < COUNT(names); i++)
		assert_contains(text, names[i]);
	assert_contains(text, "(6001)");
	free(text);
	buf_free(&out);
}

static void test_config_survives_each_failed_allocation(void **state)
{
	bool failed = true;

	(void)state;
	put_file("from_file\n", 10);
	unsetenv("COZE_API_TOKEN");
	setenv("COZE_API_TOKEN_FILE", "value", 1);
	for (long good = 0; failed; good++) {
		struct config config;
		struct buf problems;
		bool loaded;

		buf_init(&problems, 65536);
		alloc_fail_after(good);
		loaded = config_load(&config, &problems);
		failed = alloc_failed();
		assert_int_equal(loaded, !failed);
		config_fini(&config);
		buf_free(&problems);
	}
}

static void test_config_knows_addresses(void **state)
{
	static const char *const good[] = {
		"h:1",
		"127.0.0.1:9000",
		"[::1]:9000",
		"[::ffff:1.2.3.4]:65535",
		"worker_1.a-b.example:09000",
		"0.0.0.0:1",
		"[::]:1",
	};
	static const char *const bad[] = {
		"h",     "h:",        ":1",        "h:0",     "h:65536", "h:000000", "h:123456", "h:1x",
		"h:x",   "h:-1",      "h:+1",      "h: 1",    " h:1",    "h:1 ",     "h:1,",     "::1:9000",
		"[::1]", "[::1]9000", "[::1:9000", "[]:1",    "[h]:1",   "h/x:1",    "unix:/x",  "http://h:1",
		"h:1:2", "h:1,h:2",   "用户:1",    "$(id):1", "h;x:1",   "[::1]:",
	};
	struct config config;

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		setenv("WORKER_LISTEN", good[i], 1);
		setenv("METRICS_LISTEN", good[i], 1);
		setenv("WORKER_ADDRESSES", good[i], 1);
		config = load_good();
		assert_string_equal(config.worker_listen, good[i]);
		assert_string_equal(config.metrics_listen, good[i]);
		assert_string_equal(config.worker_addresses, good[i]);
		config_fini(&config);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		set_required(NULL);
		assert_refused("WORKER_LISTEN", bad[i], ": must be host:port or [IPv6 address]:port\n");
	}
}

static void test_config_limits_a_host_s_length(void **state)
{
	char address[300];
	struct config config;

	(void)state;
	memset(address, 'h', sizeof address);
	snprintf(address + 255, sizeof address - 255, ":1");
	setenv("WORKER_LISTEN", address, 1);
	config = load_good();
	config_fini(&config);
	snprintf(address + 255, sizeof address - 255, "h:1");
	assert_refused("WORKER_LISTEN", address, "host:port");
}

static void test_config_knows_lists_of_addresses(void **state)
{
	static const char *const good[] = { "a:1,b:2", "[::1]:1,[::1]:2,h:3", "a:1,a:1" };
	static const char *const bad[] = {
		",", ",a:1", "a:1,", "a:1,,b:2", "a:1, b:2", "a:1;b:2", "a:1 b:2", "a:1,b", "a,b:2",
	};
	struct config config;

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		setenv("WORKER_ADDRESSES", good[i], 1);
		config = load_good();
		assert_string_equal(config.worker_addresses, good[i]);
		config_fini(&config);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		set_required(NULL);
		assert_refused("WORKER_ADDRESSES", bad[i], ": must be host:port, or several with commas");
	}
}

static void test_config_knows_where_to_log(void **state)
{
	static const struct {
		const char *value, *path;
	} cases[] = {
		{ "-", "-" }, { "", "" }, { "/var/log/x", "/var/log/x" }, { "x.log", NULL }, { "./-", NULL }
	};
	char relative[200];

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct config config;

		snprintf(relative, sizeof relative, "%s/%s", directory, cases[i].value);
		setenv("LOG_FILE", cases[i].value, 1);
		config = load_good();
		assert_string_equal(config.log_file, cases[i].path != NULL ? cases[i].path : relative);
		config_fini(&config);
	}
	assert_refused("LOG_FILE", "/var/log/x\n", "LOG_FILE=(unprintable)");
	assert_refused("LOG_FORMAT", "xml", "LOG_FORMAT=xml: must be one of: text json\n");
}

static void test_config_reads_a_settings_file(void **state)
{
	struct config config;

	(void)state;
	put_file(BYTES(
	    "COZE_API_TOKEN=pat_of_file\nSERVER_PORT=7001\nDEBUG=true\nUNKNOWN=x\nSETTINGS_FILE=/nowhere\n"));
	unsetenv("COZE_API_TOKEN");
	setenv("SETTINGS_FILE", "value", 1);
	config = load_good();
	assert_string_equal(config.coze_api_token, "pat_of_file");
	assert_int_equal(config.server_port, 7001);
	assert_int_equal(config.debug, 1);
	assert_string_equal(config.coze_bot_id, "7400000000000000009");
	config_fini(&config);
	setenv("SERVER_PORT", "7002", 1);
	setenv("DEBUG", "", 1); /* empty is unset */
	config = load_good();
	assert_int_equal(config.server_port, 7002);
	assert_int_equal(config.debug, 1);
	config_fini(&config);
	setenv("SETTINGS_FILE", "", 1);
	assert_refused("COZE_API_TOKEN", "", "COZE_API_TOKEN: is required");
}

/* Of the two sources only one speaks about a setting: else a key of the file might join one of the environment. */
static void test_config_environment_and_file_may_say_it_differently(void **state)
{
	static const struct {
		const char *name, *value, *file, *token;
	} cases[] = {
		{ "COZE_API_TOKEN", "pat_env", "COZE_API_TOKEN=pat_file\n", "pat_env" },
		{ "COZE_API_TOKEN", "pat_env", "COZE_API_TOKEN_FILE=/nowhere\n", "pat_env" },
		{ "COZE_API_TOKEN", "pat_env", "COZE_API_TOKEN=a\nCOZE_API_TOKEN_FILE=b\n", "pat_env" },
		{ "COZE_API_TOKEN_FILE", "token", "COZE_API_TOKEN=pat_file\n", "pat_token" },
		{ "COZE_API_TOKEN_FILE", "token", "COZE_API_TOKEN_FILE=/nowhere\n", "pat_token" },
		{ "COZE_API_TOKEN_FILE", "", "COZE_API_TOKEN_FILE=token\n", "pat_token" },
		{ "COZE_API_TOKEN", "", "COZE_API_TOKEN_FILE=token\n", "pat_token" },
		{ "COZE_API_TOKEN", "", "COZE_API_TOKEN=\nCOZE_API_TOKEN_FILE=token\n", "pat_token" },
		{ "PATH", "/bin", "COZE_API_TOKEN=pat_file\nCOZE_API_TOKEN_FILE=\n", "pat_file" },
	};
	struct config config;

	(void)state;
	put_file(BYTES("pat_token\n"));
	assert_int_equal(rename("value", "token"), 0);
	for (size_t i = 0; i < COUNT(cases); i++) {
		set_required(NULL);
		unsetenv("COZE_API_TOKEN");
		put_file(cases[i].file, strlen(cases[i].file));
		setenv("SETTINGS_FILE", "value", 1);
		setenv(cases[i].name, cases[i].value, 1);
		config = load_good();
		assert_string_equal(config.coze_api_token, cases[i].token);
		config_fini(&config);
	}
	put_file(BYTES("COZE_API_TOKEN=SECRET\nCOZE_API_TOKEN_FILE=token\n"));
	assert_refused("PATH", "/bin",
		       "COZE_API_TOKEN and COZE_API_TOKEN_FILE: only one of them may be set\n");
	unlink("token");
}

static void test_config_tells_what_is_wrong_in_a_settings_file(void **state)
{
	(void)state;
	unsetenv("COZE_API_TOKEN");
	/* Only this is said: without the file nearly everything would seem to be missing. */
	assert_refused("SETTINGS_FILE", "/nowhere/settings",
		       "SETTINGS_FILE=/nowhere/settings: cannot be read: No such file or directory\n");
	put_file(BYTES("COZE_API_TOKEN=SECRET\nSECRET\n"));
	assert_refused("SETTINGS_FILE", "value", "value line 2 is not NAME=value\n");
	put_file(BYTES("COZE_API_TOKEN=SECRET\x1B\n"));
	assert_refused("SETTINGS_FILE", "value", "COZE_API_TOKEN: must be UTF-8 text without control");
	put_file(BYTES("COZE_API_TOKEN=SECRET\nSERVER_PORT=0\n"));
	assert_refused("SETTINGS_FILE", "value", "SERVER_PORT=0: must be a whole number");
}

#define TEST(function) cmocka_unit_test_setup(function, set_required)

/* Of a long value its beginning is shown, and no character of it is torn. */
static void test_config_cuts_long_values_between_characters(void **state)
{
	(void)state;
	for (size_t before = 195; before <= 200; before++) {
		char value[300], path[300], problem[300];
		size_t whole = (200 - before) / 3 * 3;

		memset(value, 'x', before);
		strcpy(value + before, "你好你好");
		snprintf(problem, sizeof problem, "LOG_LEVEL=%.*s: must be", (int)(before + whole), value);
		assert_refused("LOG_LEVEL", value, problem);
		snprintf(path, sizeof path, "%s", value);
		snprintf(problem, sizeof problem, "LOG_LEVEL_FILE=%.*s: cannot", (int)(before + whole), path);
		assert_refused("LOG_LEVEL_FILE", path, problem);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_config_has_the_documented_defaults),
		TEST(test_config_takes_numbers),
		TEST(test_config_takes_texts),
		TEST(test_config_refuses_and_says_what_is_allowed),
		TEST(test_config_cuts_long_values_between_characters),
		TEST(test_config_redis_url_is_taken_apart_at_once),
		TEST(test_config_sentinels_make_redis_url_optional),
		TEST(test_config_refuses_bad_sentinels),
		TEST(test_config_sentinel_password_has_a_ceiling),
		TEST(test_config_wants_a_file_and_no_directory),
		TEST(test_config_ids_have_up_to_128_bytes),
		TEST(test_config_names_everything_that_is_missing_or_wrong_at_once),
		TEST(test_config_tells_each_problem_in_one_line),
		TEST(test_config_reads_values_from_files),
		TEST(test_config_refuses_bad_files),
		TEST(test_config_refuses_files_it_cannot_take_whole),
		TEST(test_config_never_prints_secrets),
		TEST(test_config_prints_what_a_shell_may_eval),
		TEST(test_config_prints_settings_that_load_again_as_the_same),
		TEST(test_config_debug_logs_everything),
		TEST(test_config_help_names_every_variable),
		TEST(test_config_survives_each_failed_allocation),
		TEST(test_config_knows_addresses),
		TEST(test_config_limits_a_host_s_length),
		TEST(test_config_knows_lists_of_addresses),
		TEST(test_config_knows_where_to_log),
		TEST(test_config_reads_a_settings_file),
		TEST(test_config_environment_and_file_may_say_it_differently),
		TEST(test_config_tells_what_is_wrong_in_a_settings_file),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
