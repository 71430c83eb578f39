/*
 * fuzz.h - what the fuzz targets share: the entry that libFuzzer and replay.c call, a check that stops the program, and a
 * reader that takes an input apart.
 *
 * A target owes an answer to every input, in the same way each time: no clock, no random numbers, nothing kept from
 * input to input.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* What must hold for every input. */
#define CHECK(what) ((what) ? (void)0 : fuzz_broken(#what, __FILE__, __LINE__))

static inline _Noreturn void fuzz_broken(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	abort();
}

/* A copy in a block of its own, of exactly this size: AddressSanitizer then sees every read beyond it. Never NULL. */
static inline char *exact_copy(const void *bytes, size_t len)
{
	char *copy = malloc(len);

	if (copy == NULL && len > 0)
		abort();
	if (len > 0)
		memcpy(copy, bytes, len);
	return copy;
}

/* The same as a C string: what follows a NUL is still there, and unseen. */
static inline char *exact_string(const void *bytes, size_t len)
{
	char *copy = malloc(len + 1);

	if (copy == NULL)
		abort();
	if (len > 0)
		memcpy(copy, bytes, len);
	copy[len] = '\0';
	return copy;
}

static inline bool same_bytes(const void *a, size_t a_len, const void *b, size_t b_len)
{
	return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static inline bool same_buf(const struct buf *a, const struct buf *b)
{
	return !a->failed && !b->failed && same_bytes(buf_bytes(a), buf_size(a), buf_bytes(b), buf_size(b));
}

/* The input, taken from its front. Lent. */
struct input {
	const char *at;
	size_t left;
};

static inline struct input input_of(const uint8_t *bytes, size_t len)
{
	return (struct input){ (const char *)bytes, len };
}

/* 0 once there is nothing left. */
static inline unsigned input_byte(struct input *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return (unsigned char)*input->at++;
}

/* What stands before the next `mark`, which goes, too; or all that is left. */
static inline struct input input_until(struct input *input, char mark)
{
	const char *end = input->left > 0 ? memchr(input->at, mark, input->left) : NULL;
	struct input part = { input->at, end != NULL ? (size_t)(end - input->at) : input->left };
	size_t step = part.left + (end != NULL);

	input->at += step;
	input->left -= step;
	return part;
}

static inline struct input input_line(struct input *input)
{
	return input_until(input, '\n');
}

static inline bool input_is(const struct input *input, const char *word)
{
	return same_bytes(input->at, input->left, word, strlen(word));
}

/* Numbers that look random and follow from `state`, which is never 0. */
static inline uint32_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 32);
}

#endif
