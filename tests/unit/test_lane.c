/*
 * test_lane.c - large requests have their turn one after the other, and who brings nothing does not hold up the others.
 */
#include "unit.h"

#include "http/lane.h"

#define MIB    ((size_t)1024 * 1024)
#define ENOUGH ((size_t)16 * 1024) /* to be brought from one look to the next */

struct request {
	struct lane_place place;
	size_t bytes;         /* that are there */
	unsigned quick_looks; /* how often it brings enough, and a byte less from then on; 0: nothing more */
	bool whole;
	unsigned turns, given_up;
	unsigned turn_at; /* how many looks there had been when it got its turn */
};

struct fixture {
	uv_loop_t loop;
	struct lane lane;
	struct request a, b, c;
	bool closed;
};

static unsigned looks; /* how often was_asked() was called */

static bool was_asked(const void *request, size_t *bytes)
{
	const struct request *one = request;
	unsigned few = ++looks > one->quick_looks ? looks - one->quick_looks : 0;

	*bytes = one->bytes;
	if (one->quick_looks > 0)
		*bytes += looks * ENOUGH - few;
	return !one->whole;
}

static void on_turn(void *request)
{
	struct request *one = request;

	one->turns++;
	one->turn_at = looks;
}

static void on_give_up(void *request)
{
	struct request *one = request;

	one->given_up++;
	lane_leave(&one->place);
}

static const struct lane_ops ops = { .is_coming = was_asked, .on_turn = on_turn, .on_give_up = on_give_up };

static int set_up(void **state)
{
	struct fixture *fixture = (struct fixture *)get_memory(sizeof *fixture);

	looks = 0;
	if (uv_loop_init(&fixture->loop) != 0)
		return 1;
	lane_init(&fixture->lane, &fixture->loop, &ops);
	lane_place_init(&fixture->a.place, &fixture->lane, &fixture->a);
	lane_place_init(&fixture->b.place, &fixture->lane, &fixture->b);
	lane_place_init(&fixture->c.place, &fixture->lane, &fixture->c);
	*state = fixture;
	return 0;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;

	lane_close(&fixture->lane, on_closed, &fixture->closed);
	assert_false(fixture->closed);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_true(fixture->closed);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	free(fixture);
	return 0;
}

/* The first has its turn, and the others wait. */
static void enter_all(struct fixture *fixture)
{
	assert_true(lane_enter(&fixture->a.place));
	assert_false(lane_enter(&fixture->b.place));
	assert_false(lane_enter(&fixture->c.place));
}

/* Lets time pass until that many looks at the request in turn were taken. */
static void await_looks(struct fixture *fixture, unsigned wanted)
{
	while (looks < wanted)
		assert_true(uv_run(&fixture->loop, UV_RUN_ONCE));
}

static void test_one_after_the_other_as_they_came(void **state)
{
	struct fixture *f = *state;

	enter_all(f);
	assert_true(lane_has_turn(&f->a.place) && !lane_waits(&f->a.place));
	assert_true(!lane_has_turn(&f->b.place) && lane_waits(&f->b.place));
	lane_leave(&f->a.place);
	assert_true(lane_has_turn(&f->b.place) && !lane_waits(&f->b.place) && lane_waits(&f->c.place));
	assert_int_equal(f->b.turns, 1);
	assert_int_equal(f->c.turns, 0);
	lane_leave(&f->b.place);
	assert_int_equal(f->c.turns, 1);
	lane_leave(&f->c.place);
	assert_int_equal(f->a.turns, 0); /* it did not wait */
	assert_true(lane_enter(&f->a.place));
}

static void test_who_leaves_the_queue_is_passed_over(void **state)
{
	struct fixture *f = *state;

	enter_all(f);
	lane_leave(&f->b.place);
	lane_leave(&f->b.place);
	assert_true(lane_has_turn(&f->a.place));
	lane_leave(&f->a.place);
	assert_int_equal(f->b.turns, 0);
	assert_int_equal(f->c.turns, 1);
}

static void test_who_brings_next_to_nothing_loses_its_turn(void **state)
{
	struct fixture *f = *state;

	f->a.quick_looks = 3;
	assert_true(lane_enter(&f->a.place));
	assert_false(lane_enter(&f->b.place));
	f->b.whole = true;
	while (!lane_has_turn(&f->b.place))
		await_looks(f, looks + 1);
	assert_int_equal(f->b.turn_at, 4);
	assert_int_equal(f->b.turns, 1);
	assert_false(lane_waits(&f->a.place));
	assert_false(lane_enter(&f->a.place)); /* it goes on */
	lane_leave(&f->b.place);
	assert_int_equal(f->a.turns, 1);
	assert_int_equal(f->a.given_up + f->b.given_up, 0);
}

static void test_who_does_not_wait_for_the_peer_keeps_its_turn(void **state)
{
	struct fixture *f = *state;

	f->a.whole = true;
	assert_true(lane_enter(&f->a.place));
	assert_false(lane_enter(&f->b.place));
	await_looks(f, 3);
	assert_true(lane_has_turn(&f->a.place));
}

static void test_alone_it_may_take_its_time(void **state)
{
	struct fixture *f = *state;

	assert_true(lane_enter(&f->a.place));
	assert_false(uv_loop_alive(&f->loop));
	assert_false(lane_enter(&f->b.place));
	lane_leave(&f->b.place);
	uv_run(&f->loop, UV_RUN_DEFAULT); /* until the timer has found nobody that waits */
	assert_int_equal(looks, 0);
	assert_true(lane_has_turn(&f->a.place));
}

static void test_slow_ones_do_not_hold_too_much_together(void **state)
{
	struct fixture *f = *state;

	f->a.bytes = f->b.bytes = 40 * MIB;
	enter_all(f);
	await_looks(f, 2); /* the first one counts all that there is */
	assert_true(lane_has_turn(&f->b.place));
	await_looks(f, 4);
	assert_int_equal(f->a.given_up, 0);
	assert_int_equal(f->b.given_up, 1);
	assert_true(lane_has_turn(&f->c.place));

	/* Once the first has gone, there is room for another. */
	lane_leave(&f->a.place);
	lane_place_init(&f->b.place, &f->lane, &f->b);
	f->c.bytes = 40 * MIB;
	assert_false(lane_enter(&f->b.place));
	while (!lane_has_turn(&f->b.place))
		await_looks(f, looks + 1);
	assert_int_equal(f->c.given_up, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_after_the_other_as_they_came, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_who_leaves_the_queue_is_passed_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_who_brings_next_to_nothing_loses_its_turn, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_who_does_not_wait_for_the_peer_keeps_its_turn, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_alone_it_may_take_its_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_slow_ones_do_not_hold_too_much_together, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
