/*
 * service.c - the table of routes, and the document that is made from it.
 */
#include "chat/service.h"

#include "app/config.h"
#include "chat/chat_api.h"
#include "http/openapi.h"

static const struct route routes[] = {
	{ "POST", "/chat", ACCESS_USER, chat_post, &chat_about },
	{ "POST", "/chat/stream", ACCESS_USER, chat_stream_post, &chat_stream_about },
	{ "GET", "/session/{session_id}/info", ACCESS_USER, session_info_get, &session_info_about },
	{ "POST", "/session/{session_id}/clear", ACCESS_USER, session_clear_post, &session_clear_about },
	{ "POST", "/session/{session_id}/bind", ACCESS_USER, session_bind_post, &session_bind_about },
	{ "GET", "/", ACCESS_OPEN, root_get, &root_about },
	{ "GET", "/health", ACCESS_OPEN, health_get, &health_about },
	{ "GET", "/openapi.json", ACCESS_OPEN, openapi_get, &openapi_about },
	{ "GET", "/metrics", ACCESS_ADMIN, metrics_get, &metrics_about },
	{ "GET", "/sessions", ACCESS_ADMIN, sessions_get, &sessions_about },
	{ "GET", "/conversation/{conversation_id}/session", ACCESS_ADMIN, conversation_session_get,
	  &conversation_session_about },
};

const struct route *service_routes(size_t *count)
{
	*count = sizeof routes / sizeof routes[0];
	return routes;
}

size_t service_route_names(const char *names[METRICS_ROUTES])
{
	size_t count = sizeof routes / sizeof routes[0];

	_Static_assert(sizeof routes / sizeof routes[0] < METRICS_ROUTES, "the last one stands for no route");
	for (size_t i = 0; i < count; i++)
		names[i] = routes[i].path;
	return count;
}

void service_document(const struct config *config, struct buf *out)
{
	struct openapi api = {
		.title = "Coze 聊天机器人 API",
		.title_en = "Coze chat API",
		.version = SERVICE_VERSION,
		.description = "请求与响应均为 UTF-8 JSON；错误格式为 `{\"detail\": "
			       "\"错误说明\"}`。每个响应都带 `X-Request-ID`。"
			       "时间为服务的本地时间，不带时区。",
		.description_en =
		    "Bodies are JSON in UTF-8; errors are `{\"detail\": \"…\"}`. Every answer carries "
		    "`X-Request-ID`. Times are local to the service, without zone.",
		.body_max = config->max_request_size,
		.needs_key = config->api_keys[0] != '\0',
		.needs_admin_key = config->admin_api_keys[0] != '\0',
	};

	api.routes = service_routes(&api.count);
	openapi_write(out, &api);
}
