/*
 * code.h - Coze's error codes (coze-api section 5.1) and HTTP statuses (5.2), and what each means for us.
 */
#ifndef COZE_CODE_H
#define COZE_CODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum code_trait {
	CODE_RETRY = 1,             /* passes by itself: ask again after a pause, if no text was delivered */
	CODE_OCCUPIED = 2,          /* a chat is still running in this conversation */
	CODE_DROP_CONVERSATION = 4, /* the conversation is unknown there: forget it */
	CODE_ALARM = 8,             /* an operator has to act: balance, quota, token */
	CODE_DOWN = 16              /* Coze as a whole does not work: no connection, no answer, HTTP 5xx */
};

struct code {
	int64_t code;
	enum err err;
	unsigned traits;     /* of enum code_trait */
	const char *meaning; /* for the log */
};

/* The entry of a Coze code; an unknown one gets an entry that is not retried. Never NULL. */
const struct code *code_find(int64_t code);

/* The error class of an HTTP status of 400 or more (or of a redirect, which Coze never sends). */
enum err code_of_status(long status);

/* Whether a request that got this status may fare better soon: 429, 500, 502, 503, 504. */
bool code_status_passes(long status);

/* The standard reason phrase of a status, such as "Unauthorized"; "" when it has none. */
const char *code_status_reason(long status);

#endif
