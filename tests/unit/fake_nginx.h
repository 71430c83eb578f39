/*
 * fake_nginx.h - asks a real FastCGI server and router as nginx would, in one process and on one loop.
 *
 * Nothing waits for time: after every byte that is not there yet the loop runs until something happens.
 * Lines of the log are dropped.
 */
#ifndef FAKE_NGINX_H
#define FAKE_NGINX_H

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "fastcgi_bytes.h"
#include "http/router.h"

#define NGINX_BODY_MAX 1000

struct nginx {
	uv_loop_t loop;
	int listen_fd, log_fd;
	struct sockaddr_un address;
	socklen_t address_len;
	struct fcgi_server *server;
	struct router router;
};

struct ask {
	const char *method, *uri; /* NULL: GET and / */
	const char *type;         /* CONTENT_TYPE */
	const char *authorization, *api_key, *address, *trusted;
	const char *body;
	size_t body_len; /* 0: of the text */
};

static inline void nginx_on_request(struct fcgi_request *request, void *arg)
{
	request_begin(request, &((struct nginx *)arg)->router);
}

static inline void nginx_open(struct nginx *nginx, const struct route *routes, size_t count,
			      const char *api_keys, const char *admin_api_keys, void *app)
{
	static const struct fcgi_limits limits = { NGINX_BODY_MAX, 1024 * 1024, 60000 };
	struct error why;

	*nginx = (struct nginx){ .address_len = sizeof nginx->address };
	nginx->router = (struct router){ routes, count, { api_keys, admin_api_keys }, app };
	nginx->log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	log_open(nginx->log_fd, LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT);
	/* Bound to a name that the kernel chooses: no file, and nobody else's. */
	nginx->address.sun_family = AF_UNIX;
	nginx->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(nginx->listen_fd, (struct sockaddr *)&nginx->address, sizeof(sa_family_t)), 0);
	assert_int_equal(
	    getsockname(nginx->listen_fd, (struct sockaddr *)&nginx->address, &nginx->address_len), 0);
	assert_int_equal(listen(nginx->listen_fd, 16), 0);
	assert_int_equal(uv_loop_init(&nginx->loop), 0);
	assert_int_equal(fcgi_server_open(&nginx->server, &nginx->loop, nginx->listen_fd, &limits,
					  nginx_on_request, nginx, &why),
			 ERR_OK);
}

static inline void nginx_close(struct nginx *nginx)
{
	fcgi_server_close(nginx->server);
	uv_run(&nginx->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&nginx->loop), 0);
	close(nginx->listen_fd);
	log_open(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	close(nginx->log_fd);
}

static inline void put_ask(struct buf *out, const struct ask *ask)
{
	const char *body = ask->body != NULL ? ask->body : "";
	const char *const pairs[][2] = {
		{ "REQUEST_METHOD", ask->method != NULL ? ask->method : "GET" },
		{ "REQUEST_URI", ask->uri != NULL ? ask->uri : "/" },
		{ "REQUEST_ID", "0123456789abcdef0123456789abcdef" },
		{ "REMOTE_ADDR", ask->address != NULL ? ask->address : "192.0.2.1" },
		{ "CONTENT_TYPE", ask->type != NULL ? ask->type : "" },
		{ "HTTP_AUTHORIZATION", ask->authorization != NULL ? ask->authorization : "" },
		{ "HTTP_X_API_KEY", ask->api_key != NULL ? ask->api_key : "" },
		{ "ADMIN_TRUSTED", ask->trusted != NULL ? ask->trusted : "" },
	};
	struct buf params;

	buf_init(&params, 100000);
	for (size_t i = 0; i < COUNT(pairs); i++)
		put_pair(&params, pairs[i][0], pairs[i][1]);
	put_begin(out, 1, false);
	put_stream(out, FCGI_PARAMS, 1, buf_bytes(&params), buf_size(&params), 65528);
	put_stream(out, FCGI_STDIN, 1, body, ask->body_len > 0 ? ask->body_len : strlen(body), 32768);
	buf_free(&params);
}

/* The standard output in these records, as a C string; to be freed. */
static inline char *answer_text(const struct buf *in)
{
	const unsigned char *p = (const unsigned char *)buf_bytes(in);
	struct buf out;
	char *text;

	buf_init(&out, 1024 * 1024);
	for (size_t at = 0; at + 8 <= buf_size(in); at += 8u + p[at + 4] * 256u + p[at + 5] + p[at + 6])
		if (p[at + 1] == 6)
			buf_append(&out, p + at + 8, p[at + 4] * 256u + p[at + 5]);
	text = buf_string(&out);
	buf_free(&out);
	return text;
}

/* Sends a request and runs the loop until its answer is over: headers and body as a C string, to be freed. */
static inline char *nginx_ask(struct nginx *nginx, const struct ask *ask)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct buf out, in;
	char *text;
	ssize_t got;

	assert_int_equal(connect(fd, (struct sockaddr *)&nginx->address, nginx->address_len), 0);
	buf_init(&out, 1024 * 1024);
	buf_init(&in, 1024 * 1024);
	put_ask(&out, ask);
	assert_int_equal(send(fd, buf_bytes(&out), buf_size(&out), MSG_DONTWAIT), buf_size(&out));
	for (;;) {
		char piece[4096];

		got = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
		if (got > 0)
			buf_append(&in, piece, (size_t)got);
		else if (got < 0 && errno == EAGAIN)
			uv_run(&nginx->loop, UV_RUN_ONCE);
		else
			break;
	}
	assert_int_equal(got, 0);
	close(fd);
	text = answer_text(&in);
	buf_free(&in);
	buf_free(&out);
	return text;
}

static inline void assert_answer(struct nginx *nginx, const struct ask *ask, const char *status,
				 const char *part)
{
	char *answer = nginx_ask(nginx, ask);

	if (strncmp(answer, "Status: ", 8) != 0 || strncmp(answer + 8, status, strlen(status)) != 0 ||
	    strstr(answer, part) == NULL)
		fail_msg("%s %s: got \"%s\", expected %s with \"%s\"", ask->method ? ask->method : "GET",
			 ask->uri ? ask->uri : "/", answer, status, part);
	free(answer);
}

#endif
