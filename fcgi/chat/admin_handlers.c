/*
 * admin_handlers.c - GET /sessions and GET /conversation/{conversation_id}/session: for operators, over all users.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "chat/members.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/query.h"
#include "http/response.h"
#include "store/sessions.h"

/* Escaping makes six bytes of one at most. */
#define SESSION_JSON_MAX (3 * 6 * ID_MAX + 512)

#define ALL(table) (table), sizeof(table) / sizeof(table)[0]

static const struct about_tag admin_tag = {
	"管理 Admin", "仅限管理员密钥；未配置管理员密钥时仅限本机",
	"for the keys of administrators; where there are none, for callers on this machine"
};

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

struct list_item {
	const char *session_id, *user_id, *conversation_id;
	uint64_t last_activity;
};

static const struct member item_members[] = {
	MEMBER_SESSION_ID(list_item),
	MEMBER_USER_ID(list_item),
	MEMBER_CONVERSATION_ID(list_item, true),
	MEMBER_LOCAL_TIME(list_item, last_activity, "最后使用时间", "when it was used last"),
};

static const struct shape item_shape = { "SessionItem", ALL(item_members) };

struct list_answer {
	uint64_t total, limit, offset;
	struct shape_list sessions;
	uint64_t timestamp;
};

static const struct member list_members[] = {
	{ "total", MEMBER_COUNT, offsetof(struct list_answer, total), "会话总数",
	  "how many sessions there are", .example = "1" },
	{ "limit", MEMBER_COUNT, offsetof(struct list_answer, limit), "最多返回的会话数", "as asked for",
	  .example = "10" },
	{ "offset", MEMBER_COUNT, offsetof(struct list_answer, offset), "跳过的会话数", "as asked for",
	  .example = "0" },
	{ "sessions", MEMBER_LIST, offsetof(struct list_answer, sessions), "最近使用的在前",
	  "the last used one first", .shape = &item_shape },
	MEMBER_TIMESTAMP(list_answer),
};

static const struct shape list_shape = { "SessionList", ALL(list_members) };

const struct about sessions_about = {
	.id = "listSessions",
	.tag = &admin_tag,
	.summary = "列出会话",
	.summary_en = "List the sessions",
	.query = { ALL(page_query) },
	.answers = { { 200, "会话列表", "the list", .shape = &list_shape } },
	.errors = { { ERR_STORE, NULL } },
};

static void answer_list(struct request *request, const struct session_list *list)
{
	struct list_item items[SESSION_PAGE_MAX];
	const struct list_answer answer = {
		.total = list->total,
		.limit = list->limit,
		.offset = list->offset,
		.sessions = { items, list->count, sizeof items[0] },
		.timestamp = clock_unix_us(),
	};

	for (size_t i = 0; i < list->count; i++) {
		const struct session_found *session = &list->sessions[i];
		const char *conversation_id = session->info.conversation_id;

		/* cppcheck-suppress unreadVariable ; `answer` has the items' address */
		items[i] = (struct list_item){
			.session_id = session->session_id,
			.user_id = session->info.user_id,
			.conversation_id = conversation_id[0] != '\0' ? conversation_id : NULL,
			.last_activity = session->info.last_activity_us,
		};
	}
	response_shape(request, 200, NULL, &list_shape, &answer, 512 + list->count * SESSION_JSON_MAX);
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

struct found_session {
	const char *user_id;
	uint64_t last_activity;
};

struct found_answer {
	const char *conversation_id, *session_id;
	struct found_session session_info;
	uint64_t timestamp;
};

static const struct member found_session_members[] = {
	MEMBER_USER_ID(found_session),
	MEMBER_LOCAL_TIME(found_session, last_activity, "最后使用时间", "when it was used last"),
};

static const struct shape found_session_shape = { "FoundSession", ALL(found_session_members) };

static const struct member found_members[] = {
	MEMBER_CONVERSATION_ID(found_answer, false),
	MEMBER_SESSION_ID(found_answer),
	{ "session_info", MEMBER_OBJECT, offsetof(struct found_answer, session_info), "该会话的信息",
	  "what is known of it", .shape = &found_session_shape },
	MEMBER_TIMESTAMP(found_answer),
};

static const struct shape found_shape = { "ConversationSession", ALL(found_members) };

static const struct field path_conversation_id = {
	"conversation_id", FIELD_ID, true, 0, "Coze 会话 ID", "the Coze conversation", EXAMPLE_CONVERSATION
};

const struct about conversation_session_about = {
	.id = "findSession",
	.tag = &admin_tag,
	.summary = "查找 Coze 会话所属的会话",
	.summary_en = "Find the session of a Coze conversation",
	.path_id = &path_conversation_id,
	.answers = { { 200, "所属的会话", "the session that used it last", .shape = &found_shape,
		       .names_session = true } },
	.errors = { { ERR_NOT_FOUND, "对话不存在: " EXAMPLE_CONVERSATION }, { ERR_STORE, NULL } },
};

static void answer_found(struct request *request, const char *conversation_id,
			 const struct session_found *session)
{
	const struct found_answer answer = {
		.conversation_id = conversation_id,
		.session_id = session->session_id,
		.session_info = { session->info.user_id, session->info.last_activity_us },
		.timestamp = clock_unix_us(),
	};
	struct error why;

	if (session->info.found) {
		response_shape(request, 200, session->session_id, &found_shape, &answer, SESSION_JSON_MAX);
		return;
	}
	error_set(&why, ERR_NOT_FOUND, NULL, "no session is in this conversation");
	error_detail(&why, "对话不存在: %s", conversation_id);
	response_error(request, &why);
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
