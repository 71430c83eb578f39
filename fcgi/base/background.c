/*
 * background.c - see background.h.
 */
#include "base/background.h"

#include <sys/resource.h>

#define NICE 10 /* a tenth of the weight of a thread of 0 */

void background_thread(void)
{
	/* Linux has a priority per thread, and 0 is the one that asks. Failing is no matter. */
	setpriority(PRIO_PROCESS, 0, NICE);
}
