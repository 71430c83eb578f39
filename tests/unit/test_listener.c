/*
 * test_listener.c - each worker has a socket of its own name, a socket in use is never taken away from anybody, and what
 * cannot be listened on is told in a line.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "app/config.h"
#include "app/listener.h"

static char directory[] = "/tmp/test_listener.XXXXXX";

static int make_directory(void **state)
{
	(void)state;
	return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink("worker-0.sock");
	return chdir("/") != 0 || rmdir(directory) != 0;
}

static void assert_name(const char *run_dir, const char *listen, size_t index, const char *expected)
{
	struct config config = { .run_dir = (char *)run_dir, .worker_listen = (char *)listen };
	char name[LISTENER_NAME_SIZE] = "";
	struct buf problems;

	buf_init(&problems, 4096);
	assert_true(listener_name(name, &config, index, &problems));
	assert_string_equal(name, expected);
	assert_int_equal(buf_size(&problems), 0);
	buf_free(&problems);
}

static void assert_no_name(const char *run_dir, const char *listen, size_t index, const char *problem)
{
	struct config config = { .run_dir = (char *)run_dir, .worker_listen = (char *)listen };
	char name[LISTENER_NAME_SIZE];
	struct buf problems;
	char *text;

	buf_init(&problems, 4096);
	assert_false(listener_name(name, &config, index, &problems));
	text = buf_string(&problems);
	assert_contains(text, problem);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	free(text);
	buf_free(&problems);
}

static void test_each_worker_has_its_name(void **state)
{
	(void)state;
	assert_name("/run/x", "", 0, "/run/x/worker-0.sock");
	assert_name("/run/with blanks", "", 511, "/run/with blanks/worker-511.sock");
	assert_name("/run/x", "127.0.0.1:9000", 0, "127.0.0.1:9000");
	assert_name("/run/x", "127.0.0.1:9000", 3, "127.0.0.1:9003");
	assert_name("/run/x", "[::1]:09000", 1, "[::1]:9001");
	assert_name("/run/x", "h:65535", 0, "h:65535");
	assert_no_name("/run/x", "h:65535", 1, "WORKER_LISTEN=h:65535: has no port above it for worker 1");
}

static void test_a_socket_s_path_has_a_largest_length(void **state)
{
	char run_dir[200], expected[300];
	size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1 - strlen("/worker-0.sock");

	(void)state;
	memset(run_dir, 'd', sizeof run_dir);
	run_dir[0] = '/';
	run_dir[most] = '\0';
	snprintf(expected, sizeof expected, "%s/worker-0.sock", run_dir);
	assert_name(run_dir, "", 0, expected);
	assert_no_name(run_dir, "", 10, "must be shorter, a socket's path has at most 107 bytes");
	run_dir[most] = 'd';
	run_dir[most + 1] = '\0';
	assert_no_name(run_dir, "", 0, "must be shorter");
}

static void test_the_longest_host_has_room(void **state)
{
	char address[300], expected[300];

	(void)state;
	memset(address, 'h', 255);
	snprintf(address + 255, sizeof address - 255, ":1");
	memset(expected, 'h', 255);
	snprintf(expected + 255, sizeof expected - 255, ":512");
	assert_name("/run", address, 511, expected);
}

static int open_good(const char *name)
{
	struct buf problems;
	int fd;

	buf_init(&problems, 4096);
	fd = listener_open(name, &problems);
	if (fd < 0)
		fail_msg("%.*s", (int)buf_size(&problems), buf_bytes(&problems));
	assert_int_equal(buf_size(&problems), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	buf_free(&problems);
	return fd;
}

static void assert_refused(const char *name, const char *why)
{
	struct buf problems;
	char expected[500];
	char *text;

	buf_init(&problems, 4096);
	assert_int_equal(listener_open(name, &problems), -1);
	text = buf_string(&problems);
	snprintf(expected, sizeof expected, "cannot listen on %s: %s", name, why);
	assert_contains(text, expected);
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	free(text);
	buf_free(&problems);
}

static bool connects(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good;

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	good = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
	close(fd);
	return good;
}

static void test_a_socket_in_use_is_left_alone(void **state)
{
	char path[100];
	int fd;

	(void)state;
	snprintf(path, sizeof path, "%s/worker-0.sock", directory);
	fd = open_good(path);
	assert_true(connects(path));
	assert_refused(path, "it is in use: another one runs in this RUN_DIR\n");
	assert_true(connects(path));
	close(fd);
	/* Left over from a crash. */
	assert_false(connects(path));
	fd = open_good(path);
	assert_true(connects(path));
	listener_unlink(path);
	assert_int_equal(access(path, F_OK), -1);
	close(fd);
}

/* Its queue is full, but somebody does listen. */
static void test_a_socket_with_a_full_queue_is_in_use(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), waiting[8];
	struct timeval at_once = { 0, 1000 };
	char path[100];

	(void)state;
	snprintf(path, sizeof path, "%s/worker-0.sock", directory);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 0), 0);
	for (size_t i = 0; i < COUNT(waiting); i++) {
		waiting[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(waiting[i], SOL_SOCKET, SO_SNDTIMEO, &at_once, sizeof at_once);
		if (connect(waiting[i], (struct sockaddr *)&address, sizeof address) != 0)
			assert_true(i > 0);
	}
	alarm(20); /* asking must not wait for room in the queue */
	assert_refused(path, "it is in use");
	alarm(0);
	assert_int_equal(access(path, F_OK), 0);
	for (size_t i = 0; i < COUNT(waiting); i++)
		close(waiting[i]);
	close(fd);
	unlink(path);
}

static void test_what_is_in_the_way_is_told(void **state)
{
	char path[100];

	(void)state;
	assert_refused("/nowhere/worker-0.sock", "No such file or directory\n");
	snprintf(path, sizeof path, "%s/worker-0.sock", directory);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_refused(path, "Address already in use\n");
	assert_int_equal(rmdir(path), 0);
}

static unsigned port_of(int fd)
{
	struct sockaddr_in address;
	socklen_t len = sizeof address;

	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	return ntohs(address.sin_port);
}

static void test_tcp_ports_are_listened_on(void **state)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd, client, on;
	socklen_t len = sizeof on;
	char name[40];

	(void)state;
	assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(other, 1), 0);
	snprintf(name, sizeof name, "127.0.0.1:%u", port_of(other));
	assert_refused(name, "Address already in use\n");
	address.sin_port = htons((uint16_t)port_of(other));
	close(other);
	fd = open_good(name);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len), 0);
	assert_int_equal(on, 1);
	/* A successor can listen although connections of before linger. */
	close(accept(fd, NULL, NULL));
	close(fd);
	fd = open_good(name);
	close(client);
	close(fd);
	listener_unlink(name); /* there is no file to it */
}

static void test_ipv6_is_listened_on(void **state)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };

	(void)state;
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0)
		skip(); /* a machine without IPv6 */
	close(fd);
	fd = open_good("[::1]:0");
	close(fd);
}

static void test_unknown_hosts_are_told(void **state)
{
	(void)state;
	assert_refused("no_such_host.invalid:9000", "");
	assert_refused("[1.2.3.4:9000", "");
}

static void assert_check(const char *listen, size_t workers, const char *held, const char *problem)
{
	struct config config = { .run_dir = directory, .worker_listen = (char *)listen, .workers = workers };
	struct buf problems;
	char *text;

	buf_init(&problems, 4096);
	assert_int_equal(listener_check(&config, held, &problems), problem[0] == '\0');
	text = buf_string(&problems);
	assert_int_equal(text[0] == '\0', problem[0] == '\0');
	assert_contains(text, problem);
	free(text);
	buf_free(&problems);
}

/* Before a reload: what could go wrong is found out, and nothing is left behind. */
static void test_sockets_are_tried(void **state)
{
	char path[100], held[300], name[40];
	int fd, tcp;

	(void)state;
	snprintf(path, sizeof path, "%s/worker-0.sock", directory);
	assert_check("", 2, "", "");
	assert_int_equal(access(path, F_OK), -1);
	fd = open_good(path);
	assert_check("", 2, "", "it is in use");
	assert_check("", 2, NULL, "");
	snprintf(held, sizeof held, "/other\n%s\n", path);
	assert_check("", 2, held, "");
	held[strlen(held) - 1] = '\0';
	assert_check("", 2, held, "");
	snprintf(held, sizeof held, "%s2\nx%s\n", path, path);
	assert_check("", 2, held, "it is in use");
	assert_true(connects(path));
	close(fd);
	unlink(path);
	tcp = open_good("127.0.0.1:0");
	snprintf(name, sizeof name, "127.0.0.1:%u", port_of(tcp));
	assert_check(name, 1, "", "Address already in use");
	assert_check(name, 1, name, "");
	assert_check(name, 1, NULL, "");
	close(tcp);
	assert_check(name, 1, "", "");
	assert_check("127.0.0.1:65535", 2, NULL, "no port above");
	assert_check("127.0.0.1:65535", 2, "127.0.0.1:65535\n", "no port above");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_worker_has_its_name),
		cmocka_unit_test(test_a_socket_s_path_has_a_largest_length),
		cmocka_unit_test(test_the_longest_host_has_room),
		cmocka_unit_test(test_a_socket_in_use_is_left_alone),
		cmocka_unit_test(test_a_socket_with_a_full_queue_is_in_use),
		cmocka_unit_test(test_what_is_in_the_way_is_told),
		cmocka_unit_test(test_tcp_ports_are_listened_on),
		cmocka_unit_test(test_ipv6_is_listened_on),
		cmocka_unit_test(test_unknown_hosts_are_told),
		cmocka_unit_test(test_sockets_are_tried),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
