/* A program that forks. */
#include "end.h"
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int in_child(struct end *a, struct end *b)
{
    struct ibv_wc wc;
    if (post(a, b, IBV_WR_SEND, 8) == 0) return 1;
    if (ibv_poll_cq(ibv_cq_ex_to_cq(a->cq), 1, &wc) >= 0) return 2;
    if (ibv_alloc_pd(a->context)) return 3;
    if (ibv_destroy_qp(a->qp)) return 4;
    if (ibv_close_device(b->context)) return 5;
    return 0;
}

static void leaves_the_adapter_to_the_parent(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    int status;
    (void)state;

    open_pair(&a, &b);
    pid_t pid = fork();
    if (pid == 0) _exit(in_child(&a, &b));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    close_end(&a);
    close_end(&b);
}

/* What the program opens next has the numbers of what librbond used at the fork. */
static void closes_nothing_of_the_programs(void **state)
{
    struct end a, b;
    int status, fd[8];
    (void)state;

    open_pair(&a, &b);
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    for (int i = 0; i < 8; i++) assert_true((fd[i] = open("/dev/null", O_RDONLY)) >= 0);
    close_end(&a);
    close_end(&b);
    for (int i = 0; i < 8; i++) assert_int_equal(close(fd[i]), 0);
}

/* ---- children come and go ---------------------------------------------------------------- */

static int exchange(struct end *a, struct end *b)
{
    struct ibv_wc wc;

    if (post(a, b, IBV_WR_RDMA_WRITE, 64)) return 1;
    for (double until = seconds() + WAIT_MS / 1e3; seconds() < until;)
        if (ibv_poll_cq(ibv_cq_ex_to_cq(a->cq), 1, &wc)) return wc.status != IBV_WC_SUCCESS;
    return 2;
}

static void goes_on_while_children_come_and_go(void **state)
{
    struct end a, b;
    int status;
    (void)state;

    open_pair(&a, &b);
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0 && i % 2) execlp("true", "true", (char *)NULL);
        if (pid == 0) _exit(i % 2);
        for (int k = 0; k < 10; k++) assert_int_equal(exchange(&a, &b), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    close_end(&a);
    close_end(&b);
}

static int child_of_its_own(void)
{
    struct end a, b;

    open_pair(&a, &b);
    for (int i = 0; i < 100; i++)
        if (exchange(&a, &b)) return 1;
    close_end(&a);
    close_end(&b);
    return 0;
}

static void opens_the_device_in_the_child(void **state)
{
    struct end a, b;
    int status;
    (void)state;

    open_pair(&a, &b);
    pid_t pid = fork();
    if (pid == 0) _exit(child_of_its_own());
    for (int i = 0; i < 100; i++) assert_int_equal(exchange(&a, &b), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close_end(&a);
    close_end(&b);
}

/* ---- a daemon ---------------------------------------------------------------------------- */

enum { QUIETLY, BUSILY, TWICE };

/* In the daemon: waits for its first process to end, then uses what that one made. */
static int in_daemon(struct end *a, struct end *b, int first)
{
    struct pollfd pfd = {.fd = first, .events = POLLIN};

    if (poll(&pfd, 1, WAIT_MS) != 1) return 100;
    for (int i = 0; i < 100; i++)
        if (exchange(a, b)) return 10 + i / 10;
    if (!ibv_alloc_pd(a->context)) return 2;
    return 0;
}

/* The first process of a program that becomes a daemon; what its daemon's work came to goes to
 * `result`. */
static void become_daemon(int how, int result)
{
    struct end a, b;

    open_pair(&a, &b);
    int first = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (exchange(&a, &b) || first < 0) _exit(1);
    pid_t pid = fork();
    if (pid == 0) {
        if (how == TWICE && fork()) _exit(0);
        uint8_t rc = (uint8_t)in_daemon(&a, &b, first);
        if (write(result, &rc, 1) != 1) _exit(1);
        _exit(0);
    }
    if (how == BUSILY) exchange(&a, &b);
    _exit(0);
}

static int daemon_result(int how)
{
    int result[2], status;
    uint8_t rc;

    assert_int_equal(pipe(result), 0);
    pid_t pid = fork();
    if (pid == 0) become_daemon(how, result[1]);
    close(result[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(read(result[0], &rc, 1), 1);
    close(result[0]);
    return rc;
}

static void daemon_inherits(void **state) { assert_int_equal(daemon_result(QUIETLY), 0); }
static void daemon_that_forks_twice_inherits(void **state)
{
    assert_int_equal(daemon_result(TWICE), 0);
}

/* The connections have gone on without the child: it gets errors, not stale ones. */
static void child_cannot_inherit_what_went_on(void **state)
{
    assert_int_equal(daemon_result(BUSILY), 10);
}

EDGE_MAIN(cmocka_unit_test(leaves_the_adapter_to_the_parent),
          cmocka_unit_test(closes_nothing_of_the_programs),
          cmocka_unit_test(goes_on_while_children_come_and_go),
          cmocka_unit_test(opens_the_device_in_the_child), cmocka_unit_test(daemon_inherits),
          cmocka_unit_test(daemon_that_forks_twice_inherits),
          cmocka_unit_test(child_cannot_inherit_what_went_on))
