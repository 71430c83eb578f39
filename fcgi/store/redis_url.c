/*
 * redis_url.c - see redis_url.h.
 */
#include "store/redis_url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/percent.h"

#define DB_MAX 65535

static bool wrong(const char **why, const char *text)
{
	*why = text;
	return false;
}

/* Decodes into a C string; false when it does not fit, is badly escaped or holds a NUL. */
static bool decode(char *out, size_t size, const char *text, size_t len)
{
	size_t got;

	if (!percent_decode(out, size - 1, &got, text, len) || memchr(out, '\0', got) != NULL)
		return false;
	out[got] = '\0';
	return true;
}

static bool parse_db(struct redis_url *url, const char *text, const char **why)
{
	char *end;
	unsigned long db = strtoul(text, &end, 10);

	if (*text == '\0')
		return true;
	if (!isdigit((unsigned char)*text) || *end != '\0' || db > DB_MAX)
		return wrong(why, "the database is no number");
	url->db = (unsigned)db;
	return true;
}

static bool parse_unix(struct redis_url *url, const char *text, const char **why)
{
	size_t len = strcspn(text, "?");

	if (len == 0)
		return wrong(why, "unix:// needs a path");
	if (!decode(url->path, sizeof url->path, text, len))
		return wrong(why, "the socket's path is longer than 107 bytes or badly escaped");
	if (text[len] == '\0')
		return true;
	if (strncmp(text + len, "?db=", 4) != 0)
		return wrong(why, "only ?db=N may follow a socket's path");
	return parse_db(url, text + len + 4, why);
}

static bool parse_login(struct redis_url *url, const char *text, size_t len, const char **why)
{
	const char *colon = memchr(text, ':', len);

	if (colon == NULL)
		return wrong(why, "a login is [user]:password");
	if (!decode(url->user, sizeof url->user, text, (size_t)(colon - text)) ||
	    !decode(url->password, sizeof url->password, colon + 1, len - (size_t)(colon + 1 - text)))
		return wrong(why, "user or password is too long or badly escaped");
	return true;
}

static bool parse_port(struct redis_url *url, const char *text, size_t len, const char **why)
{
	unsigned long port = 0;

	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]) || i >= 5)
			return wrong(why, "the port is no number");
		port = port * 10 + (unsigned long)(text[i] - '0');
	}
	if (port < 1 || port > 65535)
		return wrong(why, "the port is not between 1 and 65535");
	memcpy(url->port, text, len);
	url->port[len] = '\0';
	return true;
}

/* A name or an IPv4 address; in brackets an IPv6 address, maybe with its zone. Whether there is such a host is not asked here. */
static bool is_host(const char *text, size_t len, bool bracketed)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t digits = bracketed ? strspn(text, "0123456789abcdefABCDEF:.") : 0;

	if (bracketed && memchr(text, ':', digits) == NULL)
		return false;
	if (bracketed && text[digits] != '%')
		return digits == len;
	digits += bracketed; /* the zone's % */
	return digits < len && digits + strspn(text + digits, letters) >= len;
}

static bool parse_host(struct redis_url *url, const char *text, size_t len, const char **why)
{
	size_t skip = 0, host_len;

	if (len > 0 && text[0] == '[') {
		const char *close = memchr(text, ']', len);

		if (close == NULL)
			return wrong(why, "a bracket is not closed");
		skip = 1;
		host_len = (size_t)(close - text) - 1;
	} else {
		const char *colon = memchr(text, ':', len);

		host_len = colon != NULL ? (size_t)(colon - text) : len;
	}
	if (host_len >= sizeof url->host || !is_host(text + skip, host_len, skip > 0))
		return wrong(why, "the host is missing, too long or no host");
	memcpy(url->host, text + skip, host_len);
	url->host[host_len] = '\0';
	text += host_len + 2 * skip;
	len -= host_len + 2 * skip;
	if (len == 0)
		return true;
	if (text[0] != ':')
		return wrong(why, "only a port may follow the host");
	return parse_port(url, text + 1, len - 1, why);
}

bool redis_url_parse(struct redis_url *url, const char *text, const char **why)
{
	size_t len;
	const char *at = NULL;

	*url = (struct redis_url){ .port = "6379" };
	if (strncmp(text, "unix://", 7) == 0)
		return parse_unix(url, text + 7, why);
	if (strncmp(text, "redis://", 8) != 0)
		return wrong(why, "it begins with neither redis:// nor unix://");
	text += 8;
	len = strcspn(text, "/");
	for (size_t i = 0; i < len; i++)
		if (text[i] == '@')
			at = text + i;
	if (at != NULL && !parse_login(url, text, (size_t)(at - text), why))
		return false;
	if (at != NULL) {
		len -= (size_t)(at + 1 - text);
		text = at + 1;
	}
	if (!parse_host(url, text, len, why))
		return false;
	return text[len] == '\0' || parse_db(url, text + len + 1, why);
}

bool redis_url_set_password(struct redis_url *url, const char *password)
{
	size_t len = strlen(password);

	if (len >= sizeof url->password)
		return false;
	memcpy(url->password, password, len + 1);
	return true;
}
