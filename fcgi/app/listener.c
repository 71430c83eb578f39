/*
 * listener.c - see listener.h.
 */
#include "app/listener.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/config.h"

#define BACKLOG 65535 /* the kernel takes as much of it as net.core.somaxconn allows */

static bool complain(struct buf *problems, const char *name, const char *why)
{
	buf_printf(problems, "cannot listen on %s: %s\n", name, why);
	return false;
}

bool listener_name(char name[LISTENER_NAME_SIZE], const struct config *config, size_t index,
		   struct buf *problems)
{
	const char *address = config->worker_listen;
	const char *colon = strrchr(address, ':');
	struct sockaddr_un probe;
	size_t port;

	if (colon == NULL) {
		int len = snprintf(name, LISTENER_NAME_SIZE, "%s/worker-%zu.sock", config->run_dir, index);

		if (len > 0 && (size_t)len < sizeof probe.sun_path)
			return true;
		buf_printf(problems, "RUN_DIR=%s: must be shorter, a socket's path has at most %zu bytes\n",
			   config->run_dir, sizeof probe.sun_path - 1);
		return false;
	}
	port = strtoul(colon + 1, NULL, 10) + index;
	if (port > 65535) {
		buf_printf(problems, "WORKER_LISTEN=%s: has no port above it for worker %zu\n", address,
			   index);
		return false;
	}
	snprintf(name, LISTENER_NAME_SIZE, "%.*s:%zu", (int)(colon - address), address, port);
	return true;
}

/* A socket file that nobody listens on is left over from a crash; one that answers belongs to a running master. */
static bool is_taken(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* EAGAIN: its queue is full. */
	bool taken = fd >= 0 &&
		     (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return taken;
}

static bool listen_on(int fd, const struct sockaddr *address, socklen_t len)
{
	return bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0;
}

static int open_unix(const char *path, struct buf *problems)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	if (is_taken(&address)) {
		complain(problems, path, "it is in use: another one runs in this RUN_DIR");
		return -1;
	}
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && listen_on(fd, (struct sockaddr *)&address, sizeof address))
		return fd;
	complain(problems, path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static int open_address(const struct addrinfo *address)
{
	int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int on = 1, off = 0, idle_s = 30, interval_s = 10, probes = 3;

	if (fd < 0)
		return -1;
	/* Accepted sockets inherit the options. An nginx whose machine has vanished is noticed after a minute. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
		   sizeof on); /* connections of the one before may linger */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (address->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (listen_on(fd, address->ai_addr, address->ai_addrlen))
		return fd;
	close(fd);
	return -1;
}

static int open_tcp(const char *name, struct buf *problems)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	const char *colon = strrchr(name, ':');
	struct addrinfo *addresses;
	char host[256];
	int rc, fd;

	snprintf(host, sizeof host, "%.*s", (int)(colon - name), name);
	if (host[0] == '[') { /* [IPv6] */
		host[strlen(host) - 1] = '\0';
		memmove(host, host + 1, strlen(host));
	}
	rc = getaddrinfo(host, colon + 1, &hints, &addresses);
	if (rc != 0) {
		complain(problems, name, gai_strerror(rc));
		return -1;
	}
	fd = open_address(addresses);
	if (fd < 0)
		complain(problems, name, strerror(errno));
	freeaddrinfo(addresses);
	return fd;
}

int listener_open(const char *name, struct buf *problems)
{
	return name[0] == '/' ? open_unix(name, problems) : open_tcp(name, problems);
}

void listener_unlink(const char *name)
{
	if (name[0] == '/')
		unlink(name);
}

static bool is_line_of(const char *lines, const char *name)
{
	size_t len = strlen(name);

	for (; lines != NULL; lines = strchr(lines, '\n')) {
		lines += *lines == '\n';
		if (strncmp(lines, name, len) == 0 && (lines[len] == '\n' || lines[len] == '\0'))
			return true;
	}
	return false;
}

bool listener_check(const struct config *config, const char *held, struct buf *problems)
{
	char name[LISTENER_NAME_SIZE];
	bool good = true;

	for (size_t i = 0; i < config->workers && good; i++) {
		int fd;

		good = listener_name(name, config, i, problems);
		if (!good || held == NULL || is_line_of(held, name))
			continue;
		fd = listener_open(name, problems);
		good = fd >= 0;
		if (!good)
			continue;
		listener_unlink(name);
		close(fd);
	}
	return good;
}
