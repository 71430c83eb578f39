/*
 * router.h - finds the handler of a request in a table of routes.
 */
#ifndef HTTP_ROUTER_H
#define HTTP_ROUTER_H

#include <stddef.h>

#include "http/access.h"
#include "http/request.h"

struct about;

typedef void (*handler_fn)(struct request *request, void *app);

struct route {
	const char *method;
	const char *path; /* may hold one {name}: an id, see id.h; decoded into request->path_id */
	enum access_level access;
	handler_fn handler;
	const struct about *about; /* for the API document, see about.h; NULL: it is not in there */
};

struct router {
	const struct route *routes;
	size_t count;
	struct access access;
	void *app; /* passed to handlers */
};

/* Calls the handler of the request, or answers 400, 401, 403, 404 or 405 itself. HEAD is served as GET. */
void router_dispatch(const struct router *router, struct request *request);

#endif
