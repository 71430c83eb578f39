/*
 * master.h - keeps a fleet of workers running, and renews it without losing a request.
 *
 * Signals: TERM drains the workers and ends, INT stops them at once, USR1 opens the log anew, here and in every worker.
 * HUP reloads: the program on disk is asked whether it can use the settings (`--check`); if so, this process becomes that
 * program (exec: same pid, same sockets, same children), which then replaces the workers one by one. If not, the log says
 * why, and all goes on as before.
 *
 * In RUN_DIR: coze-chatd.lock, which the master holds locked, coze-chatd.pid, and coze-chatd.state, one line
 * "NUMBER ok|refused|starting|stopping" about reload NUMBER (0: the start).
 */
#ifndef APP_MASTER_H
#define APP_MASTER_H

#include <stdbool.h>

struct config;

/* Runs until told to stop. Returns the process' exit status; what prevents a start is told on standard error. */
int master_run(const struct config *config);

/*
 * Asked by --check: whether workers could listen where `config` says, and write their log. When a master asks, who wants
 * to become this program, the sockets are tried that it does not hold. What prevents it is told on standard error.
 */
bool master_check(const struct config *config);

/*
 * Whether this process was a master before an exec, and still has its workers: then it must not just end when the settings
 * turn out bad after all.
 */
bool master_is_successor(void);

#endif
