/*
 * starve.c - refuses memory to one running process: for LD_PRELOAD, steered by tests/e2e/starving.py through a shared file.
 *
 * STARVE_FILE names a file that begins with a struct order. The process that its `pid` names counts there what it asks
 * for and gives back, and refuses what the order says: NULL and ENOMEM, as malloc(3) does. Of the first refusal it writes
 * down who had asked. Every other process is served as if this were not there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRAMES  32
#define CALLERS 4096
#define SPARED  64

/* Mapped by tests/e2e/starving.py, too. */
struct order {
	int64_t pid;
	int64_t many;             /* allocations that are refused, one after the other; 0: none */
	int64_t good;             /* those before them that are not */
	int64_t asked;            /* allocations since the order */
	int64_t refused;          /* of them */
	int64_t live, live_bytes; /* what was taken and not given back since the pid was named */
	int64_t budget;           /* what would make `live_bytes` more than this is refused; 0: nothing is */
	int64_t size;             /* of the first one refused */
	char spared[SPARED];      /* `many` is not for what these ask for: "libone.so libtwo.so" */
	char callers[CALLERS];    /* of that one: lines of "FILE OFFSET SYMBOL", innermost first */
};

/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*): what there is for the purpose */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*) */

static struct order *the_order;
static pid_t self;
/* It is being found out who asks. Thread-local memory of this model is there from a thread's beginning. */
static __thread bool looking __attribute__((tls_model("initial-exec")));

static void note_pid(void)
{
	self = getpid();
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("STARVE_FILE");
	int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *memory = MAP_FAILED;
	void *frames[1];

	if (fd >= 0) {
		memory = mmap(NULL, sizeof(struct order), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	}
	if (memory == MAP_FAILED)
		return;
	backtrace(frames, 1); /* loads what it needs: later there may be no memory for that */
	note_pid();
	pthread_atfork(NULL, NULL, note_pid);
	the_order = memory;
}

static bool is_watched(void)
{
	return the_order != NULL && !looking && __atomic_load_n(&the_order->pid, __ATOMIC_ACQUIRE) == self;
}

static void count(void *memory, int64_t sign)
{
	if (memory == NULL || !is_watched())
		return;
	__atomic_fetch_add(&the_order->live, sign, __ATOMIC_RELAXED);
	__atomic_fetch_add(&the_order->live_bytes, sign * (int64_t)malloc_usable_size(memory),
			   __ATOMIC_RELAXED);
}

/* ---- who asks ---- */

/* The name of the file that the address is in; "": the program's own, or unknown. */
static const char *file_of(void *address)
{
	struct dl_find_object found;
	const char *name = _dl_find_object(address, &found) == 0 ? found.dlfo_link_map->l_name : "";
	const char *slash = strrchr(name, '/');

	return slash != NULL ? slash + 1 : name;
}

static bool is_in_list(const char *file, const char *list)
{
	while (*list != '\0') {
		size_t len = strcspn(list, " ");

		if (strncmp(file, list, len) == 0)
			return true;
		list += len + (list[len] == ' ');
	}
	return false;
}

/* libc asks for others, as in strdup(): then for whom. */
static bool is_spared(void *caller)
{
	const char *file = file_of(caller);
	void *frames[FRAMES];
	int depth, i = 0;

	if (strncmp(file, "libc.so", 7) != 0)
		return is_in_list(file, the_order->spared);
	depth = backtrace(frames, FRAMES);
	while (i < depth && frames[i] != caller)
		i++;
	while (i < depth && strncmp(file_of(frames[i]), "libc.so", 7) == 0)
		i++;
	return i < depth && is_in_list(file_of(frames[i]), the_order->spared);
}

static void write_callers(void)
{
	void *frames[FRAMES];
	int depth = backtrace(frames, FRAMES);
	size_t at = 0;

	for (int i = 0; i < depth && at < CALLERS; i++) {
		Dl_info where;

		if (dladdr(frames[i], &where) == 0 || where.dli_fname == NULL)
			continue;
		at += (size_t)snprintf(the_order->callers + at, CALLERS - at, "%s %#lx %s\n", where.dli_fname,
				       (unsigned long)((char *)frames[i] - (char *)where.dli_fbase),
				       where.dli_sname != NULL ? where.dli_sname : "-");
	}
}

/* ---- whether it is given ---- */

static bool is_in_turn(int64_t many)
{
	int64_t good = the_order->good, number = __atomic_fetch_add(&the_order->asked, 1, __ATOMIC_RELAXED);

	return number >= good && number < good + many;
}

static bool is_beyond(int64_t budget, size_t size)
{
	return budget != 0 &&
	       __atomic_load_n(&the_order->live_bytes, __ATOMIC_RELAXED) + (int64_t)size > budget;
}

/* `caller`: where malloc() and the like return to. */
static bool refuse(size_t size, void *caller)
{
	int64_t many, budget;
	bool refused;

	if (!is_watched())
		return false;
	many = __atomic_load_n(&the_order->many, __ATOMIC_ACQUIRE);
	budget = __atomic_load_n(&the_order->budget, __ATOMIC_ACQUIRE);
	if (many == 0 && budget == 0)
		return false;
	looking = true;
	refused = is_beyond(budget, size) || (many != 0 && !is_spared(caller) && is_in_turn(many));
	if (refused && __atomic_fetch_add(&the_order->refused, 1, __ATOMIC_RELAXED) == 0) {
		the_order->size = (int64_t)size;
		write_callers();
	}
	looking = false;
	if (refused)
		errno = ENOMEM;
	return refused;
}

/* What realloc() takes from the budget. */
static size_t growth(void *old, size_t size)
{
	size_t had = old != NULL ? malloc_usable_size(old) : 0;

	return size > had ? size - had : 0;
}

/* ---- what programs call ---- */

void *malloc(size_t size)
{
	void *memory = refuse(size, __builtin_return_address(0)) ? NULL : __libc_malloc(size);

	count(memory, 1);
	return memory;
}

void *calloc(size_t number, size_t size)
{
	void *memory =
	    refuse(number * size, __builtin_return_address(0)) ? NULL : __libc_calloc(number, size);

	count(memory, 1);
	return memory;
}

static void *resize(void *old, size_t size, void *caller)
{
	void *memory;

	if (old != NULL && size == 0) { /* glibc: the same as free() */
		free(old);
		return NULL;
	}
	if (refuse(growth(old, size), caller))
		return NULL;
	count(old, -1);
	memory = __libc_realloc(old, size);
	count(memory != NULL ? memory : old, 1);
	return memory;
}

void *realloc(void *old, size_t size)
{
	return resize(old, size, __builtin_return_address(0));
}

void *reallocarray(void *old, size_t number, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(number, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return resize(old, bytes, __builtin_return_address(0));
}

static void *align(size_t alignment, size_t size, void *caller)
{
	void *memory = refuse(size, caller) ? NULL : __libc_memalign(alignment, size);

	count(memory, 1);
	return memory;
}

void *memalign(size_t alignment, size_t size)
{
	return align(alignment, size, __builtin_return_address(0));
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return align(alignment, size, __builtin_return_address(0));
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	void *memory;
	int before = errno;

	if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment % sizeof(void *) != 0)
		return EINVAL;
	memory = align(alignment, size, __builtin_return_address(0));
	errno = before;
	if (memory == NULL)
		return ENOMEM;
	*out = memory;
	return 0;
}

void *valloc(size_t size)
{
	return align((size_t)sysconf(_SC_PAGESIZE), size, __builtin_return_address(0));
}

void free(void *memory)
{
	count(memory, -1);
	__libc_free(memory);
}
