/*
 * turn.c - see turn.h.
 *
 *   CLAIMING ─▶ PERMITTING ─▶ ASKING ─▶ ANSWERING ─▶ SAVING ─▶ OVER
 *                   ▲            │          │          ▲
 *                   └── PAUSING ◀┴──────────┘          │     (retries: before any text was passed on)
 *                            any of them ──▶ LEAVING ──┘     (the client has left, or time is up)
 *
 * A turn lives as long as anything of it is under way, also after its sink was told the end: `sink` is NULL from then on.
 */
#include "chat/turn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "coze/code.h"
#include "coze/coze.h"
#include "coze/failure.h"
#include "store/claims.h"
#include "store/limiter.h"

#define LEAVE_LIMIT_MS   800 /* how long a session waits for Coze to hear of a cancelled chat */
#define OCCUPIED_ATTEMPT 2   /* the longest pause while a conversation is occupied is that of this attempt */

enum turn_state {
	TURN_CLAIMING,   /* waiting for the session's earlier messages */
	TURN_PERMITTING, /* waiting for a slot to start a chat in */
	TURN_PAUSING,    /* waiting before the next attempt */
	TURN_ASKING,     /* Coze has the message, but has not accepted it yet */
	TURN_ANSWERING,  /* Coze has accepted it */
	TURN_LEAVING,    /* nobody listens any more; Coze is being told */
	TURN_SAVING,     /* the session is being saved and let go of */
	TURN_OVER,       /* final */
	TURN__COUNT
};

#define TO(state) (1u << (state))
#define ENDS      (TO(TURN_LEAVING) | TO(TURN_SAVING))

static const unsigned turn_may_go[TURN__COUNT] = {
	[TURN_CLAIMING] = TO(TURN_PERMITTING) | ENDS,
	[TURN_PERMITTING] = TO(TURN_ASKING) | ENDS,
	[TURN_PAUSING] = TO(TURN_PERMITTING) | ENDS,
	[TURN_ASKING] = TO(TURN_PAUSING) | TO(TURN_ANSWERING) | ENDS,
	[TURN_ANSWERING] = TO(TURN_PAUSING) | ENDS,
	[TURN_LEAVING] = TO(TURN_SAVING),
	[TURN_SAVING] = TO(TURN_OVER),
};

struct turn {
	struct turn_context *context;
	struct turn *prev, *next; /* context->first */
	enum turn_state state;
	const struct turn_sink *sink; /* NULL once told or cancelled */
	void *arg;
	uv_timer_t deadline; /* of the turn; LEAVING: of that */
	uv_timer_t pause;    /* PAUSING */
	unsigned open_handles;
	uint64_t ends_ms;                 /* loop time of the deadline */
	struct claim *claim;              /* NULL once ended */
	struct admission *admission;      /* PERMITTING: NULL unless one is waited for */
	struct coze_chat *chat;           /* NULL unless one runs */
	unsigned pending;                 /* callbacks that will still come: of cancelling, of saving */
	unsigned attempts;                /* chats begun */
	unsigned retries;                 /* of them, those that the retry limit counts */
	unsigned occupied;                /* how often the conversation was occupied */
	bool probing;                     /* this attempt finds out whether Coze is up again */
	bool accepted;                    /* by Coze, in any attempt: the sink and the claim know */
	bool delivered;                   /* text was passed on: no retry any more */
	bool conversation_given;          /* by the client, not remembered by the session */
	char user_id[ID_MAX + 1];         /* for Coze */
	char conversation_id[ID_MAX + 1]; /* to go on with, "" for a new one */
	char *message;
	size_t message_len;
	const char *limit_name, *limit_detail;
	const char *failed_while; /* NULL: it has not failed */
	struct coze_ids ids;
	struct error *error; /* why; NULL when it has not failed, or there was no memory for it */
};

static void permit(struct turn *turn);
static void ask(struct turn *turn);

/* Where turns in a state are counted; NULL: nowhere. */
static uint64_t *gauge_of(enum turn_state state)
{
	static const enum metrics_turn counted_as[] = {
		[TURN_CLAIMING] = METRICS_TURN_LOCK,       [TURN_PERMITTING] = METRICS_TURN_SLOT,
		[TURN_PAUSING] = METRICS_TURN_PAUSE,       [TURN_ASKING] = METRICS_TURN_ASKING,
		[TURN_ANSWERING] = METRICS_TURN_ANSWERING, [TURN_LEAVING] = METRICS_TURN_LEAVING,
		[TURN_SAVING] = METRICS_TURN_SAVING,
	};

	return state != TURN_OVER ? &metrics->gauges.turns[counted_as[state]] : NULL;
}

/* The only place that assigns turn->state. */
static void turn_go(struct turn *turn, enum turn_state next)
{
	assert(turn_may_go[turn->state] & TO(next));
	metric_move(gauge_of(turn->state), gauge_of(next));
	turn->state = next;
}

/* ---- ends ---- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct turn *turn = handle->data;

	if (--turn->open_handles > 0)
		return;
	if (turn->prev != NULL)
		turn->prev->next = turn->next;
	else
		turn->context->first = turn->next;
	if (turn->next != NULL)
		turn->next->prev = turn->prev;
	turn->context->running--;
	free(turn->error);
	free(turn->message);
	free(turn);
}

static void free_if_done(struct turn *turn)
{
	if (turn->state != TURN_OVER || turn->pending > 0)
		return;
	uv_close((uv_handle_t *)&turn->deadline, on_handle_closed);
	uv_close((uv_handle_t *)&turn->pause, on_handle_closed);
}

/* Tells the sink the end, if it is still there. */
static void tell(struct turn *turn)
{
	const struct turn_sink *sink = turn->sink;
	const struct error *error = turn->error;
	struct error unknown;

	turn->sink = NULL;
	if (sink == NULL)
		return;
	if (turn->failed_while != NULL && error == NULL) {
		error_set(&unknown, ERR_NOMEM, NULL, "while %s: memory for an error", turn->failed_while);
		error = &unknown;
	}
	metric_add(&metrics->counters.turns[error != NULL ? error->code : ERR_OK], 1);
	sink->on_done(turn->arg, &turn->ids, error);
}

static void note_error(struct turn *turn, const struct error *error)
{
	turn->failed_while = turn_doing(turn);
	if (turn->error == NULL)
		turn->error = malloc(sizeof *turn->error);
	if (turn->error == NULL)
		return;
	*turn->error = *error;
	if (error->code == ERR_TIMEOUT)
		snprintf(turn->error->detail, sizeof turn->error->detail, "%s", turn->limit_detail);
}

/* The session is let go of (or Redis is away, and the claim goes on trying): only now may the client send its next. */
static void on_saved(void *arg, const struct error *error)
{
	struct turn *turn = arg;

	(void)error; /* claims.c logs it, and goes on trying */
	turn->pending--;
	turn_go(turn, TURN_OVER);
	tell(turn);
	free_if_done(turn);
}

static void save(struct turn *turn)
{
	struct claim *claim = turn->claim;

	turn_go(turn, TURN_SAVING);
	uv_timer_stop(&turn->deadline);
	uv_timer_stop(&turn->pause);
	turn->claim = NULL;
	turn->pending++;
	claim_end(claim, on_saved, turn);
}

static void end_with(struct turn *turn, const struct error *error)
{
	if (error != NULL)
		note_error(turn, error);
	save(turn);
}

static void on_gone(void *arg)
{
	struct turn *turn = arg;

	turn->pending--;
	if (turn->state == TURN_LEAVING)
		save(turn);
	free_if_done(turn);
}

static void on_leave_limit(uv_timer_t *timer)
{
	save(timer->data);
}

/*
 * Nobody wants the answer any more. The session is let go of when Coze has heard of it, so that the next message does not
 * find the conversation occupied; but it does not wait long for that.
 */
static void leave(struct turn *turn)
{
	struct coze_chat *chat = turn->chat;

	uv_timer_stop(&turn->pause);
	if (turn->admission != NULL)
		admission_cancel(turn->admission);
	turn->admission = NULL;
	if (turn->probing)
		breaker_unknown(&turn->context->breaker);
	turn->probing = false;
	turn_go(turn, TURN_LEAVING);
	if (chat == NULL) {
		save(turn);
		return;
	}
	turn->chat = NULL;
	turn->pending++;
	uv_timer_start(&turn->deadline, on_leave_limit, LEAVE_LIMIT_MS, 0);
	coze_chat_cancel(chat, on_gone, turn);
}

/* Ends a turn from outside of its course: the sink is told at once. */
static void break_off(struct turn *turn, const struct error *error)
{
	note_error(turn, error);
	tell(turn);
	leave(turn);
}

static void on_deadline(uv_timer_t *timer)
{
	struct turn *turn = timer->data;
	struct error error;

	error_set(&error, ERR_TIMEOUT, NULL, "while %s: %s passed", turn_doing(turn), turn->limit_name);
	break_off(turn, &error);
}

void turns_stop(struct turn_context *context)
{
	struct turn *turn, *next;
	struct error error;

	context->stopping = true;
	for (turn = context->first; turn != NULL; turn = next) {
		next = turn->next;
		error_set(&error, ERR_STOPPING, NULL, "while %s: the worker stops", turn_doing(turn));
		if (turn->state < TURN_LEAVING)
			break_off(turn, &error);
	}
}

/* ---- Coze ---- */

static uint64_t now_ms(const struct turn *turn)
{
	return uv_now(turn->context->loop);
}

/* An attempt that Coze did not accept knows no conversation: what an earlier one brought stays true. */
static void learn_ids(struct turn *turn, const struct coze_ids *ids)
{
	struct coze_ids before = turn->ids;

	turn->ids = *ids;
	if (ids->conversation_id[0] == '\0')
		memcpy(turn->ids.conversation_id, before.conversation_id, sizeof before.conversation_id);
}

static enum err on_accepted(void *arg, const struct coze_ids *ids)
{
	struct turn *turn = arg;

	turn_go(turn, TURN_ANSWERING);
	turn->probing = false;
	breaker_succeeded(&turn->context->breaker);
	learn_ids(turn, ids);
	/* Should it fail without a word, the next attempt belongs into the same conversation. */
	snprintf(turn->conversation_id, sizeof turn->conversation_id, "%s", ids->conversation_id);
	if (turn->accepted)
		return ERR_OK; /* an attempt before this one was accepted, and failed without a word */
	turn->accepted = true;
	/* Bound at once, not only at the end: a worker may die in between. */
	claim_accepted(turn->claim, ids->conversation_id);
	return turn->sink->on_accepted(turn->arg, ids);
}

static enum err on_text(void *arg, const char *text, size_t len)
{
	struct turn *turn = arg;

	turn->delivered = true;
	free(turn->message); /* never to be sent again, and it may be large */
	turn->message = NULL;
	return turn->sink->on_text(turn->arg, text, len);
}

/* Whether an error is Coze's answer, and not of our own making. */
static bool coze_said(enum err err)
{
	return err == ERR_COZE_CONFIG || err == ERR_COZE_REFUSED || err == ERR_COZE_BUSY ||
	       err == ERR_COZE_EMPTY;
}

/* What the attempt says of Coze as a whole. */
static void tell_breaker(struct turn *turn, const struct failure *failure)
{
	struct breaker *breaker = &turn->context->breaker;

	if (failure != NULL && (failure->traits & CODE_DOWN))
		breaker_failed(breaker, turn->probing, now_ms(turn));
	else if (failure == NULL || coze_said(failure->error.code))
		breaker_succeeded(breaker);
	else if (turn->probing)
		breaker_unknown(breaker);
	turn->probing = false;
}

/* How long to pause before another attempt, or 0 when there should be none. */
static uint64_t pause_before_retry(struct turn *turn, const struct failure *failure)
{
	struct turn_context *context = turn->context;
	uint64_t pause = 0;

	if (turn->delivered)
		return 0;
	if (failure->traits & CODE_OCCUPIED) {
		/* The conversation gets free when the chat in it ends: that costs Coze nothing, so only the deadline limits. */
		unsigned attempt = turn->occupied < OCCUPIED_ATTEMPT ? ++turn->occupied : OCCUPIED_ATTEMPT;

		pause = retry_pause_ms(attempt, failure->error.retry_after_s, id_random_share());
	} else if ((failure->traits & CODE_RETRY) && turn->retries < context->max_retries &&
		   !breaker_refuses(&context->breaker, now_ms(turn))) {
		pause = retry_pause_ms(turn->retries + 1, failure->error.retry_after_s, id_random_share());
	}
	if (pause == 0 || now_ms(turn) + pause >= turn->ends_ms)
		return 0;
	if ((failure->traits & CODE_RETRY) && !retry_budget_spend(&context->budget, now_ms(turn)))
		return 0;
	return pause;
}

static void on_pause_over(uv_timer_t *timer)
{
	permit(timer->data);
}

static bool retry(struct turn *turn, const struct failure *failure)
{
	uint64_t pause = pause_before_retry(turn, failure);

	if (pause == 0)
		return false;
	if (failure->traits & CODE_RETRY)
		turn->retries++;
	metric_add(&metrics->counters.retries, 1);
	log_event(LOG_LEVEL_WARN, "retry", LOG_NUMBER("attempt", turn->attempts),
		  LOG_NUMBER("pause_ms", pause), LOG_TEXT("cause", failure->error.cause),
		  LOG_TEXT("logid", turn->ids.logid));
	turn_go(turn, TURN_PAUSING);
	uv_timer_start(&turn->pause, on_pause_over, pause, 0);
	return true;
}

/* The session remembered a conversation that Coze does not know (any more): go on with a new one, once. */
static bool ask_anew(struct turn *turn, const struct failure *failure)
{
	if (!(failure->traits & CODE_DROP_CONVERSATION) || turn->accepted || turn->conversation_given ||
	    turn->conversation_id[0] == '\0')
		return false;
	log_event(LOG_LEVEL_WARN, "conversation_dropped", LOG_TEXT("conversation", turn->conversation_id));
	turn->conversation_id[0] = '\0';
	turn_go(turn, TURN_PAUSING);
	permit(turn);
	return true;
}

static void on_chat_done(void *arg, const struct coze_ids *ids, const struct failure *failure)
{
	struct turn *turn = arg;
	struct error error;

	turn->chat = NULL;
	learn_ids(turn, ids);
	tell_breaker(turn, failure);
	if (failure == NULL) {
		end_with(turn, NULL);
		return;
	}
	if (!failure->cancelling && (ask_anew(turn, failure) || retry(turn, failure)))
		return;
	error = failure->error;
	if ((failure->traits & CODE_DROP_CONVERSATION) && turn->conversation_given)
		error_detail(&error, "conversation_id 不存在: %s", turn->conversation_id);
	if (!failure->cancelling) {
		end_with(turn, &error);
		return;
	}
	/* The chat still runs at Coze: the user is told now, and the session is let go of when Coze has been told. */
	note_error(turn, &error);
	tell(turn);
	turn_go(turn, TURN_LEAVING);
	turn->pending++;
	uv_timer_start(&turn->deadline, on_leave_limit, LEAVE_LIMIT_MS, 0);
}

static const struct coze_chat_ops chat_ops = { on_accepted, on_text, on_chat_done, on_gone };

static void circuit_error(const struct turn_context *context, struct error *error)
{
	uint64_t wait_ms = breaker_wait_ms(&context->breaker, uv_now(context->loop));

	error_set(error, ERR_CIRCUIT, NULL, "coze is down: the circuit is open for %llu ms more",
		  (unsigned long long)wait_ms);
	error->retry_after_s = (unsigned)(wait_ms / 1000) + 1;
}

static void ask(struct turn *turn)
{
	struct turn_context *context = turn->context;
	const struct coze_question question = {
		.user_id = turn->user_id,
		.conversation_id = turn->conversation_id,
		.text = turn->message,
		.text_len = turn->message_len,
		.stream = !context->poll,
	};
	enum breaker_verdict verdict = breaker_ask(&context->breaker, now_ms(turn));
	struct error error;

	if (verdict == BREAKER_REFUSE) {
		circuit_error(context, &error);
		end_with(turn, &error);
		return;
	}
	turn->probing = verdict == BREAKER_PROBE;
	if (turn->attempts++ == 0)
		retry_budget_earn(&context->budget, now_ms(turn));
	turn_go(turn, TURN_ASKING);
	if (coze_chat_start(&turn->chat, context->coze, &question, &chat_ops, turn) == ERR_OK)
		return;
	if (turn->probing)
		breaker_unknown(&context->breaker);
	turn->probing = false;
	error_set(&error, ERR_NOMEM, NULL, "memory for a chat");
	end_with(turn, &error);
}

/* ---- the slot ---- */

static void on_slot(void *arg, const struct error *error)
{
	struct turn *turn = arg;

	turn->admission = NULL;
	if (error != NULL)
		end_with(turn, error);
	else
		ask(turn);
}

static void permit(struct turn *turn)
{
	struct error error;
	enum err rc;

	turn_go(turn, TURN_PERMITTING);
	if (!limiter_limits(turn->context->limiter)) {
		ask(turn);
		return;
	}
	rc = limiter_admit(&turn->admission, turn->context->limiter, on_slot, turn);
	if (rc == ERR_OK)
		return;
	error_set(&error, rc, NULL, "asking for a slot: %s",
		  rc == ERR_NOMEM ? "memory is short" : "redis is away");
	end_with(turn, &error);
}

/* ---- the session ---- */

static void on_granted(void *arg, const struct error *error, const struct claim_grant *grant)
{
	struct turn *turn = arg;

	if (error != NULL) {
		end_with(turn, error);
		return;
	}
	if (!turn->conversation_given)
		snprintf(turn->conversation_id, sizeof turn->conversation_id, "%s", grant->conversation_id);
	if (turn->user_id[0] == '\0')
		snprintf(turn->user_id, sizeof turn->user_id, "%s",
			 grant->owner[0] != '\0' ? grant->owner : turn->context->default_user_id);
	permit(turn);
}

static enum err check_room(const struct turn_context *context, struct error *why)
{
	if (context->stopping)
		return error_set(why, ERR_STOPPING, NULL, "before it began: the worker stops");
	if (context->running >= context->max_running)
		return error_set(why, ERR_TOO_MANY, NULL, "%zu turns are running", context->running);
	if (breaker_refuses(&context->breaker, uv_now(context->loop))) {
		circuit_error(context, why);
		return ERR_CIRCUIT;
	}
	return ERR_OK;
}

enum err turn_start(struct turn **out, struct turn_context *context, const struct turn_question *question,
		    const struct turn_sink *sink, void *arg, struct error *why)
{
	enum err rc = check_room(context, why);
	struct turn *turn;

	*out = NULL;
	if (rc != ERR_OK) {
		metric_add(&metrics->counters.turns[rc], 1);
		return rc;
	}
	turn = calloc(1, sizeof *turn);
	if (turn != NULL)
		turn->message = malloc(question->message_len + 1);
	if (turn == NULL || turn->message == NULL) {
		free(turn);
		return error_set(why, ERR_NOMEM, NULL, "memory for a turn");
	}
	memcpy(turn->message, question->message, question->message_len);
	turn->message_len = question->message_len;
	turn->context = context;
	turn->sink = sink;
	turn->arg = arg;
	turn->limit_name = question->limit_name;
	turn->limit_detail = question->limit_detail;
	turn->conversation_given = question->conversation_id[0] != '\0';
	snprintf(turn->user_id, sizeof turn->user_id, "%s", question->user_id);
	snprintf(turn->conversation_id, sizeof turn->conversation_id, "%s", question->conversation_id);
	rc = claim_start(&turn->claim, context->claims, question->session_id, question->user_id, on_granted,
			 turn);
	if (rc != ERR_OK) {
		metric_add(&metrics->counters.turns[rc], 1);
		free(turn->message);
		free(turn);
		return error_set(why, rc, NULL, "claiming the session: %s",
				 rc == ERR_NOMEM ? "memory is short" : "redis is away");
	}
	uv_timer_init(context->loop, &turn->deadline);
	uv_timer_init(context->loop, &turn->pause);
	turn->open_handles = 2;
	turn->deadline.data = turn->pause.data = turn;
	turn->ends_ms = uv_now(context->loop) + question->limit_ms;
	uv_timer_start(&turn->deadline, on_deadline, question->limit_ms, 0);
	turn->next = context->first;
	if (turn->next != NULL)
		turn->next->prev = turn;
	context->first = turn;
	context->running++;
	metric_move(NULL, gauge_of(turn->state));
	*out = turn;
	return ERR_OK;
}

/* ---- from outside ---- */

void turn_cancel(struct turn *turn)
{
	turn->sink = NULL;
	metric_add(&metrics->counters.turns[METRICS_TURN_LEFT], 1);
	if (turn->state != TURN_SAVING)
		leave(turn);
}

void turn_pause(struct turn *turn)
{
	if (turn->chat != NULL)
		coze_chat_pause(turn->chat);
}

void turn_resume(struct turn *turn)
{
	if (turn->chat != NULL)
		coze_chat_resume(turn->chat);
}

const char *turn_doing(const struct turn *turn)
{
	if (turn->failed_while != NULL)
		return turn->failed_while;
	switch (turn->state) {
	case TURN_CLAIMING:
		return "waiting for the session";
	case TURN_PERMITTING:
		return "waiting for a slot";
	case TURN_PAUSING:
		return "pausing before a retry";
	case TURN_LEAVING:
		return "cancelling at coze";
	case TURN_SAVING:
		return "saving to redis";
	case TURN_ASKING:
	case TURN_ANSWERING:
		if (turn->chat != NULL)
			return coze_chat_doing(turn->chat);
		return turn->state == TURN_ASKING ? "asking coze" : "reading coze's answer";
	default:
		return "ending";
	}
}

unsigned turn_retries(const struct turn *turn)
{
	return turn->attempts > 0 ? turn->attempts - 1 : 0;
}
