/*
 * fake_fcgi.h - plays http/fcgi.c: a request is the parameters and the body at hand, its answer lands in a buffer.
 *
 * It checks what a handler owes: exactly one end, nothing written after it, and nothing asked of a request that has ended.
 * Once per program: it stands in the place of the module.
 */
#ifndef FAKE_FCGI_H
#define FAKE_FCGI_H

#include <ctype.h>

#include "fuzz.h"
#include "http/fcgi.h"
#include "http/request.h"

#define FAKE_PARAMS 32

struct fcgi_request {
	struct {
		const char *name, *value; /* lent */
	} params[FAKE_PARAMS];
	size_t count;
	struct input body;
	bool too_big;
	struct buf answer;
	bool ended, aborted;
};

static inline void fake_param(struct fcgi_request *request, const char *name, const char *value)
{
	CHECK(request->count < FAKE_PARAMS);
	request->params[request->count].name = name;
	request->params[request->count++].value = value;
}

const char *fcgi_param(const struct fcgi_request *request, const char *name)
{
	CHECK(!request->ended);
	for (size_t i = 0; i < request->count; i++)
		if (strcmp(request->params[i].name, name) == 0)
			return request->params[i].value;
	return "";
}

const char *fcgi_body(const struct fcgi_request *request, size_t *len)
{
	CHECK(!request->ended);
	*len = request->body.left;
	return request->body.at;
}

bool fcgi_body_too_big(const struct fcgi_request *request)
{
	return request->too_big;
}

bool fcgi_body_lost(const struct fcgi_request *request)
{
	(void)request;
	return false;
}

void fcgi_body_free(struct fcgi_request *request)
{
	CHECK(!request->ended);
}

void fcgi_hold(struct fcgi_request *request)
{
	CHECK(!request->ended);
}

void fcgi_let_go(struct fcgi_request *request)
{
	(void)request;
}

void fcgi_watch(struct fcgi_request *request, fcgi_leave_fn on_leave, fcgi_drain_fn on_drain, void *arg)
{
	CHECK(!request->ended);
	(void)on_leave;
	(void)on_drain;
	(void)arg;
}

enum err fcgi_write(struct fcgi_request *request, const void *bytes, size_t len)
{
	CHECK(!request->ended);
	buf_append(&request->answer, bytes, len);
	return request->answer.failed ? ERR_TOO_BIG : ERR_OK;
}

size_t fcgi_backlog(const struct fcgi_request *request)
{
	(void)request;
	return 0;
}

void fcgi_end(struct fcgi_request *request)
{
	CHECK(!request->ended);
	request->ended = true;
}

bool fcgi_may_end(struct fcgi_request *request, size_t len)
{
	(void)len;
	return !request->answer.failed;
}

enum err fcgi_write_end(struct fcgi_request *request, const void *bytes, size_t len)
{
	enum err rc = fcgi_write(request, bytes, len);

	if (rc == ERR_OK)
		fcgi_end(request);
	return rc;
}

void fcgi_abort(struct fcgi_request *request)
{
	CHECK(!request->ended);
	request->ended = request->aborted = true;
}

#endif
