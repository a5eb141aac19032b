/* Keeps one server process in step with the test process that wants it, and is also the ClickHouse launcher.
 *
 * Rust's standard library can neither act after its process was killed nor load a shared library without unsafe code,
 * which the workspace forbids; hence these lines of C, compiled once into the cache.
 *
 *   supervisor supervise RUN_FOLDER   commands on standard input, one letter each: s(tart) t(erminate) k(ill);
 *                                     answers on standard output: "started PID", "exited STATUS" (wait status).
 *                                     End of input means that the parent is gone: the server's process group is killed
 *                                     and RUN_FOLDER removed. A pipe is used because PR_SET_PDEATHSIG follows the
 *                                     parent's thread, not its process.
 *   supervisor chdb LIBRARY ARG...    loads libchdb and calls its chdb_query_cmdline with the arguments.
 *
 * RUN_FOLDER/command holds the server's command line, each argument ended by a zero byte, read at every start.
 * RUN_FOLDER/log receives its output. RUN_FOLDER/hold-stdin, when present, says that the server serves for as long as
 * its standard input is open, so to terminate it is to close that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 1024

static pid_t server = 0;
static int held_stdin = -1;
static sigset_t inherited_signals;

static void answer(const char *word, int value) {
    /* The parent may be gone; the poll on standard input will tell. */
    dprintf(STDOUT_FILENO, "%s %d\n", word, value);
}

static char **read_command(void) {
    static char *arguments[ARGUMENTS_MAX + 1];
    struct stat status;
    int file = open("command", O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0) return NULL;
    char *text = calloc(1, status.st_size + 1);
    if (text == NULL || read(file, text, status.st_size) != status.st_size) return NULL;
    close(file);
    int count = 0;
    for (char *at = text; at < text + status.st_size && count < ARGUMENTS_MAX; at += strlen(at) + 1)
        arguments[count++] = at;
    arguments[count] = NULL;
    return count > 0 ? arguments : NULL;
}

static void release_stdin(void) {
    if (held_stdin >= 0) close(held_stdin);
    held_stdin = -1;
}

static void start(void) {
    int input[2] = {-1, -1};
    char **arguments = read_command();
    if (server != 0 || arguments == NULL) return answer("exited", -1);
    if (access("hold-stdin", F_OK) == 0 && pipe2(input, O_CLOEXEC) != 0) return answer("exited", -1);
    pid_t self = getpid();
    server = fork();
    if (server == 0) {
        setpgid(0, 0);
        /* Here the parent has one thread, so this fires exactly when the supervisor itself is killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self) _exit(126);
        sigprocmask(SIG_SETMASK, &inherited_signals, NULL);
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int log = open("log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        dup2(input[0] >= 0 ? input[0] : null, STDIN_FILENO);
        dup2(log, STDOUT_FILENO);
        dup2(log, STDERR_FILENO);
        execvp(arguments[0], arguments);
        dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], strerror(errno));
        _exit(127);
    }
    if (server < 0) {
        server = 0;
        close(input[0]);
        close(input[1]);
        return answer("exited", -1);
    }
    setpgid(server, server);
    if (input[0] >= 0) close(input[0]);
    held_stdin = input[1];
    answer("started", server);
}

static void terminate(void) {
    if (server == 0) return;
    if (held_stdin >= 0) release_stdin();
    else kill(server, SIGTERM);
}

static void reap(void) {
    int status;
    if (server == 0 || waitpid(server, &status, WNOHANG) != server) return;
    kill(-server, SIGKILL);
    server = 0;
    release_stdin();
    answer("exited", status);
}

static void remove_and_leave(const char *folder) {
    if (server != 0) {
        kill(-server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    sigprocmask(SIG_SETMASK, &inherited_signals, NULL);
    if (chdir("/") != 0) _exit(1);
    execlp("rm", "rm", "-rf", "--", folder, (char *)NULL);
    _exit(1);
}

static int supervise(const char *folder) {
    /* A group of its own: Ctrl-C at the terminal must reach the parent only, which then decides. */
    setpgid(0, 0);
    signal(SIGPIPE, SIG_IGN);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, &inherited_signals);
    int signal_file = signalfd(-1, &signals, SFD_CLOEXEC);
    if (signal_file < 0 || chdir(folder) != 0) return 1;
    struct pollfd files[2] = {{STDIN_FILENO, POLLIN, 0}, {signal_file, POLLIN, 0}};
    for (;;) {
        if (poll(files, 2, -1) < 0) continue;
        if (files[1].revents & POLLIN) {
            struct signalfd_siginfo caught;
            if (read(signal_file, &caught, sizeof caught) == sizeof caught && caught.ssi_signo != SIGCHLD)
                remove_and_leave(folder);
            reap();
        }
        if (files[0].revents) {
            char command;
            ssize_t count = read(STDIN_FILENO, &command, 1);
            if (count == 0) remove_and_leave(folder);
            if (count != 1) continue;
            if (command == 's') start();
            if (command == 't') terminate();
            if (command == 'k' && server != 0) kill(-server, SIGKILL);
        }
    }
}

static int chdb(int count, char **arguments) {
    void *library = dlopen(arguments[0], RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    void *symbol = dlsym(library, "chdb_query_cmdline");
    if (symbol == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    static char name[] = "clickhouse";
    arguments[0] = name;
    void *(*run)(int, char **) = (void *(*)(int, char **))symbol;
    run(count, arguments);
    return 0;
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "supervise") == 0) return supervise(arguments[2]);
    if (count >= 3 && strcmp(arguments[1], "chdb") == 0) return chdb(count - 2, arguments + 2);
    fprintf(stderr, "usage: supervisor supervise RUN_FOLDER | supervisor chdb LIBRARY ARG...\n");
    return 2;
}
