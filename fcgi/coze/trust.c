/*
 * trust.c - see trust.h.
 */
#include "coze/trust.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static bool append(int out, const char *path)
{
	char bytes[16384];
	ssize_t got = -1;
	int in = open(path, O_RDONLY | O_CLOEXEC);

	if (in < 0)
		return false;
	while ((got = read(in, bytes, sizeof bytes)) > 0)
		if (write(out, bytes, (size_t)got) != got)
			break;
	close(in);
	return got == 0 && write(out, "\n", 1) == 1; /* the first may lack its last line's end */
}

bool trust_open(struct trust *trust, const char *system_file, const char *ca_file)
{
	trust->fd = memfd_create("authorities", MFD_CLOEXEC);
	if (trust->fd < 0)
		return false;
	snprintf(trust->path, sizeof trust->path, "/proc/self/fd/%d", trust->fd);
	if (append(trust->fd, system_file) && append(trust->fd, ca_file) && access(trust->path, R_OK) == 0)
		return true;
	trust_close(trust);
	return false;
}

void trust_close(struct trust *trust)
{
	if (trust->fd >= 0)
		close(trust->fd);
	trust->fd = -1;
}
