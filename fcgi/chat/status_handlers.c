/*
 * status_handlers.c - GET /, GET /health and GET /metrics.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/metrics.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/response.h"
#include "store/sessions.h"

#define ANSWER_MAX  1024
#define METRICS_MAX (4 * 1024 * 1024)
#define VERSION     "1.1.0"

void root_get(struct request *request, void *app)
{
	struct buf body;

	(void)app;
	buf_init(&body, ANSWER_MAX);
	buf_append_str(&body, "{\"message\":\"Coze聊天机器人API服务正在运行\",\"version\":\"" VERSION
			      "\",\"status\":\"healthy\",\"docs\":\"/docs\"}");
	response_json(request, 200, NULL, &body);
	buf_free(&body);
}

/* `degraded` is still 200: sessions and streams work, only new messages are refused until Coze is back. */
static void answer_health(struct request *request, const struct service *service, bool redis_up)
{
	const char *status = breaker_is_open(&service->turns.breaker) ? "degraded" : "healthy";
	char now[CLOCK_ISO_SIZE];
	struct buf body;

	clock_iso(now, clock_unix_us());
	buf_init(&body, ANSWER_MAX);
	buf_printf(&body,
		   "{\"status\":\"%s\",\"timestamp\":\"%s\",\"coze_client_status\":\"initialized\",\"redis\":"
		   "\"%s\"}",
		   redis_up ? status : "unhealthy", now, redis_up ? "up" : "down");
	response_json(request, redis_up ? 200 : 503, NULL, &body);
	buf_free(&body);
}

static void on_pong(void *arg, const struct error *error)
{
	struct pending *pending = arg;
	struct request *request = pending_answered(pending);

	if (request != NULL)
		answer_health(request, pending->app, error == NULL);
	free(pending);
}

/* Asks Redis each time: a connection that looks fine may lead to a server that is frozen. */
void health_get(struct request *request, void *app)
{
	struct service *service = app;
	struct pending *pending = pending_new(request);

	if (pending != NULL)
		pending->app = app;
	if (pending == NULL || sessions_ping(service->sessions, on_pong, pending) == ERR_OK)
		return;
	answer_health(pending_answered(pending), service, false);
	free(pending);
}

void metrics_get(struct request *request, void *app)
{
	struct service *service = app;
	const char *names[METRICS_ROUTES];
	size_t count = service_route_names(names);
	struct buf body;

	buf_init(&body, METRICS_MAX);
	metrics_write(service->metrics, names, count, VERSION, &body);
	response_body(request, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
	buf_free(&body);
}
