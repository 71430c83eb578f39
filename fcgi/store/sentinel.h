/*
 * sentinel.h - where the master is, as the Sentinels say: the locator (redis.h) of a Redis that fails over.
 *
 * All Sentinels are asked at the same time, when a connection wants to know and each second besides, for the address and the
 * epoch of the master's configuration; whom to believe says sentinel_view.h. The first that is not behind is believed at
 * once, so one that is dead or frozen costs nothing, and their order does not matter.
 *
 * Why all, and again and again: a master may be cut off from its replicas and most Sentinels and still be reached from here.
 * Nothing breaks then and nothing is refused, but whatever is written is lost. The Sentinel that is asked may be cut off with
 * it; the others know better. Polling is all that this takes: an event (+switch-master) may be lost with the connection that
 * it comes over, so who subscribes has to poll as well. The connections are kept, as they are used each second.
 *
 * With no Sentinel left to ask, connections stay where they are: the Sentinels' trouble is not to be the service's.
 */
#ifndef STORE_SENTINEL_H
#define STORE_SENTINEL_H

#include <uv.h>

#include "base/error.h"

#define SENTINELS_MAX         16
#define SENTINEL_PASSWORD_MAX 511 /* bytes */

struct redis_locator;
struct sentinel;

struct sentinel_options {
	const char *addresses;   /* 1 to SENTINELS_MAX host:port or [IPv6]:port, with commas between */
	const char *master_name; /* at most 128 bytes */
	const char *password;    /* of the Sentinels; "" for none */
};

/* Everything is copied. ERR_NOMEM, or ERR_STORE when an option is not as said above. */
enum err sentinel_open(struct sentinel **out, uv_loop_t *loop, const struct sentinel_options *options,
		       struct error *why);

/* For the options of connections to the master; lives as long as `sentinel`. */
struct redis_locator *sentinel_locator(struct sentinel *sentinel);

/* After the connections that use it. */
void sentinel_close(struct sentinel *sentinel);

#endif
