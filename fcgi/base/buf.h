/*
 * buf.h - a growing byte buffer with a ceiling that is set at birth.
 *
 * Appending never fails loudly: beyond the ceiling, or out of memory, the buffer turns `failed`, ignores
 * what comes after, and keeps what it had. A writer appends many pieces and looks at `failed` once.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *base;   /* owned unless `lent`; NULL while nothing was appended; not NUL-terminated */
	size_t start; /* bytes before this one were consumed */
	size_t len;   /* end of what was appended, counted from base */
	size_t cap;
	size_t max; /* ceiling on the bytes held, consumed ones left out */
	bool lent;
	bool failed;
	bool starved; /* failed for want of memory, and not at the ceiling */
};

void buf_init(struct buf *buf, size_t max);

/* A buffer in `size` bytes of the caller's, which are its ceiling: for what must be said without memory, too. */
void buf_init_in(struct buf *buf, char *room, size_t size);

/* Frees the memory; the buffer is empty again and may be used on. */
void buf_free(struct buf *buf);

/* Empties without giving the memory back, unless it is more than `keep` bytes. */
void buf_reset(struct buf *buf, size_t keep);

/* Goes on after a failure with what it has, which is whole pieces. */
void buf_forgive(struct buf *buf);

void buf_append(struct buf *buf, const void *bytes, size_t len);
void buf_append_str(struct buf *buf, const char *text);
void buf_append_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Lends room for `len` more bytes at the end, to be filled and then claimed with buf_claim().
 * NULL (and `failed`) when there is none.
 */
char *buf_room(struct buf *buf, size_t len);
void buf_claim(struct buf *buf, size_t len);

/* Drops `len` bytes from the front. */
void buf_consume(struct buf *buf, size_t len);

/* Cuts the end off, back to `size` bytes. */
void buf_truncate(struct buf *buf, size_t size);

static inline size_t buf_size(const struct buf *buf)
{
	return buf->len - buf->start;
}

static inline const char *buf_bytes(const struct buf *buf)
{
	return buf->base == NULL ? "" : buf->base + buf->start;
}

#endif
