/* rbondd as a child process. It is ours until we stop it; a lab lets it outlive the CLI. */
#include "cli/rbondd.h"
#include "cli/cli.h"
#include "cli/install.h"
#include "ctl/client.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEP_US 5000
#define ANSWER_STEPS 2000 /* ten seconds: a sanitized build on a busy machine is slow */
#define END_STEPS 600

static void become_daemon(const char *path, const char *socket, const char *log)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int out = log ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : STDERR_FILENO;

    setsid();
    dup2(null, STDIN_FILENO);
    if (out >= 0) {
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
    }
    if (socket) setenv("RBOND_SOCKET", socket, 1);
    unsetenv("LD_PRELOAD");
    unsetenv("NOTIFY_SOCKET"); /* of whose service this may be a part: it is not the service */
    if (log)
        execl(path, "rbondd", (char *)NULL);
    else
        execl(path, "rbondd", "--log-level=warning", (char *)NULL);
    _exit(CLI_NOT_RUNNABLE);
}

static bool answers(const char *socket)
{
    struct ctl_client *client;

    if (ctl_connect(&client, socket)) return false;
    ctl_close(client);
    return true;
}

pid_t rbondd_start(const char *socket, const char *log)
{
    char path[PATH_MAX];
    int status;
    pid_t pid;

    if (!install_daemon(path)) return -1;
    pid = fork();
    if (pid < 0) {
        failed("cannot fork: %s", strerror(errno));
        return -1;
    }
    if (!pid) become_daemon(path, socket, log);
    for (int i = 0; i < ANSWER_STEPS; i++) {
        if (answers(socket)) return pid;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            failed("rbondd ended at once%s%s", log ? ": see " : "", log ? log : "");
            return -1;
        }
        usleep(STEP_US);
    }
    rbondd_stop(pid);
    failed("rbondd does not answer%s%s", log ? ": see " : "", log ? log : "");
    return -1;
}

void rbondd_stop(pid_t pid)
{
    kill(pid, SIGTERM);
    for (int i = 0; i < END_STEPS; i++) {
        if (waitpid(pid, NULL, WNOHANG) == pid) return;
        usleep(STEP_US);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}
