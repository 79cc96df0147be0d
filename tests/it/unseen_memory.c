/*
 * Ways to memory that a watch of processes and tmpfs does not see, tried one by one; for tests/it/sandbox.rs.
 *
 * Maps memory, touches it and unmaps all but the first page, again and again: of shared anonymous memory each page left
 * keeps the whole of its mapping, and nothing of that is mapped any more where somebody could count it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const size_t SIZE = 32 << 20;
static const int READ_WRITE = PROT_READ | PROT_WRITE;

/* strerrorname_np is not in every libc; these are the errors that can come. */
static const char *name(int error) {
    switch (error) {
    case EPERM: return "EPERM";
    case ENOSYS: return "ENOSYS";
    case ENOENT: return "ENOENT";
    case EACCES: return "EACCES";
    default: return strerror(error);
    }
}

static const char *said(int failed) { return failed ? name(errno) : "ok"; }

static const char *map(int flags, int fd, int protection) {
    for (int round = 0; round < 4; round++) {
        volatile char *memory = mmap(NULL, SIZE, protection, flags, fd, 0);
        if (memory == MAP_FAILED) return name(errno);
        for (size_t at = 0; at < SIZE; at += 4096) {
            if (protection & PROT_WRITE) memory[at] = 1;
            else (void)memory[at];
        }
        munmap((char *)memory + 4096, SIZE - 4096);
    }
    return "ok";
}

int main(void) {
    int ends[2], bytes = 1 << 19;
    printf("private %s\n", map(MAP_PRIVATE | MAP_ANONYMOUS, -1, READ_WRITE));
    printf("shared %s\n", map(MAP_SHARED | MAP_ANONYMOUS, -1, READ_WRITE));
    printf("read-only %s\n", map(MAP_SHARED | MAP_ANONYMOUS, -1, PROT_READ));
    int zero = open("/dev/zero", O_RDWR);
    printf("zero %s\n", zero < 0 ? name(errno) : map(MAP_SHARED, zero, READ_WRITE));
    if (pipe(ends)) return 1;
    printf("pipe %s\n", said(fcntl(ends[0], F_SETPIPE_SZ, bytes) < 0));
    printf("socket %s\n", said(socketpair(AF_UNIX, SOCK_STREAM, 0, ends)));
    printf("buffer %s\n", said(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes)));
    return 0;
}
