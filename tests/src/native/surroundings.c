/* Preloaded into a pipe's process, it makes the wall clock and the disk of one folder what a test says.
 *
 * PIPEWRIGHT_SURROUNDINGS names a file of two 64-bit integers, which the test writes while the process runs: seconds to be
 * added to the wall clock, and the error number of every write below PIPEWRIGHT_DISK, 0 for none. Monotonic clocks, which
 * timers go by, stay as they are: a clock that is set jumps in the same way. What is written past the C library is not
 * seen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct surroundings {
    int64_t clock_seconds;
    int64_t write_error;
};

static const struct surroundings calm;
static const volatile struct surroundings *surroundings = &calm;
static const char *disk = "";

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("PIPEWRIGHT_SURROUNDINGS");
    const char *folder = getenv("PIPEWRIGHT_DISK");
    int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || folder == NULL) return;
    void *shared = mmap(NULL, sizeof calm, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    surroundings = shared;
    disk = folder;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += surroundings->clock_seconds;
    return result;
}

/* Whether this write is refused, with errno set. */
static int refused(int file) {
    int64_t error = surroundings->write_error;
    if (error == 0) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, disk, strlen(disk)) != 0) return 0;
    errno = error;
    return 1;
}

ssize_t write(int file, const void *bytes, size_t size) {
    return refused(file) ? -1 : syscall(SYS_write, file, bytes, size);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    return refused(file) ? -1 : syscall(SYS_pwrite64, file, bytes, size, at);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
    return pwrite64(file, bytes, size, at);
}

int ftruncate64(int file, off64_t size) {
    return refused(file) ? -1 : syscall(SYS_ftruncate, file, size);
}

int ftruncate(int file, off_t size) {
    return ftruncate64(file, size);
}
