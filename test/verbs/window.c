/* Memory windows by every way that verbs have: ibv_bind_mw, ibv_post_send, ibv_wr_*. */
#include "end.h"

#define BINDABLE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND)

/* b opens windows in a region that grants its peer a nothing by itself. */
static struct end a, b;
static struct ibv_mr *region;
static struct ibv_mw *mw;

static void open_window(enum ibv_mw_type type)
{
    open_end(&a, IBV_QPT_RC);
    open_end(&b, IBV_QPT_RC);
    ibv_destroy_qp(b.qp); /* again with all operations */
    struct ibv_qp_init_attr_ex init = {
        .send_cq = ibv_cq_ex_to_cq(b.cq),
        .recv_cq = ibv_cq_ex_to_cq(b.cq),
        .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = b.pd,
        .send_ops_flags = IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV};
    assert_non_null(b.qp = ibv_create_qp_ex(b.context, &init));
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = ALL_ACCESS};
    assert_int_equal(
        ibv_modify_qp(b.qp, &attr,
                      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
        0);
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
    assert_non_null(region = ibv_reg_mr(b.pd, b.buf, ROOM, BINDABLE));
    assert_non_null(mw = ibv_alloc_mw(b.pd, type));
    assert_int_equal(mw->type, type);
}

static void close_window(void)
{
    if (mw) assert_int_equal(ibv_dealloc_mw(mw), 0);
    assert_int_equal(ibv_dereg_mr(region), 0);
    close_end(&a);
    close_end(&b);
}

static struct ibv_mw_bind_info info(uint64_t length)
{
    return (struct ibv_mw_bind_info){.mr = region,
                                     .addr = (uintptr_t)b.buf + 4096,
                                     .length = length,
                                     .mw_access_flags =
                                         IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ};
}

static enum ibv_wc_status completed(struct end *e, enum ibv_wc_opcode opcode)
{
    struct ibv_wc wc;
    await(e, &wc);
    if (wc.status == IBV_WC_SUCCESS) assert_int_equal(wc.opcode, opcode);
    return wc.status;
}

/* a writes through the key. */
static enum ibv_wc_status write_by(uint32_t rkey, uint8_t byte)
{
    struct ibv_sge sge = {(uintptr_t)a.buf, 3000, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_WRITE,
                             .send_flags = IBV_SEND_SIGNALED},
                       *bad;
    memset(a.buf, byte, 3000);
    wr.wr.rdma.remote_addr = (uintptr_t)b.buf + 4096;
    wr.wr.rdma.rkey = rkey;
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    enum ibv_wc_status status = completed(&a, IBV_WC_RDMA_WRITE);
    if (status == IBV_WC_SUCCESS) assert_memory_equal(b.buf + 4096, a.buf, 3000);
    return status;
}

static void device_says_so(void **state)
{
    struct ibv_device_attr attr;
    (void)state;
    open_window(IBV_MW_TYPE_1);
    assert_int_equal(ibv_query_device(b.context, &attr), 0);
    assert_true(attr.max_mw > 0);
    assert_true(attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW);
    assert_true(attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B);
    errno = 0;
    assert_null(ibv_alloc_mw(b.pd, (enum ibv_mw_type)3));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(ibv_dealloc_pd(b.pd), EBUSY);
    close_window();
}

static void type_1(void **state)
{
    (void)state;
    open_window(IBV_MW_TYPE_1);
    struct ibv_mw_bind bind = {
        .wr_id = 5, .send_flags = IBV_SEND_SIGNALED, .bind_info = info(8192)};
    uint32_t before = mw->rkey;
    assert_int_equal(ibv_bind_mw(b.qp, mw, &bind), 0);
    assert_int_equal(mw->rkey, ibv_inc_rkey(before));
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_SUCCESS);
    assert_int_equal(write_by(mw->rkey, 1), IBV_WC_SUCCESS);
    assert_int_equal(ibv_dereg_mr(region), EBUSY);
    /* not through the API of type 2, not zero based */
    struct ibv_send_wr wr = {.opcode = IBV_WR_BIND_MW}, *bad;
    wr.bind_mw.mw = mw;
    wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
    wr.bind_mw.bind_info = info(8192);
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), EINVAL);
    bind.bind_info.mw_access_flags |= IBV_ACCESS_ZERO_BASED;
    assert_int_equal(ibv_bind_mw(b.qp, mw, &bind), EINVAL);
    /* to nothing */
    before = mw->rkey;
    bind.bind_info = (struct ibv_mw_bind_info){0};
    assert_int_equal(ibv_bind_mw(b.qp, mw, &bind), 0);
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_SUCCESS);
    assert_int_equal(write_by(before, 2), IBV_WC_REM_ACCESS_ERR);
    close_window();
}

static void type_2_by_list(void **state)
{
    (void)state;
    open_window(IBV_MW_TYPE_2);
    struct ibv_send_wr wr = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}, *bad;
    uint32_t rkey = ibv_inc_rkey(mw->rkey);
    wr.bind_mw.mw = mw;
    wr.bind_mw.rkey = rkey + 256; /* another's index */
    wr.bind_mw.bind_info = info(8192);
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), EINVAL);
    wr.bind_mw.rkey = rkey;
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), 0);
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_SUCCESS);
    assert_int_equal(write_by(rkey, 3), IBV_WC_SUCCESS);
    wr = (struct ibv_send_wr){
        .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED, .invalidate_rkey = rkey};
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), 0);
    assert_int_equal(completed(&b, IBV_WC_LOCAL_INV), IBV_WC_SUCCESS);
    assert_int_equal(write_by(rkey, 4), IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(b.buf[4096], 3);
    close_window();
}

static void bind_by_wr(uint32_t rkey)
{
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(b.qp);
    struct ibv_mw_bind_info bi = info(8192);
    ibv_wr_start(ex);
    ex->wr_id = 9;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_bind_mw(ex, mw, rkey, &bi);
    assert_int_equal(ibv_wr_complete(ex), 0);
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_SUCCESS);
}

static void type_2_by_wr_and_remote_invalidate(void **state)
{
    struct ibv_wc wc;
    (void)state;
    open_window(IBV_MW_TYPE_2);
    uint32_t rkey = ibv_inc_rkey(mw->rkey);
    bind_by_wr(rkey);
    assert_int_equal(write_by(rkey, 5), IBV_WC_SUCCESS);
    post_recv(&b, 1, 0, 64);
    struct ibv_sge sge = {(uintptr_t)a.buf, 16, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND_WITH_INV,
                             .send_flags = IBV_SEND_SIGNALED,
                             .invalidate_rkey = rkey},
                       *bad;
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    assert_int_equal(completed(&a, IBV_WC_SEND), IBV_WC_SUCCESS);
    await(&b, &wc);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_true(wc.wc_flags & IBV_WC_WITH_INV);
    assert_int_equal(wc.invalidated_rkey, rkey);
    /* it may be bound again, to be closed by its end */
    rkey = ibv_inc_rkey(rkey);
    bind_by_wr(rkey);
    assert_int_equal(write_by(rkey, 6), IBV_WC_SUCCESS);
    assert_int_equal(ibv_dealloc_mw(mw), 0);
    mw = NULL;
    assert_int_equal(write_by(rkey, 7), IBV_WC_REM_ACCESS_ERR);
    close_window();
}

static void a_bad_bind_fails_its_queue_pair(void **state)
{
    (void)state;
    open_window(IBV_MW_TYPE_1);
    struct ibv_mw_bind bind = {.send_flags = IBV_SEND_SIGNALED, .bind_info = info(ROOM)};
    assert_int_equal(ibv_bind_mw(b.qp, mw, &bind), 0); /* it ends beyond the region */
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_MW_BIND_ERR);
    assert_int_equal(ibv_bind_mw(b.qp, mw, &bind), 0);
    assert_int_equal(completed(&b, IBV_WC_BIND_MW), IBV_WC_WR_FLUSH_ERR);
    close_window();
}

EDGE_MAIN(cmocka_unit_test(device_says_so), cmocka_unit_test(type_1),
          cmocka_unit_test(type_2_by_list), cmocka_unit_test(type_2_by_wr_and_remote_invalidate),
          cmocka_unit_test(a_bad_bind_fails_its_queue_pair))
