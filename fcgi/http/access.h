/*
 * access.h - who may call: API keys, compared in constant time.
 *
 * A key comes as "Authorization: Bearer KEY" or as "X-API-Key: KEY". When both come, the first counts and the other is not
 * looked at. How long a refusal takes depends on the length of the key that came, and not on how much of it is right.
 */
#ifndef HTTP_ACCESS_H
#define HTTP_ACCESS_H

#include <stdbool.h>

#include "base/error.h"
#include "http/fcgi.h"

enum access_level {
	ACCESS_OPEN, /* anybody */
	ACCESS_USER, /* one of API_KEYS or ADMIN_API_KEYS; anybody when API_KEYS is empty */
	ACCESS_ADMIN /* one of ADMIN_API_KEYS; callers on this machine only when that is empty */
};

struct access {
	const char *api_keys;       /* comma-separated; lent */
	const char *admin_api_keys; /* comma-separated; lent */
};

/* ERR_OK, ERR_UNAUTHORIZED or ERR_FORBIDDEN. Whom nginx vouches for (ADMIN_TRUSTED 1) may do all that an admin may. */
enum err access_check(const struct access *access, enum access_level level,
		      const struct fcgi_request *request, struct error *why);

/* Whether `key` is one of the comma-separated `keys`; takes as long for a near miss as for a far one. */
bool access_key_in(const char *keys, const char *key);

#endif
