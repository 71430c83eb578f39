/*
 * json.c - see json.h.
 */
#include "base/json.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/digits.h"
#include "base/utf8.h"

/* Bytes that need a look: controls, the quote, the backslash, and the lead bytes of U+0085 and U+2028/2029. */
static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c != '"' && c != '\\' && c != 0xC2 && c != 0xE2;
}

/*
 * Describes the character at `p`: how many bytes it takes, and its escaped form in `escape` (empty: as it is).
 */
static size_t escape_at(const unsigned char *p, size_t left, char escape[8])
{
	static const char letters[0x20] = {
		['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'
	};

	escape[0] = '\0';
	if (p[0] == '"' || p[0] == '\\') {
		snprintf(escape, 8, "\\%c", p[0]);
	} else if (p[0] < 0x20 && letters[p[0]] != 0) {
		snprintf(escape, 8, "\\%c", letters[p[0]]);
	} else if (p[0] < 0x20) {
		snprintf(escape, 8, "\\u%04x", p[0]);
	} else if (left >= 2 && p[0] == 0xC2 && p[1] == 0x85) {
		snprintf(escape, 8, "\\u0085");
		return 2;
	} else if (left >= 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9)) {
		snprintf(escape, 8, "\\u20%02x", p[2] - 0x80);
		return 3;
	}
	return 1;
}

static size_t plain_run(const unsigned char *p, size_t len)
{
	size_t n = 0;

	while (n < len && is_plain(p[n]))
		n++;
	return n;
}

void json_string(struct buf *out, const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;

	buf_append_char(out, '"');
	while (len > 0) {
		size_t run = plain_run(p, len);
		char escape[8];

		buf_append(out, p, run);
		p += run;
		len -= run;
		if (len == 0)
			break;
		run = escape_at(p, len, escape);
		if (escape[0] != '\0')
			buf_append_str(out, escape);
		else
			buf_append(out, p, run);
		p += run;
		len -= run;
	}
	buf_append_char(out, '"');
}

void json_cstring(struct buf *out, const char *text)
{
	if (text == NULL)
		buf_append_str(out, "null");
	else
		json_string(out, text, strlen(text));
}

void json_item(struct buf *out)
{
	const char *end = buf_bytes(out) + buf_size(out);

	if (buf_size(out) > 0 && end[-1] != '{' && end[-1] != '[')
		buf_append_char(out, ',');
}

void json_name(struct buf *out, const char *name)
{
	json_item(out);
	buf_append_char(out, '"');
	buf_append_str(out, name);
	buf_append(out, "\":", 2);
}

void json_member(struct buf *out, const char *name, const char *text)
{
	json_name(out, name);
	json_cstring(out, text);
}

void json_member_number(struct buf *out, const char *name, uint64_t number)
{
	char digits[DIGITS_SIZE];

	json_name(out, name);
	buf_append(out, digits, digits_write(digits, number));
}

/* Length of the character at `p`, without reading past `len`; invalid bytes count as one. */
static size_t character_len(const char *p, size_t len)
{
	size_t n = 1;

	while (n < len && ((unsigned char)p[n] & 0xC0) == 0x80)
		n++;
	return n;
}

size_t json_fitting(const char *text, size_t len, size_t max)
{
	size_t at = 0, written = 0;

	while (at < len) {
		size_t bytes = character_len(text + at, len - at);
		size_t cost = bytes;
		char escape[8];

		if (!is_plain((unsigned char)text[at])) {
			escape_at((const unsigned char *)text + at, len - at, escape);
			if (escape[0] != '\0')
				cost = strlen(escape);
		}
		if (written + cost > max && at > 0)
			break;
		written += cost;
		at += bytes;
	}
	return at;
}
