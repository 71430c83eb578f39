/*
 * redis_socket.h - puts a connection of hiredis on the event loop.
 *
 * As hiredis' own adapter for libuv, but for three things. That one ignores errors of the poll (a reset, a refused
 * connection), after which libuv polls no more, so that a broken connection would never be noticed. A reply has a ceiling
 * here, and must be one that hiredis can expect. And commands do not leave one by one, but when the owner says so.
 */
#ifndef STORE_REDIS_SOCKET_H
#define STORE_REDIS_SOCKET_H

#include <stdbool.h>
#include <uv.h>

struct redisAsyncContext;

/*
 * Until hiredis lets go of the context. on_output: hiredis has something for redis_socket_flush() to write. False when memory
 * or the loop refuses; the context is still the caller's.
 */
bool redis_socket_attach(struct redisAsyncContext *context, uv_loop_t *loop, void (*on_output)(void *arg),
			 void *arg);

/*
 * Writes what hiredis has gathered. True: the socket has all of it. Else it takes the rest as soon as it can, or hiredis has
 * just given the connection up.
 */
bool redis_socket_flush(struct redisAsyncContext *context);

/* Why the connection was given up, when it was for a reply; else NULL. Also while hiredis tells of its end. */
const char *redis_socket_why(const struct redisAsyncContext *context);

#endif
