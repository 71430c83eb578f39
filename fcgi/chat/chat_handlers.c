/*
 * chat_handlers.c - POST /chat and POST /chat/stream: from the request's fields to a turn, and from the turn's answer to
 * JSON or to an event stream (spec section 2).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/config.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "chat/chat_api.h"
#include "chat/service.h"
#include "coze/coze.h"
#include "http/fields.h"
#include "http/response.h"

#define EVENT_JSON_MAX 7800 /* escaped text of one event: with its frame it leaves in one FastCGI record */
#define EVENT_MAX      (64 * 1024) /* an event's frame and its piece of text */
#define FAILURE_MAX    (6 * (sizeof(((struct error *)NULL)->detail) + 2 * ID_MAX) + 256) /* an `error` event */
#define PIECE          (48 * 1024) /* bytes of text in one step of the last event */
#define TELL_AGAIN_MS  50          /* between attempts to tell an error for which there is no memory */

_Static_assert(sizeof(struct chat_fields) <= FIELDS_SIZE_MAX, "room for the fields");

/* One request and its turn. Freed when the answer has left, or the client. */
struct exchange {
	struct service *service;
	struct request *request;
	struct turn *turn; /* NULL once it is over */
	char session_id[ID_MAX + 1];
	char conversation_id[ID_MAX + 1];
	char message_id[ID_MAX + 1];
	char logid[64];
	struct buf answer; /* the text so far */
	/* Streams only. */
	uv_timer_t heartbeat;
	bool streams;
	bool opened;     /* the response has begun */
	bool completing; /* the last event is being sent, piece by piece */
	enum err untold; /* the `error` event that waits for memory, or for the client to read on */
	struct buf last; /* this event without the answer, once it is made */
	size_t gap;      /* where in it the answer belongs */
	size_t sent;     /* bytes of `answer` that are in it */
	unsigned chunks;
	unsigned retries;
	uint64_t first_chunk_ns; /* 0 until one was sent */
};

/* ---- life ---- */

static void free_answer(struct exchange *exchange)
{
	metric_sub(&metrics->gauges.buffers[METRICS_BUFFER_ANSWER], buf_size(&exchange->answer));
	buf_free(&exchange->answer);
}

static void on_heartbeat_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void exchange_free(struct exchange *exchange)
{
	if (exchange->opened)
		metric_sub(&metrics->gauges.streams, 1);
	free_answer(exchange);
	buf_free(&exchange->last);
	uv_close((uv_handle_t *)&exchange->heartbeat, on_heartbeat_closed);
}

static void note(struct exchange *exchange)
{
	struct request *request = exchange->request;

	request_note(request, LOG_TEXT("session", exchange->session_id));
	request_note(request, LOG_TEXT("conversation", exchange->conversation_id));
	request_note(request, LOG_TEXT("logid", exchange->logid));
	if (exchange->retries > 0)
		request_note(request, LOG_NUMBER("retries", exchange->retries));
	if (!exchange->streams)
		return;
	request_note(request, LOG_NUMBER("chunks", exchange->chunks));
	if (exchange->first_chunk_ns != 0)
		request_note(request, LOG_MS("first_chunk_ms",
					     (exchange->first_chunk_ns - request->started_ns) / 1000));
}

/* The turn is about to be gone: what is to be said of it? */
static void learn_turn(struct exchange *exchange)
{
	exchange->request->doing = turn_doing(exchange->turn);
	exchange->retries = turn_retries(exchange->turn);
	exchange->turn = NULL;
}

static void on_leave(void *arg)
{
	struct exchange *exchange = arg;

	if (exchange->turn != NULL) {
		struct turn *turn = exchange->turn;

		learn_turn(exchange);
		turn_cancel(turn);
	}
	note(exchange);
	exchange_free(exchange);
}

static void learn(struct exchange *exchange, const struct coze_ids *ids)
{
	snprintf(exchange->conversation_id, sizeof exchange->conversation_id, "%s", ids->conversation_id);
	snprintf(exchange->message_id, sizeof exchange->message_id, "%s", ids->message_id);
	snprintf(exchange->logid, sizeof exchange->logid, "%s", ids->logid);
}

/* An answer that has not begun fails as a plain HTTP error. */
static void answer_error(struct exchange *exchange, const struct error *error)
{
	note(exchange);
	response_error(exchange->request, error);
	exchange_free(exchange);
}

/* ---- whole answers ---- */

/* For the log: the client may leave before the end. */
static enum err whole_accepted(void *arg, const struct coze_ids *ids)
{
	learn(arg, ids);
	return ERR_OK;
}

static enum err collect_text(void *arg, const char *text, size_t len)
{
	struct exchange *exchange = arg;

	buf_append(&exchange->answer, text, len);
	if (exchange->answer.failed)
		return ERR_NOMEM;
	metric_add(&metrics->gauges.buffers[METRICS_BUFFER_ANSWER], len);
	return ERR_OK;
}

static void answer_whole(struct exchange *exchange)
{
	const struct chat_answer answer = {
		.response = { buf_bytes(&exchange->answer), buf_size(&exchange->answer) },
		.session_id = exchange->session_id,
		.message_id = exchange->message_id,
		.timestamp = clock_unix_us(),
		.conversation_id = exchange->conversation_id,
	};
	struct buf body;

	buf_init(&body, buf_size(&exchange->answer) * 6 + 4096);
	shape_write(&body, &chat_shape, &answer, SHAPE_COMPACT);
	free_answer(exchange);
	note(exchange);
	response_json(exchange->request, 200, exchange->session_id, &body);
	buf_free(&body);
	exchange_free(exchange);
}

static void whole_done(void *arg, const struct coze_ids *ids, const struct error *error)
{
	struct exchange *exchange = arg;

	learn_turn(exchange);
	learn(exchange, ids);
	request_watch(exchange->request, NULL, NULL, NULL);
	if (error != NULL)
		answer_error(exchange, error);
	else
		answer_whole(exchange);
}

static const struct turn_sink whole_sink = { whole_accepted, collect_text, whole_done };

/* ---- streams ---- */

static void on_heartbeat(uv_timer_t *timer)
{
	struct exchange *exchange = timer->data;

	/* A blank line: the documented clients skip it, where a comment would be taken for JSON. A client that does not
	 * read needs no sign of life. */
	if (response_backlog(exchange->request) == 0)
		response_stream_send(exchange->request, "\n", 1);
}

static void restart_heartbeat(struct exchange *exchange)
{
	uint64_t ms = exchange->service->config->stream_heartbeat_ms;

	uv_timer_start(&exchange->heartbeat, on_heartbeat, ms, ms);
}

static enum err stream_accepted(void *arg, const struct coze_ids *ids)
{
	struct exchange *exchange = arg;
	enum err rc = response_stream_open(exchange->request, exchange->session_id);

	learn(exchange, ids);
	if (rc == ERR_OK) {
		exchange->opened = true;
		metric_add(&metrics->gauges.streams, 1);
		restart_heartbeat(exchange);
	}
	return rc;
}

/* How much of a text fits one event; most deltas do, whatever they hold. */
static size_t fitting(const char *text, size_t len)
{
	return len <= EVENT_JSON_MAX / 6 ? len : json_fitting(text, len, EVENT_JSON_MAX);
}

static void write_event(struct buf *out, const struct shape *shape, const void *values)
{
	buf_append_str(out, "data: ");
	shape_write(out, shape, values, SHAPE_SPACED);
	buf_append_str(out, "\n\n");
}

static enum err send_chunk(struct exchange *exchange, const char *text, size_t len)
{
	const struct chunk_event chunk = { "chunk", { { text, len }, exchange->chunks++ } };
	struct buf event;
	enum err rc = ERR_NOMEM;

	buf_init(&event, EVENT_MAX);
	write_event(&event, &chunk_shape, &chunk);
	if (exchange->first_chunk_ns == 0) {
		exchange->first_chunk_ns = uv_hrtime();
		metric_observe(&metrics->counters.first_chunk_time,
			       (exchange->first_chunk_ns - exchange->request->started_ns) / 1000);
	}
	if (!event.failed)
		rc = response_stream_send(exchange->request, buf_bytes(&event), buf_size(&event));
	buf_free(&event);
	return rc;
}

static enum err stream_text(void *arg, const char *text, size_t len)
{
	struct exchange *exchange = arg;
	enum err rc = collect_text(arg, text, len);

	while (len > 0 && rc == ERR_OK) {
		size_t piece = fitting(text, len);

		rc = send_chunk(exchange, text, piece);
		text += piece;
		len -= piece;
	}
	restart_heartbeat(exchange);
	if (response_backlog(exchange->request) > FCGI_BACKLOG_HIGH)
		turn_pause(exchange->turn);
	return rc;
}

/* Out of memory in the middle of an event: a cut stream is an error to every client, a mangled event is not. */
static void abort_stream(struct exchange *exchange)
{
	struct error error;

	error_set(&error, ERR_NOMEM, NULL, "memory for an event");
	request_fail(exchange->request, &error);
	note(exchange);
	response_abort(exchange->request);
	exchange_free(exchange);
}

static void end_stream(struct exchange *exchange, const struct buf *event)
{
	note(exchange);
	request_watch(exchange->request, NULL, NULL, NULL);
	response_stream_end(exchange->request, buf_bytes(event), buf_size(event));
	exchange_free(exchange);
}

static void on_tell_again(uv_timer_t *timer);

/* Of the error only its code is kept until then: there is no memory for more. */
static void tell_later(struct exchange *exchange, const struct error *error)
{
	if (exchange->untold == ERR_OK)
		log_event(LOG_LEVEL_WARN, "error_waits", LOG_TEXT("session", exchange->session_id),
			  LOG_TEXT("cause", error->cause));
	exchange->untold = error->code;
	exchange->completing = false;
	free_answer(exchange); /* nobody needs it any more, but somebody may need its memory */
	buf_free(&exchange->last);
	uv_timer_start(&exchange->heartbeat, on_tell_again, TELL_AGAIN_MS, 0);
}

/* Needs no memory: it may be all that can still be said. */
static void send_error_event(struct exchange *exchange, const struct error *error)
{
	const struct failure_event values = {
		"error",
		{ error->detail, exchange->session_id, exchange->conversation_id, clock_unix_us() },
	};
	char room[FAILURE_MAX];
	struct buf event;

	buf_init_in(&event, room, sizeof room);
	write_event(&event, &failure_shape, &values);
	if (!response_stream_may_end(exchange->request, buf_size(&event))) {
		tell_later(exchange, error);
		return;
	}
	request_fail(exchange->request, error);
	end_stream(exchange, &event);
}

static void on_tell_again(uv_timer_t *timer)
{
	struct exchange *exchange = timer->data;
	struct error error;

	error_set(&error, exchange->untold, NULL, "told late, for want of memory");
	send_error_event(exchange, &error);
}

/* The last event cannot be made: is it to be another one, or has it begun? */
static void give_up_complete(struct exchange *exchange, bool begun)
{
	struct error error;

	if (begun) {
		abort_stream(exchange);
		return;
	}
	error_set(&error, ERR_NOMEM, NULL, "memory for the last event");
	send_error_event(exchange, &error);
}

static void make_complete(struct exchange *exchange)
{
	const struct complete_event complete = {
		"complete",
		{ exchange->chunks, &exchange->gap, exchange->session_id, exchange->message_id,
		  exchange->conversation_id, clock_unix_us() },
	};

	buf_init(&exchange->last, EVENT_MAX);
	write_event(&exchange->last, &complete_shape, &complete);
}

/* Appends the next `len` bytes of the answer, as the inside of a JSON string. */
static void append_answer(struct buf *event, const char *text, size_t len)
{
	struct buf quoted;

	buf_init(&quoted, 6 * PIECE + 8192);
	json_string(&quoted, text, len);
	if (!quoted.failed)
		buf_append(event, buf_bytes(&quoted) + 1, buf_size(&quoted) - 2);
	else
		event->failed = true;
	buf_free(&quoted);
}

/*
 * Sends the `complete` event. It repeats the whole answer, which may be long, so it is written as the client reads it;
 * one of ordinary length leaves in one piece.
 */
static void send_complete(struct exchange *exchange)
{
	const char *frame = buf_bytes(&exchange->last);
	size_t size = buf_size(&exchange->answer);

	while (response_backlog(exchange->request) <= FCGI_BACKLOG_HIGH) {
		const char *rest = buf_bytes(&exchange->answer) + exchange->sent;
		size_t piece = utf8_cut(rest, size - exchange->sent, PIECE);
		bool begun = exchange->sent > 0, last = exchange->sent + piece == size;
		struct buf event;
		enum err rc = ERR_OK;

		buf_init(&event, 6 * PIECE + 8192);
		event.failed = exchange->last.failed;
		if (!begun)
			buf_append(&event, frame, exchange->gap);
		append_answer(&event, rest, piece);
		exchange->sent += piece;
		if (last)
			buf_append(&event, frame + exchange->gap, buf_size(&exchange->last) - exchange->gap);
		if (event.failed)
			rc = ERR_NOMEM;
		else if (last)
			end_stream(exchange, &event);
		else
			rc = response_stream_send(exchange->request, buf_bytes(&event), buf_size(&event));
		buf_free(&event);
		if (rc != ERR_OK)
			give_up_complete(exchange, begun);
		if (last || rc != ERR_OK)
			return;
	}
}

static void on_drain(void *arg)
{
	struct exchange *exchange = arg;

	if (exchange->completing)
		send_complete(exchange);
	else if (exchange->turn != NULL)
		turn_resume(exchange->turn);
}

static void stream_done(void *arg, const struct coze_ids *ids, const struct error *error)
{
	struct exchange *exchange = arg;

	learn_turn(exchange);
	learn(exchange, ids);
	uv_timer_stop(&exchange->heartbeat);
	if (error != NULL && !exchange->opened) {
		request_watch(exchange->request, NULL, NULL, NULL);
		answer_error(exchange, error);
	} else if (error != NULL) {
		send_error_event(exchange, error);
	} else {
		exchange->completing = true;
		exchange->request->doing = "sending the last event";
		make_complete(exchange);
		send_complete(exchange);
	}
}

static const struct turn_sink stream_sink = { stream_accepted, stream_text, stream_done };

/* ---- the beginning ---- */

static void copy_id(char out[ID_MAX + 1], const struct text *id)
{
	memcpy(out, id->bytes != NULL ? id->bytes : "", id->len);
	out[id->len] = '\0';
}

static enum err begin_turn(struct exchange *exchange, const struct chat_fields *fields, bool streams,
			   struct error *why)
{
	const struct config *config = exchange->service->config;
	char random[ID_RANDOM_SIZE];
	char user_id[ID_MAX + 1];
	struct turn_question question = {
		.session_id = exchange->session_id,
		.user_id = user_id,
		.conversation_id = exchange->conversation_id,
		.message = fields->message.bytes,
		.message_len = fields->message.len,
		.limit_ms = streams ? config->stream_timeout_ms : config->chat_timeout_ms,
		.limit_name = streams ? "STREAM_TIMEOUT_SECONDS" : "CHAT_TIMEOUT_SECONDS",
		.limit_detail = streams ? "流式聊天失败: timeout" : "同步聊天失败: timeout",
	};

	copy_id(user_id, &fields->user_id);
	copy_id(exchange->conversation_id, &fields->conversation_id);
	copy_id(exchange->session_id, &fields->session_id);
	if (fields->session_id.bytes == NULL) {
		if (!id_random(random))
			return error_set(why, ERR_NOMEM, NULL, "no random bytes for a session id");
		snprintf(exchange->session_id, sizeof exchange->session_id, "session_%s", random);
	}
	return turn_start(&exchange->turn, &exchange->service->turns, &question,
			  streams ? &stream_sink : &whole_sink, exchange, why);
}

static void chat(struct request *request, struct service *service, const struct chat_fields *fields,
		 bool streams)
{
	struct exchange *exchange = calloc(1, sizeof *exchange);
	struct error why;

	if (exchange == NULL) {
		error_set(&why, ERR_NOMEM, NULL, "memory for a chat request");
		response_error(request, &why);
		return;
	}
	exchange->service = service;
	exchange->request = request;
	exchange->streams = streams;
	buf_init(&exchange->answer, service->config->max_answer_bytes);
	uv_timer_init(service->loop, &exchange->heartbeat);
	exchange->heartbeat.data = exchange;
	if (begin_turn(exchange, fields, streams, &why) != ERR_OK) {
		answer_error(exchange, &why);
		return;
	}
	fcgi_body_free(request->fcgi);
	request_watch(request, on_leave, streams ? on_drain : NULL, exchange);
}

static void chat_whole(struct request *request, void *arg, const void *fields)
{
	chat(request, arg, fields, false);
}

static void chat_stream(struct request *request, void *arg, const void *fields)
{
	chat(request, arg, fields, true);
}

void chat_post(struct request *request, void *app)
{
	struct service *service = app;

	fields_take(request, service->loop, chat_fields, CHAT_FIELDS, chat_whole, service);
}

void chat_stream_post(struct request *request, void *app)
{
	struct service *service = app;

	fields_take(request, service->loop, chat_fields, CHAT_FIELDS, chat_stream, service);
}
