/* ATOMIC WRITE and FLUSH. The latter came after the installed headers: its place is behind what
 * they know of struct ibv_qp_ex. */
#include "end.h"
#include "verbs/newer.h"

#define MY_ACCESS (ALL_ACCESS | IBV_ACCESS_FLUSH_GLOBAL)

static struct end a, b;
static struct ibv_qp_ex *ex;
static struct ibv_mr *region; /* b's, which a FLUSH may be of */

static void flush(uint64_t id, uint32_t rkey, size_t len, uint8_t type, uint8_t level)
{
    wr_flush_fn *call;
    memcpy(&call, (const char *)ex + WR_FLUSH_OFFSET, sizeof(void *));
    ex->wr_id = id;
    ex->wr_flags = IBV_SEND_SIGNALED;
    call(ex, rkey, (uintptr_t)b.buf, len, type, level);
}

static void atomic_write(uint64_t id, uint32_t rkey, size_t offset, uint64_t value)
{
    ex->wr_id = id;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_atomic_write(ex, rkey, (uintptr_t)b.buf + offset, &value);
}

static void to_init(struct end *e)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qp_access_flags = MY_ACCESS | IBV_ACCESS_FLUSH_PERSISTENT};
    int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
    assert_int_equal(ibv_modify_qp(e->qp, &attr, mask), 0);
}

static void open_both(void)
{
    struct ibv_qp_init_attr_ex init = {
        .cap = {.max_send_wr = 16, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags =
            IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_FLUSH | IBV_QP_EX_WITH_ATOMIC_WRITE};
    for (int i = 0; i < 2; i++) {
        struct end *e = i ? &b : &a;
        open_end(e, IBV_QPT_RC);
        ibv_destroy_qp(e->qp); /* again with these operations */
        init.pd = e->pd;
        init.send_cq = init.recv_cq = ibv_cq_ex_to_cq(e->cq);
        assert_non_null(e->qp = ibv_create_qp_ex(e->context, &init));
        to_init(e);
    }
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
    ex = ibv_qp_to_qp_ex(a.qp);
    assert_non_null(region = ibv_reg_mr(b.pd, b.buf, ROOM, MY_ACCESS));
}

static void close_both(void)
{
    assert_int_equal(ibv_dereg_mr(region), 0);
    close_end(&a);
    close_end(&b);
}

static void completed(uint64_t id, int opcode, uint32_t len)
{
    struct ibv_wc wc;
    await(&a, &wc);
    assert_int_equal(wc.wr_id, id);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, opcode);
    assert_int_equal(wc.byte_len, len);
}

static uint64_t word_at(size_t offset)
{
    uint64_t word;
    memcpy(&word, b.buf + offset, sizeof word);
    return word;
}

/* The device says that it has them, and not the one to persistence. */
static void capabilities(void **state)
{
    (void)state;
    struct ibv_device_attr_ex attr;
    open_end(&a, IBV_QPT_RC);
    assert_int_equal(ibv_query_device_ex(a.context, NULL, &attr), 0);
    const uint64_t persistent = UINT64_C(1) << 39;
    assert_true(attr.device_cap_flags_ex & DEVICE_FLUSH_GLOBAL);
    assert_true(attr.device_cap_flags_ex & DEVICE_ATOMIC_WRITE);
    assert_false(attr.device_cap_flags_ex & persistent);
    if (attr.odp_caps.general_caps & IBV_ODP_SUPPORT) {
        const uint32_t both = IBV_ODP_SUPPORT_FLUSH | IBV_ODP_SUPPORT_ATOMIC_WRITE;
        assert_int_equal(attr.odp_caps.per_transport_caps.rc_odp_caps & both, both);
        assert_int_equal(attr.odp_caps.per_transport_caps.uc_odp_caps & both, 0);
    }
    close_end(&a);
}

static void data_flush_word(void **state)
{
    (void)state;
    open_both();
    memset(a.buf, 7, 5000);
    for (uint64_t round = 1; round <= 20; round++) {
        memset(b.buf, 0, 8192);
        ibv_wr_start(ex);
        ex->wr_id = 1;
        ex->wr_flags = 0;
        ibv_wr_rdma_write(ex, region->rkey, (uintptr_t)b.buf);
        ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 5000);
        flush(2, region->rkey, 5000, IBV_FLUSH_GLOBAL, round % 2 ? IBV_FLUSH_RANGE : IBV_FLUSH_MR);
        atomic_write(3, region->rkey, 8000, round);
        assert_int_equal(ibv_wr_complete(ex), 0);
        completed(2, IBV_WC_FLUSH, 0);
        assert_memory_equal(b.buf, a.buf, 5000);
        completed(3, IBV_WC_ATOMIC_WRITE, 8);
        assert_int_equal(word_at(8000), round);
    }
    close_both();
}

/* None is posted where one is wrong. */
static void wrong_requests(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        uint8_t type, level;
    } bad[] = {{8, 0, IBV_FLUSH_RANGE},
               {8, 4, IBV_FLUSH_RANGE},
               {8, IBV_FLUSH_GLOBAL, 2},
               {(size_t)1 << 32, IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE}};
    struct ibv_data_buf buf = {a.buf, 8};
    struct ibv_wc wc;
    open_both();
    memset(b.buf, 0, 64);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ibv_wr_start(ex);
        atomic_write(1, region->rkey, 0, 1);
        flush(2, region->rkey, bad[i].len, bad[i].type, bad[i].level);
        assert_int_equal(ibv_wr_complete(ex), EINVAL);
    }
    ibv_wr_start(ex);
    atomic_write(1, region->rkey, 0, 1);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 8);
    assert_int_equal(ibv_wr_complete(ex), EINVAL);
    ibv_wr_start(ex);
    atomic_write(1, region->rkey, 0, 1);
    ibv_wr_set_inline_data_list(ex, 1, &buf);
    assert_int_equal(ibv_wr_complete(ex), EINVAL);
    assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(a.cq), 1, &wc), 0);
    /* A data setter is allowed after a FLUSH, and moves nothing. */
    ibv_wr_start(ex);
    flush(3, region->rkey, 8, IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 8);
    assert_int_equal(ibv_wr_complete(ex), 0);
    completed(3, IBV_WC_FLUSH, 0);
    assert_int_equal(word_at(0), 0);
    close_both();
}

static void refused_by_the_peer(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct ibv_wc wc;
        open_both();
        memset(b.buf, 0, 64);
        ibv_wr_start(ex);
        switch (i) {
        case 0: atomic_write(1, region->rkey, 4, 1); break;
        case 1: atomic_write(1, region->rkey, ROOM, 1); break;
        case 2: flush(1, b.mr->rkey, 8, IBV_FLUSH_GLOBAL, IBV_FLUSH_RANGE); break;
        case 3: flush(1, region->rkey, 8, IBV_FLUSH_PERSISTENT, IBV_FLUSH_RANGE); break;
        }
        assert_int_equal(ibv_wr_complete(ex), 0);
        await(&a, &wc);
        assert_int_equal(wc.status, i ? IBV_WC_REM_ACCESS_ERR : IBV_WC_REM_INV_REQ_ERR);
        assert_int_equal(word_at(0) | word_at(8), 0);
        close_both();
    }
}

static void regions(void **state)
{
    (void)state;
    open_both();
    errno = 0;
    assert_null(ibv_reg_mr(b.pd, b.buf, ROOM, MY_ACCESS | IBV_ACCESS_FLUSH_PERSISTENT));
    assert_int_equal(errno, EINVAL);
    /* Pages that are not there yet. */
    uint8_t *fresh = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct ibv_mr *mr = ibv_reg_mr(b.pd, fresh, 8192, MY_ACCESS | IBV_ACCESS_ON_DEMAND);
    if (mr) {
        uint64_t value = 99;
        ibv_wr_start(ex);
        ex->wr_id = 1;
        ex->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_atomic_write(ex, mr->rkey, (uintptr_t)fresh + 4096, &value);
        flush(2, mr->rkey, 0, IBV_FLUSH_GLOBAL, IBV_FLUSH_MR);
        assert_int_equal(ibv_wr_complete(ex), 0);
        completed(1, IBV_WC_ATOMIC_WRITE, 8);
        completed(2, IBV_WC_FLUSH, 0);
        assert_memory_equal(fresh + 4096, &value, 8);
        assert_int_equal(ibv_dereg_mr(mr), 0);
    } else {
        assert_int_equal(errno, EOPNOTSUPP); /* Linux before 5.14 */
    }
    munmap(fresh, 8192);
    close_both();
}

static void other_types(void **state)
{
    (void)state;
    open_end(&a, IBV_QPT_RC);
    struct ibv_qp_init_attr_ex init = {.send_cq = ibv_cq_ex_to_cq(a.cq),
                                       .recv_cq = ibv_cq_ex_to_cq(a.cq),
                                       .cap = {1, 1, 1, 1, 0},
                                       .comp_mask =
                                           IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                       .pd = a.pd};
    for (int i = 0; i < 4; i++) {
        init.qp_type = i & 1 ? IBV_QPT_UD : IBV_QPT_UC;
        init.send_ops_flags = i & 2 ? (uint64_t)IBV_QP_EX_WITH_FLUSH : IBV_QP_EX_WITH_ATOMIC_WRITE;
        assert_null(ibv_create_qp_ex(a.context, &init));
        assert_int_equal(errno, EOPNOTSUPP);
    }
    close_end(&a);
}

EDGE_MAIN(cmocka_unit_test(capabilities), cmocka_unit_test(data_flush_word),
          cmocka_unit_test(wrong_requests), cmocka_unit_test(refused_by_the_peer),
          cmocka_unit_test(regions), cmocka_unit_test(other_types))
