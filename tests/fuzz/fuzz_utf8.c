/*
 * fuzz_utf8.c - what is taken for UTF-8 is what RFC 3629 says; repaired text is valid, stays as it is when it was, and
 * repairing it again changes nothing; a cut is between two characters.
 */
#include "fuzz.h"

/* The code point at `p` by the book, shortest form or not; its length, or 0 when the bytes do not fit together. */
static size_t code_point(const unsigned char *p, size_t left, uint32_t *point)
{
	size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;

	if (len == 0 || len > left)
		return 0;
	*point = len == 1 ? p[0] : p[0] & (0x7Fu >> len);
	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		*point = *point << 6 | (p[i] & 0x3F);
	}
	return len;
}

static size_t valid_by_the_book(const unsigned char *p, size_t len)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t at = 0;

	while (at < len) {
		uint32_t point = 0;
		size_t step = code_point(p + at, len - at, &point);

		if (step == 0 || point < least[step] || point > 0x10FFFF ||
		    (point >= 0xD800 && point < 0xE000))
			break;
		at += step;
	}
	return at;
}

static void check_cuts(const char *text, size_t len)
{
	for (size_t at = 0; at <= len; at++) {
		size_t cut = utf8_cut(text, len, at);

		CHECK(cut <= at && at - cut < 4);
		CHECK(utf8_valid(text, cut) && utf8_valid(text + cut, len - cut));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	const char *text = (const char *)bytes;
	size_t good = valid_by_the_book(bytes, len);
	struct buf repaired, again;

	CHECK(utf8_valid_prefix(text, len) == good);
	CHECK(utf8_valid(text, len) == (good == len));
	buf_init(&repaired, len * 3);
	buf_init(&again, len * 3);
	utf8_repair(&repaired, text, len);
	CHECK(!repaired.failed && utf8_valid(buf_bytes(&repaired), buf_size(&repaired)));
	CHECK(same_bytes(buf_bytes(&repaired), good, text, good));
	CHECK((good == len) == same_bytes(buf_bytes(&repaired), buf_size(&repaired), text, len));
	utf8_repair(&again, buf_bytes(&repaired), buf_size(&repaired));
	CHECK(same_buf(&again, &repaired));
	if (buf_size(&repaired) <= 512)
		check_cuts(buf_bytes(&repaired), buf_size(&repaired));
	buf_free(&repaired);
	buf_free(&again);
	return 0;
}
