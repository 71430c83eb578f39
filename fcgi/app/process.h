/*
 * process.h - what the master and a worker without one both set up for their process.
 */
#ifndef APP_PROCESS_H
#define APP_PROCESS_H

#include <stdbool.h>

struct config;

/* Ignores SIGPIPE, keeps large memory from staying, and raises the limit of descriptors as far as it goes: streams are many, and each may hold two. */
void process_prepare(void);

/* Makes a directory, if it is not there. False after saying why not on standard error. */
bool process_make_directory(const char *path);

/* Whether process_open_log() could; makes nothing. False after saying why not on standard error. */
bool process_check_log(const struct config *config);

/* Opens LOG_FILE, or RUN_DIR/logs/api_server.log with its directories. False after saying why on standard error. */
bool process_open_log(const struct config *config);

#endif
