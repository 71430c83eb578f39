/*
 * handoff.h - idle connections go from a draining worker to its successor.
 *
 * nginx keeps connections, and one that a worker closed might be just the one that the next request is sent on: a POST that
 * was sent is not sent again. So a worker that leaves closes none: it passes their descriptors on (SCM_RIGHTS, see unix(7)).
 * What nginx sends meanwhile waits in the socket. A place in the fleet has one channel, which all its workers inherit.
 */
#ifndef APP_HANDOFF_H
#define APP_HANDOFF_H

#include <stdbool.h>

struct handoff {
	int in, out; /* close-on-exec, non-blocking */
};

/* False: errno says why. */
bool handoff_open(struct handoff *handoff);
void handoff_close(struct handoff *handoff);

/* Passes a descriptor on; the caller still has its own copy to close. False: the channel is full just now. */
bool handoff_give(const struct handoff *handoff, int fd);

/* The next descriptor that was passed on, close-on-exec, now the caller's; -1 when there is none. */
int handoff_take(const struct handoff *handoff);

#endif
