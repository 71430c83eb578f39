/*
 * error.c - the one table that maps failures to HTTP status, name and text.
 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

static const struct {
	int status;
	unsigned retry_after_s;
	const char *name;
	const char *detail;
} errors[ERR__COUNT] = {
	[ERR_OK] = { 200, 0, "ok", "" },
	[ERR_BAD_REQUEST] = { 400, 0, "bad_request", "请求参数错误" },
	[ERR_UNAUTHORIZED] = { 401, 0, "unauthorized", "缺少有效的 API 密钥" },
	[ERR_FORBIDDEN] = { 403, 0, "forbidden", "没有权限" },
	[ERR_NOT_FOUND] = { 404, 0, "not_found", "接口不存在" },
	[ERR_METHOD] = { 405, 0, "method", "不支持的请求方法" },
	[ERR_TOO_BIG] = { 413, 0, "too_big", "请求体过大" },
	[ERR_MEDIA_TYPE] = { 415, 0, "media_type", "Content-Type 必须是 application/json" },
	[ERR_NOMEM] = { 503, 5, "no_memory", "服务器内存不足，请稍后重试" },
	[ERR_STORE] = { 503, 2, "store", "会话存储暂时不可用，请稍后重试" },
	[ERR_SESSION_BUSY] = { 409, 2, "session_busy", "该会话正在处理之前的消息，请稍后重试" },
	[ERR_RATE] = { 503, 5, "rate", "排队的请求过多，请稍后重试" },
	[ERR_TOO_MANY] = { 503, 2, "too_many", "同时进行的对话过多，请稍后重试" },
	[ERR_STOPPING] = { 503, 1, "stopping", "服务正在重启，请稍后重试" },
	[ERR_CIRCUIT] = { 503, 5, "circuit_open", "Coze API暂时不可用，请稍后重试" },
	[ERR_COZE_CONFIG] = { 500, 0, "coze_config", "Coze API请求失败" },
	[ERR_COZE_REFUSED] = { 400, 0, "coze_refused", "Coze 拒绝了该请求" },
	[ERR_COZE_BUSY] = { 503, 5, "coze_busy", "Coze API暂时不可用，请稍后重试" },
	[ERR_COZE_UNREACHABLE] = { 503, 5, "coze_unreachable", "无法连接 Coze API，请稍后重试" },
	[ERR_COZE_PROTOCOL] = { 503, 5, "coze_protocol", "Coze API返回了无法识别的内容" },
	[ERR_COZE_EMPTY] = { 503, 1, "coze_empty", "Coze API返回空回复" },
	[ERR_TIMEOUT] = { 503, 1, "timeout", "请求超时" },
	[ERR_ANSWER_TOO_BIG] = { 503, 1, "answer_too_big", "Coze API的回复过长" },
};

int error_status(enum err code)
{
	return errors[code].status;
}

const char *error_name(enum err code)
{
	return errors[code].name;
}

unsigned error_retry_after_s(const struct error *error)
{
	if (error->retry_after_s != 0 && errors[error->code].retry_after_s != 0)
		return error->retry_after_s;
	return errors[error->code].retry_after_s;
}

/* snprintf may have cut the text inside a character: take the broken one off again. */
static void end_on_character(char *text)
{
	size_t len = strlen(text);

	text[utf8_valid_prefix(text, len)] = '\0';
}

enum err error_set(struct error *error, enum err code, const char *detail, const char *cause, ...)
{
	va_list args;

	error->code = code;
	error->retry_after_s = 0;
	snprintf(error->detail, sizeof error->detail, "%s", detail != NULL ? detail : errors[code].detail);
	end_on_character(error->detail);
	va_start(args, cause);
	vsnprintf(error->cause, sizeof error->cause, cause, args);
	va_end(args);
	return code;
}

void error_detail(struct error *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error->detail, sizeof error->detail, format, args);
	va_end(args);
	end_on_character(error->detail);
}
