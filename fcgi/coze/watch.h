/*
 * watch.h - the sockets that libcurl wants to be watched, on the event loop.
 *
 * Owns: a poll handle for each of them, until watch_remove(), or watch_unset() of one that was not added. The sockets are
 * the caller's. Knows nothing of calls, nor libcurl's names: events are libuv's, UV_READABLE and UV_WRITABLE.
 *
 * libuv's uv_poll_start() costs two system calls, and libcurl wants a kept connection watched anew for each call: so a
 * connection that was added stays watched for reading between calls, until it is closed or something happens on it that
 * nobody wants.
 *
 * libcurl may leave a connection readable and read nothing from it any more, so that the loop would spin: on_unread.
 */
#ifndef COZE_WATCH_H
#define COZE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct watch;

/* Both may call everything here, also for `fd`. */
struct watch_ops {
	/*
	 * Some of the events that are wanted; 0: the connection has broken, but what came before may still be unread. False:
	 * nothing came of it.
	 */
	bool (*on_event)(void *arg, int fd, int events);
	/* Time and again nothing came of a readable socket, and nothing is read from it: it should be given up. */
	void (*on_unread)(void *arg, int fd);
};

/* Embedded in who owns the sockets. */
struct watches {
	uv_loop_t *loop;
	const struct watch_ops *ops;
	void *arg;
	struct watch **by_fd; /* `cap` of them, NULL where none is watched */
	size_t cap;
};

/* `loop`, `ops` and `arg` are lent, until watches_fini(). */
void watches_init(struct watches *watches, uv_loop_t *loop, const struct watch_ops *ops, void *arg);

/* Watches none any more. No callback follows; what libuv still holds, it frees in its next turn. */
void watches_fini(struct watches *watches);

/* A socket that was just opened, and whose closing will be told (watch_remove). False: no memory. */
bool watch_add(struct watches *watches, int fd);

/* `events` are wanted of a socket, also of one that was not added. False: no memory to watch it. */
bool watch_set(struct watches *watches, int fd, int events);

/* Nothing is wanted of it for now. One that was not added may be closed from here on without a word. */
void watch_unset(struct watches *watches, int fd);

/* The socket is about to be closed. Nothing happens for one that is not known. */
void watch_remove(struct watches *watches, int fd);

/*
 * Ends the connection but does not close the socket: libcurl sees the end before it gives the connection to another call.
 * What was still to be read is lost.
 */
void watch_end_connection(int fd);

/* The local port of the connection; 0: unknown. */
int watch_local_port(int fd);

#endif
