/*
 * session_handlers.c - /session/{session_id}/info, /clear and /bind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "chat/members.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/fields.h"
#include "http/response.h"
#include "store/sessions.h"

#define ANSWER_MAX 8192

#define ALL(table) (table), sizeof(table) / sizeof(table)[0]

static const struct about_tag session_tag = { "会话 Sessions", "会话的查询、清除与绑定",
					      "what is known of a session, and to forget it" };

static const struct field path_session_id = { "session_id", FIELD_ID,      true,           0,
					      "会话 ID",    "the session", EXAMPLE_SESSION };

/* ---- info ---- */

struct info_answer {
	const char *session_id, *user_id, *conversation_id;
	uint64_t last_activity, message_count;
	const char *status;
};

static const char *const info_words[] = { "active", NULL };

static const struct member info_members[] = {
	MEMBER_SESSION_ID(info_answer),
	MEMBER_USER_ID(info_answer),
	MEMBER_CONVERSATION_ID(info_answer, true),
	MEMBER_LOCAL_TIME(info_answer, last_activity, "最后使用时间", "when it was used last"),
	{ "message_count", MEMBER_COUNT, offsetof(struct info_answer, message_count),
	  "自会话开始或清除以来 Coze 接受的用户消息数",
	  "user messages that Coze accepted since the session began or was cleared", .example = "5" },
	{ "status", MEMBER_WORD, offsetof(struct info_answer, status), "状态", "its state",
	  .words = info_words },
};

static const struct shape info_shape = { "SessionInfo", ALL(info_members) };

const struct about session_info_about = {
	.id = "getSessionInfo",
	.tag = &session_tag,
	.summary = "查询会话",
	.summary_en = "What is known of a session",
	.path_id = &path_session_id,
	.answers = { { 200, "会话信息", "the session", .shape = &info_shape, .names_session = true } },
	.errors = { { ERR_NOT_FOUND, "会话不存在: " EXAMPLE_SESSION }, { ERR_STORE, NULL } },
};

static void answer_info(struct request *request, const char *session_id, const struct session_info *info)
{
	const char *conversation_id = info->conversation_id;
	const struct info_answer answer = {
		.session_id = session_id,
		.user_id = info->user_id,
		.conversation_id = conversation_id[0] != '\0' ? conversation_id : NULL,
		.last_activity = info->last_activity_us,
		.message_count = info->message_count,
		.status = "active",
	};
	struct error why;

	if (info->found) {
		response_shape(request, 200, session_id, &info_shape, &answer, ANSWER_MAX);
		return;
	}
	error_set(&why, ERR_NOT_FOUND, NULL, "no such session");
	error_detail(&why, "会话不存在: %s", session_id);
	response_error(request, &why);
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

struct clear_answer {
	const char *message, *session_id;
	uint64_t cleared_at;
};

static const char *const clear_words[] = { "会话已成功清除", NULL };

static const struct member clear_members[] = {
	{ "message", MEMBER_WORD, offsetof(struct clear_answer, message), "结果", "the outcome",
	  .words = clear_words },
	MEMBER_SESSION_ID(clear_answer),
	MEMBER_LOCAL_TIME(clear_answer, cleared_at, "清除时间", "when"),
};

static const struct shape clear_shape = { "SessionCleared", ALL(clear_members) };

const struct about session_clear_about = {
	.id = "clearSession",
	.tag = &session_tag,
	.summary = "清除会话",
	.summary_en = "Forget a session's conversation",
	.description = "下一条消息将开始新的对话。会话不存在时同样返回成功。",
	.description_en =
	    "The next message starts a new conversation. A session that does not exist is cleared as well.",
	.path_id = &path_session_id,
	.answers = { { 200, "已清除", "cleared", .shape = &clear_shape, .names_session = true } },
	.errors = { { ERR_STORE, NULL } },
};

static void on_cleared(void *arg, const struct error *error)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);
	const struct clear_answer answer = { clear_words[0], pending->session_id, clock_unix_us() };

	if (request != NULL && error != NULL)
		response_error(request, error);
	else if (request != NULL)
		response_shape(request, 200, pending->session_id, &clear_shape, &answer, ANSWER_MAX);
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
	  "要绑定的 Coze 会话 ID", "the Coze conversation to bind", EXAMPLE_CONVERSATION },
};

struct bind_answer {
	const char *message, *session_id, *conversation_id;
	uint64_t timestamp;
};

static const char *const bind_words[] = { "会话ID绑定成功", NULL };

static const struct member bind_members[] = {
	{ "message", MEMBER_WORD, offsetof(struct bind_answer, message), "结果", "the outcome",
	  .words = bind_words },
	MEMBER_SESSION_ID(bind_answer),
	MEMBER_CONVERSATION_ID(bind_answer, false),
	MEMBER_TIMESTAMP(bind_answer),
};

static const struct shape bind_shape = { "SessionBound", ALL(bind_members) };

const struct about session_bind_about = {
	.id = "bindSession",
	.tag = &session_tag,
	.summary = "绑定已有的 Coze 会话",
	.summary_en = "Go on with an existing Coze conversation",
	.path_id = &path_session_id,
	.body = { "BindRequest", ALL(bind_fields) },
	.answers = { { 200, "已绑定", "bound", .shape = &bind_shape, .names_session = true } },
	.errors = { { ERR_STORE, NULL } },
};

static void on_bound(void *arg, const struct error *error)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);
	const struct bind_answer answer = { bind_words[0], pending->session_id, pending->conversation_id,
					    clock_unix_us() };

	if (request != NULL && error != NULL)
		response_error(request, error);
	else if (request != NULL)
		response_shape(request, 200, pending->session_id, &bind_shape, &answer, ANSWER_MAX);
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
