/*
 * chat_api.c - see chat_api.h.
 */
#include "chat/chat_api.h"

#include "chat/members.h"

#define ALL(table) (table), sizeof(table) / sizeof(table)[0]

#define EXAMPLE_ANSWER "我理解您的工作压力。"

const struct field chat_fields[CHAT_FIELDS] = {
	{ "message", FIELD_TEXT, true, offsetof(struct chat_fields, message), "用户消息，不能为空白",
	  "the user's message, not blank", "我最近工作压力很大" },
	{ "user_id", FIELD_ID, false, offsetof(struct chat_fields, user_id),
	  "用户 ID；会话属于第一个使用它的用户",
	  "the user; a session belongs to the first one who names himself", EXAMPLE_USER },
	{ "session_id", FIELD_ID, false, offsetof(struct chat_fields, session_id),
	  "会话 ID，固定使用同一个即可保持上下文；缺省时由服务生成",
	  "the session: keep it to keep the context; made by the service when absent", EXAMPLE_SESSION },
	{ "conversation_id", FIELD_ID, false, offsetof(struct chat_fields, conversation_id),
	  "Coze 会话 ID；用于续传已有会话", "the Coze conversation to go on with", NULL },
};

/* ---- answers ---- */

#define MEMBER_MESSAGE_ID(of)                                                                \
	{                                                                                    \
		"message_id", MEMBER_TEXT, offsetof(struct of, message_id), "回复的消息 ID", \
		    "the answer's id at Coze", .example = "msg_abc123def456"                 \
	}

static const struct member chat_members[] = {
	{ "response", MEMBER_BYTES, offsetof(struct chat_answer, response), "完整回复", "the whole answer",
	  .example = EXAMPLE_ANSWER },
	MEMBER_SESSION_ID(chat_answer),
	MEMBER_MESSAGE_ID(chat_answer),
	MEMBER_TIMESTAMP(chat_answer),
	MEMBER_CONVERSATION_ID(chat_answer, false),
};

const struct shape chat_shape = { "ChatAnswer", ALL(chat_members) };

/* ---- events ---- */

static const char *const chunk_words[] = { "chunk", NULL };
static const char *const complete_words[] = { "complete", NULL };
static const char *const failure_words[] = { "error", NULL };

static const struct member chunk_data_members[] = {
	{ "content", MEMBER_BYTES, offsetof(struct chunk_data, content), "回复的下一段文字",
	  "the next piece of the answer", .example = EXAMPLE_ANSWER },
	{ "chunk_index", MEMBER_COUNT, offsetof(struct chunk_data, chunk_index), "序号，从 0 开始",
	  "counts from 0", .example = "0" },
};

static const struct member complete_data_members[] = {
	{ "total_chunks", MEMBER_COUNT, offsetof(struct complete_data, total_chunks), "chunk 事件的总数",
	  "how many chunk events there were", .example = "1" },
	{ "full_content", MEMBER_PIECES, offsetof(struct complete_data, full_content), "完整回复",
	  "the whole answer", .example = EXAMPLE_ANSWER },
	MEMBER_SESSION_ID(complete_data),
	MEMBER_MESSAGE_ID(complete_data),
	MEMBER_CONVERSATION_ID(complete_data, false),
	MEMBER_TIMESTAMP(complete_data),
};

static const struct member failure_data_members[] = {
	{ "message", MEMBER_TEXT, offsetof(struct failure_data, message), "哪里出错", "what went wrong",
	  .example = "流式聊天失败: timeout" },
	MEMBER_SESSION_ID(failure_data),
	MEMBER_CONVERSATION_ID(failure_data, false),
	MEMBER_TIMESTAMP(failure_data),
};

static const struct shape chunk_data_shape = { "ChunkData", ALL(chunk_data_members) };
static const struct shape complete_data_shape = { "CompleteData", ALL(complete_data_members) };
static const struct shape failure_data_shape = { "FailureData", ALL(failure_data_members) };

static const struct member chunk_members[] = {
	{ "type", MEMBER_WORD, offsetof(struct chunk_event, type), "事件类型", "kind of event",
	  .words = chunk_words },
	{ "data", MEMBER_OBJECT, offsetof(struct chunk_event, data), "一段文字", "a piece of text",
	  .shape = &chunk_data_shape },
};

static const struct member complete_members[] = {
	{ "type", MEMBER_WORD, offsetof(struct complete_event, type), "事件类型", "kind of event",
	  .words = complete_words },
	{ "data", MEMBER_OBJECT, offsetof(struct complete_event, data), "回复已完整",
	  "the answer is complete", .shape = &complete_data_shape },
};

static const struct member failure_members[] = {
	{ "type", MEMBER_WORD, offsetof(struct failure_event, type), "事件类型", "kind of event",
	  .words = failure_words },
	{ "data", MEMBER_OBJECT, offsetof(struct failure_event, data), "回复中断", "the answer broke off",
	  .shape = &failure_data_shape },
};

const struct shape chunk_shape = { "ChunkEvent", ALL(chunk_members) };
const struct shape complete_shape = { "CompleteEvent", ALL(complete_members) };
const struct shape failure_shape = { "ErrorEvent", ALL(failure_members) };

static const struct shape *const stream_events[] = { &chunk_shape, &complete_shape, &failure_shape, NULL };

/* ---- the routes ---- */

static const struct about_tag chat_tag = { "对话 Chat", "向机器人发送消息", "messages to the bot" };

#define CHAT_ERRORS                                                                                  \
	{ ERR_COZE_REFUSED, "conversation_id 不存在: " EXAMPLE_CONVERSATION },                       \
	    { ERR_FORBIDDEN, "该会话属于其他用户: session_id 与 user_id 不匹配" },                   \
	    { ERR_SESSION_BUSY, NULL }, { ERR_COZE_CONFIG, "Coze API请求失败: 401 Unauthorized" },   \
	    { ERR_STORE, NULL }, { ERR_RATE, NULL }, { ERR_TOO_MANY, NULL }, { ERR_STOPPING, NULL }, \
	    { ERR_CIRCUIT, NULL }, { ERR_COZE_BUSY, NULL }, { ERR_COZE_UNREACHABLE, NULL },          \
	    { ERR_COZE_PROTOCOL, NULL }, { ERR_COZE_EMPTY, NULL },                                   \
	{                                                                                            \
		ERR_ANSWER_TOO_BIG, NULL                                                             \
	}

const struct about chat_about = {
	.id = "chat",
	.tag = &chat_tag,
	.summary = "发送消息，一次返回完整回复",
	.summary_en = "Send a message, get the whole answer",
	.description = "同一会话的消息按到达顺序逐条处理。不提供 `session_id` "
		       "时由服务生成，并在回复中返回。可选字段为 `null` "
		       "视为未提供，未知字段被忽略。",
	.description_en =
	    "The messages of one session run one at a time, in order of arrival. Without `session_id` the "
	    "service makes one and returns it. An optional field that is `null` counts as absent; "
	    "unknown fields are ignored.",
	.body = { "ChatRequest", chat_fields, CHAT_FIELDS },
	.answers = { { 200, "完整回复", "the whole answer", .shape = &chat_shape, .names_session = true } },
	.errors = { CHAT_ERRORS, { ERR_TIMEOUT, "同步聊天失败: timeout" } },
};

const struct about chat_stream_about = {
	.id = "streamChat",
	.tag = &chat_tag,
	.summary = "发送消息，以事件流返回回复",
	.summary_en = "Send a message, get the answer as an event stream",
	.description =
	    "每个事件是一行 `data: ` 加 JSON，后跟一个空行；静默期间会发送空行保持连接。流以且仅以一个 "
	    "`complete` 或一个 "
	    "`error` 事件结束。Coze 接受消息之前不发送任何内容，因此此前的失败是普通的 HTTP 错误。",
	.description_en =
	    "Each event is one line, `data: ` and JSON, with a blank line behind; during silence blank lines "
	    "are sent. A stream ends with exactly one `complete` or one `error`. Until Coze has accepted "
	    "the message nothing is sent, so a failure before that is a plain HTTP error.",
	.body = { "ChatRequest", chat_fields, CHAT_FIELDS },
	.answers = { { 200, "事件流", "the event stream", .type = "text/event-stream",
		       .events = stream_events, .names_session = true } },
	.errors = { CHAT_ERRORS, { ERR_TIMEOUT, "流式聊天失败: timeout" } },
};
