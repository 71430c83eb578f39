/*
 * metrics.h - what the workers of a node count, in memory that they share.
 *
 * A region of shared memory belongs to the node: the master makes it and hands it on to its workers and, over a reload, to
 * its successor. Each worker process writes into a block of its own, so no worker waits for another; whoever is asked
 * adds all blocks up. When a process has ended, the master adds its counters to those of the ended and drops its
 * gauges: a restart loses no count, and a killed worker leaves no open stream behind.
 *
 * To count, any module writes `metric_add(&metrics->counters.retries, 1)`. Like the log, the block in use is the
 * process's; before metrics_use() it is a private one, so that nothing must be set up in tests.
 * The names and meanings are in metrics.c, beside the code that prints them.
 */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

#define METRICS_ROUTES   32 /* the last one stands for requests that fit no route */
#define METRICS_STATUSES 20
#define METRICS_BUCKETS  17 /* and one for all that is longer */
#define METRICS_WORKERS  512
#define METRICS_BLOCKS   1024 /* processes at a time; those that drain count, too */

/* Durations. */
struct metrics_histogram {
	uint64_t buckets[METRICS_BUCKETS + 1];
	uint64_t sum_us;
};

enum metrics_turn {
	METRICS_TURN_LOCK,
	METRICS_TURN_SLOT,
	METRICS_TURN_PAUSE,
	METRICS_TURN_ASKING,
	METRICS_TURN_ANSWERING,
	METRICS_TURN_LEAVING,
	METRICS_TURN_SAVING,
	METRICS_TURN__COUNT
};

enum metrics_call {
	METRICS_CALL_CHAT,
	METRICS_CALL_RETRIEVE,
	METRICS_CALL_MESSAGES,
	METRICS_CALL_CANCEL,
	METRICS_CALL__COUNT
};

enum metrics_result {
	METRICS_RESULT_OK,
	METRICS_RESULT_4XX,
	METRICS_RESULT_5XX,
	METRICS_RESULT_NOT_SENT,
	METRICS_RESULT_CONNECT_TIMEOUT,
	METRICS_RESULT_FIRST_BYTE_TIMEOUT,
	METRICS_RESULT_IDLE_TIMEOUT,
	METRICS_RESULT_UNANSWERED,
	METRICS_RESULT_CUT,
	METRICS_RESULT_CANCELLED, /* by us: the client has left, or time was up */
	METRICS_RESULT__COUNT
};

enum metrics_breaker {
	METRICS_BREAKER_CLOSED,
	METRICS_BREAKER_OPEN,
	METRICS_BREAKER_HALF_OPEN,
	METRICS_BREAKER__COUNT
};

enum metrics_redis { METRICS_REDIS_UP, METRICS_REDIS_DOWN, METRICS_REDIS__COUNT };

enum metrics_buffer {
	METRICS_BUFFER_REQUEST,
	METRICS_BUFFER_ANSWER,
	METRICS_BUFFER_OUTPUT,
	METRICS_BUFFER__COUNT
};

#define METRICS_TURN_LEFT ERR__COUNT /* in turns[]: the client has left; else the turn's enum err */

/* Only 64-bit numbers: a block is added up as an array of them. */
struct metrics_counters {
	uint64_t requests[METRICS_ROUTES][METRICS_STATUSES];
	struct metrics_histogram request_time[METRICS_ROUTES];
	struct metrics_histogram first_chunk_time;
	uint64_t turns[ERR__COUNT + 1];
	uint64_t calls[METRICS_CALL__COUNT][METRICS_RESULT__COUNT];
	struct metrics_histogram first_byte_time;
	uint64_t retries;
	struct metrics_histogram redis_time;
	uint64_t redis_failures;
	struct metrics_histogram loop_lag;
	uint64_t log_failures;
	uint64_t reloads_ok, reloads_refused;
};

struct metrics_gauges {
	uint64_t requests, connections, streams;
	uint64_t turns[METRICS_TURN__COUNT];
	uint64_t breakers[METRICS_BREAKER__COUNT];
	uint64_t redis[METRICS_REDIS__COUNT];
	uint64_t buffers[METRICS_BUFFER__COUNT];
};

struct metrics_block {
	struct metrics_counters counters;
	struct metrics_gauges gauges;
};

/* The block of this process. */
extern struct metrics_block *metrics;

static inline void metric_add(uint64_t *cell, uint64_t n)
{
	__atomic_fetch_add(cell, n, __ATOMIC_RELAXED);
}

static inline void metric_sub(uint64_t *cell, uint64_t n)
{
	__atomic_fetch_sub(cell, n, __ATOMIC_RELAXED);
}

void metric_observe(struct metrics_histogram *histogram, uint64_t us);

/* Moves one from gauge `*from` (may be NULL) to gauge `*to` (may be NULL). */
void metric_move(uint64_t *from, uint64_t *to);

/* A finished request; `route` is its number in the table of routes, or METRICS_ROUTES - 1. */
void metric_request(unsigned route, int status, uint64_t us);

/* ---- the region ---- */

struct metrics_region;

enum metrics_state { METRICS_STARTING, METRICS_SERVING, METRICS_DRAINING };

/*
 * A new region, or NULL (errno). Its memory is behind descriptor *fd (close-on-exec), to be handed to a successor. routes:
 * what metrics_write() calls the routes.
 */
struct metrics_region *metrics_region_new(int *fd, const char *const *routes, size_t route_count);

/* The region behind a descriptor that was handed over; NULL when there it means other things, as in another version. */
struct metrics_region *metrics_region_adopt(int fd, const char *const *routes, size_t route_count);

/* Only the master calls these four. */

/* The master itself counts among the ended. */
void metrics_use_master(struct metrics_region *region);

/* A block for a process about to be forked for `worker`; METRICS_BLOCKS when there is none left: it counts for itself. */
size_t metrics_claim(struct metrics_region *region, size_t worker);
void metrics_started(struct metrics_region *region, size_t block, pid_t pid);

/* The process has ended; `died`: without having been told to. A block that is not its own (any more) is left alone. */
void metrics_ended(struct metrics_region *region, size_t block, pid_t pid, size_t worker, bool died);

/* In the new process. */
void metrics_use(struct metrics_region *region, size_t block);

enum metrics_state metrics_state(const struct metrics_region *region, size_t block);
void metrics_set_state(struct metrics_region *region, size_t block, enum metrics_state state);

/* Whether process `block` has asked to be replaced, see WORKER_MAX_REQUESTS. */
bool metrics_is_worn(const struct metrics_region *region, size_t block);
void metrics_set_worn(struct metrics_region *region, size_t block);

/*
 * Appends the sum of all blocks in Prometheus' text format 0.0.4. routes: names by number, `route_count` of them.
 * region: NULL for the private block.
 */
void metrics_write(struct metrics_region *region, const char *const *routes, size_t route_count,
		   const char *version, struct buf *out);

#endif
