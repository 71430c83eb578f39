/*
 * test_answer.c - the user gets every byte of an answer once, whether it comes as deltas, whole, or both.
 */
#include "unit.h"

#include "coze/answer.h"
#include "failing_alloc.h"

struct step {
	const char *id;
	bool whole;
	const char *content;
	const char *text; /* what is to be delivered */
};

static enum err take(struct answer *answer, const char *id, bool whole, const char *content,
		     struct event_text *text)
{
	struct event_message message = { .id = { id, strlen(id) }, .content = { content, strlen(content) } };

	return answer_take(answer, &message, whole, text);
}

static void assert_delivers(const struct step *steps, size_t count)
{
	struct answer answer;

	answer_init(&answer);
	for (size_t i = 0; i < count; i++) {
		struct event_text text;

		assert_int_equal(take(&answer, steps[i].id, steps[i].whole, steps[i].content, &text), ERR_OK);
		assert_bytes(text.bytes, text.len, steps[i].text, strlen(steps[i].text));
	}
	answer_fini(&answer);
}

static void test_answer_passes_deltas_and_not_the_whole_again(void **state)
{
	static const struct step steps[] = {
		{ "1", false, "你", "你" }, { "1", false, "好", "好" }, { "1", false, "", "" },
		{ "1", true, "你好", "" },  { "1", true, "你好", "" }, /* told twice */
	};

	(void)state;
	assert_delivers(steps, COUNT(steps));
}

static void test_answer_passes_a_whole_without_deltas_once(void **state)
{
	static const struct step steps[] = {
		{ "1", true, "All at once.", "All at once." },
		{ "1", true, "All at once.", "" },
	};

	(void)state;
	assert_delivers(steps, COUNT(steps));
}

static void test_answer_adds_what_the_deltas_lacked(void **state)
{
	static const struct step steps[] = {
		{ "1", false, "你", "你" },
		{ "1", true, "你好😀", "好😀" },
		{ "1", true, "你好😀!", "!" },
	};

	(void)state;
	assert_delivers(steps, COUNT(steps));
}

static void test_answer_keeps_messages_apart(void **state)
{
	static const struct step steps[] = {
		{ "1", false, "a", "a" },        { "2", false, "xy", "xy" },
		{ "1", false, "b", "b" },        { "3", true, "new", "new" },
		{ "2", true, "xyz", "z" },       { "1", true, "abc", "c" },
		{ "", false, "no id", "no id" }, { "", true, "no id", "" },
		{ "12", true, "12", "12" }, /* no id is another's beginning */
	};

	(void)state;
	assert_delivers(steps, COUNT(steps));
}

/* Nothing that was sent can be taken back: what is left may only be cut between characters. */
static void test_answer_does_not_add_half_a_character_to_changed_words(void **state)
{
	static const struct step steps[] = {
		{ "1", false, "ab", "ab" },
		{ "1", true, "你好", "" }, /* two bytes in would be inside a character */
		{ "2", false, "abc", "abc" },
		{ "2", true, "x", "" }, /* shorter than what was sent */
		{ "2", true, "abcd", "d" },
	};

	(void)state;
	assert_delivers(steps, COUNT(steps));
}

static void test_answer_ids_are_bytes_of_any_length(void **state)
{
	char id[200];
	struct answer answer;

	(void)state;
	memset(id, 'i', sizeof id);
	answer_init(&answer);
	for (size_t len = 1; len < sizeof id; len++) {
		struct event_message message = { .id = { id, len }, .content = { "abc", 3 } };
		struct event_text text;
		char *copy = exact_copy(id, len);

		message.id.bytes = copy;
		assert_int_equal(answer_take(&answer, &message, true, &text), ERR_OK);
		/* Ids that begin with the same 64 bytes are taken for one: Coze's have 19 digits. */
		assert_int_equal(text.len, len <= 64 ? 3 : 0);
		free(copy);
	}
	answer_fini(&answer);
}

static void test_answer_has_a_ceiling_on_messages(void **state)
{
	struct answer answer;
	struct event_text text;
	char id[16];

	(void)state;
	answer_init(&answer);
	for (int i = 0; i < ANSWER_PARTS_MAX; i++) {
		snprintf(id, sizeof id, "%d", i);
		assert_int_equal(take(&answer, id, false, "x", &text), ERR_OK);
	}
	assert_int_equal(take(&answer, "one more", false, "x", &text), ERR_ANSWER_TOO_BIG);
	assert_int_equal(text.len, 0);
	assert_int_equal(take(&answer, "0", true, "xy", &text), ERR_OK); /* known ones go on */
	assert_bytes(text.bytes, text.len, "y", 1);
	answer_fini(&answer);
}

static void test_answer_survives_each_failed_allocation(void **state)
{
	bool failed = true;

	(void)state;
	for (long good = 0; failed; good++) {
		struct answer answer;
		enum err rc = ERR_OK;

		answer_init(&answer);
		alloc_fail_after(good);
		for (int i = 0; i < 20 && rc == ERR_OK; i++) {
			char id[] = { (char)('a' + i), '\0' };
			struct event_text text;

			rc = take(&answer, id, false, "x", &text);
		}
		failed = alloc_failed();
		assert_int_equal(rc, failed ? ERR_NOMEM : ERR_OK);
		answer_fini(&answer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_passes_deltas_and_not_the_whole_again),
		cmocka_unit_test(test_answer_passes_a_whole_without_deltas_once),
		cmocka_unit_test(test_answer_adds_what_the_deltas_lacked),
		cmocka_unit_test(test_answer_keeps_messages_apart),
		cmocka_unit_test(test_answer_does_not_add_half_a_character_to_changed_words),
		cmocka_unit_test(test_answer_ids_are_bytes_of_any_length),
		cmocka_unit_test(test_answer_has_a_ceiling_on_messages),
		cmocka_unit_test(test_answer_survives_each_failed_allocation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
