/*
 * redis_socket.h - puts a connection of hiredis on the event loop.
 *
 * As hiredis' own adapter for libuv, but for three things. That one ignores errors of the poll (a reset, a refused
 * connection), after which libuv polls no more, so that a broken connection would never be noticed. A reply has a ceiling
 * here, and must be one that hiredis can expect. And commands do not leave one by one: those of a round of the loop leave in
 * one write, before it waits again.
 */
#ifndef STORE_REDIS_SOCKET_H
#define STORE_REDIS_SOCKET_H

#include <stdbool.h>
#include <uv.h>

struct redisAsyncContext;

/* Until hiredis lets go of the context. False when memory or the loop refuses; the context is still the caller's. */
bool redis_socket_attach(struct redisAsyncContext *context, uv_loop_t *loop);

/* Why the connection was given up, when it was for a reply; else NULL. Also while hiredis tells of its end. */
const char *redis_socket_why(const struct redisAsyncContext *context);

#endif
