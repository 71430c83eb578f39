/*
 * resp.c - see resp.h.
 */
#include "store/resp.h"

#include <string.h>

#include "base/digits.h"

static char *write_number(char *out, char type, size_t number)
{
	*out++ = type;
	out += digits_write(out, number);
	*out++ = '\r';
	*out++ = '\n';
	return out;
}

size_t resp_text_max(size_t len)
{
	return RESP_HEAD_MAX + len + 2;
}

char *resp_begin(char *out, size_t count)
{
	return write_number(out, '*', count);
}

char *resp_text(char *out, const char *bytes, size_t len)
{
	out = write_number(out, '$', len);
	memcpy(out, bytes, len);
	out[len] = '\r';
	out[len + 1] = '\n';
	return out + len + 2;
}
