/*
 * test_fleet.c - what a fleet writes down for a successor is what that one takes over, however much it is. Fleets with
 * processes in them are tested by tests/e2e/test_master.py and test_reload.py.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/config.h"
#include "app/fleet.h"
#include "app/handoff.h"
#include "base/log.h"

static char home[] = "/tmp/test_fleet.XXXXXX";
static char run_dir[100];
static struct metrics_region *region;
static int region_fd, no_log;

/* As long as a path of a socket may be, with blanks in it. */
static int make_home(void **state)
{
	struct rlimit limit;

	(void)state;
	no_log = open("/dev/null", O_WRONLY | O_CLOEXEC);
	log_open(no_log, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
	if (mkdtemp(home) == NULL || getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return -1;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	snprintf(run_dir, sizeof run_dir, "%s/ blanks  in it", home);
	while (strlen(run_dir) < 107 - strlen("/worker-511.sock"))
		strcat(run_dir, "x");
	region = metrics_region_new(&region_fd, NULL, 0);
	return region == NULL || mkdir(run_dir, 0700) != 0;
}

static int remove_home(void **state)
{
	(void)state;
	close(region_fd);
	close(no_log);
	return rmdir(run_dir) != 0 || rmdir(home) != 0;
}

static struct fleet *open_fleet(const struct config *config, const char *handed_over)
{
	struct fleet *fleet;
	struct buf problems;
	sigset_t none;

	sigemptyset(&none);
	buf_init(&problems, 65536);
	fleet = fleet_open(config, region, &none, handed_over, &problems);
	if (fleet == NULL || buf_size(&problems) > 0)
		fail_msg("%.*s", (int)buf_size(&problems), buf_bytes(&problems));
	buf_free(&problems);
	return fleet;
}

static char *saved(const struct fleet *fleet)
{
	struct buf out;
	char *text;

	buf_init(&out, 1024 * 1024);
	fleet_save(fleet, &out);
	assert_false(out.failed);
	text = buf_string(&out);
	buf_free(&out);
	return text;
}

static size_t lines_of(const char *text)
{
	size_t lines = 0;

	for (; *text != '\0'; text++)
		lines += *text == '\n';
	return lines;
}

/* A fleet without processes may be left as it is: its memory goes, its sockets are the successor's. */
static void test_many_places_with_long_names_are_handed_over(void **state)
{
	const struct config config = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 512 };
	struct fleet *fleet = open_fleet(&config, NULL), *successor;
	char *before = saved(fleet), *after;

	(void)state;
	assert_int_equal(lines_of(before), 512);
	assert_true(strlen(before) > 65536);
	fleet_keep_sockets(fleet, true);
	successor = open_fleet(&config, before);
	after = saved(successor);
	assert_string_equal(before, after);
	for (const char *line = after; *line != '\0'; line = strchr(line, '\n') + 1) {
		int fds[3];

		assert_int_equal(sscanf(line, "place %*u 0 0 %d %d %d ", &fds[0], &fds[1], &fds[2]), 3);
		for (size_t i = 0; i < COUNT(fds); i++)
			assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	assert_true(fleet_is_renewed(successor));
	assert_int_equal(fleet_running(successor), 0);
	fleet_close(successor);
	fleet_close(fleet); /* closes nothing twice that matters here */
	free(before);
	free(after);
}

static void test_fewer_places_give_the_rest_up(void **state)
{
	const struct config more = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 4 };
	const struct config less = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 2 };
	struct fleet *fleet = open_fleet(&more, NULL), *successor;
	char *text = saved(fleet), path[150];

	(void)state;
	successor = open_fleet(&less, text);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "%s/worker-%d.sock", run_dir, i);
		assert_int_equal(access(path, F_OK), i < 2 ? 0 : -1);
	}
	free(text);
	text = saved(successor);
	assert_int_equal(lines_of(text), 2);
	fleet_close(successor);
	fleet_close(fleet);
	free(text);
}

/* Processes are taken over with their places; one whose place is gone, or that drains already, is only waited for. */
static void test_processes_are_taken_over(void **state)
{
	const struct config config = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 1 };
	struct fleet *fleet = open_fleet(&config, NULL), *successor;
	char *text = saved(fleet), *again, changed[1000];
	int fds[3], used = 0;
	pid_t child = fork();

	(void)state;
	if (child == 0)
		for (;;)
			pause();
	assert_int_equal(sscanf(text, "place 0 0 0 %d %d %d %n", &fds[0], &fds[1], &fds[2], &used), 3);
	snprintf(changed, sizeof changed,
		 "place 0 %d 5 %d %d %d %sleaving 7 %d 6\nnonsense\n\nplace\nplace 1 2\n", (int)child, fds[0],
		 fds[1], fds[2], text + used, 999999);
	successor = open_fleet(&config, changed);
	assert_int_equal(fleet_running(successor), 2);
	assert_false(fleet_is_renewed(successor));
	assert_false(fleet_is_stuck(successor));
	again = saved(successor);
	assert_int_equal(lines_of(again), 2);
	assert_contains(changed, strchr(again, '\n') + 1);
	assert_true(fleet_reaped(successor, 999999, 0));
	assert_false(fleet_reaped(successor, 999999, 0));
	assert_false(fleet_reaped(successor, 999998, 0));
	fleet_stop(successor);
	fleet_signal(successor, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(fleet_reaped(successor, child, SIGKILL));
	assert_int_equal(fleet_running(successor), 0);
	fleet_close(successor);
	fleet_close(fleet);
	free(again);
	free(text);
}

static void test_names_are_told(void **state)
{
	const struct config config = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 2 };
	struct fleet *fleet = open_fleet(&config, NULL);
	char expected[300];
	struct buf names;
	char *text;

	(void)state;
	buf_init(&names, 4096);
	fleet_names(fleet, &names);
	text = buf_string(&names);
	snprintf(expected, sizeof expected, "%s/worker-0.sock\n%s/worker-1.sock\n", run_dir, run_dir);
	assert_string_equal(text, expected);
	free(text);
	buf_free(&names);
	fleet_close(fleet);
}

static void test_a_fleet_that_cannot_listen_does_not_begin(void **state)
{
	const struct config one = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 1 };
	const struct config two = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 2 };
	struct fleet *fleet = open_fleet(&one, NULL);
	struct buf problems;
	char path[150];
	sigset_t none;

	(void)state;
	sigemptyset(&none);
	buf_init(&problems, 4096);
	assert_null(fleet_open(&two, region, &none, NULL, &problems));
	assert_true(buf_size(&problems) > 0);
	buf_free(&problems);
	snprintf(path, sizeof path, "%s/worker-1.sock", run_dir);
	assert_int_equal(access(path, F_OK), -1);
	snprintf(path, sizeof path, "%s/worker-0.sock", run_dir);
	assert_int_equal(access(path, F_OK), 0);
	fleet_close(fleet);
	assert_int_equal(access(path, F_OK), -1);
}

static unsigned descriptors(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1000; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* The next reload tries again; a channel that nobody has named to it would stay open for ever. */
static void test_a_place_without_a_socket_keeps_nothing_open(void **state)
{
	const struct config two = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 2 };
	struct fleet *fleet = open_fleet(&two, NULL), *successor;
	char *text = saved(fleet);
	unsigned before = descriptors();
	struct buf problems;
	sigset_t none;

	(void)state;
	sigemptyset(&none);
	buf_init(&problems, 4096);
	*(strchr(text, '\n') + 1) = '\0'; /* the second one's socket is somebody else's */
	successor = fleet_open(&two, region, &none, text, &problems);
	assert_non_null(successor);
	assert_true(buf_size(&problems) > 0);
	assert_int_equal(descriptors(), before);
	buf_free(&problems);
	free(text);
	fleet_close(successor);
	fleet_close(fleet);
}

/* ---- who waits at a place that is given up ---- */

#define CROWD 500 /* more than a channel holds */

static int connect_to(const char *dir, int worker)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int len = snprintf(address.sun_path, sizeof address.sun_path, "%s/worker-%d.sock", dir, worker);

	assert_in_range(len, 1, sizeof address.sun_path - 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

/* Clients at a worker's socket, each of whom has sent its number. */
static void connect_crowd(int clients[], uint32_t count, const char *dir, int worker)
{
	for (uint32_t i = 0; i < count; i++) {
		clients[i] = connect_to(dir, worker);
		assert_int_equal(write(clients[i], &i, sizeof i), sizeof i);
	}
}

/* Takes what has come through the first place's channel; `taken` were before. */
static uint32_t take_some(const struct fleet *fleet, uint32_t taken)
{
	struct handoff handoff;
	char *text = saved(fleet);
	int fd;

	assert_int_equal(sscanf(text, "place 0 0 0 %*d %d %d ", &handoff.in, &handoff.out), 2);
	free(text);
	while ((fd = handoff_take(&handoff)) >= 0) {
		uint32_t number;

		assert_int_equal(read(fd, &number, sizeof number), sizeof number);
		assert_int_equal(number, taken++);
		close(fd);
	}
	return taken;
}

static void close_crowd(int clients[], uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		close(clients[i]);
}

/* None is dropped, in whatever steps they are taken, and also when the next reload comes before all are. */
static void test_a_crowd_at_a_place_that_is_given_up_is_passed_on(void **state)
{
	const struct config two = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 2 };
	const struct config one = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 1 };
	struct fleet *fleet = open_fleet(&two, NULL), *successor, *next;
	char *text = saved(fleet);
	uint32_t taken = 0;
	int clients[CROWD];

	(void)state;
	connect_crowd(clients, CROWD, run_dir, 1);
	fleet_keep_sockets(fleet, true);
	successor = open_fleet(&one, text);
	fleet_stop(successor); /* it begins no processes */
	fleet_advance(successor);
	taken = take_some(successor, taken);
	assert_in_range(taken, 1, CROWD - 1);
	fleet_advance(successor);
	free(text);
	text = saved(successor);
	fleet_keep_sockets(successor, true);
	next = open_fleet(&one, text);
	fleet_stop(next);
	for (int i = 0; i < CROWD && taken < CROWD; i++) {
		fleet_advance(next);
		taken = take_some(next, taken);
	}
	assert_int_equal(taken, CROWD);
	fleet_advance(next);
	free(text);
	text = saved(next);
	assert_int_equal(lines_of(text), 1);
	free(text);
	close_crowd(clients, CROWD);
	fleet_close(next);
	fleet_close(successor);
	fleet_close(fleet);
}

/* The sockets are to be elsewhere: the place that they are passed on to is not there yet when theirs is given up. */
static void test_who_waits_is_passed_on_to_places_that_are_new(void **state)
{
	char other[] = "/tmp/test_fleet.XXXXXX";
	const struct config before = { .run_dir = run_dir, .worker_listen = (char[]){ "" }, .workers = 1 };
	const struct config after = { .run_dir = other, .worker_listen = (char[]){ "" }, .workers = 1 };
	struct fleet *fleet = open_fleet(&before, NULL), *successor;
	char *text = saved(fleet);
	int clients[3];

	(void)state;
	assert_non_null(mkdtemp(other));
	connect_crowd(clients, COUNT(clients), run_dir, 0);
	successor = open_fleet(&after, text);
	fleet_stop(successor);
	fleet_advance(successor);
	assert_int_equal(take_some(successor, 0), COUNT(clients));
	free(text);
	close_crowd(clients, COUNT(clients));
	fleet_close(successor);
	fleet_close(fleet);
	assert_int_equal(rmdir(other), 0);
}

/* ---- ports ---- */

/* A fleet of two on ports that are free; the first one. */
static uint16_t open_on_ports(struct fleet **fleet, struct config *config)
{
	struct buf problems;
	sigset_t none;
	uint16_t port;

	sigemptyset(&none);
	do {
		struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
		socklen_t len = sizeof any;
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_int_equal(bind(fd, (struct sockaddr *)&any, len), 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&any, &len), 0);
		close(fd);
		port = ntohs(any.sin_port);
		sprintf(config->worker_listen, "127.0.0.1:%d", port);
		buf_init(&problems, 4096);
		*fleet = fleet_open(config, region, &none, NULL, &problems);
		buf_free(&problems);
	} while (*fleet == NULL);
	return port;
}

static int connect_to_port(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

/* The socket and the channel of a place. */
static int socket_of(const struct fleet *fleet, int worker, struct handoff *handoff)
{
	char *text = saved(fleet), *line = text;
	int fd;

	for (int i = 0; i < worker; i++)
		line = strchr(line, '\n') + 1;
	assert_int_equal(sscanf(line, "place %*u 0 0 %d %d %d ", &fd, &handoff->in, &handoff->out), 3);
	free(text);
	return fd;
}

static void await_readable(int fd)
{
	assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 10000), 1);
}

/*
 * Nobody serves, and the first place's channel is full: who waits at a port that was given up waits on, and the next reload
 * may want the port again. It is not to be found in use then, and who waits there is its new workers'.
 */
static void test_a_port_that_was_given_up_may_be_taken_again(void **state)
{
	char address[32] = "", both[80];
	struct config two = { .run_dir = run_dir, .worker_listen = address, .workers = 2 };
	struct config one = { .run_dir = run_dir, .worker_listen = address, .workers = 1 };
	struct fleet *fleet, *less, *again;
	uint16_t port = open_on_ports(&fleet, &two);
	int clients[2], fd;
	struct handoff handoff;
	struct buf names;
	char *text, byte;

	(void)state;
	clients[0] = connect_to_port(port + 1);
	assert_int_equal(write(clients[0], "a", 1), 1);
	await_readable(socket_of(fleet, 1, &handoff));
	socket_of(fleet, 0, &handoff);
	while (handoff_give(&handoff, no_log))
		;
	text = saved(fleet);
	less = open_fleet(&one, text);
	fleet_stop(less);
	fleet_advance(less);
	buf_init(&names, 4096);
	fleet_names(less, &names);
	snprintf(both, sizeof both, "127.0.0.1:%d\n127.0.0.1:%d\n", port, port + 1);
	assert_buf(&names, both, strlen(both));
	buf_free(&names);
	free(text);
	text = saved(less);
	again = open_fleet(&two, text);
	fleet_stop(again);
	fd = socket_of(again, 1, &handoff);
	clients[1] = connect_to_port(port + 1);
	await_readable(fd);
	close(accept(fd, NULL, NULL));
	fd = handoff_take(&handoff);
	assert_true(fd >= 0);
	assert_int_equal(read(fd, &byte, 1), 1);
	assert_int_equal(byte, 'a');
	close(fd);
	free(text);
	text = saved(again);
	assert_int_equal(lines_of(text), 2);
	free(text);
	close_crowd(clients, COUNT(clients));
	fleet_close(again);
	fleet_close(less);
	fleet_close(fleet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_places_with_long_names_are_handed_over),
		cmocka_unit_test(test_fewer_places_give_the_rest_up),
		cmocka_unit_test(test_processes_are_taken_over),
		cmocka_unit_test(test_names_are_told),
		cmocka_unit_test(test_a_fleet_that_cannot_listen_does_not_begin),
		cmocka_unit_test(test_a_place_without_a_socket_keeps_nothing_open),
		cmocka_unit_test(test_a_crowd_at_a_place_that_is_given_up_is_passed_on),
		cmocka_unit_test(test_who_waits_is_passed_on_to_places_that_are_new),
		cmocka_unit_test(test_a_port_that_was_given_up_may_be_taken_again),
	};

	return cmocka_run_group_tests(tests, make_home, remove_home);
}
