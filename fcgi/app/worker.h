/*
 * worker.h - one worker process: its loop and everything on it.
 *
 * Signals: TERM and QUIT drain (running requests go on, see DRAIN_TIMEOUT_SECONDS), INT ends them at once: their clients
 * and Coze are told, and their sessions are let go of. USR1 opens the log anew. USR2 says that nobody will follow: then,
 * and when the master is dead or there is none, a draining worker shuts the socket, so that nginx tries another.
 */
#ifndef APP_WORKER_H
#define APP_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "app/handoff.h"
#include "base/metrics.h"

struct config;

struct worker_options {
	const struct config *config;    /* lent */
	struct metrics_region *metrics; /* of the node; lent */
	int listen_fd;
	const struct handoff *handoff; /* from predecessors, and to successors; NULL: there are none */
	pid_t master;                  /* who holds the socket, too; 0: nobody */
	/* A drain takes at least this long: without a master, others must notice first that the worker is gone. */
	uint64_t linger_ms;
	void (*on_state)(void *arg, enum metrics_state state);
	void (*on_worn)(void *arg); /* WORKER_MAX_REQUESTS were served; NULL: then it drains by itself */
	void *arg;
};

/* Serves until told to stop. Returns the process' exit status. Call it once, in a process of its own. */
int worker_run(const struct worker_options *options);

#endif
