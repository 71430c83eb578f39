/*
 * fuzz_utf8.c - what is taken for UTF-8 is what RFC 3629 says; repaired text is valid, stays as it is when it was, and
 * repairing it again changes nothing; a cut is between two characters.
 */
#include "plain.h"

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
	size_t good = plain_utf8(bytes, len);
	struct buf repaired, again;

	CHECK(utf8_valid_prefix(text, len) == good);
	CHECK(utf8_valid(text, len) == (good == len));
	buf_init(&repaired, len * 3);
	buf_init(&again, len * 3);
	utf8_repair(&repaired, text, len);
	CHECK(!repaired.failed && utf8_valid(buf_bytes(&repaired), buf_size(&repaired)));
	CHECK(plain_utf8(buf_bytes(&repaired), buf_size(&repaired)) == buf_size(&repaired));
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
