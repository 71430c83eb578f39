/*
 * fuzz_failure.c - whatever Coze says went wrong, the user gets clean text of a sane length and one of our statuses; and a
 * pause before asking again is neither shorter than Coze asked for nor endless.
 *
 * Input: lines of code, HTTP status, Retry-After, attempt; then Coze's words.
 */
#include "fuzz.h"

#include "coze/code.h"
#include "coze/failure.h"
#include "coze/retry.h"

#define ALL_TRAITS (CODE_RETRY | CODE_OCCUPIED | CODE_DROP_CONVERSATION | CODE_ALARM | CODE_DOWN)

static long long number_of(struct input line)
{
	char *text = exact_string(line.at, line.left);
	long long number = strtoll(text, NULL, 10);

	free(text);
	return number;
}

static void check_error(const struct error *error)
{
	int status = error_status(error->code);

	CHECK(error->code > ERR_OK && error->code < ERR__COUNT);
	CHECK(status == 400 || status == 500 || status == 503);
	CHECK(memchr(error->detail, '\0', sizeof error->detail) != NULL && error->detail[0] != '\0');
	CHECK(memchr(error->cause, '\0', sizeof error->cause) != NULL && error->cause[0] != '\0');
	CHECK(utf8_valid(error->detail, strlen(error->detail)));
	CHECK((error_retry_after_s(error) > 0) == (status == 503));
}

static void check_failure(const struct failure *failure)
{
	check_error(&failure->error);
	CHECK((failure->traits & ~(unsigned)ALL_TRAITS) == 0 && !failure->cancelling);
	/* What may help when it is sent again is no fault of ours or of the user's. */
	CHECK(!(failure->traits & CODE_RETRY) || error_status(failure->error.code) == 503);
}

static void check_code(int64_t code, const struct buf *words)
{
	const struct event_text msg = { buf_bytes(words), buf_size(words) };
	size_t shown =
	    msg.len < 200 ? utf8_cut(msg.bytes, msg.len, msg.len) : utf8_cut(msg.bytes, msg.len, 200);
	struct failure failure;
	char number[32];

	failure_of_code(&failure, code, &msg);
	check_failure(&failure);
	CHECK(code_find(code)->code == code || code_find(code)->code == 0);
	/* Coze's words never get into the log: they may repeat the user's. */
	if (memchr(msg.bytes, '\0', msg.len) == NULL && shown > 40)
		CHECK(memmem(failure.error.cause, strlen(failure.error.cause), msg.bytes, shown) == NULL);
	if (memchr(msg.bytes, '\0', shown) == NULL)
		CHECK(memmem(failure.error.detail, strlen(failure.error.detail), msg.bytes, shown) != NULL);
	snprintf(number, sizeof number, "%lld", (long long)code);
	CHECK((code <= 0) || strstr(failure.error.detail, number) != NULL);
}

static void check_status(long status, int64_t code)
{
	struct failure failure;

	failure_of_status(&failure, status, code);
	check_failure(&failure);
	CHECK(((failure.traits & CODE_DOWN) != 0) == (status >= 500));
}

static void check_call(unsigned number, const char *why)
{
	struct failure failure;

	failure_of_call(&failure, number % (CALL_NO_MEMORY + 1), "polling", why);
	check_failure(&failure);
}

static void check_pause(unsigned attempt, unsigned retry_after_s)
{
	uint64_t asked = (uint64_t)retry_after_s * 1000;

	for (unsigned i = 0; i < 8; i++) {
		uint64_t pause = retry_pause_ms(attempt, retry_after_s, i / 8.0);

		CHECK(pause >= 375 && pause >= asked);
		CHECK(pause <= 37500 || pause <= asked + 505);
	}
}

/* Retries are never free: each one that is let go was earned or given. */
static void check_budget(struct input steps)
{
	struct retry_budget budget;
	uint64_t now_ms = 0, requests = 0, retries = 0;

	retry_budget_init(&budget, now_ms);
	while (steps.left > 0) {
		unsigned step = input_byte(&steps);

		now_ms += step >> 2;
		if (step & 1) {
			retry_budget_earn(&budget, now_ms);
			requests++;
		} else if (retry_budget_spend(&budget, now_ms)) {
			retries++;
		}
		CHECK(budget.savings >= 0 && budget.savings <= 101);
		CHECK((double)retries <=
		      RETRY_SAVINGS + (double)requests / 10 + (double)now_ms / 1000 + 0.01);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = input_of(bytes, len);
	int64_t code = number_of(input_line(&input));
	long status = (long)number_of(input_line(&input));
	unsigned retry_after_s = (unsigned)number_of(input_line(&input));
	unsigned attempt = (unsigned)number_of(input_line(&input));
	char *why = exact_string(input.at, input.left);
	struct buf words;

	buf_init(&words, 3 * len);
	utf8_repair(&words, input.at, input.left);
	check_code(code, &words);
	check_status(status, code);
	check_call(attempt, why);
	check_pause(attempt, retry_after_s);
	check_budget(input);
	buf_free(&words);
	free(why);
	return 0;
}
