/*
 * fuzz_config.c - settings from an environment and a file are taken or refused with one line for each problem, which never
 * shows a secret; what was taken is printed so that a shell reads it back, and loads as the same settings again.
 *
 * Input: lines NAME=value, the environment; an empty line; the file that each NAME_FILE and SETTINGS_FILE then names. A secret
 * is what holds the word SECRET.
 */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "app/config.h"
#include "base/log.h"

#define ROOM (1024 * 1024)
#define VARS 256
#define WORD "SECRET"

struct environment {
	char *vars[VARS + 1]; /* owned */
	size_t count;
};

static void set(struct environment *env, const char *name, size_t name_len, const char *value,
		size_t value_len)
{
	struct buf var;

	if (env->count == VARS)
		return;
	buf_init(&var, name_len + value_len + 2);
	buf_append(&var, name, name_len);
	buf_append_char(&var, '=');
	buf_append(&var, value, value_len);
	env->vars[env->count++] = exact_string(buf_bytes(&var), buf_size(&var));
	env->vars[env->count] = NULL;
	buf_free(&var);
}

static void forget(struct environment *env)
{
	for (size_t i = 0; i < env->count; i++)
		free(env->vars[i]);
	*env = (struct environment){ .count = 0 };
}

static bool names_file(struct input name)
{
	return name.left > 5 && memcmp(name.at + name.left - 5, "_FILE", 5) == 0;
}

/* Files of certificates and the log are only looked at by name; but no name of the fuzzer's making is ever opened. */
static bool is_path(struct input name)
{
	return names_file(name) && !input_is(&name, "LOG_FILE");
}

static bool is_secret(struct input name)
{
	static const char *const names[] = { "ADMIN_API_KEYS",          "API_KEYS",
					     "COZE_API_TOKEN",          "REDIS_PASSWORD",
					     "REDIS_SENTINEL_PASSWORD", "REDIS_URL" };

	for (size_t i = 0; i < COUNT(names); i++)
		if (input_is(&name, names[i]))
			return true;
	return false;
}

static bool holds(const char *bytes, size_t len, const char *word)
{
	return len > 0 && memmem(bytes, len, word, strlen(word)) != NULL;
}

/* Reads the environment; *shown: the word stands where it may well be shown. */
static void read_environment(struct environment *env, struct input *input, int fd, bool *shown)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	while (input->left > 0) {
		struct input line = input_line(input), name;

		if (line.left == 0)
			break;
		name = input_until(&line, '=');
		*shown = *shown || holds(name.at, name.left, WORD) ||
			 (!is_secret(name) && holds(line.at, line.left, WORD));
		if (is_path(name) && line.left > 0)
			set(env, name.at, name.left, path, strlen(path));
		else
			set(env, name.at, name.left, line.at, line.left);
	}
	CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, input->at, input->left, 0) == (ssize_t)input->left);
}

/* Of the settings file and of files with values only the secrets are known to be ones: the word must not stand elsewhere. */
static bool file_shows(struct input file)
{
	while (file.left > 0) {
		struct input line = input_line(&file), name = input_until(&line, '=');

		if (holds(name.at, name.left, WORD) || (!is_secret(name) && holds(line.at, line.left, WORD)))
			return true;
	}
	return false;
}

static void check_problems(const struct buf *problems, bool good, bool may_show)
{
	const char *p = buf_bytes(problems);
	size_t size = buf_size(problems);

	CHECK(!problems->failed && good == (size == 0));
	CHECK(good || p[size - 1] == '\n');
	CHECK(utf8_valid(p, size));
	for (size_t i = 0; i < size; i++)
		CHECK(((unsigned char)p[i] >= 0x20 && p[i] != 0x7F) || p[i] == '\n');
	CHECK(may_show || !holds(p, size, WORD));
	while (size > 0) { /* one line each: it begins with a setting's or the file's name */
		size_t len = (size_t)((const char *)memchr(p, '\n', size) - p);

		CHECK(len > 3 && strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/procselfdn") > 2);
		p += len + 1;
		size -= len + 1;
	}
}

static void check_numbers(const struct config *config)
{
	CHECK(config->server_port >= 1 && config->server_port <= 65535);
	CHECK(config->tls_port >= 1 && config->tls_port <= 65535);
	CHECK(config->workers >= 1 && config->workers <= 512);
	CHECK(config->coze_chat_mode <= CHAT_MODE_POLL && config->log_format <= LOG_FORMAT_JSON);
	CHECK(config->log_level <= LOG_LEVEL_DEBUG && config->debug <= 1 && config->tls_redirect <= 1);
	CHECK(config->max_request_size >= 1024 && config->max_request_size <= UINT64_C(1) << 30);
	CHECK(config->coze_max_event_bytes >= 65536 && config->coze_max_event_bytes <= UINT64_C(1) << 30);
	CHECK(config->chat_timeout_ms >= 100 && config->chat_timeout_ms <= 3600000);
	CHECK(config->session_ttl_ms >= 1000 && config->session_lock_ms >= 300);
	CHECK(config->coze_max_retries <= 20 && config->max_turns >= 1);
	CHECK(config->run_dir[0] == '/');
	CHECK(config->log_file[0] == '/' || strcmp(config->log_file, "-") == 0 ||
	      config->log_file[0] == '\0');
	CHECK(config->coze_api_token[0] != '\0' && config->coze_bot_id[0] != '\0');
	CHECK(config->redis_url[0] != '\0' || config->redis_sentinels[0] != '\0');
}

/* As a POSIX shell reads NAME='…'\''…'; the rest of the print in *p. */
static void read_shell_word(const char **p, struct buf *value)
{
	CHECK(*(*p)++ == '\'');
	for (;;) {
		size_t len = strcspn(*p, "'");

		buf_append(value, *p, len);
		*p += len;
		CHECK(**p == '\'');
		(*p)++;
		if (strncmp(*p, "\\''", 3) != 0)
			break;
		buf_append_char(value, '\'');
		*p += 3;
	}
	CHECK(*(*p)++ == '\n');
}

/* The environment that a shell has after it was given what is printed; *same: loading that may give the same. */
static void read_printed(struct environment *env, const char *p, bool *same)
{
	while (*p != '\0') {
		size_t name = strcspn(p, "=");
		const char *rest = p + name + 1;
		struct buf value;

		CHECK(p[name] == '=' && strspn(p, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == name);
		buf_init(&value, ROOM);
		read_shell_word(&rest, &value);
		if (buf_size(&value) == 0 && strncmp(p, "ALLOWED_ORIGINS=", 16) == 0)
			*same = false; /* an empty variable counts as unset; an empty file does not */
		set(env, p, name, buf_bytes(&value), buf_size(&value));
		buf_free(&value);
		p = rest;
	}
}

static void set_text(struct environment *env, const char *name, const char *value)
{
	set(env, name, strlen(name), value, strlen(value));
}

static void check_print(const struct config *config)
{
	struct environment env = { .count = 0 };
	struct buf printed, again, problems;
	struct config loaded;
	bool same = true;
	char *text;

	buf_init(&printed, ROOM);
	buf_init(&again, ROOM);
	buf_init(&problems, ROOM);
	config_print(config, &printed);
	CHECK(!printed.failed);
	text = exact_string(buf_bytes(&printed), buf_size(&printed));
	read_printed(&env, text, &same);
	set_text(&env, "COZE_API_TOKEN", config->coze_api_token);
	set_text(&env, "REDIS_URL", config->redis_url);
	set_text(&env, "ADMIN_API_KEYS", config->admin_api_keys);
	environ = env.vars;
	CHECK(config_load(&loaded, &problems) || !same);
	config_print(&loaded, &again);
	CHECK(same_buf(&printed, &again) || !same);
	config_fini(&loaded);
	forget(&env);
	environ = env.vars;
	free(text);
	buf_free(&printed);
	buf_free(&again);
	buf_free(&problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static int fd = -1;
	struct input input = input_of(bytes, len);
	struct environment env = { .count = 0 };
	char **outside = environ;
	struct buf problems;
	struct config config;
	bool good, shown = false;

	if (fd < 0)
		fd = memfd_create("settings", MFD_CLOEXEC);
	buf_init(&problems, ROOM);
	read_environment(&env, &input, fd, &shown);
	environ = env.vars;
	good = config_load(&config, &problems);
	check_problems(&problems, good, shown || file_shows(input));
	if (good) {
		check_numbers(&config);
		check_print(&config);
	}
	config_fini(&config);
	environ = outside;
	forget(&env);
	buf_free(&problems);
	return 0;
}
