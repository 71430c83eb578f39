/*
 * memory.h - whether there is memory for a library that does not ask.
 *
 * Some libraries take it for granted that each of their allocations succeeds; without memory they abort, or lose a part of
 * what they were given and say nothing. So before such a library is called, all that it may need is taken and given back:
 * what was had a moment ago can be had again, as a thread allocates from an arena of its own.
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

/* What an allocation takes beyond what was asked for. */
#define MEMORY_OVERHEAD 32

bool memory_is_there(size_t bytes);

/*
 * uv_poll_init() for a socket, with that question before it: when libuv's table has no place for `fd`, the first
 * uv_poll_start() makes a larger one, and aborts without memory. False: there is none, or libuv cannot watch it; then `poll`
 * was not made and must not be closed. `fd` stays the caller's in either case; libuv makes it non-blocking.
 */
bool memory_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd);

#endif
