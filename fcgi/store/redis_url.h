/*
 * redis_url.h - takes a REDIS_URL apart: redis://[[user]:password@]host[:port][/db] or unix://path[?db=N].
 */
#ifndef STORE_REDIS_URL_H
#define STORE_REDIS_URL_H

#include <stdbool.h>

#define REDIS_PASSWORD_MAX 511 /* bytes */

struct redis_url {
	char host[256];                        /* name or address, without brackets; "" for a unix socket */
	char port[6];                          /* digits */
	char path[108];                        /* of a unix socket; "" otherwise */
	char user[128];                        /* "" for Redis' default user */
	char password[REDIS_PASSWORD_MAX + 1]; /* "" for none */
	unsigned db;
};

/* False when `text` is no such URL; *why then says what is wrong, without showing the password. */
bool redis_url_parse(struct redis_url *url, const char *text, const char **why);

/* Takes `password` instead of the URL's own; as it is, nothing is decoded. False, and no change, when it is too long. */
bool redis_url_set_password(struct redis_url *url, const char *password);

#endif
