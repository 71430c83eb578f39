/*
 * test_codec.c - libfcgi reads each request that record_scan() takes just as a plain reader of the specification does, and
 * never a byte that is not the request's; and answers go out in any order.
 */
#include "unit.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failing_alloc.h"
#include "fastcgi_bytes.h"
#include "http/codec.h"
#include "http/record.h"

static struct codec *codec;

static int open_codec(void **state)
{
	struct error why;

	(void)state;
	return codec_open(&codec, &why) == ERR_OK ? 0 : -1;
}

static int close_codec(void **state)
{
	(void)state;
	codec_close(codec);
	return 0;
}

/* The contents of all records of one type, one behind the other. */
static void gather(struct buf *out, unsigned type, const char *bytes, size_t len)
{
	const unsigned char *p = (const unsigned char *)bytes;

	for (size_t at = 0; at < len;) {
		size_t content = p[at + 4] * 256u + p[at + 5];

		if (p[at + 1] == type)
			buf_append(out, bytes + at + 8, content);
		at += 8 + content + p[at + 6];
	}
}

/* One length of section 3.4. */
static size_t take_length(const char **p)
{
	const unsigned char *u = (const unsigned char *)*p;

	*p += u[0] >> 7 ? 4 : 1;
	return u[0] >> 7 ? (u[0] & 0x7Fu) * (size_t)16777216 + u[1] * 65536u + u[2] * 256u + u[3] : u[0];
}

/* Whether the first parameter of this name is as it was sent. Names that libfcgi cannot tell apart are left out. */
static bool has_first_pair(const struct codec_request *request, const struct buf *pairs)
{
	const char *p = buf_bytes(pairs), *value;
	size_t name_len, value_len;
	char name[300];

	if (buf_size(pairs) == 0)
		return true;
	name_len = take_length(&p);
	value_len = take_length(&p);
	if (name_len == 0 || name_len >= sizeof name || memchr(p, '=', name_len) != NULL ||
	    memchr(p, '\0', name_len + value_len) != NULL)
		return true;
	snprintf(name, sizeof name, "%.*s", (int)name_len, p);
	value = codec_param(request, name);
	return value != NULL && strlen(value) == value_len && memcmp(value, p + name_len, value_len) == 0;
}

/* True when record_scan() takes the bytes for a request; then libfcgi must find the same in it. */
static bool same_reading(const char *bytes, size_t len)
{
	struct record_scan scan = { .at = 0 };
	struct codec_request *request;
	struct buf body, params, expected;

	if (record_scan(&scan, bytes, len) != RECORD_COMPLETE)
		return false;
	buf_init(&body, 1000000);
	buf_init(&params, 1000000);
	buf_init(&expected, 1000000);
	gather(&params, FCGI_PARAMS, bytes, scan.bytes);
	gather(&expected, FCGI_STDIN, bytes, scan.bytes);
	request = codec_decode(codec, bytes, scan.bytes, scan.pairs, &body);
	assert_non_null(request);
	assert_int_equal(buf_size(&body), buf_size(&expected));
	assert_memory_equal(buf_bytes(&body), buf_bytes(&expected), buf_size(&body));
	assert_true(has_first_pair(request, &params));
	codec_free(request);
	buf_free(&body);
	buf_free(&params);
	buf_free(&expected);
	return true;
}

static void put_request(struct buf *out, size_t piece, const char *body)
{
	struct buf params;

	buf_init(&params, 1000);
	put_pair(&params, "REQUEST_METHOD", "POST");
	put_pair(&params, "REQUEST_URI", "/chat");
	put_begin(out, 1, true);
	put_stream(out, FCGI_PARAMS, 1, buf_bytes(&params), buf_size(&params), piece);
	put_stream(out, FCGI_STDIN, 1, body, strlen(body), piece);
	buf_free(&params);
}

/* Each byte in turn as each other value, in records of several sizes; libfcgi's buffer ends somewhere in the large one. */
static void test_codec_reads_what_the_scan_took(void **state)
{
	static const size_t pieces[] = { 65535, 50, 5 };
	char *words = get_memory(20001);
	unsigned taken = 0;

	(void)state;
	memset(words, 'w', 20000);
	for (size_t i = 0; i < COUNT(pieces); i++) {
		struct buf out;
		char *bytes;

		buf_init(&out, 100000);
		put_request(&out, pieces[i], i == 0 ? words : "{\"message\":\"hello\"}");
		bytes = exact_copy(buf_bytes(&out), buf_size(&out));
		for (size_t at = 0; at < buf_size(&out);
		     at += at < 200 || at + 50 > buf_size(&out) ? 1 : 97) {
			char right = bytes[at];

			for (int wrong = 0; wrong < 256; wrong++) {
				bytes[at] = (char)wrong;
				taken += same_reading(bytes, buf_size(&out));
			}
			bytes[at] = right;
		}
		free(bytes);
		buf_free(&out);
	}
	assert_true(taken > 1000);
	free(words);
}

/* Records of any content and padding, now and then padded where nobody pads. */
static void test_codec_reads_random_requests(void **state)
{
	uint64_t seed = 11;
	unsigned taken = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		char bytes[256];
		struct buf out;
		const size_t records[2] = { next_random(&seed) % 4, next_random(&seed) % 4 };

		buf_init(&out, 10000);
		put_record(&out, FCGI_BEGIN, 1, "\0\1\0\0\0\0\0", 8,
			   next_random(&seed) % 8 == 0 ? next_random(&seed) % 256 : 0);
		for (unsigned stream = 0; stream < 2; stream++) {
			for (size_t k = 0; k < records[stream]; k++) {
				size_t len = 4 + next_random(&seed) % 200;

				for (size_t at = 0; at < len; at++)
					bytes[at] = (char)(next_random(&seed) & 0x7F);
				bytes[0] = (char)(len - 3); /* one name and its value */
				bytes[1] = 1;
				put_record(&out, stream == 0 ? FCGI_PARAMS : FCGI_STDIN, 1, bytes, len,
					   next_random(&seed) % 256);
			}
			put_record(&out, stream == 0 ? FCGI_PARAMS : FCGI_STDIN, 1, NULL, 0,
				   next_random(&seed) % 8 == 0 ? next_random(&seed) % 256 : 0);
		}
		taken += same_reading(buf_bytes(&out), buf_size(&out));
		buf_free(&out);
	}
	assert_true(taken > 5000);
}

/* Should libfcgi ever read on behind a request's end: there is nothing of the one before. */
static void test_codec_keeps_nothing_of_a_request(void **state)
{
	static const char secret[] = "somebody else's words";
	struct codec_request *request;
	struct buf first, second, body;
	unsigned char header[8] = { 1, FCGI_STDIN, 0, 1, 2, 0, 0, 0 }; /* 512 bytes, of which none is there */

	(void)state;
	buf_init(&first, 10000);
	buf_init(&second, 10000);
	buf_init(&body, 1000000);
	put_request(&first, 65535, secret);
	request = codec_decode(codec, buf_bytes(&first), buf_size(&first), 2, &body);
	assert_non_null(request);
	assert_int_equal(buf_size(&body), strlen(secret));
	codec_free(request);
	buf_reset(&body, 0);

	put_begin(&second, 1, false);
	put_record(&second, FCGI_PARAMS, 1, NULL, 0, 0);
	buf_append(&second, header, sizeof header);
	assert_true(buf_size(&second) < buf_size(&first) - strlen(secret));
	request = codec_decode(codec, buf_bytes(&second), buf_size(&second), 0, &body);
	assert_null(memmem(buf_bytes(&body), buf_size(&body), "words", 5));
	codec_free(request);
	buf_free(&first);
	buf_free(&second);
	buf_free(&body);
}

/* ---- answers ---- */

static struct codec_request *read_request(unsigned id)
{
	struct codec_request *request;
	struct buf bytes, body;

	buf_init(&bytes, 1000);
	buf_init(&body, 100000);
	put_begin(&bytes, id, true);
	put_record(&bytes, FCGI_PARAMS, id, NULL, 0, 0);
	put_record(&bytes, FCGI_STDIN, id, NULL, 0, 0);
	request = codec_decode(codec, buf_bytes(&bytes), buf_size(&bytes), 0, &body);
	assert_non_null(request);
	buf_free(&bytes);
	buf_free(&body);
	return request;
}

/* Writes a piece of an answer and takes what has come out. */
static void write_piece(struct buf *got, const struct codec_request *request, const char *text, size_t len,
			bool last)
{
	int ends[2];
	ssize_t came;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_true(codec_write(codec, request, ends[0], text, len, last));
	close(ends[0]);
	while ((came = read(ends[1], buf_room(got, 100000), 100000)) > 0)
		buf_claim(got, (size_t)came);
	close(ends[1]);
}

/* Takes the records of an answer apart: its text, and whether the request has ended. All must bear the id. */
static bool read_answer(struct buf *text, const struct buf *answer, unsigned id)
{
	const unsigned char *p = (const unsigned char *)buf_bytes(answer);
	bool ended = false;

	for (size_t at = 0; at < buf_size(answer);) {
		size_t len = p[at + 4] * 256u + p[at + 5];

		assert_false(ended);
		assert_int_equal(p[at + 2] * 256u + p[at + 3], id);
		if (p[at + 1] == 6)
			buf_append(text, p + at + 8, len);
		else
			assert_int_equal(p[at + 1], 3);
		ended = p[at + 1] == 3;
		at += 8 + len + p[at + 6];
	}
	return ended;
}

/* More requests at a time than there are streams kept; each of them ends after another one has gone on. */
static void test_codec_answers_many_requests_at_a_time(void **state)
{
	enum { MANY = 50, LARGE = 20000 };
	struct codec_request *requests[MANY];
	struct buf answers[MANY], text;
	char *large = get_memory(LARGE);

	(void)state;
	memset(large, 'l', LARGE);
	for (unsigned i = 0; i < MANY; i++) {
		requests[i] = read_request(300 + i);
		buf_init(&answers[i], 1000000);
	}
	for (unsigned i = 0; i < MANY; i++) {
		write_piece(&answers[i], requests[i], "first ", 6, false);
		write_piece(&answers[MANY - 1 - i], requests[MANY - 1 - i], large, LARGE, false);
	}
	for (unsigned i = 0; i < MANY; i++) {
		write_piece(&answers[i], requests[i], i % 2 ? "last" : "", i % 2 ? 4 : 0, true);
		codec_free(requests[i]);
	}
	for (unsigned i = 0; i < MANY; i++) {
		buf_init(&text, 1000000);
		assert_true(read_answer(&text, &answers[i], 300 + i));
		assert_int_equal(buf_size(&text), 6 + LARGE + (i % 2 ? 4 : 0));
		assert_true(memmem(buf_bytes(&text), buf_size(&text), "first ", 6) != NULL);
		buf_free(&text);
		buf_free(&answers[i]);
	}
	free(large);
}

static void test_codec_goes_on_after_a_broken_connection(void **state)
{
	struct codec_request *broken = read_request(1), *other = read_request(2);
	struct buf answer, text;
	int ends[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	close(ends[1]);
	assert_false(codec_write(codec, broken, ends[0], BYTES("nobody reads this"), false));
	assert_false(codec_write(codec, broken, ends[0], BYTES("nor this"), true));
	close(ends[0]);
	buf_init(&answer, 1000000);
	buf_init(&text, 1000000);
	write_piece(&answer, other, BYTES("but this"), true);
	assert_true(read_answer(&text, &answer, 2));
	assert_int_equal(buf_size(&text), 8);
	assert_memory_equal(buf_bytes(&text), "but this", 8);
	buf_free(&answer);
	buf_free(&text);
	codec_free(broken);
	codec_free(other);
}

static void assert_whole_or_not(bool failed, const struct codec_request *request, const struct buf *body,
				size_t body_len)
{
	assert_true(failed || request != NULL);
	if (request != NULL) {
		assert_string_equal(codec_param(request, "REQUEST_METHOD"), "POST");
		assert_string_equal(codec_param(request, "LAST"), "x");
		assert_true(body->starved || buf_size(body) == body_len);
	}
}

/* libfcgi checks no allocation: it must not be called unless there is memory for all that it is going to take. */
static void test_codec_asks_libfcgi_only_when_there_is_memory(void **state)
{
	static const size_t pairs[] = { 0, 1, 27, 28, 60, 2000 };
	struct buf params, bytes;

	(void)state;
	buf_init(&params, 60000);
	buf_init(&bytes, 100000);
	for (size_t i = 0; i < COUNT(pairs); i++) {
		struct record_scan scan = { .at = 0 };
		size_t step = pairs[i] > 100 ? 101 : 7;
		bool failed = true;

		buf_reset(&params, 60000);
		buf_reset(&bytes, 100000);
		put_pair(&params, "REQUEST_METHOD", "POST");
		for (size_t n = 0; n < pairs[i]; n++)
			put_pair(&params, n % 2 ? "" : "A_NAME", "");
		put_pair(&params, "LAST", "x");
		put_begin(&bytes, 1, true);
		put_stream(&bytes, FCGI_PARAMS, 1, buf_bytes(&params), buf_size(&params), 65535);
		put_stream(&bytes, FCGI_STDIN, 1, "a body", 6, 65535);
		assert_int_equal(record_scan(&scan, buf_bytes(&bytes), buf_size(&bytes)), RECORD_COMPLETE);
		assert_int_equal(scan.pairs, pairs[i] + 2);
		for (size_t left = 0; failed; left += step) {
			struct codec_request *request;
			struct buf body;

			buf_init(&body, 1000000);
			alloc_leave(left);
			request = codec_decode(codec, buf_bytes(&bytes), scan.bytes, scan.pairs, &body);
			failed = alloc_failed();
			assert_whole_or_not(failed, request, &body, 6);
			codec_free(request);
			buf_free(&body);
		}
	}
	buf_free(&params);
	buf_free(&bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codec_reads_what_the_scan_took),
		cmocka_unit_test(test_codec_reads_random_requests),
		cmocka_unit_test(test_codec_keeps_nothing_of_a_request),
		cmocka_unit_test(test_codec_answers_many_requests_at_a_time),
		cmocka_unit_test(test_codec_goes_on_after_a_broken_connection),
		cmocka_unit_test(test_codec_asks_libfcgi_only_when_there_is_memory),
	};

	return cmocka_run_group_tests(tests, open_codec, close_codec);
}
