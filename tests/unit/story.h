/*
 * story.h - a module's world on its own clock: what happens in it is told in words, and time goes by when the test says so.
 *
 * For tests that play the neighbours of the module under test: each call that it makes to them adds a word, so a test says
 * what has happened, in which order, and that nothing else has. The test's `struct world` has the loop, `uv_loop_t loop`, and
 * what has happened, `struct story story`. Stands in front of glibc's clock for the whole program.
 */
#ifndef STORY_H
#define STORY_H

#include "unit.h"

#include <time.h>
#include <uv.h>

struct story {
	char text[1024]; /* the words since the last assert_story() */
};

static uint64_t clock_ms = 1000000;

/* Instead of glibc's: libuv asks it, too. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	(void)id;
	now->tv_sec = (time_t)(clock_ms / 1000);
	now->tv_nsec = (long)(clock_ms % 1000) * 1000000;
	return 0;
}

/* Time goes by, from one timer of the loop to the next. */
#define pass(world, ms) story_pass(&(world)->loop, ms)

static inline void story_pass(uv_loop_t *loop, uint64_t ms)
{
	uint64_t end = clock_ms + ms;

	do {
		uint64_t left = end - clock_ms;
		uint64_t next = uv_loop_alive(loop) ? (uint64_t)uv_backend_timeout(loop) : left;

		clock_ms += next < left ? next : left;
		uv_run(loop, UV_RUN_NOWAIT);
	} while (clock_ms < end);
}

/* A word, as of printf(). */
#define tell(world, ...) story_tell(&(world)->story, __VA_ARGS__)

static inline void story_tell(struct story *story, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline void story_tell(struct story *story, const char *format, ...)
{
	size_t len = strlen(story->text);
	va_list args;

	if (len > 0 && len + 1 < sizeof story->text)
		story->text[len++] = ' ';
	va_start(args, format);
	vsnprintf(story->text + len, sizeof story->text - len, format, args);
	va_end(args);
}

/* What has happened since the last time, in order, and nothing else. */
#define assert_story(world, words)                               \
	do {                                                     \
		assert_string_equal((world)->story.text, words); \
		story_forget(&(world)->story);                   \
	} while (0)

static inline void story_forget(struct story *story)
{
	story->text[0] = '\0';
}

#endif
