/*
 * sse.h - a pushed parser of event streams, by the WHATWG standard ("Server-sent events", parsing an event stream).
 *
 * Accepts any split of the input, LF, CRLF and CR, comments, unknown fields, several data lines, a BOM, one optional
 * space after the colon. Two departures, both for Coze (coze-api section 3.1): an event that has a name but empty data is
 * delivered, and so is one that the end of the stream leaves without its blank line.
 */
#ifndef COZE_SSE_H
#define COZE_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

/* A complete event; both texts are lent until the call returns. False stops the parser. */
typedef bool (*sse_event_fn)(void *arg, const char *name, const char *data, size_t len);

struct sse {
	sse_event_fn on_event;
	void *arg;
	struct buf line; /* the beginning of a line whose end has not come */
	struct buf data; /* the event's data lines so far */
	const char *
	    lent; /* within sse_feed(): its only data line so far, which is in the input and not in `data`; or NULL */
	size_t lent_len;
	char name[64]; /* the event's name; longer ones are cut: nobody knows them anyway */
	bool has_name, has_data;
	bool after_cr; /* an LF now belongs to the CR before */
	bool begun;    /* the first line was seen: no BOM any more */
	bool stopped;
};

/* max: bytes of one line and of one event's data. */
void sse_init(struct sse *sse, size_t max, sse_event_fn on_event, void *arg);
void sse_fini(struct sse *sse);

/* ERR_OK, also once stopped; ERR_ANSWER_TOO_BIG, ERR_NOMEM: the parser is of no more use. */
enum err sse_feed(struct sse *sse, const char *bytes, size_t len);

/* The stream has ended: delivers what is pending. */
enum err sse_finish(struct sse *sse);

#endif
