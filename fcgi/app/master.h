/*
 * master.h - holds the listening sockets and keeps the workers running.
 *
 * One unix socket per worker, RUN_DIR/worker-N.sock, so that nginx balances by connections. The master keeps each socket
 * while a worker is replaced: connections wait in the backlog instead of being refused. A worker that dies is started
 * again, after a pause that doubles while it keeps dying young.
 * Signals: TERM drains the workers and ends, INT stops them at once.
 */
#ifndef APP_MASTER_H
#define APP_MASTER_H

struct config;

/* Runs until told to stop. Returns the process' exit status; what prevents a start is told on standard error. */
int master_run(const struct config *config);

#endif
