/*
 * response.c - see response.h. Headers are in CGI form (RFC 3875, section 6): nginx adds CORS, X-Request-ID and the rest.
 */
#include "http/response.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/percent.h"

/* Bytes of an error's JSON: of each of its text's escaping makes six at most. */
#define ERROR_MAX (6 * sizeof(((struct error *)NULL)->detail) + 64)

struct error_answer {
	const char *detail;
};

static const struct member error_members[] = {
	{ "detail", MEMBER_TEXT, offsetof(struct error_answer, detail), "哪里有误", "what is wrong",
	  .example = "请求参数错误" },
};

const struct shape error_shape = { "Error", error_members, 1 };

static const char json_type[] = "application/json";

static const char *reason(int status)
{
	static const struct {
		int status;
		const char *text;
	} reasons[] = {
		{ 200, "OK" },
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 409, "Conflict" },
		{ 413, "Content Too Large" },
		{ 415, "Unsupported Media Type" },
		{ 429, "Too Many Requests" },
		{ 500, "Internal Server Error" },
		{ 503, "Service Unavailable" },
	};

	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (reasons[i].status == status)
			return reasons[i].text;
	return "Unknown";
}

static void mark_begun(struct request *request, int status)
{
	request->status = status;
	request->first_byte_ns = uv_hrtime();
}

/* Ids are any UTF-8; in a header they are percent-encoded, which leaves plain ASCII ids as they are. */
static void session_header(struct buf *out, const char *session_id)
{
	if (session_id == NULL)
		return;
	buf_append_str(out, "X-Session-ID: ");
	percent_encode(out, session_id, strlen(session_id));
	buf_append_str(out, "\r\n");
}

static void write_answer(struct buf *answer, int status, const char *type, const char *headers,
			 const char *session_id, const struct buf *body)
{
	buf_printf(answer, "Status: %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s", status,
		   reason(status), type, buf_size(body), headers);
	session_header(answer, session_id);
	buf_append_str(answer, "\r\n");
	buf_append(answer, buf_bytes(body), buf_size(body));
}

static void send_answer(struct request *request, int status, const struct buf *answer, size_t body_len)
{
	struct fcgi_request *fcgi = request->fcgi;

	mark_begun(request, status);
	request->bytes = body_len;
	/* The log line shows parameters that the end of the FastCGI request gives back: so it is written first. */
	fcgi_watch(fcgi, NULL, NULL, NULL);
	request_finish(request);
	if (answer->failed || fcgi_write_end(fcgi, buf_bytes(answer), buf_size(answer)) != ERR_OK)
		fcgi_abort(fcgi);
}

static void answer_with(struct request *request, int status, const char *type, const char *session_id,
			const struct buf *body)
{
	struct buf answer;
	struct error error;

	buf_init(&answer, buf_size(body) + 4096);
	answer.failed = body->failed;
	write_answer(&answer, status, type, "", session_id, body);
	if (answer.failed) {
		error_set(&error, ERR_NOMEM, NULL, "memory for an answer");
		response_error(request, &error);
	} else {
		send_answer(request, status, &answer, buf_size(body));
	}
	buf_free(&answer);
}

void response_json(struct request *request, int status, const char *session_id, const struct buf *body)
{
	answer_with(request, status, json_type, session_id, body);
}

void response_shape(struct request *request, int status, const char *session_id, const struct shape *shape,
		    const void *values, size_t max)
{
	struct buf body;

	buf_init(&body, max);
	shape_write(&body, shape, values, SHAPE_COMPACT);
	response_json(request, status, session_id, &body);
	buf_free(&body);
}

void response_body(struct request *request, int status, const char *type, const struct buf *body)
{
	answer_with(request, status, type, NULL, body);
}

/* Needs no memory: it may be all that can still be said. */
static void answer_error(struct request *request, const struct error *error, const char *headers)
{
	const struct error_answer values = { error->detail };
	char body_room[ERROR_MAX], room[ERROR_MAX + 512];
	int status = error_status(error->code);
	struct buf body, answer;

	request_fail(request, error);
	buf_init_in(&body, body_room, sizeof body_room);
	buf_init_in(&answer, room, sizeof room);
	shape_write(&body, &error_shape, &values, SHAPE_COMPACT);
	write_answer(&answer, status, json_type, headers, NULL, &body);
	send_answer(request, status, &answer, buf_size(&body));
}

void response_error(struct request *request, const struct error *error)
{
	unsigned retry_after_s = error_retry_after_s(error);
	char headers[64] = "";

	if (retry_after_s > 0)
		snprintf(headers, sizeof headers, "Retry-After: %u\r\n", retry_after_s);
	else if (error->code == ERR_UNAUTHORIZED)
		snprintf(headers, sizeof headers, "WWW-Authenticate: Bearer\r\n");
	answer_error(request, error, headers);
}

void response_method_error(struct request *request, const struct error *error, const char *allow)
{
	char headers[128];

	snprintf(headers, sizeof headers, "Allow: %s\r\n", allow);
	answer_error(request, error, headers);
}

/*
 * nginx sends a header on at once only when nothing lies behind it in its buffer; even the padding of a FastCGI record
 * (to a multiple of 8 bytes) makes it wait for the first chunk instead. So the header is made a multiple of 8: blanks
 * at the end of a value mean nothing (RFC 9110, section 5.5).
 */
static void pad_header(struct buf *head)
{
	while ((buf_size(head) + 4) % 8 != 0 && !head->failed)
		buf_append_char(head, ' ');
	buf_append_str(head, "\r\n\r\n");
}

enum err response_stream_open(struct request *request, const char *session_id)
{
	struct buf head;
	enum err rc = ERR_NOMEM;

	buf_init(&head, 4096);
	buf_append_str(&head, "Status: 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n");
	session_header(&head, session_id);
	buf_append_str(&head, "X-Accel-Buffering: no\r\nCache-Control: no-cache");
	pad_header(&head);
	if (!head.failed)
		rc = fcgi_write(request->fcgi, buf_bytes(&head), buf_size(&head));
	buf_free(&head);
	if (rc == ERR_OK)
		mark_begun(request, 200);
	return rc;
}

enum err response_stream_send(struct request *request, const char *bytes, size_t len)
{
	request->bytes += len;
	return fcgi_write(request->fcgi, bytes, len);
}

bool response_stream_may_end(struct request *request, size_t len)
{
	return fcgi_may_end(request->fcgi, len);
}

void response_stream_end(struct request *request, const char *bytes, size_t len)
{
	struct fcgi_request *fcgi = request->fcgi;

	request->bytes += len;
	fcgi_watch(fcgi, NULL, NULL, NULL);
	request_finish(request);
	if (fcgi_write_end(fcgi, bytes, len) != ERR_OK)
		fcgi_abort(fcgi);
}

void response_abort(struct request *request)
{
	struct fcgi_request *fcgi = request->fcgi;

	fcgi_watch(fcgi, NULL, NULL, NULL);
	request_finish(request);
	fcgi_abort(fcgi);
}

size_t response_backlog(const struct request *request)
{
	return fcgi_backlog(request->fcgi);
}
