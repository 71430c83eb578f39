/*
 * openapi.h - the API document: OpenAPI 3.1, made from the tables that route, validate and write answers.
 *
 * A route, a field or a member that leaves its table leaves the document, too. Texts are Chinese with English behind.
 */
#ifndef HTTP_OPENAPI_H
#define HTTP_OPENAPI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "http/about.h"
#include "http/router.h"

struct openapi {
	const char *title, *title_en;
	const char *version;
	const char *description, *description_en; /* Markdown */
	const struct route *routes;
	size_t count;
	uint64_t body_max;    /* bytes of a request's body */
	bool needs_key;       /* ACCESS_USER means something: there are API keys */
	bool needs_admin_key; /* the same for ACCESS_ADMIN; without it callers on this machine are let in */
};

/* Appends the document. Out of memory, or beyond its ceiling, `out` is `failed`. */
void openapi_write(struct buf *out, const struct openapi *api);

#endif
