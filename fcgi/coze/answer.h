/*
 * answer.h - which text of an answer is still to be delivered.
 *
 * Coze sends each answer message as deltas and then once more whole (coze-api section 3.4): a user must get one or the
 * other. An answer counts the bytes delivered per message id; of a whole message it yields only what is missing.
 */
#ifndef COZE_ANSWER_H
#define COZE_ANSWER_H

#include "base/error.h"
#include "coze/event.h"

#define ANSWER_PARTS_MAX 256 /* answer messages of one chat */

struct answer_part;

struct answer {
	struct answer_part *parts;
	size_t count, cap;
};

void answer_init(struct answer *answer);
void answer_fini(struct answer *answer);

/*
 * Sets *text (lent from the message, maybe empty) to what the user has not got yet of `message`, and counts it as
 * delivered. `whole`: the message is complete, not a delta. ERR_NOMEM or ERR_ANSWER_TOO_BIG (too many messages).
 */
enum err answer_take(struct answer *answer, const struct event_message *message, bool whole,
		     struct event_text *text);

#endif
