/*
 * fuzz_body.c - a request body is taken exactly when it is RFC 8259's JSON with the fields that it must have, and the fields
 * are what a second, plain parser reads.
 *
 * Input: the body of a POST /chat.
 */
#include "chat/chat_api.h"
#include "plain.h"

#define DEPTH_SURE  30 /* nesting that is taken for sure */
#define VALUES_SURE 9000

/* ---- the second parser: RFC 8259, nothing else. Fails by itself when it is not at a value's end afterwards ---- */

enum { NOTHING, OTHER, STRING, NONE };

struct found {
	int kind;
	struct buf text;
};

struct reading {
	struct input rest;
	unsigned depth, deepest, values;
	struct found members[CHAT_FIELDS];
	bool
	    odd_name; /* a member's name with a NUL in it: json-c cannot tell it from what stands before that */
};

static bool read_value(struct reading *reading, int *kind, struct buf *text);

static void skip_blanks(struct input *rest)
{
	while (rest->left > 0 && memchr(" \t\r\n", rest->at[0], 4) != NULL)
		input_byte(rest);
}

static bool next_is(struct input *rest, char c)
{
	if (rest->left == 0 || rest->at[0] != c)
		return false;
	input_byte(rest);
	return true;
}

static bool read_hex(struct input *rest, uint32_t *unit)
{
	*unit = 0;
	for (int i = 0; i < 4; i++) {
		int digit = plain_hex((unsigned char)input_byte(rest));

		if (digit < 0)
			return false;
		*unit = *unit << 4 | (uint32_t)digit;
	}
	return true;
}

static void put_point(struct buf *out, uint32_t point)
{
	if (point < 0x80) {
		buf_append_char(out, (char)point);
		return;
	}
	if (point < 0x800) {
		buf_append_char(out, (char)(0xC0 | point >> 6));
	} else if (point < 0x10000) {
		buf_append_char(out, (char)(0xE0 | point >> 12));
		buf_append_char(out, (char)(0x80 | (point >> 6 & 0x3F)));
	} else {
		buf_append_char(out, (char)(0xF0 | point >> 18));
		buf_append_char(out, (char)(0x80 | (point >> 12 & 0x3F)));
		buf_append_char(out, (char)(0x80 | (point >> 6 & 0x3F)));
	}
	buf_append_char(out, (char)(0x80 | (point & 0x3F)));
}

/* Behind \u. A surrogate that stands alone becomes U+FFFD. */
static bool read_unicode(struct input *rest, struct buf *out)
{
	uint32_t unit, low;
	struct input ahead;

	if (!read_hex(rest, &unit))
		return false;
	ahead = *rest;
	if (unit >= 0xD800 && unit < 0xDC00 && next_is(&ahead, '\\') && next_is(&ahead, 'u') &&
	    read_hex(&ahead, &low) && low >= 0xDC00 && low < 0xE000) {
		put_point(out, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
		*rest = ahead;
		return true;
	}
	put_point(out, unit >= 0xD800 && unit < 0xE000 ? 0xFFFD : unit);
	return true;
}

/* Behind the first quote. */
static bool read_string(struct input *rest, struct buf *out)
{
	static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";

	while (rest->left > 0) {
		unsigned c = input_byte(rest);
		const char *letter;

		if (c == '"')
			return true;
		if (c < 0x20)
			return false;
		if (c != '\\') {
			buf_append_char(out, (char)c);
			continue;
		}
		c = input_byte(rest);
		letter = c != 0 ? strchr(letters, (int)c) : NULL;
		if (letter != NULL)
			buf_append_char(out, meanings[letter - letters]);
		else if (c != 'u' || !read_unicode(rest, out))
			return false;
	}
	return false;
}

static bool read_digits(struct input *rest)
{
	size_t before = rest->left;

	while (rest->left > 0 && rest->at[0] >= '0' && rest->at[0] <= '9')
		input_byte(rest);
	return rest->left < before;
}

static bool read_number(struct input *rest)
{
	next_is(rest, '-');
	if (!next_is(rest, '0') && !read_digits(rest))
		return false;
	if (next_is(rest, '.') && !read_digits(rest))
		return false;
	if (next_is(rest, 'e') || next_is(rest, 'E')) {
		if (!next_is(rest, '+'))
			next_is(rest, '-');
		return read_digits(rest);
	}
	return true;
}

static bool read_word(struct input *rest, const char *word)
{
	size_t len = strlen(word);

	if (rest->left < len || memcmp(rest->at, word, len) != 0)
		return false;
	rest->at += len;
	rest->left -= len;
	return true;
}

static bool read_array(struct reading *reading)
{
	struct buf ignored;
	bool good = true;
	int kind;

	skip_blanks(&reading->rest);
	if (next_is(&reading->rest, ']'))
		return true;
	buf_init(&ignored, reading->rest.left + 4);
	do {
		buf_reset(&ignored, 4096);
		good = read_value(reading, &kind, &ignored);
		skip_blanks(&reading->rest);
	} while (good && next_is(&reading->rest, ','));
	buf_free(&ignored);
	return good && next_is(&reading->rest, ']');
}

/* What the last member of a name says counts. */
static void note_member(struct reading *reading, const struct buf *name, int kind, const struct buf *text)
{
	for (size_t i = 0; i < CHAT_FIELDS; i++) {
		const char *known = chat_fields[i].name;

		if (!same_bytes(buf_bytes(name), buf_size(name), known, strlen(known)))
			continue;
		reading->members[i].kind = kind;
		buf_reset(&reading->members[i].text, 0);
		buf_append(&reading->members[i].text, buf_bytes(text), buf_size(text));
	}
}

static bool read_member(struct reading *reading)
{
	struct buf name, text;
	bool good;
	int kind = NOTHING;

	buf_init(&name, reading->rest.left + 4);
	buf_init(&text, reading->rest.left + 4);
	skip_blanks(&reading->rest);
	good = next_is(&reading->rest, '"') && read_string(&reading->rest, &name);
	skip_blanks(&reading->rest);
	good = good && next_is(&reading->rest, ':') && read_value(reading, &kind, &text);
	if (memchr(buf_bytes(&name), '\0', buf_size(&name)) != NULL)
		reading->odd_name = true;
	if (good && reading->depth == 1)
		note_member(reading, &name, kind, &text);
	buf_free(&name);
	buf_free(&text);
	return good;
}

static bool read_object(struct reading *reading)
{
	bool good;

	skip_blanks(&reading->rest);
	if (next_is(&reading->rest, '}'))
		return true;
	do {
		good = read_member(reading);
		skip_blanks(&reading->rest);
	} while (good && next_is(&reading->rest, ','));
	return good && next_is(&reading->rest, '}');
}

static bool read_nested(struct reading *reading, bool (*read)(struct reading *reading))
{
	bool good;

	reading->depth++;
	if (reading->depth > reading->deepest)
		reading->deepest = reading->depth;
	good = reading->depth < 2000 && read(reading);
	reading->depth--;
	return good;
}

static bool read_value(struct reading *reading, int *kind, struct buf *text)
{
	skip_blanks(&reading->rest);
	reading->values++;
	*kind = OTHER;
	if (next_is(&reading->rest, '{'))
		return read_nested(reading, read_object);
	if (next_is(&reading->rest, '['))
		return read_nested(reading, read_array);
	if (next_is(&reading->rest, '"')) {
		*kind = STRING;
		return read_string(&reading->rest, text);
	}
	if (read_word(&reading->rest, "null")) {
		*kind = NONE;
		return true;
	}
	return read_word(&reading->rest, "true") || read_word(&reading->rest, "false") ||
	       read_number(&reading->rest);
}

/* Whether the body is JSON; *object: and an object. */
static bool read_body(struct reading *reading, const char *body, size_t len, bool *object)
{
	struct buf ignored;
	int kind;
	bool good;

	*reading = (struct reading){ .rest = { body, len } };
	for (size_t i = 0; i < CHAT_FIELDS; i++)
		buf_init(&reading->members[i].text, len + 4);
	skip_blanks(&reading->rest);
	*object = reading->rest.left > 0 && reading->rest.at[0] == '{';
	buf_init(&ignored, len + 4);
	good = read_value(reading, &kind, &ignored);
	buf_free(&ignored);
	skip_blanks(&reading->rest);
	return good && reading->rest.left == 0;
}

/* ---- what must come of it ---- */

static bool fits(const struct field *field, const struct found *member)
{
	const char *text = buf_bytes(&member->text);
	size_t len = buf_size(&member->text);

	if (member->kind == NOTHING || member->kind == NONE)
		return !field->required;
	if (member->kind != STRING)
		return false;
	if (field->kind == FIELD_ID)
		return plain_id(text, len);
	for (size_t i = 0; i < len; i++) /* the exotic blanks are test_fields.c's business */
		if ((unsigned char)text[i] > ' ' && (unsigned char)text[i] < 0x7F)
			return true;
	return false;
}

static void check_taken(const struct reading *reading, const struct chat_fields *taken)
{
	for (size_t i = 0; i < CHAT_FIELDS; i++) {
		const struct text *text = (const void *)((const char *)taken + chat_fields[i].offset);
		const struct found *member = &reading->members[i];

		CHECK((text->bytes != NULL) == (member->kind == STRING));
		if (text->bytes == NULL)
			continue;
		CHECK(same_bytes(text->bytes, text->len, buf_bytes(&member->text), buf_size(&member->text)));
		CHECK(utf8_valid(text->bytes, text->len) && text->len > 0);
		CHECK(chat_fields[i].kind != FIELD_ID || plain_id(text->bytes, text->len));
	}
	CHECK(taken->message.bytes != NULL);
}

static void check_refused(const struct error *why, bool json, bool object)
{
	CHECK(why->code == ERR_BAD_REQUEST && why->detail[0] != '\0' && why->cause[0] != '\0');
	CHECK(utf8_valid(why->detail, strlen(why->detail)));
	CHECK(!json || strstr(why->detail, "请求体不是有效的 JSON") == NULL);
	CHECK(!json || !object || strstr(why->detail, "必须是 JSON 对象") == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct chat_fields taken = { .message = { NULL, 0 } };
	struct fields_doc *doc;
	struct reading reading;
	struct error why;
	bool object,
	    json = read_body(&reading, (const char *)bytes, len, &object) && plain_utf8(bytes, len) == len;
	enum err rc = fields_parse(&doc, &taken, chat_fields, CHAT_FIELDS, (const char *)bytes, len, &why);
	bool good = json && object;

	for (size_t i = 0; i < CHAT_FIELDS && good; i++)
		good = fits(&chat_fields[i], &reading.members[i]);
	if (good && reading.deepest <= DEPTH_SURE && reading.values <= VALUES_SURE && !reading.odd_name)
		CHECK(rc == ERR_OK);
	if (rc == ERR_OK) {
		CHECK(json && object && doc != NULL && !reading.odd_name);
		check_taken(&reading, &taken);
		fields_free(doc);
	} else {
		CHECK(doc == NULL);
		check_refused(&why, json, object);
	}
	for (size_t i = 0; i < CHAT_FIELDS; i++)
		buf_free(&reading.members[i].text);
	return 0;
}
