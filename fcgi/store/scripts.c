/*
 * scripts.c - see scripts.h. The assembler reads the files, from the directory that make runs in; the Makefile knows
 * that this object depends on them.
 */
#include "store/scripts.h"

#define EMBED(name, file)                                        \
	__asm__(".pushsection .rodata\n"                         \
		".global script_" #name "\n"                     \
		".type script_" #name ", @object\n"              \
		"script_" #name ":\n"                            \
		".incbin \"" file "\"\n"                         \
		".byte 0\n"                                      \
		".size script_" #name ", . - script_" #name "\n" \
		".popsection\n");                                \
	extern const char script_##name[]

EMBED(index_drop, "redis/index_drop.lua");
EMBED(index_page, "redis/index_page.lua");
EMBED(index_tidy, "redis/index_tidy.lua");
EMBED(rate_return, "redis/rate_return.lua");
EMBED(rate_slot, "redis/rate_slot.lua");
EMBED(session_begin, "redis/session_begin.lua");
EMBED(session_bind, "redis/session_bind.lua");
EMBED(session_clear, "redis/session_clear.lua");
EMBED(session_renew, "redis/session_renew.lua");
EMBED(session_save, "redis/session_save.lua");

const struct redis_script *scripts_all(void)
{
	static const struct redis_script scripts[SCRIPT__COUNT] = {
		[SCRIPT_INDEX_DROP] = { "index_drop", script_index_drop },
		[SCRIPT_INDEX_PAGE] = { "index_page", script_index_page },
		[SCRIPT_INDEX_TIDY] = { "index_tidy", script_index_tidy },
		[SCRIPT_RATE_RETURN] = { "rate_return", script_rate_return },
		[SCRIPT_RATE_SLOT] = { "rate_slot", script_rate_slot },
		[SCRIPT_SESSION_BEGIN] = { "session_begin", script_session_begin },
		[SCRIPT_SESSION_BIND] = { "session_bind", script_session_bind },
		[SCRIPT_SESSION_CLEAR] = { "session_clear", script_session_clear },
		[SCRIPT_SESSION_RENEW] = { "session_renew", script_session_renew },
		[SCRIPT_SESSION_SAVE] = { "session_save", script_session_save },
	};

	return scripts;
}
