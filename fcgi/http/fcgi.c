/*
 * fcgi.c - FastCGI connections on the event loop.
 *
 * Nothing here waits:
 *   reading  takes what is there, until record.c finds a whole request in it; codec.c then decodes it in memory, a large
 *            one in the thread pool.
 *   writing  goes to a blocking socket (libfcgi loses data on EAGAIN), but only when it polls writable, and at most
 *            CODEC_WRITE_MAX bytes: Linux reports a unix socket writable while at most a quarter of its buffer is used,
 *            and a TCP socket up to two thirds, so such a write fits. What does not fit waits in conn->out. All that a
 *            handler writes in one turn of the loop leaves in one write, at the turn's end.
 *   closing  is a plain close(2).
 */
#include "http/fcgi.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/background.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/metrics.h"
#include "base/utf8.h"
#include "http/codec.h"
#include "http/lane.h"
#include "http/record.h"

/*
 * SO_SNDBUF asked for (Linux doubles it). nginx cuts where its own buffer ends (fastcgi_buffer_size), so no more must be in
 * flight than fits there: a quarter of this doubled, when the socket still polls writable, and one write.
 */
#define SOCKET_BUFFER     (96 * 1024)
#define SOCKET_ROOM       (48 * 1024)   /* of it, what may be taken without asking whether it is writable */
#define WRITE_COST        1024          /* bytes of room that a write takes beside twice its own */
#define GATHER_MAX        (16 * 1024)   /* bytes that wait for the end of the loop's turn */
#define OUT_KEEP          1024          /* bytes of conn->out kept for the next event */
#define HEAD_MAX          (64 * 1024)   /* bytes of parameters */
#define RECORDS_MAX       (1024 * 1024) /* bytes that the headers of a body's records may take */
#define PROGRESS          1024 /* bytes that a peer must bring within the time limit, again and again */
#define ROOM_MAX          (64 * 1024 * 1024) /* bytes that are set aside for a large request at once */
#define ACCEPT_BATCH      1024 /* connections taken per turn of the loop: a full queue (4,096) is nginx' 502 */
#define GIVE_INTERVAL_MS  10   /* between looks whether the successor has room for idle connections */
#define ACCEPT_ALL_ROUNDS 64   /* a flood must not keep a worker from draining */
#define ACCEPT_PAUSE_MS   100  /* after running out of descriptors or memory */

enum conn_state {
	CONN_IDLE,     /* waiting for nginx's next request */
	CONN_READING,  /* a part of a request is there */
	CONN_DECODING, /* the thread pool decodes it */
	CONN_ACTIVE,   /* a handler has the request */
	CONN_ENDING,   /* the handler is done; output is still going out */
	CONN_CLOSED    /* waiting for libuv to let go of the memory */
};

/* A connection is its own request: FastCGI carries one at a time, and nginx never multiplexes. */
struct fcgi_request {
	struct fcgi_server *server;
	struct fcgi_request *prev, *next; /* server->conns */
	enum conn_state state;
	int fd;
	uv_poll_t poll;
	int watched;      /* events that `poll` is started for */
	uv_timer_t timer; /* READING: the peer's time limit */
	uv_work_t work;   /* DECODING */
	unsigned open_handles;
	struct buf in;           /* READING, DECODING: the request so far, and what came behind it */
	struct record_scan scan; /* READING: of the request so far */
	size_t noted;            /* READING: bytes that were there when the time limit began */
	size_t used;             /* DECODING: bytes of `in` that are the request */
	size_t pairs;            /* DECODING: names and values in them */
	bool keep;               /* nginx wants the connection kept after this request */
	bool broken;             /* a write failed: wait for the loop to report the end */
	bool pipelined; /* more bytes came while a request is in hand: leaving can be told by hang-up only */
	bool held;      /* ACTIVE: the thread pool uses the body */
	bool closing;   /* DECODING or held: close when the thread pool is done */
	struct lane_place place;       /* READING on: among the large requests */
	bool too_big, lost;            /* the body */
	struct codec_request *decoded; /* DECODING on */
	struct buf body;
	struct buf out;                     /* waits for the turn's end, or for the client */
	TAILQ_ENTRY(fcgi_request) gathered; /* server->gathering */
	bool gathering;
	size_t room;                    /* of SOCKET_ROOM, what is surely left */
	size_t counted_in, counted_out; /* of the bytes held, what the metrics know */
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
	struct codec *codec;
	struct fcgi_request *conns;
	size_t conn_count, active;
	struct lane lane; /* of the large requests: one has its turn, until its body is freed */
	TAILQ_HEAD(, fcgi_request) gathering; /* have output for the end of the loop's turn */
	uv_prepare_t turn_end;                /* runs while there are any */
	uint64_t refused_ms;                  /* when a refusal was logged last */
	size_t refused;                       /* those since, that were not */
	bool draining, closed;
	fcgi_give_fn give; /* draining: NULL without a successor */
	void (*on_idle)(void *arg);
	void *drain_arg;
	char scratch[CODEC_SMALL]; /* what was read just now */
};

static void flush(struct fcgi_request *conn);
static void stop_gathering(struct fcgi_request *conn);
static void refuse(struct fcgi_request *conn, const char *why);
static void take_request(struct fcgi_request *conn, const char *bytes, size_t len);

/* ---- counting ---- */

static void recount(enum metrics_buffer buffer, size_t *counted, size_t now)
{
	metric_add(&metrics->gauges.buffers[buffer], (uint64_t)now - *counted);
	*counted = now;
}

/* Tells the metrics what the connection holds. */
static void count_bytes(struct fcgi_request *conn)
{
	size_t in = buf_size(&conn->in) + buf_size(&conn->body), out = buf_size(&conn->out);

	if (in != conn->counted_in)
		recount(METRICS_BUFFER_REQUEST, &conn->counted_in, in);
	if (out != conn->counted_out)
		recount(METRICS_BUFFER_OUTPUT, &conn->counted_out, out);
}

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

/* What the state asks for: bytes or EOF always, unless bytes that nobody reads yet would make the loop spin. */
static void watch_state(struct fcgi_request *conn)
{
	int events = UV_DISCONNECT;

	if (conn->state != CONN_DECODING)
		count_bytes(conn);
	if (conn->state == CONN_DECODING || conn->state == CONN_CLOSED)
		events = 0;
	else if (!conn->pipelined && !lane_waits(&conn->place))
		events |= UV_READABLE;
	if (buf_size(&conn->out) > 0 || conn->state == CONN_ENDING)
		events |= UV_WRITABLE;
	watch(conn, events);
}

static void go(struct fcgi_request *conn, enum conn_state next)
{
	bool was = conn->state != CONN_IDLE && conn->state != CONN_CLOSED;
	bool is = next != CONN_IDLE && next != CONN_CLOSED;

	conn->state = next;
	if (is && !was)
		conn->server->active++;
	if (was && !is)
		conn->server->active--;
}

/* ---- large requests ---- */

static void on_turn(uv_timer_t *timer)
{
	struct fcgi_request *conn = timer->data;

	conn->noted = 0;
	take_request(conn, "", 0);
}

/* Room at once: growing would copy what is there, again and again. Only what is used takes memory. */
static void reserve(struct fcgi_request *conn)
{
	if (conn->in.max <= ROOM_MAX && buf_room(&conn->in, conn->in.max - buf_size(&conn->in)) == NULL)
		buf_forgive(&conn->in); /* it may still grow */
}

static bool is_coming(const void *request, size_t *bytes)
{
	const struct fcgi_request *conn = request;

	if (conn->state != CONN_READING) /* the thread pool may have it */
		return false;
	*bytes = buf_size(&conn->in);
	return true;
}

/* It goes on in the next turn of the loop. */
static void on_lane_turn(void *request)
{
	struct fcgi_request *conn = request;

	reserve(conn);
	watch_state(conn);
	uv_timer_start(&conn->timer, on_turn, 0, 0);
}

static void on_lane_give_up(void *request)
{
	refuse(request, "a large body that does not come, and others wait");
}

static const struct lane_ops lane_ops = {
	.is_coming = is_coming,
	.on_turn = on_lane_turn,
	.on_give_up = on_lane_give_up,
};

/* Whether a request that has become large may go on; else it will when others are done. */
static bool may_be_large(struct fcgi_request *conn)
{
	if (lane_has_turn(&conn->place))
		return true;
	if (lane_enter(&conn->place)) {
		reserve(conn);
		return true;
	}
	uv_timer_stop(&conn->timer); /* it is not the peer who makes it wait */
	go(conn, CONN_READING);
	watch_state(conn);
	return false;
}

/* ---- closing ---- */

static void tell_if_idle(struct fcgi_server *server)
{
	void (*on_idle)(void *) = server->on_idle;

	if (server->draining && server->conn_count == 0 && on_idle != NULL) {
		server->on_idle = NULL;
		on_idle(server->drain_arg);
	}
}

static void free_server_if_done(struct fcgi_server *server)
{
	if (!server->closed || server->open_handles > 0 || server->conn_count > 0)
		return;
	codec_close(server->codec);
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

static void free_request(struct fcgi_request *conn)
{
	codec_free(conn->decoded);
	conn->decoded = NULL;
	buf_free(&conn->body);
	buf_free(&conn->out);
	lane_leave(&conn->place);
	conn->on_leave = NULL;
	conn->on_drain = NULL;
}

/* Ends the connection without a word to the handler. */
static void close_conn(struct fcgi_request *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state == CONN_DECODING || conn->held) {
		conn->closing = true; /* the pool's thread uses the buffers */
		watch(conn, 0);
		return;
	}
	stop_gathering(conn);
	go(conn, CONN_CLOSED);
	uv_timer_stop(&conn->timer);
	watch(conn, 0);
	free_request(conn);
	buf_free(&conn->in);
	count_bytes(conn);
	metric_sub(&metrics->gauges.connections, 1);
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

static bool may_be_given(const struct fcgi_request *conn)
{
	return conn->server->give != NULL && conn->state == CONN_IDLE && buf_size(&conn->in) == 0;
}

/* Draining: an idle connection goes to the successor, if there is one that has room for it now. */
static bool give_away(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;

	if (!may_be_given(conn) || !server->give(server->drain_arg, conn->fd))
		return false;
	close_conn(conn);
	return true;
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

/*
 * Whether a write of `len` bytes fits now. We count what we write since the socket was seen to have room, and
 * ask again only when that could be too much: a new request does not say that the answer to the one before was read.
 */
static bool has_room(struct fcgi_request *conn, size_t len)
{
	if (2 * len + WRITE_COST <= conn->room)
		return true;
	if (!writable_now(conn))
		return false;
	conn->room = SOCKET_ROOM;
	return true;
}

/* As has_room(); then it must be written. */
static bool take_room(struct fcgi_request *conn, size_t len)
{
	size_t cost = 2 * len + WRITE_COST;

	if (!has_room(conn, len))
		return false;
	conn->room -= cost < conn->room ? cost : conn->room;
	return true;
}

/* Hands at most CODEC_WRITE_MAX bytes to the socket, which was seen to be writable; `last` ends the request, too. */
static void put(struct fcgi_request *conn, const char *bytes, size_t len, bool last)
{
	if (!codec_write(conn->server->codec, conn->decoded, conn->fd, bytes, len, last))
		conn->broken = true;
}

static void on_behind(uv_timer_t *timer)
{
	struct fcgi_request *conn = timer->data;

	if (conn->state == CONN_IDLE)
		take_request(conn, "", 0);
}

/* The end was written: free the request, and keep or close the connection. */
static void finish(struct fcgi_request *conn)
{
	free_request(conn);
	if (!conn->keep || conn->broken) {
		close_conn(conn);
		return;
	}
	go(conn, CONN_IDLE);
	conn->pipelined = false;
	if (give_away(conn))
		return;
	watch_state(conn);
	if (buf_size(&conn->in) > 0) /* the next request came along with this one */
		uv_timer_start(&conn->timer, on_behind, 0, 0);
}

/*
 * How much of a backlog to send in one write: up to an event's end (a blank line), if it holds one, or to a character's.
 * There are clients that decode each read by itself.
 */
static size_t piece_of(const char *bytes, size_t size)
{
	size_t cut = utf8_cut(bytes, size, CODEC_WRITE_MAX);

	if (cut == size)
		return size;
	for (size_t at = cut; at >= 2; at--)
		if (bytes[at - 1] == '\n' && bytes[at - 2] == '\n')
			return at;
	return cut;
}

/* Sends what the socket takes. True when that was all, and the end of the request with it. */
static bool send_out(struct fcgi_request *conn)
{
	bool ending = conn->state == CONN_ENDING;

	while ((buf_size(&conn->out) > 0 || ending) && !conn->broken) {
		size_t len = piece_of(buf_bytes(&conn->out), buf_size(&conn->out));
		bool last = ending && len == buf_size(&conn->out);

		if (!take_room(conn, len))
			break;
		put(conn, buf_bytes(&conn->out), len, last);
		buf_consume(&conn->out, len);
		if (last)
			return !conn->broken;
	}
	if (conn->broken || buf_size(&conn->out) == 0)
		buf_reset(&conn->out, OUT_KEEP);
	return false;
}

static void flush(struct fcgi_request *conn)
{
	bool was_high = buf_size(&conn->out) > FCGI_BACKLOG_HIGH / 4;

	if (send_out(conn)) {
		finish(conn);
		return;
	}
	if (conn->broken && conn->state == CONN_ENDING) {
		close_conn(conn);
		return;
	}
	/* When broken, the socket hangs up, which the loop reports: on_leave must not come from inside a write. */
	watch_state(conn);
	if (!conn->broken && was_high && conn->state == CONN_ACTIVE && conn->on_drain != NULL &&
	    buf_size(&conn->out) <= FCGI_BACKLOG_HIGH / 4)
		conn->on_drain(conn->arg);
}

static void stop_gathering(struct fcgi_request *conn)
{
	if (!conn->gathering)
		return;
	conn->gathering = false;
	TAILQ_REMOVE(&conn->server->gathering, conn, gathered);
}

static void on_turn_end(uv_prepare_t *turn_end)
{
	struct fcgi_server *server = turn_end->data;
	struct fcgi_request *conn;

	while ((conn = TAILQ_FIRST(&server->gathering)) != NULL) {
		stop_gathering(conn);
		flush(conn);
	}
	uv_prepare_stop(turn_end);
}

/* The output leaves when the loop has served all that is there now. */
static void gather(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;

	if (conn->gathering)
		return;
	conn->gathering = true;
	if (TAILQ_EMPTY(&server->gathering))
		uv_prepare_start(&server->turn_end, on_turn_end);
	TAILQ_INSERT_TAIL(&server->gathering, conn, gathered);
}

enum err fcgi_write(struct fcgi_request *conn, const void *bytes, size_t len)
{
	if (conn->broken || len == 0)
		return ERR_OK;
	if (len > conn->server->limits.output_max - buf_size(&conn->out))
		return ERR_TOO_BIG;
	buf_append(&conn->out, bytes, len);
	if (conn->out.failed) {
		buf_forgive(&conn->out);
		return ERR_NOMEM;
	}
	if (conn->watched & UV_WRITABLE) /* the client is behind */
		return ERR_OK;
	if (buf_size(&conn->out) >= GATHER_MAX) {
		send_out(conn);
		watch_state(conn);
	}
	if (buf_size(&conn->out) > 0 && !(conn->watched & UV_WRITABLE))
		gather(conn);
	return ERR_OK;
}

size_t fcgi_backlog(const struct fcgi_request *conn)
{
	return buf_size(&conn->out);
}

void fcgi_end(struct fcgi_request *conn)
{
	go(conn, CONN_ENDING);
	stop_gathering(conn);
	flush(conn);
}

/* Whether the last `len` bytes can go straight to the socket, which takes no memory. */
static bool may_put_end(struct fcgi_request *conn, size_t len)
{
	return buf_size(&conn->out) == 0 && len <= CODEC_WRITE_MAX && !conn->broken && has_room(conn, len);
}

bool fcgi_may_end(struct fcgi_request *conn, size_t len)
{
	if (conn->broken || may_put_end(conn, len) || buf_room(&conn->out, len) != NULL)
		return true;
	buf_forgive(&conn->out);
	send_out(conn); /* what waits for the turn's end is in the way */
	watch_state(conn);
	return conn->broken || may_put_end(conn, len);
}

enum err fcgi_write_end(struct fcgi_request *conn, const void *bytes, size_t len)
{
	enum err rc;

	if (may_put_end(conn, len)) {
		take_room(conn, len);
		go(conn, CONN_ENDING);
		stop_gathering(conn);
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

/* A request was decoded, wherever: hand it out. */
static void hand_out(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;

	if (conn->decoded == NULL) {
		refuse(conn, "no memory to decode a request");
		return;
	}
	conn->lost = conn->body.starved;
	conn->too_big = !conn->lost && (conn->body.failed || buf_size(&conn->body) > server->limits.body_max);
	if (conn->too_big || conn->lost)
		fcgi_body_free(conn);
	go(conn, CONN_ACTIVE);
	watch_state(conn);
	server->on_request(conn, server->arg);
}

static void on_decode_work(uv_work_t *work)
{
	struct fcgi_request *conn = work->data;

	background_thread();
	conn->decoded = codec_decode(NULL, buf_bytes(&conn->in), conn->used, conn->pairs, &conn->body);
	if (conn->used == buf_size(&conn->in))
		buf_free(&conn->in);
}

static void on_decoded(uv_work_t *work, int status)
{
	struct fcgi_request *conn = work->data;

	(void)status;
	conn->state = CONN_READING;
	if (buf_size(&conn->in) > 0)
		buf_consume(&conn->in, conn->used);
	if (conn->closing)
		close_conn(conn);
	else
		hand_out(conn);
}

/* Decodes a large request without making others wait. */
static void decode_in_pool(struct fcgi_request *conn)
{
	conn->state = CONN_DECODING;
	watch_state(conn);
	conn->work.data = conn;
	if (uv_queue_work(conn->server->loop, &conn->work, on_decode_work, on_decoded) != 0) {
		conn->state = CONN_READING;
		close_conn(conn);
	}
}

/* Of a crowd that is refused, one line a second says enough; a line for each would hold up others. */
static void refuse(struct fcgi_request *conn, const char *why)
{
	struct fcgi_server *server = conn->server;
	uint64_t now = uv_now(server->loop);

	if (server->refused_ms != 0 && now - server->refused_ms < 1000) {
		server->refused++;
	} else {
		log_event(LOG_LEVEL_WARN, "fastcgi", LOG_TEXT("why", why),
			  LOG_NUMBER("before", server->refused));
		server->refused = 0;
		server->refused_ms = now;
	}
	close_conn(conn);
}

static void on_limit(uv_timer_t *timer)
{
	refuse(timer->data, "half a request, then silence");
}

/* A part of a request is there. The peer has some time to bring more, and as much again when it does. */
static void wait_for_more(struct fcgi_request *conn)
{
	size_t have = buf_size(&conn->in);

	if (conn->state == CONN_READING && have - conn->noted < PROGRESS)
		return;
	conn->noted = have;
	go(conn, CONN_READING);
	uv_timer_start(&conn->timer, on_limit, conn->server->limits.head_timeout_ms, 0);
	watch_state(conn);
}

/* Puts bytes aside until there is a whole request. */
static bool keep_bytes(struct fcgi_request *conn, const char *bytes, size_t len)
{
	buf_append(&conn->in, bytes, len);
	if (!conn->in.failed)
		return true;
	refuse(conn, conn->in.starved ? "no memory for a request" : "a request beyond MAX_REQUEST_SIZE");
	return false;
}

/* `bytes` begin with a whole request; what is behind it is kept for later. */
static void begin_request(struct fcgi_request *conn, const char *bytes, size_t len)
{
	bool kept = buf_size(&conn->in) > 0; /* then `bytes` are in conn->in */

	uv_timer_stop(&conn->timer);
	go(conn, CONN_READING);
	conn->keep = conn->scan.keep_conn;
	conn->used = conn->scan.bytes;
	conn->pairs = conn->scan.pairs;
	conn->scan = (struct record_scan){ .at = 0 };
	conn->broken = conn->too_big = conn->lost = false;
	/* One more read of libfcgi's than the body needs must not fail it. */
	buf_init(&conn->body, conn->server->limits.body_max + 16384);
	buf_init(&conn->out, conn->server->limits.output_max);
	if (kept && conn->used > CODEC_SMALL) {
		decode_in_pool(conn);
		return;
	}
	conn->decoded = codec_decode(conn->server->codec, bytes, conn->used, conn->pairs, &conn->body);
	if (kept)
		buf_consume(&conn->in, conn->used);
	else if (len > conn->used && !keep_bytes(conn, bytes + conn->used, len - conn->used))
		return;
	if (buf_size(&conn->in) == 0)
		buf_free(&conn->in);
	hand_out(conn);
}

/* More bytes of a request, or of several. */
static void take_request(struct fcgi_request *conn, const char *bytes, size_t len)
{
	struct record_scan *scan = &conn->scan;
	enum record_verdict verdict;

	if (buf_size(&conn->in) > 0) {
		if (!keep_bytes(conn, bytes, len))
			return;
		if (buf_size(&conn->in) > CODEC_SMALL && !may_be_large(conn))
			return;
		bytes = buf_bytes(&conn->in);
		len = buf_size(&conn->in);
		if (len < scan->bytes) { /* the verdict would be the same */
			wait_for_more(conn);
			return;
		}
	}
	verdict = record_scan(scan, bytes, len);
	if (verdict == RECORD_BAD)
		refuse(conn, scan->why);
	else if (scan->head_bytes > HEAD_MAX)
		refuse(conn, "parameters beyond 64 KiB");
	else if (verdict == RECORD_COMPLETE)
		begin_request(conn, bytes, len);
	else if (buf_size(&conn->in) > 0 || keep_bytes(conn, bytes, len))
		wait_for_more(conn);
}

static void on_readable(struct fcgi_request *conn)
{
	struct fcgi_server *server = conn->server;
	bool busy = conn->state == CONN_ACTIVE || conn->state == CONN_ENDING;
	ssize_t got =
	    recv(conn->fd, server->scratch, sizeof server->scratch, MSG_DONTWAIT | (busy ? MSG_PEEK : 0));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		leave(conn);
	} else if (busy) {
		conn->pipelined = true;
		watch_state(conn);
	} else {
		take_request(conn, server->scratch, (size_t)got);
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct fcgi_request *conn = poll->data;

	if (status < 0 || ((events & UV_DISCONNECT) && !(events & UV_READABLE))) {
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
 * libuv has made the socket non-blocking, which libfcgi cannot write to: undo that. TCP_NODELAY fails harmlessly on
 * a unix socket.
 */
static void prepare_socket(int fd)
{
	int size = SOCKET_BUFFER, on = 1;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void open_conn(struct fcgi_server *server, int fd)
{
	struct fcgi_request *conn = calloc(1, sizeof *conn);

	if (conn == NULL || !memory_poll_init(server->loop, &conn->poll, fd)) {
		free(conn);
		close(fd);
		return;
	}
	prepare_socket(fd);
	uv_timer_init(server->loop, &conn->timer);
	conn->open_handles = 2;
	conn->server = server;
	conn->fd = fd;
	conn->poll.data = conn->timer.data = conn;
	conn->state = CONN_IDLE;
	lane_place_init(&conn->place, &server->lane, conn);
	buf_init(&conn->in, server->limits.body_max + HEAD_MAX + RECORDS_MAX);
	conn->next = server->conns;
	if (conn->next != NULL)
		conn->next->prev = conn;
	server->conns = conn;
	server->conn_count++;
	metric_add(&metrics->gauges.connections, 1);
	watch_state(conn);
}

static void on_listen(uv_poll_t *poll, int status, int events);

static void on_pause_over(uv_timer_t *timer)
{
	struct fcgi_server *server = timer->data;

	if (!server->draining && !server->closed)
		uv_poll_start(&server->poll, UV_READABLE, on_listen);
}

void fcgi_server_adopt(struct fcgi_server *server, int fd)
{
	open_conn(server, fd);
}

/* Accepts up to `most` connections. False: there is no more to be had now. */
static bool accept_some(struct fcgi_server *server, unsigned most)
{
	for (unsigned i = 0; i < most; i++) {
		int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			open_conn(server, fd);
			continue;
		}
		if (errno == EAGAIN)
			return false;
		if (errno != EINTR && errno != ECONNABORTED) {
			log_event(LOG_LEVEL_ERROR, "accept", LOG_TEXT("why", strerror(errno)));
			uv_poll_stop(&server->poll);
			uv_timer_start(&server->pause, on_pause_over, ACCEPT_PAUSE_MS, 0);
			return false;
		}
	}
	return true;
}

static void accept_all(struct fcgi_server *server)
{
	for (unsigned rounds = 0; rounds < ACCEPT_ALL_ROUNDS && accept_some(server, ACCEPT_BATCH); rounds++)
		;
}

static void on_listen(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	accept_some(poll->data, ACCEPT_BATCH);
}

enum err fcgi_server_open(struct fcgi_server **out, uv_loop_t *loop, int listen_fd,
			  const struct fcgi_limits *limits, fcgi_request_fn on_request, void *arg,
			  struct error *why)
{
	struct fcgi_server *server = calloc(1, sizeof *server);
	enum err rc;

	if (server == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the FastCGI server");
	rc = codec_open(&server->codec, why);
	if (rc == ERR_OK && uv_poll_init(loop, &server->poll, listen_fd) != 0) {
		codec_close(server->codec);
		rc = error_set(why, ERR_NOMEM, NULL, "watching the listening socket");
	}
	if (rc != ERR_OK) {
		free(server);
		return rc;
	}
	uv_timer_init(loop, &server->pause);
	lane_init(&server->lane, loop, &lane_ops);
	uv_prepare_init(loop, &server->turn_end);
	TAILQ_INIT(&server->gathering);
	server->open_handles = 4;
	server->loop = loop;
	server->listen_fd = listen_fd;
	server->limits = *limits;
	server->on_request = on_request;
	server->arg = arg;
	server->poll.data = server->pause.data = server->turn_end.data = server;
	uv_poll_start(&server->poll, UV_READABLE, on_listen);
	*out = server;
	return ERR_OK;
}

static void on_give_again(uv_timer_t *timer)
{
	struct fcgi_server *server = timer->data;
	struct fcgi_request *conn, *next;

	for (conn = server->conns; conn != NULL; conn = next) {
		next = conn->next;
		if (may_be_given(conn) && !give_away(conn))
			return; /* no room now: there is none for the others either */
	}
}

void fcgi_server_drain(struct fcgi_server *server, fcgi_give_fn give, void (*on_idle)(void *arg), void *arg)
{
	/* What waits in the queue was promised an answer, and its socket may have no other to accept from it. */
	accept_all(server);
	server->draining = true;
	server->give = give;
	server->on_idle = on_idle;
	server->drain_arg = arg;
	uv_poll_stop(&server->poll);
	uv_timer_stop(&server->pause);
	if (give != NULL)
		uv_timer_start(&server->pause, on_give_again, 0, GIVE_INTERVAL_MS);
	tell_if_idle(server);
}

static void on_server_part_closed(void *arg)
{
	struct fcgi_server *server = arg;

	server->open_handles--;
	free_server_if_done(server);
}

static void on_server_handle_closed(uv_handle_t *handle)
{
	on_server_part_closed(handle->data);
}

void fcgi_server_close(struct fcgi_server *server)
{
	struct fcgi_request *conn, *next;

	server->closed = true;
	uv_close((uv_handle_t *)&server->poll, on_server_handle_closed);
	uv_close((uv_handle_t *)&server->pause, on_server_handle_closed);
	lane_close(&server->lane, on_server_part_closed, server);
	uv_close((uv_handle_t *)&server->turn_end, on_server_handle_closed);
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
	const char *value = codec_param(conn->decoded, name);

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

bool fcgi_body_lost(const struct fcgi_request *conn)
{
	return conn->lost;
}

void fcgi_body_free(struct fcgi_request *conn)
{
	buf_free(&conn->body);
	count_bytes(conn);
	lane_leave(&conn->place);
}

void fcgi_hold(struct fcgi_request *conn)
{
	conn->held = true;
}

void fcgi_let_go(struct fcgi_request *conn)
{
	conn->held = false;
	if (conn->closing)
		close_conn(conn);
}

void fcgi_watch(struct fcgi_request *conn, fcgi_leave_fn on_leave, fcgi_drain_fn on_drain, void *arg)
{
	conn->on_leave = on_leave;
	conn->on_drain = on_drain;
	conn->arg = arg;
}
