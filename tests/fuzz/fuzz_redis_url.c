/*
 * fuzz_redis_url.c - a REDIS_URL is refused with a reason, or taken apart so that putting it together again gives the same; and any
 * password comes out of it as it went in.
 */
#include "fuzz.h"

#include "base/percent.h"
#include "store/redis_url.h"

#define ENDS(field) (memchr((field), '\0', sizeof(field)) != NULL)

static void check_parts(const struct redis_url *url)
{
	CHECK(ENDS(url->host) && ENDS(url->port) && ENDS(url->path) && ENDS(url->user) &&
	      ENDS(url->password));
	CHECK((url->host[0] == '\0') != (url->path[0] == '\0'));
	CHECK(url->db <= 65535);
	CHECK(strspn(url->port, "0123456789") == strlen(url->port));
	CHECK(atoi(url->port) >= 1 && atoi(url->port) <= 65535);
	CHECK(strpbrk(url->host, "/@?[]") == NULL);
}

static void write_encoded(struct buf *out, const char *text)
{
	percent_encode(out, text, strlen(text));
}

/* The URL that says the same, with everything escaped that may be. */
static char *write_url(const struct redis_url *url)
{
	struct buf out;
	char *text;

	buf_init(&out, 16384);
	if (url->path[0] != '\0') {
		buf_append_str(&out, "unix://");
		write_encoded(&out, url->path);
		buf_printf(&out, "?db=%u", url->db);
	} else {
		buf_append_str(&out, "redis://");
		write_encoded(&out, url->user);
		buf_append_char(&out, ':');
		write_encoded(&out, url->password);
		buf_printf(&out, strchr(url->host, ':') != NULL ? "@[%s]:%s/%u" : "@%s:%s/%u", url->host,
			   url->port, url->db);
	}
	text = exact_string(buf_bytes(&out), buf_size(&out));
	buf_free(&out);
	return text;
}

static void check_round_trip(const struct redis_url *url)
{
	struct redis_url again;
	const char *why = NULL;
	char *text = write_url(url);

	CHECK(redis_url_parse(&again, text, &why));
	CHECK(strcmp(url->host, again.host) == 0 && strcmp(url->path, again.path) == 0);
	CHECK(atoi(url->port) == atoi(again.port) && url->db == again.db);
	CHECK(strcmp(url->user, again.user) == 0 && strcmp(url->password, again.password) == 0);
	free(text);
}

static void check_password(struct redis_url url, const char *password)
{
	struct redis_url before = url;
	bool fits = strlen(password) <= REDIS_PASSWORD_MAX;

	CHECK(redis_url_set_password(&url, password) == fits);
	CHECK(strcmp(url.password, fits ? password : before.password) == 0);
	CHECK(strcmp(url.user, before.user) == 0 && url.db == before.db);
}

static void check_login(const char *password, size_t len, bool good, const char *expected,
			size_t expected_len)
{
	struct redis_url url;
	const char *why = NULL;
	struct buf out;
	char *text;

	buf_init(&out, 3 * len + 100);
	buf_append_str(&out, "redis://user:");
	buf_append(&out, password, len);
	buf_append_str(&out, "@host:1/2");
	text = exact_string(buf_bytes(&out), buf_size(&out));
	CHECK(redis_url_parse(&url, text, &why) == good);
	if (good) {
		CHECK(same_bytes(url.password, strlen(url.password), expected, expected_len));
		CHECK(strcmp(url.user, "user") == 0 && strcmp(url.host, "host") == 0 && url.db == 2);
	}
	free(text);
	buf_free(&out);
}

/* Any bytes are a good password when they are escaped, and most when they are not. */
static void check_any_password(const char *bytes, size_t len)
{
	bool good = len <= REDIS_PASSWORD_MAX && memchr(bytes, '\0', len) == NULL;
	struct buf encoded;

	buf_init(&encoded, 3 * len);
	percent_encode(&encoded, bytes, len);
	check_login(buf_bytes(&encoded), buf_size(&encoded), good, bytes, len);
	if (memchr(bytes, '\0', len) == NULL && memchr(bytes, '/', len) == NULL &&
	    memchr(bytes, '%', len) == NULL)
		check_login(bytes, len, good, bytes, len);
	buf_free(&encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct redis_url url;
	char *text = exact_string(bytes, len);
	const char *why = NULL;

	if (redis_url_parse(&url, text, &why)) {
		check_parts(&url);
		check_round_trip(&url);
		check_password(url, text);
	} else {
		CHECK(why != NULL && why[0] != '\0');
	}
	check_any_password(text, len);
	free(text);
	return 0;
}
