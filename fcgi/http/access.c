/*
 * access.c - see access.h.
 */
#include "http/access.h"

#include <string.h>
#include <strings.h>

/*
 * Equal, without telling by its duration where two keys differ: every byte of the one that came is compared, over again
 * with a shorter one of ours. Volatile, so that no compiler finds a way to stop early. `ours` is not empty.
 */
static bool same(const char *ours, size_t ours_len, const char *theirs, size_t theirs_len)
{
	volatile unsigned char differ = ours_len != theirs_len;

	for (size_t i = 0, at = 0; i < theirs_len; i++) {
		differ = (unsigned char)(differ | (ours[at] ^ theirs[i]));
		at = at + 1 == ours_len ? 0 : at + 1;
	}
	return differ == 0;
}

bool access_key_in(const char *keys, const char *key)
{
	size_t key_len = strlen(key);
	bool found = false;

	while (*keys != '\0') {
		size_t len, trimmed;

		keys += strspn(keys, ", ");
		len = trimmed = strcspn(keys, ",");
		while (trimmed > 0 && keys[trimmed - 1] == ' ')
			trimmed--;
		if (trimmed > 0)
			found |=
			    same(keys, trimmed, key, key_len); /* no early end: the position must not show */
		keys += len;
	}
	return found;
}

/* RFC 6750: "Authorization: Bearer KEY"; or "X-API-Key: KEY". When both came, the first counts, whatever the other says. */
static const char *key_of(const struct fcgi_request *request)
{
	const char *authorization = fcgi_param(request, "HTTP_AUTHORIZATION");

	if (strncasecmp(authorization, "Bearer ", 7) == 0)
		return authorization + 7 + strspn(authorization + 7, " ");
	return fcgi_param(request, "HTTP_X_API_KEY");
}

static bool from_loopback(const struct fcgi_request *request)
{
	const char *address = fcgi_param(request, "REMOTE_ADDR");

	return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 ||
	       strncmp(address, "::ffff:127.", 11) == 0 || strcmp(address, "unix:") == 0;
}

/* nginx says this of callers on its METRICS_LISTEN; a client's headers become HTTP_..., never this. */
static bool vouched_for(const struct fcgi_request *request)
{
	return strcmp(fcgi_param(request, "ADMIN_TRUSTED"), "1") == 0;
}

enum err access_check(const struct access *access, enum access_level level,
		      const struct fcgi_request *request, struct error *why)
{
	const char *key = key_of(request);
	bool admin;

	if (level == ACCESS_OPEN || (level == ACCESS_USER && access->api_keys[0] == '\0') ||
	    vouched_for(request))
		return ERR_OK;
	if (level == ACCESS_ADMIN && access->admin_api_keys[0] == '\0') {
		if (from_loopback(request))
			return ERR_OK;
		return error_set(why, ERR_FORBIDDEN, "管理接口只允许本机访问",
				 "no admin keys, caller not local");
	}
	admin = access_key_in(access->admin_api_keys, key);
	if (admin || (level == ACCESS_USER && access_key_in(access->api_keys, key)))
		return ERR_OK;
	if (level == ACCESS_ADMIN && access_key_in(access->api_keys, key))
		return error_set(why, ERR_FORBIDDEN, "需要管理员 API 密钥", "a user's key on an admin route");
	if (key[0] == '\0')
		return error_set(why, ERR_UNAUTHORIZED, "缺少 API 密钥: Authorization 或 X-API-Key",
				 "no key");
	return error_set(why, ERR_UNAUTHORIZED, "API 密钥无效", "wrong key");
}
