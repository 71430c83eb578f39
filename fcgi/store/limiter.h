/*
 * limiter.h - the least time between two chats that start, of all workers on all machines together.
 *
 * Redis hands out slots in the order of asking; whoever waits here for one starts in the same order. A slot belongs to the
 * worker, not to the message: when a waiting message goes away, those behind it move up, and the slot that is left over
 * is given back.
 */
#ifndef STORE_LIMITER_H
#define STORE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct admission; /* a message that waits for its slot */
struct limiter;
struct redis;

/* The chat may start now (`error` NULL), or not: ERR_RATE (its slot would be too far off), ERR_STORE. */
typedef void (*limiter_fn)(void *arg, const struct error *error);

/* redis: lent. interval_ms 0: no limit, and Redis is never asked. max_wait_ms: a longer wait is refused at once. */
enum err limiter_open(struct limiter **out, uv_loop_t *loop, struct redis *redis, uint64_t interval_ms,
		      uint64_t max_wait_ms, struct error *why);

/* Call it when nobody waits any more, and after redis_close(). */
void limiter_close(struct limiter *limiter);

/* Whether there is a limit at all. */
bool limiter_limits(const struct limiter *limiter);

/*
 * Waits for a slot. ERR_OK: `fn` is called exactly once, never from within, unless admission_cancel() comes first; the
 * admission is gone after either. Else it never is.
 */
enum err limiter_admit(struct admission **out, struct limiter *limiter, limiter_fn fn, void *arg);

/* The message does not want to start any more. */
void admission_cancel(struct admission *admission);

#endif
