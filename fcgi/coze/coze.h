/*
 * coze.h - one chat at Coze: a message goes there, the text of the answer comes back.
 *
 * Owns: the protocol (coze-api): both flows, streaming and polling, the fall from one to the other, and
 * cancelling. Knows nothing of sessions, HTTP clients or libcurl.
 */
#ifndef COZE_COZE_H
#define COZE_COZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/id.h"

struct transport;
struct coze;
struct coze_chat;
struct failure;

struct coze_options {
	const char *bot_id;     /* lent */
	size_t max_event_bytes; /* one event, or one JSON body */
	size_t max_answer_bytes;
	uint64_t first_byte_ms, idle_ms;
	uint64_t poll_interval_ms; /* between two questions whether a polled chat is ready */
};

struct coze_question {
	const char *user_id;
	const char *conversation_id; /* "" for a new conversation */
	const char *text;            /* UTF-8, copied into the request; not needed after coze_chat_start() */
	size_t text_len;
	bool stream; /* false: the polling flow */
};

/* Who the answer is from. Both are valid ids (id.h), or "" while Coze has not said. */
struct coze_ids {
	char conversation_id[ID_MAX + 1];
	char chat_id[ID_MAX + 1];
	char message_id[ID_MAX + 1]; /* of the newest answer message */
	char logid[64];              /* for Coze's support; printable */
};

/*
 * What happens to a chat, in this order: accepted at most once, then texts, then done exactly once. An
 * error returned by the first two ends the chat: it is cancelled at Coze, and done follows with that code.
 * None is called from within coze_chat_start(), none after coze_chat_cancel(), and coze_chat_cancel() must
 * not be called from the first two.
 */
struct coze_chat_ops {
	/* Coze has taken the message; `ids` are lent for the chat's life. */
	enum err (*on_accepted)(void *arg, const struct coze_ids *ids);
	/* More of the answer: whole UTF-8 characters. */
	enum err (*on_text)(void *arg, const char *text, size_t len);
	/* The end; `failure` is NULL when the answer is complete. The chat is freed when this returns. */
	void (*on_done)(void *arg, const struct coze_ids *ids, const struct failure *failure);
	/* After a failure with `cancelling`: Coze has been told. Once, not before on_done. */
	void (*on_gone)(void *arg);
};

enum err coze_open(struct coze **out, uv_loop_t *loop, struct transport *transport,
		   const struct coze_options *options, struct error *why);

/* Frees; chats that are still there must have been cancelled, and the transport closed before. */
void coze_close(struct coze *coze);

/* Begins a chat. ERR_NOMEM: nothing was begun, and no callback comes. */
enum err coze_chat_start(struct coze_chat **out, struct coze *coze, const struct coze_question *question,
			 const struct coze_chat_ops *ops, void *arg);

/*
 * Nobody wants the answer any more: closes the transfer and cancels the chat at Coze. When Coze has not yet
 * told the chat's id, the transfer goes on just until it has. None of the chat's callbacks follows;
 * `on_gone` (or NULL) is called once Coze has been told, or there was nothing to tell: then maybe from
 * within.
 */
void coze_chat_cancel(struct coze_chat *chat, void (*on_gone)(void *arg), void *arg);

/* Back-pressure, see transport.h. Pausing works from within on_text. */
void coze_chat_pause(struct coze_chat *chat);
void coze_chat_resume(struct coze_chat *chat);

/* What the chat is waiting for: a constant English text, for the log. */
const char *coze_chat_doing(const struct coze_chat *chat);

#endif
