/*
 * admin_handlers.c - GET /sessions and GET /conversation/{conversation_id}/session: for operators, over all users.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/query.h"
#include "http/response.h"
#include "store/sessions.h"

/* Escaping makes six bytes of one at most. */
#define SESSION_JSON_MAX (3 * 6 * ID_MAX + 512)

/* ---- the list of sessions ---- */

struct page_query {
	uint64_t limit, offset;
};

static const struct query_field page_query[] = {
	{ "limit", offsetof(struct page_query, limit), 10, 1, SESSION_PAGE_MAX, "最多返回的会话数",
	  "how many sessions to list at most" },
	{ "offset", offsetof(struct page_query, offset), 0, 0, 1000000000, "跳过的会话数",
	  "how many sessions to skip" },
};

static void append_session(struct buf *body, const struct session_found *session)
{
	const char *conversation_id = session->info.conversation_id;

	buf_append_char(body, '{');
	json_member(body, "session_id", session->session_id);
	json_member(body, "user_id", session->info.user_id);
	json_member(body, "conversation_id", conversation_id[0] != '\0' ? conversation_id : NULL);
	json_member_time(body, "last_activity", session->info.last_activity_us);
	buf_append_char(body, '}');
}

static void answer_list(struct request *request, const struct session_list *list)
{
	struct buf body;

	buf_init(&body, 512 + list->count * SESSION_JSON_MAX);
	buf_append_char(&body, '{');
	json_member_number(&body, "total", list->total);
	json_member_number(&body, "limit", list->limit);
	json_member_number(&body, "offset", list->offset);
	buf_append_str(&body, ",\"sessions\":[");
	for (size_t i = 0; i < list->count; i++) {
		if (i > 0)
			buf_append_char(&body, ',');
		append_session(&body, &list->sessions[i]);
	}
	buf_append_char(&body, ']');
	json_member_time(&body, "timestamp", clock_unix_us());
	buf_append_char(&body, '}');
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

static void on_list(void *arg, const struct error *error, const struct session_list *list)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);

	if (request != NULL && error != NULL)
		response_error(request, error);
	else if (request != NULL)
		answer_list(request, list);
	free(pending);
}

void sessions_get(struct request *request, void *app)
{
	struct service *service = app;
	struct page_query query;
	struct pending *pending;
	struct error why;
	enum err rc;

	if (query_read(&query, page_query, sizeof page_query / sizeof page_query[0], request, &why) !=
	    ERR_OK) {
		response_error(request, &why);
		return;
	}
	pending = pending_new(request);
	if (pending == NULL)
		return;
	rc = sessions_list(service->sessions, query.offset, query.limit, on_list, pending);
	if (rc != ERR_OK)
		pending_refused(pending, rc);
}

/* ---- the session of a conversation ---- */

static void answer_found(struct request *request, const char *conversation_id,
			 const struct session_found *session)
{
	struct error why;
	struct buf body;

	if (!session->info.found) {
		error_set(&why, ERR_NOT_FOUND, NULL, "no session is in this conversation");
		error_detail(&why, "对话不存在: %s", conversation_id);
		response_error(request, &why);
		return;
	}
	buf_init(&body, SESSION_JSON_MAX);
	buf_append_char(&body, '{');
	json_member(&body, "conversation_id", conversation_id);
	json_member(&body, "session_id", session->session_id);
	buf_append_str(&body, ",\"session_info\":{");
	json_member(&body, "user_id", session->info.user_id);
	json_member_time(&body, "last_activity", session->info.last_activity_us);
	buf_append_char(&body, '}');
	json_member_time(&body, "timestamp", clock_unix_us());
	buf_append_char(&body, '}');
	response_json(request, 200, session->session_id, &body);
	buf_free(&body);
}

static void on_found(void *arg, const struct error *error, const struct session_found *session)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);

	if (request != NULL && error != NULL)
		response_error(request, error);
	else if (request != NULL)
		answer_found(request, pending->conversation_id, session);
	free(pending);
}

void conversation_session_get(struct request *request, void *app)
{
	struct service *service = app;
	struct pending *pending = pending_new(request);
	enum err rc;

	if (pending == NULL)
		return;
	memcpy(pending->conversation_id, request->path_id, sizeof pending->conversation_id);
	rc = session_of_conversation(service->sessions, pending->conversation_id, on_found, pending);
	if (rc != ERR_OK)
		pending_refused(pending, rc);
}
