/*
 * cancel.h - tells Coze that nobody wants a chat's answer any more: POST /chat/cancel (coze-api section 4).
 */
#ifndef COZE_CANCEL_H
#define COZE_CANCEL_H

#include "base/error.h"

struct transport;

/*
 * Sends the cancellation. `on_gone` (or NULL) is called once when Coze has answered, whatever it says, or
 * could not be reached in time; never from within. On an error it is not called. Coze's 4104 means that the
 * chat has just ended by itself, which is as good.
 */
enum err cancel_chat(struct transport *transport, const char *conversation_id, const char *chat_id,
		     void (*on_gone)(void *arg), void *arg);

#endif
