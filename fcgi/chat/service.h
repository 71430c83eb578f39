/*
 * service.h - what the handlers of a worker share, and the table of routes that they serve.
 */
#ifndef CHAT_SERVICE_H
#define CHAT_SERVICE_H

#include <stddef.h>
#include <uv.h>

#include "base/buf.h"
#include "base/metrics.h"
#include "chat/turn.h"
#include "http/about.h"
#include "http/router.h"

#define SERVICE_VERSION "1.1.0" /* of the API */

struct config;

struct service {
	uv_loop_t *loop;
	const struct config *config;
	struct metrics_region *metrics; /* of the node */
	struct sessions *sessions;
	struct turn_context turns;
	struct buf document; /* the API document, once somebody has asked for it */
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
void openapi_get(struct request *request, void *app);

/* What they tell of themselves, each beside its handler; chat_api.h has the two of chat_handlers.c. */
extern const struct about session_info_about, session_clear_about, session_bind_about;
extern const struct about sessions_about, conversation_session_about;
extern const struct about root_about, health_about, metrics_about, openapi_about;

const struct route *service_routes(size_t *count);

/* What the metrics call the routes, by number; returns how many. */
size_t service_route_names(const char *names[METRICS_ROUTES]);

/* Appends the API document, as it is with these settings. */
void service_document(const struct config *config, struct buf *out);

#endif
