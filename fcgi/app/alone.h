/*
 * alone.h - one worker without a master, for containers: process 1, listening on WORKER_LISTEN, logging to LOG_FILE.
 *
 * TERM drains: it stops listening at once, so that nginx tries another, and stays for some seconds even when nothing is
 * left to do, because whoever still knows its address should be refused, not left without an answer. The container's
 * restart policy is what starts it again; HUP is ignored.
 */
#ifndef APP_ALONE_H
#define APP_ALONE_H

struct config;

/* Runs until told to stop. Returns the process' exit status; what prevents a start is told on standard error. */
int alone_run(const struct config *config);

#endif
