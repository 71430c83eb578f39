/*
 * session_key.h - the names of a session's keys in Redis. All share the hash tag {ID}, so that one script may use them
 * together in a cluster, too.
 */
#ifndef STORE_SESSION_KEY_H
#define STORE_SESSION_KEY_H

#include "base/id.h"
#include "store/redis.h"

#define SESSION_KEY_SIZE (3 * ID_MAX + 32)

/* Writes "coze:{ID}:PART" into `key`. Braces and percent signs of the id are escaped: they would move the tag. */
struct redis_arg session_key(char key[SESSION_KEY_SIZE], const char *session_id, const char *part);

#endif
