/*
 * strict.h - finds what json-c 0.16 takes for JSON although RFC 8259 does not.
 *
 * Its strict mode lets raw control characters in strings, NaN, Infinity and numbers such as 01, 1. and -.5 pass. This looks
 * at strings, words and numbers only: the structure is json-c's own to check, before or after. It also finds what json-c
 * reads wrongly: names with \u0000. Pure, allocates nothing.
 */
#ifndef BASE_STRICT_H
#define BASE_STRICT_H

#include <stdbool.h>
#include <stddef.h>

struct strict_scan {
	size_t bad; /* offset of the first byte of what is no JSON; the text's length when there is nothing */
	size_t values;    /* at least as many as json-c would allocate objects for */
	bool nul_in_name; /* JSON, but json-c cuts such a member's name short: it would be another one's */
};

struct strict_scan strict_json(const char *text, size_t len);

#endif
