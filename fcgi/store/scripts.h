/*
 * scripts.h - the Lua scripts of redis/, compiled in: a worker and its scripts are always of one version.
 */
#ifndef STORE_SCRIPTS_H
#define STORE_SCRIPTS_H

#include "store/redis.h"

enum script {
	SCRIPT_INDEX_DROP,
	SCRIPT_INDEX_PAGE,
	SCRIPT_INDEX_TIDY,
	SCRIPT_RATE_RETURN,
	SCRIPT_RATE_SLOT,
	SCRIPT_SESSION_BEGIN,
	SCRIPT_SESSION_BIND,
	SCRIPT_SESSION_CLEAR,
	SCRIPT_SESSION_RENEW,
	SCRIPT_SESSION_SAVE,
	SCRIPT__COUNT
};

/* SCRIPT__COUNT scripts, by enum script. */
const struct redis_script *scripts_all(void);

#endif
