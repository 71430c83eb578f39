/*
 * test_record.c - a request counts as complete when its last byte is there and not before, and nothing
 * that is not a whole responder request ever counts as one. Verdicts are compared with a plain reading of
 * the specification.
 */
#include "unit.h"

#include <uv.h>

#include "fastcgi_bytes.h"
#include "http/record.h"

/* Scans a copy of exactly this size, so that the sanitizer sees a read beyond it. */
static enum record_verdict scan_exactly(struct record_scan *scan, const char *bytes, size_t len)
{
	char *copy = exact_copy(bytes, len);
	enum record_verdict verdict;

	*scan = (struct record_scan){ .at = 0 };
	verdict = record_scan(scan, copy, len);
	free(copy);
	assert_int_equal(scan->complete, verdict == RECORD_COMPLETE);
	assert_int_equal(scan->why[0] != '\0', verdict == RECORD_BAD);
	if (verdict == RECORD_COMPLETE)
		assert_true(scan->head_complete && scan->bytes > 0 && scan->bytes <= len);
	return verdict;
}

/* The same in steps of so many bytes, as they may come in. */
static enum record_verdict scan_in_steps(struct record_scan *scan, const char *bytes, size_t len, size_t step)
{
	enum record_verdict verdict = RECORD_MORE;

	*scan = (struct record_scan){ .at = 0 };
	for (size_t have = 0; have < len && verdict == RECORD_MORE;) {
		have = len - have > step ? have + step : len;
		verdict = record_scan(scan, bytes, have);
	}
	return verdict;
}

/* Whether these bytes are whole name-value pairs, by section 3.4. */
static bool are_pairs(const unsigned char *p, size_t len)
{
	size_t at = 0;

	while (at < len) {
		uint64_t sizes[2];

		for (int i = 0; i < 2; i++) {
			if (at >= len || (p[at] >> 7 && len - at < 4))
				return false;
			sizes[i] = p[at] >> 7 ? (p[at] & 0x7Fu) * UINT64_C(16777216) + p[at + 1] * 65536u +
						    p[at + 2] * 256u + p[at + 3]
					      : p[at];
			at += p[at] >> 7 ? 4 : 1;
		}
		if (sizes[0] + sizes[1] > len - at)
			return false;
		at += sizes[0] + sizes[1];
	}
	return true;
}

/* The length of the whole request at the front, or 0 when there is none: sections 3.3, 5.1 to 5.3. */
static size_t reference(const unsigned char *p, size_t len)
{
	unsigned char *params = (unsigned char *)get_memory(len + 1);
	size_t params_len = 0, at = 0, result = 0;
	int phase = 0; /* begin, parameters, body */

	while (len - at >= 8) {
		size_t content = p[at + 4] * 256u + p[at + 5], total = 8 + content + p[at + 6];
		const unsigned char *body = p + at + 8;

		if (p[at] != 1 || len - at < total || memcmp(p + at + 2, p + 2, 2) != 0 ||
		    p[at + 1] != (phase == 0   ? 1
				  : phase == 1 ? 4
					       : 5))
			break;
		if (phase == 0 && (content != 8 || body[0] != 0 || body[1] != 1 || p[2] + p[3] == 0))
			break;
		if (phase == 1) {
			memcpy(params + params_len, body, content);
			params_len += content;
		}
		if (phase == 1 && content == 0 && !are_pairs(params, params_len))
			break;
		if ((phase == 0 || (phase == 1 && content == 0)) && p[at + 6] > 0)
			break; /* by the specification it may be, but see record.h */
		at += total;
		if (phase == 2 && content == 0) {
			result = at;
			break;
		}
		if (phase == 0 || content == 0)
			phase++;
	}
	free(params);
	return result;
}

static void put_request(struct buf *out, unsigned id, size_t piece, const char *body, bool keep)
{
	struct buf params;
	char long_value[400];

	memset(long_value, 'v', sizeof long_value - 1);
	long_value[sizeof long_value - 1] = '\0';
	buf_init(&params, 100000);
	put_pair(&params, "REQUEST_METHOD", "POST");
	put_pair(&params, "REQUEST_URI", "/chat/stream?x=1");
	put_pair(&params, "CONTENT_TYPE", "");
	put_pair(&params, "", "");
	put_pair(&params, "HTTP_COOKIE", long_value);
	put_pair(&params, long_value, "x");
	put_begin(out, id, keep);
	put_stream(out, FCGI_PARAMS, id, buf_bytes(&params), buf_size(&params), piece);
	put_stream(out, FCGI_STDIN, id, body, strlen(body), piece);
	buf_free(&params);
}

static const size_t pieces[] = { 65535, 200, 17, 8, 3, 1 };

static void test_record_takes_a_request_in_any_records(void **state)
{
	static const char *const bodies[] = { "", "{}", "{\"message\":\"你好\"}" };

	(void)state;
	for (size_t i = 0; i < COUNT(pieces) * COUNT(bodies); i++) {
		bool keep = i % 2;
		struct record_scan scan = { .at = 0 };
		struct buf out;

		buf_init(&out, 100000);
		put_request(&out, i % 3 == 0 ? 1 : 300, pieces[i / COUNT(bodies)], bodies[i % COUNT(bodies)],
			    keep);
		assert_int_equal(scan_exactly(&scan, buf_bytes(&out), buf_size(&out)), RECORD_COMPLETE);
		assert_int_equal(scan.bytes, buf_size(&out));
		assert_int_equal(scan.keep_conn, keep);
		assert_int_equal(reference((const unsigned char *)buf_bytes(&out), buf_size(&out)),
				 scan.bytes);
		buf_free(&out);
	}
}

static void test_record_wants_more_after_every_truncation(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(pieces); i++) {
		struct record_scan scan = { .at = 0 };
		struct buf out;
		bool head = false;

		buf_init(&out, 100000);
		put_request(&out, 1, pieces[i], "{\"message\":\"hello\"}", true);
		for (size_t len = 0; len < buf_size(&out); len++) {
			assert_int_equal(scan_exactly(&scan, buf_bytes(&out), len), RECORD_MORE);
			assert_true(scan.head_complete || !head); /* once known, it stays */
			head = scan.head_complete;
		}
		assert_true(head);
		buf_free(&out);
	}
}

static void test_record_says_the_same_however_the_bytes_come(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(pieces); i++) {
		struct record_scan whole, scan;
		struct buf out;

		buf_init(&out, 100000);
		put_request(&out, 1, pieces[i], "{\"message\":\"hello\"}", true);
		assert_int_equal(scan_exactly(&whole, buf_bytes(&out), buf_size(&out)), RECORD_COMPLETE);
		for (size_t step = 1; step <= buf_size(&out); step++) {
			assert_int_equal(scan_in_steps(&scan, buf_bytes(&out), buf_size(&out), step),
					 RECORD_COMPLETE);
			assert_int_equal(scan.bytes, whole.bytes);
			assert_int_equal(scan.head_bytes, whole.head_bytes);
			assert_true(scan.complete && scan.head_complete && scan.keep_conn);
		}
		buf_free(&out);
	}
}

/* A body of many records that comes in small pieces is looked at once, and not once for each piece. */
static void test_record_scans_a_long_body_once(void **state)
{
	enum { SIZE = 4 * 1024 * 1024, STEP = 512 };
	char *body = get_memory(SIZE);
	struct record_scan scan;
	struct buf out;
	uint64_t fastest = UINT64_MAX;

	(void)state;
	buf_init(&out, 2 * SIZE);
	put_begin(&out, 1, true);
	put_record(&out, FCGI_PARAMS, 1, NULL, 0, 0);
	put_stream(&out, FCGI_STDIN, 1, body, SIZE, 512);
	for (int i = 0; i < 10; i++) { /* the fastest counts: whatever disturbs a try makes it longer */
		uint64_t began = uv_hrtime(), took;

		assert_int_equal(scan_in_steps(&scan, buf_bytes(&out), buf_size(&out), STEP),
				 RECORD_COMPLETE);
		took = uv_hrtime() - began;
		assert_int_equal(scan.bytes, buf_size(&out));
		if (took < fastest)
			fastest = took;
	}
	assert_true(fastest < UINT64_C(100000000)); /* anew each time would be 34 million records */
	buf_free(&out);
	free(body);
}

static void test_record_leaves_what_follows_alone(void **state)
{
	struct record_scan scan = { .at = 0 };
	struct buf out;
	size_t first;

	(void)state;
	buf_init(&out, 100000);
	put_request(&out, 1, 65535, "{}", true);
	first = buf_size(&out);
	put_request(&out, 2, 65535, "second", true);
	buf_append_str(&out, "\xFF garbage");
	for (size_t len = first; len <= buf_size(&out); len++) {
		assert_int_equal(scan_exactly(&scan, buf_bytes(&out), len), RECORD_COMPLETE);
		assert_int_equal(scan.bytes, first);
	}
	buf_free(&out);
}

/* Each byte in turn as each other value: complete only where the specification says so, too. */
static void test_record_is_not_fooled_by_a_corrupt_byte(void **state)
{
	static const size_t some_pieces[] = { 65535, 100, 5 };
	unsigned refused = 0;

	(void)state;
	for (size_t i = 0; i < COUNT(some_pieces); i++) {
		struct buf out;
		char *bytes;
		size_t len;

		buf_init(&out, 100000);
		put_request(&out, 1, some_pieces[i], "{\"message\":\"hello\"}", true);
		len = buf_size(&out);
		bytes = exact_copy(buf_bytes(&out), len);
		for (size_t at = 0; at < len; at++) {
			for (unsigned flip = 1; flip < 256; flip += at < 200 ? 1 : 37) {
				struct record_scan scan = { .at = 0 };
				enum record_verdict verdict;
				size_t expected;

				bytes[at] = (char)(bytes[at] ^ (int)flip);
				verdict = scan_in_steps(&scan, bytes, len, 16 + flip);
				expected = reference((const unsigned char *)bytes, len);
				if ((verdict == RECORD_COMPLETE) != (expected > 0) ||
				    (verdict == RECORD_COMPLETE && scan.bytes != expected))
					fail_msg(
					    "byte %zu flipped by %02x: verdict %d, %zu bytes, expected %zu",
					    at, flip, verdict, scan.bytes, expected);
				refused += verdict == RECORD_BAD;
				bytes[at] = (char)(bytes[at] ^ (int)flip);
			}
		}
		free(bytes);
		buf_free(&out);
	}
	assert_true(refused > 1000);
}

static void test_record_survives_random_bytes(void **state)
{
	uint64_t seed = 5;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct record_scan scan = { .at = 0 };
		char bytes[120];
		size_t len = next_random(&seed) % sizeof bytes;
		struct buf out;

		for (size_t at = 0; at < len; at++)
			bytes[at] = (char)(next_random(&seed) % (i % 2 ? 7 : 256));
		assert_true(scan_exactly(&scan, bytes, len) != RECORD_COMPLETE);
		/* The same behind a good beginning, as parameters. */
		buf_init(&out, 1000);
		put_begin(&out, 1, false);
		put_record(&out, FCGI_PARAMS, 1, bytes, len, 0);
		put_record(&out, FCGI_PARAMS, 1, NULL, 0, 0);
		put_record(&out, FCGI_STDIN, 1, NULL, 0, 0);
		if (len > 0)
			assert_int_equal(scan_exactly(&scan, buf_bytes(&out), buf_size(&out)),
					 are_pairs((unsigned char *)bytes, len) ? RECORD_COMPLETE
										: RECORD_BAD);
		buf_free(&out);
	}
}

enum mistake {
	VERSION,
	TYPE_FIRST,
	ID_ZERO,
	BEGIN_SHORT,
	AUTHORIZER,
	FILTER,
	OTHER_ID,
	STDIN_EARLY,
	PARAMS_LATE,
	ABORT,
	SECOND_BEGIN,
	MANAGEMENT,
	CUT_PAIR,
	CUT_LENGTH,
	HUGE_LENGTH,
	PADDED_BEGIN,
	PADDED_END,
	MISTAKES
};

static void put_mistake(struct buf *out, enum mistake mistake)
{
	static const unsigned char begin[8] = { 0, 1, 1 }, authorizer[8] = { 0, 2 }, filter[8] = { 1, 1 };

	switch (mistake) {
	case VERSION:
		put_begin(out, 1, true);
		buf_append_char(out, 2);
		return;
	case TYPE_FIRST:
		put_record(out, FCGI_PARAMS, 1, begin, 8, 0);
		return;
	case ID_ZERO:
		put_record(out, FCGI_BEGIN, 0, begin, 8, 0);
		return;
	case BEGIN_SHORT:
		put_record(out, FCGI_BEGIN, 1, begin, 7, 1);
		return;
	case PADDED_BEGIN:
		put_record(out, FCGI_BEGIN, 1, begin, 8, 8);
		return;
	case AUTHORIZER:
		put_record(out, FCGI_BEGIN, 1, authorizer, 8, 0);
		return;
	case FILTER:
		put_record(out, FCGI_BEGIN, 1, filter, 8, 0);
		return;
	case MANAGEMENT:
		put_record(out, 9, 0, NULL, 0, 0);
		return;
	default:
		put_begin(out, 1, true);
	}
	switch (mistake) {
	case OTHER_ID:
		put_record(out, FCGI_PARAMS, 2, NULL, 0, 0);
		return;
	case STDIN_EARLY:
		put_record(out, FCGI_STDIN, 1, "x", 1, 0);
		return;
	case PARAMS_LATE:
		put_record(out, FCGI_PARAMS, 1, NULL, 0, 0);
		put_record(out, FCGI_PARAMS, 1, NULL, 0, 0);
		return;
	case ABORT:
		put_record(out, FCGI_ABORT, 1, NULL, 0, 0);
		return;
	case SECOND_BEGIN:
		put_begin(out, 1, true);
		return;
	case PADDED_END:
		put_record(out, FCGI_PARAMS, 1, NULL, 0, 8);
		put_record(out, FCGI_STDIN, 1, NULL, 0, 0);
		return;
	case CUT_PAIR:
		put_record(out, FCGI_PARAMS, 1, "\x04\x02NAMEv", 7, 0);
		break;
	case CUT_LENGTH:
		put_record(out, FCGI_PARAMS, 1, "\x04\x80", 2, 0);
		break;
	case HUGE_LENGTH:
		put_record(out, FCGI_PARAMS, 1, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFNAME", 12, 0);
		break;
	default:
		return;
	}
	put_record(out, FCGI_PARAMS, 1, NULL, 0, 0);
}

static void test_record_refuses_what_nginx_never_sends(void **state)
{
	(void)state;
	for (int mistake = 0; mistake < MISTAKES; mistake++) {
		struct record_scan scan = { .at = 0 };
		struct buf out;

		buf_init(&out, 1000);
		put_mistake(&out, (enum mistake)mistake);
		if (scan_exactly(&scan, buf_bytes(&out), buf_size(&out)) != RECORD_BAD)
			fail_msg("mistake %d", mistake);
		buf_free(&out);
	}
}

static void test_record_takes_long_lengths(void **state)
{
	static const size_t lengths[] = { 0, 1, 127, 128, 255, 256, 65535, 65536, 70000 };
	char *value = get_memory(70001);

	(void)state;
	for (size_t i = 0; i < COUNT(lengths); i++) {
		struct record_scan scan = { .at = 0 };
		struct buf params, out;

		memset(value, 'v', lengths[i]);
		value[lengths[i]] = '\0';
		buf_init(&params, 1000000);
		buf_init(&out, 1000000);
		put_pair(&params, "A", value);
		put_pair(&params, value, "B");
		put_begin(&out, 1, true);
		put_stream(&out, FCGI_PARAMS, 1, buf_bytes(&params), buf_size(&params), 65528);
		put_stream(&out, FCGI_STDIN, 1, value, lengths[i], 32768);
		assert_int_equal(scan_exactly(&scan, buf_bytes(&out), buf_size(&out)), RECORD_COMPLETE);
		assert_int_equal(scan.bytes, buf_size(&out));
		assert_int_equal(scan_exactly(&scan, buf_bytes(&out), buf_size(&out) - 1), RECORD_MORE);
		buf_free(&params);
		buf_free(&out);
	}
	free(value);
}

/* Four length bytes may say a small number, too. */
static void test_record_takes_short_lengths_written_long(void **state)
{
	struct record_scan scan = { .at = 0 };
	struct buf out;

	(void)state;
	buf_init(&out, 1000);
	put_begin(&out, 1, false);
	put_record(&out, FCGI_PARAMS, 1,
		   BYTES("\x80\0\0\x01\x80\0\0\x02"
			 "Nvv"),
		   5);
	put_record(&out, FCGI_PARAMS, 1, NULL, 0, 0);
	put_record(&out, FCGI_STDIN, 1, NULL, 0, 255);
	assert_int_equal(scan_exactly(&scan, buf_bytes(&out), buf_size(&out)), RECORD_COMPLETE);
	assert_false(scan.keep_conn);
	buf_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_takes_a_request_in_any_records),
		cmocka_unit_test(test_record_wants_more_after_every_truncation),
		cmocka_unit_test(test_record_says_the_same_however_the_bytes_come),
		cmocka_unit_test(test_record_scans_a_long_body_once),
		cmocka_unit_test(test_record_leaves_what_follows_alone),
		cmocka_unit_test(test_record_is_not_fooled_by_a_corrupt_byte),
		cmocka_unit_test(test_record_survives_random_bytes),
		cmocka_unit_test(test_record_refuses_what_nginx_never_sends),
		cmocka_unit_test(test_record_takes_long_lengths),
		cmocka_unit_test(test_record_takes_short_lengths_written_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
