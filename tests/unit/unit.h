/*
 * unit.h - what the unit tests share: cmocka with its headers, and a few helpers for bytes and buffers.
 */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"

#define COUNT(array)  (sizeof(array) / sizeof(array)[0])
#define BYTES(string) (string), (sizeof(string) - 1) /* a literal that may hold NULs, and its length */

/* Zeroed memory; never NULL. */
static inline char *get_memory(size_t size)
{
	char *memory = calloc(1, size);

	if (memory == NULL)
		abort();
	return memory;
}

/* A copy in a block of its own, of exactly this size: the sanitizer then sees every read beyond it. */
static inline char *exact_copy(const void *bytes, size_t len)
{
	char *copy = get_memory(len);

	memcpy(copy, bytes, len);
	return copy;
}

/* Numbers that look random and are the same in every run; `state` begins as anything but 0. */
static inline uint32_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 32);
}

/* Writes the UTF-8 form of a code point by the book; its length. */
static inline size_t put_character(char *out, uint32_t point)
{
	if (point < 0x80) {
		out[0] = (char)point;
		return 1;
	}
	if (point < 0x800) {
		out[0] = (char)(0xC0 | point >> 6);
		out[1] = (char)(0x80 | (point & 0x3F));
		return 2;
	}
	if (point < 0x10000) {
		out[0] = (char)(0xE0 | point >> 12);
		out[1] = (char)(0x80 | (point >> 6 & 0x3F));
		out[2] = (char)(0x80 | (point & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | point >> 18);
	out[1] = (char)(0x80 | (point >> 12 & 0x3F));
	out[2] = (char)(0x80 | (point >> 6 & 0x3F));
	out[3] = (char)(0x80 | (point & 0x3F));
	return 4;
}

static inline void assert_bytes(const char *bytes, size_t len, const char *expected, size_t expected_len)
{
	if (len != expected_len || memcmp(bytes, expected, len) != 0)
		fail_msg("got %zu bytes \"%.*s\", expected %zu bytes \"%.*s\"", len, (int)len, bytes,
			 expected_len, (int)expected_len, expected);
}

static inline void assert_buf(const struct buf *buf, const char *expected, size_t expected_len)
{
	assert_false(buf->failed);
	assert_bytes(buf_bytes(buf), buf_size(buf), expected, expected_len);
}

/* The buffer's bytes as a C string; to be freed. */
static inline char *buf_string(const struct buf *buf)
{
	char *text = get_memory(buf_size(buf) + 1);

	memcpy(text, buf_bytes(buf), buf_size(buf));
	return text;
}

static inline void assert_contains(const char *text, const char *part)
{
	if (text == NULL || part == NULL)
		abort();
	if (strstr(text, part) == NULL)
		fail_msg("\"%s\" does not hold \"%s\"", text, part);
}

static inline void assert_lacks(const char *text, const char *part)
{
	if (text == NULL || part == NULL)
		abort();
	if (strstr(text, part) != NULL)
		fail_msg("\"%s\" holds \"%s\"", text, part);
}

#endif
