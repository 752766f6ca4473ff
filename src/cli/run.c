/* rbond run: starts an unmodified program with rbond's devices; brings rbondd along if none
 * answers. */
#include "cli/environ.h"
#include "cli/install.h"
#include "cli/rbondd.h"
#include "cli/words.h"
#include "ctl/client.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t child;

static void pass_on(int signal)
{
    if (child > 0) kill((pid_t)child, signal);
}

/* A terminal's interrupt reaches the program by itself; what is sent to us alone is passed on. */
static void forward_signals(void)
{
    static const int PASSED[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT};
    struct sigaction forward = {.sa_handler = pass_on, .sa_flags = SA_RESTART};

    for (size_t i = 0; i < sizeof PASSED / sizeof *PASSED; i++)
        sigaction(PASSED[i], &forward, NULL);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
}

static int start(char **argv)
{
    environ_make();
    execvp(argv[0], argv);
    if (errno == ENOENT) {
        failed("there is no program '%s'", argv[0]);
        return CLI_NOT_FOUND;
    }
    failed("cannot start '%s': %s", argv[0], strerror(errno));
    return CLI_NOT_RUNNABLE;
}

/* Ends as the program ended: the same exit code, or the same signal. */
static int finish(int status)
{
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
    return 128 + WTERMSIG(status);
}

static bool others_use_it(void)
{
    struct ctl_client *client;
    struct ctl_reply reply;
    bool used;

    if (ctl_connect(&client, NULL)) return false;
    used = !ctl_call(client, CTL_FUNCTION_LIST, NULL, 0, sizeof(struct ctl_function), &reply) &&
           reply.count;
    ctl_reply_free(&reply);
    ctl_close(client);
    return used;
}

static int run_with_daemon(char **argv)
{
    pid_t rbondd = rbondd_start(NULL, NULL);
    int status;

    if (rbondd < 0) return CLI_FAILED;
    child = fork();
    if (child < 0) {
        rbondd_stop(rbondd);
        return failed("cannot fork: %s", strerror(errno));
    }
    if (!child) _exit(start(argv));
    forward_signals();
    while (waitpid((pid_t)child, &status, 0) < 0 && errno == EINTR) {
    }
    child = 0;
    if (others_use_it())
        fprintf(stderr, "rbond: other programs use this rbondd (pid %d): it stays\n", (int)rbondd);
    else
        rbondd_stop(rbondd);
    return finish(status);
}

int run_main(struct cli *cli, int argc, char **argv)
{
    static const struct command HELP[] = {
        {"--", "CMD [ARG...]",
         "runs CMD with rbond's devices; a private rbondd serves it when none answers here", NULL},
    };
    struct ctl_client *client;
    int rc;

    (void)cli;
    if (argc == 1 && !strcmp(argv[0], "help")) {
        words_help("run", HELP, 1);
        return CLI_OK;
    }
    if (argc && !strcmp(argv[0], "--")) {
        argc--;
        argv++;
    }
    if (!argc) return misused("run what? 'rbond run -- CMD', as in 'rbond run -- ibv_devinfo'");
    if (!install_preload()) return CLI_FAILED;
    rc = ctl_connect(&client, NULL);
    if (rc == -ENOENT || rc == -ECONNREFUSED) return run_with_daemon(argv);
    if (rc) return failed("cannot use the rbondd of this network namespace: %s", strerror(-rc));
    ctl_close(client);
    return start(argv);
}
