/*
 * fastcgi_bytes.h - a FastCGI request as nginx writes it, built by hand: libfcgi has no part in it.
 */
#ifndef FASTCGI_BYTES_H
#define FASTCGI_BYTES_H

#include "base/buf.h"

enum { FCGI_BEGIN = 1, FCGI_ABORT = 2, FCGI_PARAMS = 4, FCGI_STDIN = 5 };

static inline void put_record(struct buf *out, unsigned type, unsigned id, const void *content, size_t len,
			      unsigned padding)
{
	const unsigned char header[8] = { 1,
					  (unsigned char)type,
					  (unsigned char)(id >> 8),
					  (unsigned char)id,
					  (unsigned char)(len >> 8),
					  (unsigned char)len,
					  (unsigned char)padding,
					  0 };

	buf_append(out, header, sizeof header);
	buf_append(out, content, len);
	while (padding-- > 0)
		buf_append_char(out, '\0');
}

static inline void put_begin(struct buf *out, unsigned id, bool keep)
{
	const unsigned char body[8] = { 0, 1, keep, 0, 0, 0, 0, 0 };

	put_record(out, FCGI_BEGIN, id, body, sizeof body, 0);
}

static inline void put_length(struct buf *out, size_t len)
{
	if (len > 127) {
		buf_append_char(out, (char)(0x80 | len >> 24));
		buf_append_char(out, (char)(len >> 16));
		buf_append_char(out, (char)(len >> 8));
	}
	buf_append_char(out, (char)len);
}

static inline void put_pair(struct buf *out, const char *name, const char *value)
{
	put_length(out, strlen(name));
	put_length(out, strlen(value));
	buf_append_str(out, name);
	buf_append_str(out, value);
}

/* A stream in records of at most `piece` bytes, padded to a multiple of eight as nginx does, and its end. */
static inline void put_stream(struct buf *out, unsigned type, unsigned id, const char *bytes, size_t len,
			      size_t piece)
{
	for (size_t at = 0; at < len; at += piece) {
		size_t step = len - at < piece ? len - at : piece;

		put_record(out, type, id, bytes + at, step, (unsigned)(-step & 7));
	}
	put_record(out, type, id, NULL, 0, 0);
}

#endif
