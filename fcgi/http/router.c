/*
 * router.c - see router.h.
 */
#include "http/router.h"

#include <stdio.h>
#include <string.h>

#include "base/percent.h"
#include "http/response.h"

/*
 * Whether the path fits the pattern, segment by segment; {name} takes one non-empty segment, lent in *id. The path is
 * compared as it was sent: an id with an encoded slash stays one segment.
 */
static bool path_fits(const char *pattern, const char *path, size_t path_len, const char **id, size_t *id_len)
{
	const char *end = path + path_len;

	while (*pattern != '\0') {
		if (*pattern == '{') {
			size_t len = 0;

			while (path + len < end && path[len] != '/')
				len++;
			if (len == 0)
				return false;
			*id = path;
			*id_len = len;
			path += len;
			pattern = strchr(pattern, '}') + 1;
		} else if (path < end && *path == *pattern) {
			path++;
			pattern++;
		} else {
			return false;
		}
	}
	return path == end;
}

static bool method_fits(const struct route *route, const char *method)
{
	return strcmp(route->method, method) == 0 ||
	       (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static enum err decode_id(struct request *request, const char *id, size_t len, struct error *why)
{
	size_t got;

	if (!percent_decode(request->path_id, ID_MAX, &got, id, len)) {
		request->path_id[0] = '\0';
		return error_set(why, ERR_BAD_REQUEST, "路径中的 ID 无效: 百分号编码错误或超过 128 字节",
				 "bad id in the path");
	}
	request->path_id[got] = '\0';
	if (!id_valid(request->path_id, got)) {
		request->path_id[0] = '\0';
		return error_set(why, ERR_BAD_REQUEST,
				 "路径中的 ID 无效: 必须是 1-128 字节、不含控制字符的 UTF-8 文本",
				 "bad id in the path");
	}
	return ERR_OK;
}

static void not_found(struct request *request)
{
	struct error why;
	bool printable = request->path_len <= 200;

	for (size_t i = 0; i < request->path_len && printable; i++)
		printable = request->path[i] > ' ' && request->path[i] < 0x7F;
	error_set(&why, ERR_NOT_FOUND, NULL, "no such route");
	if (printable)
		error_detail(&why, "接口不存在: %.*s", (int)request->path_len, request->path);
	response_error(request, &why);
}

static void wrong_method(struct request *request, const char *allow)
{
	struct error why;

	error_set(&why, ERR_METHOD, NULL, "the route exists, the method does not");
	error_detail(&why, "不支持的请求方法，该接口仅支持: %s", allow);
	response_method_error(request, &why, allow);
}

static void serve(const struct router *router, struct request *request, const struct route *route,
		  const char *id, size_t id_len)
{
	struct error why;

	request->route = route;
	if (access_check(&router->access, route->access, request->fcgi, &why) != ERR_OK ||
	    (id != NULL && decode_id(request, id, id_len, &why) != ERR_OK)) {
		response_error(request, &why);
		return;
	}
	route->handler(request, router->app);
}

void router_dispatch(const struct router *router, struct request *request)
{
	char allow[64] = "";

	for (size_t i = 0; i < router->count; i++) {
		const struct route *route = &router->routes[i];
		const char *id = NULL;
		size_t id_len = 0;

		if (!path_fits(route->path, request->path, request->path_len, &id, &id_len))
			continue;
		if (method_fits(route, request->method)) {
			serve(router, request, route, id, id_len);
			return;
		}
		snprintf(allow + strlen(allow), sizeof allow - strlen(allow), "%s%s%s", allow[0] ? ", " : "",
			 route->method, strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
	}
	if (allow[0] != '\0')
		wrong_method(request, allow);
	else
		not_found(request);
}
