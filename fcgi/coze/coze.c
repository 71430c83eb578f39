/*
 * coze.c - see coze.h.
 *
 *   ASKING ──events──▶ STREAMING ──────────────────────────▶ done
 *      └─────JSON────▶ PAUSING ⇄ RETRIEVING ──▶ LISTING ───▶ done
 *
 * Errors come in many shapes (coze-api section 3.5): HTTP status, JSON instead
 * of a stream, an error event, a failed chat, a raw JSON line in a stream, an
 * early end. All of them end in fail().
 */
#include "coze/coze.h"

#include <json-c/json_tokener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/log.h"
#include "base/percent.h"
#include "coze/answer.h"
#include "coze/cancel.h"
#include "coze/code.h"
#include "coze/event.h"
#include "coze/failure.h"
#include "coze/sse.h"
#include "coze/transport.h"

#define ERROR_BODY_MAX    (64 * 1024) /* bytes kept of a body that is no stream of events */
#define POLL_FAILURES_MAX 5           /* failed retrieves in a row before a polled chat is given up */

enum chat_state {
	CHAT_ASKING,     /* the message was sent, no byte back */
	CHAT_STREAMING,  /* events come */
	CHAT_READING,    /* a body that is no stream comes */
	CHAT_PAUSING,    /* polling: until the next retrieve */
	CHAT_RETRIEVING, /* polling: is it ready? */
	CHAT_LISTING,    /* polling: the answer's messages */
	CHAT_OVER        /* done was or is being told, or nobody listens */
};

struct coze {
	uv_loop_t *loop;
	struct transport *transport;
	struct coze_options options;
	struct json_tokener *tokener;
};

struct coze_chat {
	struct coze *coze;
	enum chat_state state;
	const struct coze_chat_ops *ops;
	void *arg;
	struct call *call; /* NULL between calls */
	uv_timer_t timer;  /* CHAT_PAUSING */
	long status;       /* of the current call */
	struct sse sse;
	struct buf body; /* a JSON body, or the beginning of a stream that brought no event */
	struct answer answer;
	size_t answer_len;
	struct coze_ids ids;
	bool accepted;
	bool ready;     /* Coze says that the answer is complete */
	bool abandoned; /* cancelled before the chat's id was known: wait for it, then cancel there */
	bool any_event;
	bool failed;
	unsigned retry_after_s;
	unsigned poll_failures;
	struct failure *failure;    /* failed: what it was; NULL when there was no memory for it */
	void (*on_gone)(void *arg); /* abandoned: to be told once Coze knows */
	void *gone_arg;
};

static void poll_again(struct coze_chat *chat);
static void list_messages(struct coze_chat *chat);

/* ---- life ---- */

enum err coze_open(struct coze **out, uv_loop_t *loop, struct transport *transport,
		   const struct coze_options *options, struct error *why)
{
	struct coze *coze = calloc(1, sizeof *coze);

	if (coze != NULL)
		coze->tokener = json_tokener_new();
	if (coze == NULL || coze->tokener == NULL) {
		free(coze);
		return error_set(why, ERR_NOMEM, NULL, "memory for the Coze client");
	}
	coze->loop = loop;
	coze->transport = transport;
	coze->options = *options;
	*out = coze;
	return ERR_OK;
}

void coze_close(struct coze *coze)
{
	json_tokener_free(coze->tokener);
	free(coze);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct coze_chat *chat = handle->data;

	sse_fini(&chat->sse);
	buf_free(&chat->body);
	answer_fini(&chat->answer);
	free(chat->failure);
	free(chat);
}

static void tell_gone(struct coze_chat *chat)
{
	if (chat->on_gone != NULL)
		chat->on_gone(chat->gone_arg);
}

static void chat_free(struct coze_chat *chat)
{
	chat->state = CHAT_OVER;
	if (chat->call != NULL)
		call_cancel(chat->call);
	chat->call = NULL;
	uv_close((uv_handle_t *)&chat->timer, on_timer_closed);
}

/* ---- ends ---- */

/* Tells the end and frees. A transfer with nothing left to say is given a moment to end by itself. */
static void tell_done(struct coze_chat *chat, const struct failure *failure)
{
	chat->state = CHAT_OVER;
	if (chat->call != NULL && chat->ready)
		call_drain(chat->call);
	else if (chat->call != NULL)
		call_cancel(chat->call);
	chat->call = NULL;
	if (chat->abandoned)
		tell_gone(chat);
	else
		chat->ops->on_done(chat->arg, &chat->ids, failure);
	chat_free(chat);
}

/* Notes the first failure; whoever is on top of the stack tells it. */
static void fail(struct coze_chat *chat, const struct failure *failure)
{
	if (chat->failed)
		return;
	chat->failed = true;
	chat->failure = malloc(sizeof *chat->failure);
	if (chat->failure == NULL)
		return;
	*chat->failure = *failure;
	chat->failure->error.retry_after_s = chat->retry_after_s;
}

/* The chat may still be generating: a next message would meet 4016. */
static bool runs_at_coze(const struct coze_chat *chat)
{
	return chat->accepted && !chat->ready;
}

static void tell_failure(struct coze_chat *chat)
{
	void (*on_gone)(void *) = chat->abandoned ? NULL : chat->ops->on_gone;
	struct failure failure;

	if (chat->failure != NULL)
		failure = *chat->failure;
	else
		failure_set(&failure, ERR_NOMEM, NULL, "memory for a failure");
	failure.cancelling =
	    runs_at_coze(chat) && cancel_chat(chat->coze->transport, chat->ids.conversation_id,
					      chat->ids.chat_id, on_gone, chat->arg) == ERR_OK;
	tell_done(chat, &failure);
}

static void tell_success(struct coze_chat *chat)
{
	struct failure failure;

	failure_set(&failure, ERR_COZE_EMPTY, NULL, "completed without any text");
	tell_done(chat, chat->answer_len > 0 ? NULL : &failure);
}

static void fail_with_code(struct coze_chat *chat, int64_t code, const struct event_text *msg)
{
	struct failure failure;

	failure_of_code(&failure, code, msg);
	if (failure.traits & CODE_ALARM)
		log_event(LOG_LEVEL_ERROR, "coze", LOG_TEXT("cause", failure.error.cause),
			  LOG_TEXT("logid", chat->ids.logid));
	fail(chat, &failure);
}

static void fail_with_status(struct coze_chat *chat, long status, int64_t code)
{
	struct failure failure;

	failure_of_status(&failure, status, code);
	fail(chat, &failure);
}

static void fail_with(struct coze_chat *chat, enum err code, const char *cause)
{
	struct failure failure;

	failure_set(&failure, code, NULL, cause);
	fail(chat, &failure);
}

static void fail_protocol(struct coze_chat *chat, const char *cause)
{
	fail_with(chat, ERR_COZE_PROTOCOL, cause);
}

/* The parser of the stream has failed, unless `rc` is ERR_OK. */
static void fail_parsing(struct coze_chat *chat, enum err rc)
{
	if (rc != ERR_OK)
		fail_with(chat, rc,
			  rc == ERR_NOMEM ? "memory for an event" : "an event beyond COZE_MAX_EVENT_BYTES");
}

static void fail_call(struct coze_chat *chat, enum call_end end, const char *why)
{
	struct failure failure;

	failure_of_call(&failure, end, coze_chat_doing(chat), why);
	fail(chat, &failure);
}

/* ---- what Coze tells about the chat ---- */

static void learn_id(char out[ID_MAX + 1], const struct event_text *id)
{
	if (out[0] != '\0' || !id_valid(id->bytes, id->len))
		return;
	memcpy(out, id->bytes, id->len);
	out[id->len] = '\0';
}

static void note_accepted(struct coze_chat *chat, const struct event_text *conversation_id,
			  const struct event_text *chat_id)
{
	enum err rc;

	if (chat->accepted)
		return;
	learn_id(chat->ids.conversation_id, conversation_id);
	learn_id(chat->ids.chat_id, chat_id);
	if (chat->ids.conversation_id[0] == '\0' || chat->ids.chat_id[0] == '\0')
		return; /* the next event will tell */
	chat->accepted = true;
	if (chat->abandoned)
		return;
	rc = chat->ops->on_accepted(chat->arg, &chat->ids);
	if (rc != ERR_OK)
		fail_with(chat, rc, "passing the acceptance on");
}

static void pass_text(struct coze_chat *chat, const struct event_message *message, bool whole)
{
	struct event_text text;
	enum err rc = answer_take(&chat->answer, message, whole, &text);

	if (rc == ERR_OK && text.len > chat->coze->options.max_answer_bytes - chat->answer_len)
		rc = ERR_ANSWER_TOO_BIG;
	if (rc == ERR_OK && text.len > 0) {
		if (!chat->accepted) {
			fail_protocol(chat, "text of a chat without ids");
			return;
		}
		chat->answer_len += text.len;
		chat->ids.message_id[0] = '\0';
		learn_id(chat->ids.message_id, &message->id);
		rc = chat->ops->on_text(chat->arg, text.bytes, text.len);
	}
	if (rc != ERR_OK)
		fail_with(chat, rc,
			  rc == ERR_ANSWER_TOO_BIG ? "answer beyond MAX_ANSWER_BYTES" : "passing text on");
}

/*
 * A chat that Coze tells us about for the first time as failed was never accepted: its caller gets a plain
 * error.
 */
static void accept_chat(struct coze_chat *chat, const struct event_chat *said)
{
	if (said->status != CHAT_FAILED && said->status != CHAT_CANCELED)
		note_accepted(chat, &said->conversation_id, &said->id);
}

/* The chat's state decides what comes next, in events as in retrieved chats. False: the chat goes on. */
static bool chat_ended(struct coze_chat *chat, const struct event_chat *said)
{
	struct failure failure;

	switch (said->status) {
	case CHAT_COMPLETED:
		chat->ready = true;
		return true;
	case CHAT_FAILED:
		chat->ready = true;
		fail_with_code(chat, said->error_code, &said->error_msg);
		return true;
	case CHAT_REQUIRES_ACTION:
		failure_set(&failure, ERR_COZE_CONFIG,
			    "Coze API请求失败: 智能体需要客户端执行工具，本服务不支持",
			    "chat requires_action: the bot uses a client-side tool");
		fail(chat, &failure);
		return true;
	case CHAT_CANCELED:
		chat->ready = true;
		failure_set(&failure, ERR_COZE_BUSY, "对话已在 Coze 端被取消", "chat canceled at Coze");
		fail(chat, &failure);
		return true;
	default:
		return false;
	}
}

static bool on_event(void *arg, const char *name, const char *data, size_t len)
{
	struct coze_chat *chat = arg;
	struct event event;

	if (!event_decode(&event, chat->coze->tokener, name, data, len)) {
		if (event.starved)
			fail_with(chat, ERR_NOMEM, "memory for an event");
		else
			fail_protocol(chat, "an event that is not JSON");
		return false;
	}
	chat->any_event = chat->any_event || event.kind != EVENT_OTHER;
	switch (event.kind) {
	case EVENT_CHAT:
		accept_chat(chat, &event.chat);
		if (!chat->failed && chat_ended(chat, &event.chat) && !chat->failed)
			chat->state = CHAT_OVER;
		break;
	case EVENT_DELTA:
	case EVENT_MESSAGE:
		note_accepted(chat, &event.message.conversation_id, &event.message.chat_id);
		if (!chat->failed && !chat->abandoned && event_is_answer(&event.message))
			pass_text(chat, &event.message, event.kind == EVENT_MESSAGE);
		break;
	case EVENT_ERROR:
		chat->ready = true;
		fail_with_code(chat, event.chat.error_code, &event.chat.error_msg);
		break;
	case EVENT_DONE:
		chat->ready = true;
		chat->state = CHAT_OVER;
		break;
	case EVENT_OTHER:
		break;
	}
	event_free(&event);
	return !chat->failed && chat->state != CHAT_OVER && !(chat->abandoned && chat->accepted);
}

/* ---- the first call: asking ---- */

static void note_logid(struct coze_chat *chat, const char *logid)
{
	size_t n = 0;

	while (logid[n] > ' ' && logid[n] < 0x7F && n < sizeof chat->ids.logid - 1) {
		chat->ids.logid[n] = logid[n];
		n++;
	}
	if (n > 0)
		chat->ids.logid[n] = '\0';
}

static void on_head(void *arg, const struct call_head *head)
{
	struct coze_chat *chat = arg;

	chat->status = head->status;
	chat->retry_after_s = head->retry_after_s;
	note_logid(chat, head->logid);
	if (chat->state == CHAT_ASKING)
		chat->state =
		    head->status == 200 && head->kind == BODY_EVENTS ? CHAT_STREAMING : CHAT_READING;
}

/* Nobody wants the answer: tells Coze, and then whoever waits for that. */
static void leave(struct coze_chat *chat)
{
	if (!runs_at_coze(chat) || cancel_chat(chat->coze->transport, chat->ids.conversation_id,
					       chat->ids.chat_id, chat->on_gone, chat->gone_arg) != ERR_OK)
		tell_gone(chat);
	chat_free(chat);
}

/* True when somebody's decision ended the chat while bytes were being read: then it is told here. */
static bool told_end(struct coze_chat *chat)
{
	if (chat->abandoned && chat->accepted) {
		leave(chat);
		return true;
	}
	if (chat->failed) {
		tell_failure(chat);
		return true;
	}
	if (chat->state == CHAT_OVER) {
		tell_success(chat);
		return true;
	}
	return false;
}

static void keep_body(struct coze_chat *chat, const char *bytes, size_t len)
{
	buf_append(&chat->body, bytes, len);
	if (chat->state == CHAT_STREAMING || !chat->body.failed)
		return;
	if (chat->body.starved)
		fail_with(chat, ERR_NOMEM, "memory for a body");
	else
		fail_with(chat, ERR_ANSWER_TOO_BIG, "a body beyond COZE_MAX_EVENT_BYTES + MAX_ANSWER_BYTES");
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	struct coze_chat *chat = arg;
	enum err rc;

	if (chat->state != CHAT_STREAMING) {
		keep_body(chat, bytes, len);
		told_end(chat);
		return;
	}
	if (!chat->any_event && buf_size(&chat->body) < ERROR_BODY_MAX)
		keep_body(chat, bytes, len);
	rc = sse_feed(&chat->sse, bytes, len);
	if (chat->any_event)
		buf_reset(&chat->body, 0);
	fail_parsing(chat, rc);
	told_end(chat); /* an ended chat lets go of the call by itself */
}

static enum err start_call(struct coze_chat *chat, enum metrics_call counts_as, const char *path,
			   struct buf *body, const struct call_ops *ops)
{
	const struct coze_options *options = &chat->coze->options;
	struct call_spec spec = {
		.method = body != NULL ? "POST" : "GET",
		.path = path,
		.body = body,
		.counts_as = counts_as,
		.first_byte_ms = options->first_byte_ms,
		.idle_ms = options->idle_ms,
	};
	enum err rc;

	chat->status = 0;
	buf_reset(&chat->body, 0);
	rc = call_start(&chat->call, chat->coze->transport, &spec, ops, chat);
	if (rc != ERR_OK)
		chat->call = NULL;
	return rc;
}

/*
 * Decodes the body of an answer that is no stream. True with *envelope filled (to be freed) when Coze answered with status
 * 200 and code 0; else the failure has been noted.
 */
static bool read_envelope(struct coze_chat *chat, struct envelope *envelope, const char *not_json)
{
	if (!envelope_decode(envelope, chat->coze->tokener, buf_bytes(&chat->body), buf_size(&chat->body))) {
		if (envelope->starved)
			fail_with(chat, ERR_NOMEM, "memory for an answer that is no stream");
		else if (chat->status != 200)
			fail_with_status(chat, chat->status, 0);
		else
			fail_protocol(chat, not_json);
		return false;
	}
	if (envelope->logid.len > 0 && envelope->logid.len < sizeof chat->ids.logid)
		note_logid(chat, envelope->logid.bytes);
	if (chat->status == 200 && envelope->code == 0)
		return true;
	if (chat->status != 200)
		fail_with_status(chat, chat->status, envelope->code);
	else
		fail_with_code(chat, envelope->code, &envelope->msg);
	envelope_free(envelope);
	return false;
}

/* JSON instead of a stream: an error, or a chat that runs on its own and has to be polled. */
static void take_chat_object(struct coze_chat *chat)
{
	static const char odd[] = "an answer that is neither a stream of events nor a chat";
	struct envelope envelope;

	if (!read_envelope(chat, &envelope, odd))
		return;
	if (!envelope.is_envelope)
		fail_protocol(chat, odd);
	else
		accept_chat(chat, &envelope.chat);
	if (!chat->failed)
		chat_ended(chat, &envelope.chat);
	if (!chat->failed && !chat->accepted)
		fail_protocol(chat, "a chat without ids");
	envelope_free(&envelope);
}

/* A call of the polling flow has brought what it could: tell the end, or do what comes next. */
static void go_on(struct coze_chat *chat)
{
	if (told_end(chat))
		return;
	if (chat->ready)
		list_messages(chat);
	else
		poll_again(chat);
}

static void on_asked(void *arg, enum call_end end, const char *why)
{
	struct coze_chat *chat = arg;
	bool streamed = chat->state == CHAT_STREAMING;

	chat->call = NULL;
	if (end == CALL_OK && streamed) {
		enum err rc = sse_finish(&chat->sse);

		fail_parsing(chat, rc);
		if (told_end(chat))
			return;
		streamed = chat->any_event || buf_size(&chat->body) == 0;
	}
	if (end != CALL_OK || streamed)
		fail_call(chat, end, why);
	else
		take_chat_object(chat);
	go_on(chat);
}

static const struct call_ops ask_ops = { on_head, on_body, on_asked };

static void write_question(struct buf *body, const struct coze *coze, const struct coze_question *question)
{
	buf_append_str(body, "{\"bot_id\":");
	json_cstring(body, coze->options.bot_id);
	buf_append_str(body, ",\"user_id\":");
	json_cstring(body, question->user_id);
	buf_printf(body,
		   ",\"stream\":%s,\"auto_save_history\":true,\"additional_messages\":[{\"role\":\"user\","
		   "\"type\":\"question\",\"content_type\":\"text\",\"name\":\"User\",\"content\":",
		   question->stream ? "true" : "false");
	json_string(body, question->text, question->text_len);
	buf_append_str(body, "}]}");
}

static void write_path(struct buf *path, const char *resource, const char *conversation_id,
		       const char *chat_id)
{
	buf_append_str(path, resource);
	if (conversation_id[0] != '\0') {
		buf_append_str(path, "?conversation_id=");
		percent_encode(path, conversation_id, strlen(conversation_id));
	}
	if (chat_id[0] != '\0') {
		buf_append_str(path, "&chat_id=");
		percent_encode(path, chat_id, strlen(chat_id));
	}
	buf_append_char(path, '\0');
}

enum err coze_chat_start(struct coze_chat **out, struct coze *coze, const struct coze_question *question,
			 const struct coze_chat_ops *ops, void *arg)
{
	struct coze_chat *chat = calloc(1, sizeof *chat);
	enum err rc = ERR_NOMEM;
	struct buf body, path;

	if (chat == NULL)
		return ERR_NOMEM;
	chat->coze = coze;
	chat->state = CHAT_ASKING;
	chat->ops = ops;
	chat->arg = arg;
	uv_timer_init(coze->loop, &chat->timer);
	chat->timer.data = chat;
	sse_init(&chat->sse, coze->options.max_event_bytes, on_event, chat);
	buf_init(&chat->body, coze->options.max_event_bytes + coze->options.max_answer_bytes);
	answer_init(&chat->answer);
	/* Escaping makes a text at most six times longer; the rest is bounded by ids. */
	buf_init(&body, question->text_len * 6 + 8192);
	buf_init(&path, 2048);
	buf_room(&body, question->text_len + 1024); /* mostly enough: growing would copy a long text */
	write_question(&body, coze, question);
	write_path(&path, "/chat", question->conversation_id, "");
	if (!body.failed && !path.failed)
		rc = start_call(chat, METRICS_CALL_CHAT, buf_bytes(&path), &body, &ask_ops);
	buf_free(&body);
	buf_free(&path);
	if (rc != ERR_OK) {
		chat_free(chat);
		return rc;
	}
	*out = chat;
	return ERR_OK;
}

/* ---- polling ---- */

static void ask_about(struct coze_chat *chat, enum metrics_call counts_as, const char *resource,
		      enum chat_state state, const struct call_ops *ops)
{
	enum err rc = ERR_NOMEM;
	struct buf path;

	buf_init(&path, 2048);
	write_path(&path, resource, chat->ids.conversation_id, chat->ids.chat_id);
	chat->state = state;
	if (!path.failed)
		rc = start_call(chat, counts_as, buf_bytes(&path), NULL, ops);
	buf_free(&path);
	if (rc != ERR_OK) {
		fail_with(chat, rc, "memory for a call");
		told_end(chat);
	}
}

/*
 * A call of the polling flow has ended. True with *envelope filled (to be freed) when Coze answered with
 * code 0; else the failure has been noted.
 */
static bool answered(struct coze_chat *chat, enum call_end end, const char *why, struct envelope *envelope)
{
	chat->call = NULL;
	if (end == CALL_OK)
		return read_envelope(chat, envelope, "a body that is not JSON");
	fail_call(chat, end, why);
	return false;
}

/*
 * A look at the chat has failed. The message itself is with Coze, so it must not be sent again, whatever helps elsewhere; but
 * the look may be repeated, while the turn lasts. False when it is given up.
 */
static bool look_again(struct coze_chat *chat)
{
	if (chat->failure == NULL)
		return false;
	chat->failure->traits &= ~(unsigned)(CODE_RETRY | CODE_OCCUPIED | CODE_DROP_CONVERSATION);
	if (error_status(chat->failure->error.code) != 503 || ++chat->poll_failures >= POLL_FAILURES_MAX)
		return false;
	chat->failed = false;
	free(chat->failure);
	chat->failure = NULL;
	return true;
}

static void on_retrieved(void *arg, enum call_end end, const char *why)
{
	struct coze_chat *chat = arg;
	struct envelope envelope;

	if (answered(chat, end, why, &envelope)) {
		chat->poll_failures = 0;
		chat_ended(chat, &envelope.chat);
		envelope_free(&envelope);
	} else {
		look_again(chat);
	}
	go_on(chat);
}

static const struct call_ops retrieve_ops = { on_head, on_body, on_retrieved };

static void on_poll_time(uv_timer_t *timer)
{
	struct coze_chat *chat = timer->data;

	if (chat->ready)
		list_messages(chat);
	else
		ask_about(chat, METRICS_CALL_RETRIEVE, "/chat/retrieve", CHAT_RETRIEVING, &retrieve_ops);
}

static void poll_again(struct coze_chat *chat)
{
	chat->state = CHAT_PAUSING;
	uv_timer_start(&chat->timer, on_poll_time, chat->coze->options.poll_interval_ms, 0);
}

struct listed {
	int64_t created_at;
	size_t index;
};

static int older_first(const void *left, const void *right)
{
	const struct listed *a = left, *b = right;

	if (a->created_at != b->created_at)
		return a->created_at < b->created_at ? -1 : 1;
	return a->index < b->index ? -1 : 1;
}

/*
 * Passes on the answers of a list, oldest first: Coze's order is not guaranteed. Equal times keep their
 * order.
 */
static void pass_list(struct coze_chat *chat, const struct envelope *envelope)
{
	struct listed answers[ANSWER_PARTS_MAX];
	struct event_message message;
	size_t count = 0;

	for (size_t i = 0; envelope_message(envelope, i, &message); i++) {
		if (!event_is_answer(&message))
			continue;
		if (count == ANSWER_PARTS_MAX) {
			fail_with(chat, ERR_ANSWER_TOO_BIG, "too many answer messages");
			return;
		}
		answers[count++] = (struct listed){ message.created_at, i };
	}
	/* cppcheck-suppress uninitvar ; only the first `count` are looked at */
	qsort(answers, count, sizeof answers[0], older_first);
	for (size_t i = 0; i < count && !chat->failed; i++) {
		envelope_message(envelope, answers[i].index, &message);
		pass_text(chat, &message, true);
	}
}

static void on_listed(void *arg, enum call_end end, const char *why)
{
	struct coze_chat *chat = arg;
	struct envelope envelope;

	if (answered(chat, end, why, &envelope)) {
		pass_list(chat, &envelope);
		envelope_free(&envelope);
		if (!chat->failed)
			chat->state = CHAT_OVER;
	} else if (look_again(chat)) {
		poll_again(chat);
		return;
	}
	told_end(chat);
}

static const struct call_ops list_ops = { on_head, on_body, on_listed };

static void list_messages(struct coze_chat *chat)
{
	ask_about(chat, METRICS_CALL_MESSAGES, "/chat/message/list", CHAT_LISTING, &list_ops);
}

/* ---- from outside ---- */

void coze_chat_cancel(struct coze_chat *chat, void (*on_gone)(void *arg), void *arg)
{
	chat->on_gone = on_gone;
	chat->gone_arg = arg;
	uv_timer_stop(&chat->timer);
	if (!chat->accepted && chat->call != NULL && call_was_sent(chat->call)) {
		chat->abandoned = true;
		call_resume(chat->call);
		return;
	}
	leave(chat);
}

void coze_chat_pause(struct coze_chat *chat)
{
	if (chat->call != NULL && chat->state == CHAT_STREAMING)
		call_pause(chat->call);
}

void coze_chat_resume(struct coze_chat *chat)
{
	if (chat->call != NULL)
		call_resume(chat->call);
}

const char *coze_chat_doing(const struct coze_chat *chat)
{
	static const char *const words[] = {
		[CHAT_ASKING] = "waiting for coze",
		[CHAT_STREAMING] = "streaming from coze",
		[CHAT_READING] = "reading from coze",
		[CHAT_PAUSING] = "polling coze",
		[CHAT_RETRIEVING] = "polling coze",
		[CHAT_LISTING] = "listing messages",
		[CHAT_OVER] = "ending",
	};

	return words[chat->state];
}
