/*
 * handoff.c - see handoff.h.
 */
#include "app/handoff.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor, aligned as the kernel wants it. */
union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int))];
};

bool handoff_open(struct handoff *handoff)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0)
		return false;
	handoff->in = fds[0];
	handoff->out = fds[1];
	return true;
}

void handoff_close(struct handoff *handoff)
{
	close(handoff->in);
	close(handoff->out);
	handoff->in = handoff->out = -1;
}

bool handoff_give(const struct handoff *handoff, int fd)
{
	union control control = { .bytes = "" };
	struct iovec byte = { (char[]){ 'c' }, 1 };
	struct msghdr message = { .msg_iov = &byte,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	return sendmsg(handoff->out, &message, MSG_NOSIGNAL) == 1;
}

int handoff_take(const struct handoff *handoff)
{
	union control control = { .bytes = "" };
	char byte;
	struct iovec room = { &byte, 1 };
	struct msghdr message = { .msg_iov = &room,
				  .msg_iovlen = 1,
				  .msg_control = control.bytes,
				  .msg_controllen = sizeof control.bytes };
	struct cmsghdr *header;
	int fd;

	if (recvmsg(handoff->in, &message, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof fd))
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof fd);
	return fd;
}
