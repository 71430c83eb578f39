/*
 * failure.h - turns what went wrong with Coze into an error for the user and a hint for the turn.
 *
 * Pure: no state, no I/O. Errors come in many shapes (coze-api section 3.5, 5); this is where they get one.
 */
#ifndef COZE_FAILURE_H
#define COZE_FAILURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "coze/event.h"
#include "coze/transport.h"

struct failure {
	struct error error;
	unsigned traits; /* of enum code_trait: what may help, if the message is sent again */
	bool cancelling; /* the chat was still running at Coze, and is being cancelled */
};

/* An error of our own making; `detail` as for error_set(). No traits. */
void failure_set(struct failure *failure, enum err err, const char *detail, const char *cause);

/*
 * Coze said {code, msg}: in JSON, in an error event, or in a failed chat. `msg` is shown to the user, cut
 * to a sane length.
 */
void failure_of_code(struct failure *failure, int64_t code, const struct event_text *msg);

/* Coze answered an HTTP status that is not 200; `code` is what its body said, or 0. */
void failure_of_status(struct failure *failure, long status, int64_t code);

/*
 * A call did not bring a whole answer. `doing` says what it was for, `why` what the transport said; both
 * for the log.
 */
void failure_of_call(struct failure *failure, enum call_end end, const char *doing, const char *why);

#endif
