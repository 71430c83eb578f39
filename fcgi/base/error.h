/*
 * error.h - what went wrong, told twice: to the user and to the operator.
 *
 * Every failure of a request ends as a `struct error`, made where the facts are known. `code` decides the
 * HTTP status (error_status); `detail` is Chinese UTF-8 text for the user; `cause` goes to the log only.
 * errno, CURLcode and redisReply never leave the module that met them.
 */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>

enum err {
	ERR_OK,
	ERR_BAD_REQUEST,      /* 400: the client's request cannot be understood */
	ERR_UNAUTHORIZED,     /* 401: API keys are configured and none or a wrong one came */
	ERR_FORBIDDEN,        /* 403: not an admin key, or another user's session */
	ERR_NOT_FOUND,        /* 404 */
	ERR_METHOD,           /* 405 */
	ERR_TOO_BIG,          /* 413: the request's body */
	ERR_MEDIA_TYPE,       /* 415 */
	ERR_NOMEM,            /* 503 */
	ERR_STORE,            /* 503: Redis cannot be reached or answered nonsense */
	ERR_SESSION_BUSY,     /* 409: the session's earlier messages took too long */
	ERR_RATE,             /* 503: too many wait for a slot at Coze */
	ERR_TOO_MANY,         /* 503: the worker has its hands full */
	ERR_STOPPING,         /* 503: the worker goes away and cannot wait for this */
	ERR_CIRCUIT,          /* 503: Coze is down, and not asked until it may be up again */
	ERR_COZE_CONFIG,      /* 500: Coze refuses us: token, bot or permission */
	ERR_COZE_REFUSED,     /* 400: Coze refuses this message or this conversation */
	ERR_COZE_BUSY,        /* 503: Coze is overloaded, over quota, or failed inside */
	ERR_COZE_UNREACHABLE, /* 503: no connection, or it broke */
	ERR_COZE_PROTOCOL,    /* 503: Coze said something that is not its protocol */
	ERR_COZE_EMPTY,       /* 503: completed without any text */
	ERR_TIMEOUT,          /* 503: one of the named time limits passed */
	ERR_ANSWER_TOO_BIG,   /* 503: an event or the answer is beyond its ceiling */
	ERR__COUNT
};

struct error {
	enum err code;
	unsigned retry_after_s; /* 0: the status' own default */
	char detail[400];       /* for the user: UTF-8, Chinese, never a secret */
	char cause[400]; /* for the operator: what was being done and what happened; never message text */
};

/* The HTTP status that `code` is answered with. */
int error_status(enum err code);

/* A short English name for logs, such as "coze_busy". */
const char *error_name(enum err code);

/* Seconds for the Retry-After header, or 0 when the status carries none. */
unsigned error_retry_after_s(const struct error *error);

/*
 * Fills `error` and returns `code`, so that a caller can write `return error_set(...)`.
 * `detail` may be NULL: then the code's own text is used. `cause` is a printf format.
 */
enum err error_set(struct error *error, enum err code, const char *detail, const char *cause, ...)
    __attribute__((format(printf, 4, 5)));

/* Replaces the user's text by a formatted one, cut at a UTF-8 character boundary when too long. */
void error_detail(struct error *error, const char *format, ...)
    __attribute__((nonnull, format(printf, 2, 3)));

#endif
