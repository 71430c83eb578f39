/*
 * fuzz_json.c - json-c reads back what was written: texts with all their bytes, numbers, and whole answers in both styles.
 *
 * Input: a byte (how much may be written at once), then the text; what is no UTF-8 in it is repaired first, as it is for
 * every text that comes in.
 */
#include <json-c/json.h>

#include "base/json.h"
#include "chat/chat_api.h"
#include "plain.h"

#define ROOM (1024 * 1024)

static struct json_object *read_back(const struct buf *json)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *value;

	CHECK(!json->failed && tokener != NULL);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	value = json_tokener_parse_ex(tokener, buf_bytes(json), (int)buf_size(json));
	CHECK(json_tokener_get_error(tokener) == json_tokener_success);
	CHECK(json_tokener_get_parse_end(tokener) == buf_size(json));
	json_tokener_free(tokener);
	return value;
}

static void check_text(struct json_object *value, const char *text, size_t len)
{
	CHECK(json_object_is_type(value, json_type_string));
	CHECK(
	    same_bytes(json_object_get_string(value), (size_t)json_object_get_string_len(value), text, len));
}

static struct json_object *member(struct json_object *object, const char *name)
{
	struct json_object *value;

	CHECK(json_object_object_get_ex(object, name, &value));
	return value;
}

static void check_string(const char *text, size_t len)
{
	struct json_object *value;
	struct buf json;

	buf_init(&json, ROOM);
	json_string(&json, text, len);
	check_one_line(&json);
	value = read_back(&json);
	check_text(value, text, len);
	json_object_put(value);
	buf_free(&json);
}

/* The bytes that `text` takes between the quotes. */
static size_t written_size(const char *text, size_t len)
{
	struct buf json;
	size_t size;

	buf_init(&json, ROOM);
	json_string(&json, text, len);
	size = buf_size(&json) - 2;
	buf_free(&json);
	return size;
}

/* Pieces of at most `max` bytes when written, none of them torn, that make the whole text; none could be longer. */
static void check_pieces(const char *text, size_t len, size_t max)
{
	while (len > 0) {
		size_t piece = json_fitting(text, len, max), next;

		CHECK(piece > 0 && piece <= len);
		CHECK(utf8_valid(text, piece) && utf8_valid(text + piece, len - piece));
		CHECK(written_size(text, piece) <= max || utf8_cut(text, piece, piece - 1) == 0);
		next = piece + 1;
		while (next < len && ((unsigned char)text[next] & 0xC0) == 0x80)
			next++;
		CHECK(piece == len || written_size(text, next) > max);
		text += piece;
		len -= piece;
	}
}

static void check_chunk(const char *text, size_t len, uint64_t index, enum shape_style style)
{
	const struct chunk_event event = { "chunk", { { text, len }, index } };
	struct json_object *doc, *data;
	struct buf json;

	buf_init(&json, ROOM);
	shape_write(&json, &chunk_shape, &event, style);
	check_one_line(&json);
	doc = read_back(&json);
	data = member(doc, "data");
	check_text(member(doc, "type"), "chunk", 5);
	check_text(member(data, "content"), text, len);
	CHECK(json_object_get_uint64(member(data, "chunk_index")) == index);
	CHECK(json_object_object_length(doc) == 2 && json_object_object_length(data) == 2);
	json_object_put(doc);
	buf_free(&json);
}

/* A text written into the gap that MEMBER_PIECES leaves. */
static void check_complete(const char *text, size_t len, uint64_t number)
{
	char *id = exact_string(text, len);
	size_t gap = 0;
	const struct complete_event event = { "complete", { number, &gap, id, id, NULL, number } };
	struct json_object *doc, *data;
	struct buf json, filled;

	buf_init(&json, ROOM);
	buf_init(&filled, ROOM);
	shape_write(&json, &complete_shape, &event, SHAPE_SPACED);
	CHECK(gap > 0 && gap < buf_size(&json));
	buf_append(&filled, buf_bytes(&json), gap - 1);
	json_string(&filled, text, len);
	buf_append(&filled, buf_bytes(&json) + gap + 1, buf_size(&json) - gap - 1);
	check_one_line(&filled);
	doc = read_back(&filled);
	data = member(doc, "data");
	check_text(member(data, "full_content"), text, len);
	check_text(member(data, "session_id"), id, strlen(id));
	CHECK(member(data, "conversation_id") == NULL);
	CHECK(json_object_get_uint64(member(data, "total_chunks")) == number);
	json_object_put(doc);
	buf_free(&json);
	buf_free(&filled);
	free(id);
}

static void check_members(const char *text, uint64_t number)
{
	struct json_object *doc;
	struct buf json;

	buf_init(&json, ROOM);
	buf_append_char(&json, '{');
	json_member(&json, "text", text);
	json_member(&json, "none", NULL);
	json_member_number(&json, "number", number);
	json_name(&json, "list");
	buf_append_char(&json, '[');
	json_item(&json);
	json_cstring(&json, text);
	json_item(&json);
	buf_append_str(&json, "[]]}");
	doc = read_back(&json);
	check_text(member(doc, "text"), text, strlen(text));
	CHECK(member(doc, "none") == NULL);
	CHECK(json_object_get_uint64(member(doc, "number")) == number);
	check_text(json_object_array_get_idx(member(doc, "list"), 0), text, strlen(text));
	CHECK(json_object_array_length(member(doc, "list")) == 2);
	json_object_put(doc);
	buf_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	size_t max = input_byte(&input) % 80;
	uint64_t number = 0;
	struct buf text;
	char *string;

	buf_init(&text, 3 * len + 1);
	utf8_repair(&text, input.at, input.left);
	memcpy(&number, bytes, len < sizeof number ? len : sizeof number);
	string = exact_string(buf_bytes(&text), buf_size(&text));
	check_string(buf_bytes(&text), buf_size(&text));
	check_pieces(buf_bytes(&text), buf_size(&text), max);
	check_chunk(buf_bytes(&text), buf_size(&text), number, SHAPE_SPACED);
	check_chunk(buf_bytes(&text), buf_size(&text), number, SHAPE_COMPACT);
	check_complete(buf_bytes(&text), buf_size(&text), number >> 12); /* a time of some thousand years */
	check_members(string, number);
	free(string);
	buf_free(&text);
	return 0;
}
