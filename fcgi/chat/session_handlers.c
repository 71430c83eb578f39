/*
 * session_handlers.c - /session/{session_id}/info, /clear and /bind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/fields.h"
#include "http/response.h"
#include "store/sessions.h"

#define ANSWER_MAX 8192

/* The beginning and the end of an answer about a session. */
static void begin(struct buf *body)
{
	buf_init(body, ANSWER_MAX);
	buf_append_char(body, '{');
}

static void answer(struct request *request, const char *session_id, struct buf *body)
{
	buf_append_char(body, '}');
	response_json(request, 200, session_id, body);
	buf_free(body);
}

/* ---- info ---- */

static void answer_info(struct request *request, const char *session_id, const struct session_info *info)
{
	struct error why;
	struct buf body;

	if (!info->found) {
		error_set(&why, ERR_NOT_FOUND, NULL, "no such session");
		error_detail(&why, "会话不存在: %s", session_id);
		response_error(request, &why);
		return;
	}
	begin(&body);
	json_member(&body, "session_id", session_id);
	json_member(&body, "user_id", info->user_id);
	json_member(&body, "conversation_id",
		    info->conversation_id[0] != '\0' ? info->conversation_id : NULL);
	json_member_time(&body, "last_activity", info->last_activity_us);
	json_member_number(&body, "message_count", info->message_count);
	json_member(&body, "status", "active");
	answer(request, session_id, &body);
}

static void on_info(void *arg, const struct error *error, const struct session_info *info)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);

	if (request != NULL && error != NULL)
		response_error(request, error);
	else if (request != NULL)
		answer_info(request, pending->session_id, info);
	free(pending);
}

void session_info_get(struct request *request, void *app)
{
	struct service *service = app;
	struct pending *pending = pending_new(request);
	enum err rc;

	if (pending == NULL)
		return;
	rc = session_info(service->sessions, pending->session_id, on_info, pending);
	if (rc != ERR_OK)
		pending_refused(pending, rc);
}

/* ---- clear ---- */

static void on_cleared(void *arg, const struct error *error)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);
	struct buf body;

	if (request != NULL && error != NULL) {
		response_error(request, error);
	} else if (request != NULL) {
		begin(&body);
		json_member(&body, "message", "会话已成功清除");
		json_member(&body, "session_id", pending->session_id);
		json_member_time(&body, "cleared_at", clock_unix_us());
		answer(request, pending->session_id, &body);
	}
	free(pending);
}

void session_clear_post(struct request *request, void *app)
{
	struct service *service = app;
	struct pending *pending = pending_new(request);
	enum err rc;

	if (pending == NULL)
		return;
	rc = session_clear(service->sessions, pending->session_id, on_cleared, pending);
	if (rc != ERR_OK)
		pending_refused(pending, rc);
}

/* ---- bind ---- */

struct bind_fields {
	struct text conversation_id;
};

static const struct field bind_fields[] = {
	{ "conversation_id", FIELD_ID, true, offsetof(struct bind_fields, conversation_id),
	  "要绑定的 Coze 会话 ID", "the Coze conversation to bind" },
};

static void on_bound(void *arg, const struct error *error)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);
	struct buf body;

	if (request != NULL && error != NULL) {
		response_error(request, error);
	} else if (request != NULL) {
		begin(&body);
		json_member(&body, "message", "会话ID绑定成功");
		json_member(&body, "session_id", pending->session_id);
		json_member(&body, "conversation_id", pending->conversation_id);
		json_member_time(&body, "timestamp", clock_unix_us());
		answer(request, pending->session_id, &body);
	}
	free(pending);
}

static void bind_fields_read(struct request *request, void *arg, const void *read)
{
	const struct bind_fields *fields = read;
	struct service *service = arg;
	struct pending *pending = pending_new(request);
	enum err rc;

	if (pending == NULL)
		return;
	memcpy(pending->conversation_id, fields->conversation_id.bytes, fields->conversation_id.len);
	rc =
	    session_bind(service->sessions, pending->session_id, pending->conversation_id, on_bound, pending);
	if (rc != ERR_OK)
		pending_refused(pending, rc);
}

void session_bind_post(struct request *request, void *app)
{
	struct service *service = app;

	fields_take(request, service->loop, bind_fields, sizeof bind_fields / sizeof bind_fields[0],
		    bind_fields_read, service);
}
