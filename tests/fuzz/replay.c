/*
 * replay.c - runs a fuzz target over files instead of under libFuzzer: any compiler will do.
 *
 *   TARGET FILE|DIRECTORY...
 *
 * Each file of a directory is one input. What breaks stops the program, and its last line names the file. Having found no
 * input at all is a failure.
 */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_MAX (1024 * 1024)

static char running[4096]; /* the file in hand, for on_abort() */

static void on_abort(int signal_number)
{
	static const char words[] = "replay: stopped by ";

	if (write(STDERR_FILENO, words, sizeof words - 1) < 0 ||
	    write(STDERR_FILENO, running, strlen(running)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
		_exit(1);
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

static void replay_file(const char *path)
{
	FILE *stream = fopen(path, "re");
	char *room = malloc(INPUT_MAX), *bytes;
	size_t len;

	if (stream == NULL || room == NULL) {
		fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
		exit(1);
	}
	len = fread(room, 1, INPUT_MAX, stream);
	fclose(stream);
	bytes = exact_copy(room, len);
	free(room);
	snprintf(running, sizeof running, "%s", path);
	LLVMFuzzerTestOneInput((const uint8_t *)bytes, len);
	free(bytes);
}

static size_t replay_directory(const char *path, struct dirent **names, int count)
{
	size_t done = 0;

	for (int i = 0; i < count; i++) {
		char file[4096];
		struct stat info;

		snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
		if (stat(file, &info) == 0 && S_ISREG(info.st_mode)) {
			replay_file(file);
			done++;
		}
		free(names[i]);
	}
	free(names);
	return done;
}

int main(int argc, char **argv)
{
	size_t done = 0;

	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	for (int i = 1; i < argc; i++) {
		struct dirent **names;
		int count = scandir(argv[i], &names, NULL, alphasort);

		if (count >= 0) {
			done += replay_directory(argv[i], names, count);
			continue;
		}
		replay_file(argv[i]);
		done++;
	}
	printf("%s: %zu inputs\n", argv[0], done);
	return done > 0 ? 0 : 1;
}
