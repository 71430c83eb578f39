/*
 * worker.c - see worker.h.
 *
 * Owns: struct worker, in which all state of the process lives.
 */
#include "app/worker.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include "app/config.h"
#include "app/process.h"
#include "base/log.h"
#include "base/metrics.h"
#include "chat/service.h"
#include "coze/coze.h"
#include "coze/transport.h"
#include "http/fcgi.h"
#include "http/request.h"
#include "http/router.h"
#include "store/claims.h"
#include "store/limiter.h"
#include "store/redis.h"
#include "store/scripts.h"
#include "store/sentinel.h"
#include "store/session_index.h"
#include "store/sessions.h"

#define HEAD_TIMEOUT_MS    5000 /* for nginx to send a whole request: it does so at once */
#define POLL_INTERVAL_MS   1000 /* coze-api section 4: once per second and chat */
#define REDIS_CONNECT_MS   2000
#define REDIS_COMMAND_MS   1000 /* a Redis that is slower is as good as away */
#define START_INTERVAL_MS  1    /* between looks whether Redis is there */
#define START_LIMIT_MS     1000 /* without Redis there is still /health, and a 503 is an answer, too */
#define SETTLE_INTERVAL_MS 10   /* between looks whether the last cancellations have left */
#define SETTLE_LIMIT_MS    2000
#define SIGNALS            5
#define SAMPLE_MS          100 /* how often gauges that nobody announces are looked at */
#define LOAD_SAMPLES       50  /* that make a window, of five seconds */
#define CROWD              100 /* requests at a time that leave memory worth giving back */

enum worker_state {
	WORKER_STARTING, /* connecting to Redis */
	WORKER_SERVING,
	WORKER_DRAINING, /* no new connections; running requests go on */
	WORKER_SETTLING, /* no connections; what was cancelled is still told to Coze and Redis */
	WORKER_STOPPED
};

struct worker {
	uv_loop_t loop;
	enum worker_state state;
	const struct config *config;
	struct worker_options options;
	uint64_t requests;
	uint64_t sampled_ns; /* when the sampler ran last; 0: not yet */
	struct {
		unsigned samples; /* in the current window */
		size_t most;      /* requests at a time in this window */
		size_t crowd;     /* the same of the busiest window since memory was last given back */
	} load;
	uint64_t *breaker_gauge; /* where this worker's breaker is counted; NULL: nowhere */
	struct fcgi_server *server;
	struct transport *transport;
	struct coze *coze;
	struct sentinel *sentinel; /* NULL without REDIS_SENTINELS */
	struct redis *redis;
	struct session_index *index;
	struct claims *claims;
	struct limiter *limiter;
	struct service service;
	struct router router;
	uv_signal_t signals[SIGNALS];
	bool is_last;     /* nobody will accept from the socket after this worker */
	uv_timer_t timer; /* STARTING: the next look; DRAINING: its limit; SETTLING: the next look */
	uint64_t start_until_ms;
	int status; /* of the process, in the end */
	uv_timer_t sampler;
	uv_poll_t handoff; /* SERVING: connections of a predecessor */
	uv_work_t first_work;
	uint64_t linger_until_ms, settle_until_ms;
};

static void stop(struct worker *worker)
{
	if (worker->state == WORKER_STOPPED)
		return;
	worker->state = WORKER_STOPPED;
	uv_stop(&worker->loop);
}

static bool is_settled(const struct worker *worker)
{
	return worker->service.turns.running == 0 && claims_count(worker->claims) == 0 &&
	       transport_active(worker->transport) == 0 && fcgi_server_active(worker->server) == 0;
}

static void on_settle(uv_timer_t *timer)
{
	struct worker *worker = timer->data;

	uint64_t now = uv_now(&worker->loop);

	if (now >= worker->linger_until_ms && (is_settled(worker) || now >= worker->settle_until_ms))
		stop(worker);
}

static void settle(void *arg)
{
	struct worker *worker = arg;

	if (worker->state >= WORKER_SETTLING)
		return;
	worker->state = WORKER_SETTLING;
	worker->settle_until_ms = uv_now(&worker->loop) + SETTLE_LIMIT_MS;
	uv_timer_start(&worker->timer, on_settle, 0, SETTLE_INTERVAL_MS);
}

/* What still runs is ended properly: clients are told, Coze too, and sessions are let go of. */
static void break_off(struct worker *worker)
{
	if (worker->server == NULL)
		return;
	worker->linger_until_ms = 0;
	turns_stop(&worker->service.turns);
	settle(worker);
}

static void on_drain_limit(uv_timer_t *timer)
{
	struct worker *worker = timer->data;

	log_event(LOG_LEVEL_WARN, "drain_timeout",
		  LOG_NUMBER("requests", fcgi_server_active(worker->server)));
	break_off(worker);
}

static bool give_connection(void *arg, int fd)
{
	struct worker *worker = arg;

	return handoff_give(worker->options.handoff, fd);
}

static void on_handoff(uv_poll_t *poll, int status, int events)
{
	struct worker *worker = poll->data;
	int fd;

	(void)status;
	(void)events;
	while ((fd = handoff_take(worker->options.handoff)) >= 0)
		fcgi_server_adopt(worker->server, fd);
}

static void drain(struct worker *worker)
{
	bool last;

	if (worker->state == WORKER_STARTING) {
		stop(worker);
		return;
	}
	if (worker->state != WORKER_SERVING)
		return;
	worker->state = WORKER_DRAINING;
	log_event(LOG_LEVEL_INFO, "draining", LOG_NUMBER("requests", fcgi_server_active(worker->server)));
	uv_timer_start(&worker->timer, on_drain_limit, worker->config->drain_timeout_ms, 0);
	worker->linger_until_ms = uv_now(&worker->loop) + worker->options.linger_ms;
	/* With no (living) master nobody will ever accept from this socket: nginx must see that, and try another. */
	last = worker->is_last || worker->options.handoff == NULL || getppid() != worker->options.master;
	if (worker->options.handoff != NULL)
		uv_poll_stop(&worker->handoff);
	fcgi_server_drain(worker->server, last ? NULL : give_connection, settle, worker);
	if (last)
		shutdown(worker->options.listen_fd, SHUT_RDWR);
	worker->options.on_state(worker->options.arg, METRICS_DRAINING);
}

static void on_term(uv_signal_t *signal, int number)
{
	(void)number;
	drain(signal->data);
}

static void on_int(uv_signal_t *signal, int number)
{
	(void)number;
	drain(signal->data);
	break_off(signal->data);
}

static void on_usr1(uv_signal_t *signal, int number)
{
	(void)signal;
	(void)number;
	log_reopen();
}

static void on_usr2(uv_signal_t *signal, int number)
{
	struct worker *worker = signal->data;

	(void)number;
	worker->is_last = true;
}

/* Enough requests served: asks to be replaced, or makes room by itself. */
static void wear_out(struct worker *worker)
{
	log_event(LOG_LEVEL_INFO, "worn", LOG_NUMBER("requests", worker->requests));
	if (worker->options.on_worn != NULL)
		worker->options.on_worn(worker->options.arg);
	else
		drain(worker);
}

static void on_request(struct fcgi_request *request, void *arg)
{
	struct worker *worker = arg;

	if (++worker->requests == worker->config->worker_max_requests)
		wear_out(worker);
	request_begin(request, &worker->router);
}

/* ---- measuring ---- */

/*
 * How late the sampler is, is how late everybody is: callbacks that take long, too little processor time, a machine that
 * stood still. (libuv rounds timers to milliseconds.)
 */
static void measure_lag(struct worker *worker)
{
	uint64_t now = uv_hrtime(), due = worker->sampled_ns + SAMPLE_MS * UINT64_C(1000000);

	if (worker->sampled_ns != 0)
		metric_observe(&metrics->counters.loop_lag, now > due ? (now - due) / 1000 : 0);
	worker->sampled_ns = now;
}

/* When a crowd has gone: by itself, the C library keeps what was freed as long as anything behind it is in use. */
static void give_memory_back(struct worker *worker)
{
	size_t active = worker->server != NULL ? fcgi_server_active(worker->server) : 0;

	if (active > worker->load.most)
		worker->load.most = active;
	if (++worker->load.samples < LOAD_SAMPLES)
		return;
	if (worker->load.most > worker->load.crowd) {
		worker->load.crowd = worker->load.most;
	} else if (worker->load.crowd >= CROWD && worker->load.most <= worker->load.crowd / 2) {
		worker->load.crowd = worker->load.most;
		process_give_memory_back();
	}
	worker->load.samples = 0;
	worker->load.most = active;
}

static void on_sample(uv_timer_t *timer)
{
	struct worker *worker = timer->data;
	const struct breaker *breaker = &worker->service.turns.breaker;
	uint64_t *gauge = &metrics->gauges.breakers[METRICS_BREAKER_CLOSED];

	measure_lag(worker);
	give_memory_back(worker);
	if (breaker_is_open(breaker))
		gauge = &metrics->gauges.breakers[breaker_wait_ms(breaker, uv_now(&worker->loop)) > 0
						      ? METRICS_BREAKER_OPEN
						      : METRICS_BREAKER_HALF_OPEN];
	if (gauge == worker->breaker_gauge)
		return;
	metric_move(worker->breaker_gauge, gauge);
	worker->breaker_gauge = gauge;
}

/* ---- life ---- */

static const struct {
	int number;
	uv_signal_cb fn;
} wanted_signals[SIGNALS] = { { SIGUSR1, on_usr1 },
			      { SIGUSR2, on_usr2 },
			      { SIGTERM, on_term },
			      { SIGQUIT, on_term },
			      { SIGINT, on_int } };

static void init_signals(struct worker *worker)
{
	for (size_t i = 0; i < SIGNALS; i++) {
		uv_signal_init(&worker->loop, &worker->signals[i]);
		worker->signals[i].data = worker;
		uv_signal_start(&worker->signals[i], wanted_signals[i].fn, wanted_signals[i].number);
	}
}

/* Who is about to end must not be killed by being told so once more: without a handle a signal would do just that. */
static void close_signals(struct worker *worker)
{
	sigset_t all, before;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before); /* until they are ignored */
	for (size_t i = 0; i < SIGNALS; i++) {
		uv_close((uv_handle_t *)&worker->signals[i], NULL);
		signal(wanted_signals[i].number, SIG_IGN);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static void on_first_work(uv_work_t *work)
{
	(void)work;
}

static void on_first_work_done(uv_work_t *work, int status)
{
	(void)work;
	(void)status;
}

/*
 * libuv starts the threads of its pool when there is work for the first time, and aborts when there is no memory for them:
 * that must not be when somebody sends a large message. They are to take no signals (libuv 1.44 lets them): of two that two
 * threads take, the second may be told first, and a worker must know that it is the last before it is told to end.
 */
static void start_threads(struct worker *worker)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	uv_queue_work(&worker->loop, &worker->first_work, on_first_work, on_first_work_done);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void init_loop(struct worker *worker)
{
	uv_loop_init(&worker->loop);
	uv_timer_init(&worker->loop, &worker->timer);
	uv_timer_init(&worker->loop, &worker->sampler);
	if (worker->options.handoff != NULL)
		uv_poll_init(&worker->loop, &worker->handoff, worker->options.handoff->in);
	worker->handoff.data = worker->timer.data = worker->sampler.data = worker;
	init_signals(worker);
	start_threads(worker);
	uv_timer_start(&worker->sampler, on_sample, 0, SAMPLE_MS);
}

static enum err open_coze(struct worker *worker, struct error *why)
{
	const struct config *config = worker->config;
	const struct transport_options transport = {
		.base_url = config->coze_base_url,
		.token = config->coze_api_token,
		.ca_file = config->coze_ca_file,
		.connect_ms = config->coze_connect_timeout_ms,
	};
	const struct coze_options coze = {
		.bot_id = config->coze_bot_id,
		.max_event_bytes = config->coze_max_event_bytes,
		.max_answer_bytes = config->max_answer_bytes,
		.first_byte_ms = config->coze_first_byte_timeout_ms,
		.idle_ms = config->coze_idle_timeout_ms,
		.poll_interval_ms = POLL_INTERVAL_MS,
	};
	enum err rc = transport_open(&worker->transport, &worker->loop, &transport, why);

	return rc != ERR_OK ? rc : coze_open(&worker->coze, &worker->loop, worker->transport, &coze, why);
}

/* The locator of the Redis connections; NULL when REDIS_URL says where it is. */
static enum err open_sentinel(struct worker *worker, struct redis_locator **locator, struct error *why)
{
	const struct config *config = worker->config;
	const struct sentinel_options options = {
		.addresses = config->redis_sentinels,
		.master_name = config->redis_master_name,
		.password = config->redis_sentinel_password,
	};
	enum err rc;

	*locator = NULL;
	if (config->redis_sentinels[0] == '\0')
		return ERR_OK;
	rc = sentinel_open(&worker->sentinel, &worker->loop, &options, why);
	if (rc == ERR_OK)
		*locator = sentinel_locator(worker->sentinel);
	return rc;
}

static enum err open_store(struct worker *worker, struct redis_locator *locator, struct error *why)
{
	const struct config *config = worker->config;
	const struct redis_options redis = {
		.url = config->redis_url,
		.password = config->redis_password,
		.locator = locator,
		.connect_ms = REDIS_CONNECT_MS,
		.command_ms = REDIS_COMMAND_MS,
		.scripts = scripts_all(),
		.script_count = SCRIPT__COUNT,
	};
	const struct claims_options claims = {
		.redis_url = config->redis_url,
		.redis_password = config->redis_password,
		.locator = locator,
		.connect_ms = REDIS_CONNECT_MS,
		.ttl_ms = config->session_ttl_ms,
		.wait_ms = config->session_wait_ms,
		.lock_ms = config->session_lock_ms,
	};
	enum err rc = redis_open(&worker->redis, &worker->loop, &redis, why);

	if (rc == ERR_OK)
		rc = session_index_open(&worker->index, worker->redis, config->session_ttl_ms, why);
	if (rc == ERR_OK)
		rc = claims_open(&worker->claims, &worker->loop, worker->redis, worker->index, &claims, why);
	if (rc == ERR_OK)
		rc = limiter_open(&worker->limiter, &worker->loop, worker->redis,
				  config->coze_min_interval_ms, config->coze_rate_wait_ms, why);
	if (rc == ERR_OK)
		rc = sessions_open(&worker->service.sessions, worker->redis, worker->index,
				   config->coze_user_id, config->session_ttl_ms, why);
	return rc;
}

static enum err open_parts(struct worker *worker, struct error *why)
{
	const struct config *config = worker->config;
	struct service *service = &worker->service;
	const struct route *routes;
	size_t route_count;
	struct redis_locator *locator;
	enum err rc = open_coze(worker, why);

	if (rc == ERR_OK)
		rc = open_sentinel(worker, &locator, why);
	if (rc == ERR_OK)
		rc = open_store(worker, locator, why);
	if (rc != ERR_OK)
		return rc;
	service->loop = &worker->loop;
	service->config = config;
	service->metrics = worker->options.metrics;
	service->turns = (struct turn_context){
		.loop = &worker->loop,
		.coze = worker->coze,
		.claims = worker->claims,
		.limiter = worker->limiter,
		.default_user_id = config->coze_user_id,
		.poll = config->coze_chat_mode == CHAT_MODE_POLL,
		.max_retries = (unsigned)config->coze_max_retries,
		.max_running = config->max_turns,
	};
	breaker_init(&service->turns.breaker);
	retry_budget_init(&service->turns.budget, uv_now(&worker->loop));
	routes = service_routes(&route_count);
	worker->router = (struct router){
		.routes = routes,
		.count = route_count,
		.access = { config->api_keys, config->admin_api_keys },
		.app = service,
	};
	return ERR_OK;
}

static void begin_serving(struct worker *worker)
{
	const struct config *config = worker->config;
	/* A whole answer waits for its client as JSON, where escaping may make it six times longer. */
	const struct fcgi_limits limits = {
		.body_max = config->max_request_size,
		.output_max = config->max_answer_bytes * 6 + 1024 * 1024,
		.head_timeout_ms = HEAD_TIMEOUT_MS,
	};
	struct error why;

	uv_timer_stop(&worker->timer);
	if (fcgi_server_open(&worker->server, &worker->loop, worker->options.listen_fd, &limits, on_request,
			     worker, &why) != ERR_OK) {
		log_event(LOG_LEVEL_ERROR, "start", LOG_TEXT("cause", why.cause));
		worker->status = EX_SOFTWARE;
		stop(worker);
		return;
	}
	worker->state = WORKER_SERVING;
	if (worker->options.handoff != NULL)
		uv_poll_start(&worker->handoff, UV_READABLE, on_handoff);
	log_event(LOG_LEVEL_INFO, "serving", LOG_TEXT("coze", config->coze_base_url));
	worker->options.on_state(worker->options.arg, METRICS_SERVING);
}

/* Whoever accepts before Redis is there turns messages away that another worker, or this one soon, could have served. */
static void on_start_look(uv_timer_t *timer)
{
	struct worker *worker = timer->data;

	if (claims_are_ready(worker->claims) || uv_now(&worker->loop) >= worker->start_until_ms)
		begin_serving(worker);
}

/* Closes in the order of use: requests first, then what they use; the loop then lets go of the memory. */
static void close_parts(struct worker *worker)
{
	if (worker->server != NULL)
		fcgi_server_close(worker->server);
	if (worker->transport != NULL)
		transport_close(worker->transport);
	if (worker->claims != NULL)
		claims_close(worker->claims);
	if (worker->redis != NULL)
		redis_close(worker->redis);
	if (worker->sentinel != NULL)
		sentinel_close(worker->sentinel);
	if (worker->limiter != NULL)
		limiter_close(worker->limiter);
	uv_close((uv_handle_t *)&worker->timer, NULL);
	close_signals(worker);
	uv_close((uv_handle_t *)&worker->sampler, NULL);
	if (worker->options.handoff != NULL)
		uv_close((uv_handle_t *)&worker->handoff, NULL);
	uv_run(&worker->loop, UV_RUN_DEFAULT);
	if (worker->service.sessions != NULL)
		sessions_close(worker->service.sessions);
	if (worker->index != NULL)
		session_index_close(worker->index);
	if (worker->coze != NULL)
		coze_close(worker->coze);
	buf_free(&worker->service.document);
	if (uv_loop_close(&worker->loop) != 0)
		log_event(LOG_LEVEL_ERROR, "loop", LOG_TEXT("why", "handles were left open"));
}

int worker_run(const struct worker_options *options)
{
	struct worker *worker = calloc(1, sizeof *worker);
	struct error why;
	int status;

	if (worker == NULL)
		return EX_OSERR;
	worker->config = options->config;
	worker->options = *options;
	init_loop(worker);
	if (open_parts(worker, &why) == ERR_OK) {
		worker->start_until_ms = uv_now(&worker->loop) + START_LIMIT_MS;
		uv_timer_start(&worker->timer, on_start_look, 0, START_INTERVAL_MS);
		uv_run(&worker->loop, UV_RUN_DEFAULT);
		log_event(
		    LOG_LEVEL_INFO, "stopped",
		    LOG_NUMBER("requests", worker->server != NULL ? fcgi_server_active(worker->server) : 0));
	} else {
		log_event(LOG_LEVEL_ERROR, "start", LOG_TEXT("cause", why.cause));
		worker->status = EX_SOFTWARE;
	}
	status = worker->status;
	close_parts(worker);
	free(worker);
	return status;
}
