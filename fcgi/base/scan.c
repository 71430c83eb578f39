/*
 * scan.c - see scan.h.
 */
#include "base/scan.h"

#include <stdint.h>
#include <string.h>

#define DEPTH_MAX    16 /* of nested objects and arrays; json-c takes twice as many */
#define INTEGER_MAX  18 /* digits that fit an int64_t, whatever they are */
#define SURROGATE_1  0xD800
#define SURROGATE_2  0xDC00
#define SURROGATES_0 0xE000 /* the first code point behind them */

static bool skip_value(struct scan *scan, struct scan_member *member, unsigned depth);

void scan_begin(struct scan *scan, const char *json, size_t len)
{
	*scan = (struct scan){ .at = json, .end = json + len };
}

static void skip_space(struct scan *scan)
{
	while (scan->at < scan->end &&
	       (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t'))
		scan->at++;
}

static bool skip_char(struct scan *scan, char c)
{
	if (scan->at == scan->end || *scan->at != c)
		return false;
	scan->at++;
	return true;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static size_t skip_digits(struct scan *scan)
{
	const char *from = scan->at;

	while (scan->at < scan->end && is_digit(*scan->at))
		scan->at++;
	return (size_t)(scan->at - from);
}

/* ---- strings ---- */

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits at `p`, or -1. */
static long hex4(const char *p, const char *end)
{
	long code = 0;

	if (end - p < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code;
}

static bool skip_escape(struct scan *scan)
{
	char c = '\0';

	if (++scan->at < scan->end)
		c = *scan->at++;
	if (c == 'u') {
		if (hex4(scan->at, scan->end) < 0)
			return false;
		scan->at += 4;
		return true;
	}
	return c != '\0' && strchr("\"\\/bfnrt", c) != NULL;
}

static bool is_stop(char c)
{
	return c == '"' || c == '\\' || (unsigned char)c < 0x20;
}

/* The first quote, backslash or control character at or behind `p`, or `end`. */
static const char *find_stop(const char *p, const char *end)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	/* Eight bytes at a time: each term sets the high bit of a byte below a bound, and the lowest that is set is true. */
	const uint64_t ones = UINT64_C(0x0101010101010101), highs = UINT64_C(0x8080808080808080);

	for (; end - p >= 8; p += 8) {
		uint64_t word, stops;

		memcpy(&word, p, sizeof word);
		stops = (word - ones * 0x20) | ((word ^ ones * '"') - ones) | ((word ^ ones * '\\') - ones);
		stops &= ~word & highs;
		if (stops != 0)
			return p + __builtin_ctzll(stops) / 8;
	}
#endif
	while (p < end && !is_stop(*p))
		p++;
	return p;
}

/* From behind the opening quote to behind the closing one. */
static bool skip_string(struct scan *scan, struct scan_slice *inside, bool *escaped)
{
	inside->bytes = scan->at;
	*escaped = false;
	for (;;) {
		scan->at = find_stop(scan->at, scan->end);
		if (scan->at == scan->end)
			return false;
		if (*scan->at == '"') {
			inside->len = (size_t)(scan->at++ - inside->bytes);
			return true;
		}
		*escaped = true;
		if (*scan->at != '\\' || !skip_escape(scan))
			return false;
	}
}

/* ---- numbers and words ---- */

static bool skip_number(struct scan *scan, struct scan_member *member)
{
	const char *from = scan->at;
	size_t digits;

	skip_char(scan, '-');
	digits = skip_char(scan, '0') ? 1 : skip_digits(scan);
	if (digits == 0)
		return false;
	member->kind = digits <= INTEGER_MAX ? SCAN_INTEGER : SCAN_OTHER;
	if (skip_char(scan, '.')) {
		member->kind = SCAN_OTHER;
		if (skip_digits(scan) == 0)
			return false;
	}
	if (skip_char(scan, 'e') || skip_char(scan, 'E')) {
		member->kind = SCAN_OTHER;
		if (!skip_char(scan, '+'))
			skip_char(scan, '-');
		if (skip_digits(scan) == 0)
			return false;
	}
	member->value = (struct scan_slice){ from, (size_t)(scan->at - from) };
	return true;
}

static bool skip_word(struct scan *scan, struct scan_member *member, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, word, len) != 0)
		return false;
	member->value = (struct scan_slice){ scan->at, len };
	scan->at += len;
	return true;
}

/* ---- nested values ---- */

/* NOLINTBEGIN(misc-no-recursion): no deeper than DEPTH_MAX */
/* From behind the opening bracket to behind the closing one. */
static bool skip_members(struct scan *scan, bool object, unsigned depth)
{
	char close = object ? '}' : ']';
	struct scan_member member;

	skip_space(scan);
	if (skip_char(scan, close))
		return true;
	do {
		skip_space(scan);
		if (object) {
			if (!skip_char(scan, '"') || !skip_string(scan, &member.name, &member.escaped))
				return false;
			skip_space(scan);
			if (!skip_char(scan, ':'))
				return false;
			skip_space(scan);
		}
		if (!skip_value(scan, &member, depth))
			return false;
		skip_space(scan);
	} while (skip_char(scan, ','));
	return skip_char(scan, close);
}

static bool skip_value(struct scan *scan, struct scan_member *member, unsigned depth)
{
	const char *from = scan->at;

	member->kind = SCAN_OTHER;
	if (scan->at == scan->end)
		return false;
	switch (*scan->at) {
	case '"':
		scan->at++;
		member->kind = SCAN_STRING;
		return skip_string(scan, &member->value, &member->escaped);
	case '{':
	case '[':
		if (depth == DEPTH_MAX)
			return false;
		scan->at++;
		if (!skip_members(scan, *from == '{', depth + 1))
			return false;
		member->kind = *from == '{' ? SCAN_OBJECT : SCAN_OTHER;
		member->value = (struct scan_slice){ from, (size_t)(scan->at - from) };
		return true;
	case 'n':
		return skip_word(scan, member, "null");
	case 't':
		return skip_word(scan, member, "true");
	case 'f':
		return skip_word(scan, member, "false");
	default:
		return skip_number(scan, member);
	}
}
/* NOLINTEND(misc-no-recursion) */

/* ---- members ---- */

/* The object's end: nothing but space may follow. */
static bool finish(struct scan *scan)
{
	skip_space(scan);
	if (scan->at == scan->end)
		scan->done = true;
	else
		scan->bad = true;
	return false;
}

bool scan_next(struct scan *scan, struct scan_member *member)
{
	bool first = !scan->begun;
	bool name_escaped;

	if (scan->done || scan->bad)
		return false;
	scan->begun = true;
	scan->bad = true; /* until proven otherwise */
	skip_space(scan);
	if (first && !skip_char(scan, '{'))
		return false;
	skip_space(scan);
	if (skip_char(scan, '}')) {
		scan->bad = false;
		return finish(scan);
	}
	if (!first && !skip_char(scan, ','))
		return false;
	skip_space(scan);
	if (!skip_char(scan, '"') || !skip_string(scan, &member->name, &name_escaped) || name_escaped)
		return false;
	skip_space(scan);
	if (!skip_char(scan, ':'))
		return false;
	skip_space(scan);
	scan->bad = !skip_value(scan, member, 1);
	return !scan->bad;
}

bool scan_complete(const struct scan *scan)
{
	return scan->done;
}

/* ---- escapes ---- */

static size_t put_utf8(char *out, uint32_t code)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xC0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xE0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3F));
		out[2] = (char)(0x80 | (code & 0x3F));
		return 3;
	}
	out[0] = (char)(0xF0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3F));
	out[2] = (char)(0x80 | (code >> 6 & 0x3F));
	out[3] = (char)(0x80 | (code & 0x3F));
	return 4;
}

/* The code point of the \u escape whose digits begin at *p, which moves behind it; -1 for U+0000 and lone surrogates. */
static long code_point(const char **p, const char *end)
{
	long code = hex4(*p, end), second;

	*p += 4;
	if (code <= 0 || (code >= SURROGATE_2 && code < SURROGATES_0))
		return -1;
	if (code < SURROGATE_1 || code >= SURROGATES_0)
		return code;
	if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return -1;
	second = hex4(*p + 2, end);
	if (second < SURROGATE_2 || second >= SURROGATES_0)
		return -1;
	*p += 6;
	return 0x10000 + ((code - SURROGATE_1) << 10) + (second - SURROGATE_2);
}

long scan_unescape(char *out, const struct scan_slice *value)
{
	static const char letters[128] = { ['b'] = '\b', ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r',
					   ['t'] = '\t', ['"'] = '"',  ['\\'] = '\\', ['/'] = '/' };
	const char *p = value->bytes, *end = p + value->len;
	char *to = out;

	while (p < end) {
		const char *slash = memchr(p, '\\', (size_t)(end - p));
		size_t run = (size_t)((slash != NULL ? slash : end) - p);

		memcpy(to, p, run);
		to += run;
		p += run;
		if (p == end)
			break;
		if (p[1] != 'u') {
			*to++ = letters[(unsigned char)p[1]];
			p += 2;
		} else {
			long code;

			p += 2;
			code = code_point(&p, end);
			if (code < 0)
				return -1;
			to += put_utf8(to, (uint32_t)code);
		}
	}
	return to - out;
}
