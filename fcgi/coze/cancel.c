/*
 * cancel.c - see cancel.h. A cancellation is an object of its own, because the chat may be gone by then.
 */
#include "coze/cancel.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/id.h"
#include "base/json.h"
#include "base/log.h"
#include "coze/transport.h"

#define LIMIT_MS 2000 /* a session's next message waits for this, so it is short */

struct cancellation {
	void (*on_gone)(void *arg);
	void *arg;
	char chat_id[ID_MAX + 1];
	long status;
};

static void on_head(void *arg, const struct call_head *head)
{
	struct cancellation *cancellation = arg;

	cancellation->status = head->status;
}

static void on_body(void *arg, const char *bytes, size_t len)
{
	(void)arg;
	(void)bytes;
	(void)len;
}

static void on_done(void *arg, enum call_end end, const char *why)
{
	struct cancellation *cancellation = arg;

	log_event(end == CALL_OK ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "cancelled",
		  LOG_TEXT("chat", cancellation->chat_id), LOG_NUMBER("coze_status", cancellation->status),
		  LOG_TEXT("cause", why));
	if (cancellation->on_gone != NULL)
		cancellation->on_gone(cancellation->arg);
	free(cancellation);
}

static const struct call_ops ops = { on_head, on_body, on_done };

static void write_body(struct buf *body, const char *conversation_id, const char *chat_id)
{
	buf_append_str(body, "{\"conversation_id\":");
	json_cstring(body, conversation_id);
	buf_append_str(body, ",\"chat_id\":");
	json_cstring(body, chat_id);
	buf_append_char(body, '}');
}

enum err cancel_chat(struct transport *transport, const char *conversation_id, const char *chat_id,
		     void (*on_gone)(void *arg), void *arg)
{
	struct cancellation *cancellation = calloc(1, sizeof *cancellation);
	struct buf body;
	struct call_spec spec = { "POST", "/chat/cancel", &body, METRICS_CALL_CANCEL, LIMIT_MS, LIMIT_MS };
	enum err rc = ERR_NOMEM;
	struct call *call;

	if (cancellation == NULL)
		return ERR_NOMEM;
	cancellation->on_gone = on_gone;
	cancellation->arg = arg;
	snprintf(cancellation->chat_id, sizeof cancellation->chat_id, "%s", chat_id);
	buf_init(&body, 2048);
	write_body(&body, conversation_id, chat_id);
	if (!body.failed)
		rc = call_start(&call, transport, &spec, &ops, cancellation);
	buf_free(&body);
	if (rc != ERR_OK)
		free(cancellation);
	return rc;
}
