/*
 * sentinel.c - see sentinel.h.
 *
 *   IDLE ──a second, or ask()──▶ ASKING ──all have answered, or the time limit──▶ IDLE
 *
 * Followers are told as soon as one answer can be believed. Answers that come later still count when they are news.
 */
#include "store/sentinel.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "store/redis.h"
#include "store/sentinel_view.h"

#define LIMIT_MS 500 /* for a Sentinel to be connected to, and to answer */
#define WATCH_MS \
	1000 /* between questions that nobody asked for: how long a master that is none any more may be used */
#define NAME_SIZE 129
#define URL_MAX   2048
#define FIELDS    128 /* of a Sentinel's word that are looked at; there are about 40 */

/* One Sentinel. */
struct guard {
	struct sentinel *sentinel;
	struct redis *redis;
	unsigned awaited; /* answers under way */
	bool done;        /* this round: it has answered */
	uint64_t epoch;   /* of its answer under way */
};

enum sentinel_state { SENTINEL_IDLE, SENTINEL_ASKING };

struct sentinel {
	struct redis_locator locator; /* first: what followers know of this */
	uv_timer_t timer;             /* IDLE: the next round; ASKING: its limit */
	enum sentinel_state state;
	bool settled; /* the last round, or the one under way, has found the master */
	bool failing; /* the log knows */
	bool closed;
	struct redis_follower *followers;
	struct sentinel_word known;
	char name[NAME_SIZE];
	size_t count;
	struct guard guards[SENTINELS_MAX];
	struct sentinel_word words[SENTINELS_MAX]; /* this round's, one per guard */
};

/* ---- whom to tell ---- */

static void tell(struct sentinel *sentinel, const struct redis_place *place, const char *why)
{
	struct redis_follower *next;

	for (struct redis_follower *one = sentinel->followers; one != NULL; one = next) {
		next = one->next;
		one->told(one, place, why);
	}
}

static void settle(struct sentinel *sentinel)
{
	sentinel->settled = true;
	sentinel->failing = false;
	tell(sentinel, &sentinel->known.place, NULL);
}

static void believe(struct sentinel *sentinel, const struct sentinel_word *word)
{
	sentinel->known = *word;
	log_event(LOG_LEVEL_INFO, "master", LOG_TEXT("name", sentinel->name),
		  LOG_TEXT("host", word->place.host), LOG_TEXT("port", word->place.port),
		  LOG_NUMBER("epoch", word->epoch));
	settle(sentinel);
}

static void fail(struct sentinel *sentinel, const char *why)
{
	if (!sentinel->failing)
		log_event(LOG_LEVEL_ERROR, "master", LOG_TEXT("name", sentinel->name),
			  LOG_TEXT("cause", why));
	sentinel->failing = true;
	tell(sentinel, NULL, why);
}

/* ---- a round of questions ---- */

static void on_time(uv_timer_t *timer);

/* Why nobody could be believed. */
static const char *trouble(const struct sentinel *sentinel)
{
	const char *why = "no Sentinel answers";

	for (size_t i = 0; i < sentinel->count; i++) {
		if (sentinel->words[i].named)
			return "the Sentinels that answer are behind a failover that was known here";
		if (sentinel->guards[i].done)
			why = "no Sentinel that answers knows a master of this name (REDIS_MASTER_NAME)";
	}
	return why;
}

static void end_round(struct sentinel *sentinel)
{
	const struct sentinel_word *word;

	sentinel->state = SENTINEL_IDLE;
	uv_timer_start(&sentinel->timer, on_time, WATCH_MS, 0);
	if (sentinel->settled)
		return;
	word = sentinel_fallback(&sentinel->known, sentinel->words, sentinel->count);
	if (word != NULL)
		believe(sentinel, word);
	else
		fail(sentinel, trouble(sentinel));
}

static bool all_done(const struct sentinel *sentinel)
{
	for (size_t i = 0; i < sentinel->count; i++)
		if (!sentinel->guards[i].done)
			return false;
	return true;
}

/* A Sentinel has answered, also after its round. */
static void hear(struct guard *guard, bool answered)
{
	struct sentinel *sentinel = guard->sentinel;
	const struct sentinel_word *word = &sentinel->words[guard - sentinel->guards];

	guard->done = answered;
	if (sentinel_is_news(&sentinel->known, word))
		believe(sentinel, word);
	else if (!sentinel->settled && sentinel_agrees(&sentinel->known, word))
		settle(sentinel);
	if (sentinel->state == SENTINEL_ASKING && all_done(sentinel))
		end_round(sentinel);
}

/* {"name", …, "ip", …, "config-epoch", …}. Its address is not the one to use: in a failover it changes late. */
static void on_epoch(void *arg, enum err err, const struct redis_reply *reply)
{
	struct guard *guard = arg;

	guard->awaited--;
	guard->epoch = 0;
	for (size_t i = 0; err == ERR_OK && i < FIELDS; i += 2) {
		struct redis_arg field = redis_reply_text(reply, i);

		if (field.len == 12 && memcmp(field.bytes, "config-epoch", 12) == 0)
			guard->epoch = sentinel_epoch(redis_reply_text(reply, i + 1));
	}
}

/* {host, port}, or nil when it knows no such master. */
static void on_address(void *arg, enum err err, const struct redis_reply *reply)
{
	struct guard *guard = arg;
	struct sentinel_word *word = &guard->sentinel->words[guard - guard->sentinel->guards];

	guard->awaited--;
	if (guard->sentinel->closed)
		return;
	word->epoch = guard->epoch;
	word->named = err == ERR_OK &&
		      sentinel_place(&word->place, redis_reply_text(reply, 0), redis_reply_text(reply, 1));
	hear(guard, err == ERR_OK);
}

/* The epoch first: should it change in between, then the new address seems old for a second, and not the old one new. */
static void ask_one(struct guard *guard)
{
	const struct redis_arg name = redis_text(guard->sentinel->name);
	const struct redis_arg epoch[] = { redis_text("SENTINEL"), redis_text("MASTER"), name };
	const struct redis_arg address[] = { redis_text("SENTINEL"), redis_text("get-master-addr-by-name"),
					     name };

	if (guard->awaited > 0)
		return; /* asked a moment ago: that answer will do */
	if (redis_command(guard->redis, epoch, 3, on_epoch, guard) == ERR_OK)
		guard->awaited++;
	if (redis_command(guard->redis, address, 3, on_address, guard) == ERR_OK)
		guard->awaited++;
}

static void begin_round(struct sentinel *sentinel)
{
	sentinel->state = SENTINEL_ASKING;
	sentinel->settled = false;
	uv_timer_start(&sentinel->timer, on_time, LIMIT_MS, 0);
	for (size_t i = 0; i < sentinel->count; i++) {
		sentinel->guards[i].done = false;
		sentinel->words[i].named = false;
	}
	for (size_t i = 0; i < sentinel->count; i++)
		ask_one(&sentinel->guards[i]);
}

static void on_time(uv_timer_t *timer)
{
	struct sentinel *sentinel = timer->data;

	if (sentinel->state == SENTINEL_IDLE)
		begin_round(sentinel);
	else
		end_round(sentinel);
}

static void on_guard_ready(void *arg)
{
	struct guard *guard = arg;

	if (guard->sentinel->state == SENTINEL_ASKING)
		ask_one(guard);
}

/* ---- the locator ---- */

static void follow(struct redis_locator *locator, struct redis_follower *follower)
{
	struct sentinel *sentinel = (struct sentinel *)locator;

	follower->next = sentinel->followers;
	sentinel->followers = follower;
}

static void ask(struct redis_locator *locator)
{
	struct sentinel *sentinel = (struct sentinel *)locator;

	if (sentinel->state == SENTINEL_ASKING && !sentinel->settled)
		return; /* what comes of it will be told */
	sentinel->state = SENTINEL_IDLE;
	uv_timer_start(&sentinel->timer, on_time, 0, 0);
}

static void leave(struct redis_locator *locator, struct redis_follower *follower)
{
	struct redis_follower **link = &((struct sentinel *)locator)->followers;

	while (*link != follower)
		link = &(*link)->next;
	*link = follower->next;
}

struct redis_locator *sentinel_locator(struct sentinel *sentinel)
{
	return &sentinel->locator;
}

/* ---- life ---- */

/* address: host:port or [IPv6]:port, just as in a URL. */
static enum err open_guard(struct guard *guard, uv_loop_t *loop, const char *address, size_t len,
			   const char *password, struct error *why)
{
	struct redis_options options = {
		.password = password, .sentinel = true, .connect_ms = LIMIT_MS, .command_ms = LIMIT_MS
	};
	struct buf url;
	enum err rc = ERR_NOMEM;

	buf_init(&url, URL_MAX);
	buf_append_str(&url, "redis://");
	buf_append(&url, address, len);
	buf_append_char(&url, '\0');
	options.url = buf_bytes(&url);
	if (url.failed)
		error_set(why, rc, NULL, "memory for a Sentinel's address");
	else
		rc = redis_open(&guard->redis, loop, &options, why);
	if (rc == ERR_OK)
		redis_on_ready(guard->redis, on_guard_ready, guard);
	buf_free(&url);
	return rc;
}

static enum err open_guards(struct sentinel *sentinel, uv_loop_t *loop,
			    const struct sentinel_options *options, struct error *why)
{
	const char *address = options->addresses;
	enum err rc = ERR_OK;

	while (rc == ERR_OK) {
		size_t len = strcspn(address, ",");
		struct guard *guard = &sentinel->guards[sentinel->count];

		if (sentinel->count == SENTINELS_MAX)
			return error_set(why, ERR_STORE, NULL, "more than %d Sentinels", SENTINELS_MAX);
		guard->sentinel = sentinel;
		rc = open_guard(guard, loop, address, len, options->password, why);
		if (rc == ERR_OK)
			sentinel->count++;
		if (address[len] == '\0')
			break;
		address += len + 1;
	}
	return rc;
}

enum err sentinel_open(struct sentinel **out, uv_loop_t *loop, const struct sentinel_options *options,
		       struct error *why)
{
	struct sentinel *sentinel;
	enum err rc;

	if (strlen(options->master_name) >= NAME_SIZE || strlen(options->password) > SENTINEL_PASSWORD_MAX)
		return error_set(why, ERR_STORE, NULL,
				 "the master's name or the Sentinels' password is too long");
	sentinel = calloc(1, sizeof *sentinel);
	if (sentinel == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the Sentinels");
	sentinel->locator = (struct redis_locator){ follow, ask, leave };
	snprintf(sentinel->name, sizeof sentinel->name, "%s", options->master_name);
	uv_timer_init(loop, &sentinel->timer);
	sentinel->timer.data = sentinel;
	rc = open_guards(sentinel, loop, options, why);
	if (rc != ERR_OK) {
		sentinel_close(sentinel);
		return rc;
	}
	ask(&sentinel->locator);
	*out = sentinel;
	return ERR_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void sentinel_close(struct sentinel *sentinel)
{
	assert(sentinel->followers == NULL);
	sentinel->closed = true;
	for (size_t i = 0; i < sentinel->count; i++)
		redis_close(sentinel->guards[i].redis);
	uv_close((uv_handle_t *)&sentinel->timer, on_timer_closed);
}
