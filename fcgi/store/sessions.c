/*
 * sessions.c - see sessions.h.
 */
#include "store/sessions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis.h"
#include "store/scripts.h"

#define CONNECT_MS 2000
#define COMMAND_MS 1000
#define KEY_SIZE   (3 * ID_MAX + 32)

struct sessions {
	struct redis *redis;
	const char *default_user_id;
	char ttl_ms[24];
};

/* A call on its way to Redis: whom to tell. */
struct asking {
	struct sessions *sessions;
	union {
		session_begin_fn begin;
		session_info_fn info;
		session_done_fn done;
	} fn;
	void *arg;
};

static struct redis_arg text(const char *bytes)
{
	return (struct redis_arg){ bytes, strlen(bytes) };
}

/* "coze:{ID}:session". Braces in the id would move the hash tag, so they are escaped. */
static struct redis_arg session_key(char key[KEY_SIZE], const char *session_id)
{
	size_t len = (size_t)snprintf(key, KEY_SIZE, "coze:{");

	for (const char *p = session_id; *p != '\0'; p++) {
		if (strchr("{}%", *p) != NULL)
			len += (size_t)snprintf(key + len, KEY_SIZE - len, "%%%02X", (unsigned char)*p);
		else
			key[len++] = *p;
	}
	len += (size_t)snprintf(key + len, KEY_SIZE - len, "}:session");
	return (struct redis_arg){ key, len };
}

static void copy_text(char *out, size_t size, struct redis_arg from)
{
	size_t len = from.len < size ? from.len : size - 1;

	memcpy(out, from.bytes, len);
	out[len] = '\0';
}

static uint64_t number(struct redis_arg from)
{
	char digits[24];

	copy_text(digits, sizeof digits, from);
	return strtoull(digits, NULL, 10);
}

static void store_error(struct error *error, enum err err, const char *doing)
{
	error_set(error, err, NULL, "%s: redis is away, slow or refuses", doing);
}

/* ---- answers ---- */

static void on_begun(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	struct session_grant grant;
	struct redis_arg verdict;
	struct error error;

	free(arg);
	if (err != ERR_OK) {
		store_error(&error, err, "session_begin");
		asking.fn.begin(asking.arg, &error, NULL);
		return;
	}
	verdict = redis_reply_text(reply, 0);
	if (verdict.len == 9 && memcmp(verdict.bytes, "forbidden", 9) == 0) {
		error_set(&error, ERR_FORBIDDEN, "该会话属于其他用户: session_id 与 user_id 不匹配",
			  "the session has another owner");
		asking.fn.begin(asking.arg, &error, NULL);
		return;
	}
	copy_text(grant.conversation_id, sizeof grant.conversation_id, redis_reply_text(reply, 1));
	copy_text(grant.epoch, sizeof grant.epoch, redis_reply_text(reply, 2));
	copy_text(grant.owner, sizeof grant.owner, redis_reply_text(reply, 3));
	asking.fn.begin(asking.arg, NULL, &grant);
}

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
	copy_text(info.user_id, sizeof info.user_id,
		  owner.len > 0 ? owner : text(asking.sessions->default_user_id));
	copy_text(info.conversation_id, sizeof info.conversation_id, redis_reply_text(reply, 1));
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

static enum err eval(struct asking *asking, enum script script, const char *session_id,
		     const struct redis_arg *args, size_t count, redis_reply_fn fn)
{
	char key[KEY_SIZE];
	enum err rc = redis_eval(asking->sessions->redis, script, session_key(key, session_id), args, count,
				 fn, asking);

	if (rc != ERR_OK)
		free(asking);
	return rc;
}

enum err session_begin(struct sessions *sessions, const char *session_id, const char *user_id,
		       session_begin_fn fn, void *arg)
{
	const struct redis_arg args[] = { text(user_id), text(sessions->ttl_ms) };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.begin = fn;
	return eval(asking, SCRIPT_SESSION_BEGIN, session_id, args, 2, on_begun);
}

enum err session_update(struct sessions *sessions, const char *session_id, const char *epoch,
			const char *conversation_id, unsigned count, session_done_fn fn, void *arg)
{
	const struct redis_arg args[] = { text(epoch), text(conversation_id), text(count ? "1" : "0"),
					  text(sessions->ttl_ms) };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return eval(asking, SCRIPT_SESSION_UPDATE, session_id, args, 4, on_done);
}

enum err session_clear(struct sessions *sessions, const char *session_id, session_done_fn fn, void *arg)
{
	const struct redis_arg args[] = { text(sessions->ttl_ms) };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return eval(asking, SCRIPT_SESSION_CLEAR, session_id, args, 1, on_done);
}

enum err session_bind(struct sessions *sessions, const char *session_id, const char *conversation_id,
		      session_done_fn fn, void *arg)
{
	const struct redis_arg args[] = { text(conversation_id), text(sessions->ttl_ms) };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return eval(asking, SCRIPT_SESSION_BIND, session_id, args, 2, on_done);
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
	char key[KEY_SIZE];
	const struct redis_arg args[] = { text("HMGET"), session_key(key, session_id),
					  text("owner"), text("conversation"),
					  text("count"), text("active") };

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.info = fn;
	return command(asking, args, 6, on_info);
}

enum err sessions_ping(struct sessions *sessions, session_done_fn fn, void *arg)
{
	const struct redis_arg args[] = { text("PING") };
	struct asking *asking = asking_new(sessions, arg);

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	return command(asking, args, 1, on_done);
}

/* ---- life ---- */

enum err sessions_open(struct sessions **out, uv_loop_t *loop, const char *redis_url,
		       const char *default_user_id, uint64_t ttl_ms, struct error *why)
{
	const struct redis_options options = { redis_url, CONNECT_MS, COMMAND_MS, scripts_all(),
					       SCRIPT__COUNT };
	struct sessions *sessions = calloc(1, sizeof *sessions);
	enum err rc;

	if (sessions == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the session store");
	sessions->default_user_id = default_user_id;
	snprintf(sessions->ttl_ms, sizeof sessions->ttl_ms, "%llu", (unsigned long long)ttl_ms);
	rc = redis_open(&sessions->redis, loop, &options, why);
	if (rc != ERR_OK) {
		free(sessions);
		return rc;
	}
	*out = sessions;
	return ERR_OK;
}

void sessions_close(struct sessions *sessions)
{
	redis_close(sessions->redis);
	free(sessions);
}
