/*
 * members.h - members that many answers have, told of once. Each is for a struct with a field of that name.
 */
#ifndef CHAT_MEMBERS_H
#define CHAT_MEMBERS_H

#include "http/shape.h"

#define EXAMPLE_SESSION      "demo_session_1"
#define EXAMPLE_USER         "user123"
#define EXAMPLE_CONVERSATION "conv_789xyz"

#define MEMBER_SESSION_ID(of)                                                                       \
	{                                                                                           \
		"session_id", MEMBER_ID, offsetof(struct of, session_id), "会话 ID", "the session", \
		    .example = EXAMPLE_SESSION                                                      \
	}

#define MEMBER_USER_ID(of)                                                                                   \
	{                                                                                                    \
		"user_id", MEMBER_ID, offsetof(struct of, user_id), "会话所属的用户", "whose session it is", \
		    .example = EXAMPLE_USER                                                                  \
	}

/* `nullable`: there may be none yet. */
#define MEMBER_CONVERSATION_ID(of, nullable_)                                                         \
	{                                                                                             \
		"conversation_id", MEMBER_ID, offsetof(struct of, conversation_id), "Coze 会话 ID",   \
		    "the Coze conversation", .example = EXAMPLE_CONVERSATION, .nullable = (nullable_) \
	}

#define MEMBER_LOCAL_TIME(of, name_, meaning_, meaning_en_)                                                 \
	{                                                                                                   \
		.name = #name_, .kind = MEMBER_TIME, .offset = offsetof(struct of, name_),                  \
		.meaning = (meaning_), .meaning_en = (meaning_en_), .example = "2024-01-15T10:30:15.123456" \
	}

#define MEMBER_TIMESTAMP(of) MEMBER_LOCAL_TIME(of, timestamp, "服务的本地时间", "the service's local time")

#endif
