/*
 * worker.h - one worker process: its loop and everything on it.
 *
 * Signals: TERM drains (running requests go on, see DRAIN_TIMEOUT_SECONDS), INT ends them at once: their clients and
 * Coze are told, and their sessions are let go of.
 */
#ifndef APP_WORKER_H
#define APP_WORKER_H

struct config;

/* Serves `listen_fd` until told to stop. Returns the process' exit status. Call it once, in a process of its own. */
int worker_run(const struct config *config, int listen_fd);

#endif
