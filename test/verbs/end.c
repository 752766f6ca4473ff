/* See end.h. */
#include "end.h"
#include <time.h>

struct ibv_device *device;

int gid_index(struct ibv_context *context, union ibv_gid *gid)
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

void make_qp(struct end *e, enum ibv_qp_type type)
{
    struct ibv_cq *cq = ibv_cq_ex_to_cq(e->cq);
    uint64_t ops = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
    if (type == IBV_QPT_RC)
        ops |= IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ |
               IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP;
    struct ibv_qp_init_attr_ex qi = {.send_cq = cq,
                                     .recv_cq = cq,
                                     .srq = e->srq,
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

void open_end(struct end *e, enum ibv_qp_type type)
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
    make_qp(e, type);
}

void close_end(struct end *e)
{
    if (e->qp) assert_int_equal(ibv_destroy_qp(e->qp), 0);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(e->cq)), 0);
    assert_int_equal(ibv_dereg_mr(e->mr), 0);
    assert_int_equal(ibv_destroy_comp_channel(e->channel), 0);
    assert_int_equal(ibv_dealloc_pd(e->pd), 0);
    assert_int_equal(ibv_close_device(e->context), 0);
    munmap(e->buf, ROOM);
}

void connect_rc(struct end *e, const struct end *to, uint8_t timeout)
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

void open_pair(struct end *a, struct end *b)
{
    open_end(a, IBV_QPT_RC);
    open_end(b, IBV_QPT_RC);
    connect_rc(a, b, 14);
    connect_rc(b, a, 14);
}

double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void await(struct end *e, struct ibv_wc *wc)
{
    double until = seconds() + WAIT_MS / 1e3;
    int n;

    while ((n = ibv_poll_cq(ibv_cq_ex_to_cq(e->cq), 1, wc)) == 0)
        if (seconds() > until) fail_msg("no completion");
    assert_int_equal(n, 1);
}

void post_recv(struct end *e, uint64_t id, size_t offset, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)e->buf + offset, len, e->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    assert_int_equal(ibv_post_recv(e->qp, &wr, &bad), 0);
}

int post(struct end *e, struct end *to, enum ibv_wr_opcode opcode, uint32_t len)
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

int edge_run(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
    if (argc != 2) return 2;
    struct ibv_device **list = ibv_get_device_list(NULL);
    for (int i = 0; list && list[i]; i++)
        if (strcmp(ibv_get_device_name(list[i]), argv[1]) == 0) device = list[i];
    if (list) ibv_free_device_list(list);
    if (!device) {
        fprintf(stderr, "no device %s\n", argv[1]);
        return 1;
    }
    return _cmocka_run_group_tests(argv[0], tests, n, NULL, NULL);
}
