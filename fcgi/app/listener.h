/*
 * listener.h - the sockets that workers accept nginx' connections from.
 *
 * A unix socket in RUN_DIR for each worker, or, with WORKER_LISTEN, a TCP port for each: the first worker has the port
 * that is named there, the next one the next port.
 */
#ifndef APP_LISTENER_H
#define APP_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct config;

#define LISTENER_NAME_SIZE 280

/*
 * Writes the name of worker `index`'s socket: a path beginning with a slash, or host:port. False (and a line in
 * `problems`) when there is none: a path too long for a socket, a port above 65535.
 */
bool listener_name(char name[LISTENER_NAME_SIZE], const struct config *config, size_t index,
		   struct buf *problems);

/*
 * Listens on it; returns the descriptor (non-blocking, close-on-exec), or -1 and a line in `problems`. A socket file that
 * nobody listens on any more is replaced, one that somebody does is left alone. Blocks while a host name is looked up.
 */
int listener_open(const char *name, struct buf *problems);

/*
 * Whether every worker of `config` could listen, with a line in `problems` for each that could not. held: names that are
 * listened on already and will be handed over, a line each; NULL: only the names are looked at.
 */
bool listener_check(const struct config *config, const char *held, struct buf *problems);

/* Removes the file of a unix socket; connections that wait in its queue stay there. */
void listener_unlink(const char *name);

#endif
