/*
 * codec.c - see codec.h.
 *
 * libfcgi opens 8.5 KiB of buffers for the answer with each request, which a stream would hold for minutes. So a request
 * gives them up, and takes some again for each write.
 */
#include "http/codec.h"

#include <errno.h>
#include <fcgiapp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"

#define FILE_SIZE \
	(128 * 1024)      /* CODEC_WRITE_MAX bytes with the headers of their records; CODEC_SMALL fits, too */
#define READ_SIZE    8192 /* of libfcgi's buffers */
#define WRITERS_KEPT 16

/* What libfcgi takes for a request: three streams, and each name with its value in an array that doubles. */
#define STREAM_MEMORY (READ_SIZE + 256 + 3 * MEMORY_OVERHEAD)
#define PAIR_MEMORY   (MEMORY_OVERHEAD + 6 * sizeof(char *))
#define PAIRS_LEAST   30 /* in its array from the beginning */

/* A file in memory, mapped: libfcgi sees a descriptor, we see bytes. */
struct memory_file {
	int fd;
	char *bytes;
};

/* The streams that answers are written with, each at its turn: `out` and `err` of a request that has nothing else any more. */
struct writer {
	FCGX_Request fcgx; /* its streams point to it */
	struct writer *next;
};

struct codec {
	struct memory_file in, out;
	struct writer *writers; /* not in use */
	size_t writer_count;
};

struct codec_request {
	FCGX_Request fcgx; /* its parameters; it has no streams */
};

/* ---- memory files ---- */

static bool memory_open(struct memory_file *file, size_t size)
{
	file->bytes = MAP_FAILED;
	file->fd = memfd_create("fastcgi", MFD_CLOEXEC);
	if (file->fd < 0)
		return false;
	if (ftruncate(file->fd, (off_t)size) == 0)
		file->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
	if (file->bytes == MAP_FAILED)
		close(file->fd);
	return file->bytes != MAP_FAILED;
}

static void memory_close(struct memory_file *file, size_t size)
{
	munmap(file->bytes, size);
	close(file->fd);
}

enum err codec_open(struct codec **out, struct error *why)
{
	struct codec *codec = calloc(1, sizeof *codec);

	if (codec == NULL || FCGX_Init() != 0 || !memory_open(&codec->in, FILE_SIZE)) {
		free(codec);
		return error_set(why, ERR_NOMEM, NULL, "memory for the FastCGI codec: %s", strerror(errno));
	}
	if (!memory_open(&codec->out, FILE_SIZE)) {
		memory_close(&codec->in, FILE_SIZE);
		free(codec);
		return error_set(why, ERR_NOMEM, NULL, "memory for the FastCGI codec: %s", strerror(errno));
	}
	*out = codec;
	return ERR_OK;
}

static void writer_free(struct writer *writer)
{
	FCGX_Free(&writer->fcgx, 0);
	free(writer);
}

void codec_close(struct codec *codec)
{
	while (codec->writers != NULL) {
		struct writer *writer = codec->writers;

		codec->writers = writer->next;
		writer_free(writer);
	}
	memory_close(&codec->in, FILE_SIZE);
	memory_close(&codec->out, FILE_SIZE);
	free(codec);
}

/* ---- decoding ---- */

static void read_body(FCGX_Stream *in, struct buf *body)
{
	int got = READ_SIZE;

	while (got == READ_SIZE) {
		char *room = buf_room(body, READ_SIZE);

		if (room == NULL)
			return;
		got = FCGX_GetStr(room, READ_SIZE, in);
		buf_claim(body, (size_t)got);
	}
}

/*
 * libfcgi closes the descriptor of what it does not understand. record_scan() refuses all that, so this is for the day
 * on which the two disagree.
 */
static void reopen(struct memory_file *file)
{
	munmap(file->bytes, FILE_SIZE);
	if (!memory_open(file, FILE_SIZE))
		abort();
}

/* libfcgi aborts, or follows a NULL, when it gets no memory. head_len: bytes of parameters at most. */
static bool may_accept(size_t head_len, size_t pairs)
{
	return memory_is_there(3 * STREAM_MEMORY + head_len + (PAIRS_LEAST + pairs) * PAIR_MEMORY);
}

/* libfcgi reads a request from `fd`, up to its body. */
static bool accept_request(FCGX_Request *fcgx, int fd)
{
	FCGX_InitRequest(fcgx, -1, FCGI_FAIL_ACCEPT_ON_INTR);
	fcgx->ipcFd = fd;
	fcgx->keepConnection = 1;
	/* If libfcgi closes the descriptor after all, on what record_scan() should have refused, then without lingering. */
	FCGX_Detach(fcgx);
	if (FCGX_Accept_r(fcgx) != 0)
		return false;
	fcgx->ipcFd = -1;
	return true;
}

static void writer_keep(struct codec *codec, struct writer *writer)
{
	if (codec == NULL || codec->writer_count == WRITERS_KEPT) {
		writer_free(writer);
		return;
	}
	writer->next = codec->writers;
	codec->writers = writer;
	codec->writer_count++;
}

/* The request keeps its parameters; the streams for its answer go to whoever writes next. */
static bool decode(struct codec *codec, struct codec_request *request, struct writer *writer, int fd,
		   struct buf *body)
{
	if (!accept_request(&writer->fcgx, fd)) {
		writer_free(writer);
		return false;
	}
	writer->fcgx.ipcFd = fd;
	read_body(writer->fcgx.in, body);
	writer->fcgx.ipcFd = -1;
	FCGX_FreeStream(&writer->fcgx.in);
	request->fcgx = writer->fcgx;
	request->fcgx.out = request->fcgx.err = NULL;
	writer->fcgx.paramsPtr = NULL;
	writer->fcgx.envp = NULL;
	writer_keep(codec, writer);
	return true;
}

struct codec_request *codec_decode(struct codec *codec, const char *bytes, size_t len, size_t pairs,
				   struct buf *body)
{
	struct codec_request *request = calloc(1, sizeof *request);
	struct writer *writer = calloc(1, sizeof *writer);
	struct memory_file file;
	bool own = codec == NULL || len > CODEC_SMALL;
	bool decoded;

	if (request == NULL || writer == NULL || !may_accept(len < CODEC_SMALL ? len : CODEC_SMALL, pairs) ||
	    (own && !memory_open(&file, len))) {
		free(request);
		free(writer);
		return NULL;
	}
	if (!own)
		file = codec->in;
	memcpy(file.bytes, bytes, len);
	lseek(file.fd, 0, SEEK_SET);
	decoded = decode(codec, request, writer, file.fd, body);
	if (!decoded && !own)
		reopen(&codec->in);
	else if (!own)
		memset(file.bytes, 0, len); /* should libfcgi read on behind a later one: nobody's words */
	if (own) {
		munmap(file.bytes, len);
		if (decoded)
			close(file.fd);
	}
	if (!decoded) {
		free(request);
		return NULL;
	}
	return request;
}

void codec_free(struct codec_request *request)
{
	if (request == NULL)
		return;
	FCGX_Free(&request->fcgx, 0);
	free(request);
}

const char *codec_param(const struct codec_request *request, const char *name)
{
	return FCGX_GetParam(name, request->fcgx.envp);
}

/* ---- encoding ---- */

static bool send_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t sent = write(fd, bytes, len);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return false;
		bytes += sent;
		len -= (size_t)sent;
	}
	return true;
}

/* Streams for an answer, from the smallest request there is when none are left: libfcgi has no other way to them. */
static struct writer *writer_make(struct codec *codec)
{
	static const char request[] = {
		1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 4, 0, 1, 0, 0, 0, 0
	};
	struct writer *writer = calloc(1, sizeof *writer);

	if (writer == NULL || !may_accept(0, 0)) {
		free(writer);
		return NULL;
	}
	memcpy(codec->in.bytes, request, sizeof request);
	lseek(codec->in.fd, 0, SEEK_SET);
	if (!accept_request(&writer->fcgx, codec->in.fd)) {
		reopen(&codec->in);
		writer_free(writer);
		return NULL;
	}
	FCGX_FreeStream(&writer->fcgx.in);
	return writer;
}

static struct writer *writer_take(struct codec *codec)
{
	struct writer *writer = codec->writers;

	if (writer == NULL)
		return writer_make(codec);
	codec->writers = writer->next;
	codec->writer_count--;
	return writer;
}

/* libfcgi writes to `fd`; on `last` it closes the streams. */
static bool encode(FCGX_Request *fcgx, int fd, const char *bytes, size_t len, bool last)
{
	bool good = true;

	fcgx->ipcFd = fd;
	if (len > 0 && FCGX_PutStr(bytes, (int)len, fcgx->out) < 0)
		good = false;
	if (last)
		FCGX_FClose(fcgx->err);
	if ((last ? FCGX_FClose(fcgx->out) : FCGX_FFlush(fcgx->out)) < 0)
		good = false;
	fcgx->ipcFd = -1;
	return good;
}

bool codec_write(struct codec *codec, const struct codec_request *request, int fd, const char *bytes,
		 size_t len, bool last)
{
	struct writer *writer = writer_take(codec);
	bool small =
	    len <= READ_SIZE - 64; /* with its headers it fits libfcgi's buffer: one write as it is */
	bool good;
	off_t size;

	if (writer == NULL)
		return false;
	writer->fcgx.requestId = request->fcgx.requestId;
	if (!small)
		lseek(codec->out.fd, 0, SEEK_SET);
	good = encode(&writer->fcgx, small ? fd : codec->out.fd, bytes, len, last);
	if (last || !good)
		writer_free(writer);
	else
		writer_keep(codec, writer);
	if (small || !good)
		return good;
	size = lseek(codec->out.fd, 0, SEEK_CUR);
	return size >= 0 && send_all(fd, codec->out.bytes, (size_t)size);
}
