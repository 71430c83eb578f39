/*
 * sessions.c - see sessions.h.
 */
#include "store/sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis.h"
#include "store/scripts.h"
#include "store/session_key.h"

struct sessions {
	struct redis *redis;
	const char *default_user_id;
	char ttl_ms[24];
};

/* A call on its way to Redis: whom to tell. */
struct asking {
	struct sessions *sessions;
	union {
		session_info_fn info;
		session_done_fn done;
	} fn;
	void *arg;
};

static uint64_t number(struct redis_arg from)
{
	char digits[24];

	redis_text_copy(digits, sizeof digits, from);
	return strtoull(digits, NULL, 10);
}

static void store_error(struct error *error, enum err err, const char *doing)
{
	error_set(error, err, NULL, "%s: redis is away, slow or refuses", doing);
}

/* ---- answers ---- */

static void on_info(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	struct session_info info = { .found = false };
	struct redis_arg owner;
	struct error error;

	free(arg);
	if (err != ERR_OK) {
		store_error(&error, err, "session_info");
		asking.fn.info(asking.arg, &error, NULL);
		return;
	}
	owner = redis_reply_text(reply, 0);
	info.found = redis_reply_text(reply, 3).len > 0;
	redis_text_copy(info.user_id, sizeof info.user_id,
			owner.len > 0 ? owner : redis_text(asking.sessions->default_user_id));
	redis_text_copy(info.conversation_id, sizeof info.conversation_id, redis_reply_text(reply, 1));
	info.message_count = number(redis_reply_text(reply, 2));
	info.last_activity_us = number(redis_reply_text(reply, 3));
	asking.fn.info(asking.arg, NULL, &info);
}

static void on_done(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	struct error error;

	(void)reply;
	free(arg);
	if (err != ERR_OK)
		store_error(&error, err, "session change");
	asking.fn.done(asking.arg, err != ERR_OK ? &error : NULL);
}

/* ---- calls ---- */

static struct asking *asking_new(struct sessions *sessions, void *arg)
{
	struct asking *asking = calloc(1, sizeof *asking);

	if (asking != NULL) {
		asking->sessions = sessions;
		asking->arg = arg;
	}
	return asking;
}

/* Runs a script whose only key is the session, and whose arguments follow. */
static enum err eval(struct asking *asking, enum script script, const char *session_id,
		     struct redis_arg first, struct redis_arg second)
{
	char key[SESSION_KEY_SIZE];
	const struct redis_arg args[] = { session_key(key, session_id, "session"), first, second };
	enum err rc = redis_eval(asking->sessions->redis, script, args, 1, 3, on_done, asking);

	if (rc != ERR_OK)
		free(asking);
	return rc;
}

enum err session_clear(struct sessions *sessions, const char *session_id, session_done_fn fn, void *arg)
{
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return eval(asking, SCRIPT_SESSION_CLEAR, session_id, redis_text(sessions->ttl_ms), redis_text(""));
}

enum err session_bind(struct sessions *sessions, const char *session_id, const char *conversation_id,
		      session_done_fn fn, void *arg)
{
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return eval(asking, SCRIPT_SESSION_BIND, session_id, redis_text(conversation_id),
		    redis_text(sessions->ttl_ms));
}

static enum err command(struct asking *asking, const struct redis_arg *args, size_t count, redis_reply_fn fn)
{
	enum err rc = redis_command(asking->sessions->redis, args, count, fn, asking);

	if (rc != ERR_OK)
		free(asking);
	return rc;
}

enum err session_info(struct sessions *sessions, const char *session_id, session_info_fn fn, void *arg)
{
	struct asking *asking = asking_new(sessions, arg);
	char key[SESSION_KEY_SIZE];
	const struct redis_arg args[] = { redis_text("HMGET"), session_key(key, session_id, "session"),
					  redis_text("owner"), redis_text("conversation"),
					  redis_text("count"), redis_text("active") };

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.info = fn;
	return command(asking, args, 6, on_info);
}

enum err sessions_ping(struct sessions *sessions, session_done_fn fn, void *arg)
{
	const struct redis_arg args[] = { redis_text("PING") };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return command(asking, args, 1, on_done);
}

/* ---- life ---- */

enum err sessions_open(struct sessions **out, struct redis *redis, const char *default_user_id,
		       uint64_t ttl_ms, struct error *why)
{
	struct sessions *sessions = calloc(1, sizeof *sessions);

	if (sessions == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the session store");
	sessions->redis = redis;
	sessions->default_user_id = default_user_id;
	snprintf(sessions->ttl_ms, sizeof sessions->ttl_ms, "%llu", (unsigned long long)ttl_ms);
	*out = sessions;
	return ERR_OK;
}

void sessions_close(struct sessions *sessions)
{
	free(sessions);
}
