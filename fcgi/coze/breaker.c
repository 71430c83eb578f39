/*
 * breaker.c - see breaker.h.
 */
#include "coze/breaker.h"

void breaker_init(struct breaker *breaker)
{
	*breaker = (struct breaker){ 0 };
}

bool breaker_is_open(const struct breaker *breaker)
{
	return breaker->pause_ms > 0;
}

bool breaker_refuses(const struct breaker *breaker, uint64_t now_ms)
{
	return breaker_is_open(breaker) && (breaker->probing || now_ms < breaker->until_ms);
}

enum breaker_verdict breaker_ask(struct breaker *breaker, uint64_t now_ms)
{
	if (!breaker_is_open(breaker))
		return BREAKER_PASS;
	if (breaker_refuses(breaker, now_ms))
		return BREAKER_REFUSE;
	breaker->probing = true;
	return BREAKER_PROBE;
}

void breaker_succeeded(struct breaker *breaker)
{
	breaker_init(breaker);
}

static void open_for(struct breaker *breaker, uint64_t pause_ms, uint64_t now_ms)
{
	breaker->pause_ms = pause_ms < BREAKER_PAUSE_MAX_MS ? pause_ms : BREAKER_PAUSE_MAX_MS;
	breaker->until_ms = now_ms + breaker->pause_ms;
	breaker->probing = false;
}

/* Requests that left before it opened still fail while it is open: they tell nothing new. */
void breaker_failed(struct breaker *breaker, bool probe, uint64_t now_ms)
{
	breaker->failures++;
	if (probe)
		open_for(breaker, breaker->pause_ms * 2, now_ms);
	else if (!breaker_is_open(breaker) && breaker->failures >= BREAKER_FAILURES)
		open_for(breaker, BREAKER_PAUSE_MS, now_ms);
}

void breaker_unknown(struct breaker *breaker)
{
	breaker->probing = false;
}

uint64_t breaker_wait_ms(const struct breaker *breaker, uint64_t now_ms)
{
	return breaker_is_open(breaker) && breaker->until_ms > now_ms ? breaker->until_ms - now_ms : 0;
}
