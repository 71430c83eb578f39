/*
 * retry.h - when to ask Coze again: back-off, and a budget that keeps an outage from being multiplied.
 *
 * Pure arithmetic: time and randomness are arguments.
 */
#ifndef COZE_RETRY_H
#define COZE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The pause before retry number `attempt` (from 1): 0.5 * 2^(attempt-1) seconds, at most 30, give or take a quarter by
 * `random` (0 to 1); longer, with up to half a second on top, when
 * Coze said Retry-After.
 */
uint64_t retry_pause_ms(unsigned attempt, unsigned retry_after_s, double random);

/*
 * Retries are paid for by requests: each earns a tenth of one, up to ten times RETRY_SAVINGS. So that a service with few
 * requests can retry, too, one a second is given, up to RETRY_SAVINGS.
 */
#define RETRY_SAVINGS 10

struct retry_budget {
	double savings; /* retries that may be made now */
	uint64_t since_ms;
};

void retry_budget_init(struct retry_budget *budget, uint64_t now_ms);

/* A request (not a retry) is made. */
void retry_budget_earn(struct retry_budget *budget, uint64_t now_ms);

/* Takes one retry out; false when there is none. */
bool retry_budget_spend(struct retry_budget *budget, uint64_t now_ms);

#endif
