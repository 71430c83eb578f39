/*
 * shape.c - see shape.h. A chunk of each stream goes through here: no formatted printing, no allocation but the buffer's.
 */
#include "http/shape.h"

#include <stdint.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"

static void write_number(struct buf *out, uint64_t number)
{
	char digits[20];
	size_t at = sizeof digits;

	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	buf_append(out, digits + at, sizeof digits - at);
}

static void write_time(struct buf *out, uint64_t unix_us)
{
	char iso[CLOCK_ISO_SIZE];

	clock_iso(iso, unix_us);
	json_cstring(out, iso);
}

/* An empty text, and where between its quotes. */
static void write_gap(struct buf *out, size_t *place)
{
	buf_append_str(out, "\"\"");
	*place = buf_size(out) - 1;
}

/* What stands before a value, written at once: `, "name": `. */
static void write_name(struct buf *out, const char *name, bool first, enum shape_style style)
{
	size_t len = strlen(name);
	char *room = buf_room(out, len + 6);
	char *p = room;

	if (p == NULL)
		return;
	if (!first) {
		*p++ = ',';
		if (style == SHAPE_SPACED)
			*p++ = ' ';
	}
	*p++ = '"';
	memcpy(p, name, len);
	p += len;
	*p++ = '"';
	*p++ = ':';
	if (style == SHAPE_SPACED)
		*p++ = ' ';
	buf_claim(out, (size_t)(p - room));
}

/* NOLINTBEGIN(misc-no-recursion): as deep as the shapes are, which are constants */
static void write_list(struct buf *out, const struct shape *shape, const struct shape_list *list,
		       enum shape_style style)
{
	buf_append_char(out, '[');
	for (size_t i = 0; i < list->count; i++) {
		if (i > 0)
			buf_append(out, ", ", style == SHAPE_SPACED ? 2 : 1);
		shape_write(out, shape, (const char *)list->items + i * list->size, style);
	}
	buf_append_char(out, ']');
}

static void write_value(struct buf *out, const struct member *member, const void *at, enum shape_style style)
{
	const struct shape_bytes *text = at;

	switch (member->kind) {
	case MEMBER_TEXT:
	case MEMBER_ID:
	case MEMBER_WORD:
		json_cstring(out, *(const char *const *)at);
		break;
	case MEMBER_BYTES:
		json_string(out, text->bytes, text->len);
		break;
	case MEMBER_PIECES:
		write_gap(out, *(size_t *const *)at);
		break;
	case MEMBER_TIME:
		write_time(out, *(const uint64_t *)at);
		break;
	case MEMBER_COUNT:
		write_number(out, *(const uint64_t *)at);
		break;
	case MEMBER_OBJECT:
		shape_write(out, member->shape, at, style);
		break;
	case MEMBER_LIST:
		write_list(out, member->shape, at, style);
		break;
	}
}

void shape_write(struct buf *out, const struct shape *shape, const void *values, enum shape_style style)
{
	buf_append_char(out, '{');
	for (size_t i = 0; i < shape->count; i++) {
		const struct member *member = &shape->members[i];

		write_name(out, member->name, i == 0, style);
		write_value(out, member, (const char *)values + member->offset, style);
	}
	buf_append_char(out, '}');
}

static void write_example(struct buf *out, const struct member *member, enum shape_style style)
{
	switch (member->kind) {
	case MEMBER_WORD:
		json_cstring(out, member->words[0]);
		break;
	case MEMBER_COUNT:
		buf_append_str(out, member->example);
		break;
	case MEMBER_OBJECT:
		shape_example(out, member->shape, style);
		break;
	case MEMBER_LIST:
		buf_append_char(out, '[');
		shape_example(out, member->shape, style);
		buf_append_char(out, ']');
		break;
	default:
		json_cstring(out, member->example);
	}
}

void shape_example(struct buf *out, const struct shape *shape, enum shape_style style)
{
	buf_append_char(out, '{');
	for (size_t i = 0; i < shape->count; i++) {
		write_name(out, shape->members[i].name, i == 0, style);
		write_example(out, &shape->members[i], style);
	}
	buf_append_char(out, '}');
}
/* NOLINTEND(misc-no-recursion) */
