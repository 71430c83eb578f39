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
#include <uv.h>

#include "base/error.h"
#include "http/request.h"

#define FIELDS_MAX 8 /* in a table */

struct fields_doc; /* owner of the texts of a body that was read */

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
	const char *example; /* NULL: left out of the document's examples; a required field has one */
};

/* Text lent by the document; `bytes` is NULL when the field was absent. */
struct text {
	const char *bytes;
	size_t len;
};

#define FIELDS_SIZE_MAX 256 /* bytes of a struct that a table fills */

/* `fields` is the struct that the table fills; it and its texts are lent until this returns. The request is the callee's. */
typedef void (*fields_fn)(struct request *request, void *arg, const void *fields);

/*
 * Checks the request's Content-Type and body, and calls `fn` with the fields: before this returns, or later when the body is
 * large, which is parsed in libuv's thread pool. Fields that are not as they must be are answered here, and when the client
 * leaves meanwhile nobody is told. The request is no longer the caller's.
 */
void fields_take(struct request *request, uv_loop_t *loop, const struct field *fields, size_t count,
		 fields_fn fn, void *arg);

/*
 * The same for a body at hand, without a request around it: fills the struct text fields of `out` (zeroed by the caller).
 * *doc owns the texts: free it with fields_free(). On an error *doc is NULL and `why` is the client's answer.
 */
enum err fields_parse(struct fields_doc **doc, void *out, const struct field *fields, size_t count,
		      const char *body, size_t len, struct error *why);
void fields_free(struct fields_doc *doc);

/* What is said where a required field is not there: ERR_BAD_REQUEST. */
enum err fields_missing(const struct field *field, struct error *why);

/* Whether a Content-Type (or "" for none) means JSON in UTF-8. */
bool fields_content_type_ok(const char *content_type);

#endif
