/*
 * retry.c - see retry.h.
 */
#include "coze/retry.h"

#define FIRST_MS       500
#define TIMER_SLACK_MS 5 /* a loop's timer may be that early, by the wall clock */
#define LONGEST_MS     30000
#define EARNED         0.1   /* per request */
#define GIVEN_PER_MS   0.001 /* so that a service with few requests can retry, too */
#define SAVINGS_EARNED 100   /* most that requests can save up; idling saves up to RETRY_SAVINGS only */

uint64_t retry_pause_ms(unsigned attempt, unsigned retry_after_s, double random)
{
	unsigned doublings = attempt > 0 ? attempt - 1 : 0;
	uint64_t pause = doublings < 6 ? (uint64_t)FIRST_MS << doublings : LONGEST_MS;
	uint64_t asked = (uint64_t)retry_after_s * 1000;

	pause = (uint64_t)((double)pause * (0.75 + random / 2));
	/* Who were told the same seconds must not come back in the same instant, nor before. */
	asked += asked > 0 ? TIMER_SLACK_MS + (uint64_t)(random * FIRST_MS) : 0;
	return pause > asked ? pause : asked;
}

static void catch_up(struct retry_budget *budget, uint64_t now_ms)
{
	double given = (double)(now_ms - budget->since_ms) * GIVEN_PER_MS;

	budget->since_ms = now_ms;
	if (budget->savings >= RETRY_SAVINGS)
		return;
	budget->savings = budget->savings + given < RETRY_SAVINGS ? budget->savings + given : RETRY_SAVINGS;
}

void retry_budget_init(struct retry_budget *budget, uint64_t now_ms)
{
	*budget = (struct retry_budget){ RETRY_SAVINGS, now_ms };
}

void retry_budget_earn(struct retry_budget *budget, uint64_t now_ms)
{
	catch_up(budget, now_ms);
	if (budget->savings < SAVINGS_EARNED)
		budget->savings += EARNED;
}

bool retry_budget_spend(struct retry_budget *budget, uint64_t now_ms)
{
	catch_up(budget, now_ms);
	if (budget->savings < 1)
		return false;
	budget->savings -= 1;
	return true;
}
