/*
 * config.c - the table of settings, and the few kinds of value that it holds.
 */
#include "app/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/settings_file.h"
#include "base/id.h"
#include "base/log.h"
#include "base/utf8.h"
#include "store/redis_url.h"
#include "store/sentinel.h"

#define VALUE_MAX (64 * 1024) /* bytes of one value, also from a file */
#define SHOWN_MAX 200         /* bytes of it in a problem's line */

enum kind {
	KIND_TEXT,      /* char *: any UTF-8 text without control characters; max: bytes, 0 for no limit */
	KIND_ID,        /* char *: as a session_id, see id.h */
	KIND_URL,       /* char *: http:// or https:// */
	KIND_REDIS,     /* char *: redis:// or unix:// */
	KIND_PATH,      /* char *: made absolute */
	KIND_LOG,       /* char *: a file's path, made absolute; "-"; or empty */
	KIND_ADDRESS,   /* char *: host:port or [IPv6]:port, or empty */
	KIND_ADDRESSES, /* char *: a comma-separated list of them, or empty; max: how many, 0 for no limit */
	KIND_KEYS,      /* char *: a comma-separated list of keys, or empty */
	KIND_FILE,      /* char *: a readable file, or empty */
	KIND_COUNT,     /* uint64_t between min and max */
	KIND_SECONDS, /* uint64_t milliseconds; written in seconds, fractions allowed; min and max are milliseconds */
	KIND_BOOL,  /* uint64_t 0 or 1 */
	KIND_CHOICE /* uint64_t: index in `choices` */
};

enum flags { REQUIRED = 1, SECRET = 2 };

struct option {
	const char *name;
	enum kind kind;
	unsigned flags;
	size_t offset;
	const char *fallback;
	uint64_t min, max;
	const char *const *choices; /* NULL-terminated */
	const char *meaning;
};

static const char *const chat_modes[] = { "stream", "poll", NULL };
static const char *const log_formats[] = { "text", "json", NULL };
static const char *const log_levels[] = { "error", "warn", "info", "debug", NULL };

#define FIELD(name) offsetof(struct config, name)
#define MINUTES     (UINT64_C(60) * 1000)
#define HOURS       (60 * MINUTES)
#define MIB         (UINT64_C(1024) * 1024)

static const struct option options[] = {
	{ "ADMIN_API_KEYS", KIND_KEYS, SECRET, FIELD(admin_api_keys), "", 0, 0, NULL,
	  "comma-separated keys of the admin routes; empty: they answer to loopback only" },
	{ "ADMIN_NETWORKS", KIND_TEXT, 0, FIELD(admin_networks), "", 0, 0, NULL,
	  "networks that the admin routes answer to; empty: loopback, with ADMIN_API_KEYS private ones too" },
	{ "ALLOWED_ORIGINS", KIND_TEXT, 0, FIELD(allowed_origins), "*", 0, 0, NULL,
	  "comma-separated origins that browsers may call from, or *" },
	{ "API_KEYS", KIND_KEYS, SECRET, FIELD(api_keys), "", 0, 0, NULL,
	  "comma-separated keys, one of which a client must send; empty: open" },
	{ "APP_NOTICE", KIND_TEXT, 0, FIELD(app_notice), "", 0, 0, NULL,
	  "what the chat page always tells its visitors, such as an emergency number; Markdown, one line" },
	{ "CHAT_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(chat_timeout_ms), "60", 100, 1 * HOURS, NULL,
	  "longest /chat" },
	{ "CLIENT_BURST", KIND_COUNT, 0, FIELD(client_burst), "50", 0, 1000000, NULL,
	  "requests that a client may send at once, beyond its rate" },
	{ "CLIENT_CONNECTIONS", KIND_COUNT, 0, FIELD(client_connections), "100", 0, 1000000, NULL,
	  "requests of one client at a time; 0: no limit" },
	{ "CLIENT_EXEMPT_NETWORKS", KIND_TEXT, 0, FIELD(client_exempt_networks), "loopback,private", 0, 0,
	  NULL, "networks whose clients are not limited: loopback, private, none, or a list of CIDRs" },
	{ "CLIENT_REQUESTS_PER_SECOND", KIND_COUNT, 0, FIELD(client_requests_per_second), "10", 0, 1000000,
	  NULL, "requests of one client, by address; beyond it and the burst: 429; 0: no limit" },
	{ "COZE_API_TOKEN", KIND_TEXT, REQUIRED | SECRET, FIELD(coze_api_token), "", 0, 0, NULL,
	  "Coze's access token" },
	{ "COZE_BASE_URL", KIND_URL, 0, FIELD(coze_base_url), "https://api.coze.cn/v3", 0, 0, NULL,
	  "Coze's API; https://api.coze.com/v3 outside of China" },
	{ "COZE_BOT_ID", KIND_ID, REQUIRED, FIELD(coze_bot_id), "", 0, 0, NULL,
	  "the bot; it must be published to the API channel" },
	{ "COZE_CA_FILE", KIND_FILE, 0, FIELD(coze_ca_file), "", 0, 0, NULL,
	  "PEM file with CAs to trust besides the system's" },
	{ "COZE_CHAT_MODE", KIND_CHOICE, 0, FIELD(coze_chat_mode), "stream", 0, 0, chat_modes,
	  "ask Coze for a stream, or poll for the answer" },
	{ "COZE_CONNECT_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(coze_connect_timeout_ms), "5", 10,
	  10 * MINUTES, NULL, "longest wait for a connection to Coze" },
	{ "COZE_FIRST_BYTE_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(coze_first_byte_timeout_ms), "30", 10,
	  1 * HOURS, NULL, "longest wait for Coze's first byte" },
	{ "COZE_IDLE_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(coze_idle_timeout_ms), "60", 10, 1 * HOURS,
	  NULL, "longest silence of Coze within an answer" },
	{ "COZE_MAX_EVENT_BYTES", KIND_COUNT, 0, FIELD(coze_max_event_bytes), "8388608", 64 * 1024,
	  1024 * MIB, NULL, "largest single event (or JSON body) from Coze, bytes" },
	{ "COZE_MAX_RETRIES", KIND_COUNT, 0, FIELD(coze_max_retries), "5", 0, 20, NULL,
	  "how often a failed message is given to Coze again" },
	{ "COZE_MIN_INTERVAL_MS", KIND_COUNT, 0, FIELD(coze_min_interval_ms), "500", 0, 3600000, NULL,
	  "least time between two chats that start, of all workers on all machines, ms; 0: no limit" },
	{ "COZE_RATE_WAIT_SECONDS", KIND_SECONDS, 0, FIELD(coze_rate_wait_ms), "10", 0, 1 * HOURS, NULL,
	  "a message that would wait longer for its start is refused" },
	{ "COZE_USER_ID", KIND_ID, 0, FIELD(coze_user_id), "default_user", 0, 0, NULL,
	  "the user_id of requests that name none" },
	{ "DEBUG", KIND_BOOL, 0, FIELD(debug), "false", 0, 0, NULL, "more log; never message text" },
	{ "DRAIN_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(drain_timeout_ms), "300", 0, 24 * HOURS, NULL,
	  "how long a stopping worker lets running requests go on" },
	{ "LOG_FILE", KIND_LOG, 0, FIELD(log_file), "", 0, 0, NULL,
	  "the workers' log; - for standard error; empty: RUN_DIR/logs/api_server.log" },
	{ "LOG_FORMAT", KIND_CHOICE, 0, FIELD(log_format), "text", 0, 0, log_formats,
	  "lines of key=value, or one JSON object per line" },
	{ "LOG_LEVEL", KIND_CHOICE, 0, FIELD(log_level), "info", 0, 0, log_levels,
	  "least severe line to log" },
	{ "MAX_ANSWER_BYTES", KIND_COUNT, 0, FIELD(max_answer_bytes), "33554432", 1024, 1024 * MIB, NULL,
	  "largest answer, bytes" },
	{ "MAX_REQUEST_SIZE", KIND_COUNT, 0, FIELD(max_request_size), "10485760", 1024, 1024 * MIB, NULL,
	  "largest request body, bytes" },
	{ "MAX_TURNS_PER_WORKER", KIND_COUNT, 0, FIELD(max_turns), "10000", 1, 1000000, NULL,
	  "messages that a worker handles at once; more are refused" },
	{ "METRICS_LISTEN", KIND_ADDRESS, 0, FIELD(metrics_listen), "", 0, 0, NULL,
	  "host:port where nginx serves the metrics of each worker machine to a Prometheus inside" },
	{ "REDIS_MASTER_NAME", KIND_ID, 0, FIELD(redis_master_name), "mymaster", 0, 0, NULL,
	  "what the Sentinels call Redis" },
	{ "REDIS_PASSWORD", KIND_TEXT, SECRET, FIELD(redis_password), "", 0, REDIS_PASSWORD_MAX, NULL,
	  "of Redis; it counts, whatever REDIS_URL says" },
	{ "REDIS_SENTINELS", KIND_ADDRESSES, 0, FIELD(redis_sentinels), "", 0, SENTINELS_MAX, NULL,
	  "comma-separated host:port of Sentinels that know where Redis is; user, password and db are "
	  "REDIS_URL's" },
	{ "REDIS_SENTINEL_PASSWORD", KIND_TEXT, SECRET, FIELD(redis_sentinel_password), "", 0,
	  SENTINEL_PASSWORD_MAX, NULL, "of the Sentinels themselves, if they ask for one" },
	{ "REDIS_URL", KIND_REDIS, REQUIRED | SECRET, FIELD(redis_url), "", 0, 0, NULL,
	  "redis://[[user]:password@]host[:port][/db] or unix://path; without it and REDIS_SENTINELS make up "
	  "starts a local one" },
	{ "RUN_DIR", KIND_PATH, 0, FIELD(run_dir), "run", 0, 0, NULL, "sockets, pids and logs" },
	{ "SERVER_HOST", KIND_TEXT, 0, FIELD(server_host), "0.0.0.0", 0, 0, NULL,
	  "address that nginx listens on" },
	{ "SERVER_PORT", KIND_COUNT, 0, FIELD(server_port), "6001", 1, 65535, NULL,
	  "port that nginx listens on" },
	{ "SESSION_LOCK_SECONDS", KIND_SECONDS, 0, FIELD(session_lock_ms), "10", 300, 1 * HOURS, NULL,
	  "after which the session of a crashed worker is free again" },
	{ "SESSION_TTL_SECONDS", KIND_SECONDS, 0, FIELD(session_ttl_ms), "86400", 1000, 10 * 365 * 24 * HOURS,
	  NULL, "how long an unused session is kept" },
	{ "SESSION_WAIT_SECONDS", KIND_SECONDS, 0, FIELD(session_wait_ms), "30", 0, 1 * HOURS, NULL,
	  "longest wait for earlier messages of the session" },
	{ "STREAM_HEARTBEAT_SECONDS", KIND_SECONDS, 0, FIELD(stream_heartbeat_ms), "15", 50, 1 * HOURS, NULL,
	  "silence after which a stream gets a blank line" },
	{ "STREAM_TIMEOUT_SECONDS", KIND_SECONDS, 0, FIELD(stream_timeout_ms), "300", 100, 24 * HOURS, NULL,
	  "longest /chat/stream" },
	{ "TLS_CERT_FILE", KIND_FILE, 0, FIELD(tls_cert_file), "", 0, 0, NULL,
	  "PEM file with nginx' certificate and its chain; empty: no HTTPS" },
	{ "TLS_KEY_FILE", KIND_FILE, 0, FIELD(tls_key_file), "", 0, 0, NULL,
	  "PEM file with the certificate's key" },
	{ "TLS_PORT", KIND_COUNT, 0, FIELD(tls_port), "6443", 1, 65535, NULL, "port of HTTPS" },
	{ "TLS_REDIRECT", KIND_BOOL, 0, FIELD(tls_redirect), "true", 0, 0, NULL,
	  "with HTTPS, SERVER_PORT sends everything but /health there" },
	{ "TRUSTED_PROXIES", KIND_TEXT, 0, FIELD(trusted_proxies), "", 0, 0, NULL,
	  "networks of load balancers whose X-Forwarded-For is believed: private, loopback, or a list of "
	  "CIDRs" },
	{ "WORKERS", KIND_COUNT, 0, FIELD(workers), "", 1, 512, NULL,
	  "worker processes; default: the number of cores" },
	{ "WORKER_ADDRESSES", KIND_ADDRESSES, 0, FIELD(worker_addresses), "", 0, 0, NULL,
	  "comma-separated host:port of the workers that nginx passes to; empty: those in RUN_DIR" },
	{ "WORKER_LISTEN", KIND_ADDRESS, 0, FIELD(worker_listen), "", 0, 0, NULL,
	  "host:port of the first worker, the next one has the next port; empty: unix sockets in RUN_DIR" },
	{ "WORKER_MAX_REQUESTS", KIND_COUNT, 0, FIELD(worker_max_requests), "0", 0, 1000000000000, NULL,
	  "requests after which a worker is replaced by a fresh one; 0: never" },
	{ "WORKER_RESOLVER", KIND_TEXT, 0, FIELD(worker_resolver), "", 0, 0, NULL,
	  "DNS server that nginx asks again and again for a name in WORKER_ADDRESSES; empty: asked at start "
	  "only" },
};

#define OPTIONS (sizeof options / sizeof options[0])

static char **text_field(struct config *config, const struct option *option)
{
	return (char **)(void *)((char *)config + option->offset);
}

static uint64_t *number_field(struct config *config, const struct option *option)
{
	return (uint64_t *)(void *)((char *)config + option->offset);
}

static bool is_text(const struct option *option)
{
	return option->kind <= KIND_FILE;
}

static bool has_control(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7F)
			return true;
	return false;
}

/* Problems are lines: a value that would break one is not shown, and of a long one its beginning; for %.*s. */
static const char *shown(const char *value, int *len)
{
	bool printable = utf8_valid(value, strlen(value)) && !has_control(value);
	const char *text = printable ? value : "(unprintable)";

	*len = (int)utf8_cut(text, strlen(text), SHOWN_MAX);
	return text;
}

/* Says what is wrong with a value; a secret's value is not shown. */
static bool problem(struct buf *problems, const struct option *option, const char *value, const char *allowed)
{
	int len;
	const char *text = shown(value, &len);

	if (option->flags & SECRET)
		buf_printf(problems, "%s: must be %s\n", option->name, allowed);
	else
		buf_printf(problems, "%s=%.*s: must be %s\n", option->name, len, text, allowed);
	return false;
}

static bool set_text(char **field, const char *value)
{
	free(*field);
	*field = strdup(value);
	return *field != NULL;
}

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool parse_url(char **field, const struct option *option, const char *value, struct buf *problems)
{
	const char *host = value + (starts_with(value, "https://") ? 8 : 7);
	size_t len = strlen(value);

	if (!(starts_with(value, "http://") || starts_with(value, "https://")) || *host == '\0' ||
	    *host == '/' || strpbrk(value, " ?#\"<>\\") != NULL)
		return problem(problems, option, value, "an http:// or https:// URL without query");
	if (!set_text(field, value))
		return false;
	while (len > 0 && (*field)[len - 1] == '/')
		(*field)[--len] = '\0';
	return true;
}

static bool is_readable_file(const char *path)
{
	struct stat info;

	return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, R_OK) == 0;
}

static bool parse_path(char **field, const char *value)
{
	char cwd[PATH_MAX];
	size_t size;

	if (value[0] == '/')
		return set_text(field, value);
	if (getcwd(cwd, sizeof cwd) == NULL)
		return false;
	size = strlen(cwd) + strlen(value) + 2;
	free(*field);
	*field = malloc(size);
	if (*field != NULL)
		snprintf(*field, size, "%s/%s", cwd, value);
	return *field != NULL;
}

/* host:port or [IPv6]:port. Which names exist is not asked here. */
static bool is_address(const char *text, size_t len)
{
	static const char host_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t host =
	    text[0] == '[' ? 1 + strspn(text + 1, "0123456789abcdefABCDEF:.") : strspn(text, host_chars);
	size_t digits;
	unsigned long port;

	if (text[0] == '[' && (host == 1 || text[host++] != ']'))
		return false;
	/* cppcheck-suppress knownConditionTrueFalse ; a name may begin with a byte that none has */
	if (host == 0 || host > 255 || host >= len || text[host] != ':')
		return false;
	digits = strspn(text + host + 1, "0123456789");
	if (digits == 0 || digits > 5 || host + 1 + digits != len)
		return false;
	port = strtoul(text + host + 1, NULL, 10);
	return port > 0 && port <= 65535;
}

static bool are_addresses(const char *list, uint64_t max)
{
	for (uint64_t count = 1; *list != '\0'; count++) {
		size_t len = strcspn(list, ",");

		if (!is_address(list, len) || (max != 0 && count > max))
			return false;
		list += len;
		if (*list == ',' && *++list == '\0')
			return false;
	}
	return true;
}

/* They stand before REDIS_URL in the table, and so are known. */
static bool has_sentinels(const struct config *config)
{
	return config->redis_sentinels != NULL && config->redis_sentinels[0] != '\0';
}

static bool parse_redis(struct config *config, const struct option *option, const char *value,
			struct buf *problems)
{
	char allowed[200];
	struct redis_url url;
	const char *why;
	bool empty = value[0] == '\0';
	bool good = empty || redis_url_parse(&url, value, &why);

	if (!good)
		snprintf(allowed, sizeof allowed,
			 "redis://[[user]:password@]host[:port][/db] or unix://path; %s", why);
	else if (!empty && url.path[0] != '\0' && has_sentinels(config))
		snprintf(allowed, sizeof allowed,
			 "redis://[user]:password@host[/db] or empty: REDIS_SENTINELS say where Redis is");
	else
		return set_text(&config->redis_url, value);
	return problem(problems, option, value, allowed);
}

static bool parse_addresses(char **field, const struct option *option, const char *value,
			    struct buf *problems)
{
	char allowed[96];

	/* Also when it is wrong: parse_redis() wants to know that there are any, and that is a problem of its own. */
	if (!set_text(field, value) || are_addresses(value, option->max))
		return *field != NULL;
	if (option->max == 0)
		return problem(problems, option, value, "host:port, or several with commas between");
	snprintf(allowed, sizeof allowed, "host:port, or up to %llu with commas between",
		 (unsigned long long)option->max);
	return problem(problems, option, value, allowed);
}

static bool parse_any_text(char **field, const struct option *option, const char *value, struct buf *problems)
{
	char allowed[96];

	if (option->max == 0 || strlen(value) <= option->max)
		return set_text(field, value);
	snprintf(allowed, sizeof allowed, "at most %llu bytes", (unsigned long long)option->max);
	return problem(problems, option, value, allowed);
}

static bool parse_text(struct config *config, const struct option *option, const char *value,
		       struct buf *problems)
{
	char **field = text_field(config, option);

	if (value[0] == '\0' && (option->flags & REQUIRED))
		return set_text(field, value); /* is_missing() */
	if (!utf8_valid(value, strlen(value)) || has_control(value))
		return problem(problems, option, "(unprintable)", "UTF-8 text without control characters");
	switch (option->kind) {
	case KIND_ID:
		if (!id_valid(value, strlen(value)))
			return problem(problems, option, value, "1 to 128 bytes of text");
		return set_text(field, value);
	case KIND_URL:
		return parse_url(field, option, value, problems);
	case KIND_REDIS:
		return parse_redis(config, option, value, problems);
	case KIND_LOG:
		return value[0] == '\0' || strcmp(value, "-") == 0 ? set_text(field, value)
								   : parse_path(field, value);
	case KIND_ADDRESS:
		if (value[0] != '\0' && !is_address(value, strlen(value)))
			return problem(problems, option, value, "host:port or [IPv6 address]:port");
		return set_text(field, value);
	case KIND_ADDRESSES:
		return parse_addresses(field, option, value, problems);
	case KIND_KEYS: /* nothing but separators would lock everybody out */
		if (value[0] != '\0' && value[strspn(value, ", ")] == '\0')
			return problem(problems, option, value, "keys with commas between, or empty");
		return set_text(field, value);
	case KIND_PATH:
		if (value[0] == '\0')
			return problem(problems, option, value, "a directory");
		return parse_path(field, value);
	case KIND_FILE:
		if (value[0] != '\0' && !is_readable_file(value))
			return problem(problems, option, value, "a file that can be read");
		return value[0] == '\0' ? set_text(field, value) : parse_path(field, value);
	default:
		return parse_any_text(field, option, value, problems);
	}
}

static bool parse_count(uint64_t *field, const struct option *option, const char *value, struct buf *problems)
{
	char allowed[96];
	char *end;
	unsigned long long number;

	errno = 0;
	number = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0 || number < option->min ||
	    number > option->max) {
		snprintf(allowed, sizeof allowed, "a whole number from %llu to %llu",
			 (unsigned long long)option->min, (unsigned long long)option->max);
		return problem(problems, option, value, allowed);
	}
	*field = number;
	return true;
}

static bool parse_seconds(uint64_t *field, const struct option *option, const char *value,
			  struct buf *problems)
{
	char allowed[96];
	char *end;
	double seconds = strtod(value, &end);

	/* Only digits and a point: strtod would also take "inf", "0x10" and "1e9". */
	if (value[0] == '\0' || strspn(value, "0123456789.") != strlen(value) || *end != '\0' ||
	    seconds * 1000 < (double)option->min || seconds * 1000 > (double)option->max) {
		snprintf(allowed, sizeof allowed, "seconds from %g to %g, fractions allowed",
			 (double)option->min / 1000, (double)option->max / 1000);
		return problem(problems, option, value, allowed);
	}
	*field = (uint64_t)llround(seconds * 1000);
	return true;
}

static bool parse_bool(uint64_t *field, const struct option *option, const char *value, struct buf *problems)
{
	static const char *const words[] = { "false", "true", "0", "1", "no", "yes", "off", "on", NULL };

	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcasecmp(value, words[i]) == 0) {
			*field = i & 1;
			return true;
		}
	}
	return problem(problems, option, value, "true or false");
}

static bool parse_choice(uint64_t *field, const struct option *option, const char *value,
			 struct buf *problems)
{
	char allowed[96] = "one of:";

	for (unsigned i = 0; option->choices[i] != NULL; i++) {
		if (strcasecmp(value, option->choices[i]) == 0) {
			*field = i;
			return true;
		}
		strncat(allowed, " ", sizeof allowed - strlen(allowed) - 1);
		strncat(allowed, option->choices[i], sizeof allowed - strlen(allowed) - 1);
	}
	return problem(problems, option, value, allowed);
}

static bool parse(struct config *config, const struct option *option, const char *value, struct buf *problems)
{
	uint64_t *number = number_field(config, option);

	switch (option->kind) {
	case KIND_COUNT:
		return parse_count(number, option, value, problems);
	case KIND_SECONDS:
		return parse_seconds(number, option, value, problems);
	case KIND_BOOL:
		return parse_bool(number, option, value, problems);
	case KIND_CHOICE:
		return parse_choice(number, option, value, problems);
	default:
		return parse_text(config, option, value, problems);
	}
}

/* A secret's file is named by an absolute path, or not at all: it may be the secret itself. */
static void cannot_read(const struct option *option, const char *path, struct buf *problems)
{
	const char *reason = strerror(errno);
	bool hidden = (option->flags & SECRET) && path[0] != '/';
	int len;
	const char *text = shown(hidden ? "…" : path, &len);

	buf_printf(problems, "%s_FILE=%.*s: cannot be read: %s\n", option->name, len, text, reason);
}

/* Reads a secret's file; line ends behind it are not part of the value. NULL (and a problem) on failure. */
static char *read_value_file(const struct option *option, const char *path, struct buf *problems)
{
	char *value = calloc(1, VALUE_MAX + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got = -1;

	if (fd >= 0 && value != NULL)
		while (len < VALUE_MAX && (got = read(fd, value + len, VALUE_MAX - len)) > 0)
			len += (size_t)got;
	if (got < 0)
		cannot_read(option, path, problems);
	if (fd >= 0)
		close(fd);
	if (got < 0) {
		free(value);
		return NULL;
	}
	if (len == VALUE_MAX || strlen(value) != len) {
		buf_printf(problems, "%s_FILE: must name a file with less than %d bytes of text\n",
			   option->name, VALUE_MAX);
		free(value);
		return NULL;
	}
	while (len > 0 && (value[len - 1] == '\n' || value[len - 1] == '\r'))
		value[--len] = '\0';
	return value;
}

/* An empty variable counts as unset: compose and `.env` files pass NAME= for what nobody filled in. */
static const char *filled(const char *value)
{
	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* NAME and NAME_FILE of one source. The environment wins over the file, also where it says NAME and the file NAME_FILE. */
static void look_up(const struct settings_file *file, const char *name, const char **value, const char **path)
{
	char file_name[64];

	snprintf(file_name, sizeof file_name, "%s_FILE", name);
	*value = filled(getenv(name));
	*path = filled(getenv(file_name));
	if (file == NULL || *value != NULL || *path != NULL)
		return;
	*value = filled(settings_file_get(file, name));
	*path = filled(settings_file_get(file, file_name));
}

static bool load_option(struct config *config, const struct settings_file *file, const struct option *option,
			struct buf *problems)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	const char *value, *path;
	char *from_file;
	bool good;

	look_up(file, option->name, &value, &path);
	if (path != NULL && value != NULL) {
		buf_printf(problems, "%s and %s_FILE: only one of them may be set\n", option->name,
			   option->name);
		return false;
	}
	if (path == NULL && value == NULL && option->offset == FIELD(workers)) {
		config->workers = cores > 0 ? (uint64_t)cores : 1;
		return true;
	}
	if (path == NULL)
		return parse(config, option, value != NULL ? value : option->fallback, problems);
	from_file = read_value_file(option, path, problems);
	if (from_file == NULL)
		return false;
	good = parse(config, option, from_file, problems);
	free(from_file);
	return good;
}

/* A setting that the worker cannot do without, and does not have. */
static bool is_missing(const struct config *config, const struct option *option)
{
	if (option->offset == FIELD(redis_url) && has_sentinels(config))
		return false;
	return (option->flags & REQUIRED) && (*text_field((struct config *)config, option))[0] == '\0';
}

static bool load(struct config *config, struct buf *problems, bool insist)
{
	const char *settings_path = filled(getenv("SETTINGS_FILE"));
	struct settings_file *file = NULL; /* NULL: only the environment speaks */
	bool good = true;

	*config = (struct config){ 0 };
	if (settings_path != NULL) {
		file = settings_file_read(settings_path, problems);
		good = file != NULL;
	}
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *option = &options[i];

		if (is_text(option) && !set_text(text_field(config, option), ""))
			good = false;
		/* Without the file nearly every setting would seem to be wrong. */
		if (settings_path != NULL && file == NULL)
			continue;
		if (!load_option(config, file, option, problems)) {
			good = false;
		} else if (insist && is_missing(config, option)) {
			buf_printf(problems, "%s: is required and not set (%s)\n", option->name,
				   option->meaning);
			good = false;
		}
	}
	if (config->debug)
		config->log_level = LOG_LEVEL_DEBUG;
	settings_file_free(file);
	return good;
}

bool config_load(struct config *config, struct buf *problems)
{
	return load(config, problems, true);
}

bool config_load_partly(struct config *config, struct buf *problems)
{
	return load(config, problems, false);
}

void config_fini(struct config *config)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		char **field = text_field(config, &options[i]);

		if (!is_text(&options[i]) || *field == NULL)
			continue;
		explicit_bzero(*field, strlen(*field));
		free(*field);
	}
	*config = (struct config){ 0 };
}

static void print_text(struct buf *out, const char *text)
{
	buf_append_char(out, '\'');
	for (; *text != '\0'; text++) {
		if (*text == '\'')
			buf_append_str(out, "'\\''");
		else
			buf_append_char(out, *text);
	}
	buf_append_char(out, '\'');
}

static void print_number(struct buf *out, const struct option *option, uint64_t number)
{
	if (option->kind == KIND_CHOICE)
		print_text(out, option->choices[number]);
	else if (option->kind == KIND_BOOL)
		print_text(out, number ? "true" : "false");
	else if (option->kind == KIND_SECONDS)
		buf_printf(out, "'%.15g'", (double)number / 1000);
	else
		buf_printf(out, "'%llu'", (unsigned long long)number);
}

void config_print(const struct config *config, struct buf *out)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *option = &options[i];

		if (option->flags & SECRET)
			continue;
		buf_printf(out, "%s=", option->name);
		if (is_text(option))
			print_text(out, *text_field((struct config *)config, option));
		else
			print_number(out, option, *number_field((struct config *)config, option));
		buf_append_char(out, '\n');
	}
	/* nginx/render opens the admin routes wider when keys guard them; the keys are not its business. */
	buf_printf(out, "ADMIN_KEYS_SET='%s'\n", config->admin_api_keys[0] != '\0' ? "yes" : "no");
}

void config_help(struct buf *out)
{
	buf_append_str(
	    out,
	    "Settings are environment variables; NAME_FILE names a file that holds the value. SETTINGS_FILE "
	    "names a file\nof NAME=value lines; it is read at start and at each reload, and the "
	    "environment wins over it.\n\n");
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *option = &options[i];

		buf_printf(out, "  %-32s %s%s%s%s\n", option->name, option->meaning,
			   option->fallback[0] != '\0' ? " (" : "", option->fallback,
			   option->fallback[0] != '\0' ? ")" : "");
	}
}
