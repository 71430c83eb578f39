/*
 * refusal.h - whether a peer has promised that it did not look at a request.
 *
 * A server closes an HTTP/2 connection after so many requests with a GOAWAY that names the last stream it will serve; requests
 * that were on their way behind it were not looked at (RFC 9113, sections 6.8 and 8.7) and may be sent again, also a POST.
 * libcurl knows, but tells it only in the words of its debug output; these are read here. Words that are not understood,
 * such as another version's, count as no promise: then a request is rather lost than doubled.
 * Pure: no I/O, no libcurl.
 */
#ifndef COZE_REFUSAL_H
#define COZE_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>

#define REFUSAL_GOAWAYS 16 /* connections that may be going away at the same time */

/* Of all calls: which connections go away, and up to which stream they serve. */
struct refusals {
	struct {
		long connection, last_stream;
	} goaways[REFUSAL_GOAWAYS];
	unsigned next;
};

/* Of one call: where it was sent last. */
struct sending {
	long connection; /* libcurl's number, from 0; -1 for none */
	long stream;     /* 0 for none, or not HTTP/2 */
	bool refused;    /* by RST_STREAM with REFUSED_STREAM */
};

void refusals_init(struct refusals *refusals);
void sending_init(struct sending *sending);

/* libcurl has said a line while working for the call of `sending`. */
void refusal_hear(struct refusals *refusals, struct sending *sending, const char *text, size_t len);

/* Whether what was sent last was surely not looked at. */
bool refusal_promised(const struct refusals *refusals, const struct sending *sending);

#endif
