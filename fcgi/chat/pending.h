/*
 * pending.h - a request that waits for one answer of the session store.
 *
 * The client may leave before the answer comes, and the answer always comes: so neither may hold the other.
 */
#ifndef CHAT_PENDING_H
#define CHAT_PENDING_H

#include "base/id.h"
#include "http/request.h"

struct pending {
	struct request *request; /* NULL once the client has left */
	void *app;               /* for the handler's own use */
	char session_id[ID_MAX + 1];
	char conversation_id[ID_MAX + 1];
};

/* Makes one for a request whose path names the session; NULL: out of memory, and the request has been answered. */
struct pending *pending_new(struct request *request);

/* The store could not even be asked: answers 503 and frees. */
void pending_refused(struct pending *pending, enum err err);

/* The store has answered: hands back the request (NULL when the client has left) and stops watching it. */
struct request *pending_answered(struct pending *pending);

#endif
