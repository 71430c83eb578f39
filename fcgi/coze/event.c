/*
 * event.c - see event.h.
 */
#include "coze/event.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/scan.h"
#include "base/strict.h"
#include "base/utf8.h"

#define LARGE        (64 * 1024) /* bytes; less cannot hold enough values to be worth a look */
#define JSON_C_VALUE 1024        /* bytes that json-c takes for a value, an object being the largest */
#define VALUES_MAX   10000       /* of a large document */

static const struct event_text no_text = { "", 0 };

static bool is(const struct event_text *text, const char *word)
{
	return text->len == strlen(word) && memcmp(text->bytes, word, text->len) == 0;
}

/* json-c replaces lone surrogates but lets some other nonsense pass: what is no UTF-8 must not reach a client. */
static struct event_text get_text(struct json_object *object, const char *key)
{
	struct json_object *value;
	struct event_text text;

	if (!json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, json_type_string))
		return no_text;
	text.bytes = json_object_get_string(value);
	text.len = (size_t)json_object_get_string_len(value);
	return utf8_valid(text.bytes, text.len) ? text : no_text;
}

/* Codes come as numbers, but also as strings. */
static int64_t get_code(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value))
		return 0;
	if (json_object_is_type(value, json_type_int))
		return json_object_get_int64(value);
	if (json_object_is_type(value, json_type_string)) {
		const char *text = json_object_get_string(value);
		char *end;
		long long code;

		errno = 0;
		code = strtoll(text, &end, 10);
		/* A word instead of a number is a failure of its own, whatever it says. */
		return *text != '\0' && *end == '\0' && errno == 0 ? code : -1;
	}
	return 0;
}

static struct json_object *get_object(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, json_type_object))
		return NULL;
	return value;
}

static enum chat_status status_of(const struct event_text *word)
{
	static const struct {
		const char *word;
		enum chat_status status;
	} words[] = {
		{ "created", CHAT_CREATED },
		{ "in_progress", CHAT_IN_PROGRESS },
		{ "processing", CHAT_IN_PROGRESS },
		{ "completed", CHAT_COMPLETED },
		{ "failed", CHAT_FAILED },
		{ "requires_action", CHAT_REQUIRES_ACTION },
		{ "required_action", CHAT_REQUIRES_ACTION },
		{ "canceled", CHAT_CANCELED },
		{ "cancelled", CHAT_CANCELED },
		{ "expired", CHAT_FAILED },
	};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (is(word, words[i].word))
			return words[i].status;
	return CHAT_UNKNOWN;
}

/* A failed chat says why in last_error, but samples also show a bare {code, msg}. */
static void get_chat(struct event_chat *chat, struct json_object *object)
{
	struct json_object *last_error = get_object(object, "last_error");
	struct event_text status = get_text(object, "status");

	chat->id = get_text(object, "id");
	chat->conversation_id = get_text(object, "conversation_id");
	chat->status = status_of(&status);
	chat->error_code = get_code(last_error != NULL ? last_error : object, "code");
	chat->error_msg = get_text(last_error != NULL ? last_error : object, "msg");
}

static void get_message(struct event_message *message, struct json_object *object)
{
	struct json_object *created_at;

	message->id = get_text(object, "id");
	message->chat_id = get_text(object, "chat_id");
	message->conversation_id = get_text(object, "conversation_id");
	message->type = get_text(object, "type");
	message->content_type = get_text(object, "content_type");
	message->content = get_text(object, "content");
	message->created_at = json_object_object_get_ex(object, "created_at", &created_at)
				  ? json_object_get_int64(created_at)
				  : 0;
}

/* NOLINTBEGIN(misc-no-recursion): once at most, as what was repaired is valid */
static struct json_object *parse(struct json_tokener *tokener, const char *body, size_t len, bool *starved);

/* JSON is UTF-8. Should Coze ever break that, then a user gets U+FFFD in the place of what cannot be read. */
static struct json_object *parse_repaired(struct json_tokener *tokener, const char *body, size_t len,
					  bool *starved)
{
	struct json_object *doc = NULL;
	struct buf repaired;

	buf_init(&repaired, len * 3);
	utf8_repair(&repaired, body, len);
	*starved = repaired.starved;
	if (!repaired.failed)
		doc = parse(tokener, buf_bytes(&repaired), buf_size(&repaired), starved);
	buf_free(&repaired);
	return doc;
}

/*
 * json-c 0.16 remembers half of a surrogate pair at the end of a text beyond json_tokener_reset(), and would put U+FFFD
 * before the next escape that it meets, in another user's answer. An escape of ours takes that.
 */
static void forget_surrogate(struct json_tokener *tokener)
{
	static const char escape[] = "\"\\u0020\"";

	json_tokener_reset(tokener);
	json_object_put(json_tokener_parse_ex(tokener, escape, sizeof escape - 1));
}

/* At least as many as there are, whatever the text is; commas within texts count, too. */
static size_t most_values(const char *body, size_t len)
{
	size_t count = 0;

	for (size_t i = 0; i < len; i++)
		count += body[i] == ',' || body[i] == ':' || body[i] == '[' || body[i] == '{';
	return count;
}

/* A document of 8 MiB may be one long text, but not two gigabytes of empty objects. */
static bool has_too_many_values(const char *body, size_t len)
{
	struct strict_scan scan;

	if (len <= LARGE || most_values(body, len) <= VALUES_MAX)
		return false;
	scan = strict_json(body, len);
	return scan.bad < len || scan.values > VALUES_MAX;
}

/* NULL: not a JSON object, or *starved: there is no memory to find out. */
static struct json_object *parse(struct json_tokener *tokener, const char *body, size_t len, bool *starved)
{
	struct json_object *doc;

	if (len > INT_MAX || has_too_many_values(body, len))
		return NULL;
	if (!utf8_valid(body, len))
		return parse_repaired(tokener, body, len, starved);
	/* json-c loses members without a word, or dies, when it gets no memory. */
	*starved = !memory_is_there(len * 4 + (most_values(body, len) + 1) * JSON_C_VALUE);
	if (*starved)
		return NULL;
	json_tokener_reset(tokener);
	doc = json_tokener_parse_ex(tokener, body, (int)len);
	if (json_tokener_get_error(tokener) != json_tokener_success ||
	    !json_object_is_type(doc, json_type_object)) {
		/* It stops where it gets no memory, and knows no reason. */
		*starved = doc == NULL && json_tokener_get_error(tokener) == json_tokener_success &&
			   json_tokener_get_parse_end(tokener) < len;
		json_object_put(doc);
		doc = NULL;
	}
	forget_surrogate(tokener);
	return doc;
}
/* NOLINTEND(misc-no-recursion) */

/* The event's name decides its kind, and for chats also the status, whatever the data says. */
static const struct event_name {
	const char *name;
	enum event_kind kind;
	enum chat_status status;
} event_names[] = {
	{ "conversation.message.delta", EVENT_DELTA, CHAT_UNKNOWN },
	{ "conversation.message.completed", EVENT_MESSAGE, CHAT_UNKNOWN },
	{ "conversation.chat.created", EVENT_CHAT, CHAT_CREATED },
	{ "conversation.chat.in_progress", EVENT_CHAT, CHAT_IN_PROGRESS },
	{ "conversation.chat.completed", EVENT_CHAT, CHAT_COMPLETED },
	{ "conversation.chat.failed", EVENT_CHAT, CHAT_FAILED },
	{ "conversation.chat.expired", EVENT_CHAT, CHAT_FAILED },
	{ "conversation.chat.requires_action", EVENT_CHAT, CHAT_REQUIRES_ACTION },
	{ "conversation.chat.required_action", EVENT_CHAT, CHAT_REQUIRES_ACTION },
	{ "conversation.chat.canceled", EVENT_CHAT, CHAT_CANCELED },
	{ "conversation.chat.cancelled", EVENT_CHAT, CHAT_CANCELED },
	{ "error", EVENT_ERROR, CHAT_UNKNOWN },
	{ "done", EVENT_DONE, CHAT_UNKNOWN },
	{ "conversation.stream.done", EVENT_DONE, CHAT_UNKNOWN },
};

/* ---- plain events, without json-c ---- */

/* A member that is read: a string or an integer. */
struct wanted {
	struct scan_slice name;
	struct event_text *text; /* or NULL */
	int64_t *number;         /* or NULL */
};

/* False when only json-c can tell: odd escapes, or no memory. */
static bool take_text(struct event *event, const struct scan_member *member, struct event_text *text)
{
	char *out;
	long len;

	*text = no_text;
	if (member->kind != SCAN_STRING)
		return true;
	*text = (struct event_text){ member->value.bytes, member->value.len };
	if (!member->escaped)
		return true;
	if (event->unescaped == NULL)
		event->unescaped = malloc(event->data.len);
	event->starved = event->unescaped == NULL;
	if (event->starved)
		return false;
	out = event->unescaped + event->unescaped_len;
	len = scan_unescape(out, &member->value);
	if (len < 0)
		return false;
	event->unescaped_len += (size_t)len;
	*text = (struct event_text){ out, (size_t)len };
	return true;
}

/* False for whatever else could be meant as a number. */
static bool take_number(const struct scan_member *member, int64_t *number)
{
	bool negative;

	if (member->kind != SCAN_INTEGER)
		return false;
	negative = member->value.bytes[0] == '-';
	*number = 0;
	for (size_t i = negative; i < member->value.len; i++)
		*number = *number * 10 + (member->value.bytes[i] - '0');
	if (negative)
		*number = -*number;
	return true;
}

#define NAMED(word)                      \
	{                                \
		(word), sizeof(word) - 1 \
	}

static bool is_named(const struct scan_member *member, const struct scan_slice *name)
{
	return name->len == member->name.len && memcmp(name->bytes, member->name.bytes, name->len) == 0;
}

/*
 * Reads what is wanted of an object's members; the last of several with one name counts. `last_error`: where the member of
 * that name is put, if it is an object; or NULL.
 */
static bool read_members(struct event *event, const struct scan_slice *object, const struct wanted *wanted,
			 size_t count, struct scan_slice *last_error)
{
	static const struct scan_slice nothing = { NULL, 0 }, last_error_name = NAMED("last_error");
	struct scan_member member;
	struct scan scan;

	scan_begin(&scan, object->bytes, object->len);
	while (scan_next(&scan, &member)) {
		if (last_error != NULL && is_named(&member, &last_error_name))
			*last_error = member.kind == SCAN_OBJECT ? member.value : nothing;
		for (size_t i = 0; i < count; i++) {
			if (!is_named(&member, &wanted[i].name))
				continue;
			if (wanted[i].text != NULL ? !take_text(event, &member, wanted[i].text)
						   : !take_number(&member, wanted[i].number))
				return false;
		}
	}
	return scan_complete(&scan);
}

static bool read_message(struct event *event)
{
	struct event_message *message = &event->message;
	const struct wanted wanted[] = {
		{ NAMED("id"), &message->id, NULL },
		{ NAMED("chat_id"), &message->chat_id, NULL },
		{ NAMED("conversation_id"), &message->conversation_id, NULL },
		{ NAMED("type"), &message->type, NULL },
		{ NAMED("content_type"), &message->content_type, NULL },
		{ NAMED("content"), &message->content, NULL },
		{ NAMED("created_at"), NULL, &message->created_at },
	};

	*message = (struct event_message){ no_text, no_text, no_text, no_text, no_text, no_text, 0 };
	return read_members(event, &event->data, wanted, sizeof wanted / sizeof wanted[0], NULL);
}

static bool read_chat(struct event *event)
{
	struct event_chat *chat = &event->chat;
	struct scan_slice last_error = { NULL, 0 };
	const struct wanted wanted[] = {
		{ NAMED("id"), &chat->id, NULL },
		{ NAMED("conversation_id"), &chat->conversation_id, NULL },
		{ NAMED("code"), NULL, &chat->error_code },
		{ NAMED("msg"), &chat->error_msg, NULL },
	};
	const struct wanted *of_error = wanted + 2;

	*chat = (struct event_chat){ no_text, no_text, CHAT_UNKNOWN, 0, no_text };
	if (!read_members(event, &event->data, wanted, sizeof wanted / sizeof wanted[0], &last_error))
		return false;
	if (last_error.len == 0)
		return true;
	chat->error_code = 0;
	chat->error_msg = no_text;
	return read_members(event, &last_error, of_error, 2, NULL);
}

/* ---- events ---- */

static bool is_message(enum event_kind kind)
{
	return kind == EVENT_DELTA || kind == EVENT_MESSAGE;
}

static bool build(struct event *event, struct json_tokener *tokener)
{
	event->doc = parse(tokener, event->data.bytes, event->data.len, &event->starved);
	if (event->doc == NULL)
		return false;
	if (is_message(event->kind))
		get_message(&event->message, event->doc);
	else
		get_chat(&event->chat, event->doc);
	return true;
}

static bool read_plain(struct event *event)
{
	if (!utf8_valid(event->data.bytes, event->data.len))
		return false;
	return is_message(event->kind) ? read_message(event) : read_chat(event);
}

static bool decode(struct event *event, struct json_tokener *tokener, const char *name, const char *data,
		   size_t len, bool plain)
{
	const struct event_name *known = NULL;

	*event = (struct event){ .kind = EVENT_OTHER, .data = { data, len } };
	for (size_t i = 0; i < sizeof event_names / sizeof event_names[0] && known == NULL; i++)
		if (strcmp(event_names[i].name, name) == 0)
			known = &event_names[i];
	if (known == NULL || known->kind == EVENT_DONE) {
		event->kind = known != NULL ? EVENT_DONE : EVENT_OTHER;
		return true;
	}
	event->kind = known->kind;
	if (!(plain && read_plain(event)) && (event->starved || !build(event, tokener))) {
		event_free(event);
		return false;
	}
	if (!is_message(known->kind))
		event->chat.status = known->status;
	return true;
}

bool event_decode(struct event *event, struct json_tokener *tokener, const char *name, const char *data,
		  size_t len)
{
	return decode(event, tokener, name, data, len, true);
}

bool event_decode_built(struct event *event, struct json_tokener *tokener, const char *name, const char *data,
			size_t len)
{
	return decode(event, tokener, name, data, len, false);
}

void event_free(struct event *event)
{
	json_object_put(event->doc);
	event->doc = NULL;
	free(event->unescaped);
	event->unescaped = NULL;
}

bool envelope_decode(struct envelope *envelope, struct json_tokener *tokener, const char *body, size_t len)
{
	struct json_object *data = NULL, *detail;

	*envelope = (struct envelope){ .msg = no_text, .logid = no_text };
	envelope->chat = (struct event_chat){ no_text, no_text, CHAT_UNKNOWN, 0, no_text };
	envelope->doc = parse(tokener, body, len, &envelope->starved);
	if (envelope->doc == NULL)
		return false;
	envelope->code = get_code(envelope->doc, "code");
	envelope->msg = get_text(envelope->doc, "msg");
	detail = get_object(envelope->doc, "detail");
	if (detail != NULL)
		envelope->logid = get_text(detail, "logid");
	json_object_object_get_ex(envelope->doc, "data", &data);
	envelope->is_envelope = data != NULL || json_object_object_get_ex(envelope->doc, "code", NULL);
	if (json_object_is_type(data, json_type_object))
		get_chat(&envelope->chat, data);
	else if (json_object_is_type(data, json_type_array))
		envelope->list = data;
	return true;
}

void envelope_free(struct envelope *envelope)
{
	json_object_put(envelope->doc);
	envelope->doc = NULL;
}

bool envelope_message(const struct envelope *envelope, size_t index, struct event_message *message)
{
	if (envelope->list == NULL || index >= json_object_array_length(envelope->list))
		return false;
	get_message(message, json_object_array_get_idx(envelope->list, index));
	return true;
}

bool event_is_answer(const struct event_message *message)
{
	return is(&message->type, "answer") &&
	       (message->content_type.len == 0 || is(&message->content_type, "text"));
}
