/*
 * process.h - what the master and a worker without one have in common as processes: limits, files, time, complaints.
 */
#ifndef APP_PROCESS_H
#define APP_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct config;

/*
 * Ignores SIGPIPE, keeps large memory from staying, and raises the limit of descriptors as far as it goes: streams are
 * many, and each may hold two.
 */
void process_prepare(void);

/* Hands freed memory back to the system, wherever it lies. Takes milliseconds when there is much of it. */
void process_give_memory_back(void);

/* Milliseconds of the monotonic clock, for who has no loop. */
uint64_t process_now_ms(void);

/* Says on standard error what failed for `name`, and errno's reason. Always false, so that a caller can return it. */
bool process_complain(const char *what, const char *name);

/* Says lines of problems on standard error. */
void process_tell(const struct buf *problems);

/* Makes a directory, if it is not there. False after saying why not on standard error. */
bool process_make_directory(const char *path);

/* Whether process_open_log() could; makes nothing. False after saying why not on standard error. */
bool process_check_log(const struct config *config);

/* Opens LOG_FILE, or RUN_DIR/logs/api_server.log with its directories. False after saying why on standard error. */
bool process_open_log(const struct config *config);

#endif
