/*
 * openapi.c - see openapi.h.
 */
#include "http/openapi.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "http/response.h"
#include "http/schema.h"

#define SHAPES_MAX 64
#define ERRORS_MAX (ABOUT_ERRORS + 8)
#define BETWEEN    " / "  /* two languages in one line */
#define PARAGRAPH  "\n\n" /* in Markdown */

static const struct {
	int status;
	const char *meaning, *meaning_en;
} statuses[] = {
	{ 200, "成功", "success" },
	{ 400, "请求有误，`detail` 指出字段", "the request is at fault; `detail` names the field" },
	{ 401, "缺少 API 密钥或密钥无效", "no API key, or a wrong one" },
	{ 403, "没有权限", "not allowed" },
	{ 404, "不存在", "not found" },
	{ 409, "会话仍在处理之前的消息", "the session is still busy with earlier messages" },
	{ 413, "请求体过大", "the body is too large" },
	{ 415, "请求体不是 JSON", "the body is no JSON" },
	{ 429, NULL, NULL }, /* see front_errors */
	{ 500, "服务配置有误：Coze 拒绝了本服务的令牌、机器人或权限",
	  "this service's configuration is at fault: Coze refuses its token, bot or permission" },
	{ 502, NULL, NULL },
	{ 503, "暂时无法服务，请按 `Retry-After` 稍后重试",
	  "cannot be served now; try again after `Retry-After` seconds" },
	{ 504, NULL, NULL },
};

/* What nginx says by itself, in front of every route: nginx/errors.conf.in. */
static const struct {
	int status; /* 0: any other */
	const char *component, *detail, *meaning, *meaning_en;
	bool retry_after;
} front_errors[] = {
	{ 429, "TooManyRequests", "请求过于频繁，请稍后重试", "该客户端请求过于频繁",
	  "this client sends too fast", true },
	{ 502, "BadGateway", "服务暂时不可用，请稍后重试", "服务正在启动或重启",
	  "the service is starting or gone", true },
	{ 504, "GatewayTimeout", "服务响应超时，请稍后重试", "服务没有及时响应",
	  "the service did not answer in time", true },
	{ 0, "OtherError", "请求格式错误：请求行、路径或请求头不合法",
	  "其他任何错误（如 405、408、431），格式相同",
	  "any other error, such as 405, 408 or 431; of the same form", false },
};

static void open_member(struct buf *out, const char *name, char bracket)
{
	json_name(out, name);
	buf_append_char(out, bracket);
}

/* ---- errors of a route ---- */

struct errors {
	struct about_error list[ERRORS_MAX];
	size_t count;
	struct error bad_body, bad_query; /* own the texts of two of them */
};

static void add_error(struct errors *errors, enum err code, const char *detail)
{
	if (errors->count < ERRORS_MAX)
		errors->list[errors->count++] = (struct about_error){ code, detail };
}

static void add_body_errors(struct errors *errors, const struct about_body *body)
{
	const struct field *field = body->fields;

	while (field < body->fields + body->count - 1 && !field->required)
		field++;
	fields_missing(field, &errors->bad_body);
	add_error(errors, ERR_BAD_REQUEST, errors->bad_body.detail);
	add_error(errors, ERR_TOO_BIG, NULL);
	add_error(errors, ERR_MEDIA_TYPE, NULL);
}

static void add_query_error(struct errors *errors, const struct query_field *field)
{
	query_bad(field, &errors->bad_query);
	add_error(errors, ERR_BAD_REQUEST, errors->bad_query.detail);
}

static void collect_errors(struct errors *errors, const struct route *route)
{
	const struct about *about = route->about;

	errors->count = 0;
	if (about->body.count > 0)
		add_body_errors(errors, &about->body);
	if (about->query.count > 0)
		add_query_error(errors, &about->query.fields[0]);
	if (about->path_id != NULL)
		add_error(errors, ERR_BAD_REQUEST, NULL);
	if (route->access != ACCESS_OPEN)
		add_error(errors, ERR_UNAUTHORIZED, NULL);
	if (route->access == ACCESS_ADMIN)
		add_error(errors, ERR_FORBIDDEN, NULL);
	for (size_t i = 0; i < ABOUT_ERRORS && about->errors[i].code != ERR_OK; i++)
		add_error(errors, about->errors[i].code, about->errors[i].detail);
	add_error(errors, ERR_NOMEM, NULL);
}

/* ---- responses ---- */

static void append_header_reference(struct buf *out, const char *name, const char *component)
{
	json_name(out, name);
	buf_printf(out, "{\"$ref\":\"#/components/headers/%s\"}", component);
}

static void append_headers(struct buf *out, bool names_session, bool retry_after, bool authenticate)
{
	open_member(out, "headers", '{');
	append_header_reference(out, "X-Request-ID", "RequestId");
	if (names_session)
		append_header_reference(out, "X-Session-ID", "SessionId");
	if (retry_after)
		append_header_reference(out, "Retry-After", "RetryAfter");
	if (authenticate)
		append_header_reference(out, "WWW-Authenticate", "Authenticate");
	buf_append_char(out, '}');
}

static void append_detail(struct buf *out, const char *detail)
{
	buf_append_str(out, "{\"detail\":");
	json_cstring(out, detail);
	buf_append_char(out, '}');
}

static bool errors_have(const struct errors *errors, int status)
{
	for (size_t i = 0; i < errors->count; i++)
		if (error_status(errors->list[i].code) == status)
			return true;
	return false;
}

static bool errors_retry(const struct errors *errors, int status)
{
	struct error error;

	for (size_t i = 0; i < errors->count; i++) {
		error_set(&error, errors->list[i].code, NULL, "example");
		if (error_status(error.code) == status && error_retry_after_s(&error) > 0)
			return true;
	}
	return false;
}

/* Named as in the log; the second one of a name has its number behind. */
static void append_error_examples(struct buf *out, const struct errors *errors, int status)
{
	unsigned seen[ERR__COUNT] = { 0 };
	struct error error;
	char name[64];

	for (size_t i = 0; i < errors->count; i++) {
		const struct about_error *one = &errors->list[i];

		if (error_status(one->code) != status)
			continue;
		error_set(&error, one->code, one->detail, "example");
		snprintf(name, sizeof name, seen[one->code] > 0 ? "%s_%u" : "%s", error_name(one->code),
			 seen[one->code] + 1);
		seen[one->code]++;
		open_member(out, name, '{');
		json_name(out, "value");
		append_detail(out, error.detail);
		buf_append_char(out, '}');
	}
}

static void append_answer_example(struct buf *out, const struct about_answer *answer)
{
	if (answer->example == NULL && answer->shape == NULL)
		return;
	open_member(out, "answer", '{');
	json_name(out, "value");
	if (answer->example != NULL)
		buf_append_str(out, answer->example);
	else
		shape_example(out, answer->shape, SHAPE_COMPACT);
	buf_append_char(out, '}');
}

static void append_answer_schema(struct buf *out, const struct about_answer *answer)
{
	if (answer->shape != NULL)
		schema_reference(out, answer->shape->name);
	else
		buf_append_str(out, "{\"type\":\"object\"}");
}

/* `answer` may be NULL, and so may `errors` have none of this status; not both. */
static void append_json(struct buf *out, const struct about_answer *answer, const struct errors *errors,
			int status)
{
	bool failing = errors_have(errors, status);

	open_member(out, "application/json", '{');
	json_name(out, "schema");
	if (answer != NULL && failing)
		buf_append_str(out, "{\"anyOf\":[");
	if (answer != NULL)
		append_answer_schema(out, answer);
	if (failing) {
		if (answer != NULL)
			buf_append_char(out, ',');
		schema_reference(out, error_shape.name);
	}
	if (answer != NULL && failing)
		buf_append_str(out, "]}");
	if (failing || answer->example != NULL || answer->shape != NULL) {
		open_member(out, "examples", '{');
		if (answer != NULL)
			append_answer_example(out, answer);
		append_error_examples(out, errors, status);
		buf_append_char(out, '}');
	}
	buf_append_char(out, '}');
}

static void append_event(struct buf *text, const struct shape *event)
{
	buf_append_str(text, "data: ");
	shape_example(text, event, SHAPE_SPACED);
	buf_append_str(text, "\n\n");
}

/* OpenAPI 3.1 has no word for a stream of events: it is a string, whose content is a list of them. */
static void append_stream(struct buf *out, const struct shape *const *events)
{
	struct buf text;

	buf_append_str(out, "{\"schema\":{\"type\":\"string\",\"contentMediaType\":\"text/event-stream\","
			    "\"contentSchema\":{\"type\":\"array\",\"items\":{\"oneOf\":[");
	for (size_t i = 0; events[i] != NULL; i++) {
		json_item(out);
		schema_reference(out, events[i]->name);
	}
	buf_append_str(out, "]}}},\"examples\":{");
	for (size_t i = 1; events[i] != NULL; i++) {
		buf_init(&text, 16384);
		append_event(&text, events[0]);
		append_event(&text, events[i]);
		open_member(out, events[i]->name, '{');
		json_name(out, "value");
		json_string(out, buf_bytes(&text), buf_size(&text));
		buf_append_char(out, '}');
		out->failed = out->failed || text.failed;
		buf_free(&text);
	}
	buf_append_str(out, "}}");
}

static void append_text(struct buf *out, const struct about_answer *answer)
{
	buf_append_str(out, "{\"schema\":{\"type\":\"string\"}");
	if (answer->example != NULL)
		json_member(out, "example", answer->example);
	buf_append_char(out, '}');
}

static void append_response(struct buf *out, const char *meaning, const char *meaning_en,
			    const struct about_answer *answer, const struct errors *errors, int status)
{
	char name[16];

	snprintf(name, sizeof name, "%d", status);
	open_member(out, name, '{');
	if (answer != NULL && answer->meaning != NULL)
		schema_text(out, "description", answer->meaning, answer->meaning_en, BETWEEN);
	else
		schema_text(out, "description", meaning, meaning_en, BETWEEN);
	append_headers(out, answer != NULL && answer->names_session, errors_retry(errors, status),
		       status == 401);
	open_member(out, "content", '{');
	if (answer == NULL || answer->type == NULL) {
		append_json(out, answer, errors, status);
	} else {
		json_name(out, answer->type);
		if (answer->events != NULL)
			append_stream(out, answer->events);
		else
			append_text(out, answer);
	}
	buf_append_str(out, "}}");
}

static const struct about_answer *answer_of(const struct about *about, int status)
{
	for (size_t i = 0; i < ABOUT_ANSWERS && about->answers[i].status != 0; i++)
		if (about->answers[i].status == status)
			return &about->answers[i];
	return NULL;
}

static void append_front_error(struct buf *out, int status)
{
	char name[16];

	for (size_t i = 0; i < sizeof front_errors / sizeof front_errors[0]; i++) {
		if (front_errors[i].status != status)
			continue;
		snprintf(name, sizeof name, status != 0 ? "%d" : "default", status);
		json_name(out, name);
		buf_printf(out, "{\"$ref\":\"#/components/responses/%s\"}", front_errors[i].component);
	}
}

static void append_responses(struct buf *out, const struct route *route)
{
	struct errors errors;

	collect_errors(&errors, route);
	open_member(out, "responses", '{');
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
		int status = statuses[i].status;
		const struct about_answer *answer = answer_of(route->about, status);

		if (statuses[i].meaning == NULL)
			append_front_error(out, status);
		else if (answer != NULL || errors_have(&errors, status))
			append_response(out, statuses[i].meaning, statuses[i].meaning_en, answer, &errors,
					status);
	}
	append_front_error(out, 0);
	buf_append_char(out, '}');
}

/* ---- requests ---- */

static void append_security(struct buf *out, const struct openapi *api, enum access_level access)
{
	static const char keys[] = "{\"bearer\":[]},{\"apiKey\":[]}";

	json_name(out, "security");
	if (access == ACCESS_OPEN || (access == ACCESS_ADMIN && !api->needs_admin_key))
		buf_append_str(out, "[]");
	else if (access == ACCESS_USER && !api->needs_key)
		buf_printf(out, "[{},%s]", keys);
	else
		buf_printf(out, "[%s]", keys);
}

static void append_path_parameter(struct buf *out, const struct field *id)
{
	json_item(out);
	buf_append_str(out, "{\"in\":\"path\",\"required\":true");
	json_member(out, "name", id->name);
	schema_text(out, "description", id->meaning, id->meaning_en, BETWEEN);
	json_name(out, "schema");
	schema_field(out, id);
	json_member(out, "example", id->example);
	buf_append_char(out, '}');
}

static void append_parameters(struct buf *out, const struct about *about)
{
	if (about->path_id == NULL && about->query.count == 0)
		return;
	open_member(out, "parameters", '[');
	if (about->path_id != NULL)
		append_path_parameter(out, about->path_id);
	for (size_t i = 0; i < about->query.count; i++) {
		const struct query_field *field = &about->query.fields[i];

		json_item(out);
		buf_append_str(out, "{\"in\":\"query\",\"required\":false");
		json_member(out, "name", field->name);
		schema_text(out, "description", field->meaning, field->meaning_en, BETWEEN);
		json_name(out, "schema");
		schema_query(out, field);
		json_member_number(out, "example", field->fallback);
		buf_append_char(out, '}');
	}
	buf_append_char(out, ']');
}

static void append_body_example(struct buf *out, const char *name, const char *summary,
				const char *summary_en, const struct about_body *body, bool optional)
{
	open_member(out, name, '{');
	schema_text(out, "summary", summary, summary_en, BETWEEN);
	open_member(out, "value", '{');
	for (size_t i = 0; i < body->count; i++) {
		const struct field *field = &body->fields[i];

		if (field->example != NULL && (field->required || optional))
			json_member(out, field->name, field->example);
	}
	buf_append_str(out, "}}");
}

static bool body_has_options(const struct about_body *body)
{
	for (size_t i = 0; i < body->count; i++)
		if (!body->fields[i].required && body->fields[i].example != NULL)
			return true;
	return false;
}

static void append_body(struct buf *out, const struct openapi *api, const struct about_body *body)
{
	char limit[64], limit_en[64];

	if (body->count == 0)
		return;
	snprintf(limit, sizeof limit, "UTF-8 编码的 JSON，最多 %llu 字节", (unsigned long long)api->body_max);
	snprintf(limit_en, sizeof limit_en, "JSON in UTF-8, at most %llu bytes",
		 (unsigned long long)api->body_max);
	open_member(out, "requestBody", '{');
	buf_append_str(out, "\"required\":true");
	schema_text(out, "description", limit, limit_en, BETWEEN);
	buf_append_str(out, ",\"content\":{\"application/json\":{\"schema\":");
	schema_reference(out, body->name);
	open_member(out, "examples", '{');
	append_body_example(out, "minimal", "仅必填字段", "required fields only", body, false);
	if (body_has_options(body))
		append_body_example(out, "full", "含可选字段", "with optional fields", body, true);
	buf_append_str(out, "}}}}");
}

/* ---- paths ---- */

static void append_operation(struct buf *out, const struct openapi *api, const struct route *route)
{
	const struct about *about = route->about;
	char method[16];
	size_t len = 0;

	for (; len < sizeof method - 1 && route->method[len] != '\0'; len++)
		method[len] = (char)(route->method[len] + ('a' - 'A'));
	method[len] = '\0';
	open_member(out, method, '{');
	json_member(out, "operationId", about->id);
	open_member(out, "tags", '[');
	json_cstring(out, about->tag->name);
	buf_append_char(out, ']');
	schema_text(out, "summary", about->summary, about->summary_en, BETWEEN);
	if (about->description != NULL)
		schema_text(out, "description", about->description, about->description_en, PARAGRAPH);
	append_security(out, api, route->access);
	append_parameters(out, about);
	append_body(out, api, &about->body);
	append_responses(out, route);
	buf_append_char(out, '}');
}

static bool path_seen(const struct openapi *api, size_t before)
{
	for (size_t i = 0; i < before; i++)
		if (api->routes[i].about != NULL &&
		    strcmp(api->routes[i].path, api->routes[before].path) == 0)
			return true;
	return false;
}

static void append_paths(struct buf *out, const struct openapi *api)
{
	open_member(out, "paths", '{');
	for (size_t i = 0; i < api->count; i++) {
		const char *path = api->routes[i].path;

		if (api->routes[i].about == NULL || path_seen(api, i))
			continue;
		open_member(out, path, '{');
		for (size_t k = i; k < api->count; k++)
			if (api->routes[k].about != NULL && strcmp(api->routes[k].path, path) == 0)
				append_operation(out, api, &api->routes[k]);
		buf_append_char(out, '}');
	}
	buf_append_char(out, '}');
}

static bool tag_seen(const struct openapi *api, size_t before)
{
	for (size_t i = 0; i < before; i++)
		if (api->routes[i].about != NULL &&
		    api->routes[i].about->tag == api->routes[before].about->tag)
			return true;
	return false;
}

static void append_tags(struct buf *out, const struct openapi *api)
{
	open_member(out, "tags", '[');
	for (size_t i = 0; i < api->count; i++) {
		const struct about *about = api->routes[i].about;

		if (about == NULL || tag_seen(api, i))
			continue;
		json_item(out);
		buf_append_char(out, '{');
		json_member(out, "name", about->tag->name);
		schema_text(out, "description", about->tag->meaning, about->tag->meaning_en, BETWEEN);
		buf_append_char(out, '}');
	}
	buf_append_char(out, ']');
}

/* ---- components ---- */

/* The shapes that were written, so that each is written once. */
struct seen {
	const void *list[SHAPES_MAX];
	size_t count;
};

static bool see(struct seen *seen, const void *thing)
{
	for (size_t i = 0; i < seen->count; i++)
		if (seen->list[i] == thing)
			return false;
	if (seen->count == SHAPES_MAX)
		return false;
	seen->list[seen->count++] = thing;
	return true;
}

/* NOLINTNEXTLINE(misc-no-recursion): each shape once, see see() */
static void append_shape(struct buf *out, struct seen *seen, const struct shape *shape)
{
	if (shape == NULL || !see(seen, shape))
		return;
	json_name(out, shape->name);
	schema_shape(out, shape);
	for (size_t i = 0; i < shape->count; i++)
		append_shape(out, seen, shape->members[i].shape);
}

static void append_schemas(struct buf *out, const struct openapi *api)
{
	struct seen seen = { .count = 0 };

	open_member(out, "schemas", '{');
	for (size_t i = 0; i < api->count; i++) {
		const struct about *about = api->routes[i].about;

		if (about == NULL)
			continue;
		if (about->body.count > 0 && see(&seen, about->body.fields)) {
			json_name(out, about->body.name);
			schema_fields(out, about->body.fields, about->body.count);
		}
		for (size_t k = 0; k < ABOUT_ANSWERS && about->answers[k].status != 0; k++) {
			const struct shape *const *events = about->answers[k].events;

			append_shape(out, &seen, about->answers[k].shape);
			for (; events != NULL && *events != NULL; events++)
				append_shape(out, &seen, *events);
		}
	}
	append_shape(out, &seen, &error_shape);
	buf_append_char(out, '}');
}

static void append_front_errors(struct buf *out)
{
	open_member(out, "responses", '{');
	for (size_t i = 0; i < sizeof front_errors / sizeof front_errors[0]; i++) {
		open_member(out, front_errors[i].component, '{');
		schema_text(out, "description", front_errors[i].meaning, front_errors[i].meaning_en, BETWEEN);
		append_headers(out, false, front_errors[i].retry_after, false);
		buf_append_str(out, ",\"content\":{\"application/json\":{\"schema\":");
		schema_reference(out, error_shape.name);
		json_name(out, "example");
		append_detail(out, front_errors[i].detail);
		buf_append_str(out, "}}}");
	}
	buf_append_char(out, '}');
}

static void append_header(struct buf *out, const char *component, bool always, const char *meaning,
			  const char *meaning_en, const char *schema)
{
	open_member(out, component, '{');
	schema_text(out, "description", meaning, meaning_en, BETWEEN);
	json_name(out, "required");
	buf_append_str(out, always ? "true" : "false");
	json_name(out, "schema");
	buf_append_str(out, schema);
	buf_append_char(out, '}');
}

static void append_header_components(struct buf *out)
{
	open_member(out, "headers", '{');
	append_header(
	    out, "RequestId", true, "请求编号，与日志一致；可由客户端在同名请求头中给出",
	    "the request's number, as in the logs; the client may choose it",
	    "{\"type\":\"string\",\"minLength\":1,\"maxLength\":128,\"pattern\":\"^[A-Za-z0-9._:-]+$\"}");
	append_header(out, "SessionId", true, "会话 ID，百分号编码", "the session's id, percent-encoded",
		      "{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9._~%-]+$\"}");
	append_header(out, "RetryAfter", false, "多少秒后重试", "seconds after which to try again",
		      "{\"type\":\"integer\",\"minimum\":1}");
	append_header(out, "Authenticate", false, "认证方式", "how to authenticate", "{\"type\":\"string\"}");
	buf_append_char(out, '}');
}

static void append_components(struct buf *out, const struct openapi *api)
{
	open_member(out, "components", '{');
	append_schemas(out, api);
	append_front_errors(out);
	append_header_components(out);
	open_member(out, "securitySchemes", '{');
	open_member(out, "bearer", '{');
	buf_append_str(out, "\"type\":\"http\",\"scheme\":\"bearer\"");
	schema_text(out, "description", "以 `Authorization: Bearer` 发送的密钥",
		    "a key, sent as `Authorization: Bearer`", BETWEEN);
	buf_append_char(out, '}');
	open_member(out, "apiKey", '{');
	buf_append_str(out, "\"type\":\"apiKey\",\"in\":\"header\",\"name\":\"X-API-Key\"");
	schema_text(out, "description", "以 `X-API-Key` 发送的密钥", "a key, sent as `X-API-Key`", BETWEEN);
	buf_append_str(out, "}}}");
}

void openapi_write(struct buf *out, const struct openapi *api)
{
	buf_append_str(out, "{\"openapi\":\"3.1.0\",\"info\":{");
	schema_text(out, "title", api->title, api->title_en, BETWEEN);
	json_member(out, "version", api->version);
	schema_text(out, "description", api->description, api->description_en, PARAGRAPH);
	buf_append_str(out, "},\"servers\":[{\"url\":\"/\",\"description\":\"本服务 / this service\"}]");
	append_tags(out, api);
	append_paths(out, api);
	append_components(out, api);
	buf_append_char(out, '}');
}
