/*
 * schema.c - see schema.h.
 */
#include "http/schema.h"

#include <stdint.h>

#include "base/id.h"
#include "base/json.h"

#define TEXT_MAX 16384

static void open_member(struct buf *out, const char *name, char bracket)
{
	json_name(out, name);
	buf_append_char(out, bracket);
}

void schema_text(struct buf *out, const char *name, const char *chinese, const char *english,
		 const char *between)
{
	struct buf text;

	buf_init(&text, TEXT_MAX);
	buf_append_str(&text, chinese);
	buf_append_str(&text, between);
	buf_append_str(&text, english);
	json_name(out, name);
	json_string(out, buf_bytes(&text), buf_size(&text));
	out->failed = out->failed || text.failed;
	buf_free(&text);
}

void schema_reference(struct buf *out, const char *name)
{
	buf_printf(out, "{\"$ref\":\"#/components/schemas/%s\"}", name);
}

/* null counts as absent, so what may be absent may be null. */
static void append_type(struct buf *out, const char *type, bool nullable)
{
	json_name(out, "type");
	buf_printf(out, nullable ? "[\"%s\",\"null\"]" : "\"%s\"", type);
}

/* id.h counts bytes, a schema characters; of those there are never more. */
static void append_id_rule(struct buf *out)
{
	json_member_number(out, "minLength", 1);
	json_member_number(out, "maxLength", ID_MAX);
	json_member(out, "pattern", "^[^\\u0000-\\u001f\\u007f-\\u009f]+$");
}

static void append_examples(struct buf *out, const char *text)
{
	if (text == NULL)
		return;
	open_member(out, "examples", '[');
	json_cstring(out, text);
	buf_append_char(out, ']');
}

/* ---- what comes in ---- */

void schema_field(struct buf *out, const struct field *field)
{
	buf_append_char(out, '{');
	append_type(out, "string", !field->required);
	if (field->kind == FIELD_ID) {
		append_id_rule(out);
	} else {
		json_member_number(out, "minLength", 1);
		json_member(out, "pattern", "\\S");
	}
	schema_text(out, "description", field->meaning, field->meaning_en, " / ");
	append_examples(out, field->example);
	buf_append_char(out, '}');
}

void schema_fields(struct buf *out, const struct field *fields, size_t count)
{
	buf_append_str(out, "{\"type\":\"object\",\"required\":[");
	for (size_t i = 0; i < count; i++) {
		if (!fields[i].required)
			continue;
		json_item(out);
		json_cstring(out, fields[i].name);
	}
	buf_append_str(out, "],\"properties\":{");
	for (size_t i = 0; i < count; i++) {
		json_name(out, fields[i].name);
		schema_field(out, &fields[i]);
	}
	buf_append_str(out, "}}");
}

void schema_query(struct buf *out, const struct query_field *field)
{
	buf_append_str(out, "{\"type\":\"integer\"");
	json_member_number(out, "minimum", field->min);
	json_member_number(out, "maximum", field->max);
	json_member_number(out, "default", field->fallback);
	buf_append_char(out, '}');
}

/* ---- what goes out ---- */

static void append_words(struct buf *out, const char *const *words)
{
	if (words[1] == NULL) {
		json_member(out, "const", words[0]);
		return;
	}
	open_member(out, "enum", '[');
	for (; *words != NULL; words++) {
		json_item(out);
		json_cstring(out, *words);
	}
	buf_append_char(out, ']');
}

static void append_kind(struct buf *out, const struct member *member)
{
	switch (member->kind) {
	case MEMBER_TEXT:
	case MEMBER_BYTES:
	case MEMBER_PIECES:
		append_type(out, "string", member->nullable);
		break;
	case MEMBER_ID:
		append_type(out, "string", member->nullable);
		append_id_rule(out);
		break;
	case MEMBER_WORD:
		append_type(out, "string", false);
		append_words(out, member->words);
		break;
	case MEMBER_TIME: /* "date-time" would promise a zone */
		append_type(out, "string", false);
		json_member(out, "pattern", "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\.\\d{6}$");
		break;
	case MEMBER_COUNT:
		append_type(out, "integer", false);
		json_member_number(out, "minimum", 0);
		break;
	case MEMBER_OBJECT: /* 3.1 lets a description stand beside a reference */
		json_name(out, "$ref");
		buf_printf(out, "\"#/components/schemas/%s\"", member->shape->name);
		break;
	case MEMBER_LIST:
		append_type(out, "array", false);
		json_name(out, "items");
		schema_reference(out, member->shape->name);
		break;
	}
}

static void append_member(struct buf *out, const struct member *member)
{
	json_name(out, member->name);
	buf_append_char(out, '{');
	append_kind(out, member);
	schema_text(out, "description", member->meaning, member->meaning_en, " / ");
	if (member->kind == MEMBER_COUNT) {
		json_name(out, "examples");
		buf_printf(out, "[%s]", member->example);
	} else if (member->kind != MEMBER_WORD) {
		append_examples(out, member->example);
	}
	buf_append_char(out, '}');
}

void schema_shape(struct buf *out, const struct shape *shape)
{
	buf_append_str(out, "{\"type\":\"object\",\"required\":[");
	for (size_t i = 0; i < shape->count; i++) {
		json_item(out);
		json_cstring(out, shape->members[i].name);
	}
	buf_append_str(out, "],\"properties\":{");
	for (size_t i = 0; i < shape->count; i++)
		append_member(out, &shape->members[i]);
	buf_append_str(out, "}}");
}
