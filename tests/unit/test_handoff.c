/*
 * test_handoff.c - descriptors that are passed on arrive, in order, close-on-exec, and a channel that is full or bad says
 * so instead of waiting.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "app/handoff.h"

static int open_handoff(void **state)
{
	static struct handoff handoff;

	*state = &handoff;
	return !handoff_open(&handoff);
}

static int close_handoff(void **state)
{
	struct handoff *handoff = *state;

	if (handoff->in >= 0)
		handoff_close(handoff);
	return 0;
}

/* A pipe's reading end, in which `mark` waits. */
static int marked_pipe(char mark)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], &mark, 1), 1);
	close(fds[1]);
	return fds[0];
}

static void assert_mark(int fd, char mark)
{
	char seen;

	assert_true(fd >= 0);
	assert_int_equal(read(fd, &seen, 1), 1);
	assert_int_equal(seen, mark);
	close(fd);
}

static void test_descriptors_arrive_in_order(void **state)
{
	struct handoff *handoff = *state;

	assert_int_equal(handoff_take(handoff), -1);
	for (const char *mark = "abcde"; *mark != '\0'; mark++) {
		int fd = marked_pipe(*mark);

		assert_true(handoff_give(handoff, fd));
		close(fd); /* the giver's copy is the giver's */
	}
	for (const char *mark = "abcde"; *mark != '\0'; mark++) {
		int fd = handoff_take(handoff);

		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		assert_mark(fd, *mark);
	}
	assert_int_equal(handoff_take(handoff), -1);
	assert_int_equal(errno, EAGAIN);
}

static void test_the_channel_is_nobody_else_s(void **state)
{
	struct handoff *handoff = *state;
	int fds[] = { handoff->in, handoff->out };

	for (size_t i = 0; i < COUNT(fds); i++) {
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
	}
}

/* A worker that drains has other things to do than to wait for its successor. */
static void test_a_full_channel_refuses_and_loses_nothing(void **state)
{
	struct handoff *handoff = *state;
	int fd = marked_pipe('a'), taken;
	unsigned given = 0, got = 0;

	while (given < 100000 && handoff_give(handoff, fd))
		given++;
	assert_in_range(given, 1, 99999);
	assert_int_equal(errno, EAGAIN);
	taken = handoff_take(handoff);
	assert_true(taken >= 0);
	close(taken);
	while (!handoff_give(handoff, fd)) { /* room comes in larger steps */
		taken = handoff_take(handoff);
		assert_true(taken >= 0);
		close(taken);
		got++;
	}
	while ((taken = handoff_take(handoff)) >= 0) {
		close(taken);
		got++;
	}
	assert_int_equal(got, given);
	close(fd);
}

static void test_a_bad_descriptor_is_not_passed_on(void **state)
{
	struct handoff *handoff = *state;

	assert_false(handoff_give(handoff, -1));
	assert_false(handoff_give(handoff, 999999));
	assert_int_equal(handoff_take(handoff), -1);
}

/* Whatever else comes through the channel is no descriptor. */
static void test_a_message_without_a_descriptor_is_none(void **state)
{
	struct handoff *handoff = *state;
	int fd = marked_pipe('a');

	assert_int_equal(send(handoff->out, "c", 1, 0), 1);
	assert_int_equal(send(handoff->out, "", 0, 0), 0);
	assert_int_equal(handoff_take(handoff), -1);
	assert_int_equal(handoff_take(handoff), -1);
	assert_true(handoff_give(handoff, fd));
	close(fd);
	assert_mark(handoff_take(handoff), 'a');
}

static void test_what_a_process_gave_outlives_it(void **state)
{
	struct handoff *handoff = *state;
	pid_t child = fork();
	int status;

	if (child == 0) {
		int fd = marked_pipe('z');

		_exit(handoff_give(handoff, fd) ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_mark(handoff_take(handoff), 'z');
}

/* Nobody will ever take what is left when the channel goes: its peer must see the end. */
static void test_what_nobody_took_is_closed_with_the_channel(void **state)
{
	struct handoff *handoff = *state;
	int fds[2];
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_true(handoff_give(handoff, fds[1]));
	close(fds[1]);
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), -1);
	handoff_close(handoff);
	assert_int_equal(handoff->in, -1);
	assert_int_equal(handoff->out, -1);
	assert_int_equal(recv(fds[0], &byte, 1, MSG_DONTWAIT), 0);
	close(fds[0]);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, open_handoff, close_handoff)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_descriptors_arrive_in_order),
		TEST(test_the_channel_is_nobody_else_s),
		TEST(test_a_full_channel_refuses_and_loses_nothing),
		TEST(test_a_bad_descriptor_is_not_passed_on),
		TEST(test_a_message_without_a_descriptor_is_none),
		TEST(test_what_a_process_gave_outlives_it),
		TEST(test_what_nobody_took_is_closed_with_the_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
