/*
 * fuzz_route.c - a request on its way to a handler and back: the real table of routes, access by key, ids in paths, query and
 * JSON body. Each request gets one whole answer in CGI form, in JSON, with the status that the table and plain splitting of
 * the path ask for, and one line in the log.
 *
 * Input: a line "METHOD URI"; lines "NAME: value", its parameters; an empty line; the body.
 */
#include <json-c/json.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "chat/chat_api.h"
#include "chat/service.h"
#include "fake_fcgi.h"
#include "http/response.h"
#include "plain.h"

#define ROUTES 32

/* What a handler was given. */
static struct {
	const struct route *route;
	char path_id[ID_MAX + 1];
} handled;

static void handle(struct request *request, void *app)
{
	static const char body[] = "{\"good\":true}";
	struct buf json;

	(void)app;
	handled.route = request->route;
	memcpy(handled.path_id, request->path_id, sizeof handled.path_id);
	buf_init(&json, 100);
	buf_append_str(&json, body);
	response_json(request, 200, request->path_id[0] != '\0' ? request->path_id : NULL, &json);
	buf_free(&json);
}

static void on_fields(struct request *request, void *arg, const void *fields)
{
	const struct chat_fields *chat = fields;

	CHECK(chat->message.len > 0);
	handle(request, arg);
}

static void handle_body(struct request *request, void *app)
{
	fields_take(request, NULL, chat_fields, CHAT_FIELDS, on_fields, app);
}

/* ---- what must come of it, by splitting the path at its slashes ---- */

static bool segment_fits(struct input pattern, struct input segment, struct input *id)
{
	if (pattern.left == 0 || pattern.at[0] != '{')
		return same_bytes(pattern.at, pattern.left, segment.at, segment.left);
	*id = segment;
	return segment.left > 0;
}

static bool path_fits(const char *path_pattern, struct input path, struct input *id)
{
	struct input pattern = { path_pattern, strlen(path_pattern) };
	bool more_pattern = true, more_path = true;

	while (more_pattern && more_path) {
		struct input one = input_until(&pattern, '/'), other = input_until(&path, '/');

		/* What was cut off ended with a slash when that is where it ended. */
		more_pattern = one.at + one.left < path_pattern + strlen(path_pattern);
		more_path = other.at + other.left < path.at;
		if (!segment_fits(one, other, id))
			return false;
	}
	return more_pattern == more_path;
}

static bool decode_id(char out[ID_MAX + 1], struct input id)
{
	struct buf decoded;
	bool good;

	buf_init(&decoded, id.left + 1);
	good = plain_decode(&decoded, id) && plain_id(buf_bytes(&decoded), buf_size(&decoded));
	if (good)
		memcpy(out, buf_bytes(&decoded), buf_size(&decoded));
	out[good ? buf_size(&decoded) : 0] = '\0';
	buf_free(&decoded);
	return good;
}

static int expected_access(enum access_level level, const char *key, bool local, bool trusted)
{
	bool admin = strcmp(key, "admin") == 0,
	     user = strcmp(key, "user-1") == 0 || strcmp(key, "user-2") == 0;

	(void)local; /* admin keys are set: only keys count */
	if (level == ACCESS_OPEN || trusted || admin || (level == ACCESS_USER && user))
		return 200;
	return user ? 403 : 401;
}

static int expected_status(const struct route *routes, size_t count, const struct request *seen,
			   const struct fcgi_request *fcgi, const char *key, char id_text[ID_MAX + 1])
{
	bool known_path = false;

	id_text[0] = '\0';
	for (size_t i = 0; i < count; i++) {
		struct input id = { NULL, 0 };
		int status;

		if (!path_fits(routes[i].path, (struct input){ seen->path, seen->path_len }, &id))
			continue;
		known_path = true;
		if (strcmp(seen->method, routes[i].method) != 0 &&
		    !(strcmp(seen->method, "HEAD") == 0 && strcmp(routes[i].method, "GET") == 0))
			continue;
		status = expected_access(routes[i].access, key, false,
					 strcmp(fcgi_param(fcgi, "ADMIN_TRUSTED"), "1") == 0);
		if (status == 200 && id.at != NULL && !decode_id(id_text, id))
			status = 400;
		return status;
	}
	return known_path ? 405 : 404;
}

/* ---- the answer and the log ---- */

static int check_head(struct input *answer)
{
	struct input line = input_line(answer);
	char *text = exact_string(line.at, line.left);
	size_t length = SIZE_MAX;
	int status = 0;

	CHECK(sscanf(text, "Status: %3d ", &status) == 1 && text[line.left - 1] == '\r');
	CHECK(strstr(text, "Unknown") == NULL);
	free(text);
	for (;;) {
		line = input_line(answer);
		CHECK(line.left > 0 && line.at[line.left - 1] == '\r');
		if (line.left == 1)
			break;
		CHECK(memchr(line.at, ':', line.left) != NULL);
		for (size_t i = 0; i + 1 < line.left; i++)
			CHECK(line.at[i] >= ' ' && line.at[i] < 0x7F);
		if (line.left > 16 && memcmp(line.at, "Content-Length: ", 16) == 0)
			length = (size_t)strtoul(line.at + 16, NULL, 10);
	}
	CHECK(length == answer->left);
	return status;
}

static void check_body(struct input body, int status)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *doc, *detail;

	CHECK(tokener != NULL && utf8_valid(body.at, body.left));
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	doc = json_tokener_parse_ex(tokener, body.at, (int)body.left);
	CHECK(json_tokener_get_error(tokener) == json_tokener_success);
	CHECK(json_tokener_get_parse_end(tokener) == body.left);
	CHECK(json_object_object_get_ex(doc, status == 200 ? "good" : "detail", &detail));
	CHECK(status == 200 || json_object_get_string_len(detail) > 0);
	json_object_put(doc);
	json_tokener_free(tokener);
}

static void check_log(int fd)
{
	off_t size = lseek(fd, 0, SEEK_CUR);
	char *line = malloc((size_t)size);

	CHECK(size > 0 && line != NULL && pread(fd, line, (size_t)size, 0) == size);
	CHECK(memchr(line, '\n', (size_t)size) == line + size - 1);
	CHECK(utf8_valid(line, (size_t)size));
	free(line);
}

/* ---- the target ---- */

static size_t own_routes(struct route out[ROUTES])
{
	size_t count;
	const struct route *routes = service_routes(&count);

	CHECK(count <= ROUTES);
	for (size_t i = 0; i < count; i++) {
		out[i] = routes[i];
		out[i].handler = routes[i].about->body.count > 0 ? handle_body : handle;
	}
	return count;
}

struct texts {
	char *texts[2 * FAKE_PARAMS + 4];
	size_t count;
};

static const char *keep(struct texts *texts, struct input text)
{
	texts->texts[texts->count] = exact_string(text.at, text.left);
	return texts->texts[texts->count++];
}

static void read_request(struct fcgi_request *fcgi, struct texts *texts, struct input *input)
{
	struct input line = input_line(input), method = input_until(&line, ' ');

	fake_param(fcgi, "REQUEST_METHOD", keep(texts, method));
	fake_param(fcgi, "REQUEST_URI", keep(texts, line));
	fake_param(fcgi, "REMOTE_ADDR", "192.0.2.1");
	while (input->left > 0 && fcgi->count < FAKE_PARAMS) {
		struct input name;

		line = input_line(input);
		if (line.left == 0)
			break;
		name = input_until(&line, ':');
		if (line.left > 0 && line.at[0] == ' ')
			input_byte(&line);
		fake_param(fcgi, keep(texts, name), keep(texts, line));
	}
	fcgi->body = *input;
}

static const char *key_of(const struct fcgi_request *fcgi)
{
	const char *authorization = fcgi_param(fcgi, "HTTP_AUTHORIZATION");

	if (strncasecmp(authorization, "Bearer ", 7) != 0)
		return fcgi_param(fcgi, "HTTP_X_API_KEY");
	for (authorization += 7; *authorization == ' '; authorization++)
		;
	return authorization;
}

static void check_answer(struct fcgi_request *fcgi, int expected, const char *id)
{
	struct input answer = { buf_bytes(&fcgi->answer), buf_size(&fcgi->answer) };
	int status;

	CHECK(fcgi->ended && !fcgi->aborted);
	status = check_head(&answer);
	check_body(answer, status);
	if (expected != 200)
		CHECK(status == expected && handled.route == NULL);
	else /* a body may still be refused */
		CHECK(status == 200 || status == 400 || status == 415);
	CHECK((status == 200) == (handled.route != NULL));
	CHECK(status != 200 || strcmp(handled.path_id, id) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static struct route routes[ROUTES];
	static size_t count;
	static int log_fd = -1;
	struct input input = input_of(bytes, len);
	struct router router = { routes, 0, { "user-1, user-2", "admin" }, NULL };
	struct fcgi_request fcgi = { .count = 0 };
	struct texts texts = { .count = 0 };
	struct request seen;
	char id[ID_MAX + 1];
	int expected;

	if (log_fd < 0) {
		log_fd = memfd_create("log", MFD_CLOEXEC);
		count = own_routes(routes);
	}
	router.count = count;
	CHECK(ftruncate(log_fd, 0) == 0 && lseek(log_fd, 0, SEEK_SET) == 0);
	log_open(log_fd, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	memset(&handled, 0, sizeof handled);
	buf_init(&fcgi.answer, 65536);
	read_request(&fcgi, &texts, &input);
	seen.method = fcgi_param(&fcgi, "REQUEST_METHOD");
	seen.path = fcgi_param(&fcgi, "REQUEST_URI");
	seen.path_len = strcspn(seen.path, "?");
	expected = expected_status(routes, count, &seen, &fcgi, key_of(&fcgi), id);
	request_begin(&fcgi, &router);
	check_answer(&fcgi, expected, id);
	check_log(log_fd);
	buf_free(&fcgi.answer);
	while (texts.count > 0)
		free(texts.texts[--texts.count]);
	return 0;
}
