/*
 * turn.h - one message of a session and its answer.
 *
 * Owns: the order of steps from the accepted request to the saved session, the turn's deadline, and its one end. Knows
 * neither FastCGI nor libcurl nor Redis commands: it asks the session store what to go on from, gives the message to a
 * chat at Coze, passes the answer to its sink, and tells the store what came of it.
 */
#ifndef CHAT_TURN_H
#define CHAT_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/id.h"

struct coze;
struct coze_ids;
struct sessions;
struct turn;

/* What all turns of a worker share; lent, and outlives them. */
struct turn_context {
	uv_loop_t *loop;
	struct coze *coze;
	struct sessions *sessions;
	const char *default_user_id;
	bool poll;                  /* ask Coze by polling instead of a stream */
	size_t running;             /* turns that have not been freed */
	void (*on_none)(void *arg); /* NULL, or called when `running` becomes 0 */
	void *none_arg;
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
	/* `error` is NULL when the answer is complete and saved. The turn is no longer the caller's. */
	void (*on_done)(void *arg, const struct coze_ids *ids, const struct error *error);
};

/* Begins a turn. ERR_OK: callbacks come later, never from within. Else none comes, and *out is NULL. */
enum err turn_start(struct turn **out, struct turn_context *context, const struct turn_question *question,
		    const struct turn_sink *sink, void *arg);

/* The client has left: no callback follows; what runs at Coze is cancelled, what must be saved still is. */
void turn_cancel(struct turn *turn);

/* Back-pressure from the client; pausing works from within on_text. */
void turn_pause(struct turn *turn);
void turn_resume(struct turn *turn);

/* What the turn is waiting for: a constant English text, for the log. */
const char *turn_doing(const struct turn *turn);

#endif
