/*
 * fcgi.c - FastCGI connections.
 *
 * libfcgi blocks in four places. Here is what keeps each from doing so:
 *   accept   we accept; FCGX_Accept_r() gets a connected socket and no listening one.
 *   read     a request is peeked at (MSG_PEEK) and checked by record.c until its head, and its body when that is
 *            small, are wholly in the socket's buffer. Only then libfcgi reads, so its read(2) never waits. A larger
 *            body is read in the thread pool, with SO_RCVTIMEO.
 *   write    the socket stays blocking (libfcgi loses data on EAGAIN), but we write only when it polls writable, and
 *            at most WRITE_MAX bytes: Linux reports a unix socket writable while at most a quarter of its buffer is
 *            used, and a TCP socket up to two thirds, so such a write fits. libfcgi's own buffer is 8 KiB and it writes
 *            each time that is full; an event must leave in one write, so what is larger is encoded into memory first.
 *   close    FCGX_Finish_r() lingers up to 2 s. FCGX_FClose() and FCGX_Free() without closing do not, and
 *            FCGX_Detach() makes the closes inside libfcgi plain ones.
 */
#include "http/fcgi.h"

#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/utf8.h"
#include "http/record.h"

#define SOCKET_BUFFER   (256 * 1024) /* SO_SNDBUF asked for */
#define WRITE_MAX       (60 * 1024)  /* bytes in one go: fits whenever the socket polls writable */
#define FCGX_BUFFER     (8192 - 64)  /* what libfcgi surely writes at once, with its headers */
#define ENCODER_SIZE    (128 * 1024) /* WRITE_MAX bytes with the headers of their records */
#define PEEK_MAX        (64 * 1024) /* a request that fits here is read on the loop, a larger body in the pool */
#define ACCEPT_BATCH    64          /* connections taken per turn of the loop */
#define ACCEPT_PAUSE_MS 100         /* after running out of descriptors or memory */
#define REPEEK_MIN_MS   1           /* how soon to look again at half a request */
#define REPEEK_MAX_MS   64

enum conn_state {
	CONN_IDLE,   /* waiting for nginx's next request */
	CONN_HEAD,   /* half a request is there; looked at again by timer */
	CONN_BODY,   /* the thread pool reads the body */
	CONN_ACTIVE, /* a handler has the request */
	CONN_ENDING, /* the handler is done; output is still going out */
	CONN_CLOSED  /* waiting for libuv to let go of the memory */
};

/* A connection is its own request: FastCGI carries one at a time, and nginx never multiplexes. */
struct fcgi_request {
	struct fcgi_server *server;
	struct fcgi_request *prev, *next; /* server->conns */
	enum conn_state state;
	int fd;
	uv_poll_t poll;
	int watched;      /* events that `poll` is started for */
	uv_timer_t timer; /* CONN_HEAD: when to look again */
	uv_work_t work;   /* CONN_BODY */
	unsigned open_handles;
	uint64_t head_since_ms, repeek_ms;
	FCGX_Request fcgx;
	bool keep;      /* nginx wants the connection kept after this request */
	bool broken;    /* a write failed: wait for the loop to report the end */
	bool pipelined; /* bytes came after the request: leaving can be told by hang-up only */
	bool too_big;
	bool closing; /* CONN_BODY: close when the thread pool is done */
	struct buf body;
	struct buf out; /* waits for the client */
	fcgi_leave_fn on_leave;
	fcgi_drain_fn on_drain;
	void *arg;
};

struct fcgi_server {
	uv_loop_t *loop;
	int listen_fd;
	uv_poll_t poll;
	uv_timer_t pause; /* before accepting again */
	unsigned open_handles;
	struct fcgi_limits limits;
	fcgi_request_fn on_request;
	void *arg;
	struct fcgi_request *conns;
	size_t conn_count, active;
	bool draining, closed;
	void (*on_idle)(void *arg);
	void *idle_arg;
	int encoder;   /* a memory file: what libfcgi writes to it is sent to the client in one write */
	char *encoded; /* the same, mapped; ENCODER_SIZE bytes */
	char peek[PEEK_MAX];
};

static void on_readable(struct fcgi_request *conn);
static void flush(struct fcgi_request *conn);

/* ---- watching ---- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct fcgi_request *conn, int events)
{
	if (conn->watched == events)
		return;
	conn->watched = events;
	if (events == 0)
		uv_poll_stop(&conn->poll);
	else
		uv_poll_start(&conn->poll, events, on_poll);
}

/* What the state asks for: bytes or EOF always, unless half a request or pipelined bytes would make the loop spin. */
static void watch_state(struct fcgi_request *conn)
{
	int events = UV_DISCONNECT;

	if (conn->state == CONN_BODY || conn->state == CONN_CLOSED)
		events = 0;
	else if (conn->state != CONN_HEAD && !conn->pipelined)
		events |= UV_READABLE;
	if (buf_size(&conn->out) > 0 || conn->state == CONN_ENDING)
		events |= UV_WRITABLE;
	watch(conn, events);
}

static void set_active(struct fcgi_request *conn, enum conn_state next)
{
	bool was = conn->state != CONN_IDLE && conn->state != CONN_CLOSED;
	bool is = next != CONN_IDLE && next != CONN_CLOSED;

	conn->state = next;
	if (is && !was)
		conn->server->active++;
	if (was && !is)
		conn->server->active--;
}

/* ---- closing ---- */

static void tell_if_idle(struct fcgi_server *server)
{
	void (*on_idle)(void *) = server->on_idle;

	if (server->draining && server->conn_count == 0 && on_idle != NULL) {
		server->on_idle = NULL;
		on_idle(server->idle_arg);
	}
}

static bool open_encoder(struct fcgi_server *server)
{
	server->encoder = memfd_create("fcgi encoder", MFD_CLOEXEC);
	if (server->encoder < 0)
		return false;
	server->encoded = MAP_FAILED;
	if (ftruncate(server->encoder, ENCODER_SIZE) == 0)
		server->encoded = mmap(NULL, ENCODER_SIZE, PROT_READ, MAP_SHARED, server->encoder, 0);
	if (server->encoded == MAP_FAILED)
		close(server->encoder);
	return server->encoded != MAP_FAILED;
}

static void close_encoder(struct fcgi_server *server)
{
	munmap(server->encoded, ENCODER_SIZE);
	close(server->encoder);
}

static void free_server_if_done(struct fcgi_server *server)
{
	if (!server->closed || server->open_handles > 0 || server->conn_count > 0)
		return;
	close_encoder(server);
	free(server);
}

static void on_conn_handle_closed(uv_handle_t *handle)
{
	struct fcgi_request *conn = handle->data;
	struct fcgi_server *server = conn->server;

	if (--conn->open_handles > 0)
		return;
	server->conn_count--;
	free(conn);
	if (server->closed)
		free_server_if_done(server);
	else
		tell_if_idle(server);
}

/* Ends the connection without a word to the handler. */
static void close_conn(struct fcgi_request *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state == CONN_BODY) {
		/* The pool's thread uses the socket and libfcgi's buffers: wake it and wait for it. */
		conn->closing = true;
		shutdown(conn->fd, SHUT_RDWR);
		return;
	}
	set_active(conn, CONN_CLOSED);
	uv_timer_stop(&conn->timer);
	watch(conn, 0);
	FCGX_Free(&conn->fcgx, 0);
	buf_free(&conn->body);
	buf_free(&conn->out);
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		conn->server->conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	uv_close((uv_handle_t *)&conn->poll, on_conn_handle_closed);
	uv_close((uv_handle_t *)&conn->timer, on_conn_handle_closed);
	close(conn->fd);
}

/* The client (nginx) is gone: tell the handler, if there is one, and close. */
static void leave(struct fcgi_request *conn)
{
	fcgi_leave_fn on_leave = conn->on_leave;

	conn->on_leave = NULL;
	if (conn->state == CONN_ACTIVE && on_leave != NULL)
		on_leave(conn->arg);
	close_conn(conn);
}

/* ---- writing ---- */

static bool writable_now(const struct fcgi_request *conn)
{
	struct pollfd now = { .fd = conn->fd, .events = POLLOUT };

	return poll(&now, 1, 0) == 1 && (now.revents & POLLOUT) != 0;
}

/* Sends what libfcgi has put into the memory file. */
static void send_encoded(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;
	off_t len = lseek(server->encoder, 0, SEEK_CUR);
	ssize_t sent;

	lseek(server->encoder, 0, SEEK_SET);
	for (off_t at = 0; at < len; at += sent) {
		sent = write(conn->fd, server->encoded + at, (size_t)(len - at));
		if (sent < 0 && errno == EINTR)
			sent = 0;
		if (sent < 0) {
			conn->broken = true;
			return;
		}
	}
}

/*
 * Hands at most WRITE_MAX bytes to the socket, which was seen to be writable; `last` ends the request, too.
 */
static void put(struct fcgi_request *conn, const char *bytes, size_t len, bool last)
{
	FCGX_Stream *out = conn->fcgx.out;
	bool encode = len > FCGX_BUFFER;

	if (encode)
		conn->fcgx.ipcFd = conn->server->encoder;
	if (len > 0 && FCGX_PutStr(bytes, (int)len, out) < 0)
		conn->broken = true;
	if (last)
		FCGX_FClose(conn->fcgx.err);
	if ((last ? FCGX_FClose(out) : FCGX_FFlush(out)) < 0)
		conn->broken = true;
	conn->fcgx.ipcFd = conn->fd;
	if (encode)
		send_encoded(conn);
}

/* The end was written: free the request and keep or close the connection. */
static void finish(struct fcgi_request *conn)
{
	FCGX_Free(&conn->fcgx, 0);
	buf_free(&conn->body);
	buf_free(&conn->out);
	conn->on_leave = NULL;
	conn->on_drain = NULL;
	if (!conn->keep || conn->broken || conn->pipelined || conn->server->draining) {
		close_conn(conn);
		return;
	}
	set_active(conn, CONN_IDLE);
	watch_state(conn);
}

static void flush(struct fcgi_request *conn)
{
	bool was_high = buf_size(&conn->out) > FCGI_BACKLOG_HIGH / 4;

	while (buf_size(&conn->out) > 0 && !conn->broken && writable_now(conn)) {
		size_t len = utf8_cut(buf_bytes(&conn->out), buf_size(&conn->out), WRITE_MAX);

		put(conn, buf_bytes(&conn->out), len, false);
		buf_consume(&conn->out, len);
	}
	if (conn->broken) {
		/* The socket hangs up, which the loop reports: on_leave must not come from inside a write. */
		buf_reset(&conn->out, 0);
		if (conn->state == CONN_ENDING)
			close_conn(conn);
		else
			watch_state(conn);
		return;
	}
	if (buf_size(&conn->out) == 0)
		buf_reset(&conn->out, 4096);
	if (conn->state == CONN_ENDING && buf_size(&conn->out) == 0 && writable_now(conn)) {
		put(conn, "", 0, true);
		finish(conn);
		return;
	}
	watch_state(conn);
	if (was_high && conn->state == CONN_ACTIVE && conn->on_drain != NULL &&
	    buf_size(&conn->out) <= FCGI_BACKLOG_HIGH / 4)
		conn->on_drain(conn->arg);
}

enum err fcgi_write(struct fcgi_request *conn, const void *bytes, size_t len)
{
	if (conn->broken || len == 0)
		return ERR_OK;
	if (len > conn->server->limits.output_max - buf_size(&conn->out))
		return ERR_TOO_BIG;
	if (buf_size(&conn->out) == 0 && len <= WRITE_MAX && writable_now(conn)) {
		put(conn, bytes, len, false);
		return ERR_OK;
	}
	buf_append(&conn->out, bytes, len);
	if (conn->out.failed) {
		conn->out.failed = false;
		return ERR_NOMEM;
	}
	watch_state(conn);
	return ERR_OK;
}

size_t fcgi_backlog(const struct fcgi_request *conn)
{
	return buf_size(&conn->out);
}

void fcgi_end(struct fcgi_request *conn)
{
	set_active(conn, CONN_ENDING);
	flush(conn);
}

enum err fcgi_write_end(struct fcgi_request *conn, const void *bytes, size_t len)
{
	enum err rc;

	if (buf_size(&conn->out) == 0 && len <= WRITE_MAX && !conn->broken && writable_now(conn)) {
		set_active(conn, CONN_ENDING);
		put(conn, bytes, len, true);
		finish(conn);
		return ERR_OK;
	}
	rc = fcgi_write(conn, bytes, len);
	if (rc == ERR_OK)
		fcgi_end(conn);
	return rc;
}

void fcgi_abort(struct fcgi_request *conn)
{
	conn->on_leave = NULL;
	close_conn(conn);
}

/* ---- reading ---- */

static void hand_out(struct fcgi_request *conn)
{
	FCGX_FreeStream(&conn->fcgx.in); /* 8 KiB that a stream would hold for minutes */
	set_active(conn, CONN_ACTIVE);
	watch_state(conn);
	conn->server->on_request(conn, conn->server->arg);
}

/* Reads the body to its end; runs on the loop when all of it is there, else in the thread pool. */
static void read_body(struct fcgi_request *conn)
{
	for (;;) {
		char *room = buf_room(&conn->body, 8192);
		int got;

		if (room == NULL) {
			char trash[8192];

			conn->too_big = true;
			while (FCGX_GetStr(trash, sizeof trash, conn->fcgx.in) == (int)sizeof trash)
				continue;
			return;
		}
		got = FCGX_GetStr(room, 8192, conn->fcgx.in);
		buf_claim(&conn->body, (size_t)got);
		if (got < 8192)
			return;
	}
}

static void on_body_work(uv_work_t *work)
{
	read_body(work->data);
}

/* After the body was read, wherever: hand the request out, unless the peer broke off. */
static void body_done(struct fcgi_request *conn)
{
	if (FCGX_GetError(conn->fcgx.in) != 0) {
		close_conn(conn);
		return;
	}
	if (buf_size(&conn->body) > conn->server->limits.body_max)
		conn->too_big = true;
	if (conn->too_big)
		buf_reset(&conn->body, 0);
	hand_out(conn);
}

static void on_body_done(uv_work_t *work, int status)
{
	struct fcgi_request *conn = work->data;

	(void)status;
	conn->state = CONN_HEAD;
	if (conn->closing)
		close_conn(conn);
	else
		body_done(conn);
}

/*
 * The whole head is in the socket's buffer: let libfcgi decode it. `followed`: more bytes came behind the request,
 * which libfcgi's reader may swallow, so the connection cannot be kept.
 */
static void accept_request(struct fcgi_request *conn, const struct record_scan *scan, bool followed)
{
	struct fcgi_server *server = conn->server;

	FCGX_InitRequest(&conn->fcgx, -1, FCGI_FAIL_ACCEPT_ON_INTR);
	conn->fcgx.ipcFd = conn->fd;
	conn->fcgx.keepConnection = 1;
	FCGX_Detach(&conn->fcgx);
	conn->keep = scan->keep_conn && !followed;
	conn->too_big = conn->pipelined = conn->broken = false;
	buf_init(&conn->body, server->limits.body_max + 8192);
	buf_init(&conn->out, server->limits.output_max);
	if (FCGX_Accept_r(&conn->fcgx) != 0) {
		/* record.c accepts less than libfcgi does, so this is memory or a bug. libfcgi closed the socket. */
		log_event(LOG_LEVEL_ERROR, "fastcgi", LOG_TEXT("while", "decoding a request"));
		conn->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		close_conn(conn);
		return;
	}
	if (scan->complete) {
		read_body(conn);
		body_done(conn);
		return;
	}
	conn->state = CONN_BODY;
	watch_state(conn);
	conn->work.data = conn;
	if (uv_queue_work(server->loop, &conn->work, on_body_work, on_body_done) != 0) {
		conn->state = CONN_HEAD;
		close_conn(conn);
	}
}

static void on_repeek(uv_timer_t *timer)
{
	on_readable(timer->data);
}

/* Half a request: level-triggered polling would spin on it, so look again a little later. */
static void wait_for_more(struct fcgi_request *conn)
{
	uint64_t now = uv_now(conn->server->loop);

	if (conn->state == CONN_IDLE) {
		set_active(conn, CONN_HEAD);
		conn->head_since_ms = now;
		conn->repeek_ms = REPEEK_MIN_MS;
	} else if (now - conn->head_since_ms >= conn->server->limits.head_timeout_ms) {
		log_event(LOG_LEVEL_WARN, "fastcgi", LOG_TEXT("why", "half a request, then silence"));
		close_conn(conn);
		return;
	} else if (conn->repeek_ms < REPEEK_MAX_MS) {
		conn->repeek_ms *= 2;
	}
	uv_timer_start(&conn->timer, on_repeek, conn->repeek_ms, 0);
	watch_state(conn);
}

static void on_readable(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;
	ssize_t got = recv(conn->fd, server->peek, PEEK_MAX, MSG_PEEK | MSG_DONTWAIT);
	struct record_scan scan;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		leave(conn);
		return;
	}
	if (conn->state == CONN_ACTIVE || conn->state == CONN_ENDING) {
		conn->pipelined = true;
		watch_state(conn);
		return;
	}
	switch (record_scan(&scan, server->peek, (size_t)got)) {
	case RECORD_BAD:
		log_event(LOG_LEVEL_WARN, "fastcgi", LOG_TEXT("why", scan.why));
		close_conn(conn);
		return;
	case RECORD_MORE:
		if (got == PEEK_MAX && !scan.head_complete) {
			log_event(LOG_LEVEL_WARN, "fastcgi", LOG_TEXT("why", "parameters beyond 64 KiB"));
			close_conn(conn);
			return;
		}
		if (got < PEEK_MAX) {
			wait_for_more(conn);
			return;
		}
		break;
	case RECORD_COMPLETE:
		break;
	}
	uv_timer_stop(&conn->timer);
	set_active(conn, CONN_HEAD);
	accept_request(conn, &scan, scan.complete && scan.bytes < (size_t)got);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct fcgi_request *conn = poll->data;

	if (status < 0 || (events & UV_DISCONNECT)) {
		/* nginx closes its whole socket when the client leaves: nothing written from here on arrives. */
		leave(conn);
		return;
	}
	if (events & UV_READABLE) {
		on_readable(conn);
		if (conn->state == CONN_CLOSED)
			return;
	}
	if ((events & UV_WRITABLE) && (conn->state == CONN_ACTIVE || conn->state == CONN_ENDING))
		flush(conn);
}

/* ---- accepting ---- */

/*
 * uv_poll_init() makes the socket non-blocking, which libfcgi cannot write to: undo that. TCP_NODELAY and the
 * rest fail harmlessly on a unix socket.
 */
static void prepare_socket(int fd, uint64_t timeout_ms)
{
	struct timeval timeout = { .tv_sec = (time_t)(timeout_ms / 1000),
				   .tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000) };
	int size = SOCKET_BUFFER, on = 1;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void open_conn(struct fcgi_server *server, int fd)
{
	struct fcgi_request *conn = calloc(1, sizeof *conn);

	if (conn == NULL || uv_poll_init(server->loop, &conn->poll, fd) != 0) {
		free(conn);
		close(fd);
		return;
	}
	prepare_socket(fd, server->limits.head_timeout_ms);
	uv_timer_init(server->loop, &conn->timer);
	conn->open_handles = 2;
	conn->server = server;
	conn->fd = fd;
	conn->poll.data = conn->timer.data = conn;
	conn->state = CONN_IDLE;
	conn->next = server->conns;
	if (conn->next != NULL)
		conn->next->prev = conn;
	server->conns = conn;
	server->conn_count++;
	watch_state(conn);
}

static void on_listen(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct fcgi_server *server = timer->data;

	if (!server->draining && !server->closed)
		uv_poll_start(&server->poll, UV_READABLE, on_listen);
}

static void on_listen(uv_poll_t *poll, int status, int events)
{
	struct fcgi_server *server = poll->data;

	(void)status;
	(void)events;
	for (unsigned i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			open_conn(server, fd);
			continue;
		}
		if (errno == EAGAIN)
			return;
		if (errno != EINTR && errno != ECONNABORTED) {
			log_event(LOG_LEVEL_ERROR, "accept", LOG_TEXT("why", strerror(errno)));
			uv_poll_stop(&server->poll);
			uv_timer_start(&server->pause, on_pause_over, ACCEPT_PAUSE_MS, 0);
			return;
		}
	}
}

enum err fcgi_server_open(struct fcgi_server **out, uv_loop_t *loop, int listen_fd,
			  const struct fcgi_limits *limits, fcgi_request_fn on_request, void *arg,
			  struct error *why)
{
	struct fcgi_server *server = calloc(1, sizeof *server);

	if (server == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the FastCGI server");
	if (!open_encoder(server)) {
		free(server);
		return error_set(why, ERR_NOMEM, NULL, "memory for the FastCGI encoder: %s", strerror(errno));
	}
	if (FCGX_Init() != 0 || uv_poll_init(loop, &server->poll, listen_fd) != 0) {
		close_encoder(server);
		free(server);
		return error_set(why, ERR_NOMEM, NULL, "watching the listening socket");
	}
	uv_timer_init(loop, &server->pause);
	server->open_handles = 2;
	server->loop = loop;
	server->listen_fd = listen_fd;
	server->limits = *limits;
	server->on_request = on_request;
	server->arg = arg;
	server->poll.data = server->pause.data = server;
	uv_poll_start(&server->poll, UV_READABLE, on_listen);
	*out = server;
	return ERR_OK;
}

void fcgi_server_drain(struct fcgi_server *server, void (*on_idle)(void *arg), void *arg)
{
	server->draining = true;
	server->on_idle = on_idle;
	server->idle_arg = arg;
	uv_poll_stop(&server->poll);
	tell_if_idle(server);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
	struct fcgi_server *server = handle->data;

	server->open_handles--;
	free_server_if_done(server);
}

void fcgi_server_close(struct fcgi_server *server)
{
	struct fcgi_request *conn, *next;

	server->closed = true;
	uv_close((uv_handle_t *)&server->poll, on_server_handle_closed);
	uv_close((uv_handle_t *)&server->pause, on_server_handle_closed);
	for (conn = server->conns; conn != NULL; conn = next) {
		next = conn->next;
		leave(conn);
	}
}

size_t fcgi_server_active(const struct fcgi_server *server)
{
	return server->active;
}

/* ---- what a handler sees ---- */

const char *fcgi_param(const struct fcgi_request *conn, const char *name)
{
	const char *value = FCGX_GetParam(name, conn->fcgx.envp);

	return value != NULL ? value : "";
}

const char *fcgi_body(const struct fcgi_request *conn, size_t *len)
{
	*len = buf_size(&conn->body);
	return buf_bytes(&conn->body);
}

bool fcgi_body_too_big(const struct fcgi_request *conn)
{
	return conn->too_big;
}

void fcgi_body_free(struct fcgi_request *conn)
{
	buf_free(&conn->body);
}

void fcgi_watch(struct fcgi_request *conn, fcgi_leave_fn on_leave, fcgi_drain_fn on_drain, void *arg)
{
	conn->on_leave = on_leave;
	conn->on_drain = on_drain;
	conn->arg = arg;
}
