/*
 * sentinel_view.h - what Sentinels say of a master, and whom to believe.
 *
 * Sentinels number the configurations of a master: each failover makes a new one with a greater epoch, which the majority
 * has voted for. So of two words the one with the greater epoch is right, and a Sentinel that was cut off from the others
 * gives itself away by a smaller one. Pure functions; every byte of a reply is taken as hostile.
 */
#ifndef STORE_SENTINEL_VIEW_H
#define STORE_SENTINEL_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/redis.h"

/* One Sentinel's word, or what is believed. */
struct sentinel_word {
	bool named; /* it named a place; else the rest means nothing */
	uint64_t epoch;
	struct redis_place place;
};

/* The digits of an epoch. 0, the least, for anything else: then its Sentinel is believed when no other knows more. */
uint64_t sentinel_epoch(struct redis_arg digits);

/* True and *place filled when `host` is a name or an address, and `port` a port. */
bool sentinel_place(struct redis_place *place, struct redis_arg host, struct redis_arg port);

/* `word` tells of a later configuration than `known`. */
bool sentinel_is_news(const struct sentinel_word *known, const struct sentinel_word *word);

/* `word` says just what is known. */
bool sentinel_agrees(const struct sentinel_word *known, const struct sentinel_word *word);

/*
 * No one of `count` Sentinels has agreed with `known`, or told news. The word to believe then, or NULL: the greatest epoch's,
 * if it is not behind what is known, or if more than half of them are (they were set up anew). A smaller part of them may be
 * cut off from the rest, together with a master that is none any more.
 */
const struct sentinel_word *sentinel_fallback(const struct sentinel_word *known,
					      const struct sentinel_word *words, size_t count);

#endif
