/*
 * test_metrics.c - blocks add up, a process that ends keeps its counts and takes its gauges along, and what is printed is
 * Prometheus' text format to the letter.
 */
#include "unit.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/metrics.h"

static const char *const routes[] = { "/", "/chat" };

struct fixture {
	struct metrics_region *region;
	int fd;
};

static int make_region(void **state)
{
	static struct fixture fixture;

	fixture.region = metrics_region_new(&fixture.fd, routes, COUNT(routes));
	*state = &fixture;
	return fixture.region == NULL;
}

/* The region itself stays mapped: nothing ever unmaps the one in use. */
static int drop_region(void **state)
{
	struct fixture *fixture = *state;

	return close(fixture->fd);
}

static char *printed(struct metrics_region *region)
{
	struct buf out;
	char *text;

	buf_init(&out, 4 * 1024 * 1024);
	metrics_write(region, routes, COUNT(routes), "9.9", &out);
	assert_false(out.failed);
	text = buf_string(&out);
	buf_free(&out);
	return text;
}

/* The value of a sample with exactly this name and these labels; -1 when there is none. */
static double value_in(const char *text, const char *sample)
{
	size_t len = strlen(sample);

	for (const char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n') + 1)
		if (strncmp(line, "coze_chat_", 10) == 0 && strncmp(line + 10, sample, len) == 0 &&
		    line[10 + len] == ' ')
			return strtod(line + 10 + len, NULL);
	return -1;
}

static double value(struct metrics_region *region, const char *sample)
{
	char *text = printed(region);
	double number = value_in(text, sample);

	free(text);
	return number;
}

#define assert_value(region, sample, expected)                                                \
	do {                                                                                  \
		double value__ = value(region, sample);                                       \
		if (value__ != (expected))                                                    \
			fail_msg("%s is %g and not %g", sample, value__, (double)(expected)); \
	} while (0)

static size_t begin(struct metrics_region *region, size_t worker, pid_t pid)
{
	size_t block = metrics_claim(region, worker);

	metrics_started(region, block, pid);
	metrics_use(region, block);
	return block;
}

/* ---- adding up ---- */

static void test_blocks_add_up(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	size_t one = begin(region, 0, 1001), two;

	metric_add(&metrics->counters.retries, 3);
	metric_add(&metrics->gauges.streams, 2);
	two = begin(region, 1, 1002);
	assert_int_not_equal(one, two);
	metric_add(&metrics->counters.retries, 4);
	metric_add(&metrics->gauges.streams, 5);
	metrics_use_master(region);
	metric_add(&metrics->counters.reloads_ok, 1);
	assert_value(region, "retries_total", 7);
	assert_value(region, "open_streams", 7);
	assert_value(region, "reloads_total{result=\"ok\"}", 1);
	assert_value(region, "workers{state=\"starting\"}", 2);
	metrics_set_state(region, one, METRICS_SERVING);
	metrics_set_state(region, two, METRICS_DRAINING);
	assert_value(region, "workers{state=\"starting\"}", 0);
	assert_value(region, "workers{state=\"serving\"}", 1);
	assert_value(region, "workers{state=\"draining\"}", 1);
}

static void test_an_ended_process_keeps_its_counts_and_loses_its_gauges(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	size_t block = begin(region, 0, 1001), next;

	metric_request(1, 200, 700);
	metric_add(&metrics->counters.retries, 3);
	metric_add(&metrics->gauges.streams, 2);
	metric_add(&metrics->gauges.buffers[METRICS_BUFFER_OUTPUT], 100);
	metrics_ended(region, block, 1001, 0, true);
	assert_value(region, "retries_total", 3);
	assert_value(region, "requests_total{route=\"/chat\",status=\"200\"}", 1);
	assert_value(region, "request_seconds_count{route=\"/chat\"}", 1);
	assert_value(region, "open_streams", 0);
	assert_value(region, "buffer_bytes{buffer=\"output\"}", 0);
	assert_value(region, "worker_starts_total{worker=\"0\"}", 1);
	assert_value(region, "worker_deaths_total{worker=\"0\"}", 1);
	next = begin(region, 0, 1002);
	assert_int_equal(next, block);
	metric_add(&metrics->counters.retries, 1);
	metrics_ended(region, next, 1002, 0, false);
	assert_value(region, "retries_total", 4);
	assert_value(region, "worker_starts_total{worker=\"0\"}", 2);
	assert_value(region, "worker_deaths_total{worker=\"0\"}", 1);
	assert_value(region, "workers{state=\"starting\"}", 0);
}

/*
 * After a reload into a program with another layout, the blocks of the processes before it are in a region of before:
 * here, their numbers belong to others.
 */
static void test_the_end_of_a_process_of_another_region_touches_no_block(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	size_t block = begin(region, 0, 1002);

	metric_add(&metrics->counters.retries, 3);
	metric_add(&metrics->gauges.streams, 2);
	metrics_ended(region, block, 1001, 1, true);
	assert_value(region, "open_streams", 2);
	assert_value(region, "retries_total", 3);
	assert_int_not_equal(metrics_claim(region, 1), block);
	metric_sub(&metrics->gauges.streams, 2);
	assert_value(region, "open_streams", 0);
	assert_value(region, "worker_deaths_total{worker=\"1\"}", 1);
}

static void test_a_block_can_be_worn(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	size_t block = begin(region, 0, 1001);

	assert_false(metrics_is_worn(region, block));
	metrics_set_worn(region, block);
	assert_true(metrics_is_worn(region, block));
	metrics_ended(region, block, 1001, 0, false);
	assert_int_equal(begin(region, 0, 1002), block);
	assert_false(metrics_is_worn(region, block));
	assert_int_equal(metrics_state(region, block), METRICS_STARTING);
}

static void test_beyond_the_last_block_a_process_counts_for_itself(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;

	for (size_t i = 0; i < METRICS_BLOCKS; i++) {
		assert_int_equal(begin(region, i % METRICS_WORKERS, (pid_t)(100000 + i)), i);
		metric_add(&metrics->counters.retries, 1);
	}
	assert_int_equal(begin(region, 0, 99), METRICS_BLOCKS);
	metric_add(&metrics->counters.retries, 1);
	assert_value(region, "retries_total", METRICS_BLOCKS);
	metrics_set_state(region, METRICS_BLOCKS, METRICS_DRAINING);
	metrics_set_worn(region, METRICS_BLOCKS);
	assert_false(metrics_is_worn(region, METRICS_BLOCKS));
	assert_int_equal(metrics_state(region, METRICS_BLOCKS), METRICS_SERVING);
	metrics_ended(region, METRICS_BLOCKS, 99, 0, false);
	metrics_ended(region, 7, 100007, 7, false);
	assert_value(region, "retries_total", METRICS_BLOCKS);
	assert_int_equal(metrics_claim(region, 3), 7);
	metrics_use_master(region);
}

/* Whoever reads while a block moves to the ended ones sees its counts once: neither twice nor not at all. */
static void test_counts_never_move_backwards_while_processes_end(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	struct metrics_region *same;
	double last = 0;
	int status;
	pid_t child = fork();

	if (child == 0) {
		alarm(60);
		for (pid_t i = 1; i <= 3000; i++) {
			size_t block = begin(region, 0, 100000 + i);

			metric_add(&metrics->counters.retries, 1);
			metrics_ended(region, block, 100000 + i, 0, false);
		}
		_exit(0);
	}
	same = metrics_region_adopt(((struct fixture *)*state)->fd, routes, COUNT(routes));
	assert_non_null(same);
	while (waitpid(child, &status, WNOHANG) == 0) {
		double now = value(same, "retries_total");

		if (now < last)
			fail_msg("%g after %g", now, last);
		last = now;
	}
	assert_int_equal(status, 0);
	assert_value(same, "retries_total", 3000);
}

/* ---- over a reload ---- */

static void test_a_region_is_handed_over(void **state)
{
	struct fixture *fixture = *state;
	struct metrics_region *same;

	begin(fixture->region, 2, 1001);
	metric_add(&metrics->counters.retries, 3);
	same = metrics_region_adopt(fixture->fd, routes, COUNT(routes));
	assert_non_null(same);
	assert_value(same, "retries_total", 3);
	assert_value(same, "worker_starts_total{worker=\"2\"}", 1);
	metric_add(&metrics->counters.retries, 1);
	assert_value(same, "retries_total", 4);
}

/* Numbers of other routes, or of a region of another form, would be shown under wrong names. */
static void test_a_region_of_another_program_is_not_adopted(void **state)
{
	struct fixture *fixture = *state;
	static const char *const renamed[] = { "/", "/talk" }, *const more[] = { "/", "/chat", "/more" };
	uint64_t magic = 0, other;
	char byte = 0;

	assert_null(metrics_region_adopt(fixture->fd, renamed, COUNT(renamed)));
	assert_null(metrics_region_adopt(fixture->fd, more, COUNT(more)));
	assert_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes) - 1));
	assert_non_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes)));
	assert_int_equal(pread(fixture->fd, &magic, sizeof magic, 0), sizeof magic);
	other = magic + 1;
	assert_int_equal(pwrite(fixture->fd, &other, sizeof other, 0), sizeof other);
	assert_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes)));
	assert_int_equal(pwrite(fixture->fd, &magic, sizeof magic, 0), sizeof magic);
	assert_non_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes)));
	assert_int_equal(pwrite(fixture->fd, &byte, 1, lseek(fixture->fd, 0, SEEK_END)), 1);
	assert_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes)));
	assert_int_equal(ftruncate(fixture->fd, 100), 0);
	assert_null(metrics_region_adopt(fixture->fd, routes, COUNT(routes)));
	assert_null(metrics_region_adopt(-1, routes, COUNT(routes)));
}

static void test_a_region_s_memory_does_not_go_to_other_programs(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(fcntl(fixture->fd, F_GETFD), FD_CLOEXEC);
}

/* ---- counting ---- */

static void test_a_histogram_s_bounds_belong_to_it(void **state)
{
	static const struct {
		uint64_t us;
		const char *first; /* bucket that counts it; all below do not */
		const char *below;
	} cases[] = {
		{ 0, "0.0005", NULL },        { 500, "0.0005", NULL },
		{ 501, "0.001", "0.0005" },   { 1000, "0.001", "0.0005" },
		{ 1001, "0.0025", "0.001" },  { 2500000, "2.5", "1" },
		{ 2500001, "5", "2.5" },      { 300000000, "300", "60" },
		{ 300000001, "+Inf", "300" }, { UINT64_MAX / 2, "+Inf", "300" },
	};
	char sample[100];

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct metrics_region *region;

		drop_region(state);
		make_region(state);
		region = ((struct fixture *)*state)->region;
		begin(region, 0, 1001);
		metric_observe(&metrics->counters.redis_time, cases[i].us);
		snprintf(sample, sizeof sample, "redis_seconds_bucket{le=\"%s\"}", cases[i].first);
		assert_value(region, sample, 1);
		assert_value(region, "redis_seconds_bucket{le=\"+Inf\"}", 1);
		if (cases[i].below == NULL)
			continue;
		snprintf(sample, sizeof sample, "redis_seconds_bucket{le=\"%s\"}", cases[i].below);
		assert_value(region, sample, 0);
	}
}

static void test_a_histogram_sums_seconds(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	char *text;

	begin(region, 0, 1001);
	metric_observe(&metrics->counters.first_chunk_time, 1);
	metric_observe(&metrics->counters.first_chunk_time, 1000000);
	metric_observe(&metrics->counters.first_chunk_time, 234567);
	text = printed(region);
	assert_contains(text, "\ncoze_chat_first_chunk_seconds_sum 1.234568\n");
	assert_contains(text, "\ncoze_chat_first_chunk_seconds_count 3\n");
	free(text);
}

static void test_requests_are_counted_by_route_and_status(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;

	begin(region, 0, 1001);
	metric_request(0, 200, 1);
	metric_request(1, 503, 1);
	metric_request(1, 503, 1);
	metric_request(1, 499, 1);
	metric_request(1, 418, 1);
	metric_request(1, 0, 1);
	metric_request(1, -5, 1);
	metric_request(METRICS_ROUTES - 1, 404, 1);
	metric_request(METRICS_ROUTES, 404, 1);
	metric_request(UINT_MAX, 404, 1);
	assert_value(region, "requests_total{route=\"/\",status=\"200\"}", 1);
	assert_value(region, "requests_total{route=\"/chat\",status=\"503\"}", 2);
	assert_value(region, "requests_total{route=\"/chat\",status=\"499\"}", 1);
	assert_value(region, "requests_total{route=\"/chat\",status=\"other\"}", 3);
	assert_value(region, "requests_total{route=\"none\",status=\"404\"}", 3);
	assert_value(region, "request_seconds_count{route=\"/chat\"}", 6);
}

static void test_a_gauge_moves(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;

	begin(region, 0, 1001);
	metric_move(NULL, &metrics->gauges.turns[METRICS_TURN_LOCK]);
	assert_value(region, "turns{state=\"lock\"}", 1);
	metric_move(&metrics->gauges.turns[METRICS_TURN_LOCK], &metrics->gauges.turns[METRICS_TURN_SLOT]);
	assert_value(region, "turns{state=\"lock\"}", 0);
	assert_value(region, "turns{state=\"slot\"}", 1);
	metric_move(&metrics->gauges.turns[METRICS_TURN_SLOT], NULL);
	assert_value(region, "turns{state=\"slot\"}", 0);
	metric_move(NULL, NULL);
}

/* ---- the text ---- */

static bool is_name(const char *name, size_t len)
{
	if (len == 0 || (name[0] >= '0' && name[0] <= '9'))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") >= len;
}

/* The length of {name="value",…}, 0 when there is none; fails when it is broken. */
static size_t labels_len(const char *text)
{
	const char *p = text;

	if (*p != '{')
		return 0;
	do {
		size_t len = strcspn(++p, "=");

		assert_true(is_name(p, len));
		p += len;
		assert_true(p[0] == '=' && p[1] == '"');
		for (p += 2; *p != '"'; p++)
			assert_true(*p >= ' ' && *p != '\\');
		p++;
	} while (*p == ',');
	assert_int_equal(*p, '}');
	return (size_t)(p - text) + 1;
}

static bool fits_family(const char *sample, size_t len, const char *family, const char *kind)
{
	static const char *const ends[] = { "_bucket", "_sum", "_count" };
	size_t family_len = strlen(family);

	if (strncmp(sample, family, family_len) != 0)
		return false;
	if (strcmp(kind, "histogram") != 0)
		return len == family_len;
	for (size_t i = 0; i < COUNT(ends); i++)
		if (len == family_len + strlen(ends[i]) &&
		    strncmp(sample + family_len, ends[i], strlen(ends[i])) == 0)
			return true;
	return false;
}

/* One family at a time: HELP, TYPE, samples; each sample once, numbers only; histograms grow up to their count. */
static void assert_is_prometheus_text(char *text)
{
	char family[100] = "", kind[20] = "";
	char *rest, *line = strtok_r(text, "\n", &rest);
	double bucket = 0;
	unsigned samples = 0;
	static char seen[4096][160];

	for (; line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		char *end;
		size_t name_len, labels;
		double number;

		if (strncmp(line, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(line, "# HELP %99s %*s", family), 1);
			assert_true(is_name(family, strlen(family)) && strlen(line) > 8 + strlen(family));
			kind[0] = '\0';
			continue;
		}
		if (strncmp(line, "# TYPE ", 7) == 0) {
			char name[100];

			assert_int_equal(sscanf(line, "# TYPE %99s %19s", name, kind), 2);
			assert_string_equal(name, family);
			assert_true(strcmp(kind, "counter") == 0 || strcmp(kind, "gauge") == 0 ||
				    strcmp(kind, "histogram") == 0);
			assert_int_equal(strcmp(kind, "counter") == 0,
					 strlen(family) > 6 &&
					     strcmp(family + strlen(family) - 6, "_total") == 0);
			continue;
		}
		name_len = strcspn(line, "{ ");
		assert_true(kind[0] != '\0' && is_name(line, name_len));
		if (!fits_family(line, name_len, family, kind))
			fail_msg("\"%s\" is not of %s", line, family);
		labels = labels_len(line + name_len);
		assert_int_equal(line[name_len + labels], ' ');
		number = strtod(line + name_len + labels + 1, &end);
		assert_true(end > line + name_len + labels + 1 && *end == '\0' && number >= 0);
		if (strstr(line, "_bucket{") != NULL) {
			bool first = strstr(line, "le=\"0.0005\"") != NULL;

			assert_true(first || number >= bucket);
			bucket = number;
		}
		if (strncmp(line + name_len - 6, "_count", 6) == 0)
			assert_true(number == bucket);
		assert_true(samples < COUNT(seen));
		snprintf(seen[samples], sizeof seen[0], "%.*s", (int)(name_len + labels), line);
		for (unsigned i = 0; i < samples; i++)
			assert_string_not_equal(seen[i], seen[samples]);
		samples++;
	}
	assert_true(samples > 100);
}

static void test_the_text_is_prometheus_text(void **state)
{
	struct metrics_region *region = ((struct fixture *)*state)->region;
	char *text = printed(region);

	assert_true(text[strlen(text) - 1] == '\n');
	assert_is_prometheus_text(text);
	free(text);
	begin(region, 0, getpid());
	/* Every cell of a block has a number of its own. */
	for (size_t i = 0; i < sizeof *metrics / sizeof(uint64_t); i++)
		((uint64_t *)(void *)metrics)[i] = i + 1;
	/* But only routes that there are are ever counted, and those of none. */
	for (size_t i = COUNT(routes); i < METRICS_ROUTES - 1; i++)
		memset(metrics->counters.requests[i], 0, sizeof metrics->counters.requests[i]);
	text = printed(region);
	assert_contains(text, "coze_chat_info{version=\"9.9\"} 1\n");
	assert_contains(text, "coze_chat_worker_resident_bytes{worker=\"0\"} ");
	assert_is_prometheus_text(text);
	free(text);
}

static void test_without_a_region_the_private_block_is_printed(void **state)
{
	char *text;

	metrics_use(((struct fixture *)*state)->region, METRICS_BLOCKS);
	metric_add(&metrics->counters.retries, 5);
	text = printed(NULL);
	assert_true(value_in(text, "retries_total") >= 5);
	assert_is_prometheus_text(text);
	free(text);
}

static void test_a_text_beyond_its_room_has_failed(void **state)
{
	struct buf out;

	buf_init(&out, 1000);
	metrics_write(((struct fixture *)*state)->region, routes, COUNT(routes), "9.9", &out);
	assert_true(out.failed);
	buf_free(&out);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_region, drop_region)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_blocks_add_up),
		TEST(test_an_ended_process_keeps_its_counts_and_loses_its_gauges),
		TEST(test_the_end_of_a_process_of_another_region_touches_no_block),
		TEST(test_a_block_can_be_worn),
		TEST(test_beyond_the_last_block_a_process_counts_for_itself),
		TEST(test_counts_never_move_backwards_while_processes_end),
		TEST(test_a_region_is_handed_over),
		TEST(test_a_region_of_another_program_is_not_adopted),
		TEST(test_a_region_s_memory_does_not_go_to_other_programs),
		TEST(test_a_histogram_s_bounds_belong_to_it),
		TEST(test_a_histogram_sums_seconds),
		TEST(test_requests_are_counted_by_route_and_status),
		TEST(test_a_gauge_moves),
		TEST(test_the_text_is_prometheus_text),
		TEST(test_without_a_region_the_private_block_is_printed),
		TEST(test_a_text_beyond_its_room_has_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
