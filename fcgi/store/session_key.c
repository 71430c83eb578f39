/*
 * session_key.c - see session_key.h.
 */
#include "store/session_key.h"

#include <stdio.h>
#include <string.h>

struct redis_arg session_key(char key[SESSION_KEY_SIZE], const char *session_id, const char *part)
{
	size_t len = (size_t)snprintf(key, SESSION_KEY_SIZE, "coze:{");

	for (const char *p = session_id; *p != '\0'; p++) {
		if (strchr("{}%", *p) != NULL)
			len +=
			    (size_t)snprintf(key + len, SESSION_KEY_SIZE - len, "%%%02X", (unsigned char)*p);
		else
			key[len++] = *p;
	}
	len += (size_t)snprintf(key + len, SESSION_KEY_SIZE - len, "}:%s", part);
	return (struct redis_arg){ key, len };
}
