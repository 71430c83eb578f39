/*
 * record.c - see record.h.
 */
#include "http/record.h"

#include <stdint.h>

enum { HEADER_LEN = 8, BEGIN_LEN = 8 };
enum { TYPE_BEGIN = 1, TYPE_PARAMS = 4, TYPE_STDIN = 5 };
enum { ROLE_RESPONDER = 1, FLAG_KEEP_CONN = 1 };

struct record {
	unsigned type, id;
	const unsigned char *content;
	size_t content_len; /* as announced */
	size_t total_len;   /* with header and padding */
};

/*
 * Where the scan of the name-value pairs stands. A pair may be spread over records, so its lengths are collected
 * byte by byte and its text is only counted.
 */
struct pairs {
	unsigned char lengths[8];
	unsigned have; /* bytes in `lengths` */
	uint64_t skip; /* bytes of name and value still to come */
};

static bool read_record(struct record *record, const unsigned char *p, size_t left)
{
	if (left < HEADER_LEN)
		return false;
	record->type = p[1];
	record->id = (unsigned)p[2] << 8 | p[3];
	record->content = p + HEADER_LEN;
	record->content_len = (size_t)p[4] << 8 | p[5];
	record->total_len = HEADER_LEN + record->content_len + p[6];
	return true;
}

static unsigned length_bytes(unsigned char first)
{
	return first & 0x80 ? 4 : 1;
}

static uint64_t length_value(const unsigned char *p)
{
	if (!(p[0] & 0x80))
		return p[0];
	return (uint64_t)(p[0] & 0x7F) << 24 | (uint64_t)p[1] << 16 | (uint64_t)p[2] << 8 | p[3];
}

/* Takes one byte of the two lengths; true once both are known. */
static bool lengths_known(struct pairs *pairs, unsigned char byte)
{
	unsigned name_bytes;

	pairs->lengths[pairs->have++] = byte;
	name_bytes = length_bytes(pairs->lengths[0]);
	return pairs->have > name_bytes &&
	       pairs->have == name_bytes + length_bytes(pairs->lengths[name_bytes]);
}

/* Returns how many pairs begin there. */
static size_t scan_pairs(struct pairs *pairs, const unsigned char *p, size_t len)
{
	size_t begun = 0;

	while (len > 0) {
		if (pairs->skip > 0) {
			size_t step = pairs->skip < len ? (size_t)pairs->skip : len;

			pairs->skip -= step;
			p += step;
			len -= step;
			continue;
		}
		if (lengths_known(pairs, *p)) {
			pairs->skip = length_value(pairs->lengths) +
				      length_value(pairs->lengths + length_bytes(pairs->lengths[0]));
			pairs->have = 0;
			begun++;
		}
		p++;
		len--;
	}
	return begun;
}

static enum record_verdict bad(struct record_scan *scan, const char *why)
{
	scan->why = why;
	return RECORD_BAD;
}

static enum record_verdict scan_begin(struct record_scan *scan, const struct record *record)
{
	const unsigned char *body = record->content;

	if (record->type != TYPE_BEGIN || record->id == 0 || record->content_len != BEGIN_LEN)
		return bad(scan, "no BEGIN_REQUEST first");
	if (((unsigned)body[0] << 8 | body[1]) != ROLE_RESPONDER)
		return bad(scan, "a role that is not responder");
	scan->keep_conn = body[2] & FLAG_KEEP_CONN;
	return RECORD_MORE;
}

/* NOLINTNEXTLINE(readability-function-cognitive-complexity): in which order records may come is told in one place */
enum record_verdict record_scan(struct record_scan *scan, const char *bytes, size_t len)
{
	const unsigned char *p = (const unsigned char *)bytes;
	struct pairs pairs = { .have = 0 };
	struct record record;
	unsigned id = scan->head_complete ? scan->id : 0;
	size_t at = scan->head_complete ? scan->at : 0;

	/* The parameters are few: as long as they are not complete, it begins anew. */
	if (!scan->head_complete)
		*scan = (struct record_scan){ .head_bytes = len };
	scan->why = "";
	for (; at < len; at += record.total_len) {
		scan->at = at;
		if (p[at] != 1)
			return bad(scan, "a version that is not 1");
		scan->bytes = at + HEADER_LEN;
		if (!read_record(&record, p + at, len - at))
			return RECORD_MORE;
		if (id == 0 && record.type != TYPE_BEGIN)
			return bad(scan, "no BEGIN_REQUEST first");
		if (id != 0 && record.id != id)
			return bad(scan, "a second request id on one connection");
		if (id != 0 && record.type != (scan->head_complete ? TYPE_STDIN : TYPE_PARAMS))
			return bad(scan, "a record that is out of order");
		if (!scan->head_complete && (id == 0 || record.content_len == 0) &&
		    record.total_len > HEADER_LEN + record.content_len)
			return bad(scan, "padding that libfcgi takes for records");
		scan->bytes = at + record.total_len;
		if (record.total_len > len - at)
			return RECORD_MORE;
		if (id == 0) {
			if (scan_begin(scan, &record) == RECORD_BAD)
				return RECORD_BAD;
			id = record.id;
		} else if (!scan->head_complete && record.content_len > 0) {
			scan->pairs += scan_pairs(&pairs, record.content, record.content_len);
		} else if (!scan->head_complete) {
			if (pairs.skip > 0 || pairs.have > 0)
				return bad(scan, "a parameter that is cut off");
			scan->head_complete = true;
			scan->id = id;
			scan->head_bytes = at + record.total_len;
		} else if (record.content_len == 0) {
			scan->complete = true;
			return RECORD_COMPLETE;
		}
	}
	scan->at = at;
	return RECORD_MORE;
}
