/*
 * response.h - answers: whole JSON documents, errors, and event streams.
 *
 * "Ends the request" means: the request is logged and freed, and the caller must not touch it again.
 */
#ifndef HTTP_RESPONSE_H
#define HTTP_RESPONSE_H

#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"
#include "http/request.h"
#include "http/shape.h"

/* {"detail": …}: every error, also nginx' own. */
extern const struct shape error_shape;

/*
 * Answers with `values`, a struct that `shape` describes, as application/json; at most `max` bytes. `session_id` (or NULL)
 * becomes X-Session-ID. Ends the request. Out of memory, or beyond `max`, it is a 503.
 */
void response_shape(struct request *request, int status, const char *session_id, const struct shape *shape,
		    const void *values, size_t max);

/*
 * Answers with `body` as application/json. `session_id` (or NULL) becomes X-Session-ID. Ends the request. `body` stays
 * the caller's. A body that failed to grow becomes a 503.
 */
void response_json(struct request *request, int status, const char *session_id, const struct buf *body);

/* As response_json(), with another media type. */
void response_body(struct request *request, int status, const char *type, const struct buf *body);

/* Answers {"detail": …} with the error's status, Retry-After where it has one, and logs its cause. Ends the request. */
void response_error(struct request *request, const struct error *error);

/* As response_error() for a 405; `allow` lists the methods that exist. */
void response_method_error(struct request *request, const struct error *error, const char *allow);

/* Begins a text/event-stream answer: status 200 and its headers leave at once. */
enum err response_stream_open(struct request *request, const char *session_id);

/* Sends `len` bytes of event stream, whole events only. */
enum err response_stream_send(struct request *request, const char *bytes, size_t len);

/* Whether response_stream_end() could send `len` bytes now. False: there is no memory for them; ask again later. */
bool response_stream_may_end(struct request *request, size_t len);

/* Sends the last bytes and ends the request, also when they cannot be sent (the client then sees a cut stream). */
void response_stream_end(struct request *request, const char *bytes, size_t len);

/* Cuts an answer that cannot be completed, so that nobody takes it for a whole one. Ends the request. */
void response_abort(struct request *request);

/* Bytes of answer that wait for the client. */
size_t response_backlog(const struct request *request);

#endif
