/*
 * codec.h - FastCGI on the wire: libfcgi decodes requests and encodes answers, from memory to memory.
 *
 * libfcgi reads and writes descriptors and blocks on them, so it never gets a socket: a request is decoded from a memory
 * file that holds all of it, and an answer is encoded into a memory file and sent from there. The only file that includes
 * fcgiapp.h is codec.c. Knows no event loop.
 */
#ifndef HTTP_CODEC_H
#define HTTP_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

#define CODEC_SMALL     (64 * 1024) /* bytes of request that the codec's own memory takes */
#define CODEC_WRITE_MAX (60 * 1024) /* bytes of answer that may be written at once */

struct codec;         /* the memory files of one thread */
struct codec_request; /* a decoded request: its parameters, and the way of its answer */

enum err codec_open(struct codec **out, struct error *why);
void codec_close(struct codec *codec);

/*
 * Decodes one whole request, which record_scan() found complete. Its body is appended to `body`, whose ceiling may fail
 * it. pairs: how many names and values there are in it. `codec` may be NULL: then memory of its own is used, of any size
 * and in any thread. NULL: out of memory.
 */
struct codec_request *codec_decode(struct codec *codec, const char *bytes, size_t len, size_t pairs,
				   struct buf *body);
void codec_free(struct codec_request *request);

/* A parameter such as "REQUEST_METHOD", lent until codec_free(); NULL when absent. */
const char *codec_param(const struct codec_request *request, const char *name);

/*
 * Sends at most CODEC_WRITE_MAX bytes of answer to the socket `fd` in one write, and, if `last`, the end of the request.
 * The socket must be blocking and writable: then this does not wait. False when it is broken.
 */
bool codec_write(struct codec *codec, const struct codec_request *request, int fd, const char *bytes,
		 size_t len, bool last);

#endif
