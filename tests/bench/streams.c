/*
 * streams.c - a client that holds many event streams open at once, and notes when each chunk came.
 * Owns: connections (one epoll, one thread), just enough HTTP/1.1 for answers of nginx, and the times.
 *
 *   streams -p PORT [-H HOST] [-P PATH] [-b BODY] [-h HEADER]... [-c STREAMS] [-r STREAMS_PER_SECOND] [-d SECONDS] [-W SECONDS]
 *           [-k CHUNKS] [-g GAP_MS] [-l LATE_MS] [-t SECONDS] [-i]
 *
 *   -b  body of the POST; the first % in it becomes the stream's number
 *   -c  streams open at a time
 *   -r  how fast they are opened at first; 0: at once
 *   -d  for so long each stream that ends is followed by another on its connection; 0: each is opened once
 *   -W  streams that begin within the first seconds are checked, but their times do not count
 *   -k  chunks that each answer must have; 0: any number
 *   -g  the pace at which the chunks are made: then chunk k is due (k + 1) gaps after its request was sent
 *   -l  how much later than that is late
 *   -t  for so long the streams that are open may go on at the end
 *   -i  prints the line "open" when each stream has its first chunk or has failed, and leaves when its standard input ends
 *
 * Understands this service's streams and Coze's. Prints one JSON object: what came, what went wrong, and percentiles in
 * microseconds. The exit status only says whether it could work at all.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_HEADERS    8
#define MAX_CONNECTING 256 /* at a time: the server's queue shall not be what is measured */
#define LINE_SIZE      512 /* of a line, as much as tells what it is */
#define READ_SIZE      65536
#define STEP_US        39000 /* a chunk held by Nagle's algorithm waits for an acknowledgement, up to 40 ms */

enum failure {
	FAIL_CONNECT, /* no connection */
	FAIL_STATUS,  /* not 200 */
	FAIL_CUT,     /* ended before its end, or not as HTTP says */
	FAIL_ERROR,   /* an error event */
	FAIL_CHUNKS,  /* not as many chunks as there should be */
	FAIL_ORDER,   /* a chunk_index that is not the next one */
	FAIL_TIMEOUT, /* still open at the end */
	FAIL__COUNT
};
static const char *const failure_names[FAIL__COUNT] = { "connect", "status", "cut",    "error",
							"chunks",  "order",  "timeout" };

struct options {
	const char *host, *path, *body, *headers[MAX_HEADERS];
	int port, streams, header_count, chunks;
	double rate, seconds, warm_seconds, gap_ms, late_ms, rest_seconds;
	bool interactive;
};

/* Times in microseconds, as many as come. */
struct samples {
	uint32_t *us;
	size_t count, size;
	uint64_t over; /* those that reached the limit that belongs to them */
};

enum state {
	CLOSED,     /* not opened yet, or done for good */
	CONNECTING, /* until it is writable */
	IN_HEAD,    /* the request was sent */
	IN_SIZE,    /* the line before a chunk of HTTP */
	IN_DATA,
	IN_DATA_END, /* the line end behind it */
	IN_TRAILER,  /* the lines behind the last one */
};

struct stream {
	enum state state;
	int fd;
	bool reused;     /* the connection has had an answer */
	bool counts;     /* its times do */
	bool opened;     /* has had its first chunk, or has failed, once */
	bool complete;   /* its last event came */
	bool wrong;      /* was counted as failed already */
	bool closes;     /* the server said that it will close */
	size_t left;     /* IN_SIZE: the size so far; IN_DATA: bytes of it that are missing */
	size_t line_len; /* may be more than the line's buffer has */
	int chunks;
	uint64_t sent_us, last_us; /* the request; the last chunk */
	char line[LINE_SIZE];      /* IN_HEAD: of the header; IN_DATA: of the body */
};

struct bench {
	struct options options;
	struct sockaddr_in address;
	int epoll;
	struct stream *streams;
	int begun, connecting, running, opened; /* begun: how many of `streams` were ever opened */
	uint64_t number;                        /* of requests that were made */
	uint64_t start_us, now_us, stall_us;    /* stall: the longest turn of the loop */
	bool ending;
	uint64_t finished, failed[FAIL__COUNT], abandoned, chunks, bytes, connections;
	unsigned last_status; /* of the answers that were not 200 */
	struct samples first, gap, late, total;
};

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void die(const char *what)
{
	fprintf(stderr, "streams: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- times ---- */

static void note(struct samples *samples, uint64_t us, uint64_t limit_us)
{
	if (samples->count == samples->size) {
		samples->size = samples->size ? 2 * samples->size : 4096;
		samples->us = realloc(samples->us, samples->size * sizeof *samples->us);
		if (samples->us == NULL)
			die("memory");
	}
	samples->us[samples->count++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
	if (us >= limit_us)
		samples->over++;
}

static int by_size(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void print_samples(const char *name, struct samples *samples)
{
	static const struct {
		const char *name;
		double share;
	} points[] = { { "p50", 0.5 }, { "p90", 0.9 }, { "p99", 0.99 }, { "p999", 0.999 }, { "max", 1 } };

	qsort(samples->us, samples->count, sizeof *samples->us, by_size);
	printf(", \"%s_us\": {\"count\": %zu, \"over\": %llu", name, samples->count,
	       (unsigned long long)samples->over);
	for (size_t i = 0; samples->count != 0 && i < sizeof points / sizeof *points; i++) {
		size_t at = (size_t)((double)samples->count * points[i].share);

		printf(", \"%s\": %u", points[i].name,
		       samples->us[at < samples->count ? at : samples->count - 1]);
	}
	printf("}");
}

/* ---- connections ---- */

static void stream_close(struct bench *bench, struct stream *stream)
{
	if (stream->state == CLOSED)
		return;
	if (stream->state == CONNECTING)
		bench->connecting--;
	close(stream->fd);
	stream->state = CLOSED;
	bench->running--;
}

static void stream_connect(struct bench *bench, struct stream *stream)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = stream };
	int on = 1;

	stream->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (stream->fd < 0)
		die("socket");
	setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	stream->state = CONNECTING;
	stream->reused = false;
	bench->connecting++;
	bench->running++;
	bench->connections++;
	if (connect(stream->fd, (struct sockaddr *)&bench->address, sizeof bench->address) != 0 &&
	    errno != EINPROGRESS)
		die("connect");
	if (epoll_ctl(bench->epoll, EPOLL_CTL_ADD, stream->fd, &event) != 0)
		die("epoll_ctl");
}

static void send_request(struct bench *bench, struct stream *stream)
{
	const struct options *options = &bench->options;
	const char *mark = strchr(options->body, '%');
	char request[8192], body[4096];
	size_t len;

	bench->number++;
	len = (size_t)snprintf(body, sizeof body, "%.*s%.0llu%s", mark ? (int)(mark - options->body) : 0,
			       options->body, mark ? (unsigned long long)bench->number : 0,
			       mark ? mark + 1 : options->body);
	len = (size_t)snprintf(request, sizeof request,
			       "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
			       "application/json\r\nContent-Length: %zu\r\n",
			       options->path, len);
	for (int i = 0; i < options->header_count; i++)
		len += (size_t)snprintf(request + len, sizeof request - len, "%s\r\n", options->headers[i]);
	len += (size_t)snprintf(request + len, sizeof request - len, "\r\n%s", body);

	stream->state = IN_HEAD;
	stream->left = stream->line_len = 0;
	stream->chunks = 0;
	stream->complete = stream->wrong = stream->closes = false;
	stream->counts = (double)(bench->now_us - bench->start_us) >= options->warm_seconds * 1e6;
	stream->sent_us = stream->last_us = clock_us();
	/* A request is smaller than any send buffer; a connection that is gone shows when it is read. */
	if (send(stream->fd, request, len, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
		die("send");
}

static void mark_opened(struct bench *bench, struct stream *stream)
{
	if (stream->opened)
		return;
	stream->opened = true;
	bench->opened++;
	if (bench->options.interactive && bench->opened == bench->options.streams) {
		printf("open\n");
		fflush(stdout);
	}
}

static void fail(struct bench *bench, struct stream *stream, enum failure why)
{
	if (!stream->wrong)
		bench->failed[why]++;
	stream->wrong = true;
	mark_opened(bench, stream);
}

static bool is_over(const struct bench *bench)
{
	return bench->ending || (double)(bench->now_us - bench->start_us) >= bench->options.seconds * 1e6;
}

/* The stream has ended, well or not. Returns whether its connection is still of use. */
static bool stream_next(struct bench *bench, struct stream *stream, bool keep)
{
	mark_opened(bench, stream);
	if (is_over(bench)) {
		stream_close(bench, stream);
		return false;
	}
	if (keep && !stream->closes) {
		stream->reused = true;
		send_request(bench, stream);
		return true;
	}
	stream_close(bench, stream);
	stream_connect(bench, stream);
	return false;
}

/* ---- events ---- */

static bool begins(const struct stream *stream, const char *with)
{
	size_t len = strlen(with);

	return stream->line_len >= len && memcmp(stream->line, with, len) == 0;
}

static void check_order(struct bench *bench, struct stream *stream)
{
	static const char key[] = "\"chunk_index\": ";
	const char *at;

	if (stream->line_len >= LINE_SIZE)
		return; /* a long one; the next will show that it was there */
	stream->line[stream->line_len] = '\0';
	at = strstr(stream->line, key);
	if (at == NULL || atoi(at + sizeof key - 1) != stream->chunks)
		fail(bench, stream, FAIL_ORDER);
}

static void on_chunk(struct bench *bench, struct stream *stream)
{
	const struct options *options = &bench->options;
	uint64_t now = bench->now_us;
	double due = (double)stream->sent_us + (stream->chunks + 1) * options->gap_ms * 1e3;

	if (stream->counts && stream->chunks == 0)
		note(&bench->first, now - stream->sent_us, UINT64_MAX);
	else if (stream->counts)
		note(&bench->gap, now - stream->last_us, STEP_US);
	if (stream->counts && options->gap_ms > 0)
		note(&bench->late, (double)now > due ? now - (uint64_t)due : 0,
		     (uint64_t)(options->late_ms * 1e3));
	stream->last_us = now;
	stream->chunks++;
	bench->chunks++;
	mark_opened(bench, stream);
}

static void on_line(struct bench *bench, struct stream *stream)
{
	if (begins(stream, "data: {\"type\": \"chunk\"")) {
		check_order(bench, stream);
		on_chunk(bench, stream);
	} else if (begins(stream, "event:conversation.message.delta")) {
		on_chunk(bench, stream);
	} else if (begins(stream, "data: {\"type\": \"complete\"") ||
		   begins(stream, "event:conversation.chat.completed")) {
		stream->complete = true;
	} else if (begins(stream, "data: {\"type\": \"error\"") || begins(stream, "event:error") ||
		   begins(stream, "event:conversation.chat.failed")) {
		fail(bench, stream, FAIL_ERROR);
	}
	stream->line_len = 0;
}

static void add_to_line(struct stream *stream, const char *bytes, size_t len)
{
	size_t room = stream->line_len < LINE_SIZE ? LINE_SIZE - stream->line_len : 0;

	memcpy(stream->line + (LINE_SIZE - room), bytes, len < room ? len : room);
	stream->line_len += len;
}

static void take_data(struct bench *bench, struct stream *stream, const char *bytes, size_t len)
{
	while (len > 0) {
		const char *end = memchr(bytes, '\n', len);
		size_t part = end ? (size_t)(end - bytes) : len;

		add_to_line(stream, bytes, part);
		if (end == NULL)
			return;
		on_line(bench, stream);
		bytes += part + 1;
		len -= part + 1;
	}
}

/* ---- HTTP ---- */

/* A line of the header. False: this is no answer that can be used. */
static bool take_head_line(struct bench *bench, struct stream *stream)
{
	unsigned status;

	stream->line[stream->line_len < LINE_SIZE ? stream->line_len : LINE_SIZE - 1] = '\0';
	if (stream->line_len == 1) { /* \r */
		stream->state = IN_SIZE;
		stream->left = 0;
	} else if (sscanf(stream->line, "HTTP/1.1 %u ", &status) == 1) {
		if (status != 200) {
			bench->last_status = status;
			fail(bench, stream, FAIL_STATUS);
			return false;
		}
	} else if (strncasecmp(stream->line, "connection: close", 17) == 0) {
		stream->closes = true;
	} else if (strncasecmp(stream->line, "content-length:", 15) == 0) {
		fail(bench, stream, FAIL_CUT); /* no stream */
		return false;
	}
	stream->line_len = 0;
	return true;
}

static void end_stream(struct bench *bench, struct stream *stream)
{
	int wanted = bench->options.chunks;

	if (!stream->complete)
		fail(bench, stream, FAIL_CUT);
	else if (wanted != 0 && stream->chunks != wanted)
		fail(bench, stream, FAIL_CHUNKS);
	if (stream->wrong)
		return;
	bench->finished++;
	if (stream->counts)
		note(&bench->total, bench->now_us - stream->sent_us, UINT64_MAX);
}

/* One byte of the framing. Returns false when the answer is over, or is none. */
static bool take_frame_byte(struct bench *bench, struct stream *stream, char byte)
{
	switch (stream->state) {
	case IN_HEAD:
		if (byte != '\n') {
			add_to_line(stream, &byte, 1);
			return true;
		}
		return take_head_line(bench, stream);
	case IN_SIZE:
		if (isxdigit((unsigned char)byte))
			stream->left =
			    stream->left * 16 + (size_t)(byte <= '9' ? byte - '0' : (byte | 32) - 'a' + 10);
		else if (byte == '\n')
			stream->state = stream->left ? IN_DATA : IN_TRAILER;
		return true;
	case IN_DATA_END:
		if (byte == '\n') {
			stream->state = IN_SIZE;
			stream->left = 0;
		}
		return true;
	default: /* IN_TRAILER; nginx sends none, so its first line is empty */
		if (byte != '\n')
			return true;
		end_stream(bench, stream);
		return false;
	}
}

/* Returns false when the answer is over, or is none. */
static bool take_bytes(struct bench *bench, struct stream *stream, const char *bytes, size_t len)
{
	while (len > 0) {
		size_t part = 1;

		if (stream->state == IN_DATA) {
			part = len < stream->left ? len : stream->left;
			take_data(bench, stream, bytes, part);
			stream->left -= part;
			if (stream->left == 0)
				stream->state = IN_DATA_END;
		} else if (!take_frame_byte(bench, stream, *bytes)) {
			return false;
		}
		bytes += part;
		len -= part;
	}
	return true;
}

/* The server closed. Between two answers it may: then the request goes on a new connection. */
static void on_closed(struct bench *bench, struct stream *stream)
{
	bool unheard = stream->reused && stream->state == IN_HEAD && stream->line_len == 0;

	if (!unheard)
		fail(bench, stream, FAIL_CUT);
	stream_next(bench, stream, false);
}

static void on_readable(struct bench *bench, struct stream *stream)
{
	static char bytes[READ_SIZE];

	for (;;) {
		ssize_t len = recv(stream->fd, bytes, sizeof bytes, 0);

		if (len < 0 && errno == EAGAIN)
			return;
		bench->now_us = clock_us();
		if (len <= 0) {
			on_closed(bench, stream);
			return;
		}
		bench->bytes += (uint64_t)len;
		if (!take_bytes(bench, stream, bytes, (size_t)len) &&
		    !stream_next(bench, stream, !stream->wrong))
			return;
	}
}

static void on_connected(struct bench *bench, struct stream *stream)
{
	int error = 0;
	socklen_t size = sizeof error;

	bench->connecting--;
	getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	stream->state = IN_HEAD;
	if (error != 0) {
		stream->wrong = false;
		fail(bench, stream, FAIL_CONNECT);
		stream_next(bench, stream, false);
		return;
	}
	send_request(bench, stream);
}

/* ---- the loop ---- */

static void open_due(struct bench *bench)
{
	const struct options *options = &bench->options;
	double due = options->rate > 0 ? (double)(bench->now_us - bench->start_us) * options->rate / 1e6 + 1
				       : options->streams;

	while (!bench->ending && bench->begun < options->streams && bench->begun < due &&
	       bench->connecting < MAX_CONNECTING)
		stream_connect(bench, &bench->streams[bench->begun++]);
}

static void on_event(struct bench *bench, const struct epoll_event *event)
{
	struct stream *stream = event->data.ptr;
	char ignored[64];

	if (stream == NULL) { /* standard input */
		if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
			bench->ending = true;
		return;
	}
	if (stream->state == CONNECTING && (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		on_connected(bench, stream);
	if (stream->state != CLOSED && stream->state != CONNECTING &&
	    (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
		on_readable(bench, stream);
}

static void turn(struct bench *bench)
{
	struct epoll_event events[256];
	bool opening = bench->begun < bench->options.streams;
	int count = epoll_wait(bench->epoll, events, sizeof events / sizeof *events, opening ? 1 : 50);
	uint64_t began = clock_us();

	if (count < 0 && errno != EINTR)
		die("epoll_wait");
	bench->now_us = began;
	for (int i = 0; i < count; i++)
		on_event(bench, &events[i]);
	bench->now_us = clock_us();
	open_due(bench);
	if (bench->now_us - began > bench->stall_us)
		bench->stall_us = bench->now_us - began;
}

static bool goes_on(const struct bench *bench)
{
	const struct options *options = &bench->options;
	double seconds = (double)(bench->now_us - bench->start_us) / 1e6;

	if (bench->ending)
		return false;
	if (bench->begun < options->streams)
		return true;
	return bench->running > 0 && seconds < options->seconds + options->rest_seconds;
}

static void run(struct bench *bench)
{
	struct epoll_event input = { .events = EPOLLIN };

	if (bench->options.interactive && epoll_ctl(bench->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input) != 0)
		die("epoll_ctl");
	bench->start_us = bench->now_us = clock_us();
	do
		turn(bench);
	while (goes_on(bench));
	for (int i = 0; i < bench->options.streams; i++) {
		struct stream *stream = &bench->streams[i];

		if (stream->state != CLOSED && bench->ending)
			bench->abandoned++;
		else if (stream->state != CLOSED)
			fail(bench, stream, FAIL_TIMEOUT);
		stream_close(bench, stream);
	}
}

static void print_results(struct bench *bench)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	printf("{\"streams\": %d, \"finished\": %llu, \"abandoned\": %llu, \"failed\": {",
	       bench->options.streams, (unsigned long long)bench->finished,
	       (unsigned long long)bench->abandoned);
	for (int i = 0; i < FAIL__COUNT; i++)
		printf("%s\"%s\": %llu", i ? ", " : "", failure_names[i],
		       (unsigned long long)bench->failed[i]);
	printf("}, \"last_status\": %u, \"chunks\": %llu, \"bytes\": %llu, \"connections\": %llu, "
	       "\"seconds\": %.3f",
	       bench->last_status, (unsigned long long)bench->chunks, (unsigned long long)bench->bytes,
	       (unsigned long long)bench->connections, (double)(clock_us() - bench->start_us) / 1e6);
	printf(", \"cpu_seconds\": %.3f, \"longest_turn_us\": %llu",
	       (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
		   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
	       (unsigned long long)bench->stall_us);
	print_samples("first", &bench->first);
	print_samples("gap", &bench->gap);
	print_samples("late", &bench->late);
	print_samples("total", &bench->total);
	printf("}\n");
}

/* ---- start ---- */

static void parse(struct options *options, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "p:H:P:b:h:c:r:d:W:k:g:l:t:i")) != -1) {
		switch (option) {
		case 'p':
			options->port = atoi(optarg);
			break;
		case 'H':
			options->host = optarg;
			break;
		case 'P':
			options->path = optarg;
			break;
		case 'b':
			options->body = optarg;
			break;
		case 'h':
			if (options->header_count < MAX_HEADERS)
				options->headers[options->header_count++] = optarg;
			break;
		case 'c':
			options->streams = atoi(optarg);
			break;
		case 'r':
			options->rate = atof(optarg);
			break;
		case 'd':
			options->seconds = atof(optarg);
			break;
		case 'W':
			options->warm_seconds = atof(optarg);
			break;
		case 'k':
			options->chunks = atoi(optarg);
			break;
		case 'g':
			options->gap_ms = atof(optarg);
			break;
		case 'l':
			options->late_ms = atof(optarg);
			break;
		case 't':
			options->rest_seconds = atof(optarg);
			break;
		case 'i':
			options->interactive = true;
			break;
		default:
			exit(2);
		}
	}
	if (options->port <= 0 || options->streams <= 0) {
		fprintf(stderr, "streams: -p and -c are required; what they mean is said in streams.c\n");
		exit(2);
	}
}

static void raise_limits(const struct options *options)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if ((rlim_t)options->streams + 16 > limit.rlim_cur) {
		fprintf(stderr, "streams: %d streams need as many descriptors, and the hard limit is %llu\n",
			options->streams, (unsigned long long)limit.rlim_max);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static struct bench bench = { .options = { .host = "127.0.0.1",
						   .path = "/chat/stream",
						   .body =
						       "{\"message\": \"hi\", \"session_id\": \"stream-%\"}",
						   .streams = 1,
						   .late_ms = 100,
						   .rest_seconds = 30 } };

	parse(&bench.options, argc, argv);
	raise_limits(&bench.options);
	bench.address =
	    (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)bench.options.port) };
	if (inet_pton(AF_INET, bench.options.host, &bench.address.sin_addr) != 1) {
		fprintf(stderr, "streams: -H takes an IPv4 address\n");
		return 2;
	}
	bench.epoll = epoll_create1(EPOLL_CLOEXEC);
	bench.streams = calloc((size_t)bench.options.streams, sizeof *bench.streams);
	if (bench.epoll < 0 || bench.streams == NULL)
		die("start");
	run(&bench);
	print_results(&bench);
	return 0;
}
