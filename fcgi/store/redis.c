/*
 * redis.c - see redis.h.
 *
 *   DOWN ──timer──▶ LOCATING ──▶ RESOLVING ──▶ CONNECTING ──▶ PREPARING (AUTH, ROLE, SELECT, SCRIPT LOAD) ──▶ READY
 *    ▲                                                                                                      │
 *    └──────────────── any failure, any time limit, the locator naming another server ──────────────────────┘
 */
#include "store/redis.h"

#include <assert.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/metrics.h"
#include "store/redis_link.h"
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

/* What a new connection is asked before it is used, beside the loading of the scripts, which comes last. */
enum redis_step { STEP_LOGIN, STEP_ROLE, STEP_PING, STEP_CHANNEL, STEP_DATABASE, STEP__COUNT };

struct redis {
	uv_loop_t *loop;
	struct redis_options options;
	struct redis_url url;
	struct redis_place place; /* of the server: of `url`, or where the locator said last */
	struct redis_follower follower;
	enum redis_state state;
	struct redis_link *link; /* NULL before CONNECTING */
	uv_getaddrinfo_t resolver;
	uv_timer_t retry;       /* DOWN: when to try again */
	uv_timer_t limit;       /* LOCATING to PREPARING: connect_ms; READY: the oldest command's limit */
	uv_prepare_t round_end; /* active while there is something to write */
	struct redis_round *rounds;
	bool round_ends; /* there is something to write since the last write */
	bool in_round_end;
	unsigned open_handles;
	uint64_t backoff_ms;
	unsigned attempts; /* that failed, since it was ready last */
	enum redis_step steps[STEP__COUNT];
	size_t step_count, answered;  /* PREPARING: of `steps`; answers so far */
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

static struct command *take_first(struct redis *redis)
{
	struct command *command = redis->first;

	redis->first = command->next;
	redis->unanswered--;
	if (redis->overdue == command)
		redis->overdue = NULL;
	return command;
}

static void answer(struct command *command, enum err err, const redisReply *reply)
{
	if (err != ERR_OK)
		metric_add(&metrics->counters.redis_failures, 1);
	command->fn(command->arg, err, (const struct redis_reply *)reply);
	free(command);
}

/* Drops the connection, if any, and fails every command. */
static void go_down(struct redis *redis, const char *why)
{
	struct redis_link *link = redis->link;

	if (redis->state == REDIS_DOWN)
		return;
	if (redis->state == REDIS_READY)
		count(redis, METRICS_REDIS_UP, METRICS_REDIS_DOWN);
	log_down(redis, why);
	redis->attempts = redis->state == REDIS_READY ? 0 : redis->attempts + 1;
	redis->state = REDIS_DOWN;
	redis->link = NULL;
	uv_timer_stop(&redis->limit);
	if (link != NULL)
		redis_link_close(link);
	redis->fresh = redis->fresh_bytes = 0;
	schedule_retry(redis);
	while (redis->first != NULL)
		answer(take_first(redis), ERR_STORE, NULL);
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

/* Hands a whole command to the connection. */
static enum err send_bytes(struct command *command, const char *bytes, size_t size)
{
	struct redis *redis = command->redis;
	enum err rc = redis_link_send(redis->link, bytes, size);

	if (rc != ERR_OK)
		return rc;
	enqueue(command, size);
	redis_end_round(redis);
	return ERR_OK;
}

/* Redis forgot its scripts (SCRIPT FLUSH, a fail-over): send the whole source, which also loads it. */
static bool send_source(struct command *command)
{
	const char *source = command->redis->options.scripts[command->script].source;
	size_t len = strlen(source), rest = command->size - command->rest;
	char *bytes = malloc(2 * RESP_HEAD_MAX + resp_text_max(len) + rest);
	enum err rc;
	char *end;

	if (bytes == NULL)
		return false;
	end = resp_begin(bytes, command->count);
	end = resp_text(end, "EVAL", 4);
	end = resp_text(end, source, len);
	memcpy(end, command->bytes + command->rest, rest);
	rc = send_bytes(command, bytes, (size_t)(end - bytes) + rest);
	free(bytes);
	return rc == ERR_OK;
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

static void on_answer(struct redis *redis, const redisReply *reply)
{
	struct command *command = take_first(redis);

	if (reply->type != REDIS_REPLY_ERROR) {
		metric_observe(&metrics->counters.redis_time, (uv_hrtime() - command->sent_ns) / 1000);
		answer(command, ERR_OK, reply);
		return;
	}
	if (command->script != SIZE_MAX && strncmp(reply->str, "NOSCRIPT", 8) == 0 && send_source(command))
		return;
	log_refusal(redis, reply->str);
	answer(command, ERR_STORE, NULL);
	if (redis->options.locator != NULL && says_replica(reply->str))
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
	enum err rc;

	for (size_t i = 0; i < count; i++)
		end = resp_text(end, args[i].bytes, args[i].len);
	command->size = (size_t)(end - command->bytes);
	command->fn = fn;
	command->arg = arg;
	rc = send_bytes(command, command->bytes, command->size);
	if (rc != ERR_OK)
		free(command);
	return rc;
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
	bool written = redis->state >= REDIS_PREPARING && redis_link_flush(redis->link);

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

/* A message: {"message", channel, text}. */
static void on_message(struct redis *redis, const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
	    reply->element[2]->type != REDIS_REPLY_STRING)
		go_down(redis, reply->type == REDIS_REPLY_ERROR ? reply->str : "an odd message");
	else
		redis->options.on_message(redis->options.arg, reply->element[2]->str,
					  (size_t)reply->element[2]->len);
}

/* {"subscribe", channel, 1} */
static bool is_subscribed(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
	       reply->element[2]->type == REDIS_REPLY_INTEGER;
}

static bool begins_with(const redisReply *reply, const char *word)
{
	struct redis_arg text = redis_reply_text((const struct redis_reply *)reply, 0);

	return text.len == strlen(word) && memcmp(text.bytes, word, text.len) == 0;
}

/* A server that does not know AUTH repeats what came with it, which is for no log. */
static const char *why_refused(const struct redis *redis, bool login, const char *why)
{
	if (login && (strstr(why, "with args") != NULL || strstr(why, redis->url.password) != NULL))
		return "AUTH was refused: the server does not know it";
	return why;
}

static bool learn_sha(struct redis *redis, size_t script, const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_STRING || reply->len != SHA_LEN)
		return false;
	memcpy(redis->sha[script], reply->str, SHA_LEN + 1);
	return true;
}

/* The next answer in PREPARING. NULL: it is good; else what is wrong. */
static const char *check_step(struct redis *redis, const redisReply *reply)
{
	size_t number = redis->answered++;

	if (reply->type == REDIS_REPLY_ERROR)
		return why_refused(redis, number < redis->step_count && redis->steps[number] == STEP_LOGIN,
				   reply->str);
	if (number >= redis->step_count)
		return learn_sha(redis, number - redis->step_count, reply) ? NULL
									   : "an odd answer to SCRIPT LOAD";
	/* {"master", …}, or else {"slave", …}, {"sentinel", …}. */
	if (redis->steps[number] == STEP_ROLE && !begins_with(reply, "master"))
		return "the server is no master";
	if (redis->steps[number] == STEP_CHANNEL && !is_subscribed(reply))
		return "an odd answer to SUBSCRIBE";
	return NULL;
}

static void on_step(struct redis *redis, const redisReply *reply)
{
	const char *wrong = check_step(redis, reply);

	if (wrong != NULL)
		go_down(redis, wrong);
	else if (redis->answered == redis->step_count + redis->options.script_count)
		come_up(redis);
}

static void on_reply(void *arg, const redisReply *reply)
{
	struct redis *redis = arg;

	if (redis->state != REDIS_READY)
		on_step(redis, reply);
	else if (redis->options.channel != NULL)
		on_message(redis, reply);
	else if (redis->first != NULL)
		on_answer(redis, reply);
	else
		go_down(redis,
			reply->type == REDIS_REPLY_ERROR ? reply->str : "a reply that nobody asked for");
}

static bool ask_words(struct redis *redis, const char *first, const char *second, const char *third)
{
	const char *const words[] = { first, second, third };
	size_t size = RESP_HEAD_MAX, given = 0;
	char *bytes, *end;
	bool sent;

	while (given < 3 && words[given] != NULL)
		size += resp_text_max(strlen(words[given++]));
	bytes = malloc(size);
	if (bytes == NULL)
		return false;
	end = resp_begin(bytes, given);
	for (size_t i = 0; i < given; i++)
		end = resp_text(end, words[i], strlen(words[i]));
	sent = redis_link_send(redis->link, bytes, (size_t)(end - bytes)) == ERR_OK;
	explicit_bzero(bytes, size); /* it may be a password */
	free(bytes);
	return sent;
}

static bool ask_step(struct redis *redis, enum redis_step step)
{
	char db[16];

	redis->steps[redis->step_count++] = step;
	switch (step) {
	case STEP_LOGIN:
		if (redis->url.user[0] != '\0')
			return ask_words(redis, "AUTH", redis->url.user, redis->url.password);
		return ask_words(redis, "AUTH", redis->url.password, NULL);
	case STEP_ROLE:
		return ask_words(redis, "ROLE", NULL, NULL);
	case STEP_PING:
		return ask_words(redis, "PING", NULL, NULL);
	case STEP_CHANNEL:
		return ask_words(redis, "SUBSCRIBE", redis->options.channel, NULL);
	default:
		snprintf(db, sizeof db, "%u", redis->url.db);
		return ask_words(redis, "SELECT", db, NULL);
	}
}

/* All questions leave at once. A Sentinel has nothing to prepare, but one that is frozen is not to pass as ready. */
static bool ask_steps(struct redis *redis)
{
	const struct redis_options *options = &redis->options;
	bool asked = true;

	redis->step_count = redis->answered = 0;
	if (redis->url.user[0] != '\0' || redis->url.password[0] != '\0')
		asked = ask_step(redis, STEP_LOGIN);
	if (options->locator != NULL)
		asked = asked && ask_step(redis, STEP_ROLE);
	asked = asked && ask_step(redis, options->sentinel          ? STEP_PING
					 : options->channel != NULL ? STEP_CHANNEL
								    : STEP_DATABASE);
	for (size_t i = 0; i < options->script_count && asked; i++)
		asked = ask_words(redis, "SCRIPT", "LOAD", options->scripts[i].source);
	return asked;
}

static void on_connected(void *arg)
{
	struct redis *redis = arg;

	redis->state = REDIS_PREPARING;
	if (ask_steps(redis))
		redis_end_round(redis);
	else
		go_down(redis, "out of memory");
}

static void on_lost(void *arg, const char *why)
{
	go_down(arg, why);
}

static void connect_to(struct redis *redis, const struct sockaddr *address, socklen_t len)
{
	static const struct redis_link_events events = { on_connected, on_reply, on_lost };
	const char *why;

	redis->state = REDIS_CONNECTING;
	redis->link = redis_link_open(redis->loop, address, len, &events, redis, &why);
	if (redis->link == NULL)
		go_down(redis, why);
}

/* A name may have several addresses, of which some lead nowhere: each attempt takes the next one. */
static const struct addrinfo *choose_address(const struct redis *redis, const struct addrinfo *all)
{
	const struct addrinfo *chosen = all;
	unsigned addresses = 1;

	for (const struct addrinfo *one = all->ai_next; one != NULL; one = one->ai_next)
		addresses++;
	for (unsigned skip = redis->attempts % addresses; skip > 0; skip--)
		chosen = chosen->ai_next;
	return chosen;
}

static void on_resolved(uv_getaddrinfo_t *resolver, int status, struct addrinfo *addresses)
{
	struct redis *redis = resolver->data;

	redis->resolving = false;
	if (redis->closed) {
		free_if_done(redis);
	} else if (redis->state == REDIS_RESOLVING) { /* else it took too long; the next try is on its way */
		const struct addrinfo *address = status == 0 ? choose_address(redis, addresses) : NULL;

		if (address == NULL)
			go_down(redis, uv_strerror(status));
		else
			connect_to(redis, address->ai_addr, address->ai_addrlen);
	}
	uv_freeaddrinfo(addresses);
}

/* In the thread pool: a look-up may take seconds. */
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

static void connect_to_path(struct redis *redis)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	_Static_assert(sizeof redis->url.path <= sizeof address.sun_path, "a path fits");
	memcpy(address.sun_path, redis->url.path, sizeof redis->url.path);
	connect_to(redis, (const struct sockaddr *)&address, sizeof address);
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
		connect_to_path(redis);
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

struct redis_arg redis_reply_string(const struct redis_reply *opaque)
{
	const redisReply *reply = (const redisReply *)opaque;

	if (reply->type != REDIS_REPLY_STRING)
		return (struct redis_arg){ "", 0 };
	return (struct redis_arg){ reply->str, (size_t)reply->len };
}

int64_t redis_reply_integer(const struct redis_reply *opaque)
{
	const redisReply *reply = (const redisReply *)opaque;

	return reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
}
