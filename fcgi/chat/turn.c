/*
 * turn.c - see turn.h.
 *
 * A turn lives as long as anything of it is under way: an answer from the store may come after the client
 * has left, and after the sink was told the end. `sink` is NULL from then on.
 */
#include "chat/turn.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "coze/code.h"
#include "coze/coze.h"
#include "coze/failure.h"
#include "store/sessions.h"

enum turn_state {
	TURN_BEGINNING, /* the store is asked for the session */
	TURN_ASKING,    /* Coze has the message, but has not accepted it yet */
	TURN_ANSWERING, /* Coze has accepted it */
	TURN_SAVING,    /* the answer is over; the store is told */
	TURN_OVER,      /* final: the sink knows, or has left */
	TURN__COUNT
};

#define TO(state)   (1u << (state))
#define UPDATES_MAX 2 /* times that an accepted message is told to the store   \ */

static const unsigned turn_may_go[TURN__COUNT] = {
	[TURN_BEGINNING] = TO(TURN_ASKING) | TO(TURN_OVER),
	[TURN_ASKING] = TO(TURN_ASKING) | TO(TURN_ANSWERING) | TO(TURN_OVER),
	[TURN_ANSWERING] = TO(TURN_SAVING) | TO(TURN_OVER),
	[TURN_SAVING] = TO(TURN_OVER),
};

/* Whether the store knows that Coze accepted the message, and in which conversation. */
enum record { RECORD_NOT_DUE, RECORD_DUE, RECORD_SENT, RECORD_SAVED };

struct turn {
	struct turn_context *context;
	enum turn_state state;
	const struct turn_sink *sink; /* NULL once told or cancelled */
	void *arg;
	uv_timer_t deadline;
	struct coze_chat *chat; /* NULL unless one runs */
	unsigned in_store;      /* calls to the store that have not answered */
	enum record record;
	unsigned updates;        /* sent to the store so far */
	bool conversation_given; /* by the client, not remembered by the session */
	bool dropped;            /* a conversation that Coze did not know was given up: only once */
	bool has_error;
	char session_id[ID_MAX + 1];
	char user_id[ID_MAX + 1];         /* "" when the client named none */
	char conversation_id[ID_MAX + 1]; /* to go on with, "" for a new one */
	char bound[ID_MAX + 1];           /* what the session is bound to in the store */
	char owner[ID_MAX + 1];
	char epoch[SESSION_EPOCH_SIZE];
	char *message; /* until Coze has accepted it */
	size_t message_len;
	const char *limit_name, *limit_detail;
	struct coze_ids ids;
	struct error error;
};

static enum err ask(struct turn *turn);
static void save(struct turn *turn);

/* The only place that assigns turn->state. */
static void turn_go(struct turn *turn, enum turn_state next)
{
	assert(turn_may_go[turn->state] & TO(next));
	turn->state = next;
}

/* ---- ends ---- */

static void on_deadline_closed(uv_handle_t *handle)
{
	struct turn *turn = handle->data;
	struct turn_context *context = turn->context;

	free(turn->message);
	free(turn);
	if (--context->running == 0 && context->on_none != NULL)
		context->on_none(context->none_arg);
}

static void free_if_done(struct turn *turn)
{
	if (turn->state == TURN_OVER && turn->in_store == 0 && !uv_is_closing((uv_handle_t *)&turn->deadline))
		uv_close((uv_handle_t *)&turn->deadline, on_deadline_closed);
}

/* Tells the sink the end, if it is still there. */
static void finish(struct turn *turn)
{
	const struct turn_sink *sink = turn->sink;

	turn_go(turn, TURN_OVER);
	uv_timer_stop(&turn->deadline);
	turn->sink = NULL;
	if (sink != NULL)
		sink->on_done(turn->arg, &turn->ids, turn->has_error ? &turn->error : NULL);
	free_if_done(turn);
}

static void end_with(struct turn *turn, const struct error *error)
{
	if (error != NULL) {
		turn->has_error = true;
		turn->error = *error;
		if (error->code == ERR_TIMEOUT)
			snprintf(turn->error.detail, sizeof turn->error.detail, "%s", turn->limit_detail);
	}
	if (turn->state != TURN_ANSWERING) {
		finish(turn);
		return;
	}
	turn_go(turn, TURN_SAVING);
	uv_timer_stop(&turn->deadline);
	save(turn);
}

static void on_deadline(uv_timer_t *timer)
{
	struct turn *turn = timer->data;
	struct error error;

	error_set(&error, ERR_TIMEOUT, NULL, "while %s: %s passed", turn_doing(turn), turn->limit_name);
	if (turn->chat != NULL)
		coze_chat_cancel(turn->chat, NULL, NULL);
	turn->chat = NULL;
	end_with(turn, &error);
}

/* ---- saving ---- */

static void on_updated(void *arg, const struct error *error)
{
	struct turn *turn = arg;

	turn->in_store--;
	turn->record = error == NULL ? RECORD_SAVED : RECORD_DUE;
	if (turn->state == TURN_SAVING)
		save(turn);
	free_if_done(turn);
}

/* Tells the store that the message was accepted, and in which conversation. */
static void send_update(struct turn *turn)
{
	const char *conversation_id =
	    strcmp(turn->ids.conversation_id, turn->bound) == 0 ? "" : turn->ids.conversation_id;

	turn->updates++;
	if (session_update(turn->context->sessions, turn->session_id, turn->epoch, conversation_id, 1,
			   on_updated, turn) != ERR_OK)
		return;
	turn->record = RECORD_SENT;
	turn->in_store++;
}

static void save(struct turn *turn)
{
	while (turn->record == RECORD_DUE && turn->updates < UPDATES_MAX)
		send_update(turn);
	if (turn->record == RECORD_SENT)
		return; /* on_updated() goes on */
	if (turn->record == RECORD_DUE)
		log_event(LOG_LEVEL_WARN, "unsaved", LOG_TEXT("session", turn->session_id),
			  LOG_TEXT("conversation", turn->ids.conversation_id));
	finish(turn);
}

/* ---- Coze ---- */

static enum err on_accepted(void *arg, const struct coze_ids *ids)
{
	struct turn *turn = arg;

	turn_go(turn, TURN_ANSWERING);
	turn->ids = *ids;
	turn->record = RECORD_DUE;
	free(turn->message);
	turn->message = NULL;
	/* A new conversation is bound at once: the session's next message may come before this turn's end. */
	if (strcmp(ids->conversation_id, turn->bound) != 0)
		send_update(turn);
	return turn->sink->on_accepted(turn->arg, ids);
}

static enum err on_text(void *arg, const char *text, size_t len)
{
	struct turn *turn = arg;

	return turn->sink->on_text(turn->arg, text, len);
}

/* The session remembered a conversation that Coze does not know (any more): go on with a new one, once. */
static bool ask_anew(struct turn *turn, const struct failure *failure)
{
	if (!(failure->traits & CODE_DROP_CONVERSATION) || turn->state != TURN_ASKING ||
	    turn->conversation_given || turn->dropped)
		return false;
	log_event(LOG_LEVEL_WARN, "conversation_dropped", LOG_TEXT("session", turn->session_id),
		  LOG_TEXT("conversation", turn->conversation_id));
	turn->dropped = true;
	turn->conversation_id[0] = '\0';
	return ask(turn) == ERR_OK;
}

static void on_chat_done(void *arg, const struct coze_ids *ids, const struct failure *failure)
{
	struct turn *turn = arg;
	struct error error;

	turn->chat = NULL;
	turn->ids = *ids;
	if (failure == NULL) {
		end_with(turn, NULL);
		return;
	}
	if (ask_anew(turn, failure))
		return;
	error = failure->error;
	if ((failure->traits & CODE_DROP_CONVERSATION) && turn->conversation_given)
		error_detail(&error, "conversation_id 不存在: %s", turn->conversation_id);
	end_with(turn, &error);
}

static const struct coze_chat_ops chat_ops = { on_accepted, on_text, on_chat_done };

static const char *first_of(const char *a, const char *b, const char *c)
{
	if (a[0] != '\0')
		return a;
	return b[0] != '\0' ? b : c;
}

static enum err ask(struct turn *turn)
{
	const struct coze_question question = {
		.user_id = first_of(turn->user_id, turn->owner, turn->context->default_user_id),
		.conversation_id = turn->conversation_id,
		.text = turn->message,
		.text_len = turn->message_len,
		.stream = !turn->context->poll,
	};

	return coze_chat_start(&turn->chat, turn->context->coze, &question, &chat_ops, turn);
}

/* ---- beginning ---- */

static void on_begun(void *arg, const struct error *error, const struct session_grant *grant)
{
	struct turn *turn = arg;
	struct error why;

	turn->in_store--;
	if (turn->state == TURN_OVER) { /* the client has left, or time is up */
		free_if_done(turn);
		return;
	}
	if (error != NULL) {
		end_with(turn, error);
		return;
	}
	snprintf(turn->bound, sizeof turn->bound, "%s", grant->conversation_id);
	snprintf(turn->owner, sizeof turn->owner, "%s", grant->owner);
	snprintf(turn->epoch, sizeof turn->epoch, "%s", grant->epoch);
	if (!turn->conversation_given)
		snprintf(turn->conversation_id, sizeof turn->conversation_id, "%s", turn->bound);
	turn_go(turn, TURN_ASKING);
	if (ask(turn) != ERR_OK) {
		error_set(&why, ERR_NOMEM, NULL, "memory for a chat");
		end_with(turn, &why);
	}
}

enum err turn_start(struct turn **out, struct turn_context *context, const struct turn_question *question,
		    const struct turn_sink *sink, void *arg)
{
	struct turn *turn = calloc(1, sizeof *turn);
	enum err rc = ERR_NOMEM;

	*out = NULL;
	if (turn != NULL)
		turn->message = malloc(question->message_len + 1);
	if (turn == NULL || turn->message == NULL) {
		free(turn);
		return rc;
	}
	memcpy(turn->message, question->message, question->message_len);
	turn->message_len = question->message_len;
	turn->context = context;
	turn->sink = sink;
	turn->arg = arg;
	turn->limit_name = question->limit_name;
	turn->limit_detail = question->limit_detail;
	turn->conversation_given = question->conversation_id[0] != '\0';
	snprintf(turn->session_id, sizeof turn->session_id, "%s", question->session_id);
	snprintf(turn->user_id, sizeof turn->user_id, "%s", question->user_id);
	snprintf(turn->conversation_id, sizeof turn->conversation_id, "%s", question->conversation_id);
	rc = session_begin(context->sessions, turn->session_id, turn->user_id, on_begun, turn);
	if (rc != ERR_OK) {
		free(turn->message);
		free(turn);
		return rc;
	}
	turn->in_store = 1;
	uv_timer_init(context->loop, &turn->deadline);
	turn->deadline.data = turn;
	uv_timer_start(&turn->deadline, on_deadline, question->limit_ms, 0);
	context->running++;
	*out = turn;
	return ERR_OK;
}

/* ---- from outside ---- */

void turn_cancel(struct turn *turn)
{
	turn->sink = NULL;
	uv_timer_stop(&turn->deadline);
	if (turn->state == TURN_SAVING)
		return; /* ends by itself */
	if (turn->chat != NULL)
		coze_chat_cancel(turn->chat, NULL, NULL);
	turn->chat = NULL;
	end_with(turn, NULL);
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
	switch (turn->state) {
	case TURN_BEGINNING:
		return "waiting for redis";
	case TURN_SAVING:
		return "saving to redis";
	default:
		return turn->chat != NULL ? coze_chat_doing(turn->chat) : "ending";
	}
}
