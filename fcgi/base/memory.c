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
