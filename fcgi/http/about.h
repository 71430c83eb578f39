/*
 * about.h - what a route tells of itself, for the API document (openapi.h).
 *
 * It stands beside the handler and points to the tables that the handler reads requests and writes answers by. What follows
 * from those and from the route itself is not said again: 401 from its access level, 413 from a body, and so on.
 */
#ifndef HTTP_ABOUT_H
#define HTTP_ABOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "http/fields.h"
#include "http/query.h"
#include "http/shape.h"

#define ABOUT_ANSWERS 3
#define ABOUT_ERRORS  20

struct about_tag {
	const char *name;
	const char *meaning; /* Chinese */
	const char *meaning_en;
};

struct about_body {
	const char *name; /* in the document; the same table has the same name */
	const struct field *fields;
	size_t count;
};

struct about_query {
	const struct query_field *fields;
	size_t count;
};

struct about_answer {
	int status; /* 0 ends the list */
	const char *meaning, *meaning_en;
	const char *type;          /* media type; NULL: application/json */
	const struct shape *shape; /* NULL: any object when it is JSON, any text when it is not */
	const struct shape *const *
	    events; /* of text/event-stream: the first may come often, one of the others ends it; NULL ends */
	const char *example; /* JSON, or the text; NULL: what the shape's table says */
	bool names_session;  /* in X-Session-ID */
};

struct about_error {
	enum err code;      /* ERR_OK ends the list */
	const char *detail; /* an example of what is said; NULL: the code's own text */
};

struct about {
	const char *id; /* camelCase; what generated clients call the function */
	const struct about_tag *tag;
	const char *summary, *summary_en;
	const char *description, *description_en; /* Markdown, or NULL */
	const struct field *path_id; /* what the {name} of the path is; its `name` is the path's */
	struct about_body body;
	struct about_query query;
	struct about_answer answers[ABOUT_ANSWERS];
	struct about_error errors[ABOUT_ERRORS];
};

#endif
