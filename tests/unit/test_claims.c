/*
 * test_claims.c - what a claim says to Redis and when, whom it tells, and that it lives as long as an answer is to come.
 *
 * Redis and the index of sessions are played here: the functions of redis.h and session_index.h below stand in front of the
 * archive's. Each call adds a word to the world's story. The loop is libuv's own, on a clock that only pass() moves.
 */
#include "story.h"
#include "unit.h"

#include <fcntl.h>
#include <uv.h>

#include "base/log.h"
#include "store/claims.h"
#include "store/redis.h"
#include "store/scripts.h"
#include "store/session_index.h"

#define TTL_MS  86400000
#define LOCK_MS 10000
#define CALLS   16

/* ---- the world of a claim ---- */

struct redis_reply {
	const char *text;
	int64_t number;
};

struct call {
	redis_reply_fn fn;
	void *arg;
};

struct redis {
	struct world *world;
	enum err send; /* what redis_eval() answers */
	struct call calls[CALLS];
	size_t count; /* of them, not answered */
	struct redis_round *round;
	bool round_ends;
	void (*on_ready)(void *arg);
	void *ready_arg;
};

struct world {
	uv_loop_t loop;
	struct redis redis, listener;
	struct claims *claims;
	struct claim *claim;
	void (*on_message)(void *arg, const char *message, size_t len);
	void *message_arg;
	enum err open;   /* what redis_open() answers */
	char ticket[64]; /* of who asked for the session last */
	bool within;     /* a call of ours: nobody may be told */
	struct story story;
};

static struct world *the_world; /* of the test that runs: the index has no other way to it */

/* ---- Redis ---- */

enum err redis_open(struct redis **out, uv_loop_t *loop, const struct redis_options *options,
		    struct error *why)
{
	(void)loop;
	(void)why;
	the_world->on_message = options->on_message;
	the_world->message_arg = options->arg;
	*out = &the_world->listener;
	return the_world->open;
}

void redis_close(struct redis *redis)
{
	(void)redis;
}

bool redis_is_ready(const struct redis *redis)
{
	(void)redis;
	return true;
}

void redis_on_ready(struct redis *redis, void (*fn)(void *arg), void *arg)
{
	redis->on_ready = fn;
	redis->ready_arg = arg;
}

void redis_join_rounds(struct redis *redis, struct redis_round *round)
{
	redis->round = round;
}

void redis_end_round(struct redis *redis)
{
	redis->round_ends = true;
}

enum err redis_eval(struct redis *redis, size_t script, const struct redis_arg *args, size_t key_count,
		    size_t count, redis_reply_fn fn, void *arg)
{
	const struct redis_arg *rest = args + key_count;

	(void)count;
	if (redis->send != ERR_OK)
		return redis->send;
	if (script == SCRIPT_SESSION_BEGIN) {
		redis_text_copy(the_world->ticket, sizeof the_world->ticket, rest[2]);
		tell(the_world, "begin");
	} else if (script == SCRIPT_SESSION_RENEW)
		tell(the_world, "renew");
	else if (rest[1].len == 0)
		tell(the_world, "leave");
	else
		tell(the_world, "%s(%s,%s)", rest[7].bytes[0] == '0' ? "bind" : "end", rest[2].bytes,
		     rest[3].bytes);
	if (script == SCRIPT_SESSION_SAVE && rest[7].bytes[0] == '2')
		tell(the_world, "anew");
	assert_true(redis->count < CALLS);
	redis->calls[redis->count++] = (struct call){ fn, arg };
	redis->round_ends = true;
	return ERR_OK;
}

struct redis_arg redis_text(const char *text)
{
	return (struct redis_arg){ text, strlen(text) };
}

void redis_text_copy(char *out, size_t size, struct redis_arg text)
{
	assert_true(text.len < size);
	memcpy(out, text.bytes, text.len);
	out[text.len] = '\0';
}

struct redis_arg redis_reply_string(const struct redis_reply *reply)
{
	return redis_text(reply->text);
}

int64_t redis_reply_integer(const struct redis_reply *reply)
{
	return reply->number;
}

void session_index_touch(struct session_index *index, const char *session_id, const char *conversation_id,
			 uint64_t active_us)
{
	(void)index;
	(void)session_id;
	(void)conversation_id;
	(void)active_us;
	tell(the_world, "touch");
}

/* Redis answers the call number `index` of those under way: a text, or NULL for an error. */
static void answer(size_t index, const char *text)
{
	struct redis *redis = &the_world->redis;
	const struct redis_reply reply = { text, 1 };
	struct call call = redis->calls[index];

	assert_true(index < redis->count);
	redis->count--;
	memmove(&redis->calls[index], &redis->calls[index + 1], (redis->count - index) * sizeof call);
	call.fn(call.arg, text != NULL ? ERR_OK : ERR_STORE, text != NULL ? &reply : NULL);
}

/* The end of a round. secured: Redis will do it all, and has answered all but so many calls of earlier rounds. */
static void end_round(bool secured, size_t earlier)
{
	struct redis *redis = &the_world->redis;

	assert_true(redis->round_ends);
	redis->round_ends = false;
	redis->round->before(redis->round);
	tell(the_world, "|");
	redis->round->after(redis->round, secured, earlier);
}

/* ---- the owner ---- */

static void on_granted(void *arg, const struct error *error, const struct claim_grant *grant)
{
	(void)arg;
	assert_false(the_world->within);
	if (error != NULL)
		tell(the_world, "refused(%s)", error_name(error->code));
	else
		tell(the_world, "granted(%s,%s)", grant->owner, grant->conversation_id);
}

static void on_saved(void *arg, const struct error *error)
{
	(void)arg;
	assert_false(the_world->within);
	tell(the_world, "saved(%s)", error != NULL ? error_name(error->code) : "ok");
}

static void start(void)
{
	the_world->within = true;
	assert_int_equal(claim_start(&the_world->claim, the_world->claims, "s", "u", on_granted, NULL),
			 ERR_OK);
	the_world->within = false;
	assert_story(the_world, "begin");
	end_round(true, 0);
	assert_story(the_world, "|");
}

static void hold(void)
{
	start();
	answer(0, "ok\n1700000000000000\n7\n1700000000000001\nu\nc0");
	assert_story(the_world, "granted(u,c0)");
}

static void be_accepted(void)
{
	the_world->within = true;
	claim_accepted(the_world->claim, "c1");
	the_world->within = false;
}

static void end(void)
{
	the_world->within = true;
	claim_end(the_world->claim, on_saved, NULL);
	the_world->within = false;
}

static void assert_gone(void)
{
	pass(the_world, 0);
	assert_int_equal(claims_count(the_world->claims), 0);
	assert_int_equal(the_world->redis.count, 0);
}

static int open_world_with(void **state, uint64_t ttl_ms)
{
	const struct claims_options options = {
		.redis_url = "", .ttl_ms = ttl_ms, .wait_ms = 30000, .lock_ms = LOCK_MS
	};
	struct world *world = (struct world *)get_memory(sizeof *world);
	struct error why;

	the_world = world;
	if (uv_loop_init(&world->loop) != 0 ||
	    claims_open(&world->claims, &world->loop, &world->redis, NULL, &options, &why) != ERR_OK)
		return 1;
	*state = world;
	return 0;
}

static int open_world(void **state)
{
	return open_world_with(state, TTL_MS);
}

static int open_brief_world(void **state)
{
	return open_world_with(state, LOCK_MS);
}

static int close_world(void **state)
{
	struct world *world = *state;

	assert_story(the_world, "");
	if (world->claims != NULL)
		claims_close(world->claims);
	pass(the_world, 0);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	free(world);
	return 0;
}

/* ---- tests ---- */

static void test_an_end_in_the_round_of_its_acceptance_says_both(void **state)
{
	(void)state;
	hold();
	be_accepted();
	end();
	assert_story(the_world, "touch");
	end_round(true, 0);
	assert_story(the_world, "end(7,c1) | saved(ok)");
	answer(0, "");
	assert_gone();
}

static void test_acceptance_is_said_at_the_end_of_its_round(void **state)
{
	(void)state;
	hold();
	be_accepted();
	assert_story(the_world, "");
	end_round(true, 0);
	assert_story(the_world, "bind(7,c1) |");
	answer(0, "");
	end();
	end_round(true, 0);
	assert_story(the_world, "touch end(7,c1) | saved(ok)");
	answer(0, "");
	assert_gone();
}

/* Redis is sure to do what it has been given, and of the calls before it owes only the acceptance of this claim. */
static void test_an_end_is_told_when_it_is_sure(void **state)
{
	static const struct {
		bool secured;
		size_t earlier;
		bool told;
	} cases[] = { { true, 1, true }, { true, 2, false }, { false, 1, false } };

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		hold();
		be_accepted();
		end_round(true, 0);
		end();
		assert_story(the_world, "bind(7,c1) | touch");
		end_round(cases[i].secured, cases[i].earlier);
		assert_story(the_world, cases[i].told ? "end(7,c1) | saved(ok)" : "end(7,c1) |");
		answer(0, "");
		assert_story(the_world, "");
		answer(0, "");
		assert_story(the_world, cases[i].told ? "" : "saved(ok)");
		assert_gone();
	}
}

static void test_an_end_that_redis_refuses_is_said_again(void **state)
{
	(void)state;
	for (int told = 0; told < 2; told++) {
		hold();
		be_accepted();
		end();
		end_round(told, 0);
		assert_story(the_world, told ? "touch end(7,c1) | saved(ok)" : "touch end(7,c1) |");
		for (int i = 0; i < 3; i++) {
			answer(0, NULL);
			assert_story(the_world, told || i > 0 ? "" : "saved(store)");
			pass(the_world, 499);
			assert_story(the_world, "");
			pass(the_world, 1);
			end_round(true, 0);
			assert_story(the_world, "touch end(7,c1) |");
		}
		answer(0, "");
		assert_gone();
	}
}

/* Its script was lost, and sent again behind the end. */
static void test_the_answer_to_the_acceptance_may_come_last(void **state)
{
	(void)state;
	hold();
	be_accepted();
	end_round(true, 0);
	end();
	end_round(true, 1);
	assert_story(the_world, "bind(7,c1) | touch end(7,c1) | saved(ok)");
	answer(1, "");
	pass(the_world, 0);
	assert_int_equal(claims_count(the_world->claims), 1);
	answer(0, "");
	assert_gone();
}

static void test_an_end_without_redis_is_told_and_said_when_redis_is_back(void **state)
{
	struct redis *redis = &((struct world *)*state)->redis;

	hold();
	be_accepted();
	redis->send = ERR_STORE;
	end();
	end_round(false, 0);
	assert_story(the_world, "touch saved(store) |");
	pass(the_world, 500);
	end_round(false, 0);
	assert_story(the_world, "touch |");
	redis->send = ERR_OK;
	redis->on_ready(redis->ready_arg);
	pass(the_world, 0);
	end_round(true, 0);
	assert_story(the_world, "touch end(7,c1) |");
	answer(0, "");
	assert_gone();
}

static void test_an_end_waits_for_a_renewal(void **state)
{
	(void)state;
	hold();
	pass(the_world, 250);
	assert_story(the_world, "touch renew");
	end_round(true, 0);
	end();
	assert_story(the_world, "|");
	answer(0, "");
	assert_story(the_world, "touch");
	end_round(true, 0);
	assert_story(the_world, "leave | saved(ok)");
	answer(0, "");
	assert_gone();
}

static void test_who_leaves_while_it_asks_leaves_what_it_got(void **state)
{
	(void)state;
	start();
	end();
	assert_story(the_world, "");
	answer(0, "ok\n1700000000000000\n7\n1700000000000001\n\n");
	end_round(true, 0);
	assert_story(the_world, "touch leave | saved(ok)");
	answer(0, "");
	assert_gone();
}

static void test_verdicts(void **state)
{
	static const struct {
		const char *answer, *story;
	} cases[] = {
		{ "ok\n1\n2\n3\n\n", "granted(,)" },
		{ "ok\n1\n2\n3\nowner\n", "granted(owner,)" },
		{ "ok\n1.5\n2\n3\n\nline\nline", "granted(,line\nline)" },
		{ "forbidden", "refused(forbidden)" },
		{ "wait\n20", "" },
		{ "", "refused(forbidden)" },
		{ NULL, "refused(store)" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		start();
		answer(0, cases[i].answer);
		assert_story(the_world, cases[i].story);
		end();
		end_round(true, 0);
		story_forget(&the_world->story);
		answer(0, "");
		assert_gone();
	}
}

static void test_the_time_to_live_begins_anew_with_the_end_of_a_long_turn(void **state)
{
	(void)state;
	for (int late = 0; late < 2; late++) {
		uint64_t ends_ms = TTL_MS / 1000 + (unsigned)late;

		hold();
		be_accepted();
		/* Renewals are not answered: only what was asked before the acceptance counts. */
		end_round(true, 0);
		assert_story(the_world, "bind(7,c1) |");
		pass(the_world, ends_ms);
		story_forget(&the_world->story);
		answer(0, "");
		end();
		end_round(true, 0);
		assert_story(the_world,
			     late ? "touch end(7,c1) anew | saved(ok)" : "touch end(7,c1) | saved(ok)");
		answer(0, "");
		assert_gone();
	}
}

static void test_a_short_time_to_live_begins_anew_with_every_end(void **state)
{
	(void)state;
	hold();
	be_accepted();
	end();
	end_round(true, 0);
	assert_story(the_world, "touch end(7,c1) anew | saved(ok)");
	answer(0, "");
	assert_gone();
}

/* Even one that has given up, as the session would have expired. */
static void test_no_claim_goes_before_the_last_answer(void **state)
{
	struct redis *redis = &((struct world *)*state)->redis;

	hold();
	be_accepted();
	end_round(true, 0);
	end();
	end_round(true, 1);
	answer(1, NULL);
	assert_story(the_world, "bind(7,c1) | touch end(7,c1) anew | saved(ok)");
	redis->send = ERR_NOMEM;
	for (uint64_t passed = 0; passed <= LOCK_MS; passed += 500) {
		pass(the_world, 500);
		end_round(true, 1);
	}
	story_forget(&the_world->story);
	assert_int_equal(claims_count(the_world->claims), 1);
	pass(the_world, 500);
	answer(0, "");
	assert_gone();
}

static void wake(const char *ticket)
{
	the_world->on_message(the_world->message_arg, ticket, strlen(ticket));
}

/* Begins to wait. Its ticket is copied. */
static struct claim *wait_for_session(char ticket[64])
{
	start();
	answer(0, "wait\n0");
	assert_story(the_world, "");
	memcpy(ticket, the_world->ticket, 64);
	return the_world->claim;
}

static void leave(struct claim *claim)
{
	the_world->claim = claim;
	end();
	end_round(true, 0);
	story_forget(&the_world->story);
	answer(0, "");
	pass(the_world, 0);
}

/* Three that share a bucket of the table, and lose the middle one. */
static void test_each_is_woken_by_its_own_ticket(void **state)
{
	struct claim *claims[3];
	char tickets[3][64];

	(void)state;
	for (size_t i = 0; i < COUNT(claims); i++) {
		claims[i] = wait_for_session(tickets[i]);
		for (size_t other = 1; other < 1024 && i + 1 < COUNT(claims); other++) {
			char ticket[64];

			leave(wait_for_session(ticket));
		}
	}
	for (size_t gone = 0; gone <= COUNT(claims); gone++) {
		static const size_t order[] = { 1, 2, 0 };

		for (size_t i = 0; i < COUNT(claims); i++) {
			wake(tickets[i]);
			if (claims[i] == NULL) {
				assert_story(the_world, "");
				continue;
			}
			assert_story(the_world, "begin");
			assert_string_equal(the_world->ticket, tickets[i]);
			end_round(true, 0);
			answer(0, "wait\n0");
			assert_story(the_world, "|");
		}
		if (gone < COUNT(claims)) {
			leave(claims[order[gone]]);
			claims[order[gone]] = NULL;
		}
	}
	assert_gone();
}

static void test_messages_that_are_no_ticket_wake_nobody(void **state)
{
	static const char *const messages[] = {
		"", "0", "0@elsewhere", "x",
		("00000000000000000000000000000000000000000000000000000000000"
		 "00000000000000000000000000000000000000000000000000000000000")
	};
	char ticket[64];

	(void)state;
	wait_for_session(ticket);
	for (size_t i = 0; i < COUNT(messages); i++)
		wake(messages[i]);
	assert_story(the_world, "");
	leave(the_world->claim);
	assert_gone();
}

static void stop(struct world *world)
{
	claims_close(world->claims);
	world->claims = NULL;
}

static void test_a_stop_tells_who_waits_for_an_end(void **state)
{
	hold();
	be_accepted();
	end();
	end_round(false, 0);
	assert_story(the_world, "touch end(7,c1) |");
	stop(*state);
	assert_story(the_world, "saved(store)");
	answer(0, "");
	assert_story(the_world, "");
}

static void test_a_stop_tells_nobody_twice(void **state)
{
	hold();
	be_accepted();
	the_world->redis.send = ERR_STORE;
	end();
	end_round(false, 0);
	assert_story(the_world, "touch saved(store) |");
	stop(*state);
	assert_story(the_world, "");
}

/* Neither of a renewal nor of a look whether the session is free. */
static void test_answers_after_a_stop_tell_nobody(void **state)
{
	char ticket[64];

	hold();
	wait_for_session(ticket);
	wake(ticket);
	assert_story(the_world, "begin");
	pass(the_world, LOCK_MS / 2);
	end_round(true, 0);
	assert_story(the_world, "touch renew |");
	assert_int_equal(the_world->redis.count, 2);
	stop(*state);
	while (the_world->redis.count > 0)
		answer(0, "ok\n1700000000000000\n7\n1700000000000001\nu\nc0");
	assert_story(the_world, "");
}

static void test_no_claims_without_a_listener(void **state)
{
	struct world *world = *state;
	const struct claims_options options = { .redis_url = "" };
	struct claims *claims;
	struct error why;

	world->open = ERR_STORE;
	assert_int_equal(claims_open(&claims, &world->loop, &world->redis, NULL, &options, &why), ERR_STORE);
	assert_null(world->redis.on_ready);
}

int main(void)
{
#define CLAIM_TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
	const struct CMUnitTest tests[] = {
		CLAIM_TEST(test_an_end_in_the_round_of_its_acceptance_says_both),
		CLAIM_TEST(test_acceptance_is_said_at_the_end_of_its_round),
		CLAIM_TEST(test_an_end_is_told_when_it_is_sure),
		CLAIM_TEST(test_an_end_that_redis_refuses_is_said_again),
		CLAIM_TEST(test_the_answer_to_the_acceptance_may_come_last),
		CLAIM_TEST(test_an_end_without_redis_is_told_and_said_when_redis_is_back),
		CLAIM_TEST(test_an_end_waits_for_a_renewal),
		CLAIM_TEST(test_who_leaves_while_it_asks_leaves_what_it_got),
		CLAIM_TEST(test_verdicts),
		CLAIM_TEST(test_the_time_to_live_begins_anew_with_the_end_of_a_long_turn),
		CLAIM_TEST(test_each_is_woken_by_its_own_ticket),
		CLAIM_TEST(test_messages_that_are_no_ticket_wake_nobody),
		CLAIM_TEST(test_a_stop_tells_who_waits_for_an_end),
		CLAIM_TEST(test_a_stop_tells_nobody_twice),
		CLAIM_TEST(test_answers_after_a_stop_tell_nobody),
		CLAIM_TEST(test_no_claims_without_a_listener),
		cmocka_unit_test_setup_teardown(test_a_short_time_to_live_begins_anew_with_every_end,
						open_brief_world, close_world),
		cmocka_unit_test_setup_teardown(test_no_claim_goes_before_the_last_answer, open_brief_world,
						close_world),
	};

	log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
