/*
 * failing_alloc.h - makes one allocation fail, to see what its caller does then.
 *
 * Stands in front of glibc's allocator for the whole program that includes it, so once per program. The
 * sanitizers bring an allocator of their own: there nothing fails, and the tests only see the good run.
 */
#ifndef FAILING_ALLOC_H
#define FAILING_ALLOC_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

static long alloc_countdown = -1; /* allocations that still succeed before one fails; -1: none fails */
static bool alloc_did_fail;

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OWN_ALLOCATOR 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define OWN_ALLOCATOR 1
#endif

#ifndef OWN_ALLOCATOR
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*,readability-redundant-declaration): what glibc has for the purpose */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *old, size_t size);
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*,readability-redundant-declaration) */

static bool alloc_fails_now(void)
{
	if (alloc_countdown < 0 || alloc_countdown-- > 0)
		return false;
	alloc_did_fail = true;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return alloc_fails_now() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return alloc_fails_now() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return alloc_fails_now() ? NULL : __libc_realloc(old, size);
}
#endif

/* The allocation after `good` more ones fails. */
static inline void alloc_fail_after(long good)
{
	alloc_did_fail = false;
	alloc_countdown = good;
}

/* All succeed again; whether one has failed since. */
static inline bool alloc_failed(void)
{
	alloc_countdown = -1;
	return alloc_did_fail;
}

#endif
