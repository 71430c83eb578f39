/*
 * failure.c - see failure.h.
 */
#include "coze/failure.h"

#include <string.h>

#include "base/utf8.h"
#include "coze/code.h"

#define MSG_MAX 200 /* bytes of Coze's own words that a user sees */

void failure_set(struct failure *failure, enum err err, const char *detail, const char *cause)
{
	*failure = (struct failure){ .traits = 0 };
	error_set(&failure->error, err, detail, "%s", cause);
}

void failure_of_code(struct failure *failure, int64_t number, const struct event_text *msg)
{
	static const struct event_text nameless = { "未知错误", sizeof "未知错误" - 1 };
	const struct code *code = code_find(number);
	const struct event_text *words = msg->len > 0 || number > 0 ? msg : &nameless;
	int len = (int)utf8_cut(words->bytes, words->len, MSG_MAX);

	*failure = (struct failure){ .traits = code->traits };
	error_set(&failure->error, code->err, NULL, "Coze code %lld: %s", (long long)number, code->meaning);
	if (number > 0)
		error_detail(&failure->error, "Coze API请求失败: %lld %.*s", (long long)number, len,
			     words->bytes);
	else
		error_detail(&failure->error, "Coze API请求失败: %.*s", len, words->bytes);
}

void failure_of_status(struct failure *failure, long status, int64_t number)
{
	const struct code *code = code_find(number);
	bool known = code->code != 0;
	enum err err = known ? code->err : code_of_status(status);

	*failure = (struct failure){ .cancelling = false };
	failure->traits = known ? code->traits : code_status_passes(status) ? CODE_RETRY : 0;
	if (status >= 500)
		failure->traits |= CODE_DOWN;
	error_set(&failure->error, err, NULL, "Coze answered HTTP %ld, code %lld", status, (long long)number);
	error_detail(&failure->error, "Coze API请求失败: %ld %s", status, code_status_reason(status));
}

void failure_of_call(struct failure *failure, enum call_end end, const char *doing, const char *why)
{
	static const struct {
		enum err err;
		unsigned traits; /* only what surely has not reached Coze may be repeated */
		const char *cause;
	} ends[] = {
		[CALL_OK] = { ERR_COZE_UNREACHABLE, 0, "ended before its own end" },
		[CALL_NOT_SENT] = { ERR_COZE_UNREACHABLE, CODE_RETRY | CODE_DOWN, "no connection" },
		[CALL_CONNECT_TIMEOUT] = { ERR_TIMEOUT, CODE_RETRY | CODE_DOWN,
					   "COZE_CONNECT_TIMEOUT_SECONDS passed" },
		[CALL_FIRST_BYTE_TIMEOUT] = { ERR_TIMEOUT, CODE_DOWN,
					      "COZE_FIRST_BYTE_TIMEOUT_SECONDS passed" },
		[CALL_IDLE_TIMEOUT] = { ERR_TIMEOUT, 0, "COZE_IDLE_TIMEOUT_SECONDS passed without a byte" },
		[CALL_UNANSWERED] = { ERR_COZE_UNREACHABLE, CODE_DOWN,
				      "the connection broke before an answer" },
		[CALL_CUT] = { ERR_COZE_UNREACHABLE, 0, "the connection broke" },
		[CALL_NO_MEMORY] = { ERR_NOMEM, 0, "memory is short" },
	};

	*failure = (struct failure){ .traits = ends[end].traits };
	error_set(&failure->error, ends[end].err, NULL, "while %s: %s%s%s", doing, ends[end].cause,
		  why[0] != '\0' ? ": " : "", why);
	if (end == CALL_OK || end == CALL_CUT || end == CALL_UNANSWERED)
		error_detail(&failure->error, "与 Coze API 的连接中断，请稍后重试");
}
