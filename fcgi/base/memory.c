/*
 * memory.c - see memory.h.
 */
#include "base/memory.h"

#include <stdlib.h>

bool memory_is_there(size_t bytes)
{
	void *volatile memory = malloc(bytes); /* volatile: or the compiler finds that nobody needs it */

	free(memory);
	return memory != NULL;
}

static bool is_there_to_watch(const uv_loop_t *loop, int fd)
{
	size_t places = 4; /* one for each descriptor and two more, rounded up to a power of two */

	if ((unsigned)fd < loop->nwatchers)
		return true;
	while (places < (size_t)fd + 3)
		places *= 2;
	return memory_is_there(places * sizeof(void *));
}

bool memory_poll_init(uv_loop_t *loop, uv_poll_t *poll, int fd)
{
	return is_there_to_watch(loop, fd) && uv_poll_init(loop, poll, fd) == 0;
}
