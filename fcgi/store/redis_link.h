/*
 * redis_link.h - one connection to a Redis server on the event loop: commands out, replies in.
 *
 * Of hiredis only the reader is used, which takes replies apart. Its own connections are not for a process that must live
 * on without memory: hiredis 0.14 then loses the callback of a command, so that each reply after it goes to the wrong one,
 * or aborts. It aborts at replies that nobody asked for, too, and sends each command by itself.
 *
 * A reply has a ceiling, and so have the commands that wait to leave. Knows nothing of time limits, scripts or logins.
 */
#ifndef STORE_REDIS_LINK_H
#define STORE_REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <uv.h>

#include "base/error.h"

struct redis_link;
struct redisReply;

/* Whom to tell. The link may be closed from within any of them; after that, and after on_lost, none is called. */
struct redis_link_events {
	void (*on_connected)(void *arg);
	/* The next reply: they come in the order of the commands, and messages of a channel in between. Lent for the call. */
	void (*on_reply)(void *arg, const struct redisReply *reply);
	void (*on_lost)(void *arg, const char *why); /* the link is only to be closed */
};

/* Begins to connect; nothing is told from within. NULL: *why says what prevents it, for the log. */
struct redis_link *redis_link_open(uv_loop_t *loop, const struct sockaddr *address, socklen_t len,
				   const struct redis_link_events *events, void *arg, const char **why);

/* Takes a whole command (resp.h), which leaves with the next flush; once connected. Not ERR_OK: nothing of it will. */
enum err redis_link_send(struct redis_link *link, const char *bytes, size_t len);

/* Writes what was sent since. True: the socket has all of it. Else it takes the rest as soon as it can, or it is lost. */
bool redis_link_flush(struct redis_link *link);

void redis_link_close(struct redis_link *link);

#endif
