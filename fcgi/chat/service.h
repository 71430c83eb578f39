/*
 * service.h - what the handlers of a worker share, and the table of routes that they serve.
 */
#ifndef CHAT_SERVICE_H
#define CHAT_SERVICE_H

#include <stddef.h>
#include <uv.h>

#include "base/metrics.h"
#include "chat/turn.h"
#include "http/router.h"

struct config;

struct service {
	uv_loop_t *loop;
	const struct config *config;
	struct metrics_region *metrics; /* of the node */
	struct sessions *sessions;
	struct turn_context turns;
};

/* Handlers; `app` is the struct service. */
void chat_post(struct request *request, void *app); /* chat_handlers.c */
void chat_stream_post(struct request *request, void *app);
void session_info_get(struct request *request, void *app); /* session_handlers.c */
void session_clear_post(struct request *request, void *app);
void session_bind_post(struct request *request, void *app);
void sessions_get(struct request *request, void *app); /* admin_handlers.c */
void conversation_session_get(struct request *request, void *app);
void root_get(struct request *request, void *app); /* status_handlers.c */
void health_get(struct request *request, void *app);
void metrics_get(struct request *request, void *app);

const struct route *service_routes(size_t *count);

/* What the metrics call the routes, by number; returns how many. */
size_t service_route_names(const char *names[METRICS_ROUTES]);

#endif
