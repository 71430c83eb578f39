/*
 * service.c - the table of routes.
 */
#include "chat/service.h"

static const struct route routes[] = {
	{ "GET", "/", ACCESS_OPEN, root_get },
	{ "GET", "/health", ACCESS_OPEN, health_get },
	{ "GET", "/metrics", ACCESS_ADMIN, metrics_get },
	{ "POST", "/chat", ACCESS_USER, chat_post },
	{ "POST", "/chat/stream", ACCESS_USER, chat_stream_post },
	{ "GET", "/session/{session_id}/info", ACCESS_USER, session_info_get },
	{ "POST", "/session/{session_id}/clear", ACCESS_USER, session_clear_post },
	{ "POST", "/session/{session_id}/bind", ACCESS_USER, session_bind_post },
	{ "GET", "/conversation/{conversation_id}/session", ACCESS_ADMIN, conversation_session_get },
	{ "GET", "/sessions", ACCESS_ADMIN, sessions_get },
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
