/*
 * redis_link.c - see redis_link.h.
 */
#include "store/redis_link.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/memory.h"

/* Of one reply; ours have some hundred bytes and some dozen elements. */
#define BYTES_MAX    (1024 * 1024)
#define ELEMENTS_MAX 10000

#define OUT_MAX   (64 * 1024 * 1024) /* commands that wait to leave: far more than all turns of a worker send */
#define OUT_KEPT  (64 * 1024)        /* of their memory, once they have left */
#define READ_SIZE (16 * 1024)

#if HIREDIS_MAJOR == 0
typedef int element_count;
#else
typedef size_t element_count;
#endif

static const char too_long[] = "a reply is too long";

struct redis_link {
	uv_poll_t poll;
	int fd;
	int watched; /* events that `poll` is started for */
	bool connected;
	bool reading; /* replies are being handed out */
	bool closed;
	struct redis_link_events events;
	void *arg;
	struct buf out;
	redisReader *reader;
	size_t bytes, elements; /* of the reply that is being read */
	bool too_long;
	redisReplyObjectFunctions own, theirs;
};

/* ---- replies have a ceiling ---- */

/*
 * hiredis makes room for as many elements as a reply announces, and looks at each when it frees it: two thousand million of
 * them would stop the worker for seconds.
 */
static bool may_be(struct redis_link *link, const redisReadTask *task, size_t bytes, size_t elements)
{
	if (task->parent == NULL)
		link->bytes = link->elements = 0;
	link->bytes += bytes;
	link->elements += elements;
	link->too_long = link->bytes > BYTES_MAX || link->elements > ELEMENTS_MAX;
	return !link->too_long;
}

/* A NULL from these is the end of memory to hiredis, and it gives the reply up. */

static void *make_array(const redisReadTask *task, element_count elements)
{
	struct redis_link *link = task->privdata;

	return may_be(link, task, 0, (size_t)elements) ? link->theirs.createArray(task, elements) : NULL;
}

static void *make_string(const redisReadTask *task, char *text, size_t len)
{
	struct redis_link *link = task->privdata;

	return may_be(link, task, len, 0) ? link->theirs.createString(task, text, len) : NULL;
}

static bool make_reader(struct redis_link *link)
{
	link->reader = redisReaderCreate();
	if (link->reader == NULL)
		return false;
	link->theirs = link->own = *link->reader->fn;
	link->own.createArray = make_array;
	link->own.createString = make_string;
	link->reader->fn = &link->own;
	link->reader->privdata = link;
	link->reader->maxbuf = 0; /* or it frees its buffer, and takes it for granted that it gets another */
	return true;
}

/* ---- the socket ---- */

static void lose(struct redis_link *link, const char *why)
{
	if (!link->closed)
		link->events.on_lost(link->arg, why);
}

static void on_socket(uv_poll_t *poll, int status, int events);

/* libuv takes a socket out of epoll and puts it in again at each start, also for the same events. */
static void watch(struct redis_link *link, int events)
{
	if (link->watched == events)
		return;
	link->watched = events;
	uv_poll_start(&link->poll, events, on_socket);
}

/* Hands out the replies that are whole. */
static void give_replies(struct redis_link *link)
{
	void *reply;

	link->reading = true;
	while (!link->closed) {
		if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
			lose(link, link->too_long ? too_long : link->reader->errstr);
			break;
		}
		if (reply == NULL)
			break;
		link->events.on_reply(link->arg, reply);
		freeReplyObject(reply);
	}
	link->reading = false;
	/* A string that is not complete is kept whatever its length. */
	if (!link->closed && link->reader->len > BYTES_MAX)
		lose(link, too_long);
	if (link->closed) {
		redisReaderFree(link->reader);
		link->reader = NULL;
	}
}

static void read_socket(struct redis_link *link)
{
	char bytes[READ_SIZE];
	ssize_t got = recv(link->fd, bytes, sizeof bytes, 0);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got < 0)
		lose(link, strerror(errno));
	else if (got == 0)
		lose(link, "the server closed the connection");
	else if (redisReaderFeed(link->reader, bytes, (size_t)got) != REDIS_OK)
		lose(link, link->reader->errstr);
	else
		give_replies(link);
}

/* A socket that is not full takes what there is to write: it is polled only when a write has left something over. */
static void write_socket(struct redis_link *link)
{
	while (buf_size(&link->out) > 0) {
		ssize_t sent = send(link->fd, buf_bytes(&link->out), buf_size(&link->out), MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN)
			break;
		if (sent < 0) {
			lose(link, strerror(errno));
			return;
		}
		buf_consume(&link->out, (size_t)sent);
	}
	if (buf_size(&link->out) == 0)
		buf_reset(&link->out, OUT_KEPT);
	watch(link, buf_size(&link->out) > 0 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void finish_connecting(struct redis_link *link)
{
	int error = 0;
	socklen_t size = sizeof error;

	if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) {
		lose(link, strerror(error != 0 ? error : errno));
		return;
	}
	link->connected = true;
	watch(link, UV_READABLE);
	link->events.on_connected(link->arg);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct redis_link *link = poll->data;

	if (status < 0) { /* libuv polls no more; the error is met when the socket is used */
		events = link->watched;
		link->watched = 0;
	}
	if (!link->connected) {
		finish_connecting(link);
		return;
	}
	if (events & UV_READABLE)
		read_socket(link);
	if (!link->closed && (events & UV_WRITABLE))
		write_socket(link);
	if (!link->closed && link->watched == 0)
		watch(link, UV_READABLE);
}

/* ---- sending ---- */

enum err redis_link_send(struct redis_link *link, const char *bytes, size_t len)
{
	buf_append(&link->out, bytes, len);
	if (!link->out.failed)
		return ERR_OK;
	buf_forgive(&link->out);
	return ERR_NOMEM;
}

bool redis_link_flush(struct redis_link *link)
{
	write_socket(link);
	return !link->closed && buf_size(&link->out) == 0;
}

/* ---- life ---- */

static int open_socket(const struct sockaddr *address, socklen_t len)
{
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		return -1;
	if (address->sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	}
	if (connect(fd, address, len) == 0 || errno == EINPROGRESS)
		return fd;
	close(fd); /* keeps errno, unless it fails itself */
	return -1;
}

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

struct redis_link *redis_link_open(uv_loop_t *loop, const struct sockaddr *address, socklen_t len,
				   const struct redis_link_events *events, void *arg, const char **why)
{
	struct redis_link *link = calloc(1, sizeof *link);
	int fd = -1;

	*why = "out of memory";
	if (link == NULL || !make_reader(link)) {
		free(link);
		return NULL;
	}
	fd = open_socket(address, len);
	if (fd < 0)
		*why = strerror(errno);
	if (fd < 0 || !memory_poll_init(loop, &link->poll, fd)) {
		if (fd >= 0)
			close(fd);
		redisReaderFree(link->reader);
		free(link);
		return NULL;
	}
	link->poll.data = link;
	link->fd = fd;
	link->events = *events;
	link->arg = arg;
	buf_init(&link->out, OUT_MAX);
	watch(link, UV_WRITABLE);
	return link;
}

void redis_link_close(struct redis_link *link)
{
	link->closed = true;
	if (!link->reading) {
		redisReaderFree(link->reader);
		link->reader = NULL;
	}
	buf_free(&link->out);
	uv_close((uv_handle_t *)&link->poll, on_poll_closed);
	close(link->fd);
}
