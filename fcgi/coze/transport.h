/*
 * transport.h - HTTPS calls to Coze on the event loop.
 *
 * Owns: libcurl (the only file that includes curl.h is transport.c): one multi handle, its connections, TLS sessions and
 * DNS answers, and all calls under way. Knows nothing of chats or events: a call is a method, a path and a body; its
 * answer is a status, a kind of body, and bytes.
 */
#ifndef COZE_TRANSPORT_H
#define COZE_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/metrics.h"

struct transport;
struct call;

enum body_kind { BODY_JSON, BODY_EVENTS, BODY_OTHER };

struct call_head {
	long status;
	enum body_kind kind;
	unsigned retry_after_s; /* 0 when absent */
	const char *logid;      /* Coze's X-Tt-Logid, or ""; lent */
};

enum call_end {
	CALL_OK,                 /* the answer is complete, whatever its status */
	CALL_NOT_SENT,           /* no connection: the request has not left */
	CALL_CONNECT_TIMEOUT,    /* as above, after the connect time limit */
	CALL_FIRST_BYTE_TIMEOUT, /* sent, but no answer began */
	CALL_IDLE_TIMEOUT,       /* the answer began and then stopped coming */
	CALL_UNANSWERED,         /* sent, and the connection broke before an answer began */
	CALL_CUT,                /* the connection broke within the answer */
	CALL_NO_MEMORY           /* here; whether the request has left is not known */
};

struct call_ops {
	/* The answer's head; before any on_body, and before on_done(CALL_OK). */
	void (*on_head)(void *arg, const struct call_head *head);
	/* A piece of the body. */
	void (*on_body)(void *arg, const char *bytes, size_t len);
	/* The end, exactly once unless the call was cancelled or drained. `why` is English, for the log. */
	void (*on_done)(void *arg, enum call_end end, const char *why);
};

struct call_spec {
	const char *method; /* "GET" or "POST" */
	const char *path;   /* appended to the base URL; copied */
	struct buf *body;   /* taken over (left empty); NULL for none */
	enum metrics_call counts_as;
	uint64_t first_byte_ms, idle_ms; /* limits: after the sending; between bytes, but not while paused */
};

struct transport_options {
	const char *base_url; /* copied, as all texts here */
	const char *token;
	const char *ca_file; /* "" for none */
	uint64_t connect_ms;
};

enum err transport_open(struct transport **out, uv_loop_t *loop, const struct transport_options *options,
			struct error *why);

/* Ends every call as if its connection had broken, and frees. Calls that are started from within fail with ERR_NOMEM. */
void transport_close(struct transport *transport);

/* Calls under way, drained ones left out. */
size_t transport_active(const struct transport *transport);

/*
 * Begins a call. No callback comes from within. The call frees itself after on_done; call_cancel() or call_drain() end it
 * earlier. ERR_NOMEM: nothing was begun.
 */
enum err call_start(struct call **out, struct transport *transport, const struct call_spec *spec,
		    const struct call_ops *ops, void *arg);

/* Closes the call; no callback follows. May be called from within a callback of any call. */
void call_cancel(struct call *call);

/*
 * Nobody needs the rest of the body: no callback follows, but the connection gets a moment to reach the answer's end so
 * that it can be used again.
 */
void call_drain(struct call *call);

/* Back-pressure: stops and resumes reading from Coze. Pausing works from within on_body. */
void call_pause(struct call *call);
void call_resume(struct call *call);

/* Whether the request may have reached Coze. */
bool call_was_sent(const struct call *call);

#endif
