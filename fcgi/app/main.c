/*
 * main.c - the command line.
 */
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "app/config.h"
#include "app/master.h"

#define TEXT_MAX (1024 * 1024)

static void print(FILE *file, const struct buf *text)
{
	fwrite(buf_bytes(text), 1, buf_size(text), file);
}

static int help(void)
{
	struct buf text;

	buf_init(&text, TEXT_MAX);
	buf_append_str(&text,
		       "coze-chatd - FastCGI workers between nginx and Coze\n\n"
		       "  coze-chatd                 run in the foreground\n"
		       "  coze-chatd --check         say what is wrong with the settings\n"
		       "  coze-chatd --print-config  print the settings that are not secret, for a shell\n\n"
		       "Settings are environment variables; NAME_FILE names a file that holds the value:\n");
	config_help(&text);
	print(stdout, &text);
	buf_free(&text);
	return EX_OK;
}

static int run(const char *mode, const struct config *config)
{
	struct buf text;

	if (strcmp(mode, "--check") == 0)
		return EX_OK;
	if (mode[0] == '\0')
		return master_run(config);
	buf_init(&text, TEXT_MAX);
	config_print(config, &text);
	print(stdout, &text);
	buf_free(&text);
	return EX_OK;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	struct config config;
	struct buf problems;
	int status = EX_CONFIG;

	if (strcmp(mode, "--help") == 0 || strcmp(mode, "-h") == 0)
		return help();
	if (argc > 2 ||
	    (mode[0] != '\0' && strcmp(mode, "--check") != 0 && strcmp(mode, "--print-config") != 0)) {
		fprintf(stderr, "coze-chatd: unknown argument %s; see --help\n", argv[argc - 1]);
		return EX_USAGE;
	}
	buf_init(&problems, TEXT_MAX);
	if (config_load(&config, &problems))
		status = run(mode, &config);
	else
		print(stderr, &problems);
	buf_free(&problems);
	config_fini(&config);
	return status;
}
