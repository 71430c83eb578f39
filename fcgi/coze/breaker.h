/*
 * breaker.h - a circuit breaker: while Coze is down, requests fail at once instead of waiting for it.
 *
 *   CLOSED ──failures in a row──▶ OPEN ──pause──▶ HALF-OPEN ──probe succeeds──▶ CLOSED
 *                                  ▲                  │
 *                                  └── probe fails ───┘  (the pause doubles)
 *
 * Pure: time is an argument. Only failures that mean "down" count: no connection, no answer, HTTP 5xx.
 */
#ifndef COZE_BREAKER_H
#define COZE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES     5    /* in a row, until it opens */
#define BREAKER_PAUSE_MS     2000 /* the first time that it is open */
#define BREAKER_PAUSE_MAX_MS 30000

struct breaker {
	unsigned failures; /* in a row */
	uint64_t pause_ms; /* 0: closed; else the length of the current pause */
	uint64_t until_ms; /* open: the end of the pause */
	bool probing;      /* half-open: one request is on its way */
};

enum breaker_verdict {
	BREAKER_PASS,
	BREAKER_PROBE, /* pass, as the one request that finds out; its outcome must be told */
	BREAKER_REFUSE
};

void breaker_init(struct breaker *breaker);

/* Whether a request would be refused now. Changes nothing. */
bool breaker_refuses(const struct breaker *breaker, uint64_t now_ms);

/* Open or half-open: Coze is, or was just now, down. */
bool breaker_is_open(const struct breaker *breaker);

/* A request wants to go. */
enum breaker_verdict breaker_ask(struct breaker *breaker, uint64_t now_ms);

/* Its outcome: Coze answered; Coze is down; or, of a probe, nobody knows, because the client left first. */
void breaker_succeeded(struct breaker *breaker);
void breaker_failed(struct breaker *breaker, bool probe, uint64_t now_ms);
void breaker_unknown(struct breaker *breaker);

/* Milliseconds until a probe may go; 0 when one may go now, or it is closed. */
uint64_t breaker_wait_ms(const struct breaker *breaker, uint64_t now_ms);

#endif
