/*
 * id.h - names that nobody can guess, and the rule for names that come from outside.
 */
#ifndef BASE_ID_H
#define BASE_ID_H

#include <stdbool.h>
#include <stddef.h>

#define ID_MAX         128 /* bytes of a session_id, user_id or conversation_id */
#define ID_RANDOM_SIZE 33  /* 128 random bits in hex and a NUL */

/* Fills `out` with 32 lower-case hex digits from the kernel's generator. False when it has none to give. */
bool id_random(char out[ID_RANDOM_SIZE]);

/* A random number from 0 to just below 1, for pauses that must not fall together. Not for secrets. */
double id_random_share(void);

/* Whether `text` is 1 to ID_MAX bytes of valid UTF-8 without control characters (C0, DEL, C1). */
bool id_valid(const char *text, size_t len);

#endif
