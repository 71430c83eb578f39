/*
 * fuzz_query.c - a query string gives each parameter's value as splitting it by hand does; what was percent-encoded decodes
 * to itself, and never beyond the room that is given.
 *
 * Input: the query string, as behind the question mark.
 */
#include "base/percent.h"
#include "fake_fcgi.h"
#include "http/query.h"
#include "plain.h"

struct page {
	uint64_t limit, offset;
};

static const struct query_field fields[] = {
	{ "limit", offsetof(struct page, limit), 10, 1, 50, "", "" },
	{ "offset", offsetof(struct page, offset), 0, 0, 1000000, "", "" },
};

/* ---- percent-encoding ---- */

/* Every room from nothing to more than enough: it fits exactly when it should, and nothing is written behind. */
static void check_decoding(const char *text, size_t len)
{
	struct buf expected;
	bool good;

	buf_init(&expected, len);
	good = plain_decode(&expected, (struct input){ text, len });
	for (size_t room = len > 40 ? len - 40 : 0; room <= len; room++) {
		char *out = exact_copy(text, room);
		size_t got = 0;
		bool fits = percent_decode(out, room, &got, text, len);

		CHECK(fits == (good && buf_size(&expected) <= room));
		CHECK(!fits || same_bytes(out, got, buf_bytes(&expected), buf_size(&expected)));
		free(out);
	}
	buf_free(&expected);
}

static void check_encoding(const char *text, size_t len)
{
	struct buf encoded;
	char *back = exact_copy(text, len);
	size_t got;

	buf_init(&encoded, 3 * len);
	percent_encode(&encoded, text, len);
	CHECK(!encoded.failed);
	for (size_t i = 0; i < buf_size(&encoded); i++)
		CHECK(memchr("%-._~", buf_bytes(&encoded)[i], 5) != NULL || isalnum(buf_bytes(&encoded)[i]));
	CHECK(percent_decode(back, len, &got, buf_bytes(&encoded), buf_size(&encoded)));
	CHECK(same_bytes(back, got, text, len));
	free(back);
	buf_free(&encoded);
}

/* ---- parameters, by hand ---- */

/* How often `name` is there; the last one's value is in `value`, *good: it can be decoded and holds no NUL. */
static unsigned find(struct buf *value, bool *good, const char *name, struct input query)
{
	unsigned count = 0;

	while (query.left > 0) {
		struct input pair = input_until(&query, '&'), key = input_until(&pair, '=');
		struct buf decoded;

		buf_init(&decoded, 3 * key.left);
		if (plain_decode(&decoded, key) &&
		    same_bytes(buf_bytes(&decoded), buf_size(&decoded), name, strlen(name))) {
			count++;
			buf_reset(value, 0);
			*good = plain_decode(value, pair) &&
				memchr(buf_bytes(value), '\0', buf_size(value)) == NULL;
		}
		buf_free(&decoded);
	}
	return count;
}

static uint64_t expected_number(const struct query_field *field, const char *query, bool *good)
{
	struct buf value;
	uint64_t number = 0;
	unsigned count;

	buf_init(&value, strlen(query) + 1);
	*good = true;
	count = find(&value, good, field->name, (struct input){ query, strlen(query) });
	*good = count == 0 || (count == 1 && *good && buf_size(&value) > 0 && buf_size(&value) <= 18);
	for (size_t i = 0; i < buf_size(&value) && *good; i++) {
		*good = isdigit((unsigned char)buf_bytes(&value)[i]);
		number = number * 10 + (uint64_t)(buf_bytes(&value)[i] - '0');
	}
	number = count == 0 ? field->fallback : number;
	*good = *good && number >= field->min && number <= field->max;
	buf_free(&value);
	return number;
}

static void check_page(const struct request *request)
{
	struct page page = { 0, 0 };
	struct error why;
	bool limit_good, offset_good;
	uint64_t limit = expected_number(&fields[0], request->query, &limit_good);
	uint64_t offset = expected_number(&fields[1], request->query, &offset_good);
	enum err rc = query_read(&page, fields, COUNT(fields), request, &why);

	CHECK((rc == ERR_OK) == (limit_good && offset_good));
	CHECK(rc == ERR_OK
		  ? page.limit == limit && page.offset == offset
		  : rc == ERR_BAD_REQUEST && strstr(why.detail, limit_good ? "offset" : "limit") != NULL);
}

static void check_text(const struct request *request)
{
	size_t len = strlen(request->query);
	struct buf value;
	char out[16];
	bool present, good = false;
	unsigned count;

	buf_init(&value, len + 1);
	count = find(&value, &good, "limit", (struct input){ request->query, len });
	good = good && count == 1 && buf_size(&value) < sizeof out;
	CHECK(request_query(request, "limit", out, sizeof out, &present) == good);
	CHECK(present == (count > 0));
	CHECK(!good || same_bytes(out, strlen(out), buf_bytes(&value), buf_size(&value)));
	buf_free(&value);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	char *query = exact_string(bytes, len);
	struct request request = { .query = query };

	check_decoding(query, len);
	check_encoding(query, len);
	check_page(&request);
	check_text(&request);
	free(query);
	return 0;
}
