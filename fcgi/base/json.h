/*
 * json.h - writes JSON text into a buffer. Reading JSON is json-c's job; writing is ours, because events must
 * come out in one exact form, cost little per chunk, and be cut to a size.
 *
 * Text is UTF-8 and stays unescaped, but for what JSON demands and for U+0085, U+2028 and U+2029: clients that
 * split the decoded stream into lines (Python's str.splitlines does at these three) would tear an event.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Appends `text` as a JSON string with its quotes. `text` must be valid UTF-8; it may hold NULs. */
void json_string(struct buf *out, const char *text, size_t len);

/* As json_string() for a C string; NULL is written as null. */
void json_cstring(struct buf *out, const char *text);

/* What stands before an item of a list: a comma, unless it is the first one, right behind the bracket. */
void json_item(struct buf *out);

/* What stands before the value of a member, the first one right behind the brace; `name` needs no escaping. */
void json_name(struct buf *out, const char *name);

/*
 * Members of an object, the first one right behind its brace; `name` needs no escaping. A text, and a whole number.
 */
void json_member(struct buf *out, const char *name, const char *text);
void json_member_number(struct buf *out, const char *name, uint64_t number);

/*
 * How many leading bytes of `text` can be written as a JSON string of at most `max` bytes (quotes left out),
 * cut between characters. At least one character when `len` > 0.
 */
size_t json_fitting(const char *text, size_t len, size_t max);

#endif
