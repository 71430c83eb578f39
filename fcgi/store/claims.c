/*
 * claims.c - see claims.h.
 */
#include "store/claims.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/digits.h"
#include "base/log.h"
#include "store/redis.h"
#include "store/scripts.h"
#include "store/session_index.h"
#include "store/session_key.h"

#define TICKET_SIZE    96
#define BUCKETS        1024  /* of the table that finds a claim by its ticket */
#define RENEWALS       3     /* per lock time: two may be lost */
#define VISIBLE_MS     250   /* after which the session of a running turn shows in the index */
#define SAVE_AGAIN_MS  500   /* between attempts to save while Redis is away */
#define UNSAVED_MAX    20000 /* claims that may wait for Redis to come back */
#define LISTENER_LIMIT 3000  /* ms for the listening connection's commands; it has none after it is up */

enum claim_state {
	CLAIM_WAITING, /* for the session */
	CLAIM_REFUSED, /* forbidden, busy for too long, or Redis failed: only to be ended */
	CLAIM_HOLDING,
	CLAIM_ENDING, /* the owner has gone; what there is to save is being saved */
	CLAIM_SAVED   /* only the answer to something older is still to come */
};

struct claim {
	struct claims *claims;
	struct claim *prev, *next; /* all of the worker's */
	struct claim *bucket_prev, *bucket_next;
	enum claim_state state;
	struct claim_list *list; /* of the claims; NULL: in none of them */
	struct claim *list_prev, *list_next;
	unsigned asking; /* calls to Redis under way */
	bool binding;    /* one of them says that the message was accepted */
	bool woken;      /* something changed while a call was under way: look again */
	bool accepted;
	bool unsure;       /* an answer was lost: Redis may have granted the session without our knowing */
	uint64_t since_ms; /* WAITING: it began; ENDING: it ended */
	uint64_t kept_since_ms; /* when Redis was asked last to keep the session for a time to live */
	uv_timer_t
	    timer; /* WAITING: when to look again; HOLDING: when to renew; ENDING: when to save again */
	claim_granted_fn on_granted;
	claim_saved_fn on_saved;
	void *arg;
	char ticket[TICKET_SIZE];
	char session_id[ID_MAX + 1];
	char user_id[ID_MAX + 1];
	char owner[ID_MAX + 1];
	char conversation_id[ID_MAX + 1]; /* the session's; once accepted, the one that Coze reported */
	char epoch[CLAIM_EPOCH_SIZE];
	char number[24]; /* of the turn in its session */
	/* Once granted. */
	uint64_t granted_us; /* by Redis' clock */
	uint64_t granted_ns; /* by ours: the time that has passed since then is the same on both */
	uint64_t ended_us;   /* ENDING: by Redis' clock */
	uint64_t touched_ms; /* the index was told last; 0: not yet */
};

struct claim_list {
	struct claim *first, *last;
};

struct claims {
	uv_loop_t *loop;
	struct redis *redis;
	struct redis_round round;
	struct claim_list due;  /* have something to say at the end of this round */
	struct claim_list told; /* in the write of this round Redis is told that they are over */
	struct redis *listener;
	struct session_index *index;
	struct claims_options options;
	char channel[48]; /* that wakes this worker */
	char ttl_ms[24], lock_ms[24];
	char running_ttl_ms[24]; /* a session does not expire under a running turn */
	uint64_t next_ticket;
	struct claim *all;
	size_t count;
	uint64_t unsaved_logged_ms;
	size_t closing; /* timers that libuv has not let go of */
	bool closed;
	struct claim *buckets[BUCKETS];
};

static void look(struct claim *claim);
static void save_soon(struct claim *claim);

/* ---- life ---- */

static void list_remove(struct claim *claim)
{
	struct claim_list *list = claim->list;

	if (list == NULL)
		return;
	*(claim->list_prev != NULL ? &claim->list_prev->list_next : &list->first) = claim->list_next;
	*(claim->list_next != NULL ? &claim->list_next->list_prev : &list->last) = claim->list_prev;
	claim->list = NULL;
}

static void list_append(struct claim_list *list, struct claim *claim)
{
	list_remove(claim);
	claim->list = list;
	claim->list_next = NULL;
	claim->list_prev = list->last;
	*(list->last != NULL ? &list->last->list_next : &list->first) = claim;
	list->last = claim;
}

static struct claim **bucket_of(struct claims *claims, uint64_t number)
{
	return &claims->buckets[number % BUCKETS];
}

static uint64_t ticket_number(const char *ticket)
{
	return strtoull(ticket, NULL, 10);
}

static void link_claim(struct claim *claim)
{
	struct claims *claims = claim->claims;
	struct claim **bucket = bucket_of(claims, ticket_number(claim->ticket));

	claim->next = claims->all;
	if (claim->next != NULL)
		claim->next->prev = claim;
	claims->all = claim;
	claim->bucket_next = *bucket;
	if (claim->bucket_next != NULL)
		claim->bucket_next->bucket_prev = claim;
	*bucket = claim;
	claims->count++;
}

static void unlink_claim(struct claim *claim)
{
	struct claims *claims = claim->claims;

	if (claim->prev != NULL)
		claim->prev->next = claim->next;
	else
		claims->all = claim->next;
	if (claim->next != NULL)
		claim->next->prev = claim->prev;
	if (claim->bucket_prev != NULL)
		claim->bucket_prev->bucket_next = claim->bucket_next;
	else
		*bucket_of(claims, ticket_number(claim->ticket)) = claim->bucket_next;
	if (claim->bucket_next != NULL)
		claim->bucket_next->bucket_prev = claim->bucket_prev;
	claims->count--;
}

static void free_claims_if_done(struct claims *claims)
{
	if (claims->closed && claims->count == 0 && claims->closing == 0)
		free(claims);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct claim *claim = handle->data;
	struct claims *claims = claim->claims;

	free(claim);
	claims->closing--;
	free_claims_if_done(claims);
}

static void release(struct claim *claim)
{
	list_remove(claim);
	unlink_claim(claim);
	claim->claims->closing++;
	uv_close((uv_handle_t *)&claim->timer, on_timer_closed);
}

/* Every answer of Redis comes here first. True when nobody is interested in it any more: the last one frees. */
static bool answered_while_closed(struct claim *claim)
{
	claim->asking--;
	if (claim->claims->closed && claim->asking == 0)
		release(claim);
	return claim->claims->closed;
}

/* ---- waiting and holding ---- */

static void on_renewed(void *arg, enum err err, const struct redis_reply *reply)
{
	struct claim *claim = arg;

	if (answered_while_closed(claim))
		return;
	if (err == ERR_OK && redis_reply_integer(reply) == 0 && claim->state == CLAIM_HOLDING)
		log_event(LOG_LEVEL_WARN, "session_lost", LOG_TEXT("session", claim->session_id));
	if (claim->state == CLAIM_ENDING)
		save_soon(claim);
}

static uint64_t redis_now_us(const struct claim *claim)
{
	return claim->granted_us + (uv_hrtime() - claim->granted_ns) / 1000;
}

/* How often a running turn says that it lives: often enough for its session not to expire meanwhile, either. */
static uint64_t renewal_ms(const struct claims *claims)
{
	const struct claims_options *options = &claims->options;

	return (options->lock_ms < options->ttl_ms ? options->lock_ms : options->ttl_ms) / RENEWALS;
}

/* Most turns are over before; of the others the index hears soon, and then as often as it takes to stay in it. */
static void touch_if_due(struct claim *claim)
{
	struct claims *claims = claim->claims;
	uint64_t now = uv_now(claims->loop);

	if (claim->touched_ms != 0 && now - claim->touched_ms < claims->options.ttl_ms / RENEWALS)
		return;
	claim->touched_ms = now;
	session_index_touch(claims->index, claim->session_id, claim->conversation_id, redis_now_us(claim));
}

static void on_renewal_time(uv_timer_t *timer)
{
	struct claim *claim = timer->data;
	struct claims *claims = claim->claims;
	char key[SESSION_KEY_SIZE];
	const struct redis_arg args[] = { session_key(key, claim->session_id, "session"),
					  redis_text(claim->ticket), redis_text(claims->lock_ms),
					  redis_text(claims->running_ttl_ms) };

	touch_if_due(claim);
	if (claim->asking > 0 ||
	    redis_eval(claims->redis, SCRIPT_SESSION_RENEW, args, 1, 4, on_renewed, claim) != ERR_OK)
		return;
	claim->asking++;
	claim->kept_since_ms = uv_now(claims->loop);
}

static void on_save_time(uv_timer_t *timer);

/* Redis is back, maybe without its memory: say what was not saved, and whose the sessions are before anybody else asks for them. */
static void on_redis_ready(void *arg)
{
	struct claims *claims = arg;

	for (struct claim *claim = claims->all; claim != NULL; claim = claim->next) {
		if (claim->state == CLAIM_HOLDING)
			on_renewal_time(&claim->timer);
		else if (claim->state == CLAIM_ENDING && claim->on_saved == NULL)
			uv_timer_start(&claim->timer, on_save_time, 0, 0);
	}
}

static void refuse(struct claim *claim, const struct error *error)
{
	claim->state = CLAIM_REFUSED;
	uv_timer_stop(&claim->timer);
	claim->on_granted(claim->arg, error, NULL);
}

/* The next line of an answer; behind the last one there are empty ones. */
static struct redis_arg take_line(struct redis_arg *text)
{
	const char *end = memchr(text->bytes, '\n', text->len);
	struct redis_arg line = { text->bytes, end != NULL ? (size_t)(end - text->bytes) : text->len };
	size_t taken = end != NULL ? line.len + 1 : line.len;

	text->bytes += taken;
	text->len -= taken;
	return line;
}

static uint64_t take_number(struct redis_arg *text)
{
	char digits[24];

	redis_text_copy(digits, sizeof digits, take_line(text));
	return strtoull(digits, NULL, 10);
}

/* The session is ours: what it was when the turn began. */
static void remember(struct claim *claim, struct redis_arg lines)
{
	redis_text_copy(claim->epoch, sizeof claim->epoch, take_line(&lines));
	redis_text_copy(claim->number, sizeof claim->number, take_line(&lines));
	claim->granted_us = take_number(&lines);
	claim->granted_ns = uv_hrtime();
	redis_text_copy(claim->owner, sizeof claim->owner, take_line(&lines));
	redis_text_copy(claim->conversation_id, sizeof claim->conversation_id, lines);
}

static void grant(struct claim *claim, struct redis_arg lines)
{
	uint64_t renew_ms = renewal_ms(claim->claims);
	struct claim_grant granted;

	remember(claim, lines);
	memcpy(granted.conversation_id, claim->conversation_id, sizeof granted.conversation_id);
	memcpy(granted.owner, claim->owner, sizeof granted.owner);
	claim->state = CLAIM_HOLDING;
	uv_timer_start(&claim->timer, on_renewal_time, renew_ms < VISIBLE_MS ? renew_ms : VISIBLE_MS,
		       renew_ms);
	claim->on_granted(claim->arg, NULL, &granted);
}

static void on_look_time(uv_timer_t *timer)
{
	look(timer->data);
}

/* Not yet: look again when woken, when the place must be renewed, when the running turn may be dead, or time is up. */
static void wait_on(struct claim *claim, uint64_t running_ms)
{
	const struct claims_options *options = &claim->claims->options;
	uint64_t waited = uv_now(claim->claims->loop) - claim->since_ms;
	uint64_t next = options->lock_ms / RENEWALS;
	struct error error;

	if (waited >= options->wait_ms) {
		error_set(&error, ERR_SESSION_BUSY, NULL,
			  "SESSION_WAIT_SECONDS passed while waiting for the session");
		refuse(claim, &error);
		return;
	}
	if (running_ms > 0 && running_ms + 1 < next)
		next = running_ms + 1;
	if (options->wait_ms - waited < next)
		next = options->wait_ms - waited;
	uv_timer_start(&claim->timer, on_look_time, claim->woken ? 0 : next, 0);
	claim->woken = false;
}

static bool is(struct redis_arg word, const char *what)
{
	return word.len == strlen(what) && memcmp(word.bytes, what, word.len) == 0;
}

static void on_looked(void *arg, enum err err, const struct redis_reply *reply)
{
	struct claim *claim = arg;
	struct redis_arg lines = { "", 0 }, verdict;
	struct error error;

	if (answered_while_closed(claim))
		return;
	if (err == ERR_OK)
		lines = redis_reply_string(reply);
	verdict = take_line(&lines);
	claim->unsure = err != ERR_OK;
	if (claim->state == CLAIM_ENDING) { /* the client has left; maybe the session was granted just now */
		if (is(verdict, "ok"))
			remember(claim, lines);
		save_soon(claim);
	} else if (err != ERR_OK) {
		error_set(&error, err, NULL, "waiting for the session: redis is away, slow or refuses");
		refuse(claim, &error);
	} else if (is(verdict, "ok")) {
		grant(claim, lines);
	} else if (is(verdict, "wait")) {
		wait_on(claim, take_number(&lines));
	} else {
		error_set(&error, ERR_FORBIDDEN, "该会话属于其他用户: session_id 与 user_id 不匹配",
			  "the session has another owner");
		refuse(claim, &error);
	}
}

static enum err ask_begin(struct claim *claim)
{
	struct claims *claims = claim->claims;
	char session[SESSION_KEY_SIZE], waiting[SESSION_KEY_SIZE], tickets[SESSION_KEY_SIZE];
	const struct redis_arg args[] = { session_key(session, claim->session_id, "session"),
					  session_key(waiting, claim->session_id, "waiting"),
					  session_key(tickets, claim->session_id, "tickets"),
					  redis_text(claim->user_id),
					  redis_text(claims->running_ttl_ms),
					  redis_text(claim->ticket),
					  redis_text(claims->lock_ms) };
	enum err rc = redis_eval(claims->redis, SCRIPT_SESSION_BEGIN, args, 3, 7, on_looked, claim);

	claim->kept_since_ms = uv_now(claims->loop);
	if (rc == ERR_OK)
		claim->asking++;
	return rc;
}

static void look(struct claim *claim)
{
	struct error error;
	enum err rc;

	if (claim->asking > 0) {
		claim->woken = true;
		return;
	}
	rc = ask_begin(claim);
	if (rc != ERR_OK) {
		error_set(&error, rc, NULL, "waiting for the session: redis is away");
		refuse(claim, &error);
	}
}

/* Redis says that a session is free, and whose ticket is first. */
static void on_wake(void *arg, const char *message, size_t len)
{
	struct claims *claims = arg;
	char ticket[TICKET_SIZE];

	if (len >= sizeof ticket)
		return;
	memcpy(ticket, message, len);
	ticket[len] = '\0';
	for (struct claim *claim = *bucket_of(claims, ticket_number(ticket)); claim != NULL;
	     claim = claim->bucket_next) {
		if (strcmp(claim->ticket, ticket) != 0)
			continue;
		if (claim->state == CLAIM_WAITING)
			look(claim);
		return;
	}
}

static void write_ticket(struct claims *claims, char out[TICKET_SIZE])
{
	size_t len = digits_write(out, claims->next_ticket++);

	out[len] = '@';
	memcpy(out + len + 1, claims->channel, strlen(claims->channel) + 1);
}

enum err claim_start(struct claim **out, struct claims *claims, const char *session_id, const char *user_id,
		     claim_granted_fn fn, void *arg)
{
	struct claim *claim;
	enum err rc;

	if (claims->count >= UNSAVED_MAX)
		return ERR_STORE;
	claim = calloc(1, sizeof *claim);
	if (claim == NULL)
		return ERR_NOMEM;
	claim->claims = claims;
	claim->on_granted = fn;
	claim->arg = arg;
	claim->since_ms = uv_now(claims->loop);
	write_ticket(claims, claim->ticket);
	redis_text_copy(claim->session_id, sizeof claim->session_id, redis_text(session_id));
	redis_text_copy(claim->user_id, sizeof claim->user_id, redis_text(user_id));
	rc = ask_begin(claim);
	if (rc != ERR_OK) {
		free(claim);
		return rc;
	}
	uv_timer_init(claims->loop, &claim->timer);
	claim->timer.data = claim;
	link_claim(claim);
	*out = claim;
	return ERR_OK;
}

/* ---- saving ---- */

/* At the end of the round: most whole answers come in one piece, and then the end says it all. */
void claim_accepted(struct claim *claim, const char *conversation_id)
{
	assert(claim->state == CLAIM_HOLDING);
	claim->accepted = true;
	redis_text_copy(claim->conversation_id, sizeof claim->conversation_id, redis_text(conversation_id));
	list_append(&claim->claims->due, claim);
	redis_end_round(claim->claims->redis);
}

static void tell_saved(struct claim *claim, const struct error *error)
{
	claim_saved_fn fn = claim->on_saved;

	claim->on_saved = NULL;
	if (fn != NULL)
		fn(claim->arg, error);
}

static void on_save_time(uv_timer_t *timer)
{
	save_soon(timer->data);
}

/* Many turns may end while Redis is away: one line a second says so for all. */
static void log_unsaved(struct claim *claim)
{
	struct claims *claims = claim->claims;
	uint64_t now = uv_now(claims->loop);

	if (!claim->accepted || (claims->unsaved_logged_ms != 0 && now - claims->unsaved_logged_ms < 1000))
		return;
	claims->unsaved_logged_ms = now;
	log_event(LOG_LEVEL_WARN, "unsaved", LOG_TEXT("session", claim->session_id),
		  LOG_NUMBER("claims", claims->count));
}

/* There is nothing more to save; but an answer may still be to come. */
static void finish(struct claim *claim)
{
	claim->state = CLAIM_SAVED;
	if (claim->asking == 0)
		release(claim);
}

/* Redis did not take it: say so once, and go on trying while the session could still be there. */
static void save_later(struct claim *claim)
{
	const struct claims_options *options = &claim->claims->options;
	struct error error;

	error_set(&error, ERR_STORE, NULL, "saving the session: redis is away, slow or refuses");
	log_unsaved(claim);
	tell_saved(claim, &error);
	/* Without anything to save there is only the session to let go of, and that lapses by itself. */
	if (uv_now(claim->claims->loop) - claim->since_ms >
	    (claim->accepted || claim->unsure ? options->ttl_ms : options->lock_ms)) {
		finish(claim);
		return;
	}
	uv_timer_start(&claim->timer, on_save_time, SAVE_AGAIN_MS, 0);
}

static void on_bound(void *arg, enum err err, const struct redis_reply *reply)
{
	struct claim *claim = arg;

	(void)err; /* the end says it again */
	(void)reply;
	claim->binding = false;
	if (!answered_while_closed(claim) && claim->state == CLAIM_SAVED)
		finish(claim);
}

static void on_ended(void *arg, enum err err, const struct redis_reply *reply)
{
	struct claim *claim = arg;

	(void)reply;
	if (answered_while_closed(claim))
		return;
	if (err != ERR_OK) {
		save_later(claim);
		return;
	}
	tell_saved(claim, NULL);
	finish(claim);
}

/* How much there is for session_save.lua to do. */
static const char *save_extent(const struct claim *claim)
{
	const struct claims_options *options = &claim->claims->options;

	if (claim->state != CLAIM_ENDING)
		return "0";
	/* To a thousandth, the time to live has just begun. But a short one was prolonged for the turn. */
	if (options->ttl_ms >= 2 * options->lock_ms &&
	    uv_now(claim->claims->loop) - claim->kept_since_ms <= options->ttl_ms / 1000)
		return "1";
	return "2";
}

static enum err save(struct claim *claim, uint64_t active_us, redis_reply_fn fn)
{
	struct claims *claims = claim->claims;
	char session[SESSION_KEY_SIZE], waiting[SESSION_KEY_SIZE], tickets[SESSION_KEY_SIZE], active[24];
	const struct redis_arg args[] = { session_key(session, claim->session_id, "session"),
					  session_key(waiting, claim->session_id, "waiting"),
					  session_key(tickets, claim->session_id, "tickets"),
					  redis_text(claim->ticket),
					  redis_text(claim->accepted ? claim->epoch : ""),
					  redis_text(claim->number),
					  redis_text(claim->conversation_id),
					  redis_text(claim->owner),
					  { active, digits_write(active, active_us) },
					  redis_text(claims->ttl_ms),
					  redis_text(save_extent(claim)) };
	enum err rc = redis_eval(claims->redis, SCRIPT_SESSION_SAVE, args, 3, 11, fn, claim);

	if (rc == ERR_OK)
		claim->asking++;
	return rc;
}

/* What the index hears, the session does, too. */
static uint64_t end_us(const struct claim *claim)
{
	return claim->accepted ? claim->ended_us : claim->granted_us;
}

/*
 * At the end of the round. The index comes first, so that whoever is told of the end finds the session in it.
 */
static void save_soon(struct claim *claim)
{
	/* A place in the queue, or a renewal, must not come behind the end, not even when a script has to be sent twice. */
	if (claim->asking > (claim->binding ? 1 : 0))
		return; /* its answer calls again */
	if (claim->granted_us != 0)
		session_index_touch(claim->claims->index, claim->session_id, claim->conversation_id,
				    end_us(claim));
	list_append(&claim->claims->due, claim);
	redis_end_round(claim->claims->redis);
}

static struct claims *claims_of(struct redis_round *round)
{
	return (struct claims *)(void *)((char *)round - offsetof(struct claims, round));
}

static void before_write(struct redis_round *round)
{
	struct claims *claims = claims_of(round);
	struct claim *claim;

	while ((claim = claims->due.first) != NULL) {
		list_remove(claim);
		if (claim->state == CLAIM_HOLDING) {
			claim->binding = save(claim, redis_now_us(claim), on_bound) == ERR_OK;
		} else if (save(claim, end_us(claim), on_ended) == ERR_OK) {
			list_append(&claims->told, claim);
		} else {
			save_later(claim);
		}
	}
}

/*
 * What Redis will do whatever happens is as good as done: nobody waits for its answer. Should it refuse, or have forgotten
 * the script, it is said again.
 */
static void after_write(struct redis_round *round, bool secured, size_t earlier)
{
	struct claims *claims = claims_of(round);
	struct claim *claim;

	while ((claim = claims->told.first) != NULL) {
		list_remove(claim);
		if (secured && earlier <= (claim->binding ? 1 : 0))
			tell_saved(claim, NULL);
	}
}

void claim_end(struct claim *claim, claim_saved_fn fn, void *arg)
{
	uv_timer_stop(&claim->timer);
	claim->state = CLAIM_ENDING;
	claim->since_ms = uv_now(claim->claims->loop);
	claim->ended_us = redis_now_us(claim);
	claim->on_granted = NULL;
	claim->on_saved = fn;
	claim->arg = arg;
	save_soon(claim);
}

/* ---- the module ---- */

enum err claims_open(struct claims **out, uv_loop_t *loop, struct redis *redis, struct session_index *index,
		     const struct claims_options *options, struct error *why)
{
	struct claims *claims = calloc(1, sizeof *claims);
	char random[ID_RANDOM_SIZE];
	struct redis_options listener = { .url = options->redis_url,
					  .password = options->redis_password,
					  .locator = options->locator,
					  .connect_ms = options->connect_ms,
					  .command_ms = LISTENER_LIMIT,
					  .on_message = on_wake };
	enum err rc;

	if (claims == NULL || !id_random(random)) {
		free(claims);
		return error_set(why, ERR_NOMEM, NULL, "memory or random bytes for the claims");
	}
	claims->loop = loop;
	claims->redis = redis;
	claims->index = index;
	redis_on_ready(redis, on_redis_ready, claims);
	claims->round.before = before_write;
	claims->round.after = after_write;
	claims->options = *options;
	snprintf(claims->channel, sizeof claims->channel, "coze:wake:%s", random);
	digits_write(claims->ttl_ms, options->ttl_ms);
	digits_write(claims->lock_ms, options->lock_ms);
	digits_write(claims->running_ttl_ms,
		     options->ttl_ms > 2 * options->lock_ms ? options->ttl_ms : 2 * options->lock_ms);
	listener.channel = claims->channel;
	listener.arg = claims;
	rc = redis_open(&claims->listener, loop, &listener, why);
	if (rc != ERR_OK) {
		redis_on_ready(redis, NULL, NULL);
		free(claims);
		return rc;
	}
	redis_join_rounds(redis, &claims->round);
	*out = claims;
	return ERR_OK;
}

void claims_close(struct claims *claims)
{
	struct claim *claim, *next;
	struct error error;

	claims->closed = true;
	redis_on_ready(claims->redis, NULL, NULL);
	redis_close(claims->listener);
	for (claim = claims->all; claim != NULL; claim = next) {
		next = claim->next;
		uv_timer_stop(&claim->timer);
		error_set(&error, ERR_STORE, NULL, "the worker stops");
		tell_saved(claim, &error);
		if (claim->asking == 0)
			release(claim);
	}
	free_claims_if_done(claims);
}

bool claims_are_ready(const struct claims *claims)
{
	return redis_is_ready(claims->redis) && redis_is_ready(claims->listener);
}

size_t claims_count(const struct claims *claims)
{
	return claims->count;
}
