/*
 * session_index.h - the way back to sessions: all of them by their last activity, and the one of a conversation.
 *
 * A session's own keys are all that its messages need; the index only makes sessions findable. Its keys share one hash
 * tag, and never that of a session, so it is kept by commands of its own, sent right before or behind what changes the
 * session. It may know too much (a session that is gone, a conversation that its session has left) or, after a failure,
 * too little until the session is used again: callers look at the session itself.
 */
#ifndef STORE_SESSION_INDEX_H
#define STORE_SESSION_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/id.h"

struct redis;
struct session_index;

#define SESSION_PAGE_MAX 50

struct session_place {
	char session_id[ID_MAX + 1];
	char active_us[24]; /* its last activity, Unix microseconds of Redis' clock, in digits */
};

struct session_page {
	uint64_t total; /* living sessions, also those beside the page */
	size_t count;
	struct session_place places[SESSION_PAGE_MAX]; /* the last used one first */
};

/* Called once, never from within. error: NULL, or why not; the other pointer is then NULL. */
typedef void (*session_page_fn)(void *arg, const struct error *error, const struct session_page *page);
/* session_id: "" when the conversation leads to none. */
typedef void (*session_holder_fn)(void *arg, const struct error *error, const char *session_id);
/* The touch has been answered, or failed. */
typedef void (*session_touched_fn)(void *arg);

/* redis: lent. ttl_ms: how long an unused session is kept. */
enum err session_index_open(struct session_index **out, struct redis *redis, uint64_t ttl_ms,
			    struct error *why);
/* Call it after redis_close(). */
void session_index_close(struct session_index *index);

/*
 * A session was used at `active_us` (Redis' clock). conversation_id: "" for none. It leaves at the end of the round, together
 * with all others of the round and before whatever those send that joined the rounds later; nobody waits, and a failure is
 * no matter.
 */
void session_index_touch(struct session_index *index, const char *session_id, const char *conversation_id,
			 uint64_t active_us);

/* The same for who must know when it is done. Not ERR_OK: `fn` is never called. */
enum err session_index_touch_then(struct session_index *index, const char *session_id,
				  const char *conversation_id, uint64_t active_us, session_touched_fn fn,
				  void *arg);

/* At most `limit` (up to SESSION_PAGE_MAX) sessions behind the first `offset` ones. Costs the same for any offset. */
enum err session_index_page(struct session_index *index, uint64_t offset, uint64_t limit, session_page_fn fn,
			    void *arg);

/* The session of this place has turned out to be gone. */
void session_index_drop(struct session_index *index, const struct session_place *place);

/* Which session used this conversation last. */
enum err session_index_holder(struct session_index *index, const char *conversation_id, session_holder_fn fn,
			      void *arg);

#endif
