/*
 * plain.h - rules of the service once more, written down plainly: what several targets hold the real ones against.
 */
#ifndef PLAIN_H
#define PLAIN_H

#include "fuzz.h"

static inline int plain_hex(unsigned char c)
{
	static const char digits[] = "0123456789abcdef0123456789ABCDEF";
	const char *at = c != '\0' ? strchr(digits, c) : NULL;

	return at != NULL ? (int)(at - digits) % 16 : -1;
}

/* Appends the percent-decoded text; false on a broken escape. */
static inline bool plain_decode(struct buf *out, struct input text)
{
	while (text.left > 0) {
		unsigned c = input_byte(&text);

		if (c == '%') {
			int high = text.left > 1 ? plain_hex((unsigned char)text.at[0]) : -1;
			int low = text.left > 1 ? plain_hex((unsigned char)text.at[1]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = (unsigned)(high * 16 + low);
			text.at += 2;
			text.left -= 2;
		}
		buf_append_char(out, (char)c);
	}
	return true;
}

/* The code point at `p` by the book, shortest form or not; its length, or 0 when the bytes do not fit together. */
static inline size_t plain_code_point(const unsigned char *p, size_t left, uint32_t *point)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;

	if (len == 0 || len > left)
		return 0;
	*point = len == 1 ? p[0] : p[0] & (0x7Fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		*point = *point << 6 | (p[i] & 0x3F);
	}
	return len;
}

/* The bytes of whole UTF-8 characters that the text begins with. */
static inline size_t plain_utf8(const void *text, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = text;
	size_t at = 0;

	while (at < len) {
		uint32_t point = 0;
		size_t step = plain_code_point(p + at, len - at, &point);

		if (step == 0 || point < least[step] || point > 0x10FFFF ||
		    (point >= 0xD800 && point < 0xE000))
			break;
		at += step;
	}
	return at;
}

/* 1 to 128 bytes of UTF-8 without control characters. */
static inline bool plain_id(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;

	if (len == 0 || len > 128 || plain_utf8(text, len) != len)
		return false;
	for (size_t at = 0; at < len;) {
		uint32_t point = 0;

		at += plain_code_point(p + at, len - at, &point);
		if (point < 0x20 || (point >= 0x7F && point < 0xA0))
			return false;
	}
	return true;
}

/* No byte at which a client that cuts the stream into lines would tear it. */
static inline void check_one_line(const struct buf *json)
{
	const char *p = buf_bytes(json);
	size_t size = buf_size(json);

	CHECK(!json->failed && plain_utf8(p, size) == size);
	for (size_t i = 0; i < size; i++)
		CHECK((unsigned char)p[i] >= 0x20);
	CHECK(memmem(p, size, "\xC2\x85", 2) == NULL);
	CHECK(memmem(p, size, "\xE2\x80\xA8", 3) == NULL && memmem(p, size, "\xE2\x80\xA9", 3) == NULL);
}

#endif
