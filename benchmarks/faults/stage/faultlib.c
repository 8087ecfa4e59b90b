/* A library for LD_PRELOAD that makes a server's files and clock fail as they may fail on a real machine.
 *
 *   FAULTS_DIR      the data directory with the files to watch; a path without symbolic links
 *   FAULTS_JOURNAL  a file that records every change of those files, for simulating a loss of power: families/disk.py
 *                   reads it. A change is recorded after it was made, a sync after it returned.
 *   FAULTS_SPACE    octets that may be written to those files in all; then the disk is full (ENOSPC)
 *   FAULTS_SYNCS    syncs that succeed; then the disk fails (EIO)
 *   FAULTS_SYNC_US  how long a sync takes if there is a journal, in microseconds
 *   FAULTS_LIE      syncs do nothing, and report success
 *   FAULTS_HANG     a path: while there is such a file, syncs do not return
 *   FAULTS_CLOCK    a file with one native int64: nanoseconds to add to CLOCK_REALTIME; changes take effect at once
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FILES 4096
#define NAME 24

enum { WRITE = 1, TRUNCATE = 2, SYNC = 3, CREATE = 4, UNLINK = 5, SYNC_NAMES = 6 };

struct record {
    uint32_t operation;
    uint32_t length;
    uint64_t offset;
    char name[NAME];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[FILES][NAME]; /* by descriptor; "" for files that are not watched, "." for the directory itself */
static const char *directory;
static int journal = -1;
static int64_t space = INT64_MAX;
static int64_t syncs = INT64_MAX;
static int64_t sync_us;
static int lie;
static const char *hang;
static const volatile int64_t *shift;

__attribute__((constructor)) static void begin(void) {
    const char *value;
    directory = getenv("FAULTS_DIR");
    if ((value = getenv("FAULTS_JOURNAL")))
        journal = (int)syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if ((value = getenv("FAULTS_SPACE"))) space = atoll(value);
    if ((value = getenv("FAULTS_SYNCS"))) syncs = atoll(value);
    if ((value = getenv("FAULTS_SYNC_US"))) sync_us = atoll(value);
    lie = getenv("FAULTS_LIE") != NULL;
    hang = getenv("FAULTS_HANG");
    if ((value = getenv("FAULTS_CLOCK"))) {
        int file = (int)syscall(SYS_openat, AT_FDCWD, value, O_RDONLY | O_CLOEXEC, 0);
        void *map = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
        if (map != MAP_FAILED) shift = map;
    }
}

static const char *watched(int file) { return file >= 0 && file < FILES && names[file][0] ? names[file] : NULL; }

static const char *within(const char *path) {
    size_t length;
    if (!directory || !path) return NULL;
    length = strlen(directory);
    if (strncmp(path, directory, length)) return NULL;
    if (!path[length]) return ".";
    if (path[length] != '/' || strlen(path + length + 1) >= NAME || strchr(path + length + 1, '/')) return NULL;
    return path + length + 1;
}

static void note(uint32_t operation, const char *name, uint64_t offset, const void *data, uint32_t length) {
    struct record record = {operation, length, offset, ""};
    char *whole;
    if (journal < 0 || strstr(name, "-shm") || !strcmp(name, "lock")) return;
    strncpy(record.name, name, NAME - 1);
    whole = malloc(sizeof record + length);
    memcpy(whole, &record, sizeof record);
    if (length) memcpy(whole + sizeof record, data, length);
    if (syscall(SYS_write, journal, whole, sizeof record + length) != (long)(sizeof record + length)) abort();
    free(whole);
}

static int opened(int file, const char *name, int existed) {
    if (file < 0 || file >= FILES) return file;
    pthread_mutex_lock(&lock);
    strcpy(names[file], name ? name : "");
    if (name && !existed && strcmp(name, ".")) note(CREATE, name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return file;
}

int open64(const char *path, int flags, ...) {
    const char *name = within(path);
    int mode = 0, existed = 1;
    va_list rest;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_start(rest, flags);
        mode = va_arg(rest, int);
        va_end(rest);
    }
    if (name && flags & O_CREAT) existed = syscall(SYS_faccessat, AT_FDCWD, path, F_OK, 0) == 0;
    return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode), name, existed);
}

int open(const char *path, int flags, ...) {
    int mode;
    va_list rest;
    va_start(rest, flags);
    mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int close(int file) {
    if (file >= 0 && file < FILES) names[file][0] = 0;
    return (int)syscall(SYS_close, file);
}

static ssize_t changed(const char *name, ssize_t written, off64_t offset, const void *data) {
    if (written > 0) {
        pthread_mutex_lock(&lock);
        note(WRITE, name, (uint64_t)offset, data, (uint32_t)written);
        pthread_mutex_unlock(&lock);
    }
    return written;
}

static int full(size_t length) {
    if (__atomic_sub_fetch(&space, (int64_t)length, __ATOMIC_SEQ_CST) >= 0) return 0;
    errno = ENOSPC;
    return 1;
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    const char *name = watched(file);
    if (name && full(length)) return -1;
    ssize_t written = syscall(SYS_pwrite64, file, data, length, offset);
    return name ? changed(name, written, offset, data) : written;
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) { return pwrite64(file, data, length, offset); }

ssize_t write(int file, const void *data, size_t length) {
    const char *name = watched(file);
    off64_t offset;
    if (!name) return syscall(SYS_write, file, data, length);
    if (full(length)) return -1;
    offset = lseek64(file, 0, SEEK_CUR);
    return changed(name, syscall(SYS_write, file, data, length), offset, data);
}

int ftruncate64(int file, off64_t size) {
    const char *name = watched(file);
    int result = (int)syscall(SYS_ftruncate, file, size);
    if (name && result == 0) {
        pthread_mutex_lock(&lock);
        note(TRUNCATE, name, (uint64_t)size, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

static int synced(int file, int number) {
    const char *name = watched(file);
    int result;
    if (!name) return (int)syscall(number, file);
    if (__atomic_sub_fetch(&syncs, 1, __ATOMIC_SEQ_CST) < 0) {
        errno = EIO;
        return -1;
    }
    while (hang && syscall(SYS_faccessat, AT_FDCWD, hang, F_OK, 0) == 0) usleep(1000);
    if (lie) return 0;
    /* A simulated loss of power does not need the disk: the journal says what is durable. */
    if (journal >= 0 && sync_us) usleep((useconds_t)sync_us);
    result = journal < 0 ? (int)syscall(number, file) : 0;
    if (result == 0) {
        pthread_mutex_lock(&lock);
        note(strcmp(name, ".") ? SYNC : SYNC_NAMES, name, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int fsync(int file) { return synced(file, SYS_fsync); }

int fdatasync(int file) { return synced(file, SYS_fdatasync); }

int unlink(const char *path) {
    const char *name = within(path);
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (name && result == 0) {
        pthread_mutex_lock(&lock);
        note(UNLINK, name, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && shift && clock == CLOCK_REALTIME) {
        int64_t now = time->tv_sec * 1000000000LL + time->tv_nsec + *shift;
        time->tv_sec = now / 1000000000LL;
        time->tv_nsec = now % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict when, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    when->tv_sec = now.tv_sec;
    when->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
