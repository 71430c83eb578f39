/*
 * failing_alloc.h - makes allocations fail, to see what their caller does then.
 *
 * Stands in front of the allocator, glibc's or AddressSanitizer's, for the whole program that includes it, so once per
 * program. Libraries get their memory from here, too.
 */
#ifndef FAILING_ALLOC_H
#define FAILING_ALLOC_H

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#endif

#ifdef UNDER_ASAN
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*,readability-redundant-declaration): what there is for the purpose */
void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t count, size_t size);
void *REAL(realloc)(void *old, size_t size);
void REAL(free)(void *memory);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);
void free(void *memory);
char *strdup(const char *text);
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*,readability-redundant-declaration) */

static long alloc_countdown = -1;      /* allocations that still succeed before one fails; -1: none fails */
static int64_t alloc_left = INT64_MAX; /* bytes that may still be taken */
static bool alloc_did_fail;

static bool alloc_fails_now(size_t size)
{
	bool fails = alloc_countdown == 0 || alloc_left < (int64_t)size;

	if (alloc_countdown >= 0)
		alloc_countdown--;
	if (fails) {
		alloc_did_fail = true;
		errno = ENOMEM;
	}
	return fails;
}

static void *alloc_taken(void *memory)
{
	if (alloc_left != INT64_MAX)
		alloc_left -= (int64_t)malloc_usable_size(memory);
	return memory;
}

static void alloc_given_back(void *memory)
{
	if (alloc_left != INT64_MAX)
		alloc_left += (int64_t)malloc_usable_size(memory);
}

void *malloc(size_t size)
{
	return alloc_fails_now(size) ? NULL : alloc_taken(REAL(malloc)(size));
}

void *calloc(size_t count, size_t size)
{
	return alloc_fails_now(count * size) ? NULL : alloc_taken(REAL(calloc)(count, size));
}

void *realloc(void *old, size_t size)
{
	if (alloc_fails_now(size))
		return NULL;
	alloc_given_back(old);
	return alloc_taken(REAL(realloc)(old, size));
}

void free(void *memory)
{
	alloc_given_back(memory);
	REAL(free)(memory);
}

/* AddressSanitizer's own would not come by here. */
char *strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = malloc(size);

	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

/* The allocation after `good` more ones fails. */
static inline void alloc_fail_after(long good)
{
	alloc_did_fail = false;
	alloc_countdown = good;
}

/* From now on there are `bytes` left to be taken: what is given back may be taken again. */
static inline void alloc_leave(size_t bytes)
{
	alloc_did_fail = false;
	alloc_left = (int64_t)bytes;
}

/* All succeed again; whether one has failed since. */
static inline bool alloc_failed(void)
{
	alloc_countdown = -1;
	alloc_left = INT64_MAX;
	return alloc_did_fail;
}

#endif
