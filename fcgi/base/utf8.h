/*
 * utf8.h - UTF-8 as RFC 3629 defines it: no overlong forms, no surrogates, nothing above U+10FFFF.
 * All functions take bytes and a length and keep no state.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* How many leading bytes of `text` are whole, valid characters; `len` when all are. */
size_t utf8_valid_prefix(const char *text, size_t len);

bool utf8_valid(const char *text, size_t len);

/* Appends `text` with U+FFFD in the place of each byte that is no part of a valid character. */
void utf8_repair(struct buf *out, const char *text, size_t len);

/*
 * The largest cut <= `at` that does not fall inside a character. `text` must be valid and `at` <= `len`.
 */
size_t utf8_cut(const char *text, size_t len, size_t at);

#endif
