/* A full disk, for a test: loaded before the C library, it lets a process write NO_SPACE_BYTES below the folder
   NO_SPACE_UNDER, then every further byte there fails with "no space left on device". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long long written;

static int is_full(int fd, size_t bytes) {
  const char *under = getenv("NO_SPACE_UNDER"), *limit = getenv("NO_SPACE_BYTES");
  if (!under || !limit) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = '\0';
  if (strncmp(path, under, strlen(under)) != 0) return 0;
  if (__atomic_add_fetch(&written, (long long)bytes, __ATOMIC_RELAXED) <= atoll(limit)) return 0;
  errno = ENOSPC;
  return 1;
}

static void* next(const char* name) { return dlsym(RTLD_NEXT, name); }

__attribute__((visibility("default"))) ssize_t write(int fd, const void* data, size_t bytes) {
  if (is_full(fd, bytes)) return -1;
  return ((ssize_t(*)(int, const void*, size_t))next("write"))(fd, data, bytes);
}

__attribute__((visibility("default"))) ssize_t writev(int fd, const struct iovec* parts, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += parts[i].iov_len;
  if (is_full(fd, bytes)) return -1;
  return ((ssize_t(*)(int, const struct iovec*, int))next("writev"))(fd, parts, count);
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  if (is_full(fd, bytes)) return -1;
  return ((ssize_t(*)(int, const void*, size_t, off_t))next("pwrite"))(fd, data, bytes, at);
}

__attribute__((visibility("default"))) int ftruncate(int fd, off_t bytes) {
  if (is_full(fd, (size_t)bytes)) return -1;
  return ((int (*)(int, off_t))next("ftruncate"))(fd, bytes);
}

__attribute__((visibility("default"))) int posix_fallocate(int fd, off_t at, off_t bytes) {
  if (is_full(fd, (size_t)bytes)) return ENOSPC;
  return ((int (*)(int, off_t, off_t))next("posix_fallocate"))(fd, at, bytes);
}
