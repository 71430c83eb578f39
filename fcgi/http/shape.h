/*
 * shape.h - what a JSON answer looks like: one table both writes it and describes it in the API document.
 *
 * The counterpart of fields.h. A handler fills a struct of its own and has it written; the table says where in the struct
 * each member is. What the document promises is then what leaves.
 */
#ifndef HTTP_SHAPE_H
#define HTTP_SHAPE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct shape;

enum member_kind {               /* what is found at `offset` */
		   MEMBER_TEXT,  /* const char *, UTF-8; NULL is written as null */
		   MEMBER_ID,    /* the same, as id.h says */
		   MEMBER_WORD,  /* the same, one of `words` */
		   MEMBER_BYTES, /* struct shape_bytes: UTF-8 that may be long or hold a NUL */
		   MEMBER_PIECES, /* size_t *: "" is written, and where in the output its text belongs is told there */
		   MEMBER_TIME,   /* uint64_t: Unix microseconds; written as clock_iso() does */
		   MEMBER_COUNT,  /* uint64_t */
		   MEMBER_OBJECT, /* a struct, written by `shape` */
		   MEMBER_LIST    /* struct shape_list: structs, each written by `shape` */
};

struct member {
	const char *name; /* needs no escaping */
	enum member_kind kind;
	size_t offset;
	const char *meaning; /* Chinese */
	const char *meaning_en;
	const char *example;       /* the text, or the digits; a WORD's is its first one */
	bool nullable;             /* null is one of the values */
	const struct shape *shape; /* of OBJECT and LIST */
	const char *const *words;  /* of WORD; NULL ends them */
};

struct shape {
	const char *name; /* in the document; no two shapes have the same */
	const struct member *members;
	size_t count;
};

struct shape_bytes {
	const char *bytes;
	size_t len;
};

struct shape_list {
	const void *items;
	size_t count;
	size_t size; /* of one */
};

enum shape_style {
	SHAPE_COMPACT, /* {"a":1,"b":2} */
	SHAPE_SPACED   /* {"a": 1, "b": 2}: events, as the documented clients know them */
};

/* Appends the object that `values`, the handler's struct, holds. */
void shape_write(struct buf *out, const struct shape *shape, const void *values, enum shape_style style);

/* Appends the object that the table's examples make. */
void shape_example(struct buf *out, const struct shape *shape, enum shape_style style);

#endif
