/*
 * fuzz_record.c - FastCGI records: the verdict does not depend on how the bytes came in, libfcgi takes what was found
 * complete and finds the parameters and the body in it that are there, and its answers are records that hold what was sent.
 *
 * Input: a byte, and then, when it is odd, the bytes of a connection. When it is even, a request to be written: id, size of
 * its records, lines NAME=value, an empty line, the body.
 */
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#include "../unit/fastcgi_bytes.h"
#include "http/codec.h"
#include "http/record.h"

#define ROOM (4 * 1024 * 1024)

enum { STDOUT = 6, END = 3, RECORD_HEADER = 8 };

/* ---- scanning ---- */

static enum record_verdict scan_piece(struct record_scan *scan, const char *bytes, size_t len)
{
	char *copy = exact_copy(bytes, len);
	enum record_verdict verdict = record_scan(scan, copy, len);

	free(copy);
	CHECK(verdict != RECORD_BAD || scan->why[0] != '\0');
	CHECK(verdict != RECORD_COMPLETE || (scan->bytes <= len && scan->head_bytes <= scan->bytes));
	CHECK((verdict == RECORD_COMPLETE) == scan->complete);
	return verdict;
}

static size_t take_length(struct input *pairs)
{
	size_t len = input_byte(pairs);

	if (len < 0x80)
		return len;
	len = (len & 0x7F) << 8 | input_byte(pairs);
	len = len << 8 | input_byte(pairs);
	return len << 8 | input_byte(pairs);
}

/* Whether the pairs end where their bytes do. */
static bool pairs_end(const struct buf *pairs)
{
	struct input rest = { buf_bytes(pairs), buf_size(pairs) };

	while (rest.left > 0) {
		size_t lengths = rest.at[0] & 0x80 ? 4 : 1, name_len, value_len;

		lengths += rest.left <= lengths || rest.at[lengths] & 0x80 ? 4 : 1;
		if (rest.left < lengths)
			return false;
		name_len = take_length(&rest);
		value_len = take_length(&rest);
		if (name_len > rest.left || value_len > rest.left - name_len)
			return false;
		rest.at += name_len + value_len;
		rest.left -= name_len + value_len;
	}
	return true;
}

/* A plain reading, record for record. */
struct reading {
	unsigned id;       /* 0 until the request has begun */
	unsigned expected; /* type of the next record */
	struct buf pairs;
};

/* What a whole record makes of the request. */
static enum record_verdict read_content(struct reading *reading, unsigned id, const unsigned char *content,
					size_t len)
{
	switch (reading->expected) {
	case FCGI_BEGIN:
		reading->id = id;
		reading->expected = FCGI_PARAMS;
		return id != 0 && len == 8 && content[0] == 0 && content[1] == 1 ? RECORD_MORE : RECORD_BAD;
	case FCGI_PARAMS:
		buf_append(&reading->pairs, content, len);
		if (len > 0)
			return RECORD_MORE;
		reading->expected = FCGI_STDIN;
		return pairs_end(&reading->pairs) ? RECORD_MORE : RECORD_BAD;
	default:
		return len > 0 ? RECORD_MORE : RECORD_COMPLETE;
	}
}

/* *total: the bytes that it took; all that are left when it is cut off. */
static enum record_verdict read_record(struct reading *reading, const unsigned char *p, size_t left,
				       size_t *total)
{
	unsigned id;
	size_t len;

	*total = left;
	if (p[0] != 1)
		return RECORD_BAD;
	if (left < RECORD_HEADER)
		return RECORD_MORE;
	id = (unsigned)(p[2] << 8 | p[3]);
	len = (size_t)(p[4] << 8 | p[5]);
	if (p[1] != reading->expected || (reading->id != 0 && id != reading->id))
		return RECORD_BAD;
	if (p[6] > 0 && (reading->id == 0 || (reading->expected == FCGI_PARAMS && len == 0)))
		return RECORD_BAD; /* see record.h */
	if (left < RECORD_HEADER + len + p[6])
		return RECORD_MORE;
	*total = RECORD_HEADER + len + p[6];
	return read_content(reading, id, p + RECORD_HEADER, len);
}

static enum record_verdict plain_verdict(const char *bytes, size_t len)
{
	struct reading reading = { .expected = FCGI_BEGIN };
	enum record_verdict verdict = RECORD_MORE;

	buf_init(&reading.pairs, ROOM);
	for (size_t at = 0, total; verdict == RECORD_MORE && at < len; at += total)
		verdict = read_record(&reading, (const unsigned char *)bytes + at, len - at, &total);
	buf_free(&reading.pairs);
	return verdict;
}

/* As a connection brings them: a few at a time, on top of what was there. */
static enum record_verdict scan_slowly(struct record_scan *scan, const char *bytes, size_t len, uint64_t seed)
{
	enum record_verdict verdict = RECORD_MORE;
	size_t have = 0;

	*scan = (struct record_scan){ 0 };
	while (have < len && verdict == RECORD_MORE) {
		size_t step = 1 + next_random(&seed) % 40, hint;

		have = step < len - have ? have + step : len;
		verdict = scan_piece(scan, bytes, have);
		hint = scan->bytes;
		/* With fewer bytes than it asks for the verdict is the same. */
		if (verdict == RECORD_MORE && hint > have + 1) {
			struct record_scan early = *scan;

			CHECK(scan_piece(&early, bytes, hint - 1 < len ? hint - 1 : len) == RECORD_MORE);
		}
	}
	return verdict;
}

static enum record_verdict check_scan(struct record_scan *scan, const char *bytes, size_t len, uint64_t seed)
{
	struct record_scan slow;
	enum record_verdict verdict;

	*scan = (struct record_scan){ 0 };
	verdict = len > 0 ? scan_piece(scan, bytes, len) : RECORD_MORE;
	CHECK(scan_slowly(&slow, bytes, len, seed) == verdict);
	CHECK(plain_verdict(bytes, len) == verdict);
	if (verdict == RECORD_COMPLETE)
		CHECK(slow.bytes == scan->bytes && slow.head_bytes == scan->head_bytes &&
		      slow.keep_conn == scan->keep_conn);
	return verdict;
}

/* ---- decoding ---- */

/* The content of all records of one type, in a row. */
static void join(struct buf *out, const char *bytes, size_t len, unsigned type)
{
	const unsigned char *p = (const unsigned char *)bytes;

	for (size_t at = 0; at + RECORD_HEADER <= len;) {
		size_t content = (size_t)p[at + 4] << 8 | p[at + 5];

		if (p[at + 1] == type)
			buf_append(out, bytes + at + RECORD_HEADER, content);
		at += RECORD_HEADER + content + p[at + 6];
	}
}

/* The next pair, as the "NAME=value" that libfcgi keeps; NULL when there is none. To be freed. */
static char *take_pair(struct input *pairs)
{
	size_t name_len, value_len;
	struct buf text;
	char *pair;

	if (pairs->left == 0)
		return NULL;
	name_len = take_length(pairs);
	value_len = take_length(pairs);
	CHECK(name_len <= pairs->left && value_len <= pairs->left - name_len);
	buf_init(&text, name_len + value_len + 1);
	buf_append(&text, pairs->at, name_len);
	buf_append_char(&text, '=');
	buf_append(&text, pairs->at + name_len, value_len);
	pairs->at += name_len + value_len;
	pairs->left -= name_len + value_len;
	pair = exact_string(buf_bytes(&text), buf_size(&text));
	buf_free(&text);
	return pair;
}

/* The value of the first pair that begins with `name` and =. To be freed. */
static char *find_value(struct input pairs, const char *name)
{
	size_t len = strlen(name);
	char *pair, *value = NULL;

	while (value == NULL && (pair = take_pair(&pairs)) != NULL) {
		if (strncmp(pair, name, len) == 0 && pair[len] == '=')
			value = exact_string(pair + len + 1, strlen(pair + len + 1));
		free(pair);
	}
	return value;
}

/* What a request says of each of its names. */
static void check_params(const struct codec_request *request, const char *bytes, size_t len)
{
	struct input all, rest;
	struct buf joined;
	char *pair;

	buf_init(&joined, ROOM);
	join(&joined, bytes, len, FCGI_PARAMS);
	all = rest = (struct input){ buf_bytes(&joined), buf_size(&joined) };
	for (unsigned i = 0; i < 50 && (pair = take_pair(&rest)) != NULL; i++) {
		char *end = strchr(pair, '='), *value;
		const char *found;

		if (end != NULL) /* none: the name holds a NUL */
			*end = '\0';
		if (end != NULL && strcmp(pair, "FCGI_ROLE") != 0) { /* libfcgi puts its own in front */
			value = find_value(all, pair);
			found = codec_param(request, pair);
			CHECK(value != NULL && found != NULL && strcmp(value, found) == 0);
			free(value);
		}
		free(pair);
	}
	CHECK(codec_param(request, "NO_SUCH_NAME") == NULL ||
	      memmem(buf_bytes(&joined), buf_size(&joined), "NO_SUCH_NAME", 12) != NULL);
	buf_free(&joined);
}

/* ---- answering ---- */

static void check_answer(struct codec *codec, struct codec_request *request, int fd, const struct buf *body)
{
	size_t size = buf_size(body) < CODEC_WRITE_MAX ? buf_size(body) : CODEC_WRITE_MAX;
	struct buf records, joined;
	char *room;
	off_t len;

	buf_init(&records, ROOM);
	buf_init(&joined, ROOM);
	CHECK(ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0);
	CHECK(codec_write(codec, request, fd, buf_bytes(body), size, false));
	CHECK(codec_write(codec, request, fd, buf_bytes(body), size / 2, true));
	len = lseek(fd, 0, SEEK_CUR);
	CHECK(len > 0);
	room = buf_room(&records, (size_t)len);
	CHECK(room != NULL && pread(fd, room, (size_t)len, 0) == len);
	buf_claim(&records, (size_t)len);
	join(&joined, buf_bytes(&records), (size_t)len, STDOUT);
	CHECK(same_bytes(buf_bytes(&joined), size, buf_bytes(body), size));
	CHECK(same_bytes(buf_bytes(&joined) + size, buf_size(&joined) - size, buf_bytes(body), size / 2));
	CHECK(len >= 16 && buf_bytes(&records)[len - 15] == END);
	buf_free(&records);
	buf_free(&joined);
}

static void check_request(const char *bytes, size_t len, size_t pairs)
{
	static struct codec *codec;
	static int fd = -1;
	struct codec_request *request;
	struct buf body, expected;
	struct error why;

	if (codec == NULL)
		CHECK(codec_open(&codec, &why) == ERR_OK);
	if (fd < 0)
		fd = memfd_create("answer", MFD_CLOEXEC);
	buf_init(&body, ROOM);
	buf_init(&expected, ROOM);
	request = codec_decode(len & 1 ? codec : NULL, bytes, len, pairs, &body);
	CHECK(request != NULL);
	join(&expected, bytes, len, FCGI_STDIN);
	CHECK(same_buf(&body, &expected));
	check_params(request, bytes, len);
	check_answer(codec, request, fd, &body);
	codec_free(request);
	buf_free(&body);
	buf_free(&expected);
}

/* ---- requests that are well-formed ---- */

static void write_request(struct buf *out, struct input *input)
{
	unsigned id = 1 + input_byte(input), piece = 1 + input_byte(input);
	struct buf pairs;

	buf_init(&pairs, ROOM);
	put_begin(out, id, piece & 1);
	while (input->left > 0) {
		struct input line = input_line(input), name;
		char *name_text, *value_text;

		if (line.left == 0)
			break;
		name = input_until(&line, '=');
		name_text = exact_string(name.at, name.left);
		value_text = exact_string(line.at, line.left);
		put_pair(&pairs, name_text, value_text);
		free(name_text);
		free(value_text);
	}
	put_stream(out, FCGI_PARAMS, id, buf_bytes(&pairs), buf_size(&pairs), piece);
	put_stream(out, FCGI_STDIN, id, input->at, input->left, piece * 8);
	buf_free(&pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	unsigned control = input_byte(&input);
	struct record_scan scan;
	struct buf written;

	buf_init(&written, ROOM);
	if (control & 1)
		buf_append(&written, input.at, input.left);
	else
		write_request(&written, &input);
	CHECK(!written.failed);
	if (check_scan(&scan, buf_bytes(&written), buf_size(&written), control + 1) == RECORD_COMPLETE)
		check_request(buf_bytes(&written), scan.bytes, scan.pairs);
	else
		CHECK(control & 1);
	buf_free(&written);
	return 0;
}
