/*
 * digits.c - see digits.h.
 */
#include "base/digits.h"

#include <string.h>

size_t digits_write(char out[DIGITS_SIZE], uint64_t number)
{
	char digits[DIGITS_SIZE];
	char *first = digits + sizeof digits;
	size_t count;

	do
		*--first = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	count = (size_t)(digits + sizeof digits - first);
	memcpy(out, first, count);
	out[count] = '\0';
	return count;
}
