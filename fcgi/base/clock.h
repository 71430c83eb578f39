/*
 * clock.h - dates for people. Durations and deadlines use the loop's milliseconds (uv_now) instead.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_ISO_SIZE 27 /* "2024-01-15T10:30:15.123456" and its NUL */

/* Microseconds since 1970, UTC. */
uint64_t clock_unix_us(void);

/* Writes ISO 8601 local time with microseconds and no zone, as Python's datetime.isoformat() does. */
void clock_iso(char out[CLOCK_ISO_SIZE], uint64_t unix_us);

#endif
