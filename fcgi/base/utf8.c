/*
 * utf8.c - checks and cuts UTF-8 text.
 */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

static bool is_tail(unsigned char byte)
{
	return (byte & 0xC0) == 0x80;
}

/*
 * Length of the valid character at `p` (of `left` bytes), or 0. The second byte's range depends on the
 * first: that is what excludes overlong forms, surrogates and code points that do not exist.
 */
static size_t character(const unsigned char *p, size_t left)
{
	unsigned char low = 0x80, high = 0xBF;
	size_t len;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xC2)
		return 0;
	if (p[0] < 0xE0) {
		len = 2;
	} else if (p[0] < 0xF0) {
		len = 3;
		if (p[0] == 0xE0)
			low = 0xA0;
		if (p[0] == 0xED)
			high = 0x9F;
	} else if (p[0] < 0xF5) {
		len = 4;
		if (p[0] == 0xF0)
			low = 0x90;
		if (p[0] == 0xF4)
			high = 0x8F;
	} else {
		return 0;
	}
	if (left < len || p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++)
		if (!is_tail(p[i]))
			return 0;
	return len;
}

/* True when eight bytes are all ASCII: most of JSON is. */
static bool eight_ascii(const unsigned char *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof word);
	return (word & UINT64_C(0x8080808080808080)) == 0;
}

size_t utf8_valid_prefix(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t at = 0;

	while (at < len) {
		size_t step;

		if (len - at >= 8 && eight_ascii(p + at)) {
			at += 8;
			continue;
		}
		step = character(p + at, len - at);
		if (step == 0)
			break;
		at += step;
	}
	return at;
}

bool utf8_valid(const char *text, size_t len)
{
	return utf8_valid_prefix(text, len) == len;
}

void utf8_repair(struct buf *out, const char *text, size_t len)
{
	while (len > 0) {
		size_t good = utf8_valid_prefix(text, len);

		buf_append(out, text, good);
		text += good;
		len -= good;
		if (len > 0) {
			buf_append_str(out, "\xEF\xBF\xBD");
			text++;
			len--;
		}
	}
}

size_t utf8_cut(const char *text, size_t len, size_t at)
{
	if (at >= len)
		return len;
	while (at > 0 && is_tail((unsigned char)text[at]))
		at--;
	return at;
}
