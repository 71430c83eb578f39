/*
 * redis.c - see redis.h.
 *
 *   DOWN ──timer──▶ LOCATING ──▶ RESOLVING ──▶ CONNECTING ──▶ PREPARING (AUTH, ROLE, SELECT, SCRIPT LOAD) ──▶ READY
 *    ▲                                                                                                      │
 *    └──────────────── any failure, any time limit, the locator naming another server ──────────────────────┘
 */
#include "store/redis.h"

#include <assert.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/metrics.h"
#include "store/redis_socket.h"
#include "store/redis_url.h"
#include "store/resp.h"

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000 /* service must resume within 2 s of Redis' return */
#define SHA_LEN        40
#define EVAL_SIZE      (3 * RESP_HEAD_MAX + 64) /* EVALSHA, the hash and the number of keys */
#define READ_SIZE      (15 * 1024) /* Redis reads 16 KiB at a time; a little may be there from before */
#define SERVER_SIZE    272         /* host:port as text */

enum redis_state {
	REDIS_DOWN,      /* waiting for the back-off to pass */
	REDIS_LOCATING,  /* asking the locator */
	REDIS_RESOLVING, /* asking for the address of a name */
	REDIS_CONNECTING,
	REDIS_PREPARING,
	REDIS_READY
};

struct redis {
	uv_loop_t *loop;
	struct redis_options options;
	struct redis_url url;
	struct redis_place place; /* of the server: of `url`, or where the locator said last */
	struct redis_follower follower;
	enum redis_state state;
	redisAsyncContext *context; /* NULL before CONNECTING */
	uv_getaddrinfo_t resolver;
	uv_timer_t retry;       /* DOWN: when to try again */
	uv_timer_t limit;       /* LOCATING to PREPARING: connect_ms; READY: the oldest command's limit */
	uv_prepare_t round_end; /* active while there is something to write */
	struct redis_round *rounds;
	bool round_ends; /* there is something to write since the last write */
	bool in_round_end;
	unsigned open_handles;
	uint64_t backoff_ms;
	unsigned attempts;            /* that failed, since it was ready last */
	unsigned preparing;           /* answers still to come in PREPARING */
	char (*sha)[SHA_LEN + 1];     /* per script, as Redis told */
	struct command *first, *last; /* sent and not answered, oldest first */
	struct command *overdue;      /* the first one, when its time was seen to be up; else NULL */
	size_t unanswered;            /* how many they are */
	size_t fresh, fresh_bytes;    /* of them, what has not been written yet */
	bool resolving;
	bool closed;
	bool told_down; /* the log knows */
	uint64_t refusal_logged_ms;
	void (*on_ready)(void *arg);
	void *ready_arg;
};

/* A command on its way, as it was sent: a script may have to be sent once more. */
struct command {
	struct redis *redis;
	struct command *next;
	redis_reply_fn fn;
	void *arg;
	uint64_t sent_ms, sent_ns;
	size_t script; /* SIZE_MAX: no script */
	size_t count;  /* of the arguments */
	size_t rest;   /* of a script: where in `bytes` the number of keys is, and behind it the arguments */
	size_t size;
	char bytes[];
};

static void connect_now(struct redis *redis);

static enum err read_address(struct redis_url *url, const struct redis_options *options, struct error *why)
{
	const char *whose = options->sentinel ? "a Sentinel" : "Redis";
	const char *what;

	if ((options->locator == NULL || options->url[0] != '\0') &&
	    !redis_url_parse(url, options->url, &what))
		return error_set(why, ERR_STORE, NULL, "the URL of %s: %s", whose, what);
	if (options->password != NULL && options->password[0] != '\0' &&
	    !redis_url_set_password(url, options->password))
		return error_set(why, ERR_STORE, NULL, "the password of %s is too long", whose);
	return ERR_OK;
}

/* ---- going down ---- */

static void schedule_retry(struct redis *redis);

static void free_if_done(struct redis *redis)
{
	if (!redis->closed || redis->open_handles > 0 || redis->resolving)
		return;
	free(redis->sha);
	explicit_bzero(&redis->url, sizeof redis->url);
	free(redis);
}

/* Which server, where that is not plain from the settings: "" is left out of a line. */
static const char *server_text(const struct redis *redis, char out[SERVER_SIZE])
{
	const struct redis_place *place = &redis->place;

	out[0] = '\0';
	if ((redis->options.locator != NULL || redis->options.sentinel) && place->host[0] != '\0')
		snprintf(out, SERVER_SIZE, strchr(place->host, ':') != NULL ? "[%s]:%s" : "%s:%s",
			 place->host, place->port);
	return out;
}

static const char *event_name(const struct redis *redis)
{
	return redis->options.sentinel ? "sentinel" : "redis";
}

static void log_down(struct redis *redis, const char *why)
{
	char server[SERVER_SIZE];

	if (redis->told_down || redis->closed)
		return;
	redis->told_down = true;
	log_event(redis->options.sentinel ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR, event_name(redis),
		  LOG_TEXT("state", "down"), LOG_TEXT("channel", redis->options.channel),
		  LOG_TEXT("server", server_text(redis, server)), LOG_TEXT("cause", why));
}

/* Moves the connection in the metrics; METRICS_REDIS__COUNT: it was or is not there. Sentinels are not Redis. */
static void count(const struct redis *redis, enum metrics_redis from, enum metrics_redis to)
{
	uint64_t *gauges = metrics->gauges.redis;

	if (!redis->options.sentinel)
		metric_move(from < METRICS_REDIS__COUNT ? &gauges[from] : NULL,
			    to < METRICS_REDIS__COUNT ? &gauges[to] : NULL);
}

/* Drops the connection, if any; hiredis then fails every command through on_reply(). */
static void go_down(struct redis *redis, const char *why)
{
	redisAsyncContext *context = redis->context;

	if (redis->state == REDIS_DOWN)
		return;
	if (redis->state == REDIS_READY)
		count(redis, METRICS_REDIS_UP, METRICS_REDIS_DOWN);
	log_down(redis, why);
	redis->attempts = redis->state == REDIS_READY ? 0 : redis->attempts + 1;
	redis->state = REDIS_DOWN;
	redis->context = NULL;
	uv_timer_stop(&redis->limit);
	if (context != NULL)
		redisAsyncFree(context);
	redis->fresh = redis->fresh_bytes = 0;
	schedule_retry(redis);
}

static void on_retry(uv_timer_t *timer)
{
	connect_now(timer->data);
}

static void schedule_retry(struct redis *redis)
{
	if (redis->closed)
		return;
	uv_timer_start(&redis->retry, on_retry, redis->backoff_ms, 0);
	redis->backoff_ms = redis->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : redis->backoff_ms * 2;
}

static void on_connect_limit(uv_timer_t *timer)
{
	go_down(timer->data, "no usable connection in time");
}

/* ---- commands ---- */

static void on_command_limit(uv_timer_t *timer)
{
	struct redis *redis = timer->data;
	uint64_t now = uv_now(redis->loop);

	if (redis->first == NULL)
		return;
	if (now - redis->first->sent_ms < redis->options.command_ms) {
		uv_timer_start(timer, on_command_limit,
			       redis->first->sent_ms + redis->options.command_ms - now, 0);
	} else if (redis->overdue != redis->first) {
		/* Perhaps it was us who could not read: timers come before sockets in a round of the loop. */
		redis->overdue = redis->first;
		uv_timer_start(timer, on_command_limit, 1, 0);
	} else {
		go_down(redis, "a command was not answered in time");
	}
}

static void enqueue(struct command *command, size_t bytes)
{
	struct redis *redis = command->redis;

	command->sent_ms = uv_now(redis->loop);
	command->sent_ns = uv_hrtime();
	command->next = NULL;
	if (redis->first == NULL)
		redis->first = command;
	else
		redis->last->next = command;
	redis->last = command;
	redis->unanswered++;
	redis->fresh++;
	redis->fresh_bytes += bytes;
	if (!uv_is_active((uv_handle_t *)&redis->limit))
		uv_timer_start(&redis->limit, on_command_limit, redis->options.command_ms, 0);
}

/* Answers come in the order of the commands, so this is mostly the first one. */
static void dequeue(struct command *command)
{
	struct redis *redis = command->redis;
	struct command **link = &redis->first;
	struct command *before = NULL;

	while (*link != NULL && *link != command) {
		before = *link;
		link = &(*link)->next;
	}
	if (*link == NULL)
		return;
	*link = command->next;
	redis->unanswered--;
	if (redis->overdue == command)
		redis->overdue = NULL;
	if (redis->last == command)
		redis->last = before;
}

static void on_reply(redisAsyncContext *context, void *reply_arg, void *arg);

/* Redis forgot its scripts (SCRIPT FLUSH, a fail-over): send the whole source, which also loads it. */
static bool send_source(struct command *command)
{
	struct redis *redis = command->redis;
	const char *source = redis->options.scripts[command->script].source;
	size_t len = strlen(source), rest = command->size - command->rest;
	char *bytes = malloc(2 * RESP_HEAD_MAX + resp_text_max(len) + rest);
	char *end;
	int rc;

	if (bytes == NULL || redis->context == NULL) {
		free(bytes);
		return false;
	}
	end = resp_begin(bytes, command->count);
	end = resp_text(end, "EVAL", 4);
	end = resp_text(end, source, len);
	memcpy(end, command->bytes + command->rest, rest);
	rc = redisAsyncFormattedCommand(redis->context, on_reply, command, bytes,
					(size_t)(end - bytes) + rest);
	if (rc == REDIS_OK)
		enqueue(command, (size_t)(end - bytes) + rest);
	free(bytes);
	return rc == REDIS_OK;
}

/* READONLY, OOM and the like come once per command: a line a second says enough, and one a minute of a Sentinel. */
static void log_refusal(struct redis *redis, const char *why)
{
	uint64_t now = uv_now(redis->loop);
	char server[SERVER_SIZE];

	if (redis->refusal_logged_ms != 0 &&
	    now - redis->refusal_logged_ms < (redis->options.sentinel ? 60000 : 1000))
		return;
	redis->refusal_logged_ms = now;
	log_event(LOG_LEVEL_ERROR, event_name(redis), LOG_TEXT("server", server_text(redis, server)),
		  LOG_TEXT("error", why));
}

/* What a replica says to a write; before Redis 7 a script's error has it in the middle. */
static bool says_replica(const char *why)
{
	return strncmp(why, "READONLY", 8) == 0 || strstr(why, "-READONLY ") != NULL;
}

static void on_reply(redisAsyncContext *context, void *reply_arg, void *arg)
{
	struct command *command = arg;
	struct redis *redis = command->redis;
	redisReply *reply = reply_arg;
	bool good = reply != NULL && reply->type != REDIS_REPLY_ERROR;

	dequeue(command);
	if (good)
		metric_observe(&metrics->counters.redis_time, (uv_hrtime() - command->sent_ns) / 1000);
	if (reply != NULL && !good) {
		if (command->script != SIZE_MAX && strncmp(reply->str, "NOSCRIPT", 8) == 0 &&
		    send_source(command))
			return;
		log_refusal(redis, reply->str);
	}
	if (!good)
		metric_add(&metrics->counters.redis_failures, 1);
	command->fn(command->arg, good ? ERR_OK : ERR_STORE, good ? (const struct redis_reply *)reply : NULL);
	free(command);
	if (redis->options.locator != NULL && redis->context == context && reply != NULL && !good &&
	    says_replica(reply->str))
		go_down(redis, "the server is no master any more");
}

static struct command *command_new(struct redis *redis, const struct redis_arg *args, size_t count,
				   size_t more)
{
	size_t size = RESP_HEAD_MAX + more;
	struct command *command;

	for (size_t i = 0; i < count; i++)
		size += resp_text_max(args[i].len);
	command = malloc(sizeof *command + size);
	if (command != NULL)
		*command = (struct command){ .redis = redis, .script = SIZE_MAX };
	return command;
}

/* Writes the arguments behind what is there, and sends it all. */
static enum err send_command(struct command *command, char *end, const struct redis_arg *args, size_t count,
			     redis_reply_fn fn, void *arg)
{
	struct redis *redis = command->redis;

	for (size_t i = 0; i < count; i++)
		end = resp_text(end, args[i].bytes, args[i].len);
	command->size = (size_t)(end - command->bytes);
	*end = '\0'; /* hiredis looks whether there is another argument behind the first */
	command->fn = fn;
	command->arg = arg;
	if (redisAsyncFormattedCommand(redis->context, on_reply, command, command->bytes, command->size) !=
	    REDIS_OK) {
		free(command);
		return ERR_STORE;
	}
	enqueue(command, command->size);
	return ERR_OK;
}

enum err redis_command(struct redis *redis, const struct redis_arg *args, size_t count, redis_reply_fn fn,
		       void *arg)
{
	struct command *command;

	if (redis->state != REDIS_READY)
		return ERR_STORE;
	command = command_new(redis, args, count, 0);
	if (command == NULL)
		return ERR_NOMEM;
	return send_command(command, resp_begin(command->bytes, count), args, count, fn, arg);
}

enum err redis_eval(struct redis *redis, size_t script, const struct redis_arg *args, size_t key_count,
		    size_t count, redis_reply_fn fn, void *arg)
{
	struct command *command;
	char *end;

	assert(key_count < 10);
	if (redis->state != REDIS_READY)
		return ERR_STORE;
	command = command_new(redis, args, count, EVAL_SIZE);
	if (command == NULL)
		return ERR_NOMEM;
	command->script = script;
	command->count = count + 3;
	end = resp_begin(command->bytes, command->count);
	end = resp_text(end, "EVALSHA", 7);
	end = resp_text(end, redis->sha[script], SHA_LEN);
	command->rest = (size_t)(end - command->bytes);
	end = resp_text(end, &"0123456789"[key_count], 1);
	return send_command(command, end, args, count, fn, arg);
}

/* ---- rounds of the loop ---- */

/* Of what has been commanded: is all of it in the socket? */
static bool write_out(struct redis *redis)
{
	bool written = redis->state >= REDIS_PREPARING && redis_socket_flush(redis->context);

	redis->fresh = redis->fresh_bytes = 0;
	return written;
}

/* Whoever is told of a write may send more, which must not wait until something wakes the loop. */
static void on_round_end(uv_prepare_t *prepare)
{
	struct redis *redis = prepare->data;

	uv_prepare_stop(prepare);
	redis->in_round_end = true;
	do {
		size_t earlier = redis->unanswered - redis->fresh;
		bool few, secured;

		for (struct redis_round *round = redis->rounds; round != NULL; round = round->next)
			round->before(round);
		redis->round_ends = false;
		few = redis->fresh_bytes <= READ_SIZE;
		secured = write_out(redis) && few && redis->url.path[0] != '\0';
		for (struct redis_round *round = redis->rounds; round != NULL; round = round->next)
			if (round->after != NULL)
				round->after(round, secured, earlier);
	} while (redis->round_ends);
	redis->in_round_end = false;
}

void redis_end_round(struct redis *redis)
{
	redis->round_ends = true;
	if (!redis->in_round_end && !redis->closed)
		uv_prepare_start(&redis->round_end, on_round_end);
}

static void on_output(void *arg)
{
	redis_end_round(arg);
}

void redis_join_rounds(struct redis *redis, struct redis_round *round)
{
	struct redis_round **link = &redis->rounds;

	while (*link != NULL)
		link = &(*link)->next;
	round->next = NULL;
	*link = round;
}

/* ---- coming up ---- */

static void come_up(struct redis *redis)
{
	char server[SERVER_SIZE];

	redis->state = REDIS_READY;
	count(redis, METRICS_REDIS_DOWN, METRICS_REDIS_UP);
	redis->backoff_ms = BACKOFF_MIN_MS;
	uv_timer_stop(&redis->limit);
	if (redis->told_down || (redis->options.channel == NULL && !redis->options.sentinel))
		log_event(LOG_LEVEL_INFO, event_name(redis), LOG_TEXT("state", "up"),
			  LOG_TEXT("channel", redis->options.channel),
			  LOG_TEXT("server", server_text(redis, server)));
	redis->told_down = false;
	if (redis->on_ready != NULL)
		redis->on_ready(redis->ready_arg);
}

static void on_prepared(redisAsyncContext *context, void *reply_arg, void *arg)
{
	struct redis *redis = context->data;
	redisReply *reply = reply_arg;
	char *sha = arg;

	if (redis->context != context || reply == NULL)
		return; /* going down; on_disconnect() says so */
	if (reply->type == REDIS_REPLY_ERROR) {
		go_down(redis, reply->str);
		return;
	}
	if (sha != NULL && reply->type == REDIS_REPLY_STRING && reply->len == SHA_LEN)
		memcpy(sha, reply->str, SHA_LEN + 1);
	if (--redis->preparing == 0)
		come_up(redis);
}

static bool begins_with(const redisReply *reply, const char *word)
{
	struct redis_arg text = redis_reply_text((const struct redis_reply *)reply, 0);

	return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

/* A server that does not know AUTH repeats what came with it, which is for no log. */
static void on_logged_in(redisAsyncContext *context, void *reply_arg, void *arg)
{
	struct redis *redis = context->data;
	redisReply *reply = reply_arg;

	if (redis->context == context && reply != NULL && reply->type == REDIS_REPLY_ERROR &&
	    (strstr(reply->str, "with args") != NULL || strstr(reply->str, redis->url.password) != NULL))
		go_down(redis, "AUTH was refused: the server does not know it");
	else
		on_prepared(context, reply_arg, arg);
}

/* {"master", …}, or else {"slave", …}, {"sentinel", …}. */
static void on_role(redisAsyncContext *context, void *reply_arg, void *arg)
{
	struct redis *redis = context->data;
	redisReply *reply = reply_arg;

	if (redis->context == context && reply != NULL && reply->type != REDIS_REPLY_ERROR &&
	    !begins_with(reply, "master"))
		go_down(redis, "the server is no master");
	else
		on_prepared(context, reply_arg, arg);
}

/* {"subscribe", channel, 1} once, then {"message", channel, text} for each message. */
static void on_channel(redisAsyncContext *context, void *reply_arg, void *arg)
{
	struct redis *redis = context->data;
	redisReply *reply = reply_arg;

	(void)arg;
	if (redis->context != context || reply == NULL)
		return;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) {
		go_down(redis, reply->type == REDIS_REPLY_ERROR ? reply->str : "an odd answer to SUBSCRIBE");
		return;
	}
	if (reply->element[2]->type == REDIS_REPLY_STRING)
		redis->options.on_message(redis->options.arg, reply->element[2]->str,
					  (size_t)reply->element[2]->len);
	else if (redis->state == REDIS_PREPARING)
		come_up(redis);
}

static void prepare(struct redis *redis, redisCallbackFn *fn, char *sha, const char *first,
		    const char *second, const char *third)
{
	const char *argv[] = { first, second, third };
	size_t lens[] = { strlen(first), second != NULL ? strlen(second) : 0,
			  third != NULL ? strlen(third) : 0 };
	int words = second == NULL ? 1 : third == NULL ? 2 : 3;

	if (redisAsyncCommandArgv(redis->context, fn, sha, words, argv, lens) == REDIS_OK)
		redis->preparing++;
}

static void log_in(struct redis *redis)
{
	if (redis->url.user[0] != '\0')
		prepare(redis, on_logged_in, NULL, "AUTH", redis->url.user, redis->url.password);
	else if (redis->url.password[0] != '\0')
		prepare(redis, on_logged_in, NULL, "AUTH", redis->url.password, NULL);
}

static void begin_preparing(struct redis *redis)
{
	char db[16];

	redis->state = REDIS_PREPARING;
	redis->preparing = 0;
	log_in(redis);
	if (redis->options.locator != NULL)
		prepare(redis, on_role, NULL, "ROLE", NULL, NULL);
	if (redis->options.sentinel) {
		/* Nothing to prepare, but one that is frozen is not to pass as ready. */
		prepare(redis, on_prepared, NULL, "PING", NULL, NULL);
		return;
	}
	if (redis->options.channel != NULL) {
		redis->preparing++; /* on_channel() ends the preparation, on_prepared() never does */
		redisAsyncCommand(redis->context, on_channel, NULL, "SUBSCRIBE %s", redis->options.channel);
		return;
	}
	snprintf(db, sizeof db, "%u", redis->url.db);
	prepare(redis, on_prepared, NULL, "SELECT", db, NULL);
	for (size_t i = 0; i < redis->options.script_count; i++)
		prepare(redis, on_prepared, redis->sha[i], "SCRIPT", "LOAD",
			redis->options.scripts[i].source);
}

static void on_connect(const redisAsyncContext *context, int status)
{
	struct redis *redis = context->data;
	int on = 1;

	if (redis->context != context)
		return;
	if (status != REDIS_OK) {
		/* hiredis frees this context when we return. */
		redis->context = NULL;
		go_down(redis, context->errstr);
		return;
	}
	setsockopt(context->c.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(context->c.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	begin_preparing(redis);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
	struct redis *redis = context->data;
	const char *why = redis_socket_why(context);

	(void)status;
	if (redis->context != context)
		return;
	redis->context = NULL; /* hiredis frees it */
	if (why == NULL)
		why = context->errstr[0] != '\0' ? context->errstr : "connection closed";
	go_down(redis, why);
}

static void attach(struct redis *redis, redisAsyncContext *context)
{
	if (context == NULL || context->err != 0) {
		go_down(redis, context != NULL ? context->errstr : "out of memory");
		if (context != NULL)
			redisAsyncFree(context);
		return;
	}
	context->data = redis;
	redis->state = REDIS_CONNECTING;
	redis->context = context;
	if (!redis_socket_attach(context, redis->loop, on_output, redis)) {
		go_down(redis, "attaching to the loop");
		return;
	}
	redisAsyncSetConnectCallback(context, on_connect);
	redisAsyncSetDisconnectCallback(context, on_disconnect);
}

/* A name may have several addresses, of which some lead nowhere: each attempt takes the next one. */
static void choose_address(const struct redis *redis, const struct addrinfo *all, char *out, size_t size)
{
	const struct addrinfo *chosen = all;
	unsigned addresses = 1;

	for (const struct addrinfo *one = all->ai_next; one != NULL; one = one->ai_next)
		addresses++;
	for (unsigned skip = redis->attempts % addresses; skip > 0; skip--)
		chosen = chosen->ai_next;
	getnameinfo(chosen->ai_addr, chosen->ai_addrlen, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
}

static void on_resolved(uv_getaddrinfo_t *resolver, int status, struct addrinfo *addresses)
{
	struct redis *redis = resolver->data;
	char address[64] = "";

	redis->resolving = false;
	if (status == 0)
		choose_address(redis, addresses, address, sizeof address);
	uv_freeaddrinfo(addresses);
	if (redis->closed) {
		free_if_done(redis);
		return;
	}
	if (redis->state != REDIS_RESOLVING)
		return; /* took too long; the next try is on its way */
	if (address[0] == '\0')
		go_down(redis, status != 0 ? uv_strerror(status) : "no address");
	else
		attach(redis, redisAsyncConnect(address, (int)strtol(redis->place.port, NULL, 10)));
}

/* hiredis would look the host name up by itself, and block while it does. */
static void resolve(struct redis *redis)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM };

	redis->state = REDIS_RESOLVING;
	redis->resolver.data = redis;
	redis->resolving = uv_getaddrinfo(redis->loop, &redis->resolver, on_resolved, redis->place.host,
					  redis->place.port, &hints) == 0;
	if (!redis->resolving)
		go_down(redis, "starting a name look-up");
}

static void connect_now(struct redis *redis)
{
	if (redis->resolving) {
		schedule_retry(redis);
		return;
	}
	uv_timer_start(&redis->limit, on_connect_limit, redis->options.connect_ms, 0);
	if (redis->options.locator != NULL) {
		redis->state = REDIS_LOCATING;
		redis->options.locator->ask(redis->options.locator);
	} else if (redis->url.path[0] != '\0') {
		redis->state = REDIS_RESOLVING;
		attach(redis, redisAsyncConnectUnix(redis->url.path));
	} else {
		resolve(redis);
	}
}

/* What is there, or being made, leads to the wrong server when another one is named: begin anew, without a long pause. */
static void on_told(struct redis_follower *follower, const struct redis_place *place, const char *why)
{
	struct redis *redis = (struct redis *)(void *)((char *)follower - offsetof(struct redis, follower));

	if (redis->state == REDIS_LOCATING) {
		if (place == NULL) {
			go_down(redis, why);
			return;
		}
		redis->place = *place;
		resolve(redis);
	} else if (place != NULL && (strcmp(place->host, redis->place.host) != 0 ||
				     strcmp(place->port, redis->place.port) != 0)) {
		redis->backoff_ms = BACKOFF_MIN_MS;
		if (redis->state == REDIS_DOWN)
			schedule_retry(redis);
		else
			go_down(redis, "the Sentinels name another master");
	}
}

enum err redis_open(struct redis **out, uv_loop_t *loop, const struct redis_options *options,
		    struct error *why)
{
	struct redis *redis = calloc(1, sizeof *redis);

	if (redis != NULL)
		redis->sha = calloc(options->script_count + 1, sizeof *redis->sha);
	if (redis == NULL || redis->sha == NULL) {
		free(redis);
		return error_set(why, ERR_NOMEM, NULL, "memory for the Redis connection");
	}
	if (read_address(&redis->url, options, why) != ERR_OK) {
		free(redis->sha);
		free(redis);
		return ERR_STORE;
	}
	redis->loop = loop;
	redis->options = *options;
	redis->options.url = redis->options.password = NULL; /* were lent for this call only */
	redis->backoff_ms = BACKOFF_MIN_MS;
	uv_timer_init(loop, &redis->retry);
	uv_timer_init(loop, &redis->limit);
	uv_prepare_init(loop, &redis->round_end);
	redis->open_handles = 3;
	redis->retry.data = redis->limit.data = redis->round_end.data = redis;
	count(redis, METRICS_REDIS__COUNT, METRICS_REDIS_DOWN);
	redis->follower.told = on_told;
	if (options->locator != NULL) {
		options->locator->follow(options->locator, &redis->follower);
	} else {
		memcpy(redis->place.host, redis->url.host, sizeof redis->place.host);
		memcpy(redis->place.port, redis->url.port, sizeof redis->place.port);
	}
	connect_now(redis);
	*out = redis;
	return ERR_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct redis *redis = handle->data;

	redis->open_handles--;
	free_if_done(redis);
}

void redis_close(struct redis *redis)
{
	redis->closed = true;
	if (redis->options.locator != NULL)
		redis->options.locator->leave(redis->options.locator, &redis->follower);
	go_down(redis, "closing");
	count(redis, METRICS_REDIS_DOWN, METRICS_REDIS__COUNT);
	if (redis->resolving)
		uv_cancel((uv_req_t *)&redis->resolver);
	uv_close((uv_handle_t *)&redis->retry, on_handle_closed);
	uv_close((uv_handle_t *)&redis->limit, on_handle_closed);
	uv_close((uv_handle_t *)&redis->round_end, on_handle_closed);
}

bool redis_is_ready(const struct redis *redis)
{
	return redis->state == REDIS_READY;
}

void redis_on_ready(struct redis *redis, void (*fn)(void *arg), void *arg)
{
	redis->on_ready = fn;
	redis->ready_arg = arg;
}

/* ---- texts and replies ---- */

struct redis_arg redis_text(const char *text)
{
	return (struct redis_arg){ text, strlen(text) };
}

void redis_text_copy(char *out, size_t size, struct redis_arg text)
{
	size_t len = text.len < size ? text.len : size - 1;

	memcpy(out, text.bytes, len);
	out[len] = '\0';
}

static size_t reply_count(const struct redis_reply *opaque)
{
	const redisReply *reply = (const redisReply *)opaque;

	return reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
}

struct redis_arg redis_reply_text(const struct redis_reply *opaque, size_t index)
{
	const redisReply *reply = (const redisReply *)opaque;

	if (index >= reply_count(opaque) || reply->element[index]->type != REDIS_REPLY_STRING)
		return (struct redis_arg){ "", 0 };
	return (struct redis_arg){ reply->element[index]->str, (size_t)reply->element[index]->len };
}

int64_t redis_reply_integer(const struct redis_reply *opaque)
{
	const redisReply *reply = (const redisReply *)opaque;

	return reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
}
