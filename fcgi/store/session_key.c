/*
 * session_key.c - see session_key.h.
 */
#include "store/session_key.h"

#include <stdio.h>
#include <string.h>

static const char head[] = "coze:{", tail[] = "}:";

/* Where the next bytes go. */
static char *put(char *out, const char *bytes, size_t len)
{
	memcpy(out, bytes, len);
	return out + len;
}

struct redis_arg session_key(char key[SESSION_KEY_SIZE], const char *session_id, const char *part)
{
	char *end = put(key, head, sizeof head - 1);

	for (;;) {
		size_t plain = strcspn(session_id, "{}%");

		end = put(end, session_id, plain);
		session_id += plain;
		if (*session_id == '\0')
			break;
		end += sprintf(end, "%%%02X", (unsigned char)*session_id++);
	}
	end = put(end, tail, sizeof tail - 1);
	end = put(end, part, strlen(part) + 1);
	return (struct redis_arg){ key, (size_t)(end - key) - 1 };
}
