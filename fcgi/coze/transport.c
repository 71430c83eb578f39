/*
 * transport.c - see transport.h.
 *
 * libcurl must not be re-entered: while it calls us back (in_curl > 0), new calls wait in `starting` and closed ones in
 * `dying`; both are served when it has returned (settle).
 *
 * Over HTTP/2 a connection carries many calls, but libcurl cannot know which of the connections that it opens just now
 * will: it opens one for each call that finds no room. So only as many calls at a time may be without a connection as there
 * must be connections for all; the others wait in `starting`, and find room when these are open.
 */
#include "coze/transport.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "coze/refusal.h"
#include "coze/trust.h"
#include "coze/watch.h"

#define DRAIN_MS         1000 /* how long a finished stream may take to end */
#define IDLE_HANDLES_MAX 256  /* easy handles kept for reuse */
#define CONNECTION_IDLE_S \
	30L /* older idle connections are not reused: the peer may be closing them just now */
#define CONNECTIONS_KEPT 1024L
#define AGAIN_MS         50 /* between attempts to begin anew without memory */

/*
 * libcurl's buffers of a call, which it holds as long as the answer streams. What is read at once, 16 KiB by default: not less
 * over HTTP/2, where libcurl 7.88 may leave what does not fit unread until more comes. What is sent at once, 64 KiB by default:
 * this is the least that it takes.
 */
#define RECEIVE_BUFFER 4096L
#define SEND_BUFFER    16384L

/*
 * HTTP/2: calls on a connection. libcurl looks at all of them whenever anything comes on it, so a hundred (its own limit)
 * cost twice as much per chunk; and fewer cost memory for more connections.
 */
#define STREAMS_PER_CONNECTION 32L

enum call_state {
	CALL_STARTING, /* waits for libcurl to return */
	CALL_RUNNING,
	CALL_DRAINING, /* nobody listens any more */
	CALL_DYING     /* waits for libcurl to return, to be closed */
};

struct call {
	struct transport *transport;
	struct call *prev, *next; /* in one of the transport's lists, by state */
	enum call_state state;
	CURL *easy;      /* NULL once removed */
	struct buf body; /* until it has left */
	const struct call_ops *ops;
	void *arg;
	enum metrics_call counts_as;
	long status; /* HTTP; 0 until the answer's head */
	uint64_t started_ns;
	uint64_t first_byte_ms, idle_ms;
	uv_timer_t timer;
	unsigned sendings; /* how often libcurl was about to send the request */
	int local_port;    /* of the connection that it was about to send it on */
	curl_socket_t fd;  /* that libcurl wanted watched for it last, while it connects */
	bool post;
	bool connecting; /* counted as one for which libcurl may have to open a connection */
	bool may_repeat; /* the peer has promised that it did not look at what was sent */
	struct sending sending;
	bool head_seen, paused, complete, starved;
	enum call_end timed_out; /* CALL_OK: not */
	char error[CURL_ERROR_SIZE];
};

struct call_list {
	struct call *first, *last;
	size_t count;
};

struct transport {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t timer;
	uv_timer_t again; /* broken: when to begin anew */
	bool broken;      /* `multi` must not be used; NULL: there was no memory for another one yet */
	unsigned in_curl;
	struct call_list starting, running, dying;
	size_t active, closing_timers;
	size_t connecting;     /* calls that are */
	uint64_t last_sent_ms; /* when a call last got a connection */
	unsigned heard;        /* how often libcurl had something to tell of */
	bool closed;
	char *base_url;
	const char *base_path; /* in base_url; "" when there is none */
	struct trust trust;
	char *ca_file; /* "": libcurl's own */
	bool
	    one_ca_file; /* it is all that counts; else the system's authorities do, too, one by one (CURLOPT_CAPATH) */
	bool secure;
	bool multiplexed; /* the peer speaks HTTP/2, as far as we know */
	uint64_t connect_ms;
	struct curl_slist *headers;
	struct refusals refusals;
	CURL *idle[IDLE_HANDLES_MAX];
	size_t idle_count;
	struct watches watches;
};

static size_t settle(struct transport *transport);
static void distrust(struct transport *transport);
static void on_again(uv_timer_t *timer);
static enum call_end end_of(const struct call *call, CURLcode code);
static void finish(struct call *call, CURLcode code);

/* ---- lists ---- */

static void list_add(struct call_list *list, struct call *call)
{
	call->prev = list->last;
	call->next = NULL;
	if (call->prev != NULL)
		call->prev->next = call;
	else
		list->first = call;
	list->last = call;
	list->count++;
}

static void list_remove(struct call_list *list, struct call *call)
{
	if (call->prev != NULL)
		call->prev->next = call->next;
	else
		list->first = call->next;
	if (call->next != NULL)
		call->next->prev = call->prev;
	else
		list->last = call->prev;
	list->count--;
}

static struct call_list *list_of(struct call *call)
{
	if (call->state == CALL_STARTING)
		return &call->transport->starting;
	return call->state == CALL_DYING ? &call->transport->dying : &call->transport->running;
}

static void move(struct call *call, enum call_state next)
{
	list_remove(list_of(call), call);
	call->state = next;
	list_add(list_of(call), call);
}

/* ---- counting ---- */

static void count(const struct call *call, enum metrics_result result)
{
	metric_add(&metrics->counters.calls[call->counts_as][result], 1);
}

static void count_end(const struct call *call, enum call_end end)
{
	static const enum metrics_result results[] = {
		[CALL_NOT_SENT] = METRICS_RESULT_NOT_SENT,
		[CALL_CONNECT_TIMEOUT] = METRICS_RESULT_CONNECT_TIMEOUT,
		[CALL_FIRST_BYTE_TIMEOUT] = METRICS_RESULT_FIRST_BYTE_TIMEOUT,
		[CALL_IDLE_TIMEOUT] = METRICS_RESULT_IDLE_TIMEOUT,
		[CALL_UNANSWERED] = METRICS_RESULT_UNANSWERED,
		[CALL_CUT] = METRICS_RESULT_CUT,
	};

	if (end == CALL_NO_MEMORY)
		end = end_of(call, CURLE_COULDNT_CONNECT);
	if (end != CALL_OK)
		count(call, results[end]);
	else
		count(call, call->status >= 500   ? METRICS_RESULT_5XX
			    : call->status >= 400 ? METRICS_RESULT_4XX
						  : METRICS_RESULT_OK);
}

/* ---- freeing ---- */

static void free_transport_if_done(struct transport *transport)
{
	if (!transport->closed || transport->closing_timers > 0)
		return;
	trust_close(&transport->trust);
	free(transport->base_url);
	free(transport->ca_file);
	free(transport);
}

static void on_call_timer_closed(uv_handle_t *handle)
{
	struct call *call = handle->data;
	struct transport *transport = call->transport;

	buf_free(&call->body);
	free(call);
	transport->closing_timers--;
	free_transport_if_done(transport);
}

/*
 * `smooth`: the handle's last call went as most do. Else libcurl has counted its retries in it, and would stop at five; and it
 * may still have its buffer, which curl_easy_reset() forgets to be smaller than by default.
 */
static void keep_easy(struct transport *transport, CURL *easy, bool smooth)
{
	if (!smooth || transport->idle_count == IDLE_HANDLES_MAX || transport->closed) {
		curl_easy_cleanup(easy);
		return;
	}
	/* What is not set anew for each call must not point to this one's memory. */
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L); /* setting the fields had made it a POST again */
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	curl_easy_setopt(easy, CURLOPT_DEBUGDATA, NULL);
	transport->idle[transport->idle_count++] = easy;
}

static void set_connecting(struct call *call, bool connecting)
{
	if (call->connecting == connecting)
		return;
	call->connecting = connecting;
	if (connecting)
		call->transport->connecting++;
	else
		call->transport->connecting--;
}

/* libcurl goes on with a call that paused, and may call us while it does. */
static CURLcode unpause(struct call *call)
{
	struct transport *transport = call->transport;
	CURLcode code;

	transport->in_curl++;
	code = curl_easy_pause(call->easy, CURLPAUSE_CONT);
	transport->in_curl--;
	if (code == CURLE_ABORTED_BY_CALLBACK) /* it is libcurl's word for a failure with the sockets */
		distrust(transport);
	return code;
}

/*
 * What libcurl has put aside for a paused call, it forgets to free when the connection has other calls (7.88, curl issue
 * 10971): up to a whole answer. Offered to on_write(), which refuses it, it is freed.
 */
static void drop_put_aside(struct call *call)
{
	if (!call->paused || call->transport->broken)
		return;
	call->state = CALL_DYING;
	unpause(call);
}

/* Takes the call from libcurl and frees it. Only while libcurl is not calling us. */
static void release(struct call *call)
{
	struct transport *transport = call->transport;

	list_remove(list_of(call), call);
	set_connecting(call, false);
	if (call->easy != NULL) {
		drop_put_aside(call);
		curl_multi_remove_handle(transport->multi, call->easy);
		keep_easy(transport, call->easy, call->complete && call->sendings == 1);
		call->easy = NULL;
	}
	transport->closing_timers++;
	uv_close((uv_handle_t *)&call->timer, on_call_timer_closed);
}

/* ---- time limits ---- */

static void on_call_timer(uv_timer_t *timer);

static void limit(struct call *call, uint64_t ms)
{
	if (!call->starved)
		uv_timer_start(&call->timer, on_call_timer, ms, 0);
}

/* A call that waits while others get connections goes on doing so, but no longer than for an answer. */
static bool may_wait_on(struct call *call)
{
	struct transport *transport = call->transport;
	uint64_t waited_ms = (uv_hrtime() - call->started_ns) / 1000000;

	if (call->state != CALL_STARTING || waited_ms >= call->first_byte_ms ||
	    uv_now(transport->loop) - transport->last_sent_ms >= transport->connect_ms)
		return false;
	limit(call, transport->connect_ms);
	return true;
}

static void on_call_timer(uv_timer_t *timer)
{
	static const char *const words[] = {
		[CALL_CONNECT_TIMEOUT] = "still no connection",
		[CALL_FIRST_BYTE_TIMEOUT] = "sent, and no answer began",
		[CALL_IDLE_TIMEOUT] = "the answer stopped coming",
	};
	struct call *call = timer->data;
	struct transport *transport = call->transport;
	const struct call_ops *ops = call->ops;
	void *arg = call->arg;
	bool drained = call->state == CALL_DRAINING;
	enum call_end end = call->head_seen      ? CALL_IDLE_TIMEOUT
			    : call->sendings > 0 ? CALL_FIRST_BYTE_TIMEOUT
						 : CALL_CONNECT_TIMEOUT;

	if (may_wait_on(call))
		return;
	if (!drained) {
		count_end(call, end);
		transport->active--;
	}
	release(call);
	if (!drained)
		ops->on_done(arg, end, words[end]);
	settle(transport);
}

static void on_starved(uv_timer_t *timer)
{
	struct call *call = timer->data;
	struct transport *transport = call->transport;

	finish(call, CURLE_OUT_OF_MEMORY);
	settle(transport);
}

/* The call cannot go on for want of memory: it ends soon, as nobody is told from within. */
static void starve(struct call *call)
{
	call->starved = true;
	uv_timer_start(&call->timer, on_starved, 0, 0);
}

/* ---- what libcurl calls ---- */

static enum body_kind kind_of(const char *content_type)
{
	if (content_type == NULL)
		return BODY_OTHER;
	if (strcasestr(content_type, "text/event-stream") != NULL)
		return BODY_EVENTS;
	return strcasestr(content_type, "json") != NULL ? BODY_JSON : BODY_OTHER;
}

/*
 * The answer has begun: a request that has left as a whole is not needed any more, and an answer may take minutes. It could
 * only be sent again before this (on_before_sending). Setting the size of libcurl's buffer frees it.
 */
static void drop_request(struct call *call)
{
	curl_off_t sent = 0;

	if (!call->post || curl_easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &sent) != CURLE_OK ||
	    sent < (curl_off_t)buf_size(&call->body))
		return;
	curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, NULL);
	curl_easy_setopt(call->easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
	buf_free(&call->body);
}

static void tell_head(struct call *call)
{
	struct call_head head = { .logid = "" };
	struct curl_header *header;
	curl_off_t retry_after = 0;
	char *content_type = NULL;
	long version = 0;

	call->head_seen = true;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &head.status);
	curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &content_type);
	if (curl_easy_getinfo(call->easy, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK && retry_after > 0)
		head.retry_after_s = retry_after > 86400 ? 86400 : (unsigned)retry_after;
	if (curl_easy_header(call->easy, "X-Tt-Logid", 0, CURLH_HEADER, -1, &header) == CURLHE_OK)
		head.logid = header->value;
	head.kind = kind_of(content_type);
	call->status = head.status;
	metric_observe(&metrics->counters.first_byte_time, (uv_hrtime() - call->started_ns) / 1000);
	if (call->transport->secure &&
	    curl_easy_getinfo(call->easy, CURLINFO_HTTP_VERSION, &version) == CURLE_OK)
		call->transport->multiplexed = version >= CURL_HTTP_VERSION_2_0;
	drop_request(call);
	call->ops->on_head(call->arg, &head);
}

static size_t on_write(char *bytes, size_t size, size_t count, void *arg)
{
	struct call *call = arg;
	size_t len = size * count;

	if (call->state == CALL_DYING)
		return 0;
	if (call->state == CALL_DRAINING)
		return len;
	if (call->paused)
		return CURL_WRITEFUNC_PAUSE;
	if (!call->head_seen)
		tell_head(call);
	if (call->state == CALL_RUNNING)
		limit(call, call->idle_ms);
	if (call->state == CALL_RUNNING)
		call->ops->on_body(call->arg, bytes, len);
	if (call->state == CALL_RUNNING && call->paused)
		uv_timer_stop(&call->timer);
	return call->state == CALL_DYING ? 0 : len;
}

/*
 * libcurl repeats a request by itself when a reused connection turns out dead. Nobody knows then whether the first one was
 * taken, and a repeated POST would be a second chat: so only what the peer promises not to have looked at is repeated.
 * This is called when a connection is there and the request is about to leave; may_repeat was set when
 * libcurl decided to repeat: the words about the new connection have been said since.
 */
static int on_before_sending(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct call *call = arg;
	bool allowed = call->sendings++ == 0 || (!call->head_seen && (!call->post || call->may_repeat));

	(void)ip;
	(void)local_ip;
	(void)port;
	call->local_port = local_port;
	call->may_repeat = false;
	call->transport->last_sent_ms = uv_now(call->transport->loop);
	set_connecting(call, false);
	if (call->state == CALL_RUNNING)
		limit(call, call->first_byte_ms);
	return allowed ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static int on_debug(CURL *easy, curl_infotype type, char *text, size_t len, void *arg)
{
	static const char retrying[] = "retrying a fresh connect";
	struct call *call = arg;

	(void)easy;
	if (call != NULL)
		call->transport->heard++;
	if (type != CURLINFO_TEXT || call == NULL)
		return 0;
	refusal_hear(&call->transport->refusals, &call->sending, text, len);
	if (memmem(text, len, retrying, sizeof retrying - 1) != NULL)
		call->may_repeat = refusal_promised(&call->transport->refusals, &call->sending);
	return 0;
}

/* ---- sockets and time ---- */

/*
 * libcurl has run out of memory while it found out which sockets are to be watched. Some are not then, so that nothing
 * would ever happen on them; and 7.88 divides by zero when it meets one of them again. So it is not touched any more, and
 * soon begins anew (start_anew).
 */
static void distrust(struct transport *transport)
{
	transport->broken = true;
	uv_timer_start(&transport->again, on_again, 0, 0);
}

/* Calls that had to wait are begun as long as libcurl finds room for them on the connections that are open. */
static void act(struct transport *transport, curl_socket_t fd, int events)
{
	size_t begun;
	int running;

	do {
		if (transport->broken)
			return;
		transport->in_curl++;
		if (curl_multi_socket_action(transport->multi, fd, events, &running) != CURLM_OK)
			distrust(transport);
		transport->in_curl--;
		begun = settle(transport);
		fd = CURL_SOCKET_TIMEOUT;
		events = 0;
	} while (begun > 0 && transport->starting.first != NULL);
}

static struct call *call_on(const struct transport *transport, curl_socket_t fd, int port)
{
	struct call *call = transport->running.first;

	while (call != NULL && !(call->connecting ? call->fd == fd : call->local_port == port))
		call = call->next;
	return call;
}

/* For a paused call libcurl leaves things unread, and is right. */
static bool has_paused(const struct transport *transport, int port)
{
	for (const struct call *call = transport->running.first; call != NULL; call = call->next)
		if (call->local_port == port && call->paused)
			return true;
	return false;
}

/*
 * Without memory for a record OpenSSL's connection has failed for good, and reads nothing any more. libcurl 7.88 takes that
 * for "not yet" when its last read had ended so (ossl_recv): the socket stays readable, nobody reads, and the loop spins.
 */
static void on_unread(void *arg, curl_socket_t fd)
{
	struct transport *transport = arg;
	int port = watch_local_port(fd);
	struct call *call;

	if (transport->broken || port == 0 || has_paused(transport, port))
		return;
	log_event(LOG_LEVEL_ERROR, "coze",
		  LOG_TEXT("cause", "libcurl does not read a connection: it is given up"));
	watch_end_connection(fd);
	watch_unset(&transport->watches, fd); /* it will be readable ever after */
	transport->in_curl++;                 /* calls that are started from within wait */
	while ((call = call_on(transport, fd, port)) != NULL)
		finish(call, CURLE_RECV_ERROR);
	transport->in_curl--;
	settle(transport);
}

/*
 * When the connection has broken, CURL_CSELECT_ERR would throw away what came before and is still unread; without flags
 * libcurl reads on until it meets the error itself. Without TLS it reads whatever comes, and has nothing to tell of it.
 */
static bool on_event(void *arg, curl_socket_t fd, int events)
{
	struct transport *transport = arg;
	unsigned heard = transport->heard;
	int flags = 0;

	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	act(transport, fd, flags);
	return transport->heard != heard || !transport->secure;
}

static const struct watch_ops watch_ops = { .on_event = on_event, .on_unread = on_unread };

static void on_timer(uv_timer_t *timer)
{
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct transport *transport = arg;

	(void)multi;
	if (timeout_ms < 0)
		uv_timer_stop(&transport->timer);
	else
		uv_timer_start(&transport->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static curl_socket_t on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct transport *transport = arg;
	int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);

	(void)purpose;
	if (fd < 0)
		return CURL_SOCKET_BAD;
	if (!watch_add(&transport->watches, fd)) {
		close(fd);
		return CURL_SOCKET_BAD;
	}
	return fd;
}

static int on_close_socket(void *arg, curl_socket_t fd)
{
	struct transport *transport = arg;

	watch_remove(&transport->watches, fd);
	return close(fd);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct transport *transport = arg;
	struct call *call = NULL;
	int events = 0;

	(void)socket_arg;
	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
	if (what == CURL_POLL_REMOVE) {
		if (call != NULL && call->fd == fd)
			call->fd = CURL_SOCKET_BAD;
		watch_unset(&transport->watches, fd);
		return 0;
	}
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= UV_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= UV_WRITABLE;
	if (call != NULL)
		call->fd = fd;
	/* To say so would end all transfers: libcurl gives up its whole multi handle then. */
	if (!watch_set(&transport->watches, fd, events) && call != NULL)
		starve(call);
	return 0;
}

/* ---- the end of a call ---- */

static enum call_end end_of(const struct call *call, CURLcode code)
{
	if (code == CURLE_OK)
		return CALL_OK;
	if (code == CURLE_OUT_OF_MEMORY)
		return CALL_NO_MEMORY;
	if (call->sendings > 0)
		return call->head_seen ? CALL_CUT : CALL_UNANSWERED;
	return code == CURLE_OPERATION_TIMEDOUT ? CALL_CONNECT_TIMEOUT : CALL_NOT_SENT;
}

/*
 * libcurl may keep a connection that has broken: one whose TLS has failed, though the socket has not, or, without memory to
 * repeat the request on another one, any (7.88, Curl_retry_request). The next request on it would fail, or wait for ever. So
 * the socket is ended, which libcurl sees before it uses it again. While other calls are on the connection it is not named.
 */
static void give_up_connection(const struct call *call, CURLcode code)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	if (call->sendings == 0 || call->transport->broken ||
	    (code != CURLE_OUT_OF_MEMORY && code != CURLE_SEND_ERROR && code != CURLE_RECV_ERROR &&
	     code != CURLE_HTTP2))
		return;
	if (curl_easy_getinfo(call->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd != CURL_SOCKET_BAD)
		watch_end_connection(fd);
}

static void finish(struct call *call, CURLcode code)
{
	const struct call_ops *ops = call->ops;
	void *arg = call->arg;
	enum call_end end = end_of(call, code);
	char why[CURL_ERROR_SIZE + 64];

	give_up_connection(call, code);
	call->complete = code == CURLE_OK;
	if (call->state != CALL_RUNNING) {
		release(call);
		return;
	}
	if (end == CALL_OK && !call->head_seen)
		tell_head(call); /* an answer without a body */
	snprintf(why, sizeof why, "%s",
		 code == CURLE_OK         ? ""
		 : call->error[0] != '\0' ? call->error
					  : curl_easy_strerror(code));
	count_end(call, end);
	call->transport->active--;
	release(call);
	ops->on_done(arg, end, why);
}

static void collect_finished(struct transport *transport)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(transport->multi, &left)) != NULL) {
		struct call *call = NULL;
		CURLcode code = message->data.result; /* `message` does not survive the removal */

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&call);
		finish(call, code);
	}
}

/* As many connections may be in the making as those that wait need. */
static bool may_begin(const struct transport *transport)
{
	size_t needed = transport->starting.count / (size_t)STREAMS_PER_CONNECTION + 1;

	return transport->starting.first != NULL &&
	       (!transport->multiplexed || transport->connecting < needed);
}

/* libcurl has returned: do what could not be done while it was calling us. How many calls it has got more than before. */
static size_t settle(struct transport *transport)
{
	size_t begun = 0;

	if (transport->in_curl > 0 || transport->closed || transport->broken)
		return 0;
	while (transport->dying.first != NULL)
		release(transport->dying.first);
	collect_finished(transport);
	while (may_begin(transport)) {
		struct call *call = transport->starting.first;

		move(call, CALL_RUNNING);
		set_connecting(call, true);
		begun++;
		/* libcurl's own limit comes first, but does not cover the wait for a connection that others open. */
		limit(call, transport->connect_ms + call->first_byte_ms);
		if (curl_multi_add_handle(transport->multi, call->easy) != CURLM_OK)
			starve(call);
	}
	return begun;
}

/* ---- calls ---- */

/* What is the same for all calls, and stays set when the handle is used again. */
static bool set_lasting_options(struct transport *transport, CURL *easy)
{
	bool copied = curl_easy_setopt(easy, CURLOPT_URL, transport->base_url) == CURLE_OK;

	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transport->headers);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BUFFER);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT,
			 1L); /* else giving up waits for a slow name look-up to end */
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)transport->connect_ms);
	curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, CONNECTION_IDLE_S);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transport);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, transport);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_before_sending);
	if (!transport->secure) {
		curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
		curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
		return copied;
	}
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	/* Without memory while it keeps a TLS session, 7.88 frees the name of the host and keeps it: it is freed twice. */
	curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
	curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
	if (transport->one_ca_file)
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	return copied && (transport->ca_file[0] == '\0' ||
			  curl_easy_setopt(easy, CURLOPT_CAINFO, transport->ca_file) == CURLE_OK);
}

static CURL *take_easy(struct transport *transport)
{
	CURL *easy;

	if (transport->idle_count > 0)
		return transport->idle[--transport->idle_count];
	easy = curl_easy_init();
	if (easy == NULL || set_lasting_options(transport, easy))
		return easy;
	curl_easy_cleanup(easy);
	return NULL;
}

/*
 * The URL is the same for all calls. What differs stands in the request line as it is given here: libcurl 7.88 takes its
 * own URLs apart, and when it gets no memory for the query it sends the request without one. A message would begin a new
 * conversation then.
 */
static bool set_target(CURL *easy, const char *prefix, const char *path)
{
	size_t size = strlen(prefix) + strlen(path) + 1;
	char *target = malloc(size);
	bool good;

	if (target == NULL)
		return false;
	snprintf(target, size, "%s%s", prefix, path);
	good = curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET, target) == CURLE_OK; /* copied */
	free(target);
	return good;
}

static void set_options(struct call *call)
{
	CURL *easy = call->easy;

	curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
	curl_easy_setopt(easy, CURLOPT_DEBUGDATA, call);
	if (call->post) {
		curl_easy_setopt(easy, CURLOPT_POST, 1L);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, buf_bytes(&call->body));
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)buf_size(&call->body));
	}
}

enum err call_start(struct call **out, struct transport *transport, const struct call_spec *spec,
		    const struct call_ops *ops, void *arg)
{
	struct call *call = transport->closed ? NULL : calloc(1, sizeof *call);

	if (call == NULL)
		return ERR_NOMEM;
	call->transport = transport;
	call->easy = take_easy(transport);
	if (call->easy == NULL || !set_target(call->easy, transport->base_path, spec->path)) {
		if (call->easy != NULL)
			keep_easy(transport, call->easy, true);
		free(call);
		return ERR_NOMEM;
	}
	if (spec->body != NULL) {
		call->body = *spec->body;
		buf_init(spec->body, spec->body->max);
	}
	sending_init(&call->sending);
	call->fd = CURL_SOCKET_BAD;
	call->post = strcmp(spec->method, "POST") == 0;
	call->ops = ops;
	call->arg = arg;
	call->counts_as = spec->counts_as;
	call->started_ns = uv_hrtime();
	call->first_byte_ms = spec->first_byte_ms;
	call->idle_ms = spec->idle_ms;
	uv_timer_init(transport->loop, &call->timer);
	call->timer.data = call;
	set_options(call);
	call->state = CALL_STARTING;
	list_add(&transport->starting, call);
	transport->active++;
	settle(transport);
	if (call->state == CALL_STARTING)
		limit(call, transport->connect_ms);
	*out = call;
	return ERR_OK;
}

void call_cancel(struct call *call)
{
	struct transport *transport = call->transport;

	if (call->state == CALL_DYING)
		return;
	if (call->state != CALL_DRAINING) {
		count(call, METRICS_RESULT_CANCELLED);
		transport->active--;
	}
	uv_timer_stop(&call->timer);
	if (call->state == CALL_STARTING) {
		/* libcurl does not know it yet, so there is nothing to remove from it. */
		keep_easy(transport, call->easy, true);
		call->easy = NULL;
		release(call);
		return;
	}
	move(call, CALL_DYING);
	settle(transport);
}

void call_drain(struct call *call)
{
	if (call->state != CALL_RUNNING) {
		call_cancel(call);
		return;
	}
	count_end(call, CALL_OK);
	call->transport->active--;
	move(call, CALL_DRAINING);
	limit(call, DRAIN_MS);
	call_resume(call);
}

void call_pause(struct call *call)
{
	if (call->state != CALL_RUNNING || call->paused)
		return;
	call->paused = true;
	uv_timer_stop(&call->timer);
}

void call_resume(struct call *call)
{
	struct transport *transport = call->transport;
	CURLcode code;

	if (!call->paused)
		return;
	call->paused = false;
	if (call->state == CALL_RUNNING)
		limit(call, call->idle_ms);
	if (transport->broken)
		return;
	code = unpause(call);
	if (call->state == CALL_RUNNING && (code == CURLE_OUT_OF_MEMORY || code == CURLE_WRITE_ERROR))
		starve(call); /* what came while it paused is lost */
	settle(transport);
}

bool call_was_sent(const struct call *call)
{
	return call->sendings > 0;
}

/* ---- the transport ---- */

static bool build_headers(struct transport *transport, const char *token)
{
	static const char *const fixed[] = { "Content-Type: application/json",
					     "Accept: text/event-stream, application/json",
					     "User-Agent: coze-chatd/1.1", "Expect:" };
	size_t size = strlen(token) + 32;
	char *authorization = malloc(size);

	if (authorization == NULL)
		return false;
	snprintf(authorization, size, "Authorization: Bearer %s", token);
	transport->headers = curl_slist_append(NULL, authorization);
	explicit_bzero(authorization, size);
	free(authorization);
	for (size_t i = 0; i < sizeof fixed / sizeof fixed[0] && transport->headers != NULL; i++) {
		struct curl_slist *longer = curl_slist_append(transport->headers, fixed[i]);

		if (longer == NULL)
			curl_slist_free_all(transport->headers);
		transport->headers = longer;
	}
	return transport->headers != NULL;
}

static void set_multi_options(struct transport *transport)
{
	curl_multi_setopt(transport->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
	curl_multi_setopt(transport->multi, CURLMOPT_SOCKETDATA, transport);
	curl_multi_setopt(transport->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
	curl_multi_setopt(transport->multi, CURLMOPT_TIMERDATA, transport);
	curl_multi_setopt(transport->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	curl_multi_setopt(transport->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT);
	curl_multi_setopt(transport->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, STREAMS_PER_CONNECTION);
}

/* Ends every call, and with them all connections; then there is another libcurl handle, when there is memory for it. */
static void start_anew(struct transport *transport)
{
	if (transport->multi != NULL) {
		log_event(LOG_LEVEL_ERROR, "coze",
			  LOG_TEXT("cause", "libcurl ran out of memory: all connections are given up"));
		transport->in_curl++; /* calls that are started from within wait */
		while (transport->running.first != NULL)
			finish(transport->running.first, CURLE_OUT_OF_MEMORY);
		while (transport->dying.first != NULL)
			release(transport->dying.first);
		transport->in_curl--;
		curl_multi_cleanup(transport->multi);
	}
	transport->multi = curl_multi_init();
	if (transport->multi == NULL) {
		uv_timer_start(&transport->again, on_again, AGAIN_MS, 0);
		return;
	}
	set_multi_options(transport);
	transport->broken = false;
	settle(transport);
}

static void on_again(uv_timer_t *timer)
{
	start_anew(timer->data);
}

static const char *path_of(const char *url)
{
	const char *host = url != NULL ? strstr(url, "://") : NULL;
	const char *path = host != NULL ? strchr(host + 3, '/') : NULL;

	return path != NULL ? path : "";
}

/* Sees to it that all authorities are in one file, where that can be done. */
static void choose_authorities(struct transport *transport, const char *ca_file)
{
	const char *system_file = curl_version_info(CURLVERSION_NOW)->cainfo;
	const char *chosen = ca_file;

	transport->trust.fd = -1;
	if (system_file != NULL && ca_file[0] == '\0') {
		transport->one_ca_file = access(system_file, R_OK) == 0;
	} else if (system_file != NULL && trust_open(&transport->trust, system_file, ca_file)) {
		transport->one_ca_file = true;
		chosen = transport->trust.path;
	}
	transport->ca_file = strdup(chosen);
}

enum err transport_open(struct transport **out, uv_loop_t *loop, const struct transport_options *options,
			struct error *why)
{
	struct transport *transport;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return error_set(why, ERR_NOMEM, NULL, "libcurl's global initialisation");
	transport = calloc(1, sizeof *transport);
	if (transport == NULL)
		return error_set(why, ERR_NOMEM, NULL, "memory for the transport");
	transport->loop = loop;
	transport->multi = curl_multi_init();
	transport->base_url = strdup(options->base_url);
	choose_authorities(transport, options->ca_file);
	transport->base_path = path_of(transport->base_url);
	transport->secure = strncasecmp(options->base_url, "https:", 6) == 0;
	transport->multiplexed = transport->secure;
	transport->connect_ms = options->connect_ms;
	if (transport->multi == NULL || transport->base_url == NULL || transport->ca_file == NULL ||
	    !build_headers(transport, options->token)) {
		curl_slist_free_all(transport->headers);
		curl_multi_cleanup(transport->multi);
		trust_close(&transport->trust);
		free(transport->base_url);
		free(transport->ca_file);
		free(transport);
		return error_set(why, ERR_NOMEM, NULL, "memory for the transport");
	}
	uv_timer_init(loop, &transport->timer);
	uv_timer_init(loop, &transport->again);
	transport->timer.data = transport->again.data = transport;
	watches_init(&transport->watches, loop, &watch_ops, transport);
	refusals_init(&transport->refusals);
	set_multi_options(transport);
	*out = transport;
	return ERR_OK;
}

static void on_transport_timer_closed(uv_handle_t *handle)
{
	struct transport *transport = handle->data;

	transport->closing_timers--;
	free_transport_if_done(transport);
}

/* Ends a call from outside of libcurl, as if its connection had broken. */
static void cut(struct call *call)
{
	const struct call_ops *ops = call->ops;
	void *arg = call->arg;
	bool heard = call->state == CALL_STARTING || call->state == CALL_RUNNING;

	release(call);
	if (heard) {
		call->transport->active--;
		ops->on_done(arg, CALL_UNANSWERED, "the worker stops");
	}
}

void transport_close(struct transport *transport)
{
	transport->closed = true;
	while (transport->starting.first != NULL)
		cut(transport->starting.first);
	while (transport->running.first != NULL)
		cut(transport->running.first);
	while (transport->idle_count > 0)
		curl_easy_cleanup(transport->idle[--transport->idle_count]);
	curl_multi_cleanup(transport->multi);
	watches_fini(&transport->watches);
	curl_slist_free_all(transport->headers);
	curl_global_cleanup();
	transport->closing_timers += 2;
	uv_close((uv_handle_t *)&transport->timer, on_transport_timer_closed);
	uv_close((uv_handle_t *)&transport->again, on_transport_timer_closed);
}

size_t transport_active(const struct transport *transport)
{
	return transport->active;
}
