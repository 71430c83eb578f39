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

struct limiter {
	struct redis *redis;
	uint64_t interval_ms;
	char interval_us[24], max_wait_us[24];
};

struct admission {
	limiter_fn fn;
	void *arg;
};

static void on_slot(void *arg, enum err err, const struct redis_reply *reply)
{
	struct admission admission = *(struct admission *)arg;
	int64_t wait_us = err == ERR_OK ? redis_reply_integer(reply) : 0;
	struct error error;

	free(arg);
	if (err != ERR_OK) {
		error_set(&error, err, NULL, "asking for a slot: redis is away, slow or refuses");
		admission.fn(admission.arg, &error, 0);
	} else if (wait_us < 0) {
		error_set(&error, ERR_RATE, NULL,
			  "the next slot is %lld ms away, COZE_RATE_WAIT_SECONDS is less",
			  (long long)(-1 - wait_us) / 1000);
		error.retry_after_s = (unsigned)((-1 - wait_us) / 1000000 + 1);
		admission.fn(admission.arg, &error, 0);
	} else {
		admission.fn(admission.arg, NULL, (uint64_t)(wait_us + 999) / 1000);
	}
}

enum err limiter_open(struct limiter **out, struct redis *redis, uint64_t interval_ms, uint64_t max_wait_ms,
		      struct error *why)
{
	struct limiter *limiter = calloc(1, sizeof *limiter);

	if (limiter == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the limiter");
	limiter->redis = redis;
	limiter->interval_ms = interval_ms;
	snprintf(limiter->interval_us, sizeof limiter->interval_us, "%llu",
		 (unsigned long long)(interval_ms + MARGIN_MS) * 1000);
	snprintf(limiter->max_wait_us, sizeof limiter->max_wait_us, "%llu",
		 (unsigned long long)max_wait_ms * 1000);
	*out = limiter;
	return ERR_OK;
}

void limiter_close(struct limiter *limiter)
{
	free(limiter);
}

int limiter_limits(const struct limiter *limiter)
{
	return limiter->interval_ms > 0;
}

enum err limiter_admit(struct limiter *limiter, limiter_fn fn, void *arg)
{
	static const char key[] = "coze:limit:start";
	const struct redis_arg args[] = { { key, sizeof key - 1 },
					  { limiter->interval_us, strlen(limiter->interval_us) },
					  { limiter->max_wait_us, strlen(limiter->max_wait_us) } };
	struct admission *admission = malloc(sizeof *admission);
	enum err rc;

	if (admission == NULL)
		return ERR_NOMEM;
	*admission = (struct admission){ fn, arg };
	rc = redis_eval(limiter->redis, SCRIPT_RATE_SLOT, args, 1, 3, on_slot, admission);
	if (rc != ERR_OK)
		free(admission);
	return rc;
}
