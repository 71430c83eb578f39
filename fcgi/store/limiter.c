/*
 * limiter.c - see limiter.h.
 */
#include "store/limiter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/redis.h"
#include "store/scripts.h"

/*
 * Slots are this much further apart than asked for: a chat leaves a little after its slot, some by more than others, and
 * the time between two of them at Coze must not be shorter than the interval.
 */
#define MARGIN_MS 10

/* A message; first it asks for a slot, then it waits in the queue. */
struct admission {
	struct limiter *limiter;
	struct admission *next; /* in the queue */
	bool queued;
	limiter_fn fn; /* NULL once cancelled, while Redis is still to answer */
	void *arg;
};

/* A slot of this worker's, not yet used. */
struct slot {
	struct slot *next;
	uint64_t at_ms; /* loop time */
	char at_us[24]; /* Redis' time */
};

struct limiter {
	uv_loop_t *loop;
	struct redis *redis;
	uint64_t interval_ms;
	char interval_us[24], max_wait_us[24];
	struct admission *first, *last; /* the queue; never longer than the slots */
	struct slot *slots;             /* soonest first */
	uv_timer_t timer;               /* the soonest slot */
};

static const char limit_key[] = "coze:limit:start";

/* ---- slots ---- */

static void set_timer(struct limiter *limiter);

static void on_slot_time(uv_timer_t *timer)
{
	struct limiter *limiter = timer->data;
	struct slot *slot = limiter->slots;
	struct admission *admission = limiter->first;

	limiter->slots = slot->next;
	free(slot);
	limiter->first = admission->next;
	set_timer(limiter);
	admission->fn(admission->arg, NULL);
	free(admission);
}

static void set_timer(struct limiter *limiter)
{
	uint64_t now = uv_now(limiter->loop);

	uv_timer_stop(&limiter->timer);
	if (limiter->first != NULL)
		uv_timer_start(&limiter->timer, on_slot_time,
			       limiter->slots->at_ms > now ? limiter->slots->at_ms - now : 0, 0);
}

static void on_returned(void *arg, enum err err, const struct redis_reply *reply)
{
	(void)arg;
	(void)err; /* then the slot stays unused: a pause a little longer than it need be */
	(void)reply;
}

/* There is a slot more than messages: the last one is not needed. */
static void return_last(struct limiter *limiter)
{
	struct redis_arg args[] = { redis_text(limit_key), { NULL, 0 }, redis_text(limiter->interval_us) };
	struct slot **link = &limiter->slots;

	while ((*link)->next != NULL)
		link = &(*link)->next;
	args[1] = redis_text((*link)->at_us);
	redis_eval(limiter->redis, SCRIPT_RATE_RETURN, args, 1, 3, on_returned, NULL);
	free(*link);
	*link = NULL;
}

static bool keep_slot(struct limiter *limiter, const struct redis_reply *reply, uint64_t wait_us)
{
	struct slot *slot = calloc(1, sizeof *slot);
	struct slot **link = &limiter->slots;
	struct redis_arg at = redis_reply_text(reply, 2);

	if (slot == NULL)
		return false;
	slot->at_ms = uv_now(limiter->loop) + (wait_us + 999) / 1000;
	redis_text_copy(slot->at_us, sizeof slot->at_us, at);
	while (*link != NULL)
		link = &(*link)->next;
	*link = slot;
	return true;
}

/* ---- messages ---- */

static void refuse(struct admission *admission, const struct error *error)
{
	if (admission->fn != NULL)
		admission->fn(admission->arg, error);
	free(admission);
}

static void queue(struct admission *admission)
{
	struct limiter *limiter = admission->limiter;

	admission->queued = true;
	if (limiter->first == NULL)
		limiter->first = admission;
	else
		limiter->last->next = admission;
	limiter->last = admission;
	set_timer(limiter);
}

static void on_slot(void *arg, enum err err, const struct redis_reply *reply)
{
	struct admission *admission = arg;
	struct limiter *limiter = admission->limiter;
	struct redis_arg verdict, number;
	struct error error;
	uint64_t wait_us;
	char digits[24];

	if (err != ERR_OK) {
		error_set(&error, err, NULL, "asking for a slot: redis is away, slow or refuses");
		refuse(admission, &error);
		return;
	}
	verdict = redis_reply_text(reply, 0);
	number = redis_reply_text(reply, 1);
	redis_text_copy(digits, sizeof digits, number);
	wait_us = strtoull(digits, NULL, 10);
	if (verdict.len != 2 || memcmp(verdict.bytes, "ok", 2) != 0) {
		error_set(&error, ERR_RATE, NULL,
			  "the next slot is %llu ms away, COZE_RATE_WAIT_SECONDS is less",
			  (unsigned long long)wait_us / 1000);
		error.retry_after_s = (unsigned)(wait_us / 1000000 + 1);
		refuse(admission, &error);
	} else if (!keep_slot(limiter, reply, wait_us)) {
		error_set(&error, ERR_NOMEM, NULL, "memory for a slot");
		refuse(admission, &error);
	} else if (admission->fn == NULL) {
		free(admission);
		return_last(limiter);
	} else {
		queue(admission);
	}
}

enum err limiter_admit(struct admission **out, struct limiter *limiter, limiter_fn fn, void *arg)
{
	const struct redis_arg args[] = { redis_text(limit_key), redis_text(limiter->interval_us),
					  redis_text(limiter->max_wait_us) };
	struct admission *admission = calloc(1, sizeof *admission);
	enum err rc;

	if (admission == NULL)
		return ERR_NOMEM;
	admission->limiter = limiter;
	admission->fn = fn;
	admission->arg = arg;
	rc = redis_eval(limiter->redis, SCRIPT_RATE_SLOT, args, 1, 3, on_slot, admission);
	if (rc != ERR_OK) {
		free(admission);
		return rc;
	}
	*out = admission;
	return ERR_OK;
}

void admission_cancel(struct admission *admission)
{
	struct limiter *limiter = admission->limiter;
	struct admission *before = NULL;

	if (!admission->queued) {
		admission->fn = NULL; /* on_slot() frees it */
		return;
	}
	for (struct admission *one = limiter->first; one != admission; one = one->next)
		before = one;
	if (before != NULL)
		before->next = admission->next;
	else
		limiter->first = admission->next;
	if (limiter->last == admission)
		limiter->last = before;
	free(admission);
	return_last(limiter);
	set_timer(limiter);
}

/* ---- life ---- */

enum err limiter_open(struct limiter **out, uv_loop_t *loop, struct redis *redis, uint64_t interval_ms,
		      uint64_t max_wait_ms, struct error *why)
{
	struct limiter *limiter = calloc(1, sizeof *limiter);

	if (limiter == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the limiter");
	limiter->loop = loop;
	limiter->redis = redis;
	limiter->interval_ms = interval_ms;
	snprintf(limiter->interval_us, sizeof limiter->interval_us, "%llu",
		 (unsigned long long)(interval_ms + MARGIN_MS) * 1000);
	snprintf(limiter->max_wait_us, sizeof limiter->max_wait_us, "%llu",
		 (unsigned long long)max_wait_ms * 1000);
	uv_timer_init(loop, &limiter->timer);
	limiter->timer.data = limiter;
	*out = limiter;
	return ERR_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle->data);
}

void limiter_close(struct limiter *limiter)
{
	struct admission *admission;
	struct slot *slot;

	while ((admission = limiter->first) != NULL) {
		limiter->first = admission->next;
		free(admission);
	}
	while ((slot = limiter->slots) != NULL) {
		limiter->slots = slot->next;
		free(slot);
	}
	uv_close((uv_handle_t *)&limiter->timer, on_timer_closed);
}

bool limiter_limits(const struct limiter *limiter)
{
	return limiter->interval_ms > 0;
}
