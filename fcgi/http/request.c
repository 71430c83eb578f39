/*
 * request.c - see request.h.
 */
#include "http/request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/metrics.h"
#include "base/percent.h"
#include "http/response.h"
#include "http/router.h"

#define QUERY_NAME_MAX 64 /* bytes of a query parameter's name, decoded */

/* The path without its query: that may hold anything. */
static void log_request(const struct request *request, uint64_t took_us)
{
	char path[512];
	struct log_field fields[10 + REQUEST_NOTES] = {
		LOG_TEXT("req", request->id),
		LOG_TEXT("client", fcgi_param(request->fcgi, "REMOTE_ADDR")),
		LOG_TEXT("method", request->method),
		LOG_TEXT("path", path),
		LOG_TEXT("route", request->route != NULL ? request->route->path : ""),
		LOG_NUMBER("status", request->status),
		LOG_TEXT("while", request->failed ? request->doing : ""),
		LOG_MS("first_ms",
		       request->first_byte_ns ? (request->first_byte_ns - request->started_ns) / 1000 : 0),
		LOG_MS("total_ms", took_us),
		LOG_NUMBER("bytes", request->bytes),
	};
	size_t count = 10;

	snprintf(path, sizeof path, "%.*s", (int)request->path_len, request->path);
	for (unsigned i = 0; i < request->note_count; i++)
		fields[count++] = request->notes[i];
	log_fields(LOG_LEVEL_INFO, "request", fields, count);
}

void request_finish(struct request *request)
{
	uint64_t took_us = (uv_hrtime() - request->started_ns) / 1000;
	unsigned route = METRICS_ROUTES - 1;

	if (request->route != NULL)
		route = (unsigned)(request->route - request->router->routes);
	metric_request(route, request->status, took_us);
	metric_sub(&metrics->gauges.requests, 1);
	if (log_wants(LOG_LEVEL_INFO))
		log_request(request, took_us);
	free(request);
}

static void on_leave(void *arg)
{
	struct request *request = arg;

	request->failed = true;
	request->status = 499; /* nginx's number for a client that closed its request */
	if (request->on_leave != NULL)
		request->on_leave(request->arg);
	request_finish(request);
}

static void on_drain(void *arg)
{
	struct request *request = arg;

	if (request->on_drain != NULL)
		request->on_drain(request->arg);
}

void request_begin(struct fcgi_request *fcgi, const struct router *router)
{
	struct request *request = calloc(1, sizeof *request);
	const char *query;

	if (request == NULL) {
		fcgi_abort(fcgi);
		return;
	}
	metric_add(&metrics->gauges.requests, 1);
	request->fcgi = fcgi;
	request->router = router;
	request->started_ns = uv_hrtime();
	request->id = fcgi_param(fcgi, "REQUEST_ID");
	request->method = fcgi_param(fcgi, "REQUEST_METHOD");
	request->path = fcgi_param(fcgi, "REQUEST_URI");
	query = strchr(request->path, '?');
	request->path_len = query != NULL ? (size_t)(query - request->path) : strlen(request->path);
	request->query = query != NULL ? query + 1 : "";
	request->doing = "reading the request";
	fcgi_watch(fcgi, on_leave, on_drain, request);
	router_dispatch(router, request);
}

void request_watch(struct request *request, void (*leave)(void *arg), void (*drain)(void *arg), void *arg)
{
	request->on_leave = leave;
	request->on_drain = drain;
	request->arg = arg;
}

void request_note(struct request *request, struct log_field field)
{
	if (request->note_count < REQUEST_NOTES)
		request->notes[request->note_count++] = field;
}

void request_fail(struct request *request, const struct error *error)
{
	request->failed = true;
	request_note(request, LOG_TEXT("error", error_name(error->code)));
	request_note(request, LOG_TEXT("cause", error->cause));
}

/* Whether the `len` bytes at `text`, decoded, are `name`. */
static bool is_name(const char *text, size_t len, const char *name)
{
	char decoded[QUERY_NAME_MAX];
	size_t got;

	return percent_decode(decoded, sizeof decoded, &got, text, len) && got == strlen(name) &&
	       memcmp(decoded, name, got) == 0;
}

bool request_query(const struct request *request, const char *name, char *out, size_t size, bool *present)
{
	const char *p = request->query;
	bool good = false;

	*present = false;
	while (*p != '\0') {
		size_t len = strcspn(p, "&");
		size_t name_len = strcspn(p, "=&");

		if (is_name(p, name_len, name)) {
			const char *value = p + name_len + (name_len < len);
			size_t got;

			good = !*present &&
			       percent_decode(out, size - 1, &got, value, (size_t)(p + len - value)) &&
			       memchr(out, '\0', got) == NULL;
			if (good)
				out[got] = '\0';
			*present = true;
		}
		p += len + (p[len] == '&');
	}
	return good;
}
