/*
 * session_index.c - see session_index.h.
 */
#include "store/session_index.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/digits.h"
#include "store/redis.h"
#include "store/scripts.h"

/* The first braces of a key are its hash tag, so nothing in what follows them needs escaping. */
#define SESSIONS_KEY      "coze:{index}:sessions"
#define CONVERSATION_KEY  "coze:{index}:conversation:"
#define CONVERSATION_SIZE (sizeof CONVERSATION_KEY + ID_MAX)

#define TIDY_EVERY 32 /* touches; each tidying takes out up to 50 sessions, so that they never pile up */
#define TOUCH_MAX  32 /* sessions in one command */

struct session_index {
	struct redis *redis;
	struct redis_round round;
	uint64_t ttl_ns;
	char ttl_ms[24];
	unsigned touches; /* since the last tidying */
	uint64_t tidied_ns;
	/* Used in this round, and not told yet. */
	size_t used;
	struct session_place places[TOUCH_MAX];
};

/* A call on its way to Redis: whom to tell. */
struct asking {
	union {
		session_page_fn page;
		session_holder_fn holder;
		session_touched_fn touched;
	} fn;
	void *arg;
};

static struct redis_arg conversation_key(char key[CONVERSATION_SIZE], const char *conversation_id)
{
	size_t len = strlen(conversation_id);

	memcpy(key, CONVERSATION_KEY, sizeof CONVERSATION_KEY - 1);
	memcpy(key + sizeof CONVERSATION_KEY - 1, conversation_id, len);
	return (struct redis_arg){ key, sizeof CONVERSATION_KEY - 1 + len };
}

static struct asking *asking_new(void *arg)
{
	struct asking *asking = calloc(1, sizeof *asking);

	if (asking != NULL)
		asking->arg = arg;
	return asking;
}

static void store_error(struct error *error, enum err err)
{
	error_set(error, err, NULL, "the index of sessions: redis is away, slow or refuses");
}

/* ---- touching ---- */

static void ignore(void *arg, enum err err, const struct redis_reply *reply)
{
	(void)arg;
	(void)err;
	(void)reply;
}

static void tidy_if_due(struct session_index *index, const char *now_us)
{
	const struct redis_arg args[] = { redis_text(SESSIONS_KEY), redis_text(now_us),
					  redis_text(index->ttl_ms) };
	uint64_t now = uv_hrtime();

	if (index->touches < TIDY_EVERY && index->tidied_ns != 0 &&
	    now - index->tidied_ns < index->ttl_ns / 2)
		return;
	index->touches = 0;
	index->tidied_ns = now;
	(void)redis_eval(index->redis, SCRIPT_INDEX_TIDY, args, 1, 3, ignore, NULL);
}

/*
 * These go to the front of the index, a sorted set: each session by its last activity. A use that is told late does not
 * move a session back.
 */
static enum err touch(struct session_index *index, const struct session_place *places, size_t count,
		      redis_reply_fn fn, void *arg)
{
	struct redis_arg args[3 + 2 * TOUCH_MAX] = { redis_text("ZADD"), redis_text(SESSIONS_KEY),
						     redis_text("GT") };
	enum err rc;

	for (size_t i = 0; i < count; i++) {
		args[3 + 2 * i] = redis_text(places[i].active_us);
		args[4 + 2 * i] = redis_text(places[i].session_id);
	}
	rc = redis_command(index->redis, args, 3 + 2 * count, fn, arg);
	index->touches += (unsigned)count;
	tidy_if_due(index, places[count - 1].active_us);
	return rc;
}

static void touch_used(struct session_index *index)
{
	if (index->used > 0)
		(void)touch(index, index->places, index->used, ignore, NULL);
	index->used = 0;
}

static void before_write(struct redis_round *round)
{
	touch_used((struct session_index *)(void *)((char *)round - offsetof(struct session_index, round)));
}

/* The conversation leads to the session, for as long as that is kept. */
static void lead(struct session_index *index, const char *conversation_id, const char *session_id)
{
	char key[CONVERSATION_SIZE];
	const struct redis_arg args[] = { redis_text("SET"), conversation_key(key, conversation_id),
					  redis_text(session_id), redis_text("PX"),
					  redis_text(index->ttl_ms) };

	if (conversation_id[0] != '\0')
		(void)redis_command(index->redis, args, 5, ignore, NULL);
}

static void set_place(struct session_place *place, const char *session_id, uint64_t active_us)
{
	redis_text_copy(place->session_id, sizeof place->session_id, redis_text(session_id));
	digits_write(place->active_us, active_us);
}

void session_index_touch(struct session_index *index, const char *session_id, const char *conversation_id,
			 uint64_t active_us)
{
	lead(index, conversation_id, session_id);
	set_place(&index->places[index->used++], session_id, active_us);
	if (index->used == TOUCH_MAX)
		touch_used(index);
	else
		redis_end_round(index->redis);
}

static void on_touched(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;

	(void)err;
	(void)reply;
	free(arg);
	asking.fn.touched(asking.arg);
}

enum err session_index_touch_then(struct session_index *index, const char *session_id,
				  const char *conversation_id, uint64_t active_us, session_touched_fn fn,
				  void *arg)
{
	struct asking *asking = asking_new(arg);
	struct session_place place;
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.touched = fn;
	lead(index, conversation_id, session_id);
	set_place(&place, session_id, active_us);
	rc = touch(index, &place, 1, on_touched, asking);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

/* ---- looking ---- */

static uint64_t number(struct redis_arg from)
{
	char text[24];

	redis_text_copy(text, sizeof text, from);
	return strtoull(text, NULL, 10);
}

static void on_page(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	struct session_page page = { .total = 0 };
	struct error error;

	free(arg);
	if (err != ERR_OK) {
		store_error(&error, err);
		asking.fn.page(asking.arg, &error, NULL);
		return;
	}
	page.total = number(redis_reply_text(reply, 0));
	while (page.count < SESSION_PAGE_MAX) {
		struct redis_arg id = redis_reply_text(reply, 1 + 2 * page.count);
		struct session_place *place = &page.places[page.count];

		if (id.len == 0)
			break;
		redis_text_copy(place->session_id, sizeof place->session_id, id);
		redis_text_copy(place->active_us, sizeof place->active_us,
				redis_reply_text(reply, 2 + 2 * page.count));
		page.count++;
	}
	asking.fn.page(asking.arg, NULL, &page);
}

enum err session_index_page(struct session_index *index, uint64_t offset, uint64_t limit, session_page_fn fn,
			    void *arg)
{
	struct asking *asking = asking_new(arg);
	struct redis_arg args[4];
	char skip[24], most[24];
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.page = fn;
	digits_write(skip, offset);
	digits_write(most, limit);
	args[0] = redis_text(SESSIONS_KEY);
	args[1] = redis_text(index->ttl_ms);
	args[2] = redis_text(skip);
	args[3] = redis_text(most);
	rc = redis_eval(index->redis, SCRIPT_INDEX_PAGE, args, 1, 4, on_page, asking);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

void session_index_drop(struct session_index *index, const struct session_place *place)
{
	const struct redis_arg args[] = { redis_text(SESSIONS_KEY), redis_text(place->session_id),
					  redis_text(place->active_us) };

	(void)redis_eval(index->redis, SCRIPT_INDEX_DROP, args, 1, 3, ignore, NULL);
}

static void on_holder(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	char session_id[ID_MAX + 1];
	struct error error;

	free(arg);
	if (err != ERR_OK) {
		store_error(&error, err);
		asking.fn.holder(asking.arg, &error, NULL);
		return;
	}
	redis_text_copy(session_id, sizeof session_id, redis_reply_text(reply, 0));
	asking.fn.holder(asking.arg, NULL, session_id);
}

enum err session_index_holder(struct session_index *index, const char *conversation_id, session_holder_fn fn,
			      void *arg)
{
	char key[CONVERSATION_SIZE];
	/* MGET, because its answer is a list, as all others are. */
	const struct redis_arg args[] = { redis_text("MGET"), conversation_key(key, conversation_id) };
	struct asking *asking = asking_new(arg);
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.holder = fn;
	rc = redis_command(index->redis, args, 2, on_holder, asking);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

/* ---- life ---- */

enum err session_index_open(struct session_index **out, struct redis *redis, uint64_t ttl_ms,
			    struct error *why)
{
	struct session_index *index = calloc(1, sizeof *index);

	if (index == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the index of sessions");
	index->redis = redis;
	index->ttl_ns = ttl_ms * 1000000;
	digits_write(index->ttl_ms, ttl_ms);
	index->round.before = before_write;
	redis_join_rounds(redis, &index->round);
	*out = index;
	return ERR_OK;
}

void session_index_close(struct session_index *index)
{
	free(index);
}
