/* A program that forks. */
#include "end.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
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

enum { QUIETLY, BUSILY, TWICE, IN_A_POLL, IN_A_POST, POLLING_LATER, HEARING_LATER };

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

static atomic_int held;

/* Another thread of the first process is the CQ's consumer while it forks ... */
static void *poll_for_ever(void *arg)
{
    struct end *a = arg;
    struct ibv_poll_cq_attr attr = {0};

    while (ibv_start_poll(a->cq, &attr)) sched_yield();
    held = 1;
    for (;;) pause();
    return NULL;
}

/* ... or stages a request. */
static void *post_for_ever(void *arg)
{
    ibv_wr_start(ibv_qp_to_qp_ex(((struct end *)arg)->qp));
    held = 1;
    for (;;) pause();
    return NULL;
}

static void have_thread(struct end *a, struct end *b, int how)
{
    pthread_t thread;

    if (how != IN_A_POLL && how != IN_A_POST) return;
    if (how == IN_A_POLL && post(a, b, IBV_WR_RDMA_WRITE, 64)) _exit(1);
    if (pthread_create(&thread, NULL, how == IN_A_POLL ? poll_for_ever : post_for_ever, a))
        _exit(1);
    while (!held) sched_yield();
}

/* A completion that waits in the CQ, with its event in the channel. */
static void have_completion(struct end *a, struct end *b, int how)
{
    struct pollfd pfd = {.fd = a->channel->fd, .events = POLLIN};

    if (how != POLLING_LATER && how != HEARING_LATER) return;
    if (ibv_req_notify_cq(ibv_cq_ex_to_cq(a->cq), 0) || post(a, b, IBV_WR_RDMA_WRITE, 64) ||
        poll(&pfd, 1, WAIT_MS) != 1)
        _exit(1);
}

static void take_completion(struct end *a, int how)
{
    struct ibv_cq *cq;
    struct ibv_wc wc;
    void *of;

    if (how == POLLING_LATER && ibv_poll_cq(ibv_cq_ex_to_cq(a->cq), 1, &wc) != 1) _exit(1);
    if (how == HEARING_LATER && ibv_get_cq_event(a->channel, &cq, &of)) _exit(1);
}

static int post_by_stages(struct end *a)
{
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(a->qp);

    ibv_wr_start(ex);
    ibv_wr_send(ex);
    ibv_wr_abort(ex);
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
    have_thread(&a, &b, how);
    have_completion(&a, &b, how);
    usleep(50000); /* the workers' part of it is done: what they do after the fork would count */
    pid_t pid = fork();
    if (pid == 0) {
        alarm(WAIT_MS / 1000); /* one that waits for a thread of the first process */
        if (how == TWICE && fork()) _exit(0);
        if (how == IN_A_POST) post_by_stages(&a);
        uint8_t rc = (uint8_t)in_daemon(&a, &b, first);
        if (write(result, &rc, 1) != 1) _exit(1);
        _exit(0);
    }
    if (how == BUSILY) exchange(&a, &b);
    take_completion(&a, how);
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

/* ---- with other threads ------------------------------------------------------------------ */

static void daemon_of_a_polling_thread_inherits(void **state)
{
    assert_int_equal(daemon_result(IN_A_POLL), 0);
}

static void daemon_of_a_posting_thread_inherits(void **state)
{
    assert_int_equal(daemon_result(IN_A_POST), 0);
}

static void child_cannot_inherit_what_was_polled(void **state)
{
    assert_int_equal(daemon_result(POLLING_LATER), 10);
}

static void child_cannot_inherit_what_was_heard(void **state)
{
    assert_int_equal(daemon_result(HEARING_LATER), 10);
}

static int use_lists(struct ibv_context *c)
{
    struct ibv_xrcd_init_attr init = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = -1,
                                      .oflags = O_CREAT};
    int n;
    struct ibv_device **list = ibv_get_device_list(&n);

    ibv_free_device_list(list);
    if (!(c = ibv_open_device(c->device))) return 1;
    struct ibv_xrcd *xrcd = ibv_open_xrcd(c, &init);
    return !xrcd || ibv_close_xrcd(xrcd) || ibv_close_device(c);
}

/* Opens a domain of a file, for which rbondd is asked; and contexts. */
static void *open_for_ever(void *arg)
{
    struct ibv_context *c = arg;
    struct ibv_xrcd_init_attr init = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = open("/proc/self/exe", O_RDONLY),
                                      .oflags = O_CREAT};

    while (held) {
        struct ibv_xrcd *xrcd = ibv_open_xrcd(c, &init);
        if (xrcd) ibv_close_xrcd(xrcd);
        struct ibv_context *more = ibv_import_device(dup(c->cmd_fd));
        if (more) ibv_close_device(more);
        int n;
        ibv_free_device_list(ibv_get_device_list(&n));
    }
    close(init.fd);
    return NULL;
}

/* Children have to themselves what a thread of the parent was in the midst of. */
static void child_opens_what_a_thread_was_opening(void **state)
{
    struct ibv_context *c = ibv_open_device(device);
    pthread_t thread;
    int status;

    /* A sanitizer's allocator does not let go of its own locks at a fork. */
    if (getenv("EDGE_PRELOAD")) {
        ibv_close_device(c);
        skip();
    }
    held = 1;
    assert_int_equal(pthread_create(&thread, NULL, open_for_ever, c), 0);
    for (int i = 0; i < 20; i++) {
        usleep(500);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(WAIT_MS / 1000);
            _exit(use_lists(c));
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    held = 0;
    pthread_join(thread, NULL);
    assert_int_equal(ibv_close_device(c), 0);
}

EDGE_MAIN(cmocka_unit_test(leaves_the_adapter_to_the_parent),
          cmocka_unit_test(closes_nothing_of_the_programs),
          cmocka_unit_test(goes_on_while_children_come_and_go),
          cmocka_unit_test(opens_the_device_in_the_child), cmocka_unit_test(daemon_inherits),
          cmocka_unit_test(daemon_that_forks_twice_inherits),
          cmocka_unit_test(child_cannot_inherit_what_went_on),
          cmocka_unit_test(daemon_of_a_polling_thread_inherits),
          cmocka_unit_test(daemon_of_a_posting_thread_inherits),
          cmocka_unit_test(child_cannot_inherit_what_was_polled),
          cmocka_unit_test(child_cannot_inherit_what_was_heard),
          cmocka_unit_test(child_opens_what_a_thread_was_opening))
