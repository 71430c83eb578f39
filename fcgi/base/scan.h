/*
 * scan.h - one strict pass over the members of a JSON object, without building it (RFC 8259).
 *
 * Coze sends a small flat object for every few characters of an answer. Building each with json-c took nearly half of a
 * worker's time; of them all only some texts are wanted. So this reads what is plain, and says of anything else "not me":
 * the caller then asks json-c, which knows how to be lenient. What it reads, it reads as json-c does (tests/fuzz holds
 * the two against each other).
 *
 * Input: valid UTF-8, checked by the caller. Slices point into it.
 */
#ifndef BASE_SCAN_H
#define BASE_SCAN_H

#include <stdbool.h>
#include <stddef.h>

enum scan_kind {
	SCAN_STRING, /* value: what is between the quotes, as it was written */
	SCAN_INTEGER,
	SCAN_OBJECT, /* value: with its braces; correct JSON */
	SCAN_OTHER   /* null, true, false, other numbers, arrays; value: as it was written */
};

struct scan_slice {
	const char *bytes;
	size_t len;
};

struct scan_member {
	struct scan_slice name, value;
	enum scan_kind kind;
	bool escaped; /* SCAN_STRING: it has backslashes, see scan_unescape() */
};

struct scan {
	const char *at, *end;
	bool begun, done, bad;
};

/* Begins with the object that `json` must be, from its brace on. */
void scan_begin(struct scan *scan, const char *json, size_t len);

/* The next member, in the order of their coming; names may repeat. False at the end, and when there is anything odd. */
bool scan_next(struct scan *scan, struct scan_member *member);

/* After scan_next() was false: whether the whole input was read, and was one correct object. */
bool scan_complete(const struct scan *scan);

/*
 * Writes the text of an escaped string to `out`, which has room for value->len bytes (it never gets longer). Returns its
 * length, or -1 for what json-c must decide: lone surrogates and U+0000.
 */
long scan_unescape(char *out, const struct scan_slice *value);

#endif
