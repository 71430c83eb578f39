/*
 * fleet.h - the master's workers: one socket each, and whoever accepts from it.
 *
 * The fleet holds each worker's socket while processes come and go behind it: connections wait in its queue instead of
 * being refused. A process that dies is followed by another, after a pause that doubles while they keep dying young.
 * A process is replaced by starting its successor first, on the same socket; when that one serves, the old one is told to
 * drain (TERM) and leaves the fleet's places, but not its care. One at a time. A process that drains without having been told
 * so by the fleet is replaced like that, too.
 *
 * Not a loop of its own: the master calls fleet_advance() when a child has ended, a worker has signalled (SIGUSR2), or
 * the time that it named has come.
 */
#ifndef APP_FLEET_H
#define APP_FLEET_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/metrics.h"

struct config;
struct fleet;

/*
 * Opens the sockets of `config` (lent) and makes the places; no process runs yet. `handed_over`: what fleet_save() of a
 * predecessor wrote, or NULL: its sockets and processes are taken over, and the processes are to be replaced. `signals`:
 * what a worker unblocks. NULL, with a line per problem in `problems`, when a socket cannot be opened.
 */
struct fleet *fleet_open(const struct config *config, struct metrics_region *metrics, const sigset_t *signals,
			 const char *handed_over, struct buf *problems);

/* Closes the sockets and frees. The processes must have ended. */
void fleet_close(struct fleet *fleet);

/* Starts what is due and goes on replacing. Returns the milliseconds until it should be called again. */
uint64_t fleet_advance(struct fleet *fleet);

/* A child has ended. False when it was none of the fleet's. */
bool fleet_reaped(struct fleet *fleet, pid_t pid, int status);

/* Whether no process is waiting to be replaced. */
bool fleet_is_renewed(const struct fleet *fleet);

/* Whether a process that waits to be replaced cannot be: its last successor died at its start. */
bool fleet_is_stuck(const struct fleet *fleet);

/* Ends or takes over successors that are on their way, so that each place has one process at most. */
void fleet_settle(struct fleet *fleet);

/* The names of the sockets, a line each. */
void fleet_names(const struct fleet *fleet, struct buf *out);

/* Passes a signal on to every process, draining ones too. */
void fleet_signal(const struct fleet *fleet, int number);

/* From now on nothing is started, ends are no surprise, and who drains shuts its socket. Send TERM or INT next. */
void fleet_stop(struct fleet *fleet);

/* Processes that have not ended. */
size_t fleet_running(const struct fleet *fleet);

/* Describes sockets and processes, settled, in lines of text for a successor's fleet_open(), after an exec in this process. */
void fleet_save(const struct fleet *fleet, struct buf *out);

/* Whether the sockets stay open over an exec. */
void fleet_keep_sockets(const struct fleet *fleet, bool keep);

#endif
