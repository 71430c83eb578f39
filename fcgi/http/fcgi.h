/*
 * fcgi.h - FastCGI connections from nginx, driven by the event loop.
 *
 * Owns: the connections of one listening socket, and for each its current request. record.h finds out when a request is
 * whole, codec.h (with libfcgi) decodes it and encodes the answer; this module decides when, so that nothing ever waits.
 * Knows nothing of HTTP methods, routes or JSON: a request is a set of parameters and a body, an answer is bytes.
 *
 * Life of a request: `on_request` hands it out once its body is complete. From then on it belongs to the handler
 * until fcgi_end() or until `on_leave` was called; after either the handler must not touch it again.
 *
 * Requests beyond 64 KiB are decoded in libuv's thread pool, and only one of them at a time is read at all and has a body
 * (lane.h): free it early.
 */
#ifndef HTTP_FCGI_H
#define HTTP_FCGI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct fcgi_server;
struct fcgi_request;

/* A new request; its body has been read, unless fcgi_body_too_big() or fcgi_body_lost(). */
typedef void (*fcgi_request_fn)(struct fcgi_request *request, void *arg);

/* nginx closed the connection: the client has left. The request is gone when this returns. */
typedef void (*fcgi_leave_fn)(void *arg);

/* What was written has gone out, down to a quarter of FCGI_BACKLOG_HIGH: write on. */
typedef void (*fcgi_drain_fn)(void *arg);

/* Bytes waiting for the client at which a writer should pause. fcgi_write() still accepts more, up to output_max. */
#define FCGI_BACKLOG_HIGH (64 * 1024)

struct fcgi_limits {
	size_t body_max;          /* bytes of a request's body; larger ones are dropped and marked too big */
	size_t output_max;        /* bytes that may wait for one client */
	uint64_t head_timeout_ms; /* for a request's parameters and body to arrive, once it has begun */
};

/*
 * Serves `listen_fd` (borrowed, listening, made non-blocking here) on `loop`. `on_request` is never called from
 * within this call. *out is freed by fcgi_server_close().
 */
enum err fcgi_server_open(struct fcgi_server **out, uv_loop_t *loop, int listen_fd,
			  const struct fcgi_limits *limits, fcgi_request_fn on_request, void *arg,
			  struct error *why);

/* Serves an idle connection that another process has accepted; `fd` is the server's from now on. */
void fcgi_server_adopt(struct fcgi_server *server, int fd);

/* Whom a draining server leaves an idle connection to: true when `fd` (lent) is in good hands. */
typedef bool (*fcgi_give_fn)(void *arg, int fd);

/*
 * Accepts what waits already, and nothing after that. Kept connections are served on until nginx closes them (it does so
 * after some seconds: keepalive_time): one closed from here might be just the one that the next request is sent on, and a
 * POST is not sent again. With a successor (`give` is not NULL) idle ones go to that one instead. `on_idle` is called once,
 * when none is left.
 */
void fcgi_server_drain(struct fcgi_server *server, fcgi_give_fn give, void (*on_idle)(void *arg), void *arg);

/* Closes everything at once; requests in hand are told by on_leave. Memory is freed as the loop turns. */
void fcgi_server_close(struct fcgi_server *server);

/* Requests in hand, from their first byte to the last byte of their answer. */
size_t fcgi_server_active(const struct fcgi_server *server);

/* A FastCGI parameter such as "REQUEST_METHOD", lent until the request ends; "" when absent. */
const char *fcgi_param(const struct fcgi_request *request, const char *name);

/* The body, lent until fcgi_body_free() or the request's end. */
const char *fcgi_body(const struct fcgi_request *request, size_t *len);
bool fcgi_body_too_big(const struct fcgi_request *request);

/* There was no memory for the body. */
bool fcgi_body_lost(const struct fcgi_request *request);

/* Gives the body's memory back early: a stream may stay open for minutes, and others may wait for theirs. */
void fcgi_body_free(struct fcgi_request *request);

/*
 * A thread of the pool is about to look at the request's parameters or body: they stay until fcgi_let_go(), even when the
 * client leaves. Of that `on_leave` tells as always; then fcgi_let_go() is all that may still be called.
 */
void fcgi_hold(struct fcgi_request *request);
void fcgi_let_go(struct fcgi_request *request);

/* Whom to tell. Set within on_request, or whenever the handler changes. */
void fcgi_watch(struct fcgi_request *request, fcgi_leave_fn on_leave, fcgi_drain_fn on_drain, void *arg);

/*
 * Sends bytes to the client. They are copied and leave together with what else is written in this turn of the loop, at its
 * end or when there are many, if the socket has room; else as soon as it has.
 * ERR_TOO_BIG beyond output_max (nothing of `bytes` is then sent), ERR_NOMEM.
 */
enum err fcgi_write(struct fcgi_request *request, const void *bytes, size_t len);

/* Bytes that still wait for the client. */
size_t fcgi_backlog(const struct fcgi_request *request);

/* Ends the answer: what was written still goes out, then the connection is kept for nginx's next request. */
void fcgi_end(struct fcgi_request *request);

/*
 * Whether fcgi_write_end() of `len` bytes would work now: there is memory for them, or the socket has room. False: the client
 * is behind and there is no memory; ask again later.
 */
bool fcgi_may_end(struct fcgi_request *request, size_t len);

/* As fcgi_write() and fcgi_end() in one, in a single write(2) when it is small. On an error nothing has ended. */
enum err fcgi_write_end(struct fcgi_request *request, const void *bytes, size_t len);

/* Cuts the connection: nginx reports 502, or an answer that breaks off. For answers that cannot be completed. */
void fcgi_abort(struct fcgi_request *request);

#endif
