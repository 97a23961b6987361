/* Preloaded into a process, lets a system call fail: the n-th of a kind on files below a folder.
 *
 * FAIL_CALL  write, fsync, rename, close, open or unlink
 * FAIL_AT    n, from 1
 * FAIL_LAST  1: all later ones fail too
 * FAIL_BELOW the folder
 * FAIL_ERRNO what the system says, as a number
 * FAIL_FLOCK 1: there are no locks here
 *
 * They are looked at when they are needed, so that a forked process may set them for itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int calls;

static int fails(const char *call, int folder, const char *path) {
  const char *wanted = getenv("FAIL_CALL"), *below = getenv("FAIL_BELOW");
  char whole[2 * PATH_MAX + 2] = "", link[64];
  if (!wanted || !below || strcmp(wanted, call)) return 0;
  if (!path || (path[0] != '/' && folder >= 0)) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, whole, PATH_MAX);
    if (size < 0) return 0;
    whole[size] = 0;
  }
  if (path) {
    if (whole[0]) strcat(whole, "/");
    strncat(whole, path, PATH_MAX);
  }
  if (strncmp(whole, below, strlen(below))) return 0;
  int at = atoi(getenv("FAIL_AT")), number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
  if (number != at && !(number > at && getenv("FAIL_LAST"))) return 0;
  if (number == at) dprintf(2, "\nFAILING: %s number %d, of %s\n", call, number, whole);
  errno = atoi(getenv("FAIL_ERRNO"));
  return 1;
}

#define OPENS(name)                                              \
  int name(const char *path, int flags, ...) {                   \
    va_list rest;                                                \
    va_start(rest, flags);                                       \
    mode_t mode = va_arg(rest, mode_t);                          \
    va_end(rest);                                                \
    return fails("open", -1, path) ? -1 : REAL(name)(path, flags, mode); \
  }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                           \
  int name(int folder, const char *path, int flags, ...) {       \
    va_list rest;                                                \
    va_start(rest, flags);                                       \
    mode_t mode = va_arg(rest, mode_t);                          \
    va_end(rest);                                                \
    return fails("open", folder, path) ? -1 : REAL(name)(folder, path, flags, mode); \
  }
OPENS_AT(openat)
OPENS_AT(openat64)

ssize_t write(int file, const void *from, size_t size) {
  return fails("write", file, NULL) ? -1 : REAL(write)(file, from, size);
}
ssize_t pwrite(int file, const void *from, size_t size, off_t at) {
  return fails("write", file, NULL) ? -1 : REAL(pwrite)(file, from, size, at);
}
ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
  return fails("write", file, NULL) ? -1 : REAL(pwrite64)(file, from, size, at);
}
ssize_t writev(int file, const struct iovec *from, int count) {
  return fails("write", file, NULL) ? -1 : REAL(writev)(file, from, count);
}
int fsync(int file) { return fails("fsync", file, NULL) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return fails("fsync", file, NULL) ? -1 : REAL(fdatasync)(file); }
int close(int file) {
  int failing = fails("close", file, NULL), error = errno, code = REAL(close)(file);
  if (failing) errno = error;
  return failing ? -1 : code;
}
int rename(const char *from, const char *to) {
  return fails("rename", -1, from) ? -1 : REAL(rename)(from, to);
}
int renameat(int folder, const char *from, int other, const char *to) {
  return fails("rename", folder, from) ? -1 : REAL(renameat)(folder, from, other, to);
}
int unlink(const char *path) { return fails("unlink", -1, path) ? -1 : REAL(unlink)(path); }
int rmdir(const char *path) { return fails("unlink", -1, path) ? -1 : REAL(rmdir)(path); }
int unlinkat(int folder, const char *path, int flags) {
  return fails("unlink", folder, path) ? -1 : REAL(unlinkat)(folder, path, flags);
}
int flock(int file, int operation) {
  if (getenv("FAIL_FLOCK")) {
    errno = ENOLCK;
    return -1;
  }
  return REAL(flock)(file, operation);
}
