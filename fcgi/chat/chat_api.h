/*
 * chat_api.h - what POST /chat and POST /chat/stream take, answer and tell of themselves.
 */
#ifndef CHAT_CHAT_API_H
#define CHAT_CHAT_API_H

#include <stdint.h>

#include "http/about.h"
#include "http/fields.h"
#include "http/shape.h"

#define CHAT_FIELDS 4

struct chat_fields {
	struct text message, user_id, session_id, conversation_id;
};

extern const struct field chat_fields[CHAT_FIELDS];

struct chat_answer {
	struct shape_bytes response;
	const char *session_id, *message_id;
	uint64_t timestamp; /* Unix microseconds, as all of them */
	const char *conversation_id;
};

extern const struct shape chat_shape;

/* Events. `type` is always the shape's own word. */

struct chunk_data {
	struct shape_bytes content;
	uint64_t chunk_index;
};

struct chunk_event {
	const char *type; /* "chunk" */
	struct chunk_data data;
};

struct complete_data {
	uint64_t total_chunks;
	size_t *full_content; /* a long text: written in pieces */
	const char *session_id, *message_id, *conversation_id;
	uint64_t timestamp;
};

struct complete_event {
	const char *type; /* "complete" */
	struct complete_data data;
};

struct failure_data {
	const char *message, *session_id, *conversation_id;
	uint64_t timestamp;
};

struct failure_event {
	const char *type; /* "error" */
	struct failure_data data;
};

extern const struct shape chunk_shape, complete_shape, failure_shape;

extern const struct about chat_about, chat_stream_about;

#endif
