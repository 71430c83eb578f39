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
#include <sys/mman.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "app/config.h"
#include "app/fleet.h"
#include "app/listener.h"
#include "app/process.h"
#include "base/log.h"
#include "base/metrics.h"
#include "chat/service.h"

#define HANDOVER       "COZE_CHATD_HANDOVER" /* environment: descriptor of what the predecessor wrote */
#define HANDOVER_MAX   (1024 * 1024)
#define HELD           "COZE_CHATD_HELD" /* environment of a check: sockets that will be handed over */
#define CHECK_LIMIT_MS 10000
#define CHECK_SAYS_MAX 4096  /* bytes of what a check complains about */
#define STOP_EXTRA_MS  15000 /* beyond DRAIN_TIMEOUT_SECONDS; then a worker that hangs is killed */

/* Asking the program on disk whether it can use the settings. */
struct check {
	pid_t pid; /* 0: none runs */
	int says;  /* its standard error */
	uint64_t until_ms;
};

struct master {
	const struct config *config;
	struct metrics_region *metrics;
	int metrics_fd, lock_fd;
	struct fleet *fleet;
	sigset_t signals;
	char program[PATH_MAX];
	char pid_path[PATH_MAX + 32], state_path[PATH_MAX + 32];
	unsigned long reloads;
	struct check check;
	bool wants_reload; /* another HUP came while one was at work */
	bool renewing;     /* workers of before the reload are being replaced */
	bool stopping;
	uint64_t kill_at_ms; /* valid when stopping */
};

/* ---- files ---- */

/* Replaces a file in one step, so that nobody reads a half of it. */
static bool write_file(const char *path, const char *text)
{
	char fresh[PATH_MAX + 40];
	FILE *file;
	bool good;

	snprintf(fresh, sizeof fresh, "%s.new", path);
	file = fopen(fresh, "we");
	if (file == NULL)
		return process_complain("cannot write", fresh);
	good = fputs(text, file) >= 0;
	good = fclose(file) == 0 && good;
	if (good && rename(fresh, path) == 0)
		return true;
	return process_complain("cannot write", path);
}

static void write_state(const struct master *master, const char *result)
{
	char text[64];

	snprintf(text, sizeof text, "%lu %s\n", master->reloads, result);
	write_file(master->state_path, text);
}

static bool write_pid(const struct master *master)
{
	char text[32];

	snprintf(text, sizeof text, "%d\n", (int)getpid());
	return write_file(master->pid_path, text);
}

/* ---- reloading ---- */

static void refuse_reload(struct master *master, const char *why)
{
	log_event(LOG_LEVEL_ERROR, "reload_refused", LOG_TEXT("why", why));
	metric_add(&metrics->counters.reloads_refused, 1);
	master->reloads++;
	write_state(master, "refused");
}

/* In the child: the program on disk, with the environment that we were started with. */
static void run_check(const struct master *master, int says)
{
	char *argv[] = { (char *)master->program, "--check", NULL };
	struct buf held;

	buf_init(&held, HANDOVER_MAX);
	fleet_names(master->fleet, &held);
	buf_append_char(&held, '\0');
	if (!held.failed)
		setenv(HELD, buf_bytes(&held), 1);
	dup2(says, STDERR_FILENO);
	sigprocmask(SIG_UNBLOCK, &master->signals, NULL);
	execv(master->program, argv);
	fprintf(stderr, "%s: %s\n", master->program, strerror(errno));
	_exit(EX_OSERR);
}

/* A reload is completed before the next one, unless it cannot be: then what comes may be the cure. */
static bool is_reloading(const struct master *master)
{
	return master->check.pid != 0 || (master->renewing && !fleet_is_stuck(master->fleet));
}

static void begin_reload(struct master *master)
{
	int pipe_fds[2];
	pid_t pid;

	if (is_reloading(master)) {
		master->wants_reload = true;
		return;
	}
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0) {
		refuse_reload(master, strerror(errno));
		return;
	}
	pid = fork();
	if (pid == 0)
		run_check(master, pipe_fds[1]);
	close(pipe_fds[1]);
	if (pid < 0) {
		close(pipe_fds[0]);
		refuse_reload(master, strerror(errno));
		return;
	}
	master->check = (struct check){ pid, pipe_fds[0], process_now_ms() + CHECK_LIMIT_MS };
}

/* Writes down what the successor must know. Returns a descriptor that survives the exec, or -1. */
static int write_handover(const struct master *master)
{
	struct buf text;
	int fd = memfd_create("coze-chatd-handover", 0);

	buf_init(&text, HANDOVER_MAX);
	buf_printf(&text, "%lu %d %d %d\n", master->reloads, master->metrics_fd, master->wants_reload,
		   master->lock_fd);
	fleet_save(master->fleet, &text);
	if (fd >= 0 &&
	    (text.failed || write(fd, buf_bytes(&text), buf_size(&text)) != (ssize_t)buf_size(&text) ||
	     lseek(fd, 0, SEEK_SET) != 0)) {
		close(fd);
		fd = -1;
	}
	buf_free(&text);
	return fd;
}

static void keep_descriptors(const struct master *master, bool keep)
{
	fleet_keep_sockets(master->fleet, keep);
	fcntl(master->metrics_fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
	fcntl(master->lock_fd, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

/* Becomes the program on disk. Returns only when that fails. */
static void exec_successor(struct master *master)
{
	char *argv[] = { master->program, NULL };
	char number[16];
	int fd;

	fleet_settle(master->fleet);
	fd = write_handover(master);
	if (fd < 0) {
		refuse_reload(master, "writing the handover");
		return;
	}
	snprintf(number, sizeof number, "%d", fd);
	setenv(HANDOVER, number, 1);
	keep_descriptors(master, true);
	execv(master->program, argv);
	keep_descriptors(master, false);
	unsetenv(HANDOVER);
	close(fd);
	refuse_reload(master, strerror(errno));
}

static void end_check(struct master *master, int status)
{
	char says[CHECK_SAYS_MAX];
	ssize_t got = read(master->check.says, says, sizeof says - 1);

	close(master->check.says);
	master->check.pid = 0;
	if (master->stopping)
		return;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		exec_successor(master);
		return;
	}
	while (got > 0 && says[got - 1] == '\n')
		got--;
	says[got > 0 ? got : 0] = '\0';
	refuse_reload(master, says[0] != '\0' ? says : "the check did not end as it should");
}

/* ---- the loop ---- */

static void reap(struct master *master)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == master->check.pid)
			end_check(master, status);
		else
			fleet_reaped(master->fleet, pid, status);
	}
}

static void begin_stop(struct master *master, int number)
{
	log_event(LOG_LEVEL_INFO, "stopping", LOG_NUMBER("signal", number));
	if (!master->stopping)
		master->kill_at_ms = process_now_ms() + master->config->drain_timeout_ms + STOP_EXTRA_MS;
	if (number == SIGINT)
		master->kill_at_ms = process_now_ms() + STOP_EXTRA_MS;
	master->stopping = true;
	write_state(master, "stopping");
	fleet_stop(master->fleet);
	fleet_signal(master->fleet, number);
	if (master->check.pid != 0)
		kill(master->check.pid, SIGKILL);
}

static void on_signal(struct master *master, int number)
{
	switch (number) {
	case SIGTERM:
	case SIGQUIT: /* as nginx calls it */
		begin_stop(master, SIGTERM);
		break;
	case SIGINT:
		begin_stop(master, SIGINT);
		break;
	case SIGHUP:
		if (!master->stopping)
			begin_reload(master);
		break;
	case SIGUSR1:
		log_reopen();
		fleet_signal(master->fleet, SIGUSR1);
		break;
	default: /* SIGCHLD, SIGUSR2: to wake up is all */
		break;
	}
}

static void finish_reload(struct master *master)
{
	if (master->renewing && fleet_is_renewed(master->fleet)) {
		master->renewing = false;
		log_event(LOG_LEVEL_INFO, "reloaded", LOG_NUMBER("number", master->reloads));
		metric_add(&metrics->counters.reloads_ok, 1);
		write_state(master, "ok");
	}
	if (master->wants_reload && !is_reloading(master) && !master->stopping) {
		master->wants_reload = false;
		begin_reload(master);
	}
}

/* What takes too long is killed. Returns the milliseconds until the next look. */
static uint64_t enforce_limits(struct master *master)
{
	uint64_t now = process_now_ms(), wait = UINT64_MAX;

	if (master->check.pid != 0 && now >= master->check.until_ms)
		kill(master->check.pid, SIGKILL);
	if (master->stopping && now >= master->kill_at_ms)
		fleet_signal(master->fleet, SIGKILL);
	if (master->check.pid != 0 || master->stopping)
		wait = 1000;
	return wait;
}

static void serve(struct master *master)
{
	while (!master->stopping || fleet_running(master->fleet) > 0) {
		uint64_t wait = fleet_advance(master->fleet), limit;
		struct timespec time;

		finish_reload(master);
		limit = enforce_limits(master);
		wait = limit < wait ? limit : wait;
		time = (struct timespec){ (time_t)(wait / 1000), (long)(wait % 1000) * 1000000 };
		on_signal(master, sigtimedwait(&master->signals, NULL, &time));
		reap(master);
	}
}

/* ---- life ---- */

/* Reads what the predecessor has written, if there was one: the text is the caller's to free. NULL: none. */
static char *read_handover(struct master *master)
{
	const char *number = getenv(HANDOVER);
	char *text = number != NULL ? calloc(1, HANDOVER_MAX + 1) : NULL;
	ssize_t got = -1;
	int fd, wants;

	if (text == NULL)
		return NULL;
	fd = (int)strtol(number, NULL, 10);
	got = read(fd, text, HANDOVER_MAX);
	close(fd);
	unsetenv(HANDOVER);
	/* NOLINTNEXTLINE(cert-err34-c): the numbers are what a master has written */
	if (got > 0 && sscanf(text, "%lu %d %d %d\n", &master->reloads, &master->metrics_fd, &wants,
			      &master->lock_fd) == 4) {
		master->wants_reload = wants != 0;
		return text;
	}
	free(text);
	return NULL;
}

bool master_is_successor(void)
{
	return getenv(HANDOVER) != NULL;
}

/*
 * One master in a RUN_DIR, also when its sockets are elsewhere. A lock of fcntl(2) is the process's: it outlives an exec as
 * long as the descriptor does, and no child has it.
 */
static bool lock_run_dir(struct master *master)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[PATH_MAX + 32];

	if (master->lock_fd >= 0) {
		fcntl(master->lock_fd, F_SETFD, FD_CLOEXEC);
		return true;
	}
	snprintf(path, sizeof path, "%s/coze-chatd.lock", master->config->run_dir);
	master->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	if (master->lock_fd < 0)
		return process_complain("cannot open", path);
	if (fcntl(master->lock_fd, F_SETLK, &lock) == 0)
		return true;
	if (errno != EACCES && errno != EAGAIN)
		return process_complain("cannot lock", path);
	fprintf(stderr, "coze-chatd: another one runs in this RUN_DIR: %s\n", master->config->run_dir);
	return false;
}

static bool open_metrics(struct master *master, bool successor)
{
	const char *routes[METRICS_ROUTES];
	size_t count = service_route_names(routes);

	if (successor) {
		fcntl(master->metrics_fd, F_SETFD, FD_CLOEXEC);
		master->metrics = metrics_region_adopt(master->metrics_fd, routes, count);
		/* Of another version: its workers go on counting there, unseen. */
		if (master->metrics == NULL)
			close(master->metrics_fd);
	}
	if (master->metrics == NULL)
		master->metrics = metrics_region_new(&master->metrics_fd, routes, count);
	if (master->metrics == NULL)
		return process_complain("cannot make", "shared memory");
	metrics_use_master(master->metrics);
	return true;
}

static bool open_fleet(struct master *master, const char *handed_over)
{
	struct buf problems;

	buf_init(&problems, 64 * 1024);
	master->fleet = fleet_open(master->config, master->metrics, &master->signals, handed_over, &problems);
	process_tell(&problems);
	if (buf_size(&problems) > 0) {
		buf_append_char(&problems, '\0');
		log_event(LOG_LEVEL_ERROR, "start", LOG_TEXT("why", buf_bytes(&problems)));
	}
	buf_free(&problems);
	return master->fleet != NULL;
}

static bool begin(struct master *master)
{
	char *handed_over = read_handover(master);
	bool successor = handed_over != NULL;
	/* With workers to look after, a log on standard error is better than none; and the pid has not changed. */
	bool good = process_make_directory(master->config->run_dir) && lock_run_dir(master) &&
		    (process_open_log(master->config) || successor) && open_metrics(master, successor) &&
		    open_fleet(master, successor ? strchr(handed_over, '\n') + 1 : NULL) &&
		    (write_pid(master) || successor);

	free(handed_over);
	if (!good)
		return false;
	if (successor) {
		master->reloads++;
		master->renewing = true;
	}
	log_event(LOG_LEVEL_INFO, successor ? "reloading" : "started",
		  LOG_NUMBER("workers", master->config->workers));
	write_state(master, successor ? "starting" : "ok");
	return true;
}

static void end(struct master *master)
{
	if (master->fleet != NULL)
		fleet_close(master->fleet);
	unlink(master->pid_path);
	unlink(master->state_path);
}

/* What the kernel adds to the name of a program that was replaced on disk since. */
static void cut_deleted(char *path)
{
	static const char mark[] = " (deleted)";
	size_t len = strlen(path), mark_len = sizeof mark - 1;

	if (len > mark_len && strcmp(path + len - mark_len, mark) == 0)
		path[len - mark_len] = '\0';
}

bool master_check(const struct config *config)
{
	struct buf problems;
	bool good;

	buf_init(&problems, 64 * 1024);
	good = listener_check(config, getenv(HELD), &problems);
	process_tell(&problems);
	buf_free(&problems);
	return process_check_log(config) && good;
}

int master_run(const struct config *config)
{
	static const int signals[] = { SIGTERM, SIGQUIT, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD };
	struct master master = { .config = config, .metrics_fd = -1, .lock_fd = -1 };
	ssize_t len = readlink("/proc/self/exe", master.program, sizeof master.program - 1);

	if (len < 0) {
		process_complain("cannot read", "/proc/self/exe");
		return EX_OSERR;
	}
	cut_deleted(master.program);
	snprintf(master.pid_path, sizeof master.pid_path, "%s/coze-chatd.pid", config->run_dir);
	snprintf(master.state_path, sizeof master.state_path, "%s/coze-chatd.state", config->run_dir);
	process_prepare();
	sigemptyset(&master.signals);
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		sigaddset(&master.signals, signals[i]);
	sigprocmask(SIG_BLOCK, &master.signals, NULL);
	if (!begin(&master)) {
		if (master.fleet != NULL)
			fleet_close(master.fleet);
		return EX_OSERR;
	}
	serve(&master);
	end(&master);
	return EX_OK;
}
