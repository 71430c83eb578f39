/*
 * schema.h - JSON Schemas (2020-12, as OpenAPI 3.1 has them) of the tables that bodies, queries and answers have.
 */
#ifndef HTTP_SCHEMA_H
#define HTTP_SCHEMA_H

#include "base/buf.h"
#include "http/fields.h"
#include "http/query.h"
#include "http/shape.h"

/* The object that fields_read() takes. Unknown members are ignored by it, so the schema lets them pass. */
void schema_fields(struct buf *out, const struct field *fields, size_t count);

/* One value that fields_read() or the router takes. */
void schema_field(struct buf *out, const struct field *field);

/* One value that query_read() takes. */
void schema_query(struct buf *out, const struct query_field *field);

/* The object that shape_write() writes; shapes in it are referred to as components of the document. */
void schema_shape(struct buf *out, const struct shape *shape);

/* {"$ref": …} to a schema among the document's components. */
void schema_reference(struct buf *out, const char *name);

/* A member `name` with two languages in one text, `between` them. */
void schema_text(struct buf *out, const char *name, const char *chinese, const char *english,
		 const char *between);

#endif
