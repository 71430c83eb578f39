/*
 * event.h - what Coze says: chats, messages and errors, decoded from JSON (coze-api sections 2.2, 3.2, 3.3, 4).
 *
 * Everything is optional and anything may be of the wrong type: a field that is absent or odd decodes as empty. Ids are
 * texts; codes may be numbers or strings. Texts are valid UTF-8, lent until event_free() and as long as what was decoded.
 */
#ifndef COZE_EVENT_H
#define COZE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/scan.h"

struct json_object;
struct json_tokener;

enum event_kind {
	EVENT_OTHER,   /* unknown or of no interest: skipped */
	EVENT_CHAT,    /* created, in_progress, completed, failed, …: event.chat.status decides */
	EVENT_DELTA,   /* a piece of a message */
	EVENT_MESSAGE, /* a whole message */
	EVENT_ERROR,
	EVENT_DONE
};

enum chat_status {
	CHAT_UNKNOWN, /* absent, or a word that nobody knows */
	CHAT_CREATED,
	CHAT_IN_PROGRESS,
	CHAT_COMPLETED,
	CHAT_FAILED,
	CHAT_REQUIRES_ACTION,
	CHAT_CANCELED
};

struct event_text {
	const char *bytes; /* never NULL */
	size_t len;
};

struct event_chat {
	struct event_text id, conversation_id;
	enum chat_status status;
	int64_t error_code; /* of last_error; 0 when fine */
	struct event_text error_msg;
};

struct event_message {
	struct event_text id, chat_id, conversation_id, type, content_type, content;
	int64_t created_at; /* Unix seconds, 0 when absent */
};

struct event {
	enum event_kind kind;
	struct event_chat chat;       /* EVENT_CHAT; of EVENT_ERROR only error_code and error_msg */
	struct event_message message; /* EVENT_DELTA and EVENT_MESSAGE */
	struct scan_slice data;       /* as it came; most texts point into it */
	char *unescaped;              /* owner of those that were escaped; or NULL */
	size_t unescaped_len;
	struct json_object *doc; /* owner of all of them, if json-c had to be asked; or NULL */
	bool starved;            /* it could not be decoded for want of memory, and may be good */
};

/* An answer in Coze's envelope {code, msg, data, detail}; also a bare chat's error. */
struct envelope {
	bool is_envelope; /* has a code, or data that is not null */
	int64_t code;
	struct event_text msg, logid;
	struct event_chat chat;   /* when data is an object */
	struct json_object *list; /* when data is an array; lent, see envelope_message() */
	struct json_object *doc;  /* owner */
	bool starved;             /* it could not be decoded for want of memory, and may be good */
};

/*
 * Decodes one event of a stream. False when a known event's data is not the JSON object that it must be (an unknown
 * event never fails), or when it is `starved`. `tokener` is reused from call to call.
 */
bool event_decode(struct event *event, struct json_tokener *tokener, const char *name, const char *data,
		  size_t len);

/* The same by json-c alone: what tests hold event_decode() against. */
bool event_decode_built(struct event *event, struct json_tokener *tokener, const char *name, const char *data,
			size_t len);

/* Also after a false, and twice. */
void event_free(struct event *event);

/* Decodes a whole JSON body. False when it is not a JSON object, or `starved`. */
bool envelope_decode(struct envelope *envelope, struct json_tokener *tokener, const char *body, size_t len);
void envelope_free(struct envelope *envelope);

/* Messages of a message/list reply, by index; false past the end. */
bool envelope_message(const struct envelope *envelope, size_t index, struct event_message *message);

/* A message that the user is meant to read: type answer, plain text. */
bool event_is_answer(const struct event_message *message);

#endif
