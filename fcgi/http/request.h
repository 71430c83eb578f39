/*
 * request.h - one HTTP request as handlers see it, from its arrival to its line in the log.
 *
 * Flow: fcgi.c hands over a FastCGI request; request.c finds out method, path and id, lets router.c find the handler,
 * and writes the closing log line; response.c carries the answer back.
 * A handler owns the request until it has answered (any response_*() that says so) or its on_leave was called.
 */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/id.h"
#include "base/log.h"
#include "http/fcgi.h"

struct route;
struct router;

#define REQUEST_NOTES 16

struct request {
	struct fcgi_request *fcgi;
	const struct router *router;
	const struct route *route; /* NULL until matched */
	const char *id;            /* X-Request-ID; nginx has checked it; lent */
	const char *method;        /* lent */
	const char *path;          /* as the client sent it, still percent-encoded; lent, `path_len` bytes */
	size_t path_len;
	const char *query;        /* behind the question mark, or ""; lent */
	char path_id[ID_MAX + 1]; /* the decoded {…} of the route's path, or "" */

	/* The client has left: answer nothing any more. The request is freed when this returns. */
	void (*on_leave)(void *arg);
	/* The client has read what was waiting: go on writing. */
	void (*on_drain)(void *arg);
	void *arg;

	/* For the log line. */
	uint64_t started_ns;
	uint64_t first_byte_ns; /* 0 until an answer began */
	uint64_t bytes;         /* of answer body */
	int status;             /* 0 until an answer began */
	const char *doing;      /* what the handler waits for; a constant */
	bool failed;            /* then the line says what it was doing */
	struct log_field notes[REQUEST_NOTES];
	unsigned note_count;
};

/*
 * Takes a FastCGI request over and routes it; `router` must outlive it. The handler may have answered already when
 * this returns.
 */
void request_begin(struct fcgi_request *fcgi, const struct router *router);

/* Says whom to tell, see above. */
void request_watch(struct request *request, void (*on_leave)(void *arg), void (*on_drain)(void *arg),
		   void *arg);

/* Adds a field to the log line. Texts are lent and must live until the answer is complete. */
void request_note(struct request *request, struct log_field field);

/* Notes why the request failed; the line then also says what it was doing. `error` must live as long as notes do. */
void request_fail(struct request *request, const struct error *error);

/*
 * The value of query parameter `name`, percent-decoded into `out`. False when it is absent, and with *present set when it
 * is there twice, too long, badly escaped or holds a NUL.
 */
bool request_query(const struct request *request, const char *name, char *out, size_t size, bool *present);

/* Logs and frees; for response.c, which calls it once the answer is complete. */
void request_finish(struct request *request);

#endif
