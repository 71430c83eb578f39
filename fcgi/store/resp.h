/*
 * resp.h - commands in Redis' protocol: an array of texts, each with its length before it. Pure.
 */
#ifndef STORE_RESP_H
#define STORE_RESP_H

#include <stddef.h>

#define RESP_HEAD_MAX 24 /* bytes of "*COUNT\r\n", and of "$LENGTH\r\n" */

/* Bytes that a text of `len` takes at most. */
size_t resp_text_max(size_t len);

/* Writes the beginning of a command of `count` texts, or one of them; returns where the next one goes. */
char *resp_begin(char *out, size_t count);
char *resp_text(char *out, const char *bytes, size_t len);

#endif
