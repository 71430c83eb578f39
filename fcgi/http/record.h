/*
 * record.h - looks at FastCGI records without consuming them (FastCGI specification 1.0, sections 3 to 5).
 *
 * Tells whether a whole request lies in a buffer, and refuses what a web server's responder request never holds, so
 * that libfcgi is only ever given complete and well-formed input. Padding behind BEGIN_REQUEST and in the empty record that ends the
 * parameters is well-formed, but refused, too: libfcgi takes such bytes for the records that follow. No web server sends any.
 * Pure: no socket, no state but the caller's.
 */
#ifndef HTTP_RECORD_H
#define HTTP_RECORD_H

#include <stdbool.h>
#include <stddef.h>

enum record_verdict {
	RECORD_MORE,     /* good so far, but not all there */
	RECORD_COMPLETE, /* parameters and body are all there */
	RECORD_BAD       /* not a responder request; scan->why says what is wrong */
};

struct record_scan {
	bool head_complete; /* the parameters are all there */
	bool complete;      /* the body, too */
	bool keep_conn;     /* FCGI_KEEP_CONN was set */
	/* Up to the end of the parameters, once they are all there; else all of the bytes. */
	size_t head_bytes;
	size_t pairs; /* names and values among them */
	/* COMPLETE: the request's length. MORE: with fewer bytes than this the verdict will be the same. */
	size_t bytes;
	const char *why; /* a constant English text; RECORD_BAD only */
	/* Where to go on when there are more bytes: a long body is looked at once. Its own business. */
	size_t at;
	unsigned id;
};

/*
 * Scans the `len` bytes that a connection has brought for its next request. `scan` is zeroed for a new request, and left
 * alone while more of its bytes come in behind those that were there.
 */
enum record_verdict record_scan(struct record_scan *scan, const char *bytes, size_t len);

#endif
