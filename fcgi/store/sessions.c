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
	struct session_index *index;
	const char *default_user_id;
	char ttl_ms[24];
};

/* What was told while it was on its way to Redis is there once Redis has answered somebody so often (redis.h, `after`). */
#define ANSWERS 2

/* A call on its way to Redis: whom to tell. */
struct asking {
	struct sessions *sessions;
	union {
		session_info_fn info;
		session_done_fn done;
	} fn;
	void *arg;
	unsigned answered; /* how often Redis has answered: see ANSWERS */
	char session_id[ID_MAX + 1];
	/* Of a change. */
	char conversation_id[ID_MAX + 1];
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

static enum err ask_info(struct asking *asking);

/* ---- answers ---- */

static bool is_held(const struct redis_reply *reply)
{
	struct redis_arg turn_until = redis_reply_text(reply, 4);

	return turn_until.len > 0 && (turn_until.len != 1 || turn_until.bytes[0] != '0');
}

/* A turn whose end was told may seem to run: its end is in Redis' socket. */
static void on_info(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking asking = *(struct asking *)arg;
	struct session_info info = { .found = false };
	struct redis_arg owner;
	struct error error;

	if (err == ERR_OK && is_held(reply) && asking.answered < ANSWERS) {
		((struct asking *)arg)->answered++;
		err = ask_info(arg);
		if (err == ERR_OK)
			return;
	}
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

/* The end of a call that says no more than whether it went well; `doing`: what is logged when it did not. */
static void finish(struct asking *asking, enum err err, const char *doing)
{
	session_done_fn done = asking->fn.done;
	void *arg = asking->arg;
	struct error error;

	free(asking);
	if (err != ERR_OK)
		store_error(&error, err, doing);
	done(arg, err != ERR_OK ? &error : NULL);
}

static void on_indexed(void *arg)
{
	finish(arg, ERR_OK, "session change");
}

/* Clears and binds are not many: the index is told when they happened, and the caller after that. */
static void on_changed(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking *asking = arg;
	int64_t active_us = err == ERR_OK ? redis_reply_integer(reply) : 0;

	if (active_us > 0 &&
	    session_index_touch_then(asking->sessions->index, asking->session_id, asking->conversation_id,
				     (uint64_t)active_us, on_indexed, asking) == ERR_OK)
		return;
	finish(asking, err, "session change");
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
static enum err change(struct sessions *sessions, enum script script, const char *session_id,
		       const char *conversation_id, const struct redis_arg args[2], session_done_fn fn,
		       void *arg)
{
	struct asking *asking = asking_new(sessions, arg);
	char key[SESSION_KEY_SIZE];
	const struct redis_arg all[] = { session_key(key, session_id, "session"), args[0], args[1] };
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	redis_text_copy(asking->session_id, sizeof asking->session_id, redis_text(session_id));
	redis_text_copy(asking->conversation_id, sizeof asking->conversation_id, redis_text(conversation_id));
	rc = redis_eval(sessions->redis, script, all, 1, 3, on_changed, asking);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

enum err session_clear(struct sessions *sessions, const char *session_id, session_done_fn fn, void *arg)
{
	const struct redis_arg args[2] = { redis_text(sessions->ttl_ms), redis_text("") };

	return change(sessions, SCRIPT_SESSION_CLEAR, session_id, "", args, fn, arg);
}

enum err session_bind(struct sessions *sessions, const char *session_id, const char *conversation_id,
		      session_done_fn fn, void *arg)
{
	const struct redis_arg args[2] = { redis_text(conversation_id), redis_text(sessions->ttl_ms) };

	return change(sessions, SCRIPT_SESSION_BIND, session_id, conversation_id, args, fn, arg);
}

static enum err ask_info(struct asking *asking)
{
	char key[SESSION_KEY_SIZE];
	const struct redis_arg args[] = {
		redis_text("HMGET"),     session_key(key, asking->session_id, "session"),
		redis_text("owner"),     redis_text("conversation"),
		redis_text("count"),     redis_text("active"),
		redis_text("turn_until")
	};

	return redis_command(asking->sessions->redis, args, 7, on_info, asking);
}

enum err session_info(struct sessions *sessions, const char *session_id, session_info_fn fn, void *arg)
{
	struct asking *asking = asking_new(sessions, arg);
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.info = fn;
	redis_text_copy(asking->session_id, sizeof asking->session_id, redis_text(session_id));
	rc = ask_info(asking);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

static enum err send_ping(struct asking *asking, redis_reply_fn on_reply)
{
	const struct redis_arg args[] = { redis_text("PING") };

	return redis_command(asking->sessions->redis, args, 1, on_reply, asking);
}

/* Asks Redis anything; `on_reply` gets the asking, and says how it ended. */
static enum err ping(struct sessions *sessions, redis_reply_fn on_reply, session_done_fn fn, void *arg)
{
	struct asking *asking = asking_new(sessions, arg);
	enum err rc;

	if (asking == NULL)
		return ERR_NOMEM;
	asking->fn.done = fn;
	rc = send_ping(asking, on_reply);
	if (rc != ERR_OK)
		free(asking);
	return rc;
}

static void on_pong(void *arg, enum err err, const struct redis_reply *reply)
{
	(void)reply;
	finish(arg, err, "sessions_ping");
}

enum err sessions_ping(struct sessions *sessions, session_done_fn fn, void *arg)
{
	return ping(sessions, on_pong, fn, arg);
}

/* ---- looking for sessions ---- */

static void on_settling(void *arg, enum err err, const struct redis_reply *reply)
{
	struct asking *asking = arg;

	(void)reply;
	if (err == ERR_OK && ++asking->answered < ANSWERS) {
		err = send_ping(asking, on_settling);
		if (err == ERR_OK)
			return;
	}
	finish(asking, err, "ping before looking for sessions");
}

/* The index does not show whether something of it is on its way: Redis is asked anything first, and then it has come. */
static enum err settle(struct sessions *sessions, session_done_fn fn, void *arg)
{
	return ping(sessions, on_settling, fn, arg);
}

/* A list that is being made: the index told the places, each session is being asked for. */
struct listing {
	struct sessions *sessions;
	session_list_fn fn;
	void *arg;
	size_t waiting; /* answers still to come */
	struct error error;
	bool failed;
	struct session_page page;
	struct lookup {
		struct listing *listing;
		struct session_info info;
	} lookups[SESSION_PAGE_MAX];
	struct session_list list;
};

static void list_failed(struct listing *listing, const struct error *error)
{
	listing->failed = true;
	listing->error = *error;
}

/* The index is all there is to sort by: while a turn runs its session is ahead of it. */
static void add_to_list(struct listing *listing, const struct session_place *place,
			const struct session_info *info)
{
	struct session_found *found = &listing->list.sessions[listing->list.count++];

	memcpy(found->session_id, place->session_id, sizeof found->session_id);
	found->info = *info;
	found->info.last_activity_us = strtoull(place->active_us, NULL, 10);
}

static void finish_list(struct listing *listing)
{
	const struct session_page *page = &listing->page;

	listing->list.total = page->total;
	for (size_t i = 0; i < page->count && !listing->failed; i++) {
		if (listing->lookups[i].info.found) {
			add_to_list(listing, &page->places[i], &listing->lookups[i].info);
		} else {
			session_index_drop(listing->sessions->index, &page->places[i]);
			listing->list.total -= listing->list.total > 0;
		}
	}
	if (listing->failed)
		listing->fn(listing->arg, &listing->error, NULL);
	else
		listing->fn(listing->arg, NULL, &listing->list);
	free(listing);
}

static void on_looked_up(void *arg, const struct error *error, const struct session_info *info)
{
	struct lookup *lookup = arg;
	struct listing *listing = lookup->listing;

	if (error != NULL)
		list_failed(listing, error);
	else
		lookup->info = *info;
	if (--listing->waiting == 0)
		finish_list(listing);
}

static void on_page(void *arg, const struct error *error, const struct session_page *page)
{
	struct listing *listing = arg;
	struct error refused;

	if (error != NULL)
		list_failed(listing, error);
	else
		listing->page = *page;
	for (size_t i = 0; i < listing->page.count && !listing->failed; i++) {
		struct lookup *lookup = &listing->lookups[i];
		enum err rc =
		    session_info(listing->sessions, listing->page.places[i].session_id, on_looked_up, lookup);

		lookup->listing = listing;
		if (rc == ERR_OK) {
			listing->waiting++;
		} else {
			store_error(&refused, rc, "sessions_list");
			list_failed(listing, &refused);
		}
	}
	if (listing->waiting == 0)
		finish_list(listing);
}

static void on_list_begun(void *arg, const struct error *error)
{
	struct listing *listing = arg;
	struct error refused;
	enum err rc;

	if (error == NULL) {
		rc = session_index_page(listing->sessions->index, listing->list.offset, listing->list.limit,
					on_page, listing);
		if (rc == ERR_OK)
			return;
		store_error(&refused, rc, "sessions_list");
		error = &refused;
	}
	list_failed(listing, error);
	finish_list(listing);
}

enum err sessions_list(struct sessions *sessions, uint64_t offset, uint64_t limit, session_list_fn fn,
		       void *arg)
{
	struct listing *listing = calloc(1, sizeof *listing);
	enum err rc;

	if (listing == NULL)
		return ERR_NOMEM;
	listing->sessions = sessions;
	listing->fn = fn;
	listing->arg = arg;
	listing->list.offset = offset;
	listing->list.limit = limit;
	rc = settle(sessions, on_list_begun, listing);
	if (rc != ERR_OK)
		free(listing);
	return rc;
}

/* A conversation whose session is being looked for. */
struct search {
	struct sessions *sessions;
	session_found_fn fn;
	void *arg;
	char conversation_id[ID_MAX + 1];
	struct session_found found;
};

static void finish_search(struct search *search, const struct error *error)
{
	search->fn(search->arg, error, error == NULL ? &search->found : NULL);
	free(search);
}

/* The index may be late: what the session itself says counts. */
static void on_holder_info(void *arg, const struct error *error, const struct session_info *info)
{
	struct search *search = arg;

	if (error == NULL && info->found && strcmp(info->conversation_id, search->conversation_id) == 0)
		search->found.info = *info;
	finish_search(search, error);
}

static void on_holder(void *arg, const struct error *error, const char *session_id)
{
	struct search *search = arg;
	struct error refused;
	enum err rc;

	if (error != NULL || session_id[0] == '\0') {
		finish_search(search, error);
		return;
	}
	snprintf(search->found.session_id, sizeof search->found.session_id, "%s", session_id);
	rc = session_info(search->sessions, search->found.session_id, on_holder_info, search);
	if (rc != ERR_OK) {
		store_error(&refused, rc, "session_of_conversation");
		finish_search(search, &refused);
	}
}

static void on_search_begun(void *arg, const struct error *error)
{
	struct search *search = arg;
	struct error refused;
	enum err rc;

	if (error == NULL) {
		rc =
		    session_index_holder(search->sessions->index, search->conversation_id, on_holder, search);
		if (rc == ERR_OK)
			return;
		store_error(&refused, rc, "session_of_conversation");
		error = &refused;
	}
	finish_search(search, error);
}

enum err session_of_conversation(struct sessions *sessions, const char *conversation_id, session_found_fn fn,
				 void *arg)
{
	struct search *search = calloc(1, sizeof *search);
	enum err rc;

	if (search == NULL)
		return ERR_NOMEM;
	search->sessions = sessions;
	search->fn = fn;
	search->arg = arg;
	snprintf(search->conversation_id, sizeof search->conversation_id, "%s", conversation_id);
	rc = settle(sessions, on_search_begun, search);
	if (rc != ERR_OK)
		free(search);
	return rc;
}

/* ---- life ---- */

enum err sessions_open(struct sessions **out, struct redis *redis, struct session_index *index,
		       const char *default_user_id, uint64_t ttl_ms, struct error *why)
{
	struct sessions *sessions = calloc(1, sizeof *sessions);

	if (sessions == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the session store");
	sessions->redis = redis;
	sessions->index = index;
	sessions->default_user_id = default_user_id;
	snprintf(sessions->ttl_ms, sizeof sessions->ttl_ms, "%llu", (unsigned long long)ttl_ms);
	*out = sessions;
	return ERR_OK;
}

void sessions_close(struct sessions *sessions)
{
	free(sessions);
}
