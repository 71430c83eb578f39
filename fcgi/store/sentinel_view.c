/*
 * sentinel_view.c - see sentinel_view.h.
 */
#include "store/sentinel_view.h"

#include <string.h>

uint64_t sentinel_epoch(struct redis_arg digits)
{
	uint64_t epoch = 0;

	for (size_t i = 0; i < digits.len; i++) {
		unsigned digit = (unsigned char)digits.bytes[i] - '0';

		if (digit > 9 || epoch > (UINT64_MAX - digit) / 10)
			return 0;
		epoch = epoch * 10 + digit;
	}
	return epoch;
}

static bool is_host(struct redis_arg host)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_";

	if (host.len == 0 || host.len >= sizeof((struct redis_place *)NULL)->host)
		return false;
	for (size_t i = 0; i < host.len; i++)
		if (memchr(allowed, host.bytes[i], sizeof allowed - 1) == NULL)
			return false;
	return true;
}

static bool is_port(struct redis_arg port)
{
	uint64_t number = sentinel_epoch(port);

	return port.len <= 5 && number >= 1 && number <= 65535;
}

bool sentinel_place(struct redis_place *place, struct redis_arg host, struct redis_arg port)
{
	if (!is_host(host) || !is_port(port))
		return false;
	*place = (struct redis_place){ 0 };
	memcpy(place->host, host.bytes, host.len);
	memcpy(place->port, port.bytes, port.len);
	return true;
}

bool sentinel_is_news(const struct sentinel_word *known, const struct sentinel_word *word)
{
	return word->named && (!known->named || word->epoch > known->epoch);
}

bool sentinel_agrees(const struct sentinel_word *known, const struct sentinel_word *word)
{
	return word->named && known->named && word->epoch == known->epoch &&
	       strcmp(word->place.host, known->place.host) == 0 &&
	       strcmp(word->place.port, known->place.port) == 0;
}

const struct sentinel_word *sentinel_fallback(const struct sentinel_word *known,
					      const struct sentinel_word *words, size_t count)
{
	const struct sentinel_word *best = NULL;
	size_t named = 0;

	for (size_t i = 0; i < count; i++) {
		if (!words[i].named)
			continue;
		named++;
		if (best == NULL || words[i].epoch > best->epoch)
			best = &words[i];
	}
	if (best != NULL && known->named && best->epoch < known->epoch && named * 2 <= count)
		return NULL;
	return best;
}
