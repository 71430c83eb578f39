/*
 * test_redis_url.c - a REDIS_URL is taken apart completely or refused with a reason that shows no
 * password.
 */
#include "unit.h"

#include "store/redis_url.h"

static void test_redis_url_takes(void **state)
{
	static const struct {
		const char *text;
		struct redis_url url;
	} cases[] = {
		{ "redis://localhost", { "localhost", "6379", "", "", "", 0 } },
		{ "redis://localhost/", { "localhost", "6379", "", "", "", 0 } },
		{ "redis://localhost:6380", { "localhost", "6380", "", "", "", 0 } },
		{ "redis://127.0.0.1:1/0", { "127.0.0.1", "1", "", "", "", 0 } },
		{ "redis://h:65535/15", { "h", "65535", "", "", "", 15 } },
		{ "redis://h/65535", { "h", "6379", "", "", "", 65535 } },
		{ "redis://:secret@h", { "h", "6379", "", "", "secret", 0 } },
		{ "redis://user:secret@h:7000/3", { "h", "7000", "", "user", "secret", 3 } },
		{ "redis://user:@h", { "h", "6379", "", "user", "", 0 } },
		{ "redis://:p%40ss%2Fw%3Ard@h", { "h", "6379", "", "", "p@ss/w:rd", 0 } },
		{ "redis://:a:b@h", { "h", "6379", "", "", "a:b", 0 } },
		{ "redis://:a@b@h", { "h", "6379", "", "", "a@b", 0 } },
		{ "redis://%E4%BD%A0:x@h", { "h", "6379", "", "你", "x", 0 } },
		{ "redis://[::1]", { "::1", "6379", "", "", "", 0 } },
		{ "redis://[fe80::1]:6380/2", { "fe80::1", "6380", "", "", "", 2 } },
		{ "redis://[fe80::1%eth0.1]:1", { "fe80::1%eth0.1", "1", "", "", "", 0 } },
		{ "redis://[::ffff:10.0.0.1]", { "::ffff:10.0.0.1", "6379", "", "", "", 0 } },
		{ "redis://my_host-1.example.", { "my_host-1.example.", "6379", "", "", "", 0 } },
		{ "redis://u:p@[::1]:6380/2", { "::1", "6380", "", "u", "p", 2 } },
		{ "unix:///run/redis.sock", { "", "6379", "/run/redis.sock", "", "", 0 } },
		{ "unix:///run/redis.sock?db=4", { "", "6379", "/run/redis.sock", "", "", 4 } },
		{ "unix://relative.sock", { "", "6379", "relative.sock", "", "", 0 } },
		{ "unix:///with%20blank%3F", { "", "6379", "/with blank?", "", "", 0 } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct redis_url *expected = &cases[i].url;
		struct redis_url url;
		const char *why = "";

		if (!redis_url_parse(&url, cases[i].text, &why))
			fail_msg("%s: %s", cases[i].text, why);
		assert_string_equal(url.host, expected->host);
		assert_string_equal(url.path, expected->path);
		assert_string_equal(url.user, expected->user);
		assert_string_equal(url.password, expected->password);
		assert_int_equal(url.db, expected->db);
		if (expected->host[0] != '\0')
			assert_string_equal(url.port, expected->port);
	}
}

static void test_redis_url_refuses(void **state)
{
	static const char *const cases[] = {
		"",
		"localhost",
		"localhost:6379",
		"http://localhost",
		"rediss://localhost", /* TLS is not spoken */
		"REDIS://localhost",
		"redis:/localhost",
		"redis:localhost",
		"redis://",
		"redis:///0",
		"redis://:6379",
		"redis://h:",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:99999",
		"redis://h:123456",
		"redis://h:-1",
		"redis://h:+1",
		"redis://h:80a",
		"redis://h: 80",
		"redis://h:80:90",
		"redis://h/x",
		"redis://h/-1",
		"redis://h/+1",
		"redis://h/ 1",
		"redis://h/1x",
		"redis://h/0/1",
		"redis://h/65536",
		"redis://h/99999999999999999999999",
		"redis://h/18446744073709551616",
		"redis://[::1",
		"redis://[]",
		"redis://[]:1",
		"redis://[::1]x",
		"redis://[::1]6379",
		"redis://[[::1]",
		"redis://[::1%]",
		"redis://[%eth0]",
		"redis://[fe80%eth0]",
		"redis://[abc]",
		"redis://[10.0.0.1]",
		"redis://[::1%a%b]",
		"redis://[%eth0:x]",
		"redis://[a host]",
		"redis://[localhost]",
		"redis://a host",
		"redis://h]",
		"redis://h?x",
		"redis://h\n",
		"redis://h%41",
		"redis://你",
		"redis://secret@h", /* a login is [user]:password */
		"redis://:secret@",
		"redis://:secret%@h",
		"redis://:secret%4@h",
		"redis://:secret%00@h",
		"redis://us%zz:secret@h",
		"unix://",
		"unix://?db=1",
		"unix:///s?db=x",
		"unix:///s?db=65536",
		"unix:///s?x=1",
		"unix:///s?",
		"unix:///s%00",
		"unix:///s%",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = exact_copy(cases[i], strlen(cases[i]) + 1);
		struct redis_url url;
		const char *why = NULL;

		if (redis_url_parse(&url, text, &why))
			fail_msg("took \"%s\"", cases[i]);
		assert_non_null(why);
		assert_true(why[0] != '\0');
		assert_lacks(why, "secret");
		free(text);
	}
}

/* Each part fits up to the size of its field, and not one byte more. */
static void test_redis_url_parts_have_ceilings(void **state)
{
	static const struct {
		const char *before, *after;
		size_t max;
	} parts[] = {
		{ "redis://", ":1", 255 },   { "redis://[", "]:1", 255 }, { "redis://:", "@h", 511 },
		{ "redis://", ":x@h", 127 }, { "unix://", "?db=1", 107 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(parts); i++) {
		for (size_t len = parts[i].max - 2; len <= parts[i].max + 2; len++) {
			char text[700], part[600];
			struct redis_url url;
			const char *why;

			memset(part, 'a', len);
			part[len] = '\0';
			if (strchr(parts[i].before, '[') != NULL)
				part[0] = ':';
			snprintf(text, sizeof text, "%s%s%s", parts[i].before, part, parts[i].after);
			assert_int_equal(redis_url_parse(&url, text, &why), len <= parts[i].max);
		}
	}
}

/* A password from a secret file is taken as it is, the user and the rest stay, and one that is too long changes nothing. */
static void test_redis_url_takes_a_password_from_elsewhere(void **state)
{
	struct redis_url url;
	const char *why;
	char password[513];

	(void)state;
	assert_true(redis_url_parse(&url, "redis://user:old@h:1/2", &why));
	assert_true(redis_url_set_password(&url, "a%40b@c:/d"));
	assert_string_equal(url.password, "a%40b@c:/d");
	assert_string_equal(url.user, "user");
	assert_string_equal(url.host, "h");
	assert_int_equal(url.db, 2);
	memset(password, 'x', sizeof password);
	password[512] = '\0';
	assert_false(redis_url_set_password(&url, password));
	assert_string_equal(url.password, "a%40b@c:/d");
	password[511] = '\0';
	assert_true(redis_url_set_password(&url, password));
	assert_string_equal(url.password, password);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redis_url_takes),
		cmocka_unit_test(test_redis_url_refuses),
		cmocka_unit_test(test_redis_url_parts_have_ceilings),
		cmocka_unit_test(test_redis_url_takes_a_password_from_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
