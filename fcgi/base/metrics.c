/*
 * metrics.c - see metrics.h.
 */
#include "base/metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct metrics_block private_block;
struct metrics_block *metrics = &private_block;

static const uint64_t bucket_us[METRICS_BUCKETS] = { 500,     1000,     2500,     5000,     10000,    25000,
						     50000,   100000,   250000,   500000,   1000000,  2500000,
						     5000000, 10000000, 30000000, 60000000, 300000000 };

static const int statuses[METRICS_STATUSES] = { 200, 204, 400, 401, 403, 404, 405, 408, 409, 411,
						413, 415, 429, 499, 500, 501, 502, 503, 504, 0 };

/* ---- counting ---- */

void metric_observe(struct metrics_histogram *histogram, uint64_t us)
{
	unsigned i = 0;

	while (i < METRICS_BUCKETS && us > bucket_us[i])
		i++;
	metric_add(&histogram->buckets[i], 1);
	metric_add(&histogram->sum_us, us);
}

void metric_move(uint64_t *from, uint64_t *to)
{
	if (from != NULL)
		metric_sub(from, 1);
	if (to != NULL)
		metric_add(to, 1);
}

void metric_request(unsigned route, int status, uint64_t us)
{
	unsigned i = 0;

	if (route >= METRICS_ROUTES)
		route = METRICS_ROUTES - 1;
	while (i < METRICS_STATUSES - 1 && statuses[i] != status)
		i++;
	metric_add(&metrics->counters.requests[route][i], 1);
	metric_observe(&metrics->counters.request_time[route], us);
}

/* ---- the region ---- */

struct process {
	pid_t pid; /* 0: the block is free */
	uint32_t worker;
	uint32_t state; /* enum metrics_state */
	uint32_t worn;
};

struct metrics_region {
	uint64_t layout;
	uint64_t started_unix_s;
	uint32_t folding; /* odd while the master moves a block's counters to `ended` */
	struct process processes[METRICS_BLOCKS];
	uint64_t starts[METRICS_WORKERS], deaths[METRICS_WORKERS];
	struct metrics_block ended; /* counters only */
	struct metrics_block blocks[METRICS_BLOCKS];
};

static struct metrics_region *map(int fd)
{
	void *memory = mmap(NULL, sizeof(struct metrics_region), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return memory != MAP_FAILED ? memory : NULL;
}

void metrics_use_master(struct metrics_region *region)
{
	metrics = &region->ended;
}

size_t metrics_claim(struct metrics_region *region, size_t worker)
{
	for (size_t i = 0; i < METRICS_BLOCKS; i++) {
		struct process *process = &region->processes[i];

		if (process->pid != 0)
			continue;
		process->worker = (uint32_t)worker;
		process->state = METRICS_STARTING;
		process->worn = 0;
		if (worker < METRICS_WORKERS)
			metric_add(&region->starts[worker], 1);
		return i;
	}
	return METRICS_BLOCKS;
}

void metrics_started(struct metrics_region *region, size_t block, pid_t pid)
{
	if (block < METRICS_BLOCKS)
		__atomic_store_n(&region->processes[block].pid, pid, __ATOMIC_RELEASE);
}

/* Adds block `from` to `to`, both as arrays of numbers. */
static void add_up(void *to, const void *from, size_t size)
{
	uint64_t *sum = to;
	const uint64_t *cells = from;

	for (size_t i = 0; i < size / sizeof *sum; i++) {
		uint64_t cell = __atomic_load_n(&cells[i], __ATOMIC_RELAXED);

		if (cell != 0)
			metric_add(&sum[i], cell);
	}
}

void metrics_ended(struct metrics_region *region, size_t block, pid_t pid, size_t worker, bool died)
{
	if (died && worker < METRICS_WORKERS)
		metric_add(&region->deaths[worker], 1);
	if (block >= METRICS_BLOCKS || region->processes[block].pid != pid)
		return;
	__atomic_fetch_add(&region->folding, 1, __ATOMIC_SEQ_CST);
	add_up(&region->ended.counters, &region->blocks[block].counters, sizeof region->ended.counters);
	memset(&region->blocks[block], 0, sizeof region->blocks[block]);
	__atomic_store_n(&region->processes[block].pid, 0, __ATOMIC_RELEASE);
	__atomic_fetch_add(&region->folding, 1, __ATOMIC_SEQ_CST);
}

void metrics_use(struct metrics_region *region, size_t block)
{
	metrics = block < METRICS_BLOCKS ? &region->blocks[block] : &private_block;
}

enum metrics_state metrics_state(const struct metrics_region *region, size_t block)
{
	if (block >= METRICS_BLOCKS)
		return METRICS_SERVING; /* it cannot say */
	return (enum metrics_state)__atomic_load_n(&region->processes[block].state, __ATOMIC_ACQUIRE);
}

void metrics_set_state(struct metrics_region *region, size_t block, enum metrics_state state)
{
	if (block < METRICS_BLOCKS)
		__atomic_store_n(&region->processes[block].state, (uint32_t)state, __ATOMIC_RELEASE);
}

bool metrics_is_worn(const struct metrics_region *region, size_t block)
{
	return block < METRICS_BLOCKS && __atomic_load_n(&region->processes[block].worn, __ATOMIC_ACQUIRE);
}

void metrics_set_worn(struct metrics_region *region, size_t block)
{
	if (block < METRICS_BLOCKS)
		__atomic_store_n(&region->processes[block].worn, 1, __ATOMIC_RELEASE);
}

/* ---- printing ---- */

struct label {
	const char *name; /* NULL: none */
	const char *const *values;
	size_t count;
};

static const char *const turn_states[] = {
	"lock", "slot", "pause", "asking", "answering", "leaving", "saving"
};
static const char *const calls[] = { "chat", "retrieve", "messages", "cancel" };
static const char *const results[] = { "ok",           "http_4xx",        "http_5xx",
				       "not_sent",     "connect_timeout", "first_byte_timeout",
				       "idle_timeout", "unanswered",      "cut",
				       "cancelled" };
static const char *const breakers[] = { "closed", "open", "half_open" };
static const char *const redis_states[] = { "up", "down" };
static const char *const buffers[] = { "request", "answer", "output" };
static const char *const worker_states[] = { "starting", "serving", "draining" };

#define LABEL(name, values) ((struct label){ (name), (values), sizeof(values) / sizeof((values)[0]) })
#define NO_LABEL            ((struct label){ NULL, NULL, 1 })

static void head(struct buf *out, const char *name, const char *kind, const char *help)
{
	buf_printf(out, "# HELP coze_chat_%s %s\n# TYPE coze_chat_%s %s\n", name, help, name, kind);
}

static void labels(struct buf *out, const struct label *a, size_t i, const struct label *b, size_t j)
{
	if (a->name == NULL)
		return;
	buf_printf(out, "{%s=\"%s\"", a->name, a->values[i]);
	if (b->name != NULL)
		buf_printf(out, ",%s=\"%s\"", b->name, b->values[j]);
	buf_append_char(out, '}');
}

/* A counter or gauge: a number for each pair of labels, `stride` cells a row. */
static void numbers(struct buf *out, const char *name, const char *kind, const char *help,
		    const uint64_t *cells, struct label a, struct label b, size_t stride, bool with_zeros)
{
	head(out, name, kind, help);
	for (size_t i = 0; i < a.count; i++) {
		for (size_t j = 0; j < b.count; j++) {
			if (cells[i * stride + j] == 0 && !with_zeros)
				continue;
			buf_printf(out, "coze_chat_%s", name);
			labels(out, &a, i, &b, j);
			buf_printf(out, " %llu\n", (unsigned long long)cells[i * stride + j]);
		}
	}
}

static void counter(struct buf *out, const char *name, const char *help, const uint64_t *cells,
		    struct label label)
{
	numbers(out, name, "counter", help, cells, label, NO_LABEL, 1, true);
}

static void gauge(struct buf *out, const char *name, const char *help, const uint64_t *cells,
		  struct label label)
{
	numbers(out, name, "gauge", help, cells, label, NO_LABEL, 1, true);
}

/* 1234 as 0.001234; Prometheus' base unit is the second. */
static void seconds(struct buf *out, uint64_t us)
{
	buf_printf(out, "%llu.%06llu", (unsigned long long)(us / 1000000),
		   (unsigned long long)(us % 1000000));
}

static void histogram(struct buf *out, const char *name, const char *help,
		      const struct metrics_histogram *histograms, struct label label)
{
	head(out, name, "histogram", help);
	for (size_t i = 0; i < label.count; i++) {
		const struct metrics_histogram *one = &histograms[i];
		char pair[96] = "", only[100] = "";
		uint64_t total = 0;

		if (label.name != NULL) {
			snprintf(pair, sizeof pair, "%s=\"%s\",", label.name, label.values[i]);
			snprintf(only, sizeof only, "{%s=\"%s\"}", label.name, label.values[i]);
		}
		for (unsigned j = 0; j < METRICS_BUCKETS; j++) {
			total += one->buckets[j];
			buf_printf(out, "coze_chat_%s_bucket{%sle=\"%g\"} %llu\n", name, pair,
				   (double)bucket_us[j] / 1e6, (unsigned long long)total);
		}
		total += one->buckets[METRICS_BUCKETS];
		buf_printf(out, "coze_chat_%s_bucket{%sle=\"+Inf\"} %llu\ncoze_chat_%s_sum%s ", name, pair,
			   (unsigned long long)total, name, only);
		seconds(out, one->sum_us);
		buf_printf(out, "\ncoze_chat_%s_count%s %llu\n", name, only, (unsigned long long)total);
	}
}

static void write_requests(struct buf *out, const struct metrics_counters *counters,
			   const char *const *routes, size_t route_count)
{
	static char names[METRICS_STATUSES][8];
	const char *status_names[METRICS_STATUSES], *route_names[METRICS_ROUTES];

	for (unsigned i = 0; i < METRICS_STATUSES; i++) {
		snprintf(names[i], sizeof names[i], "%d", statuses[i]);
		status_names[i] = statuses[i] != 0 ? names[i] : "other";
	}
	for (size_t i = 0; i < METRICS_ROUTES; i++)
		route_names[i] = i < route_count ? routes[i] : "none";
	/* Of numbers for requests between the last route and "none" there are none. */
	numbers(out, "requests_total", "counter", "Requests answered, by route and HTTP status.",
		&counters->requests[0][0], LABEL("route", route_names), LABEL("status", status_names),
		METRICS_STATUSES, false);
	histogram(out, "request_seconds", "Time from a request's arrival at the worker to its last byte.",
		  counters->request_time, (struct label){ "route", route_names, route_count });
	histogram(out, "first_chunk_seconds", "Time from a stream's request to its first chunk of text.",
		  &counters->first_chunk_time, NO_LABEL);
}

static void write_turns(struct buf *out, const struct metrics_block *sum)
{
	const char *ends[ERR__COUNT + 1];

	for (unsigned i = 0; i < ERR__COUNT; i++)
		ends[i] = error_name((enum err)i);
	ends[METRICS_TURN_LEFT] = "left";
	gauge(out, "requests_active", "Requests in hand.", &sum->gauges.requests, NO_LABEL);
	gauge(out, "connections", "FastCGI connections of nginx, idle ones too.", &sum->gauges.connections,
	      NO_LABEL);
	gauge(out, "open_streams", "Streams whose answer has begun.", &sum->gauges.streams, NO_LABEL);
	gauge(out, "turns", "Messages under way, by what they wait for.", sum->gauges.turns,
	      LABEL("state", turn_states));
	counter(out, "turns_total", "Messages that ended, by how; left: the client did first.",
		sum->counters.turns, LABEL("result", ends));
}

static void write_coze(struct buf *out, const struct metrics_block *sum)
{
	numbers(out, "coze_calls_total", "counter", "Calls to Coze, by how they ended.",
		&sum->counters.calls[0][0], LABEL("call", calls), LABEL("result", results),
		METRICS_RESULT__COUNT, true);
	histogram(out, "coze_first_byte_seconds", "Time from a call's start to the first byte of its answer.",
		  &sum->counters.first_byte_time, NO_LABEL);
	counter(out, "retries_total", "Messages that were given to Coze again.", &sum->counters.retries,
		NO_LABEL);
	gauge(out, "breakers", "Workers by the state of their circuit to Coze.", sum->gauges.breakers,
	      LABEL("state", breakers));
}

static void write_store(struct buf *out, const struct metrics_block *sum)
{
	gauge(out, "redis_connections", "Connections to Redis, two of each worker, by state.",
	      sum->gauges.redis, LABEL("state", redis_states));
	histogram(out, "redis_seconds", "Time of Redis to answer a command.", &sum->counters.redis_time,
		  NO_LABEL);
	counter(out, "redis_failures_total", "Commands that Redis did not answer or refused.",
		&sum->counters.redis_failures, NO_LABEL);
}

static void write_process(struct buf *out, const struct metrics_block *sum)
{
	gauge(out, "buffer_bytes",
	      "Bytes held: request bodies, answers so far, output that clients have not read.",
	      sum->gauges.buffers, LABEL("buffer", buffers));
	histogram(out, "loop_lag_seconds",
		  "How late the event loop looks at a timer, ten times a second: how long others wait.",
		  &sum->counters.loop_lag, NO_LABEL);
	counter(out, "log_failures_total", "Log lines that could not be written.",
		&sum->counters.log_failures, NO_LABEL);
}

/* Resident memory of another process of ours; 0 when it has just ended. */
static uint64_t resident_bytes(pid_t pid)
{
	unsigned long total, resident = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		return 0;
	/* NOLINTNEXTLINE(cert-err34-c): the kernel's numbers fit */
	if (fscanf(file, "%lu %lu", &total, &resident) != 2)
		resident = 0;
	(void)fclose(file);
	return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* A counter of the workers that there are, or have been. */
static void write_by_worker(struct buf *out, const struct metrics_region *region, const char *name,
			    const char *help, const uint64_t *cells)
{
	head(out, name, "counter", help);
	for (size_t i = 0; i < METRICS_WORKERS; i++)
		if (region->starts[i] > 0)
			buf_printf(out, "coze_chat_%s{worker=\"%zu\"} %llu\n", name, i,
				   (unsigned long long)cells[i]);
}

static void write_workers(struct buf *out, const struct metrics_region *region,
			  const struct metrics_counters *counters)
{
	uint64_t states[3] = { 0 }, reloads[2] = { counters->reloads_ok, counters->reloads_refused };
	static const char *const reload_results[] = { "ok", "refused" };

	head(out, "worker_resident_bytes", "gauge",
	     "Memory of a worker, together with its draining predecessors.");
	for (size_t worker = 0; worker < METRICS_WORKERS; worker++) {
		uint64_t bytes = 0;

		for (size_t i = 0; i < METRICS_BLOCKS && region->starts[worker] > 0; i++) {
			pid_t pid = __atomic_load_n(&region->processes[i].pid, __ATOMIC_ACQUIRE);

			if (pid == 0 || region->processes[i].worker != worker)
				continue;
			bytes += resident_bytes(pid);
			states[metrics_state(region, i) % 3]++;
		}
		if (bytes > 0)
			buf_printf(out, "coze_chat_worker_resident_bytes{worker=\"%zu\"} %llu\n", worker,
				   (unsigned long long)bytes);
	}
	gauge(out, "workers", "Worker processes, by state.", states, LABEL("state", worker_states));
	write_by_worker(out, region, "worker_starts_total", "Processes started for a worker.",
			region->starts);
	write_by_worker(out, region, "worker_deaths_total",
			"Processes of a worker that ended without being told to.", region->deaths);
	counter(out, "reloads_total", "Reloads of the settings.", reloads, LABEL("result", reload_results));
	gauge(out, "start_time_seconds", "When the counting began, Unix time.", &region->started_unix_s,
	      NO_LABEL);
}

/* Adds up all blocks. A block that is just being moved to the ended ones would count twice or not at all: try again. */
static void sum_up(struct metrics_region *region, struct metrics_block *sum)
{
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		uint32_t before = __atomic_load_n(&region->folding, __ATOMIC_SEQ_CST);

		memset(sum, 0, sizeof *sum);
		add_up(sum, &region->ended, sizeof *sum);
		for (size_t i = 0; i < METRICS_BLOCKS; i++)
			if (__atomic_load_n(&region->processes[i].pid, __ATOMIC_ACQUIRE) != 0)
				add_up(sum, &region->blocks[i], sizeof *sum);
		if (before % 2 == 0 && __atomic_load_n(&region->folding, __ATOMIC_SEQ_CST) == before)
			return;
	}
}

static void write_block(struct buf *out, const struct metrics_block *sum, const char *const *routes,
			size_t route_count)
{
	write_requests(out, &sum->counters, routes, route_count);
	write_turns(out, sum);
	write_coze(out, sum);
	write_store(out, sum);
	write_process(out, sum);
}

void metrics_write(struct metrics_region *region, const char *const *routes, size_t route_count,
		   const char *version, struct buf *out)
{
	struct metrics_block *sum = calloc(1, sizeof *sum);

	if (sum == NULL) {
		out->failed = true;
		return;
	}
	if (region != NULL)
		sum_up(region, sum);
	else
		add_up(sum, metrics, sizeof *sum);
	write_block(out, sum, routes, route_count);
	if (region != NULL)
		write_workers(out, region, &sum->counters);
	head(out, "info", "gauge", "The version that runs.");
	buf_printf(out, "coze_chat_info{version=\"%s\"} 1\n", version);
	free(sum);
}

/* ---- making a region ---- */

/*
 * Tells whether two programs mean the same by each cell: they print an empty block alike. So a route that is new, or one
 * that was renamed, is another layout.
 */
static uint64_t layout(const char *const *routes, size_t route_count)
{
	uint64_t hash = 14695981039346656037u; /* FNV-1a */
	struct metrics_block *empty = calloc(1, sizeof *empty);
	struct buf text;

	buf_init(&text, 1024 * 1024);
	buf_printf(&text, "%zu %zu %zu\n", sizeof(struct metrics_region), sizeof *empty,
		   offsetof(struct metrics_block, gauges));
	if (empty != NULL)
		write_block(&text, empty, routes, route_count);
	for (size_t i = 0; i < buf_size(&text); i++)
		hash = (hash ^ (unsigned char)buf_bytes(&text)[i]) * 1099511628211u;
	buf_free(&text);
	free(empty);
	return hash;
}

struct metrics_region *metrics_region_new(int *fd, const char *const *routes, size_t route_count)
{
	struct metrics_region *region = NULL;

	*fd = memfd_create("coze-chat-metrics", MFD_CLOEXEC);
	if (*fd >= 0 && ftruncate(*fd, sizeof *region) == 0)
		region = map(*fd);
	if (region == NULL)
		return NULL;
	region->layout = layout(routes, route_count);
	region->started_unix_s = (uint64_t)time(NULL);
	return region;
}

struct metrics_region *metrics_region_adopt(int fd, const char *const *routes, size_t route_count)
{
	off_t size = lseek(fd, 0, SEEK_END);
	struct metrics_region *region = size == (off_t)sizeof *region ? map(fd) : NULL;

	if (region == NULL || region->layout == layout(routes, route_count))
		return region;
	munmap(region, sizeof *region);
	return NULL;
}
