/*
 * turn.h - one message of a session and its answer.
 *
 * Owns: the order of steps from the accepted request to the saved session, the turn's deadline, its retries, and its one
 * end. Knows neither FastCGI nor libcurl nor Redis commands: it claims the session, asks the limiter for a slot, gives
 * the message to a chat at Coze, passes the answer to its sink, and lets the claim save what came of it.
 */
#ifndef CHAT_TURN_H
#define CHAT_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/id.h"
#include "coze/breaker.h"
#include "coze/retry.h"

struct claims;
struct coze;
struct coze_ids;
struct limiter;
struct turn;

/* What all turns of a worker share. The pointers are lent and outlive them. */
struct turn_context {
	uv_loop_t *loop;
	struct coze *coze;
	struct claims *claims;
	struct limiter *limiter;
	const char *default_user_id;
	bool poll;            /* ask Coze by polling instead of a stream */
	unsigned max_retries; /* of one turn */
	size_t max_running;   /* turns beyond it are refused */
	size_t running;       /* turns that have not been freed */
	struct turn *first;   /* of them */
	bool stopping;        /* turns_stop(): none begins any more */
	struct breaker breaker;
	struct retry_budget budget;
};

struct turn_question {
	const char *session_id;      /* valid id */
	const char *user_id;         /* valid id, or "" */
	const char *conversation_id; /* valid id, or "" */
	const char *message;         /* UTF-8; copied */
	size_t message_len;
	uint64_t limit_ms;        /* for the whole turn */
	const char *limit_name;   /* the setting, for the log; constant */
	const char *limit_detail; /* what the user is told when time is up; constant */
};

/*
 * Whom the answer goes to: accepted at most once, then texts, then done exactly once unless the turn was cancelled. An
 * error returned by the first two ends the turn with it. turn_cancel() must not be called from the first two.
 */
struct turn_sink {
	enum err (*on_accepted)(void *arg, const struct coze_ids *ids);
	enum err (*on_text)(void *arg, const char *text, size_t len);
	/*
	 * `error` is NULL when the answer is complete (saving goes on by itself when Redis is away). The turn is no longer the
	 * caller's. Whoever asks Redis from then on finds the session saved and free, unless time was up or the chat had to be
	 * cancelled: then it is within a second.
	 */
	void (*on_done)(void *arg, const struct coze_ids *ids, const struct error *error);
};

/*
 * Begins a turn. ERR_OK: callbacks come later, never from within. Else none comes, *out is NULL and `why` is filled:
 * ERR_STOPPING, ERR_TOO_MANY, ERR_CIRCUIT, ERR_STORE, ERR_NOMEM.
 */
enum err turn_start(struct turn **out, struct turn_context *context, const struct turn_question *question,
		    const struct turn_sink *sink, void *arg, struct error *why);

/* The client has left: no callback follows; what runs at Coze is cancelled, what must be saved still is. */
void turn_cancel(struct turn *turn);

/* The worker goes away: ends every turn with ERR_STOPPING, as if its time were up, and lets none begin. */
void turns_stop(struct turn_context *context);

/* Back-pressure from the client; pausing works from within on_text. */
void turn_pause(struct turn *turn);
void turn_resume(struct turn *turn);

/* What the turn is waiting for, or was when it failed: a constant English text, for the log. */
const char *turn_doing(const struct turn *turn);

/* How often the message was given to Coze again. */
unsigned turn_retries(const struct turn *turn);

#endif
