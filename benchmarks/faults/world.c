/* A world that misbehaves, for processes that are started with this library in LD_PRELOAD.

System calls on files below two folders fail with an error of the harness's choice, and Python's clock is wrong by as
much as it likes. What happens follows from a page of shared memory (`world.py` writes it), so that it begins and ends
at once for all processes. A copy of the page's layout stands there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_READ = 1, OPEN_WRITE = 2, READ = 4, WRITE = 8, SYNC = 16, NAMES = 32, LIST = 64, STAT = 128 };

struct page {
    double until;   /* CLOCK_MONOTONIC up to which calls fail */
    double ahead;   /* seconds that Python's clock is ahead */
    uint32_t error; /* errno of the calls that fail */
    uint32_t calls; /* which ones: a sum of the above */
    uint32_t share; /* how many of a thousand */
    uint32_t seed;
    uint64_t asked, failed; /* calls since the errors were set, and those that failed */
    uint64_t first, last;   /* the calls from which on and before which calls fail, counted from 0 */
    char folders[2][1024]; /* with a slash at the end */
};

static struct page *page;
static void *python; /* where the interpreter is loaded; none in a process that is no Python */

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }
#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))next(name)

static int true_time(clockid_t clock, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    return real(clock, now);
}

static double monotonic(void) {
    struct timespec now;
    true_time(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TUNEOPT_CHAOS_WORLD");
    REAL(int, "open", const char *, int, ...);
    int file = name ? real(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED) return;
    Dl_info info;
    void *symbol = dlsym(RTLD_DEFAULT, "Py_Initialize");
    if (symbol && dladdr(symbol, &info)) python = info.dli_fbase;
    page = at;
}

static int below(const char *path) {
    char here[1024];
    if (!path) return 0;
    if (path[0] != '/') { /* it begins in the working folder, and may lead out of it: such a call does not fail */
        if (!strncmp(path, "../", 3) || !getcwd(here, sizeof here - 1)) return 0;
        path = strcat(here, "/");
    }
    for (int at = 0; at < 2; at++) {
        size_t length = strlen(page->folders[at]);
        /* the folder itself too, which has no slash at the end */
        if (length && !strncmp(path, page->folders[at], length - (strlen(path) == length - 1))) return 1;
    }
    return 0;
}

static int harmed(int call, const char *path) {
    if (!page || !(page->calls & call) || monotonic() >= page->until || !below(path)) return 0;
    uint64_t number = __atomic_fetch_add(&page->asked, 1, __ATOMIC_RELAXED);
    if (number < page->first || number >= page->last) return 0;
    uint64_t mixed = (number + page->seed + 1) * 0x9e3779b97f4a7c15ULL; /* splitmix64 */
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
    if ((mixed ^ (mixed >> 31)) % 1000 >= page->share) return 0;
    __atomic_fetch_add(&page->failed, 1, __ATOMIC_RELAXED);
    errno = page->error;
    return 1;
}

static int harmed_open(int call, int file) {
    char link[64], path[2048];
    if (!page || !(page->calls & call) || monotonic() >= page->until) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return harmed(call, path);
}

static int opens(int flags) {
    if (flags & O_DIRECTORY) return LIST;
    return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) ? OPEN_WRITE : OPEN_READ;
}

#define MODE(flags) \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags); \
        REAL(int, #name, const char *, int, ...); \
        return harmed(opens(flags), path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPEN_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags); \
        REAL(int, #name, int, const char *, int, ...); \
        return harmed(opens(flags), path) ? -1 : real(folder, path, flags, mode); \
    }
OPEN_AT(openat)
OPEN_AT(openat64)

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    return harmed(LIST, path) ? NULL : real(path);
}

ssize_t read(int file, void *data, size_t size) {
    REAL(ssize_t, "read", int, void *, size_t);
    return harmed_open(READ, file) ? -1 : real(file, data, size);
}

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return harmed_open(WRITE, file) ? -1 : real(file, data, size);
}

int fsync(int file) {
    REAL(int, "fsync", int);
    return harmed_open(SYNC, file) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return harmed(NAMES, to) ? -1 : real(from, to);
}

int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    return harmed(NAMES, to) ? -1 : real(from, to);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    return harmed(NAMES, path) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return harmed(NAMES, path) ? -1 : real(path, mode);
}

#define LOOK(name, kind) \
    int name(const char *path, struct kind *facts) { \
        REAL(int, #name, const char *, struct kind *); \
        return harmed(STAT, path) ? -1 : real(path, facts); \
    }
LOOK(stat, stat)
LOOK(stat64, stat64)
LOOK(lstat, stat)
LOOK(lstat64, stat64)

/* The clock is wrong for Python alone: Ray's core waits on condition variables until moments of this clock, which the
kernel would judge by the true one. */
static double ahead(void *caller) {
    Dl_info info;
    int asks = page && page->ahead != 0 && python && dladdr(caller, &info) && info.dli_fbase == python;
    return asks ? page->ahead : 0;
}

static void add(struct timespec *now, double seconds) {
    double whole = (double)(int64_t)seconds;
    now->tv_sec += (time_t)whole;
    now->tv_nsec += (long)((seconds - whole) * 1e9);
    if (now->tv_nsec < 0) now->tv_sec--, now->tv_nsec += 1000000000;
    if (now->tv_nsec >= 1000000000) now->tv_sec++, now->tv_nsec -= 1000000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = true_time(clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add(now, ahead(__builtin_return_address(0)));
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    true_time(CLOCK_REALTIME, &now);
    add(&now, ahead(__builtin_return_address(0)));
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    REAL(int, "sem_timedwait", sem_t *, const struct timespec *);
    struct timespec true_until = *until;
    add(&true_until, -ahead(__builtin_return_address(0)));
    return real(semaphore, &true_until);
}
