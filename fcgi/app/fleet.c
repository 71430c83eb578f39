/*
 * fleet.c - see fleet.h.
 */
#include "app/fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "app/config.h"
#include "app/handoff.h"
#include "app/listener.h"
#include "app/process.h"
#include "app/worker.h"
#include "base/log.h"

#define PAUSE_MIN_MS 100 /* before a dead worker is started again */
#define PAUSE_MAX_MS 5000
#define YOUNG_MS     10000 /* a worker that dies earlier makes the pause longer */
#define IDLE_MS      60000
#define LEAVING_MAX  METRICS_BLOCKS
#define PASS_ON_MS   10 /* between looks whether the first place has room for who waits elsewhere */

struct process {
	pid_t pid;    /* 0: none */
	size_t block; /* of the metrics */
	uint64_t started_ms;
};

/* A worker's place: its socket, who serves it, and who is about to. */
struct place {
	char name[LISTENER_NAME_SIZE];
	int fd;
	struct handoff handoff;
	struct process current, next;
	bool replace; /* current is of old settings, or worn */
	bool stuck;   /* and the last one that was to replace it has died */
	uint64_t pause_ms, start_at_ms;
};

/* Drains; its place has another by now. */
struct leaving {
	struct process process;
	size_t worker;
};

/* Whose place was given up: connections that wait for room in the channel of the first place. */
struct queue {
	char name[LISTENER_NAME_SIZE]; /* the place's */
	int fd;                        /* its socket; nobody new comes, but to a port */
	int held;                      /* accepted from it, not passed on yet; -1: none */
	bool unserved;                 /* no worker accepts, or ends the listening */
	struct queue *next;
};

struct fleet {
	const struct config *config;
	struct metrics_region *metrics;
	sigset_t signals;
	struct place *places;
	size_t count;
	struct leaving leaving[LEAVING_MAX];
	size_t leaving_count;
	struct queue *queues;
	bool stopping;
};

/* ---- the child ---- */

struct child {
	struct metrics_region *metrics;
	size_t block;
	pid_t master;
};

static void wake_master(const struct child *child)
{
	if (getppid() == child->master)
		kill(child->master, SIGUSR2);
}

static void on_state(void *arg, enum metrics_state state)
{
	struct child *child = arg;

	metrics_set_state(child->metrics, child->block, state);
	wake_master(child);
}

static void on_worn(void *arg)
{
	struct child *child = arg;

	metrics_set_worn(child->metrics, child->block);
	wake_master(child);
}

static void close_place(struct place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	if (place->handoff.in >= 0)
		handoff_close(&place->handoff);
}

static void close_queue(const struct queue *queue)
{
	close(queue->fd);
	if (queue->held >= 0)
		close(queue->held);
}

/* Takes it from the list, too. */
static void end_queue(struct queue **link)
{
	struct queue *queue = *link;

	*link = queue->next;
	close_queue(queue);
	free(queue);
}

static void run_child(struct fleet *fleet, size_t worker, size_t block, pid_t master)
{
	struct child child = { fleet->metrics, block, master };
	const struct worker_options options = {
		.config = fleet->config,
		.metrics = fleet->metrics,
		.listen_fd = fleet->places[worker].fd,
		.handoff = &fleet->places[worker].handoff,
		.master = master,
		.on_state = on_state,
		.on_worn = on_worn,
		.arg = &child,
	};
	char name[16];

	/* If the master is killed, its workers drain; the check closes the moment between fork and prctl. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != master)
		_exit(EX_OK);
	snprintf(name, sizeof name, "chatd worker %zu", worker);
	prctl(PR_SET_NAME, name);
	for (size_t i = 0; i < fleet->count; i++)
		if (i != worker)
			close_place(&fleet->places[i]);
	for (struct queue *queue = fleet->queues; queue != NULL; queue = queue->next)
		close_queue(queue);
	metrics_use(fleet->metrics, block);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN); /* until the worker listens to it */
	sigprocmask(SIG_UNBLOCK, &fleet->signals, NULL);
	exit(worker_run(&options));
}

/* ---- starting ---- */

static void start(struct fleet *fleet, size_t worker, struct process *process)
{
	struct place *place = &fleet->places[worker];
	size_t block = metrics_claim(fleet->metrics, worker);
	pid_t master = getpid();
	pid_t pid = fork();

	if (pid == 0)
		run_child(fleet, worker, block, master);
	if (pid < 0) {
		log_event(LOG_LEVEL_ERROR, "fork", LOG_TEXT("why", strerror(errno)));
		place->start_at_ms = process_now_ms() + place->pause_ms;
		return;
	}
	metrics_started(fleet->metrics, block, pid);
	*process = (struct process){ pid, block, process_now_ms() };
}

static bool is_starting(const struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++)
		if (fleet->places[i].next.pid != 0)
			return true;
	return false;
}

/* ---- replacing ---- */

/* Tells a process to drain; its place is no longer its own. */
static void retire(struct fleet *fleet, size_t worker, const struct process *process)
{
	kill(process->pid, SIGTERM);
	if (fleet->leaving_count < LEAVING_MAX)
		fleet->leaving[fleet->leaving_count++] = (struct leaving){ *process, worker };
}

/* The successor serves: it takes over. */
static void take_over(struct fleet *fleet, size_t worker)
{
	struct place *place = &fleet->places[worker];

	if (place->next.pid == 0 || metrics_state(fleet->metrics, place->next.block) == METRICS_STARTING)
		return;
	if (place->current.pid != 0)
		retire(fleet, worker, &place->current);
	place->current = place->next;
	place->next.pid = 0;
	place->replace = place->stuck = false;
}

/* ---- passing on ---- */

/* Who waits there is left to the workers of the first place. True when that was all. */
static bool pass_on(const struct fleet *fleet, struct queue *queue)
{
	const struct place *first = &fleet->places[0];

	for (;;) {
		if (queue->held < 0)
			queue->held = accept4(queue->fd, NULL, NULL, SOCK_CLOEXEC);
		if (queue->held < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (queue->held < 0) /* nobody any more, or too few descriptors for now */
			return errno == EAGAIN || errno == EINVAL;
		if (first->fd < 0 || !handoff_give(&first->handoff, queue->held))
			return false; /* no room yet */
		close(queue->held);
		queue->held = -1;
	}
}

/* Whether there are any that still wait. */
static bool pass_all_on(struct fleet *fleet)
{
	struct queue **link = &fleet->queues;

	while (*link != NULL) {
		struct queue *queue = *link;

		if (!pass_on(fleet, queue)) {
			link = &queue->next;
			continue;
		}
		if (queue->unserved)
			shutdown(queue->fd, SHUT_RDWR);
		end_queue(link);
	}
	return fleet->queues != NULL;
}

/* The socket is the queue's from now on. */
static void add_queue(struct fleet *fleet, const struct queue *from)
{
	struct queue *queue = malloc(sizeof *queue);

	if (queue == NULL) {
		close_queue(from);
		return;
	}
	*queue = *from;
	queue->next = fleet->queues;
	fleet->queues = queue;
}

/* A port that is listened on still. (A socket's file is gone when its place was given up.) */
static bool holds_port(const struct queue *queue)
{
	return queue->unserved && queue->name[0] != '\0' && queue->name[0] != '/';
}

/* A place is wanted again whose port waits in a queue: who waits there is its own now. The socket, or -1. */
static int take_back(struct fleet *fleet, const struct place *place)
{
	for (struct queue **link = &fleet->queues; *link != NULL; link = &(*link)->next) {
		struct queue *queue = *link;
		int fd = queue->fd;

		if (!holds_port(queue) || strcmp(queue->name, place->name) != 0)
			continue;
		if (queue->held >= 0) {
			handoff_give(&place->handoff, queue->held); /* it is new and has room */
			close(queue->held);
		}
		*link = queue->next;
		free(queue);
		return fd;
	}
	return -1;
}

/* ---- the round ---- */

/* Worn, or it drains because somebody else has told it to: its socket must not wait until the last answer has left. */
static bool wants_successor(const struct fleet *fleet, const struct process *process)
{
	return metrics_is_worn(fleet->metrics, process->block) ||
	       metrics_state(fleet->metrics, process->block) == METRICS_DRAINING;
}

static uint64_t advance_place(struct fleet *fleet, size_t worker, uint64_t now)
{
	struct place *place = &fleet->places[worker];
	bool due = place->start_at_ms <= now;

	take_over(fleet, worker);
	if (place->current.pid != 0 && wants_successor(fleet, &place->current))
		place->replace = true;
	if (place->current.pid != 0 && !place->replace)
		return IDLE_MS;
	if (!due)
		return place->start_at_ms - now;
	if (place->current.pid == 0)
		start(fleet, worker, &place->current);
	else if (fleet->leaving_count < LEAVING_MAX && !is_starting(fleet))
		start(fleet, worker, &place->next);
	/* What could not be done now is done when a child ends or signals. */
	return place->start_at_ms > now ? place->start_at_ms - now : IDLE_MS;
}

uint64_t fleet_advance(struct fleet *fleet)
{
	uint64_t now = process_now_ms(), wait = IDLE_MS;

	for (size_t i = 0; i < fleet->count && !fleet->stopping; i++) {
		uint64_t until = fleet->places[i].fd >= 0 ? advance_place(fleet, i, now) : IDLE_MS;

		wait = until < wait ? until : wait;
	}
	return pass_all_on(fleet) && wait > PASS_ON_MS ? PASS_ON_MS : wait;
}

bool fleet_is_renewed(const struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++)
		if (fleet->places[i].replace)
			return false;
	return true;
}

bool fleet_is_stuck(const struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++)
		if (fleet->places[i].stuck)
			return true;
	return false;
}

void fleet_settle(struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++) {
		take_over(fleet, i);
		if (fleet->places[i].next.pid != 0)
			retire(fleet, i, &fleet->places[i].next);
		fleet->places[i].next.pid = 0;
	}
}

/* ---- ends ---- */

static void note_end(const struct fleet *fleet, size_t worker, const struct process *process, int status,
		     bool expected)
{
	bool quiet = expected && WIFEXITED(status) && WEXITSTATUS(status) == 0;

	metrics_ended(fleet->metrics, process->block, process->pid, worker, !quiet && !fleet->stopping);
	log_event(quiet ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "worker_ended", LOG_NUMBER("index", worker),
		  LOG_NUMBER("worker", process->pid),
		  LOG_NUMBER("exit", WIFEXITED(status) ? WEXITSTATUS(status) : 0),
		  LOG_NUMBER("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0));
}

/* When its successor may be started. */
static void plan_start(struct place *place, const struct process *process)
{
	uint64_t now = process_now_ms();
	bool young = now - process->started_ms < YOUNG_MS;

	place->pause_ms = !young                               ? PAUSE_MIN_MS
			  : place->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS
							       : place->pause_ms * 2;
	place->start_at_ms = now + (young ? place->pause_ms / 2 : 0);
}

static bool reaped_of_place(struct fleet *fleet, size_t worker, pid_t pid, int status)
{
	struct place *place = &fleet->places[worker];

	if (place->next.pid == pid) {
		note_end(fleet, worker, &place->next, status, false);
		plan_start(place, &place->next);
		place->next.pid = 0;
		place->stuck = true;
		return true;
	}
	if (place->current.pid != pid)
		return false;
	note_end(fleet, worker, &place->current, status, fleet->stopping);
	plan_start(place, &place->current);
	place->current = place->next; /* if one was about to follow */
	place->next.pid = 0;
	place->replace = place->stuck = false;
	return true;
}

bool fleet_reaped(struct fleet *fleet, pid_t pid, int status)
{
	for (size_t i = 0; i < fleet->count; i++)
		if (reaped_of_place(fleet, i, pid, status))
			return true;
	for (size_t i = 0; i < fleet->leaving_count; i++) {
		struct leaving *leaving = &fleet->leaving[i];

		if (leaving->process.pid != pid)
			continue;
		note_end(fleet, leaving->worker, &leaving->process, status, true);
		*leaving = fleet->leaving[--fleet->leaving_count];
		return true;
	}
	return false;
}

void fleet_signal(const struct fleet *fleet, int number)
{
	for (size_t i = 0; i < fleet->count; i++) {
		if (fleet->places[i].current.pid != 0)
			kill(fleet->places[i].current.pid, number);
		if (fleet->places[i].next.pid != 0)
			kill(fleet->places[i].next.pid, number);
	}
	for (size_t i = 0; i < fleet->leaving_count; i++)
		kill(fleet->leaving[i].process.pid, number);
}

void fleet_stop(struct fleet *fleet)
{
	fleet->stopping = true;
	fleet_signal(fleet, SIGUSR2);
}

size_t fleet_running(const struct fleet *fleet)
{
	size_t running = fleet->leaving_count;

	for (size_t i = 0; i < fleet->count; i++)
		running += (fleet->places[i].current.pid != 0) + (fleet->places[i].next.pid != 0);
	return running;
}

/* ---- over an exec ---- */

static void save_process(struct buf *out, const char *kind, size_t worker, const struct process *process)
{
	buf_printf(out, "%s %zu %d %zu", kind, worker, (int)process->pid, process->block);
}

void fleet_save(const struct fleet *fleet, struct buf *out)
{
	for (size_t i = 0; i < fleet->count; i++) {
		const struct place *place = &fleet->places[i];

		if (place->fd < 0)
			continue;
		save_process(out, "place", i, &place->current);
		buf_printf(out, " %d %d %d %s\n", place->fd, place->handoff.in, place->handoff.out,
			   place->name);
	}
	for (size_t i = 0; i < fleet->leaving_count; i++) {
		save_process(out, "leaving", fleet->leaving[i].worker, &fleet->leaving[i].process);
		buf_append_char(out, '\n');
	}
	/* Written like a place of a strange name: a program that knows of no queues gives it up. */
	for (const struct queue *queue = fleet->queues; queue != NULL; queue = queue->next)
		buf_printf(out, "queue 0 0 %d %d %d -1 @%s\n", queue->unserved, queue->fd, queue->held,
			   queue->name);
}

void fleet_names(const struct fleet *fleet, struct buf *out)
{
	for (size_t i = 0; i < fleet->count; i++)
		if (fleet->places[i].fd >= 0)
			buf_printf(out, "%s\n", fleet->places[i].name);
	for (const struct queue *queue = fleet->queues; queue != NULL; queue = queue->next)
		if (holds_port(queue))
			buf_printf(out, "%s\n", queue->name);
}

static void keep(int fd, bool keep_open)
{
	if (fd >= 0)
		fcntl(fd, F_SETFD, keep_open ? 0 : FD_CLOEXEC);
}

static void keep_place(const struct place *place, bool keep_open)
{
	keep(place->fd, keep_open);
	keep(place->handoff.in, keep_open);
	keep(place->handoff.out, keep_open);
}

static void keep_queue(const struct queue *queue, bool keep_open)
{
	keep(queue->fd, keep_open);
	keep(queue->held, keep_open);
}

void fleet_keep_sockets(const struct fleet *fleet, bool keep_open)
{
	for (size_t i = 0; i < fleet->count; i++)
		keep_place(&fleet->places[i], keep_open);
	for (const struct queue *queue = fleet->queues; queue != NULL; queue = queue->next)
		keep_queue(queue, keep_open);
}

/*
 * A place that the new settings have no use for: whoever waits there is still served, nobody new comes. Its worker may have
 * died, or not serve yet: then it would leave the queue as it is.
 */
static void give_up(struct fleet *fleet, struct place *place, size_t worker)
{
	struct queue queue = { .fd = place->fd, .held = -1, .unserved = place->current.pid == 0 };

	listener_unlink(place->name);
	keep_place(place, false);
	snprintf(queue.name, sizeof queue.name, "%s", place->name);
	add_queue(fleet, &queue);
	pass_all_on(fleet);
	if (place->current.pid != 0) {
		/* Of two signals that wait, the lower number comes first: this one before TERM. */
		kill(place->current.pid, SIGUSR2);
		retire(fleet, worker, &place->current);
	}
	handoff_close(&place->handoff);
}

static void adopt_place(struct fleet *fleet, struct place *old, size_t worker)
{
	for (size_t i = 0; i < fleet->count; i++) {
		struct place *place = &fleet->places[i];

		if (strcmp(place->name, old->name) != 0 || place->fd >= 0)
			continue;
		keep_place(old, false);
		*place = *old;
		place->replace = place->current.pid != 0;
		return;
	}
	give_up(fleet, old, worker);
}

static void adopt(struct fleet *fleet, const char *line)
{
	struct place place = { .pause_ms = PAUSE_MIN_MS, .current = { .started_ms = process_now_ms() } };
	struct process *process = &place.current;
	struct queue queue = { .name = "" };
	char kind[16];
	size_t worker;
	int pid, used;

	/* NOLINTBEGIN(cert-err34-c): the numbers are what fleet_save() has written */
	if (sscanf(line, "%15s %zu %d %zu%n", kind, &worker, &pid, &process->block, &used) != 4)
		return;
	process->pid = pid;
	queue.unserved = process->block != 0;
	if (strcmp(kind, "queue") == 0 &&
	    sscanf(line + used, "%d %d -1 @%279[^\n]", &queue.fd, &queue.held, queue.name) == 3) {
		keep_queue(&queue, false);
		add_queue(fleet, &queue);
	} else if (strcmp(kind, "leaving") == 0 && fleet->leaving_count < LEAVING_MAX)
		fleet->leaving[fleet->leaving_count++] = (struct leaving){ *process, worker };
	else if (sscanf(line + used, "%d %d %d %279[^\n]", &place.fd, &place.handoff.in, &place.handoff.out,
			place.name) == 4)
		adopt_place(fleet, &place, worker);
	/* NOLINTEND(cert-err34-c) */
}

/* ---- life ---- */

static bool name_places(struct fleet *fleet, struct buf *problems)
{
	for (size_t i = 0; i < fleet->count; i++) {
		fleet->places[i].fd = -1;
		fleet->places[i].handoff = (struct handoff){ -1, -1 };
		fleet->places[i].pause_ms = PAUSE_MIN_MS;
		if (!listener_name(fleet->places[i].name, fleet->config, i, problems))
			return false;
	}
	return true;
}

static bool open_sockets(struct fleet *fleet, struct buf *problems)
{
	bool good = true;

	for (size_t i = 0; i < fleet->count; i++) {
		struct place *place = &fleet->places[i];

		if (place->fd >= 0)
			continue;
		if (!handoff_open(&place->handoff)) {
			buf_printf(problems, "no socket pair: %s\n", strerror(errno));
			good = false;
			continue;
		}
		place->fd = take_back(fleet, place);
		if (place->fd < 0)
			place->fd = listener_open(place->name, problems);
		if (place->fd < 0)
			handoff_close(&place->handoff);
		good = good && place->fd >= 0;
	}
	return good;
}

struct fleet *fleet_open(const struct config *config, struct metrics_region *metrics_region,
			 const sigset_t *signals, const char *handed_over, struct buf *problems)
{
	struct fleet *fleet = calloc(1, sizeof *fleet);
	bool good;

	if (fleet != NULL)
		fleet->places = calloc(config->workers, sizeof *fleet->places);
	if (fleet == NULL || fleet->places == NULL) {
		buf_append_str(problems, "no memory for the workers\n");
		free(fleet);
		return NULL;
	}
	fleet->config = config;
	fleet->metrics = metrics_region;
	fleet->signals = *signals;
	fleet->count = (size_t)config->workers;
	good = name_places(fleet, problems);
	for (const char *line = handed_over; good && line != NULL && *line != '\0';) {
		const char *end = strchr(line, '\n');

		adopt(fleet, line);
		line = end != NULL ? end + 1 : NULL;
	}
	good = good && open_sockets(fleet, problems);
	/* After a reload the workers that there are go on, also when a new one finds no socket. */
	if (good || handed_over != NULL)
		return fleet;
	fleet_close(fleet);
	return NULL;
}

void fleet_close(struct fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++) {
		if (fleet->places[i].fd >= 0)
			listener_unlink(fleet->places[i].name);
		close_place(&fleet->places[i]);
	}
	while (fleet->queues != NULL)
		end_queue(&fleet->queues);
	free(fleet->places);
	free(fleet);
}
