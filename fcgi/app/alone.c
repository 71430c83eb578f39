/*
 * alone.c - see alone.h.
 */
#include "app/alone.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "app/config.h"
#include "app/listener.h"
#include "app/process.h"
#include "app/worker.h"
#include "base/log.h"
#include "base/metrics.h"
#include "chat/service.h"

#define LINGER_MS 3000 /* DNS answers about containers are kept for a second or so */

struct alone {
	struct metrics_region *metrics;
	size_t block;
};

static void on_state(void *arg, enum metrics_state state)
{
	struct alone *alone = arg;

	metrics_set_state(alone->metrics, alone->block, state);
}

/* The listening socket, or -1 after saying why not. */
static int open_listener(const struct config *config)
{
	char name[LISTENER_NAME_SIZE];
	struct buf problems;
	int fd = -1;

	buf_init(&problems, 4096);
	if (config->worker_listen[0] == '\0')
		buf_append_str(&problems, "WORKER_LISTEN: is required with --worker: host:port\n");
	else if (listener_name(name, config, 0, &problems))
		fd = listener_open(name, &problems);
	process_tell(&problems);
	buf_free(&problems);
	return fd;
}

int alone_run(const struct config *config)
{
	struct alone alone = { .block = METRICS_BLOCKS };
	struct worker_options options = {
		.config = config,
		.linger_ms = LINGER_MS,
		.on_state = on_state,
		.arg = &alone,
	};
	const char *routes[METRICS_ROUTES];
	int fd;

	process_prepare();
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* as pid 1: what a health check left behind leaves no zombie */
	options.listen_fd = open_listener(config);
	if (options.listen_fd < 0)
		return EX_OSERR;
	if (!process_open_log(config))
		return EX_CANTCREAT;
	alone.metrics = options.metrics = metrics_region_new(&fd, routes, service_route_names(routes));
	if (alone.metrics == NULL) {
		fprintf(stderr, "coze-chatd: no shared memory: %s\n", strerror(errno));
		return EX_OSERR;
	}
	alone.block = metrics_claim(alone.metrics, 0);
	metrics_started(alone.metrics, alone.block, getpid());
	metrics_use(alone.metrics, alone.block);
	return worker_run(&options);
}
