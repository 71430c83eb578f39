/*
 * fields.c - see fields.h.
 */
#include "http/fields.h"

#include <assert.h>
#include <json-c/json.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/background.h"
#include "base/memory.h"
#include "base/scan.h"
#include "base/strict.h"
#include "base/utf8.h"
#include "http/response.h"

#define DEPTH_MAX 32 /* nesting of a request body */
#define LARGE \
	(64 * 1024) /* bytes of a body that is parsed in the thread pool: here it would take milliseconds */
#define JSON_C_VALUE 1024  /* bytes that json-c takes for a value, an object being the largest */
#define VALUES_MAX   10000 /* a body of 10 MiB may hold one long text, but not a million objects */

bool fields_content_type_ok(const char *type)
{
	size_t len = strcspn(type, "; \t");
	const char *charset = type;

	if (type[0] == '\0')
		return true;
	if (!(len == 16 && strncasecmp(type, "application/json", 16) == 0) &&
	    !(len > 17 && strncasecmp(type, "application/", 12) == 0 &&
	      strncasecmp(type + len - 5, "+json", 5) == 0))
		return false;
	while ((charset = strchr(charset, ';')) != NULL) {
		charset += 1 + strspn(charset + 1, " \t");
		if (strncasecmp(charset, "charset=", 8) != 0)
			continue;
		charset += 8 + (charset[8] == '"');
		len = strcspn(charset, "\"; \t");
		return (len == 5 && strncasecmp(charset, "utf-8", 5) == 0) ||
		       (len == 4 && strncasecmp(charset, "utf8", 4) == 0) ||
		       (len == 8 && strncasecmp(charset, "us-ascii", 8) == 0);
	}
	return true;
}

/* Where the first byte at or behind `at` is that is no JSON white space; `len` when there is none. */
static size_t skip_blanks(const char *body, size_t at, size_t len)
{
	while (at < len && (body[at] == ' ' || body[at] == '\t' || body[at] == '\r' || body[at] == '\n'))
		at++;
	return at;
}

/* Who owns the texts. */
struct fields_doc {
	struct json_object *built; /* of an odd body; NULL for a plain one */
	char texts[];              /* of a plain one */
};

/* What was found of a field. */
struct found {
	bool present; /* and not null */
	bool is_text;
	struct text text;
};

static enum err check_text(const char *body, size_t len, const struct strict_scan *scan, struct error *why)
{
	if (skip_blanks(body, 0, len) == len)
		return error_set(why, ERR_BAD_REQUEST, "请求体为空，需要 JSON 对象", "empty body");
	if (!utf8_valid(body, len))
		return error_set(why, ERR_BAD_REQUEST, "请求体不是有效的 UTF-8 文本",
				 "invalid UTF-8 in the body");
	if (len > INT_MAX || scan->values > VALUES_MAX)
		return error_set(why, ERR_BAD_REQUEST, "请求体的 JSON 过于复杂", "too many JSON values");
	if (scan->nul_in_name)
		return error_set(why, ERR_BAD_REQUEST, "请求体的字段名不能包含 NUL 字符",
				 "a NUL in a member's name");
	return ERR_OK;
}

static enum err out_of_memory(struct error *why)
{
	return error_set(why, ERR_NOMEM, NULL, "memory for a JSON document");
}

/* ---- plain bodies: what is wanted of them is copied, and nothing is built ---- */

/* Where the table's fields are in the body, the last one of each name. False when only json-c can tell. */
static bool scan_fields(struct scan_member *members, const struct field *fields, size_t count,
			const char *body, size_t len)
{
	struct scan_member member;
	struct scan scan;

	for (size_t i = 0; i < count; i++)
		members[i] = (struct scan_member){ .kind = SCAN_OTHER, .value = { "null", 4 } };
	scan_begin(&scan, body, len);
	while (scan_next(&scan, &member))
		for (size_t i = 0; i < count; i++)
			if (strlen(fields[i].name) == member.name.len &&
			    memcmp(fields[i].name, member.name.bytes, member.name.len) == 0)
				members[i] = member;
	return scan_complete(&scan);
}

/* Copies the texts. False when only json-c knows what their escapes mean. */
static bool copy_texts(char *to, struct found *found, const struct scan_member *members, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct scan_slice *value = &members[i].value;
		long len = (long)value->len;

		found[i].is_text = members[i].kind == SCAN_STRING;
		found[i].present =
		    members[i].kind != SCAN_OTHER || value->len != 4 || memcmp(value->bytes, "null", 4) != 0;
		if (!found[i].is_text)
			continue;
		if (members[i].escaped)
			len = scan_unescape(to, value);
		else
			memcpy(to, value->bytes, value->len);
		if (len < 0)
			return false;
		found[i].text = (struct text){ to, (size_t)len };
		to += len;
	}
	return true;
}

/* ERR_OK with *doc NULL: the body is not plain. */
static enum err read_plain(struct fields_doc **doc, struct found *found, const struct field *fields,
			   size_t count, const char *body, size_t len, struct error *why)
{
	struct scan_member members[FIELDS_MAX];
	size_t bytes = 0;

	if (!scan_fields(members, fields, count, body, len))
		return ERR_OK;
	for (size_t i = 0; i < count; i++)
		bytes += members[i].value.len;
	*doc = malloc(sizeof **doc + bytes);
	if (*doc == NULL)
		return out_of_memory(why);
	(*doc)->built = NULL;
	if (!copy_texts((*doc)->texts, found, members, count)) {
		free(*doc);
		*doc = NULL;
	}
	return ERR_OK;
}

/* ---- odd bodies, and what is no JSON ---- */

static enum err refuse(enum json_tokener_error error, const char *body, size_t end, size_t len,
		       struct error *why)
{
	if (error == json_tokener_error_depth)
		return error_set(why, ERR_BAD_REQUEST, "请求体的 JSON 嵌套过深", "JSON nested too deeply");
	if (error == json_tokener_success && end == len)
		return error_set(why, ERR_BAD_REQUEST, "请求体必须是 JSON 对象", "JSON, but no object");
	if (error == json_tokener_success && body[end] != '\0') /* it stopped there, and knows no reason */
		return out_of_memory(why);
	error_set(why, ERR_BAD_REQUEST, NULL, "broken JSON at byte %zu", end);
	error_detail(why, "请求体不是有效的 JSON（第 %zu 字节附近）", end + 1);
	return ERR_BAD_REQUEST;
}

static enum err build(struct json_object **built, const char *body, size_t len,
		      const struct strict_scan *scan, struct error *why)
{
	struct json_tokener *tokener;
	enum json_tokener_error error;
	size_t end;

	*built = NULL;
	/* json-c loses members without a word, or dies, when it gets no memory. */
	if (!memory_is_there(len * 4 + (scan->values + 1) * JSON_C_VALUE))
		return out_of_memory(why);
	tokener = json_tokener_new_ex(DEPTH_MAX);
	if (tokener == NULL)
		return out_of_memory(why);
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	*built = json_tokener_parse_ex(tokener, body, (int)len);
	error = json_tokener_get_error(tokener);
	end = json_tokener_get_parse_end(tokener);
	if (error == json_tokener_continue) { /* a bare word or number ends only with what follows it */
		*built = json_tokener_parse_ex(tokener, " ", 1);
		error = json_tokener_get_error(tokener);
		end = len;
	}
	if (scan->bad < len) {
		end = scan->bad;
		error = json_tokener_error_parse_unexpected;
	}
	json_tokener_free(tokener);
	end = skip_blanks(body, end, len);
	if (error == json_tokener_success && end == len && json_object_is_type(*built, json_type_object))
		return ERR_OK;
	json_object_put(*built);
	return refuse(error, body, end, len, why);
}

static void find_built(struct found *found, const struct field *field, struct json_object *built)
{
	struct json_object *value;

	if (!json_object_object_get_ex(built, field->name, &value) || value == NULL)
		return;
	found->present = true;
	found->is_text = json_object_is_type(value, json_type_string);
	if (found->is_text)
		found->text =
		    (struct text){ json_object_get_string(value), (size_t)json_object_get_string_len(value) };
}

static enum err read_odd(struct fields_doc **doc, struct found *found, const struct field *fields,
			 size_t count, const char *body, size_t len, const struct strict_scan *scan,
			 struct error *why)
{
	struct json_object *built;
	enum err rc = build(&built, body, len, scan, why);

	if (rc != ERR_OK)
		return rc;
	*doc = malloc(sizeof **doc);
	if (*doc == NULL) {
		json_object_put(built);
		return out_of_memory(why);
	}
	(*doc)->built = built;
	for (size_t i = 0; i < count; i++)
		find_built(&found[i], &fields[i], built);
	return ERR_OK;
}

/* ---- fields ---- */

/* Length of the white-space character at `p`, or 0: Unicode's White_Space property. */
static size_t blank_at(const char *p, size_t left)
{
	const unsigned char *u = (const unsigned char *)p;

	if (u[0] == ' ' || (u[0] >= 0x09 && u[0] <= 0x0D) || (u[0] >= 0x1C && u[0] <= 0x1F))
		return 1;
	if (left >= 2 && u[0] == 0xC2 && (u[1] == 0x85 || u[1] == 0xA0))
		return 2;
	if (left < 3)
		return 0;
	if ((u[0] == 0xE1 && u[1] == 0x9A && u[2] == 0x80) ||
	    (u[0] == 0xE3 && u[1] == 0x80 && u[2] == 0x80) ||
	    (u[0] == 0xE2 && u[1] == 0x81 && u[2] == 0x9F) ||
	    (u[0] == 0xE2 && u[1] == 0x80 &&
	     ((u[2] >= 0x80 && u[2] <= 0x8A) || u[2] == 0xA8 || u[2] == 0xA9 || u[2] == 0xAF)))
		return 3;
	return 0;
}

static bool is_blank(const char *text, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t step = blank_at(text + at, len - at);

		if (step == 0)
			return false;
		at += step;
	}
	return true;
}

static enum err check(const struct field *field, const struct text *value, struct error *why)
{
	if (field->kind == FIELD_ID && !id_valid(value->bytes, value->len)) {
		error_set(why, ERR_BAD_REQUEST, NULL, "bad %s", field->name);
		error_detail(why, "字段 %s 无效: 必须是 1-128 字节、不含控制字符的 UTF-8 文本", field->name);
		return ERR_BAD_REQUEST;
	}
	if (field->kind == FIELD_TEXT && is_blank(value->bytes, value->len)) {
		error_set(why, ERR_BAD_REQUEST, NULL, "blank %s", field->name);
		error_detail(why, "字段 %s 不能为空", field->name);
		return ERR_BAD_REQUEST;
	}
	return ERR_OK;
}

enum err fields_missing(const struct field *field, struct error *why)
{
	error_set(why, ERR_BAD_REQUEST, NULL, "%s is missing", field->name);
	error_detail(why, "缺少必填字段: %s", field->name);
	return ERR_BAD_REQUEST;
}

static enum err take_field(const struct field *field, const struct found *found, void *out, struct error *why)
{
	struct text *text = (struct text *)(void *)((char *)out + field->offset);

	if (!found->present)
		return field->required ? fields_missing(field, why) : ERR_OK;
	if (!found->is_text) {
		error_set(why, ERR_BAD_REQUEST, NULL, "%s is no string", field->name);
		error_detail(why, "字段 %s 必须是字符串", field->name);
		return ERR_BAD_REQUEST;
	}
	*text = found->text;
	return check(field, text, why);
}

enum err fields_parse(struct fields_doc **doc, void *out, const struct field *fields, size_t count,
		      const char *body, size_t len, struct error *why)
{
	struct found found[FIELDS_MAX] = { 0 };
	struct strict_scan scan = strict_json(body, len);
	enum err rc = check_text(body, len, &scan, why);

	assert(count <= FIELDS_MAX);
	*doc = NULL;
	if (rc == ERR_OK)
		rc = read_plain(doc, found, fields, count, body, len, why);
	if (rc == ERR_OK && *doc == NULL)
		rc = read_odd(doc, found, fields, count, body, len, &scan, why);
	for (size_t i = 0; i < count && rc == ERR_OK; i++)
		rc = take_field(&fields[i], &found[i], out, why);
	if (rc != ERR_OK) {
		fields_free(*doc);
		*doc = NULL;
	}
	return rc;
}

static enum err check_request(const struct request *request, struct error *why)
{
	if (fcgi_body_too_big(request->fcgi))
		return error_set(why, ERR_TOO_BIG, NULL, "body beyond MAX_REQUEST_SIZE");
	if (fcgi_body_lost(request->fcgi))
		return error_set(why, ERR_NOMEM, NULL, "memory for the body");
	if (!fields_content_type_ok(fcgi_param(request->fcgi, "CONTENT_TYPE")))
		return error_set(why, ERR_MEDIA_TYPE, NULL, "Content-Type is not JSON");
	return ERR_OK;
}

void fields_free(struct fields_doc *doc)
{
	if (doc == NULL)
		return;
	json_object_put(doc->built);
	free(doc);
}

/* ---- large bodies ---- */

/* For the caller's struct. */
struct room {
	max_align_t bytes[FIELDS_SIZE_MAX / sizeof(max_align_t)];
};

/* A body that a thread of the pool parses. */
struct parsing {
	uv_work_t work;
	struct request *request; /* NULL once the client has left */
	struct fcgi_request *fcgi;
	fields_fn fn;
	void *arg;
	const struct field *table;
	size_t count;
	struct fields_doc *doc;
	enum err rc;
	struct error why;
	struct room room;
};

static void on_leave(void *arg)
{
	struct parsing *parsing = arg;

	parsing->request = NULL;
	uv_cancel((uv_req_t *)&parsing->work);
}

static void on_work(uv_work_t *work)
{
	struct parsing *parsing = work->data;
	size_t len;
	const char *body = fcgi_body(parsing->fcgi, &len);

	background_thread();
	parsing->rc = fields_parse(&parsing->doc, &parsing->room, parsing->table, parsing->count, body, len,
				   &parsing->why);
}

static void on_parsed(uv_work_t *work, int status)
{
	struct parsing *parsing = work->data;
	struct request *request = parsing->request;

	(void)status; /* cancelled, when the client has left */
	if (request != NULL)
		request_watch(request, NULL, NULL, NULL);
	fcgi_let_go(parsing->fcgi);
	if (request != NULL)
		fcgi_body_free(request->fcgi); /* the document has its texts */
	if (request != NULL && parsing->rc != ERR_OK)
		response_error(request, &parsing->why);
	else if (request != NULL)
		parsing->fn(request, parsing->arg, &parsing->room);
	fields_free(parsing->doc);
	free(parsing);
}

static enum err parse_in_pool(struct request *request, uv_loop_t *loop, const struct field *fields,
			      size_t count, fields_fn fn, void *arg, struct error *why)
{
	struct parsing *parsing = calloc(1, sizeof *parsing);

	if (parsing == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory to parse a large body");
	parsing->work.data = parsing;
	parsing->request = request;
	parsing->fcgi = request->fcgi;
	parsing->fn = fn;
	parsing->arg = arg;
	parsing->table = fields;
	parsing->count = count;
	if (uv_queue_work(loop, &parsing->work, on_work, on_parsed) != 0) {
		free(parsing);
		return error_set(why, ERR_NOMEM, NULL, "a thread to parse a large body");
	}
	fcgi_hold(request->fcgi);
	request->doing = "parsing the body";
	request_watch(request, on_leave, NULL, parsing);
	return ERR_OK;
}

static enum err parse_now(struct request *request, const struct field *fields, size_t count, fields_fn fn,
			  void *arg, struct error *why)
{
	struct room room = { 0 };
	struct fields_doc *doc;
	size_t len;
	const char *body = fcgi_body(request->fcgi, &len);
	enum err rc = fields_parse(&doc, &room, fields, count, body, len, why);

	if (rc != ERR_OK)
		return rc;
	fn(request, arg, &room);
	fields_free(doc);
	return ERR_OK;
}

void fields_take(struct request *request, uv_loop_t *loop, const struct field *fields, size_t count,
		 fields_fn fn, void *arg)
{
	struct error why;
	size_t len;
	enum err rc = check_request(request, &why);

	fcgi_body(request->fcgi, &len);
	if (rc == ERR_OK && len > LARGE)
		rc = parse_in_pool(request, loop, fields, count, fn, arg, &why);
	else if (rc == ERR_OK)
		rc = parse_now(request, fields, count, fn, arg, &why);
	if (rc != ERR_OK)
		response_error(request, &why);
}
