/* A verbs program of its own for what no packaged one shows: both ends in one process, over the
 * device named by its argument, under the preload. test/verbs/edge.sh makes the network around it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rbond/rbonddv.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROOM 65536
#define ALL_ACCESS                                                                                 \
    (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |                   \
     IBV_ACCESS_REMOTE_ATOMIC)

static const char *device_name;
static struct ibv_device *device;

/* One end: a context of its own, hence a function of its own. */
struct end {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq_ex *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qp;
    uint8_t *buf;
};

static int gid_index(struct ibv_context *context, union ibv_gid *gid)
{
    struct ibv_gid_entry entries[32];
    ssize_t n = ibv_query_gid_table(context, entries, 32, 0);

    for (ssize_t i = 0; i < n; i++) {
        if (entries[i].gid.raw[10] != 0xff) continue; /* IPv4 */
        *gid = entries[i].gid;
        return (int)entries[i].gid_index;
    }
    return -1;
}

static void open_end(struct end *e, enum ibv_qp_type type)
{
    memset(e, 0, sizeof *e);
    assert_non_null(e->context = ibv_open_device(device));
    assert_non_null(e->pd = ibv_alloc_pd(e->context));
    assert_non_null(e->channel = ibv_create_comp_channel(e->context));
    struct ibv_cq_init_attr_ex ci = {.cqe = 256,
                                     .cq_context = e,
                                     .channel = e->channel,
                                     .wc_flags = IBV_WC_STANDARD_FLAGS |
                                                 IBV_WC_EX_WITH_COMPLETION_TIMESTAMP};
    assert_non_null(e->cq = ibv_create_cq_ex(e->context, &ci));
    e->buf = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_non_null(e->mr = ibv_reg_mr(e->pd, e->buf, ROOM, ALL_ACCESS));
    struct ibv_cq *cq = ibv_cq_ex_to_cq(e->cq);
    uint64_t ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    if (type == IBV_QPT_RC)
        ops |= IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ |
               IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP;
    struct ibv_qp_init_attr_ex qi = {.send_cq = cq,
                                     .recv_cq = cq,
                                     .cap = {.max_send_wr = 64,
                                             .max_recv_wr = 64,
                                             .max_send_sge = 4,
                                             .max_recv_sge = 4,
                                             .max_inline_data = 128},
                                     .qp_type = type,
                                     .comp_mask =
                                         IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                     .pd = e->pd,
                                     .send_ops_flags = ops};
    assert_non_null(e->qp = ibv_create_qp_ex(e->context, &qi));
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x1111, .qp_access_flags = ALL_ACCESS};
    assert_int_equal(ibv_modify_qp(e->qp, &attr,
                                   IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                                       (type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)),
                     0);
}

static void close_end(struct end *e)
{
    if (e->qp) assert_int_equal(ibv_destroy_qp(e->qp), 0);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(e->cq)), 0);
    assert_int_equal(ibv_dereg_mr(e->mr), 0);
    assert_int_equal(ibv_destroy_comp_channel(e->channel), 0);
    assert_int_equal(ibv_dealloc_pd(e->pd), 0);
    assert_int_equal(ibv_close_device(e->context), 0);
    munmap(e->buf, ROOM);
}

static void connect_rc(struct end *e, const struct end *to, uint8_t timeout)
{
    union ibv_gid gid;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = to->qp->qp_num,
                               .rq_psn = 7,
                               .max_dest_rd_atomic = 4,
                               .min_rnr_timer = 12,
                               .ah_attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 64}};

    attr.ah_attr.grh.sgid_index = (uint8_t)gid_index(e->context, &gid);
    attr.ah_attr.grh.dgid = gid; /* the same device */
    assert_int_equal(ibv_modify_qp(e->qp, &attr,
                                   IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                       IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
                                       IBV_QP_MIN_RNR_TIMER),
                     0);
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .timeout = timeout,
                                .retry_cnt = 7,
                                .rnr_retry = 7,
                                .sq_psn = 7,
                                .max_rd_atomic = 4};
    assert_int_equal(ibv_modify_qp(e->qp, &attr,
                                   IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                       IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
                     0);
}

static void open_pair(struct end *a, struct end *b)
{
    open_end(a, IBV_QPT_RC);
    open_end(b, IBV_QPT_RC);
    connect_rc(a, b, 14);
    connect_rc(b, a, 14);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void await(struct end *e, struct ibv_wc *wc)
{
    double until = seconds() + 3;
    int n;

    while ((n = ibv_poll_cq(ibv_cq_ex_to_cq(e->cq), 1, wc)) == 0)
        if (seconds() > until) fail_msg("no completion");
    assert_int_equal(n, 1);
}

static void post_recv(struct end *e, uint64_t id, size_t offset, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)e->buf + offset, len, e->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    assert_int_equal(ibv_post_recv(e->qp, &wr, &bad), 0);
}

static int post(struct end *e, struct end *to, enum ibv_wr_opcode opcode, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)e->buf, len, e->mr->lkey};
    struct ibv_send_wr wr = {.wr_id = 100 + opcode,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = opcode,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = 0x12345678},
                       *bad;
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = (uintptr_t)to->buf;
        wr.wr.atomic.rkey = to->mr->rkey;
        wr.wr.atomic.compare_add = 5;
    } else {
        wr.wr.rdma.remote_addr = (uintptr_t)to->buf;
        wr.wr.rdma.rkey = to->mr->rkey;
    }
    return ibv_post_send(e->qp, &wr, &bad);
}

/* ---- what the device says ---------------------------------------------------------------- */

static void says_what_it_is(void **state)
{
    struct ibv_device_attr_ex attr;
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    union ibv_gid gid;
    __be16 pkey;
    (void)state;

    struct ibv_context *c = ibv_open_device(device);
    assert_non_null(c);
    assert_int_equal(ibv_query_device_ex(c, NULL, &attr), 0);
    assert_int_equal(attr.orig_attr.phys_port_cnt, 1);
    assert_true(attr.orig_attr.node_guid == ibv_get_device_guid(device));
    assert_true(attr.orig_attr.node_guid != 0);
    assert_int_equal(ibv_query_port(c, 1, &port), 0);
    assert_int_equal(port.state, IBV_PORT_ACTIVE);
    assert_int_equal(port.link_layer, IBV_LINK_LAYER_ETHERNET);
    assert_int_equal(ibv_query_port(c, 2, &port), EINVAL);
    int i = gid_index(c, &gid);
    assert_true(i >= 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, (uint32_t)i, &entry, 0), 0);
    assert_int_equal(entry.gid_type, IBV_GID_TYPE_ROCE_V2);
    assert_true(entry.ndev_ifindex > 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, 31, &entry, 0), ENODATA);
    assert_int_equal(ibv_query_gid_ex(c, 1, 32, &entry, 0), EINVAL);
    assert_int_equal(ibv_query_gid_ex(c, 1, 0, &entry, 1), EOPNOTSUPP);
    assert_int_equal(ibv_query_pkey(c, 1, 0, &pkey), 0);
    assert_int_equal(pkey, 0xffff);
    assert_int_equal(ibv_query_pkey(c, 1, 1, &pkey), -1);
    assert_int_equal(ibv_close_device(c), 0);
}

static void imports_no_device(void **state)
{
    int fds[2];
    (void)state;

    struct ibv_context *c = ibv_open_device(device);
    assert_non_null(c);
    assert_null(ibv_import_device(c->cmd_fd));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(pipe(fds), 0); /* the real library's affair: it must not meet our devices */
    assert_null(ibv_import_device(fds[0]));
    close(fds[0]);
    close(fds[1]);
    assert_null(ibv_import_device(-1));
    assert_int_equal(errno, EBADF);
    assert_int_equal(ibv_close_device(c), 0);
}

/* ---- mistakes ---------------------------------------------------------------------------- */

static void refuses_mistakes(void **state)
{
    struct end e;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_dealloc_pd(e.pd), EBUSY);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(e.cq)), EBUSY);
    assert_int_equal(ibv_destroy_comp_channel(e.channel), EBUSY);
    e.qp->handle ^= 0x55;
    assert_int_equal(ibv_destroy_qp(e.qp), EINVAL);
    e.qp->handle ^= 0x55;
    e.mr->handle ^= 0x55;
    assert_int_equal(ibv_dereg_mr(e.mr), EINVAL);
    e.mr->handle ^= 0x55;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE), EINVAL);
    assert_int_equal(e.qp->state, IBV_QPS_INIT);

    void *hole = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_null(ibv_reg_mr(e.pd, hole, 8192, IBV_ACCESS_LOCAL_WRITE)); /* read only */
    assert_int_equal(errno, EFAULT);
    struct ibv_mr *mr = ibv_reg_mr(e.pd, hole, 8192, 0);
    assert_non_null(mr);
    ibv_dereg_mr(mr);
    munmap((char *)hole + 4096, 4096);
    assert_null(ibv_reg_mr(e.pd, hole, 8192, 0));
    assert_int_equal(errno, EFAULT);
    munmap(hole, 4096);
    assert_null(ibv_reg_mr(e.pd, e.buf, ROOM, IBV_ACCESS_REMOTE_WRITE)); /* without local */
    assert_int_equal(errno, EINVAL);

    struct ibv_qp_init_attr_ex qi = {.send_cq = ibv_cq_ex_to_cq(e.cq),
                                     .recv_cq = ibv_cq_ex_to_cq(e.cq),
                                     .qp_type = IBV_QPT_UD,
                                     .comp_mask =
                                         IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                     .pd = e.pd,
                                     .send_ops_flags = IBV_QP_EX_WITH_RDMA_READ};
    assert_null(ibv_create_qp_ex(e.context, &qi));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_null(ibv_alloc_mw(e.pd, IBV_MW_TYPE_1));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(post(&e, &e, IBV_WR_SEND, 8), EINVAL); /* not in RTS */
    close_end(&e);
}

static void refuses_a_path_mtu_beyond_the_port(void **state)
{
    struct end e;
    struct ibv_port_attr port;
    union ibv_gid gid;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_query_port(e.context, 1, &port), 0);
    assert_int_equal(port.active_mtu, IBV_MTU_1024); /* edge.sh leaves 1500 */
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_2048,
                               .dest_qp_num = 77,
                               .max_dest_rd_atomic = 1,
                               .ah_attr = {.is_global = 1, .port_num = 1}};
    int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
               IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    attr.ah_attr.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
    attr.ah_attr.grh.dgid = gid;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.path_mtu = IBV_MTU_1024;
    memset(&attr.ah_attr.grh.dgid, 0, 16);
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.ah_attr.grh.dgid = gid;
    attr.ah_attr.is_global = 0;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.ah_attr.is_global = 1;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), 0);
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr got;
    assert_int_equal(ibv_query_qp(e.qp, &got, mask, &init), 0);
    assert_int_equal(got.qp_state, IBV_QPS_RTR);
    assert_int_equal(got.path_mtu, IBV_MTU_1024);
    assert_int_equal(got.dest_qp_num, 77);
    assert_int_equal(got.ah_attr.is_global, 1);
    assert_memory_equal(&got.ah_attr.grh.dgid, &gid, 16);
    assert_ptr_equal(init.send_cq, ibv_cq_ex_to_cq(e.cq));
    close_end(&e);
}

/* ---- data -------------------------------------------------------------------------------- */

static void moves_data(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    for (int i = 0; i < ROOM; i++) a.buf[i] = (uint8_t)(i * 7);
    post_recv(&b, 1, 0, 5000);
    assert_int_equal(post(&a, &b, IBV_WR_SEND_WITH_IMM, 5000), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 5000);
    assert_int_equal(wc.imm_data, 0x12345678);
    assert_true(wc.wc_flags & IBV_WC_WITH_IMM);
    assert_int_equal(wc.qp_num, b.qp->qp_num);
    assert_memory_equal(a.buf, b.buf, 5000);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.wr_id, 100 + IBV_WR_SEND_WITH_IMM);

    /* passive: b does not poll */
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, ROOM), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_memory_equal(a.buf, b.buf, ROOM);
    for (int i = 0; i < ROOM; i++) b.buf[i] = (uint8_t)(i * 11);
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_READ, ROOM), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RDMA_READ);
    assert_memory_equal(a.buf, b.buf, ROOM);
    *(uint64_t *)b.buf = 37;
    assert_int_equal(post(&a, &b, IBV_WR_ATOMIC_FETCH_AND_ADD, 8), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(*(uint64_t *)a.buf, 37);
    assert_int_equal(*(uint64_t *)b.buf, 42);
    close_end(&a);
    close_end(&b);
}

static void posts_all_or_none_through_wr(void **state)
{
    struct end a, b;
    struct ibv_poll_cq_attr none = {0};
    uint8_t word[16] = "inline";
    (void)state;

    open_pair(&a, &b);
    post_recv(&b, 1, 4096, 4096);
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(a.qp);
    assert_non_null(ex);
    ibv_wr_start(ex);
    ex->wr_id = 11;
    ex->wr_flags = 0;
    ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf);
    ibv_wr_set_inline_data(ex, word, sizeof word);
    ex->wr_id = 12;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(ex);
    memset(a.buf, 0x5a, 3000);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 3000);
    memset(word, 0, sizeof word); /* was copied */
    assert_int_equal(ibv_wr_complete(ex), 0);

    double until = seconds() + 3;
    while (ibv_start_poll(b.cq, &none) == ENOENT) assert_true(seconds() < until);
    assert_int_equal(b.cq->status, IBV_WC_SUCCESS);
    assert_int_equal(b.cq->wr_id, 1);
    assert_int_equal(ibv_wc_read_opcode(b.cq), IBV_WC_RECV);
    assert_int_equal(ibv_wc_read_byte_len(b.cq), 3000);
    assert_true(ibv_wc_read_completion_ts(b.cq) > 0);
    assert_int_equal(ibv_next_poll(b.cq), ENOENT);
    ibv_end_poll(b.cq);
    assert_string_equal((char *)b.buf, "inline");
    assert_memory_equal(b.buf + 4096, a.buf, 3000);

    /* more than fits: none is posted */
    ibv_wr_start(ex);
    for (int i = 0; i < 65; i++) {
        ex->wr_id = 20;
        ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf + 9000);
        ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 8);
    }
    assert_int_equal(ibv_wr_complete(ex), ENOMEM);
    ibv_wr_start(ex);
    ibv_wr_bind_mw(ex, NULL, 0, NULL);
    assert_int_equal(ibv_wr_complete(ex), EOPNOTSUPP);
    ibv_wr_start(ex);
    ibv_wr_abort(ex);
    struct ibv_wc wc;
    await(&a, &wc);
    assert_int_equal(wc.wr_id, 12);
    usleep(20000);
    assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(a.cq), 1, &wc), 0);
    assert_int_equal(b.buf[9000], 0);
    close_end(&a);
    close_end(&b);
}

/* ---- events ------------------------------------------------------------------------------ */

static void wakes_a_sleeper(void **state)
{
    struct end a, b;
    struct ibv_cq *cq;
    void *context;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    struct ibv_cq *bcq = ibv_cq_ex_to_cq(b.cq);
    for (int i = 0; i < 200; i++) {
        post_recv(&b, 1, 0, 64);
        assert_int_equal(ibv_req_notify_cq(bcq, 0), 0);
        assert_int_equal(ibv_poll_cq(bcq, 1, &wc), 0);
        struct pollfd pfd = {.fd = b.channel->fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 0), 0);
        assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
        assert_int_equal(poll(&pfd, 1, 2000), 1);
        assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), 0);
        assert_ptr_equal(cq, bcq);
        assert_ptr_equal(context, &b);
        ibv_ack_cq_events(cq, 1);
        assert_int_equal(ibv_poll_cq(bcq, 1, &wc), 1);
        await(&a, &wc);
    }
    fcntl(b.channel->fd, F_SETFL, O_NONBLOCK);
    assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), -1);
    assert_int_equal(errno, EAGAIN);
    /* one that nobody reads: destroying the CQ neither waits for it nor leaves it behind */
    post_recv(&b, 1, 0, 64);
    assert_int_equal(ibv_req_notify_cq(bcq, 0), 0);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
    await(&a, &wc);
    assert_int_equal(ibv_destroy_qp(b.qp), 0);
    assert_int_equal(ibv_destroy_cq(bcq), 0);
    assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), -1);
    struct ibv_cq_init_attr_ex ci = {.cqe = 16, .channel = b.channel};
    assert_non_null(b.cq = ibv_create_cq_ex(b.context, &ci));
    b.qp = NULL;
    close_end(&a);
    close_end(&b);
}

static void tells_of_a_qp_in_error(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    struct ibv_async_event event;
    (void)state;

    open_pair(&a, &b);
    fcntl(b.context->async_fd, F_SETFL, O_NONBLOCK);
    while (ibv_get_async_event(b.context, &event) == 0) ibv_ack_async_event(&event);
    struct ibv_mr *mr = b.mr;
    struct ibv_mr wrong = *mr;
    wrong.rkey ^= 0xff;
    b.mr = &wrong;
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    b.mr = mr;
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(a.qp->state, IBV_QPS_RTS); /* libibverbs changes it in modify_qp only */
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr attr;
    assert_int_equal(ibv_query_qp(a.qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_ERR);
    struct pollfd pfd = {.fd = b.context->async_fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 2000), 1);
    bool access_error = false;
    while (ibv_get_async_event(b.context, &event) == 0) {
        if (event.event_type == IBV_EVENT_QP_ACCESS_ERR) access_error = event.element.qp == b.qp;
        ibv_ack_async_event(&event);
    }
    assert_true(access_error);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 8), 0); /* accepted, and flushed */
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
    close_end(&a);
    close_end(&b);
}

/* ---- datagrams --------------------------------------------------------------------------- */

static void answers_a_datagram(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    union ibv_gid gid;
    struct end *both[] = {&a, &b};
    (void)state;

    for (int i = 0; i < 2; i++) {
        open_end(both[i], IBV_QPT_UD);
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
        assert_int_equal(ibv_modify_qp(both[i]->qp, &attr, IBV_QP_STATE), 0);
        attr.qp_state = IBV_QPS_RTS;
        assert_int_equal(ibv_modify_qp(both[i]->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
        post_recv(both[i], 1, 4096, 1024 + 40);
    }
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 3};
    attr.grh.sgid_index = (uint8_t)gid_index(a.context, &gid);
    attr.grh.dgid = gid;
    struct ibv_ah *ah = ibv_create_ah(a.pd, &attr);
    assert_non_null(ah);
    struct ibv_sge sge = {(uintptr_t)a.buf, 1024, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.ud = {ah, b.qp->qp_num, 0x1111}},
                       *bad;
    memset(a.buf, 0x77, 1024);
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.byte_len, 1024 + 40);
    assert_int_equal(wc.src_qp, a.qp->qp_num);
    assert_true(wc.wc_flags & IBV_WC_GRH);
    assert_memory_equal(b.buf + 4096 + 40, a.buf, 1024);
    struct ibv_ah_attr to_a;
    struct ibv_grh *grh = (struct ibv_grh *)(b.buf + 4096);
    assert_int_equal(ibv_init_ah_from_wc(b.context, 1, &wc, grh, &to_a), 0);
    assert_int_equal(to_a.sl, 0);
    assert_memory_equal(&to_a.grh.dgid, &gid, 16);
    struct ibv_ah *back = ibv_create_ah_from_wc(b.pd, &wc, grh, 1);
    assert_non_null(back);
    sge = (struct ibv_sge){(uintptr_t)b.buf, 10, b.mr->lkey};
    wr.wr.ud.ah = back;
    wr.wr.ud.remote_qpn = wc.src_qp;
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), 0);
    do await(&a, &wc);
    while (wc.opcode != IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 50);
    assert_int_equal(ibv_destroy_ah(back), 0);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&a);
    close_end(&b);
}

/* ---- fork -------------------------------------------------------------------------------- */

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

static void knows_its_members(void **state)
{
    struct end e;
    uint8_t configured = 9, active = 9;
    __typeof__(&rbonddv_query_qp_affinity) query = dlsym(RTLD_DEFAULT, "rbonddv_query_qp_affinity");
    __typeof__(&rbonddv_modify_qp_affinity) modify =
        dlsym(RTLD_DEFAULT, "rbonddv_modify_qp_affinity");
    (void)state;

    assert_non_null(query);
    assert_non_null(modify);
    open_end(&e, IBV_QPT_RC);
    assert_int_equal(query(e.qp, &configured, &active), 0);
    assert_int_equal(configured, 0);
    assert_int_equal(active, 0);
    assert_int_equal(modify(e.qp, 0), 0);
    assert_int_equal(modify(e.qp, 1), EINVAL); /* a plain port has one member */
    close_end(&e);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_it_is),    cmocka_unit_test(imports_no_device),
        cmocka_unit_test(refuses_mistakes),   cmocka_unit_test(refuses_a_path_mtu_beyond_the_port),
        cmocka_unit_test(moves_data),         cmocka_unit_test(posts_all_or_none_through_wr),
        cmocka_unit_test(wakes_a_sleeper),    cmocka_unit_test(tells_of_a_qp_in_error),
        cmocka_unit_test(answers_a_datagram), cmocka_unit_test(leaves_the_adapter_to_the_parent),
        cmocka_unit_test(knows_its_members),
    };
    if (argc != 2) return 2;
    device_name = argv[1];
    struct ibv_device **list = ibv_get_device_list(NULL);
    for (int i = 0; list && list[i]; i++)
        if (strcmp(ibv_get_device_name(list[i]), device_name) == 0) device = list[i];
    if (list) ibv_free_device_list(list);
    if (!device) {
        fprintf(stderr, "no device %s\n", device_name);
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
