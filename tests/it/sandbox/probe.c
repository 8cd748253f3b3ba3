/* What the sandbox's tests run as a job: does one thing, named by its first argument, and says how it went by its
   status. Linked statically, so that a job's root needs to hold nothing else. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static int named(const char *word, char **argv) { return strcmp(argv[1], word) == 0; }

static int allowed(long result) { return result != -1; }

static int list(const char *path) {
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) printf("%s\n", names[i]->d_name);
    return count < 0;
}

static int show(const char *path) {
    char bytes[4096];
    ssize_t count;
    int file = open(path, O_RDONLY);
    if (file < 0) return 1;
    while ((count = read(file, bytes, sizeof bytes)) > 0)
        if (write(1, bytes, count) != count) return 1;
    return count < 0;
}

static int processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set)) printf("%d ", cpu);
    return 0;
}

static int fill(const char *path, long long size) {
    static char bytes[1 << 16];
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0) { perror(path); return 1; }
    memset(bytes, 'x', sizeof bytes);
    while (size > 0) {
        size_t want = size < (long long)sizeof bytes ? size : sizeof bytes;
        ssize_t done = write(file, bytes, want);
        if (done < 0) { perror(path); return 1; }
        size -= done;
    }
    return 0;
}

static int connects(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    return s < 0 || connect(s, (struct sockaddr *)&address, sizeof address) < 0 ? 0 : 1;
}

static int signals_as_new(void) {
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int i = 1; i < 64; i++) {
        struct sigaction action;
        if (sigismember(&blocked, i) == 1) { printf("%d blocked\n", i); return 1; }
        if (i == 32 || i == 33) continue;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_DFL) { printf("%d not default\n", i); return 1; }
    }
    return 0;
}

/* The filter's own answers, where the rights that a job has would give others. */
static int filtered_calls_fail(void) {
    errno = 0;
    if (allowed(socket(AF_INET, SOCK_DGRAM, 0)) || errno != EAFNOSUPPORT) return 2;
    if (allowed(socket(AF_NETLINK, SOCK_RAW, 0)) || errno != EAFNOSUPPORT) return 3;
    if (!allowed(socket(AF_UNIX, SOCK_STREAM, 0))) return 4;
    if (allowed(ptrace(PTRACE_TRACEME, 0, NULL, NULL)) || errno != EPERM) return 5;
    if (allowed(syscall(SYS_keyctl, 0, -3, 0)) || errno != EPERM) return 6;
    if (allowed(syscall(425, 8, NULL)) || errno != EPERM) return 7;
    if (allowed(syscall(435, NULL, 0)) || errno != ENOSYS) return 8;
    if (allowed(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)) || errno != EPERM) return 9;
    pid_t child = fork();
    if (child == 0) _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child) return 10;
    return 0;
}

/* Of Landlock there is nothing to be seen but its answers; without it this one is EPERM, or none. */
static int tied_to_the_root(void) {
    errno = 0;
    if (allowed(mknod("/tmp/removed", S_IFCHR | 0600, makedev(0, 0)))) return 2;
    if (errno != EACCES) return 3;
    if (mkdir("/tmp/a", 0777) || mkdir("/tmp/b", 0777)) return 4;
    int file = open("/tmp/a/x", O_RDWR | O_CREAT, 0666);
    if (file < 0 || ftruncate(file, 10) || close(file)) return 5;
    if (link("/tmp/a/x", "/tmp/b/y") || rename("/tmp/a/x", "/tmp/b/z") || symlink("z", "/tmp/b/l")) return 6;
    if (mkfifo("/tmp/b/f", 0666) || unlink("/tmp/b/l") || rmdir("/tmp/a")) return 7;
    return 0;
}

static int privileged_calls_fail(void) {
    if (geteuid() == 0 || getuid() == 0) return 2;
    if (allowed(mount("none", "/tmp", "tmpfs", 0, NULL))) return 3;
    if (allowed(unshare(CLONE_NEWUSER | CLONE_NEWNS))) return 4;
    if (allowed(mknod("/tmp/device", S_IFBLK | 0600, makedev(8, 0)))) return 5;
    if (allowed(ptrace(PTRACE_ATTACH, 1, NULL, NULL))) return 6;
    if (allowed(open("/proc/1/mem", O_RDWR))) return 7;
    if (allowed(open("/proc/1/root/base", O_RDONLY))) return 8;
    if (allowed(chroot("/tmp"))) return 9;
    if (allowed(sethostname("x", 1))) return 10;
    if (allowed(setuid(0))) return 11;
    if (allowed(umount2("/", MNT_DETACH))) return 12;
    return 0;
}

/* Leaves a child in another session, which holds no stream open and sleeps for long. */
static void leave_sleeper(char **argv) {
    if (fork() == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN);
        if (fork() == 0) {
            execl("/bin/probe", "probe", "sleep", argv[2], NULL);
            _exit(1);
        }
        pause();
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc < 2) return 99;
    if (named("processors", argv)) return processors();
    if (named("exit", argv)) return atoi(argv[2]);
    if (named("abort", argv)) abort();
    if (named("signal", argv)) { raise(atoi(argv[2])); return 1; }
    if (named("list", argv)) return list(argv[2]);
    if (named("show", argv)) return show(argv[2]);
    if (named("write", argv)) return fill(argv[2], atoll(argv[3]));
    if (named("remove", argv)) { if (unlink(argv[2])) { perror(argv[2]); return 1; } return 0; }
    if (named("rename", argv)) return rename(argv[2], argv[3]) != 0;
    if (named("sparse", argv)) { int f = open(argv[2], O_WRONLY | O_CREAT, 0666); return ftruncate(f, atoll(argv[3])) != 0; }
    if (named("sparse-many", argv)) {
        for (int i = 0; i < atoi(argv[2]); i++) {
            char name[32];
            sprintf(name, "hole%d", i);
            int f = open(name, O_WRONLY | O_CREAT, 0666);
            if (ftruncate(f, atoll(argv[3]))) return 1;
        }
        return 0;
    }
    if (named("connect", argv)) return connects(atoi(argv[2]));
    if (named("signals", argv)) return signals_as_new();
    if (named("privileges", argv)) return privileged_calls_fail();
    if (named("filter", argv)) return filtered_calls_fail();
    if (named("tied", argv)) return tied_to_the_root();
    if (named("who", argv)) {
        char host[200];
        gethostname(host, sizeof host);
        printf("%d %d %d %s\n", (int)getuid(), (int)getpid(), getsid(0) == getpid(), host);
        return 0;
    }
    if (named("umask", argv)) { mode_t mask = umask(0); printf("%03o\n", mask); return 0; }
    if (named("say", argv)) { dprintf(1, "%s", argv[2]); dprintf(2, "%s", argv[3]); return 0; }
    if (named("args", argv)) {
        extern char **environ;
        for (int i = 0; i < argc; i++) write(1, argv[i], strlen(argv[i]) + 1);
        for (char **e = environ; *e; e++) write(1, *e, strlen(*e) + 1);
        return 0;
    }
    if (named("every-byte", argv)) {
        unsigned char all[256];
        for (int i = 0; i < 256; i++) all[i] = i;
        for (int i = 0; i < atoi(argv[2]); i++) if (write(2, all, 256) != 256) return 1;
        return 0;
    }
    if (named("terminal", argv)) {
        struct winsize size = {0};
        int is = isatty(2);
        ioctl(2, TIOCGWINSZ, &size);
        printf("%d %d %d %d\n", isatty(1), is, size.ws_col, size.ws_row);
        return 0;
    }
    if (named("sleep", argv)) { sleep(1000); return 0; }
    if (named("sleep-with-children", argv)) { leave_sleeper(argv); sleep(1000); return 0; }
    if (named("leave-children", argv)) { leave_sleeper(argv); usleep(50000); return 0; }
    if (named("burn", argv)) for (volatile long i = 0;; i++) {}
    if (named("burn-in-child", argv)) {
        int status;
        if (fork() == 0) for (volatile long i = 0;; i++) {}
        wait(&status);
        fprintf(stderr, "cc: fatal error: %s signal terminated program child\n", strsignal(WTERMSIG(status)));
        return 1;
    }
    if (named("allocate", argv)) {
        if (malloc(atoll(argv[2])) == NULL) { fprintf(stderr, "cc1: out of memory allocating %s bytes\n", argv[2]); return 1; }
        return 0;
    }
    if (named("touch-memory", argv)) { size_t n = atoll(argv[2]); char *p = malloc(n); memset(p, 1, n); return p[n - 1] - 1; }
    if (named("fork", argv)) {
        for (int i = 0; i < atoi(argv[2]); i++) {
            pid_t child = fork();
            if (child < 0) { fprintf(stderr, "cc: fork: %s\n", strerror(errno)); return 1; }
            if (child == 0) { pause(); _exit(0); }
        }
        return 0;
    }
    if (named("limits", argv)) {
        struct rlimit limit;
        getrlimit(RLIMIT_CORE, &limit);
        printf("%d %d\n", (int)limit.rlim_max, getpriority(PRIO_PROCESS, 0));
        return 0;
    }
    return 98;
}
