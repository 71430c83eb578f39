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

/* The same for libuv, before it watches `fd`: when its table has no place for that, it makes a larger one. */
bool memory_is_there_to_watch(const uv_loop_t *loop, int fd);

#endif
