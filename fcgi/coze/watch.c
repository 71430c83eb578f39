/*
 * watch.c - see watch.h.
 */
#include "coze/watch.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/memory.h"

#define FUTILE_MAX 1000 /* times, one after the other, that a socket may be readable for nothing */

struct watch {
	uv_poll_t poll;
	struct watches *watches;
	int fd;
	bool ours;       /* added: its closing will be told */
	int wanted;      /* UV_READABLE, UV_WRITABLE, or 0 */
	int watched;     /* by libuv */
	unsigned futile; /* how often, one after the other, it was readable and nothing came of it */
};

static void on_socket_event(uv_poll_t *poll, int status, int events);

static struct watch *watch_of(const struct watches *watches, int fd)
{
	return (size_t)fd < watches->cap ? watches->by_fd[fd] : NULL;
}

static void watch_for(struct watch *watch, int events)
{
	if (events == watch->watched)
		return;
	watch->watched = events;
	if (events == 0)
		uv_poll_stop(&watch->poll);
	else
		uv_poll_start(&watch->poll, events, on_socket_event);
}

/* ---- what happens ---- */

static int unread(int fd)
{
	int bytes = 0;

	return ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : -1;
}

/* Nothing may come of a socket that is readable, now and then; after FUTILE_MAX times it counts whether it is read at all. */
static void tell(struct watch *watch, int events)
{
	struct watches *watches = watch->watches;
	int fd = watch->fd;
	bool doubtful = watch->futile >= FUTILE_MAX;
	int before = doubtful ? unread(fd) : 0;
	bool useful = watches->ops->on_event(watches->arg, fd, events);

	if (watch_of(watches, fd) != watch) /* closed */
		return;
	if (useful || events == UV_WRITABLE || (doubtful && unread(fd) < before))
		watch->futile = 0;
	else if (!doubtful)
		watch->futile++;
	else if (watch->wanted != 0) {
		watch->futile = 0;
		watches->ops->on_unread(watches->arg, fd);
	}
}

static void on_socket_event(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;

	if (watch->wanted == 0) { /* the peer has closed a kept connection; libcurl will see that itself */
		watch_for(watch, 0);
		return;
	}
	if (status < 0) /* libuv has stopped watching */
		watch->watched = 0;
	tell(watch, status < 0 ? 0 : events & (UV_READABLE | UV_WRITABLE));
	if (status < 0 && !uv_is_closing((uv_handle_t *)&watch->poll))
		watch_for(watch, watch->wanted);
}

/* ---- which are watched ---- */

static bool make_room(struct watches *watches, size_t fd)
{
	size_t cap = watches->cap > 0 ? watches->cap : 64;
	struct watch **by_fd;

	while (cap <= fd)
		cap *= 2;
	if (cap == watches->cap)
		return true;
	by_fd = realloc(watches->by_fd, cap * sizeof(struct watch *));
	if (by_fd == NULL)
		return false;
	memset(by_fd + watches->cap, 0, (cap - watches->cap) * sizeof(struct watch *));
	watches->by_fd = by_fd;
	watches->cap = cap;
	return true;
}

static struct watch *watch_open(struct watches *watches, int fd)
{
	struct watch *watch = make_room(watches, (size_t)fd) ? calloc(1, sizeof *watch) : NULL;

	if (watch == NULL)
		return NULL;
	if (!memory_poll_init(watches->loop, &watch->poll, fd)) {
		free(watch);
		return NULL;
	}
	watch->poll.data = watch;
	watch->fd = fd;
	watch->watches = watches;
	watches->by_fd[fd] = watch;
	return watch;
}

static void on_watch_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void watch_close(struct watch *watch)
{
	watch->watches->by_fd[watch->fd] = NULL;
	uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

bool watch_add(struct watches *watches, int fd)
{
	struct watch *watch = watch_open(watches, fd);

	if (watch == NULL)
		return false;
	watch->ours = true;
	return true;
}

bool watch_set(struct watches *watches, int fd, int events)
{
	struct watch *watch = watch_of(watches, fd);

	if (watch == NULL && (watch = watch_open(watches, fd)) == NULL)
		return false;
	watch->wanted = events;
	watch_for(watch, events);
	return true;
}

void watch_unset(struct watches *watches, int fd)
{
	struct watch *watch = watch_of(watches, fd);

	if (watch == NULL)
		return;
	watch->wanted = 0;
	if (!watch->ours)
		watch_close(watch); /* one of libcurl's own, which it closes without a word */
	else if (watch->watched != UV_READABLE)
		watch_for(watch, 0);
}

void watch_remove(struct watches *watches, int fd)
{
	struct watch *watch = watch_of(watches, fd);

	if (watch != NULL)
		watch_close(watch);
}

void watches_init(struct watches *watches, uv_loop_t *loop, const struct watch_ops *ops, void *arg)
{
	*watches = (struct watches){ .loop = loop, .ops = ops, .arg = arg };
}

void watches_fini(struct watches *watches)
{
	for (size_t fd = 0; fd < watches->cap; fd++)
		if (watches->by_fd[fd] != NULL)
			watch_close(watches->by_fd[fd]);
	free(watches->by_fd);
	watches->by_fd = NULL;
	watches->cap = 0;
}

/* ---- sockets ---- */

void watch_end_connection(int fd)
{
	char rest[4096];

	shutdown(fd, SHUT_RDWR);
	while (recv(fd, rest, sizeof rest, MSG_DONTWAIT) > 0) /* it would hide the end */
		;
}

int watch_local_port(int fd)
{
	struct sockaddr_in6 address = { .sin6_port = 0 }; /* an IPv4 address has its port at the same place */
	socklen_t len = sizeof address;

	return getsockname(fd, (struct sockaddr *)&address, &len) == 0 ? ntohs(address.sin6_port) : 0;
}
