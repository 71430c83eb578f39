/*
 * strict.c - see strict.h.
 */
#include "base/strict.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

static size_t digits(const char *p, size_t len)
{
	size_t n = 0;

	while (n < len && isdigit((unsigned char)p[n]))
		n++;
	return n;
}

/* RFC 8259, section 6: [ minus ] int [ frac ] [ exp ] */
static bool is_number(const char *p, size_t len)
{
	size_t at = len > 0 && p[0] == '-', run = digits(p + at, len - at);

	if (run == 0 || (run > 1 && p[at] == '0'))
		return false;
	at += run;
	if (at < len && p[at] == '.') {
		run = digits(p + at + 1, len - at - 1);
		if (run == 0)
			return false;
		at += 1 + run;
	}
	if (at < len && (p[at] == 'e' || p[at] == 'E')) {
		at++;
		at += at < len && (p[at] == '+' || p[at] == '-');
		run = digits(p + at, len - at);
		if (run == 0)
			return false;
		at += run;
	}
	return at == len;
}

static bool is_word(const char *p, size_t len, const char *word)
{
	return len == strlen(word) && memcmp(p, word, len) == 0;
}

static bool is_literal(const char *p, size_t len)
{
	return is_word(p, len, "true") || is_word(p, len, "false") || is_word(p, len, "null") ||
	       is_number(p, len);
}

/* What literals are made of, and what is mistaken for one. */
static bool is_literal_byte(char c)
{
	return isalnum((unsigned char)c) || c == '+' || c == '-' || c == '.';
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether none of eight bytes is a quote, a backslash or a control character: most text is like that. */
static bool eight_plain(const char *p)
{
	uint64_t word, quote, backslash;

	memcpy(&word, p, sizeof word);
	quote = word ^ EACH('"');
	backslash = word ^ EACH('\\');
	/* Each term has the top bit of a byte set that is what it looks for, and maybe of one behind such a byte. */
	return ((((word - EACH(0x20)) & ~word) | ((quote - EACH(1)) & ~quote) |
		 ((backslash - EACH(1)) & ~backslash)) &
		EACH(0x80)) == 0;
}

/*
 * Length of the string that begins at `p` with a quote, up to a raw control character (*bad) or its other quote. *nul: it
 * holds \u0000.
 */
static size_t string_len(const char *p, size_t len, bool *bad, bool *nul)
{
	size_t at = 1;

	while (at < len && p[at] != '"') {
		if (len - at >= 8 && eight_plain(p + at)) {
			at += 8;
			continue;
		}
		if ((unsigned char)p[at] < 0x20) {
			*bad = true;
			return at;
		}
		if (p[at] == '\\' && len - at >= 6 && memcmp(p + at + 1, "u0000", 5) == 0)
			*nul = true;
		at += p[at] == '\\' ? 2 : 1;
	}
	return at < len ? at + 1 : len;
}

struct strict_scan strict_json(const char *text, size_t len)
{
	struct strict_scan scan = { .bad = len };
	bool nul = false; /* in the last string */
	size_t step;

	for (size_t at = 0; at < len; at += step) {
		bool bad = false;

		step = 1;
		if (text[at] == '"') {
			nul = false;
			step = string_len(text + at, len - at, &bad, &nul);
		} else if (is_literal_byte(text[at])) {
			while (at + step < len && is_literal_byte(text[at + step]))
				step++;
			bad = !is_literal(text + at, step);
			if (bad)
				step = 0;
		} else if (memchr(",:[{", text[at], 4) != NULL) {
			scan.values++;
			scan.nul_in_name = scan.nul_in_name || (nul && text[at] == ':');
			nul = false;
		}
		if (bad) {
			scan.bad = at + step;
			break;
		}
	}
	return scan;
}
