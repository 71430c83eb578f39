/*
 * percent.h - percent-encoding of URI parts (RFC 3986, section 2.1).
 */
#ifndef BASE_PERCENT_H
#define BASE_PERCENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/*
 * Decodes `len` bytes of `text` into at most `size` bytes of `out` (no NUL is added); *out_len says how many.
 * False on a broken escape and when `out` is too small.
 */
bool percent_decode(char *out, size_t size, size_t *out_len, const char *text, size_t len);

/* Appends `text`, everything but RFC 3986's unreserved characters escaped. */
void percent_encode(struct buf *out, const char *text, size_t len);

#endif
