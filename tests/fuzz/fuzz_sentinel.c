/*
 * fuzz_sentinel.c - of a Sentinel's reply only a clean place is taken, and of several words one that is the latest.
 *
 * Input: lines of host, port and epoch, with tabs between. The first is what is known, the others are the Sentinels' words.
 */
#include "fuzz.h"

#include <ctype.h>
#include <errno.h>

#include "store/sentinel_view.h"

#define WORDS 8

static struct redis_arg argument(struct input text)
{
	return (struct redis_arg){ exact_copy(text.at, text.left), text.left };
}

static uint64_t expected_epoch(struct input digits)
{
	char *text = exact_string(digits.at, digits.left), *end;
	uint64_t epoch;

	errno = 0;
	epoch = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || end != text + digits.left || errno != 0)
		epoch = 0;
	free(text);
	return epoch;
}

static void check_place(const struct redis_place *place, struct input host, struct input port)
{
	CHECK(memchr(place->host, '\0', sizeof place->host) != NULL);
	CHECK(memchr(place->port, '\0', sizeof place->port) != NULL);
	CHECK(same_bytes(place->host, strlen(place->host), host.at, host.left));
	CHECK(same_bytes(place->port, strlen(place->port), port.at, port.left));
	CHECK(strspn(place->port, "0123456789") == strlen(place->port));
	CHECK(atoi(place->port) >= 1 && atoi(place->port) <= 65535);
	for (const char *p = place->host; *p != '\0'; p++)
		CHECK(isalnum((unsigned char)*p) || strchr(".:-_", *p) != NULL);
}

static struct sentinel_word read_word(struct input line)
{
	struct input host = input_until(&line, '\t'), port = input_until(&line, '\t');
	struct redis_arg host_arg = argument(host), port_arg = argument(port), digits = argument(line);
	struct sentinel_word word = { .named = false };

	word.named = sentinel_place(&word.place, host_arg, port_arg);
	word.epoch = sentinel_epoch(digits);
	CHECK(word.epoch == expected_epoch(line));
	if (word.named)
		check_place(&word.place, host, port);
	free((char *)host_arg.bytes);
	free((char *)port_arg.bytes);
	free((char *)digits.bytes);
	return word;
}

static void check_fallback(const struct sentinel_word *known, const struct sentinel_word *words, size_t count)
{
	const struct sentinel_word *best = sentinel_fallback(known, words, count);
	size_t named = 0;
	uint64_t latest = 0;

	for (size_t i = 0; i < count; i++) {
		named += words[i].named;
		if (words[i].named && words[i].epoch > latest)
			latest = words[i].epoch;
	}
	if (best == NULL) {
		CHECK(named == 0 || (known->named && latest < known->epoch && named * 2 <= count));
		return;
	}
	CHECK(best >= words && best < words + count && best->named && best->epoch == latest);
	CHECK(!known->named || latest >= known->epoch || named * 2 > count);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	struct sentinel_word known = read_word(input_line(&input)), words[WORDS];
	size_t count = 0;

	while (count < WORDS && input.left > 0) {
		const struct sentinel_word *word = &words[count];

		words[count++] = read_word(input_line(&input));
		/* News and agreement exclude each other, and neither comes from a word that names nothing. */
		CHECK(!sentinel_is_news(&known, word) || !sentinel_agrees(&known, word));
		CHECK(word->named || !(sentinel_is_news(&known, word) || sentinel_agrees(&known, word)));
		CHECK(!sentinel_is_news(&known, word) || !sentinel_is_news(word, &known));
		CHECK(!word->named || sentinel_agrees(word, word));
	}
	check_fallback(&known, words, count);
	return 0;
}
