/*
 * main.c - the command line.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "app/alone.h"
#include "app/config.h"
#include "app/master.h"
#include "app/process.h"
#include "chat/service.h"

#define TEXT_MAX (1024 * 1024)

/* Who asks for a text must be able to rely on having all of it. */
static int print(const struct buf *text)
{
	if (!text->failed && fwrite(buf_bytes(text), 1, buf_size(text), stdout) == buf_size(text) &&
	    fflush(stdout) == 0)
		return EX_OK;
	process_complain("cannot write", "standard output");
	return EX_IOERR;
}

static int help(void)
{
	struct buf text;
	int status;

	buf_init(&text, TEXT_MAX);
	buf_append_str(&text,
		       "coze-chatd - FastCGI workers between nginx and Coze\n\n"
		       "  coze-chatd                 run the master and its workers, in the foreground\n"
		       "  coze-chatd --worker        run one worker alone, on WORKER_LISTEN (containers)\n"
		       "  coze-chatd --check         say what is wrong with the settings\n"
		       "  coze-chatd --print-config  print the settings that are not secret, for a shell\n"
		       "  coze-chatd --openapi       print the API document (OpenAPI 3.1)\n\n"
		       "TERM drains, INT stops, USR1 opens the log anew, HUP reloads (see README).\n\n");
	config_help(&text);
	status = print(&text);
	buf_free(&text);
	return status;
}

static int run(const char *mode, const struct config *config)
{
	struct buf text;
	int status;

	if (strcmp(mode, "--check") == 0)
		return master_check(config) ? EX_OK : EX_CONFIG;
	if (mode[0] == '\0')
		return master_run(config);
	if (strcmp(mode, "--worker") == 0)
		return alone_run(config);
	buf_init(&text, TEXT_MAX);
	if (strcmp(mode, "--openapi") == 0)
		service_document(config, &text);
	else
		config_print(config, &text);
	status = print(&text);
	buf_free(&text);
	return status;
}

/* Waits a second, with the signals still blocked that the predecessor had blocked. True: it is to end. */
static bool told_to_end(void)
{
	const struct timespec second = { .tv_sec = 1 };
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGQUIT);
	sigaddset(&signals, SIGINT);
	return sigtimedwait(&signals, NULL, &second) > 0;
}

/*
 * Reads the settings. A master's successor has workers to look after: it waits until the settings, which were good when it
 * was begun, are good again. Should it be told to end, its workers drain, as their master is gone.
 */
static bool load(struct config *config, bool partly)
{
	struct buf problems;
	bool good;

	for (;;) {
		buf_init(&problems, TEXT_MAX);
		good = partly ? config_load_partly(config, &problems) : config_load(config, &problems);
		process_tell(&problems);
		buf_free(&problems);
		if (good || !master_is_successor() || told_to_end())
			return good;
		config_fini(config);
	}
}

int main(int argc, char **argv)
{
	static const char *const modes[] = { "", "--worker", "--check", "--print-config", "--openapi" };
	const char *mode = argc > 1 ? argv[1] : "";
	bool known = false;
	struct config config;
	int status = EX_CONFIG;

	if (strcmp(mode, "--help") == 0 || strcmp(mode, "-h") == 0)
		return help();
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
		known = known || strcmp(mode, modes[i]) == 0;
	if (argc > 2 || !known) {
		fprintf(stderr, "coze-chatd: unknown argument %s; see --help\n", argv[argc - 1]);
		return EX_USAGE;
	}
	/* nginx may be on a machine without workers. */
	if (load(&config, strcmp(mode, "--print-config") == 0))
		status = run(mode, &config);
	config_fini(&config);
	return status;
}
