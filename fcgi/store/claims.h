/*
 * claims.h - the order of a session's messages, across all workers on all machines.
 *
 * A claim is one message's place: first it waits for the session, then it holds it, then it saves what came of its turn
 * and lets the next one in. Order is the order of arrival at Redis. While it waits or holds, a claim is renewed; when
 * its worker dies, the session is free again after the lock time. Who waits is woken by a message of Redis (a channel per
 * worker), and looks by itself from time to time in case that the message was lost.
 *
 * What a turn must save is repeated until Redis has taken it, or the session would have expired: a claim outlives its turn.
 *
 * A turn costs Redis two scripts: one when its message arrives, one when it ends, which also says that the message was
 * accepted, unless that was some rounds of the loop before. Only the first one is waited for.
 */
#ifndef STORE_CLAIMS_H
#define STORE_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/id.h"

struct claims;
struct claim;
struct redis;
struct redis_locator;
struct session_index;

#define CLAIM_EPOCH_SIZE 40 /* two times in microseconds and a dot */

struct claims_options {
	const char *redis_url; /* these four for the listening connection, see redis.h */
	const char *redis_password;
	struct redis_locator *locator;
	uint64_t connect_ms;
	uint64_t ttl_ms;  /* of a session */
	uint64_t wait_ms; /* for the session's earlier messages to end */
	uint64_t lock_ms; /* after which the session of a dead worker is free */
};

/* What the holder goes on from. */
struct claim_grant {
	char conversation_id[ID_MAX + 1]; /* "" for none yet */
	char owner[ID_MAX + 1];           /* "" when nobody has named himself yet */
};

/*
 * The session is the claim's (`error` NULL), or will not be: ERR_FORBIDDEN (another user's), ERR_SESSION_BUSY (waited too
 * long), ERR_STORE. After an error the claim still has to be ended.
 */
typedef void (*claim_granted_fn)(void *arg, const struct error *error, const struct claim_grant *grant);

/* It is or will be saved (`error` NULL, also when a clear made it void), or could not be yet. */
typedef void (*claim_saved_fn)(void *arg, const struct error *error);

/* redis: for the scripts; lent. index: is told of sessions in use; lent. */
enum err claims_open(struct claims **out, uv_loop_t *loop, struct redis *redis, struct session_index *index,
		     const struct claims_options *options, struct error *why);

/* Drops every claim; who waits for one to be saved is told that it was not. Call it before redis_close(). */
void claims_close(struct claims *claims);

/* Whether messages can be claimed, and who waits will be woken. */
bool claims_are_ready(const struct claims *claims);

/* Claims that have not been let go of: they wait, hold, or still have something to save. */
size_t claims_count(const struct claims *claims);

/*
 * Takes a place for a message of `user_id` ("" when it named none). ERR_OK: `fn` is called exactly once, unless the claim
 * is ended before, and never from within. Else (ERR_STORE, ERR_NOMEM) nothing was begun.
 */
enum err claim_start(struct claim **out, struct claims *claims, const char *session_id, const char *user_id,
		     claim_granted_fn fn, void *arg);

/*
 * Coze has accepted the message, in this conversation: binds and counts it at the end of this round, without waiting for the
 * turn's end. Only for a holder, once. Failing is no matter: claim_end() does it again.
 */
void claim_accepted(struct claim *claim, const char *conversation_id);

/*
 * The turn is over or its client has left: saves, lets go of the session and wakes the next. `fn` (may be NULL) is called
 * once, never from within; saving goes on after that where it must. The claim is no longer the caller's.
 *
 * When Redis is on this machine and keeps up, `fn` is called as soon as the end is in Redis' socket, which outlives this
 * process; else when Redis has answered or has been found away. In the first case another connection may still be served
 * before the end, once: who looks at a session (sessions.h) sees the turn hold it, and looks again. Clears and binds need
 * not: in either order the outcome is the same.
 */
void claim_end(struct claim *claim, claim_saved_fn fn, void *arg);

#endif
