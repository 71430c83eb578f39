/*
 * code.c - see code.h.
 */
#include "coze/code.h"

#include <stddef.h>

static const struct code codes[] = {
	{ 4000, ERR_COZE_CONFIG, 0, "bad or missing parameter" },
	{ 4001, ERR_COZE_BUSY, 0, "chat unknown" },
	{ 4002, ERR_COZE_REFUSED, CODE_DROP_CONVERSATION, "conversation unknown" },
	{ 4003, ERR_COZE_CONFIG, 0, "meta_data limit" },
	{ 4004, ERR_COZE_CONFIG, 0, "additional_messages limit" },
	{ 4005, ERR_COZE_CONFIG, 0, "bad message id or content" },
	{ 4006, ERR_COZE_CONFIG, CODE_ALARM, "bot unknown" },
	{ 4007, ERR_COZE_CONFIG, 0, "stream=false with auto_save_history=false" },
	{ 4008, ERR_COZE_BUSY, CODE_ALARM, "daily limit of the bot reached" },
	{ 4009, ERR_COZE_BUSY, CODE_RETRY, "system too busy" },
	{ 4010, ERR_COZE_REFUSED, 0, "prompt over the model's token limit" },
	{ 4011, ERR_COZE_BUSY, CODE_ALARM, "token balance exhausted" },
	{ 4012, ERR_COZE_CONFIG, CODE_ALARM, "model withdrawn" },
	{ 4013, ERR_COZE_BUSY, CODE_RETRY, "model service error or rate limit" },
	{ 4014, ERR_COZE_REFUSED, 0, "content refused" },
	{ 4015, ERR_COZE_CONFIG, CODE_ALARM, "bot not published as API" },
	{ 4016, ERR_COZE_BUSY, CODE_OCCUPIED, "a chat is running in this conversation" },
	{ 4019, ERR_COZE_BUSY, CODE_ALARM, "Volcano balance" },
	{ 4020, ERR_COZE_BUSY, CODE_RETRY, "requests per minute exceeded" },
	{ 4021, ERR_COZE_CONFIG, CODE_ALARM, "workflow not configured" },
	{ 4022, ERR_COZE_BUSY, CODE_ALARM, "model in arrears" },
	{ 4028, ERR_COZE_BUSY, CODE_ALARM, "free quota used up" },
	{ 4100, ERR_COZE_CONFIG, CODE_ALARM, "token invalid or expired" },
	{ 4101, ERR_COZE_CONFIG, CODE_ALARM, "token lacks permission, or wrong region" },
	{ 4102, ERR_COZE_BUSY, 0, "risk control" },
	{ 4104, ERR_COZE_BUSY, 0, "chat cannot be cancelled in its state" },
	{ 4105, ERR_COZE_REFUSED, 0, "sensitive content" },
	{ 4200, ERR_COZE_CONFIG, 0, "resource not found" },
	{ 5000, ERR_COZE_BUSY, CODE_RETRY, "internal error" },
	{ 700012006, ERR_COZE_CONFIG, CODE_ALARM, "access token invalid" },
	{ 710005002, ERR_COZE_BUSY, CODE_RETRY, "API rate limited" },
	{ 720701013, ERR_COZE_BUSY, CODE_RETRY, "workflow server trouble" },
	{ 720702204, ERR_COZE_CONFIG, CODE_ALARM, "chatflow: conversation name missing" },
};

const struct code *code_find(int64_t code)
{
	static const struct code unknown = { 0, ERR_COZE_BUSY, 0, "unknown code" };

	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (codes[i].code == code)
			return &codes[i];
	return &unknown;
}

enum err code_of_status(long status)
{
	if (status == 408 || status == 425 || status == 429 || status >= 500)
		return ERR_COZE_BUSY;
	return ERR_COZE_CONFIG;
}

bool code_status_passes(long status)
{
	return status == 429 || status == 500 || (status >= 502 && status <= 504);
}

const char *code_status_reason(long status)
{
	static const struct {
		long status;
		const char *reason;
	} reasons[] = {
		{ 400, "Bad Request" },
		{ 401, "Unauthorized" },
		{ 402, "Payment Required" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 405, "Method Not Allowed" },
		{ 408, "Request Timeout" },
		{ 409, "Conflict" },
		{ 413, "Content Too Large" },
		{ 415, "Unsupported Media Type" },
		{ 422, "Unprocessable Content" },
		{ 429, "Too Many Requests" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 502, "Bad Gateway" },
		{ 503, "Service Unavailable" },
		{ 504, "Gateway Timeout" },
	};

	for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "";
}
