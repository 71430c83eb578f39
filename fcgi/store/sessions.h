/*
 * sessions.h - what Redis knows of sessions: owner, conversation, number of messages, last use; and which there are.
 *
 * Any worker on any machine serves any session; each change is one Lua script (redis/session_*.lua). The order of a
 * session's messages is the business of claims.h. Knows nothing of turns, HTTP or Coze.
 *
 * What a client was told is seen by all it asks next, whichever worker serves that, though a turn's end may be told while it
 * is on its way to Redis: a session that a turn holds is looked at again, and the index once Redis has answered other things.
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
#include "store/session_index.h"

struct redis;
struct sessions;

struct session_info {
	bool found;
	char user_id[ID_MAX + 1];
	char conversation_id[ID_MAX + 1]; /* "" for none */
	uint64_t last_activity_us;        /* Unix time */
	uint64_t message_count;
};

/* A session that was looked for. */
struct session_found {
	char session_id[ID_MAX + 1];
	struct session_info info;
};

struct session_list {
	uint64_t offset, limit; /* as asked for */
	uint64_t total;         /* living sessions, also those that are not listed here */
	size_t count;
	struct session_found sessions[SESSION_PAGE_MAX]; /* the last used one first */
};

/* error: NULL, or why not; the other pointer is then NULL. */
typedef void (*session_info_fn)(void *arg, const struct error *error, const struct session_info *info);
typedef void (*session_done_fn)(void *arg, const struct error *error);
typedef void (*session_list_fn)(void *arg, const struct error *error, const struct session_list *list);
typedef void (*session_found_fn)(void *arg, const struct error *error, const struct session_found *session);

/*
 * redis, index: lent. default_user_id: shown for sessions without owner; lent. ttl_ms: how long an unused session is
 * kept.
 */
enum err sessions_open(struct sessions **out, struct redis *redis, struct session_index *index,
		       const char *default_user_id, uint64_t ttl_ms, struct error *why);
void sessions_close(struct sessions *sessions);

/* Whether Redis answers now: asks it. error is NULL when it does. */
enum err sessions_ping(struct sessions *sessions, session_done_fn fn, void *arg);

enum err session_info(struct sessions *sessions, const char *session_id, session_info_fn fn, void *arg);
enum err session_clear(struct sessions *sessions, const char *session_id, session_done_fn fn, void *arg);
enum err session_bind(struct sessions *sessions, const char *session_id, const char *conversation_id,
		      session_done_fn fn, void *arg);

/* Up to `limit` (at most SESSION_PAGE_MAX) sessions behind the first `offset` ones. A session that was lost is left out. */
enum err sessions_list(struct sessions *sessions, uint64_t offset, uint64_t limit, session_list_fn fn,
		       void *arg);

/* The session that is in this conversation: the last that used it, if several are. info.found tells whether one is. */
enum err session_of_conversation(struct sessions *sessions, const char *conversation_id, session_found_fn fn,
				 void *arg);

#endif
