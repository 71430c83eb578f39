/*
 * sessions.h - what Redis knows of a session: owner, conversation, number of messages, last use.
 *
 * Any worker on any machine serves any session; each change is one Lua script (redis/session_*.lua). The order of a
 * session's messages is the business of claims.h. Knows nothing of turns, HTTP or Coze.
 *
 * Callbacks come exactly once for each call that returned ERR_OK, and never from within it. Ids are valid (id.h).
 */
#ifndef STORE_SESSIONS_H
#define STORE_SESSIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/id.h"

struct redis;
struct sessions;

struct session_info {
	bool found;
	char user_id[ID_MAX + 1];
	char conversation_id[ID_MAX + 1]; /* "" for none */
	uint64_t last_activity_us;        /* Unix time */
	uint64_t message_count;
};

/* error: NULL, or why not; the other pointer is then NULL. */
typedef void (*session_info_fn)(void *arg, const struct error *error, const struct session_info *info);
typedef void (*session_done_fn)(void *arg, const struct error *error);

/* redis: lent. default_user_id: shown for sessions without owner; lent. ttl_ms: how long an unused session is kept. */
enum err sessions_open(struct sessions **out, struct redis *redis, const char *default_user_id,
		       uint64_t ttl_ms, struct error *why);
void sessions_close(struct sessions *sessions);

/* Whether Redis answers now: asks it. error is NULL when it does. */
enum err sessions_ping(struct sessions *sessions, session_done_fn fn, void *arg);

enum err session_info(struct sessions *sessions, const char *session_id, session_info_fn fn, void *arg);
enum err session_clear(struct sessions *sessions, const char *session_id, session_done_fn fn, void *arg);
enum err session_bind(struct sessions *sessions, const char *session_id, const char *conversation_id,
		      session_done_fn fn, void *arg);

#endif
