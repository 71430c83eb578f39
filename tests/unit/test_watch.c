/*
 * test_watch.c - what happens on sockets is told to whoever wants it, a connection that nobody reads is noticed, and nothing
 * is left of what is watched no more.
 */
#include "unit.h"

#include "failing_alloc.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "coze/watch.h"

#define FUTILE 1000 /* times that a socket may be readable for nothing */
#define HIGH   300  /* a descriptor beyond the first table's end */

struct fixture {
	uv_loop_t loop;
	struct watches watches;
	int fd, peer;  /* a connection: ours, and the other end */
	unsigned told; /* how often something was */
	int fd_told, events;
	unsigned unread; /* how often it was told that nobody reads */
	bool useful;     /* that something happened */
	void (*then)(struct fixture *fixture);
};

static bool on_event(void *arg, int fd, int events)
{
	struct fixture *fixture = arg;

	fixture->told++;
	fixture->fd_told = fd;
	fixture->events = events;
	if (fixture->then != NULL)
		fixture->then(fixture);
	return fixture->useful;
}

static void on_unread(void *arg, int fd)
{
	struct fixture *fixture = arg;

	assert_int_equal(fd, fixture->fd);
	fixture->unread++;
}

static const struct watch_ops ops = { .on_event = on_event, .on_unread = on_unread };

static void open_pair(struct fixture *fixture)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	fixture->fd = fds[0];
	fixture->peer = fds[1];
}

static void open_watches(struct fixture *fixture)
{
	memset(fixture, 0, sizeof *fixture);
	assert_int_equal(uv_loop_init(&fixture->loop), 0);
	watches_init(&fixture->watches, &fixture->loop, &ops, fixture);
	open_pair(fixture);
}

/* No handle is left, nor memory: AddressSanitizer would tell. */
static void close_watches(struct fixture *fixture)
{
	watches_fini(&fixture->watches);
	uv_run(&fixture->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&fixture->loop), 0);
	close(fixture->fd);
	close(fixture->peer);
}

static int set_up(void **state)
{
	struct fixture *fixture = (struct fixture *)get_memory(sizeof *fixture);

	open_watches(fixture);
	*state = fixture;
	return 0;
}

static int tear_down(void **state)
{
	close_watches(*state);
	free(*state);
	return 0;
}

/* What has happened by now is told. */
static void look(struct fixture *fixture)
{
	fixture->told = 0;
	uv_run(&fixture->loop, UV_RUN_NOWAIT);
}

static void say(const struct fixture *fixture, const char *words)
{
	assert_int_equal(write(fixture->peer, words, strlen(words)), strlen(words));
}

static void assert_heard(int fd, const char *words)
{
	char bytes[100];
	ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);

	assert_bytes(bytes, got > 0 ? (size_t)got : 0, words, strlen(words));
}

static void test_what_is_wanted_is_told(void **state)
{
	struct fixture *f = *state;

	assert_true(watch_add(&f->watches, f->fd));
	say(f, "a");
	look(f);
	assert_int_equal(f->told, 0);
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	look(f);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->fd_told, f->fd);
	assert_int_equal(f->events, UV_READABLE);
	assert_true(watch_set(&f->watches, f->fd, UV_WRITABLE));
	look(f);
	assert_int_equal(f->events, UV_WRITABLE);
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE | UV_WRITABLE));
	look(f);
	assert_int_equal(f->events, UV_READABLE | UV_WRITABLE);
	watch_remove(&f->watches, f->fd);
	look(f);
	assert_int_equal(f->told, 0);
	watch_remove(&f->watches, f->fd);
	watch_unset(&f->watches, f->fd);
}

/* It stays watched for reading, until something comes that nobody wants: that must not make the loop spin. */
static void test_a_kept_connection_is_silent_until_it_is_wanted(void **state)
{
	struct fixture *f = *state;

	assert_true(watch_add(&f->watches, f->fd));
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	watch_unset(&f->watches, f->fd);
	assert_true(uv_loop_alive(&f->loop));
	say(f, "a");
	look(f);
	assert_int_equal(f->told, 0);
	assert_false(uv_loop_alive(&f->loop));
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	look(f);
	assert_int_equal(f->told, 1);
	assert_true(watch_set(&f->watches, f->fd, UV_WRITABLE));
	watch_unset(&f->watches, f->fd);
	assert_false(uv_loop_alive(&f->loop));
}

/* One of libcurl's own is closed without a word: another socket may have its number next. */
static void test_a_socket_that_was_not_added_is_forgotten(void **state)
{
	struct fixture *f = *state;
	int number;

	number = f->fd;
	watch_unset(&f->watches, f->fd);
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	watch_unset(&f->watches, f->fd);
	close(f->fd);
	close(f->peer);
	open_pair(f);
	assert_int_equal(f->fd, number);
	assert_true(watch_add(&f->watches, f->fd));
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	say(f, "a");
	look(f);
	assert_int_equal(f->told, 1);
}

static void test_any_descriptor_may_be_watched(void **state)
{
	struct fixture *f = *state;
	int high;

	high = fcntl(f->fd, F_DUPFD_CLOEXEC, HIGH);
	assert_true(high >= HIGH);
	watch_remove(&f->watches, high);
	assert_true(watch_add(&f->watches, f->fd));
	assert_true(watch_add(&f->watches, high));
	assert_true(watch_set(&f->watches, high, UV_READABLE));
	say(f, "a");
	look(f);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->fd_told, high);
	close(f->fd);
	f->fd = high;
}

static void test_without_memory_a_socket_is_not_watched(void **state)
{
	struct fixture *f = *state;
	size_t bytes = 0;

	for (;; bytes += 16) {
		bool watched;

		alloc_leave(bytes);
		watched = watch_set(&f->watches, f->fd, UV_READABLE);
		assert_true(alloc_failed() != watched);
		if (watched)
			break;
		assert_false(uv_loop_alive(&f->loop));
	}
	assert_true(bytes > 0);
	say(f, "a");
	look(f);
	assert_int_equal(f->told, 1);
}

/* ---- a connection that nobody reads ---- */

static void open_unread(struct fixture *fixture)
{
	open_watches(fixture);
	assert_true(watch_add(&fixture->watches, fixture->fd));
	assert_true(watch_set(&fixture->watches, fixture->fd, UV_READABLE));
	say(fixture, "words that nobody reads");
}

static int set_up_unread(void **state)
{
	struct fixture *fixture = (struct fixture *)get_memory(sizeof *fixture);

	open_unread(fixture);
	*state = fixture;
	return 0;
}

static void look_often(struct fixture *fixture, unsigned times)
{
	for (unsigned i = 0; i < times; i++)
		look(fixture);
}

static void read_one(struct fixture *fixture)
{
	char byte;

	assert_int_equal(recv(fixture->fd, &byte, 1, MSG_DONTWAIT), 1);
}

static void unset(struct fixture *fixture)
{
	watch_unset(&fixture->watches, fixture->fd);
}

static void test_a_connection_that_nobody_reads_is_told_of(void **state)
{
	struct fixture *f = *state;

	look_often(f, FUTILE);
	assert_int_equal(f->unread, 0);
	look(f);
	assert_int_equal(f->unread, 1);
	look_often(f, FUTILE);
	assert_int_equal(f->unread, 1);
	look(f);
	assert_int_equal(f->unread, 2);
}

static void test_what_is_useful_once_in_a_while_is_not_unread(void **state)
{
	struct fixture *f = *state;

	look_often(f, FUTILE);
	f->useful = true;
	look(f);
	f->useful = false;
	look_often(f, FUTILE);
	assert_true(watch_set(&f->watches, f->fd, UV_WRITABLE)); /* what is written is useful, too */
	look(f);
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	look_often(f, FUTILE);
	assert_int_equal(f->unread, 0);
	look(f);
	assert_int_equal(f->unread, 1);
}

static void test_what_is_read_in_silence_is_not_unread(void **state)
{
	struct fixture *f = *state;

	look_often(f, FUTILE);
	f->then = read_one;
	look(f);
	f->then = NULL;
	look_often(f, FUTILE);
	assert_int_equal(f->unread, 0);
	f->then = unset; /* nobody wants to read it any more: it is not for lack of doing so */
	look(f);
	assert_int_equal(f->unread, 0);
}

/* ---- ends ---- */

/* The peer has not read all that was sent when it closes: that is an error of the socket, behind its last words. */
static void test_a_broken_connection_is_told_before_its_last_words_are_read(void **state)
{
	struct fixture *f = *state;

	assert_true(watch_add(&f->watches, f->fd));
	assert_true(watch_set(&f->watches, f->fd, UV_READABLE));
	assert_int_equal(write(f->fd, "unread", 6), 6);
	say(f, "last words");
	close(f->peer);
	f->events = -1;
	look(f);
	assert_int_equal(f->told, 1);
	assert_int_equal(f->events, 0);
	f->events = -1;
	look(f); /* it is still watched */
	assert_int_equal(f->told, 1);
	assert_int_equal(f->events, 0);
	assert_heard(f->fd, "last words");
	watch_unset(&f->watches, f->fd);
	look(f);
	look(f);
	assert_int_equal(f->told, 0);
	assert_false(uv_loop_alive(&f->loop));
	f->peer = -1;
}

static void remove_it(struct fixture *fixture)
{
	watch_remove(&fixture->watches, fixture->fd);
}

/* Another connection takes the number while the end of the one before is still being told. */
static void replace_it(struct fixture *fixture)
{
	int number = fixture->fd;

	watch_remove(&fixture->watches, fixture->fd);
	close(fixture->fd);
	close(fixture->peer);
	open_pair(fixture);
	assert_int_equal(fixture->fd, number);
	assert_true(watch_add(&fixture->watches, fixture->fd));
	assert_true(watch_set(&fixture->watches, fixture->fd, UV_READABLE));
	say(fixture, "a");
}

static void end_all(struct fixture *fixture)
{
	watches_fini(&fixture->watches);
}

static void test_a_socket_may_be_removed_while_it_is_told_of(void **state)
{
	static void (*const ways[])(struct fixture *) = { remove_it, replace_it, end_all };

	(void)state;
	for (size_t i = 0; i < COUNT(ways); i++) {
		for (int broken = 0; broken < 2; broken++) {
			struct fixture f;

			open_unread(&f);
			look_often(&f, FUTILE);
			if (broken) {
				assert_int_equal(write(f.fd, "unread", 6), 6);
				shutdown(f.peer, SHUT_RDWR);
				close(f.peer);
				f.peer = -1;
			}
			f.then = ways[i];
			look(&f);
			assert_int_equal(f.told, 1);
			assert_int_equal(f.unread, 0);
			f.then = NULL;
			look(&f);
			assert_int_equal(f.told, ways[i] == replace_it);
			close_watches(&f);
		}
	}
}

static void test_an_ended_connection_is_at_its_end_at_once(void **state)
{
	static const char words[20000];
	struct fixture *f = *state;
	char byte;

	assert_int_equal(write(f->peer, words, sizeof words), sizeof words);
	watch_end_connection(f->fd);
	assert_int_equal(recv(f->fd, &byte, 1, MSG_DONTWAIT), 0);
	assert_int_equal(recv(f->peer, &byte, 1, MSG_DONTWAIT), 0);
}

static void test_the_local_port_is_told(void **state)
{
	static const int families[] = { AF_INET, AF_INET6 };
	struct fixture *f = *state;

	assert_int_equal(watch_local_port(f->fd), 0);
	assert_int_equal(watch_local_port(-1), 0);
	for (size_t i = 0; i < COUNT(families); i++) {
		struct sockaddr_in6 address = { .sin6_family = (sa_family_t)families[i] };
		socklen_t len = sizeof address;
		int fd = socket(families[i], SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 && errno == EAFNOSUPPORT)
			continue;
		assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
		assert_int_equal(watch_local_port(fd), ntohs(address.sin6_port));
		assert_int_not_equal(watch_local_port(fd), 0);
		close(fd);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_wanted_is_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_kept_connection_is_silent_until_it_is_wanted, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_socket_that_was_not_added_is_forgotten, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_any_descriptor_may_be_watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_without_memory_a_socket_is_not_watched, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_connection_that_nobody_reads_is_told_of, set_up_unread,
						tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_useful_once_in_a_while_is_not_unread,
						set_up_unread, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_read_in_silence_is_not_unread, set_up_unread,
						tear_down),
		cmocka_unit_test_setup_teardown(
		    test_a_broken_connection_is_told_before_its_last_words_are_read, set_up, tear_down),
		cmocka_unit_test(test_a_socket_may_be_removed_while_it_is_told_of),
		cmocka_unit_test_setup_teardown(test_an_ended_connection_is_at_its_end_at_once, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_the_local_port_is_told, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
