/*
 * fuzz_stream.c - an answer on its whole way: from Coze's bytes through events and messages to chunks, which a client's JSON
 * parser reads. However the bytes are split, the same clean text arrives, and none of it twice.
 *
 * Input: a byte (split), then the stream.
 */
#include <json-c/json.h>

#include "chat/chat_api.h"
#include "coze/answer.h"
#include "coze/sse.h"
#include "plain.h"

#define ROOM (8 * 1024 * 1024)

struct listener {
	struct json_tokener *tokener, *client;
	struct answer answer;
	struct buf text;  /* what the user has got */
	struct buf bound; /* all contents of messages in a row: nobody can have got more */
	uint64_t chunks;
	bool good;
};

/* One chunk, as a client takes it apart. */
static void deliver(struct listener *listener, const struct event_text *text)
{
	const struct chunk_event event = { "chunk", { { text->bytes, text->len }, listener->chunks++ } };
	struct json_object *doc, *data, *content;
	struct buf json;

	CHECK(utf8_valid(text->bytes, text->len));
	buf_init(&json, ROOM);
	shape_write(&json, &chunk_shape, &event, SHAPE_SPACED);
	check_one_line(&json);
	json_tokener_reset(listener->client);
	doc = json_tokener_parse_ex(listener->client, buf_bytes(&json), (int)buf_size(&json));
	CHECK(json_object_object_get_ex(doc, "data", &data));
	CHECK(json_object_object_get_ex(data, "content", &content));
	CHECK(same_bytes(json_object_get_string(content), (size_t)json_object_get_string_len(content),
			 text->bytes, text->len));
	buf_append(&listener->text, text->bytes, text->len);
	json_object_put(doc);
	buf_free(&json);
}

static bool take_message(struct listener *listener, const struct event_message *message, bool whole)
{
	struct event_text text;

	if (!event_is_answer(message))
		return true;
	if (answer_take(&listener->answer, message, whole, &text) != ERR_OK)
		return false;
	/* A part of the message, up to its end. */
	CHECK(text.len <= message->content.len);
	CHECK(same_bytes(text.bytes, text.len, message->content.bytes + message->content.len - text.len,
			 text.len));
	CHECK(whole || text.len == message->content.len);
	buf_append(&listener->bound, message->content.bytes, message->content.len);
	if (text.len > 0)
		deliver(listener, &text);
	/* Whole messages that come again bring nothing new. */
	if (whole) {
		CHECK(answer_take(&listener->answer, message, true, &text) == ERR_OK);
		CHECK(text.len == 0);
	}
	return true;
}

static bool on_event(void *arg, const char *name, const char *data, size_t len)
{
	struct listener *listener = arg;
	struct event event;

	listener->good = event_decode(&event, listener->tokener, name, data, len);
	if (listener->good && (event.kind == EVENT_DELTA || event.kind == EVENT_MESSAGE))
		listener->good = take_message(listener, &event.message, event.kind == EVENT_MESSAGE);
	event_free(&event);
	return listener->good && event.kind != EVENT_DONE;
}

static void hear_all(struct listener *listener, struct input stream, size_t piece)
{
	enum err rc = ERR_OK;
	struct sse sse;

	*listener = (struct listener){ json_tokener_new(), json_tokener_new(), .good = true };
	CHECK(listener->tokener != NULL && listener->client != NULL);
	answer_init(&listener->answer);
	buf_init(&listener->text, ROOM);
	buf_init(&listener->bound, ROOM);
	sse_init(&sse, 65536, on_event, listener);
	while (stream.left > 0 && rc == ERR_OK) {
		size_t step = piece < stream.left ? piece : stream.left;
		char *copy = exact_copy(stream.at, step);

		rc = sse_feed(&sse, copy, step);
		free(copy);
		stream.at += step;
		stream.left -= step;
	}
	if (rc == ERR_OK)
		rc = sse_finish(&sse);
	listener->good = listener->good && rc == ERR_OK;
	sse_fini(&sse);
	answer_fini(&listener->answer);
	CHECK(utf8_valid(buf_bytes(&listener->text), buf_size(&listener->text)));
	CHECK(buf_size(&listener->text) <= buf_size(&listener->bound));
}

static void forget(struct listener *listener)
{
	json_tokener_free(listener->tokener);
	json_tokener_free(listener->client);
	buf_free(&listener->text);
	buf_free(&listener->bound);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input stream = input_of(bytes, len);
	unsigned split = input_byte(&stream);
	struct listener whole, other;

	hear_all(&whole, stream, SIZE_MAX);
	for (unsigned way = 0; way < 2; way++) {
		hear_all(&other, stream, way == 0 ? 1 : 2 + split);
		CHECK(other.good == whole.good && other.chunks == whole.chunks);
		CHECK(same_buf(&other.text, &whole.text));
		forget(&other);
	}
	forget(&whole);
	return 0;
}
