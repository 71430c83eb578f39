/*
 * buf.c - see buf.h.
 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *buf, size_t max)
{
	*buf = (struct buf){ .max = max };
}

void buf_init_in(struct buf *buf, char *room, size_t size)
{
	*buf = (struct buf){ .base = room, .cap = size, .max = size, .lent = true };
}

void buf_free(struct buf *buf)
{
	if (buf->lent) {
		buf_init_in(buf, buf->base, buf->max);
		return;
	}
	free(buf->base);
	buf_init(buf, buf->max);
}

void buf_reset(struct buf *buf, size_t keep)
{
	if (buf->cap > keep) {
		buf_free(buf);
		return;
	}
	buf->start = buf->len = 0;
	buf_forgive(buf);
}

void buf_forgive(struct buf *buf)
{
	buf->failed = buf->starved = false;
}

/* Makes room for `more` bytes at the end; false (and failed) when that is not possible. */
static bool reserve(struct buf *buf, size_t more)
{
	size_t size = buf_size(buf);
	size_t cap;
	char *base;

	if (buf->failed)
		return false;
	if (more > buf->max - size) {
		buf->failed = true;
		return false;
	}
	if (buf->cap - buf->len >= more)
		return true;
	if (buf->start > 0) {
		memmove(buf->base, buf->base + buf->start, size);
		buf->start = 0;
		buf->len = size;
		/* Sliding is enough only if it leaves real room: else we would slide at every append. */
		if (buf->lent || (buf->cap - size >= more && size <= buf->cap / 2))
			return true;
	}
	cap = buf->cap < 128 ? 128 : buf->cap * 2;
	while (cap - size < more)
		cap *= 2;
	if (cap > buf->max)
		cap = buf->max;
	base = realloc(buf->base, cap);
	if (base == NULL) {
		buf->failed = buf->starved = true;
		return false;
	}
	buf->base = base;
	buf->cap = cap;
	return true;
}

char *buf_room(struct buf *buf, size_t len)
{
	return reserve(buf, len) ? buf->base + buf->len : NULL;
}

void buf_claim(struct buf *buf, size_t len)
{
	buf->len += len;
}

void buf_append(struct buf *buf, const void *bytes, size_t len)
{
	if (len == 0 || !reserve(buf, len))
		return;
	memcpy(buf->base + buf->len, bytes, len);
	buf->len += len;
}

void buf_append_str(struct buf *buf, const char *text)
{
	buf_append(buf, text, strlen(text));
}

void buf_append_char(struct buf *buf, char c)
{
	buf_append(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	char small[256];
	char *large;
	int len;

	va_start(args, format);
	len = vsnprintf(small, sizeof small, format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len < sizeof small) {
		buf_append(buf, small, (size_t)len);
		return;
	}
	/* Not vasprintf(): without memory glibc 2.36 writes behind what it has got. */
	large = malloc((size_t)len + 1);
	if (large == NULL) {
		buf->failed = buf->starved = true;
		return;
	}
	va_start(args, format);
	vsnprintf(large, (size_t)len + 1, format, args);
	va_end(args);
	buf_append(buf, large, (size_t)len);
	free(large);
}

void buf_consume(struct buf *buf, size_t len)
{
	buf->start += len;
	if (buf->start == buf->len)
		buf->start = buf->len = 0;
}

void buf_truncate(struct buf *buf, size_t size)
{
	if (size < buf_size(buf))
		buf->len = buf->start + size;
}
