/*
 * limiter.h - the least time between two chats that start, of all workers on all machines together.
 *
 * Slots are handed out by Redis in the order of asking. Who gets one waits for it by himself.
 */
#ifndef STORE_LIMITER_H
#define STORE_LIMITER_H

#include <stdint.h>

#include "base/error.h"

struct limiter;
struct redis;

/* ERR_OK: the chat may start in wait_ms. ERR_RATE (too far off; no slot is used) or ERR_STORE in `error`. */
typedef void (*limiter_fn)(void *arg, const struct error *error, uint64_t wait_ms);

/* redis: lent. interval_ms 0: no limit, and Redis is never asked. max_wait_ms: a longer wait is refused at once. */
enum err limiter_open(struct limiter **out, struct redis *redis, uint64_t interval_ms, uint64_t max_wait_ms,
		      struct error *why);
void limiter_close(struct limiter *limiter);

/* Whether there is a limit at all. */
int limiter_limits(const struct limiter *limiter);

/* Asks for a slot. ERR_OK: `fn` is called exactly once, never from within. Else it never is. */
enum err limiter_admit(struct limiter *limiter, limiter_fn fn, void *arg);

#endif
