/*
 * redis_socket.c - see redis_socket.h.
 */
#include "store/redis_socket.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

/* Of one reply; ours have some hundred bytes and some dozen elements. */
#define BYTES_MAX    (1024 * 1024)
#define ELEMENTS_MAX 10000

#if HIREDIS_MAJOR == 0
typedef int element_count;
#else
typedef size_t element_count;
#endif

struct socket_watch {
	uv_poll_t poll;
	uv_prepare_t flush; /* runs when there is something to write */
	unsigned open_handles;
	redisAsyncContext *context; /* NULL once hiredis has let go */
	int events;                 /* that are polled for */
	bool flushing;
	size_t bytes, elements; /* of the reply that is being read */
	redisReplyObjectFunctions own, theirs;
};

/*
 * hiredis makes room for as many elements as a reply announces, and looks at each when it frees it: two thousand million of
 * them would stop the worker for seconds. It takes a NULL for the end of memory, and gives the connection up.
 */
static void *make_array(const redisReadTask *task, element_count elements)
{
	struct socket_watch *watch = task->privdata;

	if (task->parent == NULL)
		watch->bytes = watch->elements = 0;
	watch->elements += (size_t)elements;
	return watch->elements <= ELEMENTS_MAX ? watch->theirs.createArray(task, elements) : NULL;
}

static void *make_string(const redisReadTask *task, char *text, size_t len)
{
	struct socket_watch *watch = task->privdata;

	if (task->parent == NULL)
		watch->bytes = watch->elements = 0;
	watch->bytes += len;
	return watch->bytes <= BYTES_MAX ? watch->theirs.createString(task, text, len) : NULL;
}

static void limit_replies(struct socket_watch *watch, redisReader *reader)
{
	watch->theirs = watch->own = *reader->fn;
	watch->own.createArray = make_array;
	watch->own.createString = make_string;
	reader->fn = &watch->own;
	reader->privdata = watch;
}

/* A string that is not complete is kept whatever its length. */
static void limit_unread(redisAsyncContext *context)
{
	if (context->c.reader->len <= BYTES_MAX)
		return;
	snprintf(context->c.errstr, sizeof context->c.errstr, "a reply is too long");
	redisAsyncFree(context);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct socket_watch *watch = poll->data;

	if (status < 0) {
		events = watch->events; /* hiredis meets the error when it tries */
		watch->events = 0;      /* libuv polls no more */
	}
	if (watch->context != NULL && (events & UV_READABLE))
		redisAsyncHandleRead(watch->context);
	if (watch->context != NULL)
		limit_unread(watch->context);
	if (watch->context != NULL && (events & UV_WRITABLE))
		redisAsyncHandleWrite(watch->context);
}

/* libuv takes a socket out of epoll and puts it in again at each start, also for the same events. */
static void watch_events(struct socket_watch *watch, int events)
{
	if (events == watch->events)
		return;
	watch->events = events;
	if (events == 0)
		uv_poll_stop(&watch->poll);
	else
		uv_poll_start(&watch->poll, events, on_socket);
}

static void add_read(void *arg)
{
	struct socket_watch *watch = arg;

	watch_events(watch, watch->events | UV_READABLE);
}

static void del_read(void *arg)
{
	struct socket_watch *watch = arg;

	watch_events(watch, watch->events & ~UV_READABLE);
}

/* Before the loop waits: all commands since the last time, in one write. */
static void on_flush(uv_prepare_t *flush)
{
	struct socket_watch *watch = flush->data;

	uv_prepare_stop(flush);
	watch->flushing = true;
	redisAsyncHandleWrite(watch->context);
	watch->flushing = false;
}

/*
 * A socket that is connected and not full takes what there is to write: it is polled only for the connecting, and when
 * a write has left something over.
 */
static void add_write(void *arg)
{
	struct socket_watch *watch = arg;

	if (watch->flushing || !(watch->context->c.flags & REDIS_CONNECTED))
		watch_events(watch, watch->events | UV_WRITABLE);
	else if (!(watch->events & UV_WRITABLE))
		uv_prepare_start(&watch->flush, on_flush);
}

static void del_write(void *arg)
{
	struct socket_watch *watch = arg;

	watch_events(watch, watch->events & ~UV_WRITABLE);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct socket_watch *watch = handle->data;

	if (--watch->open_handles == 0)
		free(watch);
}

static void let_go(void *arg)
{
	struct socket_watch *watch = arg;

	watch->context = NULL;
	uv_close((uv_handle_t *)&watch->flush, on_handle_closed);
	uv_close((uv_handle_t *)&watch->poll, on_handle_closed);
}

bool redis_socket_attach(struct redisAsyncContext *context, uv_loop_t *loop)
{
	struct socket_watch *watch = calloc(1, sizeof *watch);

	if (watch == NULL || uv_poll_init(loop, &watch->poll, context->c.fd) != 0) {
		free(watch);
		return false;
	}
	uv_prepare_init(loop, &watch->flush);
	watch->open_handles = 2;
	watch->poll.data = watch->flush.data = watch;
	watch->context = context;
	limit_replies(watch, context->c.reader);
	context->ev.addRead = add_read;
	context->ev.delRead = del_read;
	context->ev.addWrite = add_write;
	context->ev.delWrite = del_write;
	context->ev.cleanup = let_go;
	context->ev.data = watch;
	return true;
}
