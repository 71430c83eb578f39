/*
 * config.h - all settings, read from environment variables.
 *
 * One table (config.c) names, types, bounds and explains every variable; parsing, --check, --print-config and
 * --help come from it. Any NAME may be given as NAME_FILE, a file that holds the value (Docker secrets). What the
 * environment does not name may stand in the file that SETTINGS_FILE names: that one is read again by a reload.
 */
#ifndef APP_CONFIG_H
#define APP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum chat_mode { CHAT_MODE_STREAM, CHAT_MODE_POLL };

struct config {
	/* Coze. Strings are owned, never NULL; empty when not set. */
	char *coze_api_token; /* secret */
	char *coze_bot_id;
	char *coze_user_id;
	char *coze_base_url; /* without a slash at the end */
	char *coze_ca_file;
	uint64_t coze_chat_mode; /* enum chat_mode */
	uint64_t coze_connect_timeout_ms;
	uint64_t coze_first_byte_timeout_ms;
	uint64_t coze_idle_timeout_ms;
	uint64_t coze_max_event_bytes;
	uint64_t max_answer_bytes;
	uint64_t chat_timeout_ms;
	uint64_t stream_timeout_ms;
	uint64_t stream_heartbeat_ms;
	uint64_t coze_max_retries;
	uint64_t coze_min_interval_ms; /* 0: no limit */
	uint64_t coze_rate_wait_ms;
	uint64_t max_turns; /* of one worker */

	/* Sessions. */
	char *redis_url;      /* may hold a password: secret */
	char *redis_password; /* secret; "" for the URL's */
	uint64_t session_ttl_ms;
	uint64_t session_wait_ms;
	uint64_t session_lock_ms;

	/* Redis behind Sentinels. */
	char *redis_sentinels; /* host:port,…; "" for none */
	char *redis_master_name;
	char *redis_sentinel_password; /* secret */

	/* nginx: read by nginx/render only. */
	char *admin_networks;
	uint64_t client_requests_per_second, client_burst, client_connections;
	char *client_exempt_networks;
	char *metrics_listen;
	char *tls_cert_file, *tls_key_file;
	uint64_t tls_port, tls_redirect;
	char *trusted_proxies;
	char *worker_addresses, *worker_resolver;

	/* Service. */
	char *run_dir; /* absolute */
	char *server_host;
	uint64_t server_port;
	char *allowed_origins;
	char *api_keys;       /* secret */
	char *admin_api_keys; /* secret */
	char *app_notice;     /* "" when there is none */
	uint64_t max_request_size;
	uint64_t workers;
	uint64_t drain_timeout_ms;
	uint64_t debug;      /* 0 or 1 */
	char *log_file;      /* absolute; "-" for standard error; "" for RUN_DIR/logs/api_server.log */
	uint64_t log_level;  /* enum log_level */
	uint64_t log_format; /* enum log_format */
	char *worker_listen; /* host:port of worker 0; "" for unix sockets in run_dir */
	uint64_t worker_max_requests;
};

/*
 * Fills `config` from the environment. Every problem becomes one line in `problems`, naming the variable, its
 * value (never a secret) and what is allowed. False when there was any; config_fini() is due either way.
 */
bool config_load(struct config *config, struct buf *problems);

/* The same, for who only wants to know what is set: what a worker requires may be missing. */
bool config_load_partly(struct config *config, struct buf *problems);

void config_fini(struct config *config);

/*
 * Appends every setting that is not secret as NAME='value' lines, safe for a shell's eval, and ADMIN_KEYS_SET, yes or no.
 */
void config_print(const struct config *config, struct buf *out);

/* Appends a line per variable: name, default, meaning. */
void config_help(struct buf *out);

#endif
