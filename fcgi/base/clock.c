/*
 * clock.c - see clock.h.
 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

uint64_t clock_unix_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void clock_iso(char out[CLOCK_ISO_SIZE], uint64_t unix_us)
{
	time_t seconds = (time_t)(unix_us / 1000000);
	struct tm local;
	char date[32];

	localtime_r(&seconds, &local);
	(void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &local);
	snprintf(out, CLOCK_ISO_SIZE, "%.19s.%06u", date, (unsigned)(unix_us % 1000000));
}
