/*
 * percent.c - see percent.h.
 */
#include "base/percent.h"

#include <ctype.h>
#include <string.h>

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool percent_decode(char *out, size_t size, size_t *out_len, const char *text, size_t len)
{
	size_t written = 0;

	for (size_t at = 0; at < len; at++) {
		char c = text[at];

		if (written == size)
			return false;
		if (c == '%') {
			int high = len - at > 2 ? hex_digit(text[at + 1]) : -1;
			int low = len - at > 2 ? hex_digit(text[at + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = (char)(high << 4 | low);
			at += 2;
		}
		out[written++] = c;
	}
	*out_len = written;
	return true;
}

void percent_encode(struct buf *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c != 0 && c < 0x80 && (isalnum(c) || strchr("-._~", c) != NULL))
			buf_append_char(out, (char)c);
		else
			buf_printf(out, "%%%02X", c);
	}
}
