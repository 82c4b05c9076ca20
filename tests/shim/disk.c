/* A disk, a clock and a memory that tests can spoil, for one process: loaded into `fnbus up` by LD_PRELOAD, never into its children.
 * tests/src/disk.rs builds it with `cc` when a test wants it, and tells it what to do through a file both have mapped.
 *
 * FNBUS_DISK_CONTROL  the file: struct control, below
 * FNBUS_DISK_FOLDER   the folder whose files are spoiled
 * FNBUS_DISK_SHADOW   a folder for copies of the event log's files as they would be after a power cut: they get what was
 *                     written only when it was synced
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t write_error; /* errno of every write, 0: none */
    volatile int64_t sync_error;  /* errno of every fsync, 0: none */
    volatile int64_t clock;       /* seconds the wall clock is ahead */
    volatile int64_t failed;      /* how many calls were failed: counted here */
    volatile int64_t children;    /* there is no memory for more children of one thread than this, 0: there is */
};

static struct control none, *control = &none;
static char folder[4096], shadow[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FNBUS_DISK_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return;
    close(file);
    snprintf(folder, sizeof folder, "%s/", getenv("FNBUS_DISK_FOLDER") ? getenv("FNBUS_DISK_FOLDER") : "");
    snprintf(shadow, sizeof shadow, "%s", getenv("FNBUS_DISK_SHADOW") ? getenv("FNBUS_DISK_SHADOW") : "");
    unsetenv("LD_PRELOAD");
    control = map;
}

/* The part of a file's path below the folder; none when it is elsewhere. */
static const char *below(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    size_t prefix = strlen(folder);
    return prefix > 1 && strncmp(path, folder, prefix) == 0 ? path + prefix : NULL;
}

static int fails(int file, int64_t error) {
    char path[4096];
    if (!error || !below(file, path, sizeof path)) return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_RELAXED);
    errno = (int)error;
    return 1;
}

/* -- what was written and not synced ------------------------------------------------------------------------------- */

#define RANGES 4096
static struct unsynced {
    const char *name;
    int count; /* over RANGES: all of the file */
    struct { off_t at; size_t length; } range[RANGES];
} unsynced[] = {{.name = "log.db"}, {.name = "log.db-wal"}};

static struct unsynced *tracked(int file) {
    char path[4096];
    if (!*shadow) return NULL;
    const char *name = below(file, path, sizeof path);
    for (size_t i = 0; name && i < 2; i++)
        if (!strcmp(unsynced[i].name, name)) return &unsynced[i];
    return NULL;
}

static void wrote(int file, off_t at, ssize_t length) {
    struct unsynced *of = length > 0 ? tracked(file) : NULL;
    if (!of) return;
    pthread_mutex_lock(&lock);
    if (of->count < RANGES) {
        of->range[of->count].at = at;
        of->range[of->count].length = (size_t)length;
    }
    of->count++;
    pthread_mutex_unlock(&lock);
}

static void copy(int from, int to, off_t at, size_t length) {
    static char buffer[1 << 16];
    REAL(pwrite64);
    while (length) {
        ssize_t some = pread(from, buffer, length < sizeof buffer ? length : sizeof buffer, at);
        if (some <= 0) return;
        if (real(to, buffer, (size_t)some, at) != some) abort();
        at += some;
        length -= (size_t)some;
    }
}

static void synced(int file) {
    struct unsynced *of = tracked(file);
    struct stat stat;
    char path[8192];
    if (!of || fstat(file, &stat)) return;
    pthread_mutex_lock(&lock);
    snprintf(path, sizeof path, "%s/%s", shadow, of->name);
    int whole = access(path, F_OK) != 0 || of->count > RANGES;
    int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (whole) copy(file, to, 0, (size_t)stat.st_size);
    else for (int i = 0; i < of->count; i++) copy(file, to, of->range[i].at, of->range[i].length);
    if (ftruncate(to, stat.st_size)) abort();
    of->count = 0;
    close(to);
    pthread_mutex_unlock(&lock);
}

/* -- the calls ------------------------------------------------------------------------------------------------------- */

ssize_t write(int file, const void *bytes, size_t length) {
    REAL(write);
    if (fails(file, control->write_error)) return -1;
    off_t at = *shadow ? lseek(file, 0, SEEK_CUR) : 0;
    ssize_t result = real(file, bytes, length);
    if (*shadow) wrote(file, at, result);
    return result;
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    REAL(pwrite64);
    if (fails(file, control->write_error)) return -1;
    ssize_t result = real(file, bytes, length, at);
    wrote(file, at, result);
    return result;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) { return pwrite64(file, bytes, length, at); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    return fails(file, control->write_error) ? -1 : real(file, parts, count);
}

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t length, unsigned flags) {
    REAL(copy_file_range);
    return fails(to, control->write_error) ? -1 : real(from, at, to, to_at, length, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (control->write_error && *folder && !strncmp(path, folder, strlen(folder))) {
        __atomic_add_fetch(&control->failed, 1, __ATOMIC_RELAXED);
        errno = (int)control->write_error;
        return -1;
    }
    return real(path, mode);
}

static int sync_file(int file, int (*real)(int)) {
    if (fails(file, control->sync_error)) return -1;
    int result = real(file);
    if (!result) synced(file);
    return result;
}

int fsync(int file) {
    REAL(fsync);
    return sync_file(file, real);
}

int fdatasync(int file) {
    REAL(fdatasync);
    return sync_file(file, real);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    REAL(clock_gettime);
    int result = real(clock, time);
    if (!result && clock == CLOCK_REALTIME) time->tv_sec += control->clock;
    return result;
}

pid_t fork(void) {
    REAL(fork);
    if (!control->children) return real();
    char ids[4096];
    int list = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    ssize_t length = list < 0 ? -1 : read(list, ids, sizeof ids);
    if (list >= 0) close(list);
    int64_t children = 0;
    for (ssize_t i = 0; i < length; i++) children += ids[i] == ' ';
    if (children < control->children) return real();
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_RELAXED);
    errno = ENOMEM;
    return -1;
}
