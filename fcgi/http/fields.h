/*
 * fields.h - reads a JSON request body by a table of fields.
 *
 * One table per request type says names, kinds and bounds; parsing, error texts and (through the same table) the API
 * document come from it. null counts as absent, unknown fields are ignored.
 */
#ifndef HTTP_FIELDS_H
#define HTTP_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "http/request.h"

struct json_object;

enum field_kind {
	FIELD_TEXT, /* a string that is not blank */
	FIELD_ID    /* a string as id.h says */
};

struct field {
	const char *name;
	enum field_kind kind;
	bool required;
	size_t offset;       /* of a struct text in the caller's struct */
	const char *meaning; /* Chinese */
	const char *meaning_en;
};

/* Text lent by the parsed document; `bytes` is NULL when the field was absent. */
struct text {
	const char *bytes;
	size_t len;
};

/*
 * Checks the request's Content-Type and body and fills the struct text fields of `out` (zeroed by the caller).
 * *doc owns the texts: free it with fields_free(). On an error *doc is NULL and `why` is the client's answer.
 */
enum err fields_read(struct json_object **doc, void *out, const struct field *fields, size_t count,
		     const struct request *request, struct error *why);

void fields_free(struct json_object *doc);

/* The same for a body at hand, without a request around it. */
enum err fields_parse(struct json_object **doc, void *out, const struct field *fields, size_t count,
		      const char *body, size_t len, struct error *why);

/* Whether a Content-Type (or "" for none) means JSON in UTF-8. */
bool fields_content_type_ok(const char *content_type);

#endif
