/*
 * pending.c - see pending.h.
 */
#include "chat/pending.h"

#include <stdio.h>
#include <stdlib.h>

#include "http/response.h"

static void on_leave(void *arg)
{
	struct pending *pending = arg;

	pending->request = NULL;
}

struct pending *pending_new(struct request *request)
{
	struct pending *pending = calloc(1, sizeof *pending);
	struct error error;

	if (pending == NULL) {
		error_set(&error, ERR_NOMEM, NULL, "memory for a pending request");
		response_error(request, &error);
		return NULL;
	}
	pending->request = request;
	snprintf(pending->session_id, sizeof pending->session_id, "%s", request->path_id);
	request->doing = "waiting for redis";
	request_watch(request, on_leave, NULL, pending);
	return pending;
}

struct request *pending_answered(struct pending *pending)
{
	if (pending->request != NULL)
		request_watch(pending->request, NULL, NULL, NULL);
	return pending->request;
}

void pending_refused(struct pending *pending, enum err err)
{
	struct request *request = pending_answered(pending);
	struct error error;

	error_set(&error, err, NULL, "asking redis");
	response_error(request, &error);
	free(pending);
}
