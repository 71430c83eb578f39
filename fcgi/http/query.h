/*
 * query.h - reads a request's query parameters by a table: what fields.h is to a body.
 *
 * All that routes ask for are whole numbers. Unknown parameters are ignored.
 */
#ifndef HTTP_QUERY_H
#define HTTP_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "http/request.h"

struct query_field {
	const char *name;
	size_t offset; /* of a uint64_t in the caller's struct */
	uint64_t fallback, min, max;
	const char *meaning; /* Chinese */
	const char *meaning_en;
};

/* Fills the numbers of `out`. On an error `why` is the client's answer, which names the parameter. */
enum err query_read(void *out, const struct query_field *fields, size_t count, const struct request *request,
		    struct error *why);

/* What is said where a parameter is not as it must be: ERR_BAD_REQUEST. */
enum err query_bad(const struct query_field *field, struct error *why);

#endif
