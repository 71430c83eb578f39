/*
 * test_session_key.c - each session has keys of its own that share one hash tag, whatever its id holds.
 */
#include "unit.h"

#include "store/session_key.h"

static void test_session_key_escapes_what_would_move_the_tag(void **state)
{
	static const struct {
		const char *id, *key;
	} cases[] = {
		{ "abc", "coze:{abc}:part" },
		{ "会话 1", "coze:{会话 1}:part" },
		{ "a:b", "coze:{a:b}:part" },
		{ "{", "coze:{%7B}:part" },
		{ "}:part", "coze:{%7D:part}:part" },
		{ "%7B", "coze:{%257B}:part" }, /* not the same as "{" */
		{ "{a}", "coze:{%7Ba%7D}:part" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char key[SESSION_KEY_SIZE];

		session_key(key, cases[i].id, "part");
		assert_string_equal(key, cases[i].key);
	}
}

static void test_session_key_has_room_for_the_longest_id(void **state)
{
	char id[ID_MAX + 1];
	char *key = get_memory(SESSION_KEY_SIZE);

	(void)state;
	memset(id, '%', ID_MAX);
	id[ID_MAX] = '\0';
	session_key(key, id, "a part of 20 letters");
	assert_int_equal(strlen(key), 6 + 3 * ID_MAX + 2 + 20);
	free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session_key_escapes_what_would_move_the_tag),
		cmocka_unit_test(test_session_key_has_room_for_the_longest_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
