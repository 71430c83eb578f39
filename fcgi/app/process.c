/*
 * process.c - see process.h.
 */
#include "app/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app/config.h"
#include "base/log.h"

#define LOG_PATH_SIZE (PATH_MAX + 32)
#define LARGE_BYTES   (1024 * 1024)

void process_prepare(void)
{
	struct rlimit limit;

	signal(SIGPIPE, SIG_IGN);
	/* Large bodies and answers go back to the system when they are freed: by itself glibc would raise the limit from
	 * which it does so with the first of them, and a worker would stay as large as it ever was. */
	mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

void process_give_memory_back(void)
{
	malloc_trim(0);
}

uint64_t process_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool process_complain(const char *what, const char *name)
{
	fprintf(stderr, "coze-chatd: %s %s: %s\n", what, name, strerror(errno));
	return false;
}

void process_tell(const struct buf *problems)
{
	(void)fwrite(buf_bytes(problems), 1, buf_size(problems), stderr);
}

bool process_make_directory(const char *path)
{
	if (mkdir(path, 0750) == 0 || errno == EEXIST)
		return true;
	return process_complain("cannot make the directory", path);
}

/* LOG_FILE, or the one in RUN_DIR. */
static void log_path(const struct config *config, char path[LOG_PATH_SIZE])
{
	if (config->log_file[0] != '\0')
		snprintf(path, LOG_PATH_SIZE, "%s", config->log_file);
	else
		snprintf(path, LOG_PATH_SIZE, "%s/logs/api_server.log", config->run_dir);
}

bool process_check_log(const struct config *config)
{
	char path[LOG_PATH_SIZE];
	int fd;

	log_path(config, path);
	if (strcmp(path, "-") == 0)
		return true;
	fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		close(fd);
		return true;
	}
	/* One that is not there will be made; those in RUN_DIR with their directories. */
	if (errno == ENOENT) {
		*strrchr(path, '/') = '\0';
		if (access(path[0] != '\0' ? path : "/", W_OK | X_OK) == 0 ||
		    (errno == ENOENT && config->log_file[0] == '\0'))
			return true;
		log_path(config, path);
	}
	return process_complain("LOG_FILE: cannot write", path);
}

bool process_open_log(const struct config *config)
{
	char path[LOG_PATH_SIZE];

	if (config->log_file[0] == '\0') {
		snprintf(path, sizeof path, "%s/logs", config->run_dir);
		if (!process_make_directory(config->run_dir) || !process_make_directory(path))
			return false;
	}
	log_path(config, path);
	if (log_open_file(path, (enum log_level)config->log_level, (enum log_format)config->log_format))
		return true;
	return process_complain("cannot open the log", path);
}
