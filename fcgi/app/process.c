/*
 * process.c - see process.h.
 */
#include "app/process.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "app/config.h"
#include "base/log.h"

void process_prepare(void)
{
	struct rlimit limit;

	signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static bool complain(const char *what, const char *path)
{
	fprintf(stderr, "coze-chatd: %s %s: %s\n", what, path, strerror(errno));
	return false;
}

bool process_make_directory(const char *path)
{
	if (mkdir(path, 0750) == 0 || errno == EEXIST)
		return true;
	return complain("cannot make the directory", path);
}

bool process_open_log(const struct config *config)
{
	char path[PATH_MAX];

	if (config->log_file[0] != '\0') {
		snprintf(path, sizeof path, "%s", config->log_file);
	} else {
		snprintf(path, sizeof path, "%s/logs", config->run_dir);
		if (!process_make_directory(config->run_dir) || !process_make_directory(path))
			return false;
		snprintf(path, sizeof path, "%s/logs/api_server.log", config->run_dir);
	}
	if (log_open_file(path, (enum log_level)config->log_level, (enum log_format)config->log_format))
		return true;
	return complain("cannot open the log", path);
}
