/*
 * lane.c - see lane.h.
 */
#include "http/lane.h"

#define STALL_MS    50 /* in which the request in turn must bring STALL_BYTES while others wait */
#define STALL_BYTES (16 * 1024)
#define SLOW_MAX    (64 * 1024 * 1024) /* bytes that those which did not may hold together */

static void set_slow(struct lane_place *place, size_t bytes)
{
	place->lane->slow += bytes - place->slow;
	place->slow = bytes;
}

static void leave_queue(struct lane_place *place)
{
	if (!place->waiting)
		return;
	place->waiting = false;
	TAILQ_REMOVE(&place->lane->queue, place, queued);
}

static void take_turn(struct lane_place *place)
{
	struct lane *lane = place->lane;

	lane->turn = place;
	place->seen = place->slow;
	set_slow(place, 0);
	if (uv_is_active((uv_handle_t *)&lane->stall))
		uv_timer_again(&lane->stall); /* each has the whole time */
}

/* To the one that has waited longest, if any waits. */
static void pass_turn_on(struct lane *lane)
{
	struct lane_place *next = TAILQ_FIRST(&lane->queue);

	lane->turn = NULL;
	if (next == NULL)
		return;
	leave_queue(next);
	take_turn(next);
	lane->ops->on_turn(next->request);
}

/* ---- stalls ---- */

static void lose_turn(struct lane_place *place, size_t bytes)
{
	struct lane *lane = place->lane;

	if (lane->slow > 0 && lane->slow + bytes > SLOW_MAX) {
		lane->ops->on_give_up(place->request);
		return;
	}
	set_slow(place, bytes);
	pass_turn_on(lane);
}

static void on_stall_look(uv_timer_t *timer)
{
	struct lane *lane = timer->data;
	struct lane_place *place = lane->turn;
	size_t bytes, brought;

	if (TAILQ_EMPTY(&lane->queue)) {
		uv_timer_stop(timer);
		return;
	}
	if (place == NULL || !lane->ops->is_coming(place->request, &bytes))
		return;
	brought = bytes - place->seen;
	place->seen = bytes;
	if (brought < STALL_BYTES)
		lose_turn(place, bytes);
}

/* ---- requests ---- */

void lane_place_init(struct lane_place *place, struct lane *lane, void *request)
{
	*place = (struct lane_place){ .lane = lane, .request = request };
}

bool lane_enter(struct lane_place *place)
{
	struct lane *lane = place->lane;

	if (lane->turn == NULL)
		take_turn(place);
	if (lane->turn == place)
		return true;
	place->waiting = true;
	TAILQ_INSERT_TAIL(&lane->queue, place, queued);
	if (!uv_is_active((uv_handle_t *)&lane->stall))
		uv_timer_start(&lane->stall, on_stall_look, STALL_MS, STALL_MS);
	return false;
}

bool lane_has_turn(const struct lane_place *place)
{
	return place->lane->turn == place;
}

bool lane_waits(const struct lane_place *place)
{
	return place->waiting;
}

void lane_leave(struct lane_place *place)
{
	leave_queue(place);
	set_slow(place, 0);
	if (lane_has_turn(place))
		pass_turn_on(place->lane);
}

/* ---- life ---- */

void lane_init(struct lane *lane, uv_loop_t *loop, const struct lane_ops *ops)
{
	*lane = (struct lane){ .ops = ops };
	TAILQ_INIT(&lane->queue);
	uv_timer_init(loop, &lane->stall);
	lane->stall.data = lane;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct lane *lane = handle->data;

	lane->on_closed(lane->closed_arg);
}

void lane_close(struct lane *lane, void (*on_closed)(void *arg), void *arg)
{
	lane->on_closed = on_closed;
	lane->closed_arg = arg;
	uv_close((uv_handle_t *)&lane->stall, on_timer_closed);
}
