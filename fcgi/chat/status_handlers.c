/*
 * status_handlers.c - GET /, GET /health, GET /metrics and GET /openapi.json.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "chat/members.h"
#include "chat/pending.h"
#include "chat/service.h"
#include "http/response.h"
#include "store/sessions.h"

#define ANSWER_MAX  1024
#define METRICS_MAX (4 * 1024 * 1024)
#define API_MAX     (1024 * 1024)

static const struct about_tag status_tag = { "服务 Service", "服务的状态与接口文档",
					     "how the service is, and this document" };

struct root_answer {
	const char *message, *version, *status, *docs;
};

static const char *const root_messages[] = { "Coze聊天机器人API服务正在运行", NULL };
static const char *const root_statuses[] = { "healthy", NULL };

static const struct member root_members[] = {
	{ "message", MEMBER_WORD, offsetof(struct root_answer, message), "说明", "what runs here",
	  .words = root_messages },
	{ "version", MEMBER_TEXT, offsetof(struct root_answer, version), "接口版本", "the API's version",
	  .example = SERVICE_VERSION },
	{ "status", MEMBER_WORD, offsetof(struct root_answer, status), "状态", "that it runs",
	  .words = root_statuses },
	{ "docs", MEMBER_TEXT, offsetof(struct root_answer, docs), "文档页面", "where the docs are",
	  .example = "/docs" },
};

static const struct shape root_shape = { "Service", root_members, 4 };

const struct about root_about = {
	.id = "getService",
	.tag = &status_tag,
	.summary = "服务信息",
	.summary_en = "What runs here",
	.answers = { { 200, "服务信息", "the service", .shape = &root_shape } },
};

void root_get(struct request *request, void *app)
{
	const struct root_answer answer = { root_messages[0], SERVICE_VERSION, root_statuses[0], "/docs" };

	(void)app;
	response_shape(request, 200, NULL, &root_shape, &answer, ANSWER_MAX);
}

struct health_answer {
	const char *status;
	uint64_t timestamp;
	const char *coze_client_status, *redis;
};

static const char *const health_words[] = { "healthy", "degraded", "unhealthy", NULL };
static const char *const coze_words[] = { "initialized", NULL };
static const char *const redis_words[] = { "up", "down", NULL };

static const struct member health_members[] = {
	{ "status", MEMBER_WORD, offsetof(struct health_answer, status),
	  "healthy：正常；degraded：Coze 暂时不可用，新消息会被拒绝；unhealthy：Redis 不可用",
	  "degraded: Coze is down and new messages are refused; unhealthy: Redis cannot be reached",
	  .words = health_words },
	MEMBER_TIMESTAMP(health_answer),
	{ "coze_client_status", MEMBER_WORD, offsetof(struct health_answer, coze_client_status),
	  "Coze 客户端", "the client of Coze", .words = coze_words },
	{ "redis", MEMBER_WORD, offsetof(struct health_answer, redis), "Redis 是否可用",
	  "whether Redis answers", .words = redis_words },
};

static const struct shape health_shape = { "Health", health_members, 4 };

const struct about health_about = {
	.id = "getHealth",
	.tag = &status_tag,
	.summary = "健康检查",
	.summary_en = "How the service is",
	.answers = {
		{ 200, "可以服务", "it serves", .shape = &health_shape },
		{ 503, "Redis 不可用", "Redis cannot be reached", .shape = &health_shape,
		  .example = "{\"status\":\"unhealthy\",\"timestamp\":\"2024-01-15T10:30:15.123456\","
			     "\"coze_client_status\":\"initialized\",\"redis\":\"down\"}" },
	},
};

/* `degraded` is still 200: sessions and streams work, only new messages are refused until Coze is back. */
static void answer_health(struct request *request, const struct service *service, bool redis_up)
{
	const char *status = breaker_is_open(&service->turns.breaker) ? "degraded" : "healthy";
	const struct health_answer answer = {
		.status = redis_up ? status : "unhealthy",
		.timestamp = clock_unix_us(),
		.coze_client_status = coze_words[0],
		.redis = redis_up ? "up" : "down",
	};

	response_shape(request, redis_up ? 200 : 503, NULL, &health_shape, &answer, ANSWER_MAX);
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

const struct about metrics_about = {
	.id = "getMetrics",
	.tag = &status_tag,
	.summary = "监控指标",
	.summary_en = "Metrics for Prometheus",
	.description = "本机全部工作进程之和。仅限管理员密钥；未配置管理员密钥时仅限本机。",
	.description_en = "Summed over the workers of this machine. For the keys of administrators; where "
			  "there are none, for "
			  "callers on this machine.",
	.answers = { { 200, "Prometheus 文本格式", "Prometheus' text format", .type = "text/plain" } },
};

void metrics_get(struct request *request, void *app)
{
	struct service *service = app;
	const char *names[METRICS_ROUTES];
	size_t count = service_route_names(names);
	struct buf body;

	buf_init(&body, METRICS_MAX);
	metrics_write(service->metrics, names, count, SERVICE_VERSION, &body);
	response_body(request, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
	buf_free(&body);
}

const struct about openapi_about = {
	.id = "getOpenapi",
	.tag = &status_tag,
	.summary = "本文档",
	.summary_en = "This document",
	.answers = { { 200, "OpenAPI 3.1 文档", "an OpenAPI 3.1 document", .type = NULL } },
};

/* It never changes while the worker lives, so it is made once, when first asked for. */
void openapi_get(struct request *request, void *app)
{
	struct service *service = app;
	struct buf *document = &service->document;

	if (document->failed || buf_size(document) == 0) {
		buf_free(document);
		buf_init(document, API_MAX);
		service_document(service->config, document);
	}
	response_json(request, 200, NULL, document);
}
