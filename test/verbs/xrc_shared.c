/* An XRC domain of a file in several contexts and processes: one has the target, others the SRQs
 * that an initiator's requests name, and the memory that they are about. */
#include "xrc_end.h"
#include <signal.h>
#include <sys/wait.h>

static struct ibv_qp *sender, *target;

/* One more that takes part, with an SRQ. */
struct part {
    struct end e;
    struct ibv_xrcd *xrcd;
    struct ibv_srq *srq;
};

/* What an initiator must know of it. */
struct facts {
    uint32_t srqn, rkey;
    uint64_t addr;
};

static void connect_pair(void)
{
    assert_non_null(target = new_target(tgt.context, xrcd));
    assert_non_null(sender = new_sender(&ini));
    up(&tgt, target, sender, 14);
    up(&ini, sender, target, 14);
}

static void destroy_pair(void)
{
    assert_int_equal(ibv_destroy_qp(sender), 0);
    assert_int_equal(ibv_destroy_qp(target), 0);
}

static int set_up(void **state)
{
    (void)state;

    bed_up();
    connect_pair();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    destroy_pair();
    bed_down();
    return 0;
}

static struct facts open_part(struct part *p)
{
    struct facts facts;

    open_end(&p->e, IBV_QPT_RC);
    assert_non_null(p->xrcd = open_domain(p->e.context, fd, O_CREAT));
    p->srq = new_xrc_srq(&p->e, p->xrcd, &facts.srqn);
    facts.rkey = p->e.mr->rkey;
    facts.addr = (uintptr_t)p->e.buf;
    return facts;
}

static void close_part(struct part *p)
{
    assert_int_equal(ibv_destroy_srq(p->srq), 0);
    assert_int_equal(ibv_close_xrcd(p->xrcd), 0);
    close_end(&p->e);
}

static void post_shared(struct part *p, uint64_t id, size_t offset, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)p->e.buf + offset, len, p->e.mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    assert_int_equal(ibv_post_srq_recv(p->srq, &wr, &bad), 0);
}

/* From `offset` of the initiator's memory, to or from the same of the other's. */
static void request(const struct facts *to, enum ibv_wr_opcode opcode, uint64_t id, size_t offset,
                    uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)ini.buf + offset, len, ini.mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = opcode,
                             .send_flags = IBV_SEND_SIGNALED,
                             .qp_type.xrc.remote_srqn = to->srqn},
                       *bad;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = to->addr + offset;
        wr.wr.atomic.rkey = to->rkey;
        wr.wr.atomic.compare_add = 3;
    } else {
        wr.wr.rdma.remote_addr = to->addr + offset;
        wr.wr.rdma.rkey = to->rkey;
    }
    assert_int_equal(ibv_post_send(sender, &wr, &bad), 0);
}

enum { WRITTEN = 0, READ = 20000, WORD = 40000, SENT = 45000, LEN = 15000 };

static void fill(uint8_t *at, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) at[i] = (uint8_t)(i * 7 + i / 251 + seed);
}

/* WRITE, READ, atomic and SEND; the READ and the word as `serve` has made them. */
static void all_kinds(const struct facts *to)
{
    uint64_t before;

    fill(ini.buf + WRITTEN, LEN, 1);
    memset(ini.buf + READ, 0, LEN);
    fill(ini.buf + SENT, LEN, 3);
    request(to, IBV_WR_RDMA_WRITE, 1, WRITTEN, LEN);
    request(to, IBV_WR_RDMA_READ, 2, READ, LEN);
    request(to, IBV_WR_ATOMIC_FETCH_AND_ADD, 3, WORD, 8);
    request(to, IBV_WR_SEND, 4, SENT, LEN);
    for (uint64_t id = 1; id <= 4; id++) expect(&ini, id, IBV_WC_SUCCESS);
    memcpy(&before, ini.buf + WORD, 8);
    assert_int_equal(before, 40);
    uint8_t want[LEN];
    fill(want, LEN, 2);
    assert_memory_equal(ini.buf + READ, want, LEN);
}

static void serve(struct part *p)
{
    uint64_t word = 40;
    fill(p->e.buf + READ, LEN, 2);
    memcpy(p->e.buf + WORD, &word, 8);
    post_shared(p, 9, SENT, LEN);
}

/* True: the SEND has come, and what came before it is there. */
static bool served(struct part *p)
{
    uint8_t want[LEN];
    struct ibv_wc wc;
    uint64_t word;

    await(&p->e, &wc);
    fill(want, LEN, 1);
    bool written = memcmp(p->e.buf + WRITTEN, want, LEN) == 0;
    fill(want, LEN, 3);
    memcpy(&word, p->e.buf + WORD, 8);
    return written && wc.status == IBV_WC_SUCCESS && wc.wr_id == 9 && wc.byte_len == LEN &&
           wc.opcode == IBV_WC_RECV && memcmp(p->e.buf + SENT, want, LEN) == 0 && word == 43;
}

static void two_contexts(void **state)
{
    struct part p;
    (void)state;

    assert_null(open_domain(ini.context, fd, O_CREAT | O_EXCL));
    assert_int_equal(errno, EINVAL);
    struct facts facts = open_part(&p);
    serve(&p);
    all_kinds(&facts);
    assert_true(served(&p));
    close_part(&p);
}

/* Three SRQs by turns, one of them in the target's own context. */
static void by_turns(void **state)
{
    struct part parts[2];
    struct facts facts[3];
    (void)state;

    for (int i = 0; i < 2; i++) facts[i] = open_part(&parts[i]);
    struct part own = {.e = tgt, .xrcd = xrcd};
    own.srq = new_xrc_srq(&tgt, xrcd, &facts[2].srqn);
    fill(ini.buf, ROOM, 5);
    for (uint64_t id = 0; id < 60; id++) {
        struct part *p = id % 3 == 2 ? &own : &parts[id % 3];
        post_shared(p, id, id * 1000, 1000);
        request(&facts[id % 3], IBV_WR_SEND, id, id * 1000, 1000);
    }
    for (uint64_t id = 0; id < 60; id++) expect(&ini, id, IBV_WC_SUCCESS);
    for (uint64_t id = 0; id < 60; id++) {
        struct part *p = id % 3 == 2 ? &own : &parts[id % 3];
        expect(&p->e, id, IBV_WC_SUCCESS);
        assert_memory_equal(p->e.buf + id * 1000, ini.buf + id * 1000, 1000);
    }
    assert_int_equal(ibv_destroy_srq(own.srq), 0);
    for (int i = 0; i < 2; i++) close_part(&parts[i]);
}

/* ---- another process ----------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int from, to;
};

/* The child serves once, then waits for its end. */
static void be_child(int from, int to)
{
    struct part p;
    char byte;

    struct facts facts = open_part(&p);
    serve(&p);
    if (write(to, &facts, sizeof facts) != sizeof facts) _exit(3);
    byte = served(&p);
    if (write(to, &byte, 1) != 1) _exit(4);
    while (read(from, &byte, 1) == 1) continue;
    close_part(&p);
    _exit(0);
}

static struct facts spawn(struct child *c)
{
    int up_pipe[2], down[2];
    struct facts facts;

    assert_int_equal(pipe(up_pipe), 0);
    assert_int_equal(pipe(down), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        close(up_pipe[0]);
        close(down[1]);
        be_child(down[0], up_pipe[1]);
    }
    close(up_pipe[1]);
    close(down[0]);
    c->from = up_pipe[0];
    c->to = down[1];
    assert_int_equal(read(c->from, &facts, sizeof facts), sizeof facts);
    return facts;
}

static int reap(struct child *c)
{
    int status;

    close(c->to);
    close(c->from);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void two_processes(void **state)
{
    struct child c;
    char right = 0;
    (void)state;

    struct facts facts = spawn(&c);
    all_kinds(&facts);
    assert_int_equal(read(c.from, &right, 1), 1);
    assert_true(right);
    assert_int_equal(reap(&c), 0);
    /* It has left: its SRQ is nobody's. */
    request(&facts, IBV_WR_SEND, 5, 0, 100);
    expect(&ini, 5, IBV_WC_REM_INV_REQ_ERR);
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    for (int i = 0; ibv_query_qp(target, &attr, IBV_QP_STATE, &init) == 0; i++) {
        if (attr.qp_state == IBV_QPS_ERR) break;
        assert_true(i < 1000);
        usleep(1000);
    }
}

/* The process that has the SRQ is stopped in the midst of a request, then killed. */
static void killed_process(void **state)
{
    struct child c;
    char right = 0;
    int status;
    (void)state;

    struct facts facts = spawn(&c);
    all_kinds(&facts);
    assert_int_equal(read(c.from, &right, 1), 1);
    assert_int_equal(kill(c.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(c.pid, &status, WUNTRACED), c.pid); /* all of its threads stand */
    assert_true(WIFSTOPPED(status));
    request(&facts, IBV_WR_RDMA_WRITE, 5, WRITTEN, LEN);
    usleep(50000);
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    assert_int_equal(reap(&c), -SIGKILL);
    expect(&ini, 5, IBV_WC_REM_INV_REQ_ERR);
    /* A new pair does what the old one did, with another process. */
    destroy_pair();
    connect_pair();
    facts = spawn(&c);
    all_kinds(&facts);
    assert_int_equal(read(c.from, &right, 1), 1);
    assert_true(right);
    assert_int_equal(reap(&c), 0);
}

/* ---- targets of others --------------------------------------------------------------------- */

static enum ibv_qp_state state_of(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    assert_int_equal(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
    return attr.qp_state;
}

static void is_told(struct ibv_context *context, struct ibv_qp *qp, enum ibv_event_type type)
{
    struct ibv_async_event event = next_event(context);
    assert_int_equal(event.event_type, type);
    assert_ptr_equal(event.element.qp, qp);
}

/* All handles are equal, whose function the QP is in and whose not. */
static void handles_elsewhere(void **state)
{
    struct part p;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_recv_wr wr = {.wr_id = 1}, *bad;
    (void)state;

    struct facts facts = open_part(&p);
    assert_null(open_target(p.e.context, p.xrcd, target->qp_num ^ 1, &fd));
    assert_int_equal(errno, EINVAL);
    assert_null(
        open_target(p.e.context, p.xrcd, target->qp_num ^ 1 << 23, &fd)); /* nobody's function */
    assert_int_equal(errno, EINVAL);
    struct ibv_xrcd *alien = open_domain(p.e.context, -1, O_CREAT);
    assert_null(open_target(p.e.context, alien, target->qp_num, &fd));
    assert_int_equal(ibv_close_xrcd(alien), 0);
    struct ibv_qp *first = open_target(p.e.context, p.xrcd, target->qp_num, &fd);
    struct ibv_qp *second = open_target(p.e.context, p.xrcd, target->qp_num, &fd);
    assert_non_null(first);
    assert_non_null(second);
    assert_int_equal(first->qp_num, target->qp_num);
    assert_ptr_equal(second->qp_context, &fd);
    assert_int_equal(state_of(first), IBV_QPS_RTS);
    assert_int_equal(ibv_post_recv(first, &wr, &bad), EINVAL);
    assert_int_equal(ibv_close_xrcd(p.xrcd), EBUSY);

    uint32_t num = target->qp_num;
    assert_int_equal(ibv_destroy_qp(target), 0); /* it lives on by the others */
    serve(&p);
    all_kinds(&facts);
    assert_true(served(&p));
    assert_non_null(target = open_target(tgt.context, xrcd, num, &fd));
    assert_int_equal(ibv_destroy_qp(first), 0);
    assert_int_equal(ibv_modify_qp(second, &attr, IBV_QP_STATE), 0);
    assert_int_equal(state_of(target), IBV_QPS_ERR);
    is_told(tgt.context, target, IBV_EVENT_QP_LAST_WQE_REACHED);
    is_told(p.e.context, second, IBV_EVENT_QP_LAST_WQE_REACHED);
    assert_int_equal(ibv_destroy_qp(target), 0);
    attr.qp_state = IBV_QPS_RESET;
    assert_int_equal(ibv_modify_qp(second, &attr, IBV_QP_STATE), 0);
    attr.port_num = 77;
    attr.qp_state = IBV_QPS_INIT;
    assert_int_equal(
        ibv_modify_qp(second, &attr,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
        EINVAL);
    assert_int_equal(ibv_destroy_qp(second), 0); /* the last: now it has gone */
    assert_null(open_target(p.e.context, p.xrcd, num, &fd));
    assert_null(open_target(tgt.context, xrcd, num, &fd));
    assert_non_null(target = new_target(tgt.context, xrcd)); /* for tear_down */
    close_part(&p);
}

/* Another process takes the target that was made here to RTS; then it is killed, and all goes on.
 */
static void handle_in_another_process(void **state)
{
    struct part p;
    struct child c = {0};
    int ready[2];
    char byte;
    (void)state;

    struct facts facts = open_part(&p);
    destroy_pair();
    assert_non_null(target = new_target(tgt.context, xrcd));
    assert_non_null(sender = new_sender(&ini));
    up(&ini, sender, target, 14);
    assert_int_equal(pipe(ready), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        struct end e;
        uint32_t num = target->qp_num;
        open_end(&e, IBV_QPT_RC);
        struct ibv_xrcd *domain = open_domain(e.context, fd, 0);
        struct ibv_qp *qp = domain ? open_target(e.context, domain, num, &fd) : NULL;
        if (!qp) _exit(1);
        up(&e, qp, sender, 14);
        if (state_of(qp) != IBV_QPS_RTS || write(ready[1], "x", 1) != 1) _exit(2);
        pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    assert_int_equal(state_of(target), IBV_QPS_RTS);
    serve(&p);
    all_kinds(&facts);
    assert_true(served(&p));
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
    serve(&p);
    all_kinds(&facts);
    assert_true(served(&p));
    close_part(&p);
}

/* The process that has the target ends, and with it the target. */
static void target_goes(void **state)
{
    struct part p;
    int pipes[2], status;
    uint32_t num;
    (void)state;

    open_part(&p);
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct ibv_context *context = ibv_open_device(device);
        struct ibv_xrcd *domain = context ? open_domain(context, fd, 0) : NULL;
        struct ibv_qp *qp = domain ? new_target(context, domain) : NULL;
        if (!qp || write(pipes[1], &qp->qp_num, 4) != 4) _exit(1);
        pause();
    }
    assert_int_equal(read(pipes[0], &num, 4), 4);
    struct ibv_qp *qp = open_target(p.e.context, p.xrcd, num, &fd);
    assert_non_null(qp);
    assert_int_equal(state_of(qp), IBV_QPS_RESET);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    is_told(p.e.context, qp, IBV_EVENT_QP_FATAL);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_qp_init_attr init;
    assert_int_equal(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), EIO);
    assert_int_equal(ibv_modify_qp(qp, &attr, IBV_QP_STATE), EIO);
    assert_int_equal(ibv_destroy_qp(qp), 0);
    close(pipes[0]);
    close(pipes[1]);
    close_part(&p);
}

static void domains(void **state)
{
    (void)state;
    struct ibv_xrcd *again = open_domain(ini.context, fd, 0);
    assert_non_null(again);
    struct ibv_xrcd *third = open_domain(ini.context, fd, O_CREAT);
    assert_non_null(third);
    assert_int_equal(ibv_close_xrcd(again), 0);
    assert_int_equal(ibv_close_xrcd(third), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int status;
        ibv_close_xrcd(xrcd); /* a copy: the parent's stands */
        if (fork() == 0) _exit(0);
        wait(&status);
        struct ibv_context *context = ibv_open_device(device);
        if (!context || open_domain(context, fd, O_CREAT | O_EXCL) || errno != EINVAL) _exit(1);
        _exit(open_domain(context, fd, 0) ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), 0);
    struct part p;
    struct facts facts = open_part(&p);
    serve(&p);
    all_kinds(&facts);
    assert_true(served(&p));
    close_part(&p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

EDGE_MAIN(TEST(domains), TEST(two_contexts), TEST(by_turns), TEST(two_processes),
          TEST(killed_process), TEST(handles_elsewhere), TEST(handle_in_another_process),
          TEST(target_goes))
