/*
 * id.c - see id.h.
 */
#include "base/id.h"

#include <stdint.h>
#include <sys/random.h>

#include "base/utf8.h"

bool id_random(char out[ID_RANDOM_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bytes[(ID_RANDOM_SIZE - 1) / 2];

	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return false;
	for (size_t i = 0; i < sizeof bytes; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[ID_RANDOM_SIZE - 1] = '\0';
	return true;
}

double id_random_share(void)
{
	uint32_t number = 0;

	/* Without a generator the pauses fall together: a pity, no more. */
	if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number)
		number = UINT32_MAX / 2;
	return (double)number / 4294967296.0;
}

bool id_valid(const char *text, size_t len)
{
	if (len == 0 || len > ID_MAX || !utf8_valid(text, len))
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7F)
			return false;
		if (c == 0xC2 && i + 1 < len && (unsigned char)text[i + 1] < 0xA0)
			return false;
	}
	return true;
}
