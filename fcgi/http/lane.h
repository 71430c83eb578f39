/*
 * lane.h - large requests go one at a time.
 *
 * Bodies of 10 MiB that come by the hundred would take gigabytes, and time of which the answers of others are made. So one
 * is read, decoded and parsed at a time. The others are left where they are, at nginx, in the order of their coming. (Two at
 * a time, on as many cores as workers: a hundred took a third longer, and others waited five times as long meanwhile.)
 *
 * Who has the turn and brings next to nothing while others wait loses it. What it has brought stays, and it queues again when
 * it goes on; but when those who lost their turn would hold too much together, it is given up.
 *
 * Owns: the queue, whose turn it is, and a timer. Knows of a request only how much of it is there: bytes, connections and
 * their time limits are the caller's (fcgi.c).
 */
#ifndef HTTP_LANE_H
#define HTTP_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <uv.h>

struct lane_place;

/* `request` is what lane_place_init() was given. None is called from within lane_enter(). */
struct lane_ops {
	/* Whether more of the request is still to come from the peer; if so, *bytes: how much of it is there. */
	bool (*is_coming)(const void *request, size_t *bytes);
	/* One that waited has the turn now: go on with it, but not from within. */
	void (*on_turn)(void *request);
	/* It is the one that is given up: close it, which includes lane_leave(). */
	void (*on_give_up)(void *request);
};

/* Embedded in who has the requests. */
struct lane {
	const struct lane_ops *ops;
	struct lane_place *turn;        /* whose it is; or NULL */
	TAILQ_HEAD(, lane_place) queue; /* those that wait for it */
	uv_timer_t stall;               /* runs while some wait */
	size_t slow;                    /* bytes that those hold which lost their turn */
	void (*on_closed)(void *arg);
	void *closed_arg;
};

/* Embedded in each request, also in small ones; one that has entered must leave before it is freed. */
struct lane_place {
	struct lane *lane;
	void *request;
	TAILQ_ENTRY(lane_place) queued;
	bool waiting; /* in lane->queue */
	size_t seen;  /* bytes of the request that were there at the last look for stalls */
	size_t slow;  /* bytes of it that were there when it lost its turn; 0: it has not */
};

/* `loop` and `ops` are lent, until the lane is closed. */
void lane_init(struct lane *lane, uv_loop_t *loop, const struct lane_ops *ops);

/* No stall is looked for any more. Calls `on_closed` in a later turn of the loop: then the lane's memory may be freed. */
void lane_close(struct lane *lane, void (*on_closed)(void *arg), void *arg);

void lane_place_init(struct lane_place *place, struct lane *lane, void *request);

/*
 * A request has become large, or more came of one that lost its turn. True: it has the turn from now on, until
 * lane_leave(). False: it waits, and on_turn tells when that is over.
 */
bool lane_enter(struct lane_place *place);

/* Whether it is the request's turn. */
bool lane_has_turn(const struct lane_place *place);

/* Whether it waits for its turn: what else comes of it should not be read. */
bool lane_waits(const struct lane_place *place);

/* The body is not needed any more, or the request is over: the next one has its turn. Also for one that never entered. */
void lane_leave(struct lane_place *place);

#endif
