/*
 * test_turn.c - a turn takes its steps in order, tells its end once and leaves nothing behind, whoever fails and whenever
 * its client leaves or its time is up.
 *
 * Its neighbours are played here: the functions of coze.h, claims.h and limiter.h below stand in front of the archive's.
 * Each call, to a neighbour or to the sink, adds a word to the world's story, so a test says what has happened, in which
 * order, and that nothing else has. The loop is libuv's own, on a clock that only pass() moves.
 */
#include "story.h"
#include "unit.h"

#include <fcntl.h>
#include <unistd.h>
#include <uv.h>

#include "failing_alloc.h"

#include "base/log.h"
#include "chat/turn.h"
#include "coze/code.h"
#include "coze/coze.h"
#include "coze/failure.h"
#include "store/claims.h"
#include "store/limiter.h"

#define LIMIT_MS        60000
#define LEAVE_LIMIT_MS  800
#define FIRST_PAUSE_MIN 375 /* of retry.h: half a second, give or take a quarter */
#define FIRST_PAUSE_MAX 625
#define NEXT_PAUSE_MIN  750
#define NEXT_PAUSE_MAX  1250

/* ---- the world of a turn ---- */

struct world;

struct claims {
	struct world *world;
	enum err start; /* what claim_start() answers */
};

struct limiter {
	struct world *world;
	bool limits;
	enum err admit; /* what limiter_admit() answers */
};

struct coze {
	struct world *world;
	enum err start;    /* what coze_chat_start() answers */
	bool gone_at_once; /* there is nothing to tell when a chat is cancelled */
	bool streamed;     /* the newest question's */
	char user_id[ID_MAX + 1];
	char text[16];
};

struct claim {
	struct world *world;
	claim_granted_fn on_granted;
	claim_saved_fn on_saved;
	void *arg, *saved_arg;
	bool holding, bound, ended;
};

struct admission {
	struct world *world;
	limiter_fn fn;
	void *arg;
};

struct coze_chat {
	struct world *world;
	const struct coze_chat_ops *ops;
	void *arg;
	struct coze_ids ids;
	bool cancelled;
	void (*on_gone)(void *arg);
	void *gone_arg;
};

struct client {
	struct world *world;
	struct turn *turn;
	enum err on_accepted, on_text; /* what its sink answers */
	bool pauses;                   /* at a text */
	bool left, done;
	bool failed;         /* `error` is set */
	struct error error;  /* that it was told at the end */
	struct coze_ids ids; /* and with which ids */
	struct client *next; /* starts its turn when this one is done */
};

struct world {
	uv_loop_t loop;
	struct turn_context context;
	struct claims claims;
	struct limiter limiter;
	struct coze coze;
	struct claim *claim; /* the newest; likewise: */
	struct admission *slot;
	struct coze_chat *chat;
	unsigned live; /* claims, admissions and chats that have not been freed */
	struct client client;
	struct story story;
};

static int open_world(void **state)
{
	struct world *world = (struct world *)get_memory(sizeof *world);

	if (uv_loop_init(&world->loop) != 0)
		return 1;
	world->context = (struct turn_context){
		.loop = &world->loop,
		.coze = &world->coze,
		.claims = &world->claims,
		.limiter = &world->limiter,
		.default_user_id = "nobody",
		.max_retries = 3,
		.max_running = 3,
	};
	breaker_init(&world->context.breaker);
	retry_budget_init(&world->context.budget, uv_now(&world->loop));
	world->claims.world = world->limiter.world = world->coze.world = world->client.world = world;
	*state = world;
	return 0;
}

/* Every test lets its turns run out: nothing may be left then, and nothing may have happened unseen. */
static int close_world(void **state)
{
	struct world *world = *state;

	assert_story(world, "");
	assert_int_equal(world->context.running, 0);
	assert_int_equal(world->live, 0);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	free(world);
	return 0;
}

/* ---- the session ---- */

enum err claim_start(struct claim **out, struct claims *claims, const char *session_id, const char *user_id,
		     claim_granted_fn fn, void *arg)
{
	struct world *world = claims->world;

	if (claims->start != ERR_OK)
		return claims->start;
	tell(world, "claim(%s,%s)", session_id, user_id);
	world->claim = (struct claim *)get_memory(sizeof *world->claim);
	*world->claim = (struct claim){ .world = world, .on_granted = fn, .arg = arg };
	world->live++;
	*out = world->claim;
	return ERR_OK;
}

void claim_accepted(struct claim *claim, const char *conversation_id)
{
	assert_true(claim->holding && !claim->bound && !claim->ended);
	claim->bound = true;
	tell(claim->world, "bind(%s)", conversation_id);
}

void claim_end(struct claim *claim, claim_saved_fn fn, void *arg)
{
	assert_false(claim->ended);
	claim->ended = true;
	claim->on_saved = fn;
	claim->saved_arg = arg;
	tell(claim->world, "end");
}

static void grant(struct claim *claim, const char *conversation_id, const char *owner)
{
	struct claim_grant granted = { "", "" };

	assert_false(claim->ended);
	snprintf(granted.conversation_id, sizeof granted.conversation_id, "%s", conversation_id);
	snprintf(granted.owner, sizeof granted.owner, "%s", owner);
	claim->holding = true;
	claim->on_granted(claim->arg, NULL, &granted);
}

static void refuse(struct claim *claim, enum err code)
{
	struct error error;

	assert_false(claim->ended);
	error_set(&error, code, NULL, "refused");
	claim->on_granted(claim->arg, &error, NULL);
}

/* Redis has answered the claim's end; ERR_OK or what went wrong. */
static void saved(struct claim *claim, enum err code)
{
	struct world *world = claim->world;
	struct error error;

	assert_true(claim->ended);
	error_set(&error, code, NULL, "saving");
	claim->on_saved(claim->saved_arg, code != ERR_OK ? &error : NULL);
	if (world->claim == claim)
		world->claim = NULL;
	free(claim);
	world->live--;
	pass(world, 0);
}

/* ---- the slot ---- */

bool limiter_limits(const struct limiter *limiter)
{
	return limiter->limits;
}

enum err limiter_admit(struct admission **out, struct limiter *limiter, limiter_fn fn, void *arg)
{
	struct world *world = limiter->world;

	assert_true(limiter->limits);
	if (limiter->admit != ERR_OK)
		return limiter->admit;
	tell(world, "slot");
	world->slot = (struct admission *)get_memory(sizeof *world->slot);
	*world->slot = (struct admission){ world, fn, arg };
	world->live++;
	*out = world->slot;
	return ERR_OK;
}

static void free_admission(struct admission *admission)
{
	if (admission->world->slot == admission)
		admission->world->slot = NULL;
	admission->world->live--;
	free(admission);
}

void admission_cancel(struct admission *admission)
{
	tell(admission->world, "unslot");
	free_admission(admission);
}

/* The slot has come, or it never will. */
static void answer_slot(struct admission *admission, enum err code)
{
	struct admission answered = *admission;
	struct error error;

	free_admission(admission);
	error_set(&error, code, NULL, "waiting for a slot");
	answered.fn(answered.arg, code != ERR_OK ? &error : NULL);
	pass(answered.world, 0);
}

/* ---- Coze ---- */

enum err coze_chat_start(struct coze_chat **out, struct coze *coze, const struct coze_question *question,
			 const struct coze_chat_ops *ops, void *arg)
{
	struct world *world = coze->world;

	if (coze->start != ERR_OK)
		return coze->start;
	tell(world, "ask(%s)", question->conversation_id);
	coze->streamed = question->stream;
	snprintf(coze->user_id, sizeof coze->user_id, "%s", question->user_id);
	snprintf(coze->text, sizeof coze->text, "%.*s", (int)question->text_len, question->text);
	world->chat = (struct coze_chat *)get_memory(sizeof *world->chat);
	*world->chat = (struct coze_chat){ .world = world, .ops = ops, .arg = arg };
	snprintf(world->chat->ids.logid, sizeof world->chat->ids.logid, "log");
	world->live++;
	*out = world->chat;
	return ERR_OK;
}

static void free_chat(struct coze_chat *chat)
{
	if (chat->world->chat == chat)
		chat->world->chat = NULL;
	chat->world->live--;
	free(chat);
}

/* Coze has heard that nobody wants the answer. */
static void gone(struct coze_chat *chat)
{
	struct world *world = chat->world;

	assert_true(chat->cancelled);
	chat->on_gone(chat->gone_arg);
	free_chat(chat);
	pass(world, 0);
}

void coze_chat_cancel(struct coze_chat *chat, void (*on_gone)(void *arg), void *arg)
{
	assert_false(chat->cancelled);
	tell(chat->world, "cancel");
	chat->cancelled = true;
	chat->on_gone = on_gone;
	chat->gone_arg = arg;
	if (!chat->world->coze.gone_at_once)
		return;
	on_gone(arg);
	free_chat(chat);
}

void coze_chat_pause(struct coze_chat *chat)
{
	tell(chat->world, "pause");
}

void coze_chat_resume(struct coze_chat *chat)
{
	tell(chat->world, "resume");
}

const char *coze_chat_doing(const struct coze_chat *chat)
{
	(void)chat;
	return "waiting for coze";
}

static void chat_ends(struct coze_chat *chat, const struct failure *failure)
{
	struct world *world = chat->world;

	assert_false(chat->cancelled);
	chat->ops->on_done(chat->arg, &chat->ids, failure);
	if (failure != NULL && failure->cancelling) { /* until gone() */
		chat->cancelled = true;
		chat->on_gone = chat->ops->on_gone;
		chat->gone_arg = chat->arg;
	} else {
		free_chat(chat);
	}
	pass(world, 0);
}

static void completes(struct coze_chat *chat)
{
	chat_ends(chat, NULL);
}

/* traits: of enum code_trait. */
static void fails_later(struct coze_chat *chat, enum err code, unsigned traits, unsigned retry_after_s)
{
	struct failure failure = { .traits = traits };

	error_set(&failure.error, code, "不行", "it failed");
	failure.error.retry_after_s = retry_after_s;
	chat_ends(chat, &failure);
}

static void fails(struct coze_chat *chat, enum err code, unsigned traits)
{
	fails_later(chat, code, traits, 0);
}

/* It fails here, still runs at Coze, and is being cancelled there. */
static void breaks(struct coze_chat *chat, enum err code, unsigned traits)
{
	struct failure failure = { .traits = traits, .cancelling = true };

	error_set(&failure.error, code, NULL, "it broke");
	chat_ends(chat, &failure);
}

/* As coze.h says: an error of these two ends the chat with it. */
static void accepts(struct coze_chat *chat, const char *conversation_id)
{
	enum err rc;

	snprintf(chat->ids.conversation_id, sizeof chat->ids.conversation_id, "%s", conversation_id);
	snprintf(chat->ids.chat_id, sizeof chat->ids.chat_id, "chat");
	rc = chat->ops->on_accepted(chat->arg, &chat->ids);
	if (rc != ERR_OK)
		fails(chat, rc, 0);
}

static void says(struct coze_chat *chat, const char *text)
{
	enum err rc = chat->ops->on_text(chat->arg, text, strlen(text));

	if (rc != ERR_OK)
		fails(chat, rc, 0);
}

/* ---- the client ---- */

static void start(struct client *client);

static void assert_listens(const struct client *client)
{
	if (client->left || client->done)
		fail_msg("the sink was called after its end");
}

static enum err on_accepted(void *arg, const struct coze_ids *ids)
{
	struct client *client = arg;

	assert_listens(client);
	tell(client->world, "accepted(%s)", ids->conversation_id);
	return client->on_accepted;
}

static enum err on_text(void *arg, const char *text, size_t len)
{
	struct client *client = arg;

	assert_listens(client);
	tell(client->world, "text(%.*s)", (int)len, text);
	if (client->pauses)
		turn_pause(client->turn);
	return client->on_text;
}

static void on_done(void *arg, const struct coze_ids *ids, const struct error *error)
{
	struct client *client = arg;

	assert_listens(client);
	tell(client->world, "done(%s)", error != NULL ? error_name(error->code) : "ok");
	client->done = true;
	client->ids = *ids;
	client->failed = error != NULL;
	if (error != NULL)
		client->error = *error;
	if (client->next != NULL)
		start(client->next);
}

static const struct turn_sink sink = { on_accepted, on_text, on_done };

static const struct turn_question hello = {
	.session_id = "s",
	.user_id = "",
	.conversation_id = "",
	.message = "hello",
	.message_len = 5,
	.limit_ms = LIMIT_MS,
	.limit_name = "CHAT_TIMEOUT_SECONDS",
	.limit_detail = "聊天失败: timeout",
};

static enum err try_start(struct client *client, const struct turn_question *question, struct error *why)
{
	return turn_start(&client->turn, &client->world->context, question, &sink, client, why);
}

static void start_with(struct client *client, const struct turn_question *question)
{
	struct error why;

	assert_int_equal(try_start(client, question, &why), ERR_OK);
	assert_non_null(client->turn);
}

static void start(struct client *client)
{
	start_with(client, &hello);
}

static void leave(struct client *client)
{
	client->left = true;
	turn_cancel(client->turn);
	pass(client->world, 0);
}

/* Starts a turn of the world's client, up to the question; the story begins behind it. */
static void start_asking(struct world *world)
{
	start(&world->client);
	grant(world->claim, "", "");
	assert_story(world, "claim(s,) ask()");
}

/* ---- all the way ---- */

static void test_turn_goes_its_way(void **state)
{
	struct world *world = *state;
	struct client *client = &world->client;

	world->limiter.limits = true;
	start(client);
	assert_story(world, "claim(s,)");
	assert_int_equal(world->context.running, 1);
	grant(world->claim, "c", "");
	assert_story(world, "slot");
	answer_slot(world->slot, ERR_OK);
	assert_story(world, "ask(c)");
	accepts(world->chat, "c");
	assert_story(world, "bind(c) accepted(c)");
	says(world->chat, "你");
	says(world->chat, "好");
	assert_story(world, "text(你) text(好)");
	snprintf(world->chat->ids.message_id, sizeof world->chat->ids.message_id, "m");
	completes(world->chat);
	/* The client is told only when its next message would find the session free. */
	assert_story(world, "end");
	assert_int_equal(world->context.running, 1);
	saved(world->claim, ERR_OK);
	assert_story(world, "done(ok)");
	assert_int_equal(world->context.running, 0);
	assert_string_equal(client->ids.conversation_id, "c");
	assert_string_equal(client->ids.message_id, "m");
	assert_string_equal(client->ids.logid, "log");
}

static void test_turn_without_a_limit_asks_at_once(void **state)
{
	struct world *world = *state;

	start(&world->client);
	assert_int_equal(turn_retries(world->client.turn), 0);
	grant(world->claim, "", "");
	assert_story(world, "claim(s,) ask()");
	assert_int_equal(turn_retries(world->client.turn), 0);
	accepts(world->chat, "new");
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(new) accepted(new) text(hi) end done(ok)");
}

static void test_turn_asks_for_whom_and_where(void **state)
{
	static const struct {
		const char *user_id, *conversation_id; /* of the request */
		const char *owner, *remembered;        /* of the session */
		const char *claimed, *asked, *asking_user;
		bool poll;
	} cases[] = {
		{ "", "", "", "", "claim(s,)", "ask()", "nobody", false },
		{ "", "", "", "", "claim(s,)", "ask()", "nobody", true },
		{ "ann", "", "", "", "claim(s,ann)", "ask()", "ann", false },
		{ "", "", "ann", "", "claim(s,)", "ask()", "ann", false },
		{ "ann", "", "ann", "old", "claim(s,ann)", "ask(old)", "ann", false },
		{ "", "", "", "old", "claim(s,)", "ask(old)", "nobody", false },
		{ "", "mine", "", "old", "claim(s,)", "ask(mine)", "nobody", false },
		{ "", "mine", "ann", "", "claim(s,)", "ask(mine)", "ann", true },
	};
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct client client = { .world = world };
		struct turn_question question = hello;
		char *message = exact_copy("hello", 5);

		question.user_id = cases[i].user_id;
		question.conversation_id = cases[i].conversation_id;
		question.message = message;
		world->context.poll = cases[i].poll;
		start_with(&client, &question);
		free(message);
		assert_story(world, cases[i].claimed);
		grant(world->claim, cases[i].remembered, cases[i].owner);
		assert_story(world, cases[i].asked);
		assert_string_equal(world->coze.user_id, cases[i].asking_user);
		assert_string_equal(world->coze.text, "hello");
		assert_int_equal(world->coze.streamed, !cases[i].poll);
		completes(world->chat);
		saved(world->claim, ERR_OK);
		assert_story(world, "end done(ok)");
	}
}

/* The answer is there, and the claim goes on trying: the client need not hear of it. */
static void test_turn_is_complete_although_redis_is_away_at_its_end(void **state)
{
	struct world *world = *state;

	start_asking(world);
	accepts(world->chat, "c");
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_STORE);
	assert_story(world, "bind(c) accepted(c) text(hi) end done(ok)");
}

static void test_turns_do_not_disturb_each_other(void **state)
{
	struct world *world = *state;
	struct client other = { .world = world };
	struct claim *first_claim, *other_claim;
	struct coze_chat *first_chat, *other_chat;

	start(&world->client);
	first_claim = world->claim;
	start(&other);
	other_claim = world->claim;
	assert_int_equal(world->context.running, 2);
	grant(other_claim, "b", "");
	other_chat = world->chat;
	grant(first_claim, "a", "");
	first_chat = world->chat;
	assert_story(world, "claim(s,) claim(s,) ask(b) ask(a)");
	accepts(other_chat, "b");
	accepts(first_chat, "a");
	leave(&other);
	says(first_chat, "hi");
	completes(first_chat);
	saved(first_claim, ERR_OK);
	assert_story(world, "bind(b) accepted(b) bind(a) accepted(a) cancel text(hi) end done(ok)");
	assert_int_equal(world->context.running, 1);
	gone(other_chat);
	saved(other_claim, ERR_OK);
	assert_story(world, "end");
}

static void test_turn_may_follow_from_within_the_end_of_another(void **state)
{
	struct world *world = *state;
	struct client other = { .world = world };
	struct claim *first_claim;

	world->client.next = &other;
	start_asking(world);
	first_claim = world->claim;
	completes(world->chat);
	saved(first_claim, ERR_OK);
	assert_story(world, "end done(ok) claim(s,)");
	leave(&other);
	saved(world->claim, ERR_OK);
	assert_story(world, "end");
}

/* ---- it does not even begin ---- */

static void assert_does_not_start(struct world *world, enum err code)
{
	struct client client = { .world = world, .turn = (struct turn *)world };
	size_t running = world->context.running;
	struct error why;

	assert_int_equal(try_start(&client, &hello, &why), code);
	assert_int_equal(why.code, code);
	assert_true(why.cause[0] != '\0');
	assert_null(client.turn);
	assert_int_equal(world->context.running, running);
	pass(world, 0);
	assert_story(world, "");
}

static void test_turn_is_refused_when_too_many_run(void **state)
{
	struct world *world = *state;

	world->context.max_running = 1;
	start_asking(world);
	assert_does_not_start(world, ERR_TOO_MANY);
	/* Also while one only waits for its session to be saved: its memory is still there. */
	leave(&world->client);
	assert_story(world, "cancel");
	assert_does_not_start(world, ERR_TOO_MANY);
	gone(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end");
	world->client.left = false;
	start_asking(world);
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

static void test_turn_is_refused_without_redis(void **state)
{
	struct world *world = *state;

	world->claims.start = ERR_STORE;
	assert_does_not_start(world, ERR_STORE);
	world->claims.start = ERR_NOMEM;
	assert_does_not_start(world, ERR_NOMEM);
}

static void test_turn_is_refused_without_memory(void **state)
{
	struct world *world = *state;

	for (int good = 0; good < 2; good++) { /* the turn, its message */
		struct client client = { .world = world };
		struct error why;
		enum err rc;

		alloc_fail_after(good);
		rc = try_start(&client, &hello, &why);
		if (!alloc_failed()) {
			assert_int_equal(rc, ERR_OK);
			leave(&client);
			saved(world->claim, ERR_OK);
			assert_story(world, "claim(s,) end");
			continue;
		}
		assert_int_equal(rc, ERR_NOMEM);
		assert_int_equal(why.code, ERR_NOMEM);
		assert_null(client.turn);
		assert_int_equal(world->context.running, 0);
		assert_story(world, "");
	}
}

/* ---- at every stage: the client leaves, time is up ---- */

enum stage { CLAIMING, PERMITTING, PAUSING, ASKING, ANSWERING, TALKING, SAVING };

/* `stop` is what happens when it stops there, apart from what the client is told. */
static const struct {
	enum stage stage;
	const char *doing, *stop;
} stages[] = {
	{ CLAIMING, "waiting for the session", "end" },
	{ PERMITTING, "waiting for a slot", "unslot end" },
	{ PAUSING, "pausing before a retry", "end" },
	{ ASKING, "waiting for coze", "cancel" },
	{ ANSWERING, "waiting for coze", "cancel" },
	{ TALKING, "waiting for coze", "cancel" },
	{ SAVING, "saving to redis", "" },
};

static void bring_to(struct client *client, enum stage stage)
{
	struct world *world = client->world;

	world->limiter.limits = true;
	start(client);
	if (stage >= PERMITTING)
		grant(world->claim, "", "");
	if (stage > PERMITTING)
		answer_slot(world->slot, ERR_OK);
	if (stage == PAUSING)
		fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	if (stage >= ANSWERING)
		accepts(world->chat, "c");
	if (stage >= TALKING)
		says(world->chat, "hi");
	if (stage >= SAVING)
		completes(world->chat);
	story_forget(&world->story);
}

/* What is still under way answers at last; no more than the session's saving comes of it. */
static void run_out(struct world *world)
{
	if (world->chat != NULL) {
		gone(world->chat);
		assert_story(world, "end");
	}
	pass(world, 2 * LIMIT_MS);
	assert_story(world, "");
	assert_int_equal(world->context.running, 1);
	saved(world->claim, ERR_OK);
	assert_int_equal(world->context.running, 0);
}

static void test_turn_says_what_it_waits_for(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(stages); i++) {
		struct client client = { .world = world };

		bring_to(&client, stages[i].stage);
		assert_string_equal(turn_doing(client.turn), stages[i].doing);
		leave(&client);
		if (world->chat != NULL)
			assert_string_equal(turn_doing(client.turn), "cancelling at coze");
		else
			assert_string_equal(turn_doing(client.turn), "saving to redis");
		story_forget(&world->story);
		run_out(world);
	}
}

static void test_turn_stops_when_its_client_leaves(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(stages); i++) {
		struct client client = { .world = world };

		bring_to(&client, stages[i].stage);
		leave(&client);
		assert_story(world, stages[i].stop);
		run_out(world);
		assert_story(world, "");
	}
}

static void test_turn_ends_when_time_is_up(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(stages); i++) {
		struct client client = { .world = world };
		char story[64];

		if (stages[i].stage == PAUSING || stages[i].stage == SAVING)
			continue; /* no pause reaches the deadline; saving has a limit of its own */
		bring_to(&client, stages[i].stage);
		pass(world, LIMIT_MS - 1);
		assert_story(world, "");
		pass(world, 1);
		snprintf(story, sizeof story, "done(timeout) %s", stages[i].stop);
		assert_story(world, story);
		assert_string_equal(client.error.detail, hello.limit_detail);
		assert_contains(client.error.cause, stages[i].doing);
		assert_contains(client.error.cause, hello.limit_name);
		run_out(world);
		assert_story(world, "");
	}
}

static void test_turn_has_no_deadline_while_it_saves(void **state)
{
	struct world *world = *state;

	bring_to(&world->client, SAVING);
	pass(world, 2 * LIMIT_MS);
	assert_story(world, "");
	saved(world->claim, ERR_OK);
	assert_story(world, "done(ok)");
}

static void test_turn_that_is_over_time_has_told_whose_answer_it_was(void **state)
{
	struct world *world = *state;

	bring_to(&world->client, TALKING);
	pass(world, LIMIT_MS);
	assert_story(world, "done(timeout) cancel");
	assert_string_equal(world->client.ids.conversation_id, "c");
	run_out(world);
}

/* ---- leaving ---- */

/* Leaving and being over time, at which chats are cancelled. */
static void part(struct client *client, bool by_deadline)
{
	if (by_deadline)
		pass(client->world, LIMIT_MS);
	else
		leave(client);
	assert_true(client->done == by_deadline);
	if (by_deadline)
		story_forget(&client->world->story);
}

static void test_turn_leaves_at_once_when_there_is_nothing_to_cancel(void **state)
{
	struct world *world = *state;

	world->coze.gone_at_once = true;
	for (int stage = ASKING; stage <= TALKING; stage++) {
		for (int by_deadline = 0; by_deadline < 2; by_deadline++) {
			struct client client = { .world = world };

			bring_to(&client, (enum stage)stage);
			part(&client, by_deadline);
			if (!by_deadline)
				assert_story(world, "cancel end");
			run_out(world);
		}
	}
}

static void test_turn_holds_its_session_until_coze_has_heard(void **state)
{
	struct world *world = *state;

	for (int by_deadline = 0; by_deadline < 2; by_deadline++) {
		struct client client = { .world = world };

		bring_to(&client, ANSWERING);
		part(&client, by_deadline);
		story_forget(&world->story);
		pass(world, LEAVE_LIMIT_MS - 1);
		assert_story(world, "");
		gone(world->chat);
		assert_story(world, "end");
		run_out(world);
	}
}

static void test_turn_does_not_hold_its_session_for_long(void **state)
{
	struct world *world = *state;

	for (int by_deadline = 0; by_deadline < 2; by_deadline++) {
		for (int saved_first = 0; saved_first < 2; saved_first++) {
			struct client client = { .world = world };

			bring_to(&client, ANSWERING);
			part(&client, by_deadline);
			story_forget(&world->story);
			pass(world, LEAVE_LIMIT_MS - 1);
			assert_story(world, "");
			pass(world, 1);
			assert_story(world, "end");
			if (saved_first)
				saved(world->claim, ERR_OK);
			else
				gone(world->chat);
			pass(world, LIMIT_MS);
			assert_int_equal(world->context.running, 1);
			if (saved_first)
				gone(world->chat);
			else
				saved(world->claim, ERR_OK);
			assert_int_equal(world->context.running, 0);
			assert_story(world, "");
		}
	}
}

static void test_turn_that_nobody_listens_to_bears_redis_being_away(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(stages); i++) {
		struct client client = { .world = world };

		bring_to(&client, stages[i].stage);
		leave(&client);
		if (world->chat != NULL)
			gone(world->chat);
		saved(world->claim, ERR_STORE);
		assert_int_equal(world->context.running, 0);
		story_forget(&world->story);
	}
}

/* ---- chats that fail here and still run at Coze ---- */

static void test_turn_tells_a_break_at_once_and_holds_its_session(void **state)
{
	struct world *world = *state;

	for (int stage = ANSWERING; stage <= TALKING; stage++) {
		struct client client = { .world = world };

		bring_to(&client, (enum stage)stage);
		breaks(world->chat, ERR_COZE_UNREACHABLE, 0);
		assert_story(world, "done(coze_unreachable)");
		assert_string_equal(client.ids.conversation_id, "c");
		pass(world, LEAVE_LIMIT_MS - 1);
		assert_story(world, "");
		run_out(world);
	}
}

static void test_turn_does_not_hold_its_session_for_long_after_a_break(void **state)
{
	struct world *world = *state;

	for (int saved_first = 0; saved_first < 2; saved_first++) {
		struct client client = { .world = world };

		bring_to(&client, TALKING);
		breaks(world->chat, ERR_COZE_UNREACHABLE, 0);
		pass(world, LEAVE_LIMIT_MS - 1);
		assert_story(world, "done(coze_unreachable)");
		pass(world, 1);
		assert_story(world, "end");
		if (saved_first)
			saved(world->claim, ERR_OK);
		else
			gone(world->chat);
		assert_int_equal(world->context.running, 1);
		if (saved_first)
			gone(world->chat);
		else
			saved(world->claim, ERR_OK);
		assert_int_equal(world->context.running, 0);
		assert_story(world, "");
	}
}

/* The message is being answered already, whatever might help otherwise. */
static void test_turn_does_not_try_again_while_its_chat_runs(void **state)
{
	static const unsigned traits[] = { CODE_RETRY, CODE_OCCUPIED };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(traits); i++) {
		struct client client = { .world = world };

		bring_to(&client, ANSWERING);
		breaks(world->chat, ERR_COZE_BUSY, traits[i]);
		assert_story(world, "done(coze_busy)");
		run_out(world);
	}
}

/* ---- the worker stops ---- */

static void test_turn_ends_when_its_worker_stops(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(stages); i++) {
		struct client client = { .world = world };
		char story[64];

		world->context.stopping = false;
		bring_to(&client, stages[i].stage);
		turns_stop(&world->context);
		pass(world, 0);
		if (stages[i].stage == SAVING) { /* it is at its end anyway */
			assert_story(world, "");
			saved(world->claim, ERR_OK);
			assert_story(world, "done(ok)");
			continue;
		}
		snprintf(story, sizeof story, "done(stopping) %s", stages[i].stop);
		assert_story(world, story);
		assert_contains(client.error.cause, stages[i].doing);
		run_out(world);
	}
}

static void test_all_turns_end_when_their_worker_stops(void **state)
{
	struct world *world = *state;
	struct client clients[3] = { { .world = world }, { .world = world }, { .world = world } };
	struct claim *claims[3];
	struct coze_chat *chat;

	for (int i = 0; i < 3; i++) {
		start(&clients[i]);
		claims[i] = world->claim;
	}
	grant(claims[1], "", "");
	chat = world->chat;
	leave(&clients[1]);
	assert_story(world, "claim(s,) claim(s,) claim(s,) ask() cancel");
	turns_stop(&world->context);
	assert_story(world, "done(stopping) end done(stopping) end");
	turns_stop(&world->context);
	assert_story(world, "");
	saved(claims[2], ERR_STORE);
	turns_stop(&world->context);
	saved(claims[0], ERR_STORE);
	gone(chat);
	saved(claims[1], ERR_STORE);
	assert_story(world, "end");
	turns_stop(&world->context);
	assert_does_not_start(world, ERR_STOPPING);
}

/* ---- neighbours that fail ---- */

static void test_turn_ends_when_the_session_is_refused(void **state)
{
	static const enum err codes[] = { ERR_FORBIDDEN, ERR_SESSION_BUSY, ERR_STORE };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(codes); i++) {
		struct client client = { .world = world };
		char story[64];

		bring_to(&client, CLAIMING);
		refuse(world->claim, codes[i]);
		/* The claim has to be ended all the same. */
		assert_story(world, "end");
		saved(world->claim, i & 1 ? ERR_STORE : ERR_OK);
		snprintf(story, sizeof story, "done(%s)", error_name(codes[i]));
		assert_story(world, story);
		assert_string_equal(client.error.cause, "refused");
		assert_int_equal(world->context.running, 0);
	}
}

static void test_turn_ends_when_the_slot_is_refused(void **state)
{
	struct world *world = *state;
	struct client client = { .world = world };

	bring_to(&client, PERMITTING);
	answer_slot(world->slot, ERR_RATE);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(rate)");
	client = (struct client){ .world = world };
	bring_to(&client, PERMITTING);
	answer_slot(world->slot, ERR_STORE);
	saved(world->claim, ERR_STORE);
	assert_story(world, "end done(store)");
	client = (struct client){ .world = world };
	bring_to(&client, CLAIMING);
	world->limiter.admit = ERR_STORE;
	grant(world->claim, "", "");
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(store)");
}

static void test_turn_ends_when_the_slot_for_a_retry_is_refused(void **state)
{
	struct world *world = *state;

	bring_to(&world->client, PAUSING);
	pass(world, FIRST_PAUSE_MAX);
	assert_story(world, "slot");
	answer_slot(world->slot, ERR_RATE);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(rate)");
}

static void test_turn_ends_without_memory_for_a_chat(void **state)
{
	struct world *world = *state;

	world->coze.start = ERR_NOMEM;
	start(&world->client);
	grant(world->claim, "", "");
	saved(world->claim, ERR_OK);
	assert_story(world, "claim(s,) end done(no_memory)");
}

static void test_turn_ends_when_its_chat_fails(void **state)
{
	struct world *world = *state;

	for (int stage = ASKING; stage <= TALKING; stage++) {
		struct client client = { .world = world };

		bring_to(&client, (enum stage)stage);
		fails(world->chat, ERR_COZE_REFUSED, 0);
		assert_story(world, "end");
		saved(world->claim, ERR_OK);
		assert_story(world, "done(coze_refused)");
		assert_string_equal(client.error.detail, "不行");
		assert_string_equal(client.error.cause, "it failed");
	}
}

/* A limit of Coze's own passed: the user is told what he is told when the turn's passes. */
static void test_turn_tells_every_timeout_alike(void **state)
{
	struct world *world = *state;

	bring_to(&world->client, ASKING);
	fails(world->chat, ERR_TIMEOUT, CODE_DOWN);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(timeout)");
	assert_string_equal(world->client.error.detail, hello.limit_detail);
	assert_string_equal(world->client.error.cause, "it failed");
}

static void test_turn_ends_with_the_error_of_its_sink(void **state)
{
	struct world *world = *state;
	struct client client = { .world = world, .on_accepted = ERR_NOMEM };

	bring_to(&client, ASKING);
	accepts(world->chat, "c");
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(c) accepted(c) end done(no_memory)");
	client = (struct client){ .world = world, .on_text = ERR_ANSWER_TOO_BIG };
	bring_to(&client, ANSWERING);
	says(world->chat, "hi");
	saved(world->claim, ERR_OK);
	assert_story(world, "text(hi) end done(answer_too_big)");
}

/* ---- retries ---- */

/* The next attempt comes when a pause is over that lies between these two. */
static void assert_pauses(struct world *world, uint64_t least_ms, uint64_t most_ms, const char *then)
{
	pass(world, least_ms - 1);
	assert_story(world, "");
	pass(world, most_ms - least_ms + 1);
	assert_story(world, then);
}

static void test_turn_tries_again_with_growing_pauses(void **state)
{
	struct world *world = *state;

	start_asking(world);
	for (unsigned i = 0; i < 3; i++) {
		fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
		assert_pauses(world, (uint64_t)FIRST_PAUSE_MIN << i, (uint64_t)FIRST_PAUSE_MAX << i, "ask()");
		assert_int_equal(turn_retries(world->client.turn), i + 1);
	}
	accepts(world->chat, "c");
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(c) accepted(c) text(hi) end done(ok)");
}

static void test_turn_tries_again_only_so_often(void **state)
{
	struct world *world = *state;

	for (unsigned retries = 0; retries < 4; retries++) {
		struct client client = { .world = world };

		world->context.max_retries = retries;
		retry_budget_init(&world->context.budget, uv_now(&world->loop));
		start(&client);
		grant(world->claim, "", "");
		for (unsigned i = 0; i < retries; i++) {
			fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
			pass(world, 10000);
		}
		story_forget(&world->story);
		fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
		assert_story(world, "end");
		saved(world->claim, ERR_OK);
		assert_story(world, "done(coze_busy)");
	}
}

static void test_turn_asks_for_a_slot_for_each_attempt(void **state)
{
	struct world *world = *state;

	bring_to(&world->client, ASKING);
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	assert_pauses(world, FIRST_PAUSE_MIN, FIRST_PAUSE_MAX, "slot");
	answer_slot(world->slot, ERR_OK);
	assert_story(world, "ask()");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

static void test_turn_waits_as_long_as_coze_asks_for(void **state)
{
	struct world *world = *state;

	start_asking(world);
	fails_later(world->chat, ERR_COZE_BUSY, CODE_RETRY, 7);
	assert_pauses(world, 7000, 8000, "ask()");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

/* A pause that the deadline cuts off would only make the client wait. */
static void test_turn_does_not_pause_into_its_deadline(void **state)
{
	static const unsigned traits[] = { CODE_RETRY, CODE_OCCUPIED };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(traits); i++) {
		struct client client = { .world = world };
		double savings;

		start(&client);
		grant(world->claim, "", "");
		pass(world, LIMIT_MS - FIRST_PAUSE_MIN);
		savings = world->context.budget.savings;
		fails(world->chat, ERR_COZE_BUSY, traits[i]);
		saved(world->claim, ERR_OK);
		assert_story(world, "claim(s,) ask() end done(coze_busy)");
		assert_true(world->context.budget.savings >= savings);
		client = (struct client){ .world = world };
		start(&client);
		grant(world->claim, "", "");
		fails_later(world->chat, ERR_COZE_BUSY, traits[i], LIMIT_MS / 1000);
		saved(world->claim, ERR_OK);
		assert_story(world, "claim(s,) ask() end done(coze_busy)");
		assert_int_equal(client.error.retry_after_s, LIMIT_MS / 1000);
	}
}

static void test_turn_does_not_try_again_without_a_budget(void **state)
{
	struct world *world = *state;

	world->context.budget.savings = 0;
	start_asking(world);
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_busy)");
	/* The message has earned a tenth of a retry, and nothing was spent. */
	assert_in_range((int)(world->context.budget.savings * 100 + 0.5), 10, 10);
}

static void test_turn_earns_once_and_pays_for_each_retry(void **state)
{
	struct world *world = *state;
	struct retry_budget *budget = &world->context.budget;

	budget->savings = 50; /* so much that time gives nothing */
	start_asking(world);
	for (int i = 0; i < 3; i++) {
		fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
		pass(world, 10000);
	}
	assert_story(world, "ask() ask() ask()");
	assert_in_range((int)(budget->savings * 100 + 0.5), 4710, 4710);
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	assert_in_range((int)(budget->savings * 100 + 0.5), 4710, 4710);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_busy)");
}

static void test_turn_never_tries_again_after_text(void **state)
{
	static const unsigned traits[] = { CODE_RETRY, CODE_OCCUPIED, CODE_RETRY | CODE_DOWN,
					   CODE_DROP_CONVERSATION };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(traits); i++) {
		struct client client = { .world = world };

		bring_to(&client, TALKING);
		fails(world->chat, ERR_COZE_BUSY, traits[i]);
		saved(world->claim, ERR_OK);
		assert_story(world, "end done(coze_busy)");
	}
}

/* The question is in that conversation now, and the session bound to it: the answer belongs there, too. */
static void test_turn_accepted_without_a_word_tries_again_where_it_was(void **state)
{
	struct world *world = *state;

	start_asking(world);
	accepts(world->chat, "new");
	assert_story(world, "bind(new) accepted(new)");
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	assert_pauses(world, FIRST_PAUSE_MIN, FIRST_PAUSE_MAX, "ask(new)");
	/* Bound and told only once. */
	accepts(world->chat, "new");
	assert_story(world, "");
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "text(hi) end done(ok)");
	assert_string_equal(world->client.ids.conversation_id, "new");
}

/* The client was told this conversation, and the session is bound to it, whatever became of the attempt after it. */
static void test_turn_names_the_conversation_that_was_accepted(void **state)
{
	struct world *world = *state;

	start_asking(world);
	accepts(world->chat, "new");
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	pass(world, FIRST_PAUSE_MAX);
	fails(world->chat, ERR_COZE_REFUSED, 0);
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(new) accepted(new) ask(new) end done(coze_refused)");
	assert_string_equal(world->client.ids.conversation_id, "new");
}

static void test_turn_stops_its_retry_when_the_client_leaves(void **state)
{
	struct world *world = *state;

	start_asking(world);
	accepts(world->chat, "c");
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	pass(world, FIRST_PAUSE_MAX);
	assert_story(world, "bind(c) accepted(c) ask(c)");
	leave(&world->client);
	assert_story(world, "cancel");
	run_out(world);
}

/* ---- an occupied conversation ---- */

/* It costs Coze nothing: neither the retries nor the budget nor anything but the deadline limits that. */
static void test_turn_waits_for_an_occupied_conversation(void **state)
{
	struct world *world = *state;

	world->context.max_retries = 0;
	world->context.budget.savings = 0;
	start_asking(world);
	fails(world->chat, ERR_COZE_BUSY, CODE_OCCUPIED);
	assert_pauses(world, FIRST_PAUSE_MIN, FIRST_PAUSE_MAX, "ask()");
	for (int i = 0; i < 20; i++) {
		fails(world->chat, ERR_COZE_BUSY, CODE_OCCUPIED);
		assert_pauses(world, NEXT_PAUSE_MIN, NEXT_PAUSE_MAX, "ask()");
	}
	assert_int_equal(turn_retries(world->client.turn), 21);
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

static void test_turn_gives_an_occupied_conversation_up_before_its_deadline(void **state)
{
	struct world *world = *state;
	uint64_t began_ms = clock_ms;

	start_asking(world);
	for (;;) {
		fails(world->chat, ERR_COZE_BUSY, CODE_OCCUPIED);
		if (world->claim->ended)
			break;
		for (int ms = 0; ms < NEXT_PAUSE_MAX && world->chat == NULL; ms++)
			pass(world, 1);
		assert_story(world, "ask()");
	}
	assert_in_range(clock_ms - began_ms, LIMIT_MS - NEXT_PAUSE_MAX, LIMIT_MS - 1);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_busy)");
}

static void test_turn_counts_no_retry_for_an_occupied_conversation(void **state)
{
	struct world *world = *state;

	world->context.max_retries = 1;
	start_asking(world);
	for (int i = 0; i < 3; i++) {
		fails(world->chat, ERR_COZE_BUSY, CODE_OCCUPIED);
		pass(world, NEXT_PAUSE_MAX);
	}
	assert_story(world, "ask() ask() ask()");
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	assert_pauses(world, FIRST_PAUSE_MIN, FIRST_PAUSE_MAX, "ask()");
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_busy)");
}

/* ---- a conversation that Coze does not know ---- */

static void test_turn_drops_a_remembered_conversation_once(void **state)
{
	struct world *world = *state;

	world->limiter.limits = true;
	world->context.max_retries = 0;
	world->context.budget.savings = 0;
	start(&world->client);
	grant(world->claim, "old", "");
	answer_slot(world->slot, ERR_OK);
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	answer_slot(world->slot, ERR_OK);
	assert_story(world, "claim(s,) slot ask(old) slot ask()");
	assert_int_equal(turn_retries(world->client.turn), 1);
	accepts(world->chat, "new");
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(new) accepted(new) text(hi) end done(ok)");
	assert_string_equal(world->client.ids.conversation_id, "new");
}

static void test_turn_drops_no_second_conversation(void **state)
{
	struct world *world = *state;

	start(&world->client);
	grant(world->claim, "old", "");
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	saved(world->claim, ERR_OK);
	assert_story(world, "claim(s,) ask(old) ask() end done(coze_refused)");
}

static void test_turn_has_nothing_to_drop_in_a_new_session(void **state)
{
	struct world *world = *state;

	start_asking(world);
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	assert_story(world, "end");
	saved(world->claim, ERR_OK);
	assert_story(world, "done(coze_refused)");
}

/* Whoever names a conversation means that one. */
static void test_turn_does_not_drop_a_conversation_that_the_client_named(void **state)
{
	struct turn_question question = hello;
	struct world *world = *state;

	question.conversation_id = "mine";
	start_with(&world->client, &question);
	grant(world->claim, "old", "");
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	saved(world->claim, ERR_OK);
	assert_story(world, "claim(s,) ask(mine) end done(coze_refused)");
	assert_contains(world->client.error.detail, "mine");
}

static void test_turn_does_not_drop_a_conversation_that_coze_accepted(void **state)
{
	struct world *world = *state;

	start(&world->client);
	grant(world->claim, "old", "");
	accepts(world->chat, "old");
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	saved(world->claim, ERR_OK);
	assert_story(world, "claim(s,) ask(old) bind(old) accepted(old) end done(coze_refused)");
}

static void test_turn_leaves_while_it_asks_anew(void **state)
{
	struct world *world = *state;

	world->limiter.limits = true;
	start(&world->client);
	grant(world->claim, "old", "");
	answer_slot(world->slot, ERR_OK);
	fails(world->chat, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION);
	leave(&world->client);
	assert_story(world, "claim(s,) slot ask(old) slot unslot end");
	run_out(world);
}

/* ---- the circuit ---- */

/* Others have found that Coze is down. */
static void open_circuit(struct world *world)
{
	for (int i = 0; i < BREAKER_FAILURES; i++)
		breaker_failed(&world->context.breaker, false, uv_now(&world->loop));
	assert_true(breaker_refuses(&world->context.breaker, uv_now(&world->loop)));
}

static bool circuit_refuses(const struct world *world)
{
	return breaker_refuses(&world->context.breaker, uv_now(&world->loop));
}

/* A turn whose question is the one that finds out. */
static void start_probe(struct client *client)
{
	struct world *world = client->world;

	open_circuit(world);
	pass(world, BREAKER_PAUSE_MS);
	start(client);
	grant(world->claim, "", "");
	assert_story(world, "claim(s,) ask()");
	assert_true(circuit_refuses(world));
}

static void test_turn_is_refused_while_the_circuit_is_open(void **state)
{
	struct world *world = *state;
	struct client client = { .world = world };
	struct error why;

	open_circuit(world);
	assert_does_not_start(world, ERR_CIRCUIT);
	assert_int_equal(try_start(&client, &hello, &why), ERR_CIRCUIT);
	assert_in_range(why.retry_after_s, BREAKER_PAUSE_MS / 1000, BREAKER_PAUSE_MS / 1000 + 1);
	pass(world, BREAKER_PAUSE_MS);
	start_asking(world);
	assert_does_not_start(world, ERR_CIRCUIT);
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
	assert_false(circuit_refuses(world));
}

static void test_turn_ends_when_the_circuit_opens_while_it_waits(void **state)
{
	struct world *world = *state;
	struct client client = { .world = world };

	start(&client);
	open_circuit(world);
	grant(world->claim, "", "");
	assert_story(world, "claim(s,) end");
	saved(world->claim, ERR_OK);
	assert_story(world, "done(circuit_open)");
	assert_in_range(client.error.retry_after_s, BREAKER_PAUSE_MS / 1000, BREAKER_PAUSE_MS / 1000 + 1);
	breaker_init(&world->context.breaker);
	client = (struct client){ .world = world };
	bring_to(&client, PERMITTING);
	open_circuit(world);
	answer_slot(world->slot, ERR_OK);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(circuit_open)");
}

static void test_turn_ends_when_the_circuit_opens_while_it_pauses(void **state)
{
	struct world *world = *state;

	world->limiter.limits = false;
	start_asking(world);
	fails(world->chat, ERR_COZE_BUSY, CODE_RETRY);
	open_circuit(world);
	pass(world, FIRST_PAUSE_MAX);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(circuit_open)");
}

static void test_turns_open_the_circuit(void **state)
{
	struct world *world = *state;

	for (int i = 0; i < BREAKER_FAILURES; i++) {
		struct client client = { .world = world };

		assert_false(circuit_refuses(world));
		start(&client);
		grant(world->claim, "", "");
		fails(world->chat, ERR_TIMEOUT, CODE_DOWN);
		saved(world->claim, ERR_OK);
		assert_story(world, "claim(s,) ask() end done(timeout)");
	}
	assert_true(circuit_refuses(world));
	assert_int_equal(breaker_wait_ms(&world->context.breaker, uv_now(&world->loop)), BREAKER_PAUSE_MS);
}

static void test_turn_does_not_try_again_when_its_failure_opens_the_circuit(void **state)
{
	struct world *world = *state;

	for (int i = 1; i < BREAKER_FAILURES; i++)
		breaker_failed(&world->context.breaker, false, uv_now(&world->loop));
	start_asking(world);
	fails(world->chat, ERR_COZE_UNREACHABLE, CODE_RETRY | CODE_DOWN);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_unreachable)");
	assert_true(circuit_refuses(world));
}

static void test_turn_counts_as_good_whatever_coze_answers(void **state)
{
	static const unsigned traits[] = { 0, CODE_ALARM, CODE_RETRY };
	struct world *world = *state;

	world->context.max_retries = 0;
	for (size_t i = 0; i < COUNT(traits); i++) {
		struct client client = { .world = world };

		for (int failure = 1; failure < BREAKER_FAILURES; failure++)
			breaker_failed(&world->context.breaker, false, uv_now(&world->loop));
		start(&client);
		grant(world->claim, "", "");
		fails(world->chat, ERR_COZE_REFUSED, traits[i]);
		assert_int_equal(world->context.breaker.failures, 0);
		saved(world->claim, ERR_OK);
		assert_story(world, "claim(s,) ask() end done(coze_refused)");
	}
}

static void test_probe_closes_the_circuit_when_it_is_accepted(void **state)
{
	struct world *world = *state;

	start_probe(&world->client);
	accepts(world->chat, "c");
	assert_false(breaker_is_open(&world->context.breaker));
	says(world->chat, "hi");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "bind(c) accepted(c) text(hi) end done(ok)");
	assert_false(breaker_is_open(&world->context.breaker));
}

static void test_probe_that_is_refused_closes_the_circuit(void **state)
{
	struct world *world = *state;

	start_probe(&world->client);
	fails(world->chat, ERR_COZE_REFUSED, 0);
	assert_false(breaker_is_open(&world->context.breaker));
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_refused)");
}

static void test_probe_that_fails_opens_the_circuit_for_longer(void **state)
{
	struct world *world = *state;

	start_probe(&world->client);
	fails(world->chat, ERR_COZE_UNREACHABLE, CODE_RETRY | CODE_DOWN);
	assert_int_equal(breaker_wait_ms(&world->context.breaker, uv_now(&world->loop)),
			 2 * BREAKER_PAUSE_MS);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(coze_unreachable)");
	assert_int_equal(breaker_wait_ms(&world->context.breaker, uv_now(&world->loop)),
			 2 * BREAKER_PAUSE_MS);
}

/* The next message may probe at once; and what still comes of the turn that left does not let a third one through. */
static void test_probe_whose_client_leaves_lets_another_one_probe(void **state)
{
	struct world *world = *state;

	for (int by_deadline = 0; by_deadline < 2; by_deadline++) {
		struct client client = { .world = world }, other = { .world = world };
		struct claim *claim, *other_claim;
		struct coze_chat *chat, *other_chat;

		start_probe(&client);
		claim = world->claim;
		chat = world->chat;
		part(&client, by_deadline);
		story_forget(&world->story);
		assert_true(breaker_is_open(&world->context.breaker));
		assert_false(circuit_refuses(world));
		start(&other);
		other_claim = world->claim;
		grant(other_claim, "", "");
		other_chat = world->chat;
		assert_story(world, "claim(s,) ask()");
		assert_true(circuit_refuses(world));
		gone(chat);
		saved(claim, ERR_OK);
		assert_story(world, "end");
		assert_true(circuit_refuses(world));
		completes(other_chat);
		saved(other_claim, ERR_OK);
		assert_story(world, "end done(ok)");
		assert_false(breaker_is_open(&world->context.breaker));
	}
}

/* It has told its outcome when it was accepted: what comes later says nothing of a probe that runs by then. */
static void test_probe_tells_its_outcome_only_once(void **state)
{
	struct world *world = *state;

	for (int leaves = 0; leaves < 2; leaves++) {
		struct client client = { .world = world }, other = { .world = world };
		struct claim *claim, *other_claim;
		struct coze_chat *chat;

		start_probe(&client);
		claim = world->claim;
		chat = world->chat;
		accepts(chat, "c");
		assert_story(world, "bind(c) accepted(c)");
		start_probe(&other);
		other_claim = world->claim;
		if (leaves) {
			leave(&client);
			gone(chat);
			assert_story(world, "cancel end");
		} else {
			fails(chat, ERR_COZE_BUSY, CODE_DOWN);
			assert_story(world, "end");
		}
		assert_true(circuit_refuses(world));
		assert_int_equal(world->context.breaker.pause_ms, BREAKER_PAUSE_MS);
		saved(claim, ERR_OK);
		if (!leaves)
			assert_story(world, "done(coze_busy)");
		assert_true(circuit_refuses(world));
		completes(world->chat);
		saved(other_claim, ERR_OK);
		assert_story(world, "end done(ok)");
	}
}

/* Coze has said nothing by that. */
static void test_probe_that_fails_here_lets_another_one_probe(void **state)
{
	static const enum err codes[] = { ERR_NOMEM, ERR_COZE_UNREACHABLE, ERR_COZE_PROTOCOL };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(codes); i++) {
		struct client client = { .world = world };

		start_probe(&client);
		fails(world->chat, codes[i], 0);
		assert_true(breaker_is_open(&world->context.breaker));
		assert_false(circuit_refuses(world));
		saved(world->claim, ERR_OK);
		story_forget(&world->story);
		breaker_init(&world->context.breaker);
	}
}

static void test_turn_that_leaves_without_being_the_probe_lets_none_through(void **state)
{
	struct world *world = *state;
	struct client other = { .world = world };
	struct claim *claim, *other_claim;
	struct coze_chat *chat;

	start_asking(world);
	claim = world->claim;
	chat = world->chat;
	start_probe(&other);
	other_claim = world->claim;
	leave(&world->client);
	assert_true(circuit_refuses(world));
	gone(chat);
	saved(claim, ERR_OK);
	assert_story(world, "cancel end");
	assert_true(circuit_refuses(world));
	completes(world->chat);
	saved(other_claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

static void test_probe_without_memory_lets_another_one_probe(void **state)
{
	struct world *world = *state;

	open_circuit(world);
	pass(world, BREAKER_PAUSE_MS);
	world->coze.start = ERR_NOMEM;
	start(&world->client);
	grant(world->claim, "", "");
	assert_true(breaker_is_open(&world->context.breaker));
	assert_false(circuit_refuses(world));
	saved(world->claim, ERR_OK);
	assert_story(world, "claim(s,) end done(no_memory)");
}

/* ---- back-pressure ---- */

static void test_turn_passes_back_pressure_on(void **state)
{
	struct world *world = *state;

	world->client.pauses = true;
	bring_to(&world->client, ANSWERING);
	says(world->chat, "hi");
	assert_story(world, "text(hi) pause");
	turn_resume(world->client.turn);
	assert_story(world, "resume");
	completes(world->chat);
	saved(world->claim, ERR_OK);
	assert_story(world, "end done(ok)");
}

static void test_turn_without_a_chat_has_nothing_to_pause(void **state)
{
	static const enum stage silent[] = { CLAIMING, PERMITTING, PAUSING, SAVING };
	struct world *world = *state;

	for (size_t i = 0; i < COUNT(silent); i++) {
		struct client client = { .world = world };

		bring_to(&client, silent[i]);
		turn_pause(client.turn);
		turn_resume(client.turn);
		assert_story(world, "");
		leave(&client);
		story_forget(&world->story);
		run_out(world);
	}
}

#define a_turn(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		a_turn(test_turn_goes_its_way),
		a_turn(test_turn_without_a_limit_asks_at_once),
		a_turn(test_turn_asks_for_whom_and_where),
		a_turn(test_turn_is_complete_although_redis_is_away_at_its_end),
		a_turn(test_turns_do_not_disturb_each_other),
		a_turn(test_turn_may_follow_from_within_the_end_of_another),
		a_turn(test_turn_is_refused_when_too_many_run),
		a_turn(test_turn_is_refused_without_redis),
		a_turn(test_turn_is_refused_without_memory),
		a_turn(test_turn_says_what_it_waits_for),
		a_turn(test_turn_stops_when_its_client_leaves),
		a_turn(test_turn_ends_when_time_is_up),
		a_turn(test_turn_has_no_deadline_while_it_saves),
		a_turn(test_turn_that_is_over_time_has_told_whose_answer_it_was),
		a_turn(test_turn_leaves_at_once_when_there_is_nothing_to_cancel),
		a_turn(test_turn_holds_its_session_until_coze_has_heard),
		a_turn(test_turn_does_not_hold_its_session_for_long),
		a_turn(test_turn_that_nobody_listens_to_bears_redis_being_away),
		a_turn(test_turn_tells_a_break_at_once_and_holds_its_session),
		a_turn(test_turn_does_not_hold_its_session_for_long_after_a_break),
		a_turn(test_turn_does_not_try_again_while_its_chat_runs),
		a_turn(test_turn_ends_when_its_worker_stops),
		a_turn(test_all_turns_end_when_their_worker_stops),
		a_turn(test_turn_ends_when_the_session_is_refused),
		a_turn(test_turn_ends_when_the_slot_is_refused),
		a_turn(test_turn_ends_when_the_slot_for_a_retry_is_refused),
		a_turn(test_turn_ends_without_memory_for_a_chat),
		a_turn(test_turn_ends_when_its_chat_fails),
		a_turn(test_turn_tells_every_timeout_alike),
		a_turn(test_turn_ends_with_the_error_of_its_sink),
		a_turn(test_turn_tries_again_with_growing_pauses),
		a_turn(test_turn_tries_again_only_so_often),
		a_turn(test_turn_asks_for_a_slot_for_each_attempt),
		a_turn(test_turn_waits_as_long_as_coze_asks_for),
		a_turn(test_turn_does_not_pause_into_its_deadline),
		a_turn(test_turn_does_not_try_again_without_a_budget),
		a_turn(test_turn_earns_once_and_pays_for_each_retry),
		a_turn(test_turn_never_tries_again_after_text),
		a_turn(test_turn_accepted_without_a_word_tries_again_where_it_was),
		a_turn(test_turn_names_the_conversation_that_was_accepted),
		a_turn(test_turn_stops_its_retry_when_the_client_leaves),
		a_turn(test_turn_waits_for_an_occupied_conversation),
		a_turn(test_turn_gives_an_occupied_conversation_up_before_its_deadline),
		a_turn(test_turn_counts_no_retry_for_an_occupied_conversation),
		a_turn(test_turn_drops_a_remembered_conversation_once),
		a_turn(test_turn_drops_no_second_conversation),
		a_turn(test_turn_has_nothing_to_drop_in_a_new_session),
		a_turn(test_turn_does_not_drop_a_conversation_that_the_client_named),
		a_turn(test_turn_does_not_drop_a_conversation_that_coze_accepted),
		a_turn(test_turn_leaves_while_it_asks_anew),
		a_turn(test_turn_is_refused_while_the_circuit_is_open),
		a_turn(test_turn_ends_when_the_circuit_opens_while_it_waits),
		a_turn(test_turn_ends_when_the_circuit_opens_while_it_pauses),
		a_turn(test_turns_open_the_circuit),
		a_turn(test_turn_does_not_try_again_when_its_failure_opens_the_circuit),
		a_turn(test_turn_counts_as_good_whatever_coze_answers),
		a_turn(test_probe_closes_the_circuit_when_it_is_accepted),
		a_turn(test_probe_that_is_refused_closes_the_circuit),
		a_turn(test_probe_that_fails_opens_the_circuit_for_longer),
		a_turn(test_probe_whose_client_leaves_lets_another_one_probe),
		a_turn(test_probe_tells_its_outcome_only_once),
		a_turn(test_probe_that_fails_here_lets_another_one_probe),
		a_turn(test_turn_that_leaves_without_being_the_probe_lets_none_through),
		a_turn(test_probe_without_memory_lets_another_one_probe),
		a_turn(test_turn_passes_back_pressure_on),
		a_turn(test_turn_without_a_chat_has_nothing_to_pause),
	};

	log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
