/* Runs a program on a kernel that lacks something.
 *
 *   saboteur [--armed FOLDER] [--log FILE] RULE... -- PROGRAM [ARGUMENT...]
 *
 * RULE is
 *   CALL=ERROR          the system call fails with that error
 *   CALL:N&MASK=ERROR   only when argument N (from 0) has one of these bits
 *   CALL:N==VALUE=ERROR only when argument N is that
 *   CALL@K=ERROR        only the K-th such call of all processes together (after the conditions)
 *   CALL/TEXT=ERROR     only when the path that it is about has this text in it
 *   landlock=ABI        Landlock is that of a kernel with this ABI (landlock(7)): versions, rights and flags that came later
 *                       are refused as such a kernel refuses them
 *
 * With --armed, a rule holds only while FOLDER has a file of the call's name. With --log, the path of every program that is executed is appended to FILE.
 *
 * The program itself is untouched: a seccomp filter hands these calls to a process of ours (seccomp_unotify(2), Linux 5.5)
 * that decides. It is an orphan that ends with the last process under the filter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH_ is this?"
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

enum { MOST_RULES = 64, LANDLOCK_CREATE = 444, LANDLOCK_ADD = 445, LANDLOCK_RESTRICT = 446 };

struct rule { int call, argument, equal, error; uint64_t value; long nth, seen; char text[64]; };

static const struct { const char *name; int number; } CALLS[] = {
    {"landlock_create_ruleset", LANDLOCK_CREATE}, {"landlock_add_rule", LANDLOCK_ADD},
    {"landlock_restrict_self", LANDLOCK_RESTRICT}, {"clone", SYS_clone}, {"clone3", 435}, {"unshare", SYS_unshare},
    {"seccomp", SYS_seccomp}, {"prctl", SYS_prctl}, {"capset", SYS_capset}, {"prlimit64", SYS_prlimit64},
    {"setrlimit", SYS_setrlimit}, {"sched_setaffinity", SYS_sched_setaffinity}, {"setsid", SYS_setsid},
    {"close_range", 436}, {"mount", SYS_mount}, {"umount2", SYS_umount2}, {"pivot_root", SYS_pivot_root},
    {"fsopen", 430}, {"fsconfig", 431}, {"fsmount", 432}, {"open_tree", 428}, {"move_mount", 429},
    {"mount_setattr", 442}, {"sethostname", SYS_sethostname}, {"sendmsg", SYS_sendmsg}, {"memfd_create", SYS_memfd_create},
    {"setresuid", SYS_setresuid}, {"setgroups", SYS_setgroups}, {"mkdirat", SYS_mkdirat}, {"symlinkat", SYS_symlinkat},
    {"pipe2", SYS_pipe2}, {"socketpair", SYS_socketpair}, {"setns", SYS_setns}, {"keyctl", SYS_keyctl},
    {"pidfd_open", 434}, {"execve", SYS_execve}, {"openat", SYS_openat}, {"flock", SYS_flock},
#ifdef SYS_mkdir
    {"mkdir", SYS_mkdir}, {"rmdir", SYS_rmdir},
#else
    {"mkdir", SYS_mkdirat}, {"rmdir", SYS_unlinkat},
#endif
};
/* Those whose path is their first argument; with all others it is the second. */
static int path_argument(int call)
{
#ifdef SYS_mkdir
    return call == SYS_mkdir || call == SYS_rmdir ? 0 : 1;
#else
    return 1;
#endif
}
static const struct { const char *name; int number; } ERRORS[] = {
    {"EPERM", EPERM}, {"ENOSYS", ENOSYS}, {"EINVAL", EINVAL}, {"EACCES", EACCES}, {"EOPNOTSUPP", EOPNOTSUPP},
    {"ENOSPC", ENOSPC}, {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"ENOMEM", ENOMEM}, {"EAGAIN", EAGAIN},
    {"ENODEV", ENODEV}, {"EBUSY", EBUSY}, {"EUSERS", EUSERS}, {"ENOENT", ENOENT}, {"EROFS", EROFS},
};

static struct rule rules[MOST_RULES];
static int rule_count;
static int landlock_abi;
static const char *armed, *log_path;

static void die(const char *what)
{
    fprintf(stderr, "saboteur: %s: %s\n", what, strerror(errno));
    exit(99);
}

static int number(const char *name, size_t length, int error)
{
    if (error) {
        for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
            if (strlen(ERRORS[i].name) == length && !strncmp(ERRORS[i].name, name, length)) return ERRORS[i].number;
    } else {
        for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
            if (strlen(CALLS[i].name) == length && !strncmp(CALLS[i].name, name, length)) return CALLS[i].number;
    }
    fprintf(stderr, "saboteur: unknown name %.*s\n", (int)length, name);
    exit(99);
}

static void parse(const char *text)
{
    if (!strncmp(text, "landlock=", 9)) {
        landlock_abi = atoi(text + 9);
        return;
    }
    const char *last = strrchr(text, '=');
    if (!last || rule_count == MOST_RULES) die(text);
    struct rule *rule = &rules[rule_count++];
    *rule = (struct rule){.call = number(text, strcspn(text, ":@/="), 0), .argument = -1,
                          .error = number(last + 1, strlen(last + 1), 1)};
    const char *colon = strchr(text, ':'), *at = strchr(text, '@'), *slash = strchr(text, '/');
    if (slash) snprintf(rule->text, sizeof rule->text, "%.*s", (int)(last - slash - 1), slash + 1);
    if (colon) {
        char *end;
        rule->argument = (int)strtol(colon + 1, &end, 0);
        rule->equal = *end == '=';
        rule->value = strtoull(end + (rule->equal ? 2 : 1), NULL, 0);
    }
    if (at) rule->nth = atol(at + 1);
}

static int read_memory(pid_t pid, uint64_t address, void *into, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    int memory = open(path, O_RDONLY | O_CLOEXEC);
    if (memory < 0) return 0;
    ssize_t got = pread(memory, into, size, (off_t)address);
    close(memory);
    return got > 0;
}

/* What a kernel with this ABI says to a call of Landlock: 0 to go on, 1 for the version, or an error number. */
static int landlock(const struct seccomp_notif *call)
{
    uint64_t right[3] = {0}; /* handled_access_fs, handled_access_net, scoped */
    const __u64 *argument = call->data.args;
    switch (call->data.nr) {
    case LANDLOCK_CREATE:
        if (argument[2] == 1) return 1;
        if (argument[2]) return EINVAL;
        if (!read_memory((pid_t)call->pid, argument[0], right, argument[1] < sizeof right ? argument[1] : sizeof right))
            return 0;
        uint64_t fs = (1 << 13) - 1;
        if (landlock_abi >= 2) fs |= 1 << 13;
        if (landlock_abi >= 3) fs |= 1 << 14;
        if (landlock_abi >= 5) fs |= 1 << 15;
        if (landlock_abi < 4 && right[1]) return E2BIG;
        if (landlock_abi < 6 && right[2]) return E2BIG;
        return right[0] & ~fs ? EINVAL : 0;
    case LANDLOCK_ADD:
        return landlock_abi < 4 && argument[1] == 2 ? EINVAL : 0;
    default:
        return landlock_abi < 7 && argument[1] ? EINVAL : 0;
    }
}

static void note_execution(const struct seccomp_notif *call)
{
    char path[4096] = "?";
    read_memory((pid_t)call->pid, call->data.args[0], path, sizeof path - 1);
    int file = open(log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (file >= 0) {
        dprintf(file, "%s\n", path);
        close(file);
    }
}

static int is_armed(int call)
{
    char path[4096];
    for (size_t i = 0; armed && i < sizeof CALLS / sizeof *CALLS; i++) {
        if (CALLS[i].number != call) continue;
        snprintf(path, sizeof path, "%s/%s", armed, CALLS[i].name);
        return !access(path, F_OK);
    }
    return 1;
}

static void decide(const struct seccomp_notif *call, struct seccomp_notif_resp *answer)
{
    answer->id = call->id;
    answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    if (log_path && call->data.nr == SYS_execve) note_execution(call);
    if (landlock_abi && call->data.nr >= LANDLOCK_CREATE && call->data.nr <= LANDLOCK_RESTRICT) {
        int said = landlock(call);
        if (said) {
            answer->flags = 0;
            answer->val = said == 1 ? landlock_abi : 0;
            answer->error = said == 1 ? 0 : -said;
        }
        return;
    }
    for (struct rule *rule = rules; rule < rules + rule_count; rule++) {
        if (rule->call != call->data.nr || !is_armed(rule->call)) continue;
        if (rule->argument >= 0) {
            uint64_t value = call->data.args[rule->argument];
            if (rule->equal ? value != rule->value : !(value & rule->value)) continue;
        }
        if (rule->text[0]) {
            char path[4096] = "";
            read_memory((pid_t)call->pid, call->data.args[path_argument(rule->call)], path, sizeof path - 1);
            if (!strstr(path, rule->text)) continue;
        }
        if (rule->nth && ++rule->seen != rule->nth) continue;
        answer->flags = 0;
        answer->error = -rule->error;
        return;
    }
}

static void serve(int listener)
{
    struct seccomp_notif_sizes sizes;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes)) _exit(99);
    struct seccomp_notif *call = malloc(sizes.seccomp_notif + sizeof *call);
    struct seccomp_notif_resp *answer = malloc(sizes.seccomp_notif_resp + sizeof *answer);
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        if (poll(&ready, 1, -1) < 0 && errno != EINTR) break;
        if (!(ready.revents & POLLIN)) {
            if (ready.revents) break; /* POLLHUP: nobody is left under the filter. */
            continue;
        }
        memset(call, 0, sizes.seccomp_notif);
        memset(answer, 0, sizes.seccomp_notif_resp);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call)) continue; /* The caller has died since. */
        decide(call, answer);
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer);
    }
    _exit(0);
}

/* An orphan that waits for the listener on this socket, and holds nothing else. */
static void start_server(int socket)
{
    pid_t child = fork();
    if (child < 0) die("fork");
    if (child) {
        waitpid(child, NULL, 0);
        return;
    }
    if (fork()) _exit(0);
    setsid();
    prctl(PR_SET_NAME, "saboteur-server");
    dup2(socket, 0);
    syscall(SYS_close_range, 1, ~0U, 0);
    char byte, space[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    if (recvmsg(0, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message)) _exit(99);
    int listener;
    memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    close(0);
    serve(listener);
}

static int install(void)
{
    static struct sock_filter filter[MOST_RULES + 16];
    int length = 0, calls[MOST_RULES + 4], count = 0;
    for (int i = 0; i < rule_count; i++) calls[count++] = rules[i].call;
    for (int call = LANDLOCK_CREATE; landlock_abi && call <= LANDLOCK_RESTRICT; call++) calls[count++] = call;
    if (log_path) calls[count++] = SYS_execve;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 0, count + 1);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < count; i++)
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], count - i, 0);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {(unsigned short)length, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("no_new_privs");
    /* Without the second flag (Linux 5.19) a signal repeats the call, and with it the count. */
    unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    if (listener < 0)
        listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) die("seccomp");
    return listener;
}

int main(int count, char **argument)
{
    int at = 1;
    for (; at < count && strcmp(argument[at], "--"); at++) {
        if (!strcmp(argument[at], "--armed") && at + 1 < count) armed = argument[++at];
        else if (!strcmp(argument[at], "--log") && at + 1 < count) log_path = argument[++at];
        else parse(argument[at]);
    }
    if (at + 1 >= count) {
        fprintf(stderr, "usage: saboteur [--armed FOLDER] [--log FILE] RULE... -- PROGRAM [ARGUMENT...]\n");
        return 99;
    }
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) die("socketpair");
    start_server(ends[1]);
    close(ends[1]);
    /* sendmsg itself may be in the filter, which nobody serves before it has arrived: write the rights with sendmmsg. */
    int listener = install();
    char byte = '!', space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct mmsghdr message = {.msg_hdr = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space}};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message.msg_hdr);
    *rights = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(rights), &listener, sizeof listener);
    if (sendmmsg(ends[0], &message, 1, 0) != 1) die("sending the listener");
    close(ends[0]);
    close(listener);
    execvp(argument[at + 1], argument + at + 1);
    die(argument[at + 1]);
}
