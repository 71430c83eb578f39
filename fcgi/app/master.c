/*
 * master.c - see master.h. No event loop here: forking beside one invites trouble, and waiting for a signal is enough.
 */
#include "app/master.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "app/config.h"
#include "app/worker.h"
#include "base/log.h"

#define BACKLOG      65535 /* the kernel takes as much of it as net.core.somaxconn allows */
#define PAUSE_MIN_MS 100   /* before a dead worker is started again */
#define PAUSE_MAX_MS 5000
#define YOUNG_MS     10000 /* a worker that dies earlier makes the pause longer */

struct slot {
	int fd;
	char path[108];
	pid_t pid; /* 0: not running */
	uint64_t started_ms, pause_ms;
	uint64_t start_at_ms; /* valid while not running */
};

struct master {
	const struct config *config;
	struct slot *slots;
	size_t count;
	int log_fd;
	char pid_path[PATH_MAX];
	sigset_t signals;
	bool stopping;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool complain(const char *what, const char *name)
{
	fprintf(stderr, "coze-chatd: %s %s: %s\n", what, name, strerror(errno));
	return false;
}

/* ---- files and sockets ---- */

static bool make_directory(const char *path)
{
	if (mkdir(path, 0750) == 0 || errno == EEXIST)
		return true;
	return complain("cannot make the directory", path);
}

static bool open_log(struct master *master)
{
	char path[PATH_MAX];

	if (!make_directory(master->config->run_dir))
		return false;
	snprintf(path, sizeof path, "%s/logs", master->config->run_dir);
	if (!make_directory(path))
		return false;
	snprintf(path, sizeof path, "%s/logs/api_server.log", master->config->run_dir);
	master->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (master->log_fd < 0)
		return complain("cannot open the log", path);
	log_open(master->log_fd, (enum log_level)master->config->log_level);
	return true;
}

/* A socket file that nobody listens on is left over from a crash; one that answers belongs to a running master. */
static bool is_taken(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool taken = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;

	if (fd >= 0)
		close(fd);
	return taken;
}

static bool listen_on(struct slot *slot)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof address.sun_path, "%s", slot->path);
	if (is_taken(&address)) {
		fprintf(stderr, "coze-chatd: %s is in use: another one runs in this RUN_DIR\n", slot->path);
		return false;
	}
	unlink(slot->path);
	slot->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (slot->fd < 0 || bind(slot->fd, (struct sockaddr *)&address, sizeof address) != 0 ||
	    listen(slot->fd, BACKLOG) != 0)
		return complain("cannot listen on", slot->path);
	return true;
}

static bool open_slots(struct master *master)
{
	master->count = (size_t)master->config->workers;
	master->slots = calloc(master->count, sizeof *master->slots);
	if (master->slots == NULL)
		return complain("no memory for", "the workers");
	for (size_t i = 0; i < master->count; i++) {
		struct slot *slot = &master->slots[i];
		int len =
		    snprintf(slot->path, sizeof slot->path, "%s/worker-%zu.sock", master->config->run_dir, i);

		if (len < 0 || (size_t)len >= sizeof slot->path) {
			fprintf(stderr,
				"coze-chatd: RUN_DIR=%s: must be shorter, a socket's path has at most 107 "
				"bytes\n",
				master->config->run_dir);
			return false;
		}
		slot->pause_ms = PAUSE_MIN_MS;
		if (!listen_on(slot))
			return false;
	}
	return true;
}

static bool write_pid(struct master *master)
{
	FILE *file;

	snprintf(master->pid_path, sizeof master->pid_path, "%s/coze-chatd.pid", master->config->run_dir);
	file = fopen(master->pid_path, "we");
	if (file == NULL || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0)
		return complain("cannot write", master->pid_path);
	return true;
}

/* ---- workers ---- */

static void run_child(struct master *master, struct slot *slot, pid_t parent)
{
	char name[16];

	/* If the master is killed, its workers drain; the check closes the moment between fork and prctl. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EX_OK);
	snprintf(name, sizeof name, "chatd worker %zu", (size_t)(slot - master->slots));
	prctl(PR_SET_NAME, name);
	for (size_t i = 0; i < master->count; i++)
		if (&master->slots[i] != slot)
			close(master->slots[i].fd);
	sigprocmask(SIG_UNBLOCK, &master->signals, NULL);
	exit(worker_run(master->config, slot->fd));
}

static void start_worker(struct master *master, struct slot *slot)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0)
		run_child(master, slot, parent);
	slot->started_ms = now_ms();
	if (pid < 0) {
		log_event(LOG_LEVEL_ERROR, "fork", LOG_TEXT("why", strerror(errno)));
		slot->start_at_ms = slot->started_ms + slot->pause_ms;
		return;
	}
	slot->pid = pid;
}

static void start_due(struct master *master)
{
	uint64_t now = now_ms();

	for (size_t i = 0; i < master->count && !master->stopping; i++)
		if (master->slots[i].pid == 0 && master->slots[i].start_at_ms <= now)
			start_worker(master, &master->slots[i]);
}

static void note_death(struct slot *slot, int status, bool stopping)
{
	uint64_t now = now_ms();
	bool young = now - slot->started_ms < YOUNG_MS;

	log_event(stopping ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "worker_ended",
		  LOG_NUMBER("worker", slot->pid),
		  LOG_NUMBER("exit", WIFEXITED(status) ? WEXITSTATUS(status) : 0),
		  LOG_NUMBER("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
	slot->pid = 0;
	slot->pause_ms = !young                              ? PAUSE_MIN_MS
			 : slot->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS
							     : slot->pause_ms * 2;
	slot->start_at_ms = now + (young ? slot->pause_ms / 2 : 0);
}

static void reap(struct master *master)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < master->count; i++)
			if (master->slots[i].pid == pid)
				note_death(&master->slots[i], status, master->stopping);
}

static size_t running(const struct master *master)
{
	size_t count = 0;

	for (size_t i = 0; i < master->count; i++)
		count += master->slots[i].pid != 0;
	return count;
}

static void signal_workers(const struct master *master, int number)
{
	for (size_t i = 0; i < master->count; i++)
		if (master->slots[i].pid != 0)
			kill(master->slots[i].pid, number);
}

/* ---- the loop ---- */

/* How long to wait for a signal: until the next worker is to be started. */
static struct timespec next_wait(const struct master *master)
{
	uint64_t now = now_ms(), wait = 60000;

	for (size_t i = 0; i < master->count; i++) {
		const struct slot *slot = &master->slots[i];

		if (slot->pid == 0 && slot->start_at_ms <= now)
			wait = 0;
		else if (slot->pid == 0 && slot->start_at_ms - now < wait)
			wait = slot->start_at_ms - now;
	}
	return (struct timespec){ .tv_sec = (time_t)(wait / 1000), .tv_nsec = (long)(wait % 1000) * 1000000 };
}

static void serve(struct master *master)
{
	while (!master->stopping || running(master) > 0) {
		struct timespec wait = next_wait(master);
		int number;

		start_due(master);
		if (!master->stopping)
			wait = next_wait(master);
		number = sigtimedwait(&master->signals, NULL, &wait);
		if (number == SIGTERM || number == SIGINT) {
			master->stopping = true;
			log_event(LOG_LEVEL_INFO, "stopping", LOG_NUMBER("signal", number));
			signal_workers(master, number);
		}
		reap(master);
	}
}

/* Streams are many, and each may hold two sockets. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void close_all(struct master *master)
{
	for (size_t i = 0; i < master->count && master->slots != NULL; i++) {
		if (master->slots[i].fd <= 0)
			continue;
		close(master->slots[i].fd);
		unlink(master->slots[i].path);
	}
	if (master->pid_path[0] != '\0')
		unlink(master->pid_path);
	free(master->slots);
}

int master_run(const struct config *config)
{
	struct master master = { .config = config, .log_fd = -1 };
	int status = EX_OSERR;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&master.signals);
	sigaddset(&master.signals, SIGTERM);
	sigaddset(&master.signals, SIGINT);
	sigaddset(&master.signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &master.signals, NULL);
	raise_descriptor_limit();
	if (open_log(&master) && open_slots(&master) && write_pid(&master)) {
		log_event(LOG_LEVEL_INFO, "started", LOG_NUMBER("workers", master.count));
		serve(&master);
		status = EX_OK;
	}
	close_all(&master);
	return status;
}
