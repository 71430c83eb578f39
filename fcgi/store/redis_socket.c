/*
 * redis_socket.c - see redis_socket.h.
 */
#include "store/redis_socket.h"

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

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
	redisAsyncContext *context; /* NULL once hiredis has let go */
	int events;                 /* that are polled for */
	bool flushing;
	void (*on_output)(void *arg);
	void *arg;
	size_t bytes, elements; /* of the reply that is being read */
	bool pushed;            /* it is what a channel says */
	const char *why;        /* the connection was given up; NULL: not by us */
	redisReplyObjectFunctions own, theirs;
};

/* {"message" or "subscribe", channel, text or number} */
static bool is_part_of_push(const redisReadTask *task, const char *text, size_t len)
{
	if (task->type == REDIS_REPLY_INTEGER)
		return task->idx == 2;
	if (task->type != REDIS_REPLY_STRING)
		return false;
	return task->idx > 0 || (len == 7 && memcmp(text, "message", 7) == 0) ||
	       (len == 9 && memcmp(text, "subscribe", 9) == 0);
}

/*
 * hiredis looks at some replies with assert() only: one that nobody asked for, or a channel's that is something else, would end the
 * process. So it never gets to see them.
 */
static const char *odd(const struct socket_watch *watch, const redisReadTask *task, const char *text,
		       size_t len, size_t elements)
{
	if (watch->pushed && task->parent != NULL)
		return is_part_of_push(task, text, len) ? NULL : "an odd word of a channel";
	if (task->parent != NULL || watch->context->replies.head != NULL || task->type == REDIS_REPLY_ERROR ||
	    (watch->pushed && elements == 3))
		return NULL;
	return "a reply that nobody asked for";
}

/*
 * hiredis makes room for as many elements as a reply announces, and looks at each when it frees it: two thousand million of
 * them would stop the worker for seconds.
 */
static bool may_be(struct socket_watch *watch, const redisReadTask *task, const char *text, size_t len,
		   size_t elements)
{
	if (task->parent == NULL) {
		watch->bytes = watch->elements = 0;
		watch->pushed =
		    watch->context->replies.head == NULL && (watch->context->c.flags & REDIS_SUBSCRIBED) != 0;
	}
	watch->bytes += len;
	watch->elements += elements;
	if (watch->bytes > BYTES_MAX || watch->elements > ELEMENTS_MAX)
		watch->why = "a reply is too long";
	else
		watch->why = odd(watch, task, text, len, elements);
	return watch->why == NULL;
}

/* A NULL from these is the end of memory to hiredis, and it gives the connection up. */

static void *make_array(const redisReadTask *task, element_count elements)
{
	struct socket_watch *watch = task->privdata;

	return may_be(watch, task, "", 0, (size_t)elements) ? watch->theirs.createArray(task, elements)
							    : NULL;
}

static void *make_string(const redisReadTask *task, char *text, size_t len)
{
	struct socket_watch *watch = task->privdata;

	return may_be(watch, task, text, len, 0) ? watch->theirs.createString(task, text, len) : NULL;
}

static void *make_integer(const redisReadTask *task, long long number)
{
	struct socket_watch *watch = task->privdata;

	return may_be(watch, task, "", 0, 0) ? watch->theirs.createInteger(task, number) : NULL;
}

static void *make_nil(const redisReadTask *task)
{
	struct socket_watch *watch = task->privdata;

	return may_be(watch, task, "", 0, 0) ? watch->theirs.createNil(task) : NULL;
}

static void limit_replies(struct socket_watch *watch, redisReader *reader)
{
	watch->theirs = watch->own = *reader->fn;
	watch->own.createArray = make_array;
	watch->own.createString = make_string;
	watch->own.createInteger = make_integer;
	watch->own.createNil = make_nil;
	reader->fn = &watch->own;
	reader->privdata = watch;
}

/* A string that is not complete is kept whatever its length. */
static void limit_unread(struct socket_watch *watch)
{
	if (watch->context->c.reader->len <= BYTES_MAX)
		return;
	watch->why = "a reply is too long";
	redisAsyncFree(watch->context);
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
		limit_unread(watch);
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
		watch->on_output(watch->arg);
}

static void del_write(void *arg)
{
	struct socket_watch *watch = arg;

	watch_events(watch, watch->events & ~UV_WRITABLE);
}

static void on_watch_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void let_go(void *arg)
{
	struct socket_watch *watch = arg;

	watch->context = NULL;
	uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

const char *redis_socket_why(const struct redisAsyncContext *context)
{
	const struct socket_watch *watch = context->ev.data;

	return watch != NULL ? watch->why : NULL;
}

bool redis_socket_attach(struct redisAsyncContext *context, uv_loop_t *loop, void (*on_output)(void *arg),
			 void *arg)
{
	struct socket_watch *watch = calloc(1, sizeof *watch);

	if (watch == NULL || uv_poll_init(loop, &watch->poll, context->c.fd) != 0) {
		free(watch);
		return false;
	}
	watch->poll.data = watch;
	watch->context = context;
	watch->on_output = on_output;
	watch->arg = arg;
	limit_replies(watch, context->c.reader);
	context->ev.addRead = add_read;
	context->ev.delRead = del_read;
	context->ev.addWrite = add_write;
	context->ev.delWrite = del_write;
	context->ev.cleanup = let_go;
	context->ev.data = watch;
	return true;
}

/* Should hiredis let go meanwhile: the memory is there until the loop has closed the poll. */
bool redis_socket_flush(struct redisAsyncContext *context)
{
	struct socket_watch *watch = context->ev.data;

	watch->flushing = true;
	redisAsyncHandleWrite(context);
	watch->flushing = false;
	return watch->context != NULL && !(watch->events & UV_WRITABLE);
}
