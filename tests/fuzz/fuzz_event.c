/*
 * fuzz_event.c - what Coze says decodes to clean texts, the same ones from a parser that has just seen something broken,
 * and the same ones from bytes that are no UTF-8 as from what those are repaired to.
 *
 * Input: a line, the name of the event ("envelope" for a JSON answer), then its data.
 */
#include "fuzz.h"

#include <json-c/json.h>

#include "coze/event.h"

#define ROOM (8 * 1024 * 1024)

static void say_text(struct buf *out, const struct event_text *text)
{
	CHECK(text->bytes != NULL && utf8_valid(text->bytes, text->len));
	buf_printf(out, "%zu:", text->len);
	buf_append(out, text->bytes, text->len);
	buf_append_char(out, ';');
}

static void say_chat(struct buf *out, const struct event_chat *chat)
{
	CHECK(chat->status <= CHAT_CANCELED);
	say_text(out, &chat->id);
	say_text(out, &chat->conversation_id);
	say_text(out, &chat->error_msg);
	buf_printf(out, "%d %lld;", (int)chat->status, (long long)chat->error_code);
}

static void say_message(struct buf *out, const struct event_message *message)
{
	say_text(out, &message->id);
	say_text(out, &message->chat_id);
	say_text(out, &message->conversation_id);
	say_text(out, &message->type);
	say_text(out, &message->content_type);
	say_text(out, &message->content);
	buf_printf(out, "%lld;", (long long)message->created_at);
	if (event_is_answer(message))
		CHECK(same_bytes(message->type.bytes, message->type.len, "answer", 6));
}

typedef bool (*decode_fn)(struct event *event, struct json_tokener *tokener, const char *name,
			  const char *data, size_t len);

static void say_decoded(struct buf *out, decode_fn decode, struct json_tokener *tokener, const char *name,
			struct input data)
{
	struct event event;
	char *copy = exact_copy(data.at, data.left);
	bool good = decode(&event, tokener, name, copy, data.left);

	buf_printf(out, "%d %d;", good, (int)event.kind);
	CHECK(good || (event.kind != EVENT_OTHER && event.kind != EVENT_DONE));
	if (good && event.kind == EVENT_CHAT)
		say_chat(out, &event.chat);
	if (good && event.kind == EVENT_ERROR) {
		say_text(out, &event.chat.error_msg);
		buf_printf(out, "%lld", (long long)event.chat.error_code);
	}
	if (good && (event.kind == EVENT_DELTA || event.kind == EVENT_MESSAGE))
		say_message(out, &event.message);
	event_free(&event);
	free(copy);
}

/* What is read of a plain event is what json-c makes of it. */
static void say_event(struct buf *out, struct json_tokener *tokener, const char *name, struct input data)
{
	struct buf built;

	buf_init(&built, out->max);
	say_decoded(&built, event_decode_built, tokener, name, data);
	say_decoded(out, event_decode, tokener, name, data);
	CHECK(same_bytes(buf_bytes(&built), buf_size(&built), buf_bytes(out), buf_size(out)));
	buf_free(&built);
}

static void say_envelope(struct buf *out, struct json_tokener *tokener, struct input data)
{
	struct envelope envelope;
	struct event_message message;
	char *copy = exact_copy(data.at, data.left);
	bool good = envelope_decode(&envelope, tokener, copy, data.left);

	free(copy);
	buf_printf(out, "%d;", good);
	if (good) {
		buf_printf(out, "%d %lld;", envelope.is_envelope, (long long)envelope.code);
		say_text(out, &envelope.msg);
		say_text(out, &envelope.logid);
		say_chat(out, &envelope.chat);
		for (size_t i = 0; envelope_message(&envelope, i, &message); i++)
			say_message(out, &message);
	}
	envelope_free(&envelope);
}

/* `before`: what the parser has to digest first; NULL for nothing. */
static void say(struct buf *out, const char *before, const char *name, struct input data)
{
	struct json_tokener *tokener = json_tokener_new();
	struct buf ignored;

	CHECK(tokener != NULL);
	buf_init(&ignored, ROOM);
	if (before != NULL)
		say_envelope(&ignored, tokener, (struct input){ before, strlen(before) });
	buf_free(&ignored);
	buf_init(out, ROOM);
	if (strcmp(name, "envelope") == 0)
		say_envelope(out, tokener, data);
	else
		say_event(out, tokener, name, data);
	json_tokener_free(tokener);
}

static void check_same(const struct buf *expected, const char *before, const char *name, struct input data)
{
	struct buf said;

	say(&said, before, name, data);
	CHECK(same_buf(&said, expected));
	buf_free(&said);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input data = input_of(bytes, len), line = input_line(&data);
	char *name = exact_string(line.at, line.left);
	struct buf said, repaired;

	say(&said, NULL, name, data);
	check_same(&said, "{\"data\":[{\"content\":\"cut \\ud83d", name, data);
	check_same(&said, "{\"a\":[1,tru", name, data);
	check_same(&said, "{\"content\":\"\\ud83d\"}", name, data);
	buf_init(&repaired, 3 * len);
	utf8_repair(&repaired, data.at, data.left);
	check_same(&said, NULL, name, (struct input){ buf_bytes(&repaired), buf_size(&repaired) });
	buf_free(&repaired);
	buf_free(&said);
	free(name);
	return 0;
}
