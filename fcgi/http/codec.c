/*
 * codec.c - see codec.h.
 */
#include "http/codec.h"

#include <errno.h>
#include <fcgiapp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_SIZE \
	(128 * 1024)   /* CODEC_WRITE_MAX bytes with the headers of their records; CODEC_SMALL fits, too */
#define READ_SIZE 8192 /* of libfcgi's buffers */

/* A file in memory, mapped: libfcgi sees a descriptor, we see bytes. */
struct memory_file {
	int fd;
	char *bytes;
};

struct codec {
	struct memory_file in, out;
};

struct codec_request {
	FCGX_Request fcgx;
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

void codec_close(struct codec *codec)
{
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

static bool decode(struct codec_request *request, int fd, struct buf *body)
{
	FCGX_InitRequest(&request->fcgx, -1, FCGI_FAIL_ACCEPT_ON_INTR);
	request->fcgx.ipcFd = fd;
	request->fcgx.keepConnection = 1;
	/* If libfcgi closes the descriptor after all, on what record_scan() should have refused, then without lingering. */
	FCGX_Detach(&request->fcgx);
	if (FCGX_Accept_r(&request->fcgx) != 0)
		return false;
	read_body(request->fcgx.in, body);
	FCGX_FreeStream(&request->fcgx.in); /* 8 KiB that a stream would hold for minutes */
	request->fcgx.ipcFd = -1;
	return true;
}

struct codec_request *codec_decode(struct codec *codec, const char *bytes, size_t len, struct buf *body)
{
	struct codec_request *request = calloc(1, sizeof *request);
	struct memory_file file;
	bool own = codec == NULL || len > CODEC_SMALL;
	bool decoded;

	if (request == NULL)
		return NULL;
	if (!own)
		file = codec->in;
	else if (!memory_open(&file, len)) {
		free(request);
		return NULL;
	}
	memcpy(file.bytes, bytes, len);
	lseek(file.fd, 0, SEEK_SET);
	decoded = decode(request, file.fd, body);
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
		FCGX_Free(&request->fcgx, 0);
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

bool codec_write(struct codec *codec, struct codec_request *request, int fd, const char *bytes, size_t len,
		 bool last)
{
	FCGX_Stream *out = request->fcgx.out;
	bool small =
	    len <= READ_SIZE - 64; /* with its headers it fits libfcgi's buffer: one write as it is */
	bool good = true;
	off_t size;

	request->fcgx.ipcFd = small ? fd : codec->out.fd;
	if (!small)
		lseek(codec->out.fd, 0, SEEK_SET);
	if (len > 0 && FCGX_PutStr(bytes, (int)len, out) < 0)
		good = false;
	if (last)
		FCGX_FClose(request->fcgx.err);
	if ((last ? FCGX_FClose(out) : FCGX_FFlush(out)) < 0)
		good = false;
	request->fcgx.ipcFd = -1;
	if (small || !good)
		return good;
	size = lseek(codec->out.fd, 0, SEEK_CUR);
	return size >= 0 && send_all(fd, codec->out.bytes, (size_t)size);
}
