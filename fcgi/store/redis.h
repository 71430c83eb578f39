/*
 * redis.h - one connection to Redis on the event loop, kept alive.
 *
 * Owns: hiredis (only redis.c and redis_link.c include its headers), connecting and reconnecting with back-off, the time
 * limit of each command, and the loading of scripts. Knows nothing of sessions.
 *
 * Commands do not leave one by one: those of a round of the loop leave in one write, before it waits again.
 *
 * A server that may move (Redis behind Sentinels) is looked for by a locator before each connect, asked for its ROLE, and
 * left as soon as it refuses writes or the locator names another one.
 *
 * While Redis is away every call fails at once with ERR_STORE. A Redis that accepts commands but does not answer in time
 * (frozen, not refused) counts as away: the connection is dropped and all its commands fail.
 */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"

struct redis;
struct redis_reply;

struct redis_script {
	const char *name;
	const char *source; /* Lua, lent for the connection's life */
};

/* Where a server is. */
struct redis_place {
	char host[256]; /* name or address, without brackets */
	char port[6];   /* digits */
};

/* One that wants to know where the server is, embedded in what it is part of. */
struct redis_follower {
	struct redis_follower *next; /* the locator's */
	/* The server is at `place` (lent for the call); or NULL: nobody knows, and `why`. */
	void (*told)(struct redis_follower *follower, const struct redis_place *place, const char *why);
};

/*
 * Finds a server that may move; the first field of what does so (sentinel.h). Followers are told soon after one of them has
 * asked, and whenever the server turns out to have moved; again and again does no harm; never from within these calls.
 */
struct redis_locator {
	void (*follow)(struct redis_locator *locator, struct redis_follower *follower);
	void (*ask)(struct redis_locator *locator);
	void (*leave)(struct redis_locator *locator, struct redis_follower *follower); /* told no more */
};

struct redis_options {
	/* See redis_url.h; lent for the call. With a locator only user, password and db count, and "" is allowed. */
	const char *url;
	const char *password;          /* instead of the URL's; NULL or "": the URL's; lent for the call */
	struct redis_locator *locator; /* NULL: the server is always where `url` says; lent */
	bool sentinel;       /* it is no store but a Sentinel: no SELECT; its trouble is less of ours */
	uint64_t connect_ms; /* for a connection to be ready for use */
	uint64_t command_ms; /* for a command to be answered */
	const struct redis_script *scripts; /* lent */
	size_t script_count;
	/* A connection that only listens: its channel (NULL: an ordinary one; lent), and whom to tell of messages. */
	const char *channel;
	void (*on_message)(void *arg, const char *message, size_t len);
	void *arg;
};

struct redis_arg {
	const char *bytes;
	size_t len;
};

/* A C string as an argument; lent. */
struct redis_arg redis_text(const char *text);

/* Copies a text into a C string of `size` bytes, cut when longer. */
void redis_text_copy(char *out, size_t size, struct redis_arg text);

/*
 * The answer of a command. ERR_OK: `reply` is valid until the call returns. ERR_STORE: Redis is away, was too slow or
 * answered with an error, and `reply` is NULL; whether the command was executed is not known.
 */
typedef void (*redis_reply_fn)(void *arg, enum err err, const struct redis_reply *reply);

/* One that takes part in the write at the end of a round, embedded in what it is part of. */
struct redis_round {
	struct redis_round *next; /* the connection's */
	/* The write comes now: what is sent from here still leaves with it. */
	void (*before)(struct redis_round *round);
	/*
	 * The write is over; may be NULL. secured: every command so far is in the socket of a Redis on this machine, which will
	 * read all of them at once, and has answered all those before them but the last `earlier` ones. When that is 0 they
	 * will be executed, whatever becomes of this process; and whoever has been answered by Redis twice, on any connection,
	 * and asks it then, finds that they have been. (Redis serves what is ready, round by round, and epoll puts a socket
	 * that was ready in the last round before those that have become so since: a second question may come first, too.)
	 */
	void (*after)(struct redis_round *round, bool secured, size_t earlier);
};

enum err redis_open(struct redis **out, uv_loop_t *loop, const struct redis_options *options,
		    struct error *why);

/* Fails all commands under way, leaves the locator, and frees. */
void redis_close(struct redis *redis);

/* Whether commands can be sent now. */
bool redis_is_ready(const struct redis *redis);

/* Calls `fn` each time that the connection is ready for use (again). */
void redis_on_ready(struct redis *redis, void (*fn)(void *arg), void *arg);

/* Asks each `round`, in the order of these calls, at the end of every round in which there is something to write. Lent. */
void redis_join_rounds(struct redis *redis, struct redis_round *round);

/* Ends this round as if there were something to write. */
void redis_end_round(struct redis *redis);

/*
 * Sends a command. ERR_OK: `fn` will be called exactly once, never from within. Else (ERR_STORE, ERR_NOMEM) it never is.
 * Arguments are copied.
 */
enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count, redis_reply_fn fn,
		       void *arg);

/*
 * Runs script number `script` of the options with `key_count` keys (at most nine) and then arguments, `count` in all. Loads
 * it again when Redis has lost it.
 */
enum err redis_eval(struct redis *redis, size_t script, const struct redis_arg *args, size_t key_count,
		    size_t count, redis_reply_fn fn, void *arg);

/* Text of element `index`, or {"" , 0} when there is none or it is not text. */
struct redis_arg redis_reply_text(const struct redis_reply *reply, size_t index);

/* A text that is the whole reply, or {"", 0}. */
struct redis_arg redis_reply_string(const struct redis_reply *reply);

/* An integer reply, or 0. */
int64_t redis_reply_integer(const struct redis_reply *reply);

#endif
