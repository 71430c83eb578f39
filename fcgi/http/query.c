/*
 * query.c - see query.h.
 */
#include "http/query.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 18 /* of any number that fits a uint64_t for sure */

/* Digits and nothing else: no sign, no blank, no fraction, no exponent. */
static bool read_number(const char *text, uint64_t *number)
{
	size_t len = strlen(text);

	if (len == 0 || len > DIGITS_MAX || strspn(text, "0123456789") != len)
		return false;
	*number = strtoull(text, NULL, 10);
	return true;
}

enum err query_bad(const struct query_field *field, struct error *why)
{
	error_set(why, ERR_BAD_REQUEST, NULL, "bad query parameter %s", field->name);
	error_detail(why, "参数 %s 无效: 必须是 %llu-%llu 之间的整数，且只能出现一次", field->name,
		     (unsigned long long)field->min, (unsigned long long)field->max);
	return ERR_BAD_REQUEST;
}

static enum err read_field(const struct query_field *field, const struct request *request, void *out,
			   struct error *why)
{
	uint64_t *number = (uint64_t *)(void *)((char *)out + field->offset);
	char text[DIGITS_MAX + 2];
	bool present;
	bool good = request_query(request, field->name, text, sizeof text, &present);

	if (!present) {
		*number = field->fallback;
		return ERR_OK;
	}
	if (good && read_number(text, number) && *number >= field->min && *number <= field->max)
		return ERR_OK;
	return query_bad(field, why);
}

enum err query_read(void *out, const struct query_field *fields, size_t count, const struct request *request,
		    struct error *why)
{
	enum err rc = ERR_OK;

	for (size_t i = 0; i < count && rc == ERR_OK; i++)
		rc = read_field(&fields[i], request, out, why);
	return rc;
}
