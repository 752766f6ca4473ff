/* Memory windows: who may bind, what a bound one grants, and when it ceases to. */
#include "bed.h"
#include <errno.h>

#define WRITE HCA_ACCESS_REMOTE_WRITE
#define READ HCA_ACCESS_REMOTE_READ
#define ATOMIC HCA_ACCESS_REMOTE_ATOMIC
#define FROM 1000u /* of the window in side 1's memory */
#define LEN 3000u

/* Side 1 owns the region and its windows, side 0 is the peer that uses them. */
static struct bed bed;
static struct hca_mr *mr;

static uint64_t va(uint32_t offset) { return (uintptr_t)bed.mem[1] + offset; }

static void open_bed(enum hca_qp_type type)
{
    bed_open(&bed, type);
    assert_int_equal(hca_mr_reg(bed.hca[1], bed.pd[1], bed.mem[1], BED_MEM, va(0),
                                HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_MW_BIND, &mr),
                     0);
}

static struct hca_mw *window(enum hca_mw_type type)
{
    struct hca_mw *mw;
    assert_int_equal(hca_mw_alloc(bed.hca[1], bed.pd[1], type, &mw), 0);
    return mw;
}

static struct hca_send_wr bind_wr(uint32_t rkey, uint32_t access)
{
    return (struct hca_send_wr){.wr_id = 77,
                                .opcode = HCA_WR_BIND_MW,
                                .flags = HCA_SEND_SIGNALED,
                                .remote_addr = va(FROM),
                                .rkey = rkey,
                                .bind_length = LEN,
                                .bind_lkey = hca_mr_lkey(mr),
                                .bind_access = access};
}

static enum hca_wc_status post(int side, const struct hca_send_wr *wr)
{
    assert_int_equal(hca_post_send(bed.hca[side], bed.qp[side], wr, bed.now), 0);
    bed_pump(&bed);
    return bed_poll(bed.scq[side]).status;
}

static enum hca_wc_status bind(uint32_t rkey, uint32_t access)
{
    struct hca_send_wr wr = bind_wr(rkey, access);
    return post(1, &wr);
}

static enum hca_wc_status invalidate(int side, uint32_t rkey)
{
    struct hca_send_wr wr = {
        .opcode = HCA_WR_LOCAL_INV, .flags = HCA_SEND_SIGNALED, .inv_rkey = rkey};
    return post(side, &wr);
}

/* The peer's request of this kind through the key. */
static enum hca_wc_status use(enum hca_wr_opcode op, uint32_t rkey, uint64_t at, uint32_t len)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, len);
    struct hca_send_wr wr = bed_send_wr(&bed, 1, &sge);
    wr.opcode = op;
    wr.rkey = rkey;
    wr.remote_addr = at;
    return post(0, &wr);
}

/* Both queue pairs anew, as after a refused access. */
static void reconnect(void)
{
    struct hca_wc wc;
    for (int side = 0; side < 2; side++) {
        struct hca_qp_attr attr = {.state = HCA_QPS_RESET};
        assert_int_equal(hca_qp_modify(bed.hca[side], bed.qp[side], &attr, HCA_QP_STATE, bed.now),
                         0);
        while (hca_cq_poll(bed.scq[side], &wc, 1)) {
        }
        bed_walk(&bed, side, HCA_QPS_RTS);
    }
}

/* ---- what a window grants ---------------------------------------------------------------- */

static void grants(void **state)
{
    for (enum hca_mw_type type = HCA_MW_TYPE_1; type <= HCA_MW_TYPE_2; type++) {
        open_bed(HCA_QPT_RC);
        uint32_t key = hca_mw_rkey(window(type)) ^ 1;
        assert_int_equal(bind(key, WRITE | READ | ATOMIC), HCA_WC_SUCCESS);
        memset(bed.mem[0], 0xab, LEN);
        assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), LEN), HCA_WC_SUCCESS);
        assert_memory_equal(bed.mem[1] + FROM, bed.mem[0], LEN);
        assert_int_equal(bed.mem[1][FROM - 1], 0);
        assert_int_equal(bed.mem[1][FROM + LEN], 0);
        memset(bed.mem[0], 0, LEN);
        assert_int_equal(use(HCA_WR_RDMA_READ, key, va(FROM), LEN), HCA_WC_SUCCESS);
        assert_memory_equal(bed.mem[1] + FROM, bed.mem[0], LEN);
        assert_int_equal(use(HCA_WR_ATOMIC_FETCH_AND_ADD, key, va(FROM), 8), HCA_WC_SUCCESS);
        bed_close(&bed);
    }
}

static void no_more_than_bound(void **state)
{
    static const struct {
        enum hca_wr_opcode op;
        int32_t from;
        uint32_t len, access;
    } cases[] = {
        {HCA_WR_RDMA_WRITE, 0, 8, READ},
        {HCA_WR_RDMA_READ, 0, 8, WRITE},
        {HCA_WR_ATOMIC_FETCH_AND_ADD, 0, 8, WRITE | READ},
        {HCA_WR_RDMA_WRITE, -8, 8, WRITE},
        {HCA_WR_RDMA_WRITE, -8, 16, WRITE},
        {HCA_WR_RDMA_WRITE, LEN, 8, WRITE},
        {HCA_WR_RDMA_WRITE, 8, LEN, WRITE},
        {HCA_WR_RDMA_READ, LEN - 4, 8, READ},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_bed(HCA_QPT_RC);
        uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
        assert_int_equal(bind(key, cases[i].access), HCA_WC_SUCCESS);
        assert_int_equal(
            use(cases[i].op, key, va(FROM) + (uint64_t)(int64_t)cases[i].from, cases[i].len),
            HCA_WC_REM_ACCESS_ERR);
        bed_close(&bed);
    }
}

static void zero_based(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    assert_int_equal(bind(key, WRITE | HCA_ACCESS_ZERO_BASED), HCA_WC_SUCCESS);
    memset(bed.mem[0], 0x5a, 16);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, LEN - 16, 16), HCA_WC_SUCCESS);
    assert_memory_equal(bed.mem[1] + FROM + LEN - 16, bed.mem[0], 16);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 16), HCA_WC_REM_ACCESS_ERR);
    bed_close(&bed);
}

static void not_before_bound_nor_as_lkey(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_1));
    assert_int_equal(use(HCA_WR_RDMA_READ, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    reconnect();
    assert_int_equal(bind(key, WRITE | READ), HCA_WC_SUCCESS);
    struct hca_sge sge = {va(FROM), 8, key};
    struct hca_send_wr wr = {.opcode = HCA_WR_SEND, .sge = &sge, .num_sge = 1};
    assert_int_equal(post(1, &wr), HCA_WC_LOC_PROT_ERR);
    bed_close(&bed);
}

/* ---- who may bind ------------------------------------------------------------------------ */

enum wrong {
    NO_SUCH_WINDOW,
    REGION_FOR_WINDOW,
    WINDOW_OF_OTHER_PD,
    NO_SUCH_REGION,
    WINDOW_FOR_REGION,
    REGION_OF_OTHER_PD,
    REGION_WITHOUT_BIND,
    REGION_NOT_WRITABLE,
    NULL_REGION,
    BELOW,
    ABOVE,
    FOREIGN_ACCESS,
    ZERO_BASED_TYPE_1,
    EMPTY_TYPE_2,
    WRONGS
};

static uint32_t other_region(uint32_t pd, uint32_t access)
{
    struct hca_mr *other;
    assert_int_equal(hca_mr_reg(bed.hca[1], pd, bed.mem[1], BED_MEM, va(0), access, &other), 0);
    return hca_mr_lkey(other);
}

static void spoil(struct hca_send_wr *wr, enum wrong wrong)
{
    const uint32_t pd = bed.pd[1], other_pd = hca_pd_alloc(bed.hca[1]);
    const uint32_t access = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_MW_BIND;
    struct hca_mw *mw;
    struct hca_mr *null;
    switch (wrong) {
    case NO_SUCH_WINDOW: wr->rkey = 0xffff00; break;
    case REGION_FOR_WINDOW: wr->rkey = other_region(pd, access); break;
    case WINDOW_OF_OTHER_PD:
        assert_int_equal(hca_mw_alloc(bed.hca[1], other_pd, HCA_MW_TYPE_2, &mw), 0);
        wr->rkey = hca_mw_rkey(mw);
        break;
    case NO_SUCH_REGION: wr->bind_lkey ^= 1; break;
    case WINDOW_FOR_REGION: wr->bind_lkey = hca_mw_rkey(window(HCA_MW_TYPE_1)); break;
    case REGION_OF_OTHER_PD: wr->bind_lkey = other_region(other_pd, access); break;
    case REGION_WITHOUT_BIND: wr->bind_lkey = other_region(pd, HCA_ACCESS_LOCAL_WRITE); break;
    case REGION_NOT_WRITABLE: wr->bind_lkey = other_region(pd, HCA_ACCESS_MW_BIND); break;
    case NULL_REGION:
        assert_int_equal(hca_mr_reg_null(bed.hca[1], pd, &null), 0);
        wr->bind_lkey = hca_mr_lkey(null);
        break;
    case BELOW: wr->remote_addr = va(0) - 1; break;
    case ABOVE: wr->bind_length = BED_MEM; break;
    case FOREIGN_ACCESS: wr->bind_access |= HCA_ACCESS_MW_BIND; break;
    case ZERO_BASED_TYPE_1:
        wr->rkey = hca_mw_rkey(window(HCA_MW_TYPE_1));
        wr->bind_access |= HCA_ACCESS_ZERO_BASED;
        break;
    case EMPTY_TYPE_2: wr->bind_length = 0; break;
    case WRONGS: break;
    }
}

static void refused_binds(void **state)
{
    for (enum wrong wrong = 0; wrong < WRONGS; wrong++) {
        open_bed(HCA_QPT_RC);
        struct hca_send_wr wr = bind_wr(hca_mw_rkey(window(HCA_MW_TYPE_2)), WRITE);
        spoil(&wr, wrong);
        assert_int_equal(post(1, &wr), HCA_WC_MW_BIND_ERR);
        assert_int_equal(bed.qp[1]->state, HCA_QPS_ERR);
        assert_int_equal(hca_mr_dereg(bed.hca[1], mr), 0); /* nothing is bound to it */
        bed_close(&bed);
    }
}

static void reading_needs_no_write(void **state)
{
    open_bed(HCA_QPT_RC);
    struct hca_send_wr wr = bind_wr(hca_mw_rkey(window(HCA_MW_TYPE_2)), READ);
    wr.bind_lkey = other_region(bed.pd[1], HCA_ACCESS_MW_BIND);
    assert_int_equal(post(1, &wr), HCA_WC_SUCCESS);
    bed_close(&bed);
}

static void datagrams_bind_nothing(void **state)
{
    open_bed(HCA_QPT_UD);
    struct hca_send_wr wr = bind_wr(hca_mw_rkey(window(HCA_MW_TYPE_1)), READ);
    assert_int_equal(hca_post_send(bed.hca[1], bed.qp[1], &wr, bed.now), -EINVAL);
    bed_close(&bed);
}

/* ---- binding again, and no more ---------------------------------------------------------- */

static void type_1_is_bound_anew(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_1));
    assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
    assert_int_equal(bind(key ^ 1, WRITE), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key ^ 1, va(FROM), 8), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    reconnect();
    /* a length of 0 takes it back */
    struct hca_send_wr wr = bind_wr(key, 0);
    wr.bind_length = 0;
    assert_int_equal(post(1, &wr), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    reconnect();
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), 0);
    assert_int_equal(invalidate(1, key), HCA_WC_LOC_QP_OP_ERR); /* not a way for type 1 */
    bed_close(&bed);
}

static void type_2_is_invalidated_first(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
    assert_int_equal(invalidate(1, key), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    reconnect();
    assert_int_equal(bind(key ^ 1, WRITE), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key ^ 1, va(FROM), 8), HCA_WC_SUCCESS);
    assert_int_equal(bind(key ^ 2, WRITE), HCA_WC_MW_BIND_ERR);
    bed_close(&bed);
}

static void invalidates_by_wrong_keys(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    const uint32_t keys[] = {key, key ^ 1, hca_mr_rkey(mr), 0, UINT32_MAX};
    for (int i = 0; i < 5; i++) { /* the first: not bound */
        assert_int_equal(invalidate(1, keys[i]), HCA_WC_LOC_QP_OP_ERR);
        reconnect();
        if (i == 0) assert_int_equal(bind(key, READ), HCA_WC_SUCCESS);
        if (i == 0) reconnect(); /* which invalidates */
    }
    bed_close(&bed);
}

static enum hca_wc_status send_inv(uint32_t rkey)
{
    bed_recv(&bed, 1, 9, 0, 64);
    struct hca_sge sge = bed_sge(&bed, 0, 0, 20);
    struct hca_send_wr wr = bed_send_wr(&bed, 2, &sge);
    wr.opcode = HCA_WR_SEND_WITH_INV;
    wr.inv_rkey = rkey;
    return post(0, &wr);
}

static void remote_invalidate(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
    assert_int_equal(send_inv(key), HCA_WC_SUCCESS);
    struct hca_wc wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.status, HCA_WC_SUCCESS);
    assert_int_equal(wc.flags, HCA_WC_WITH_INV);
    assert_int_equal(wc.inv_rkey, key);
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), 0);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    bed_close(&bed);
    /* of type 1, or not bound */
    for (enum hca_mw_type type = HCA_MW_TYPE_1; type <= HCA_MW_TYPE_2; type++) {
        open_bed(HCA_QPT_RC);
        key = hca_mw_rkey(window(type));
        if (type == HCA_MW_TYPE_1) assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
        assert_int_equal(send_inv(key), HCA_WC_REM_ACCESS_ERR);
        assert_int_equal(bed_poll(bed.rcq[1]).status, HCA_WC_WR_FLUSH_ERR);
        bed_close(&bed);
    }
}

static void regions_wait_for_their_windows(void **state)
{
    open_bed(HCA_QPT_RC);
    struct hca_mw *mw = window(HCA_MW_TYPE_2);
    uint32_t key = hca_mw_rkey(mw);
    assert_int_equal(bind(key, READ), HCA_WC_SUCCESS);
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), -EBUSY);
    assert_int_equal(hca_mr_rereg(bed.hca[1], mr, bed.pd[1], bed.mem[1], 8, va(0), 0), -EBUSY);
    assert_int_equal(use(HCA_WR_RDMA_READ, key, va(FROM), 8), HCA_WC_SUCCESS);
    hca_mw_dealloc(bed.hca[1], mw);
    assert_int_equal(use(HCA_WR_RDMA_READ, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), 0);
    bed_close(&bed);
}

/* ---- whose it is ------------------------------------------------------------------------- */

static struct hca_qp *second_qp(void)
{
    struct hca_qp *qp;
    struct hca_qp_init init = {.type = HCA_QPT_RC,
                               .pd = bed.pd[1],
                               .send_cq = bed.scq[1],
                               .recv_cq = bed.rcq[1],
                               .cap = {.max_send_wr = 4, .max_recv_wr = 4}};
    assert_int_equal(hca_qp_create(bed.hca[1], &init, &qp), 0);
    return qp;
}

static void type_2_is_one_queue_pairs(void **state)
{
    open_bed(HCA_QPT_RC);
    struct hca_qp *first = bed.qp[1];
    uint32_t key[2];
    for (int i = 0; i < 2; i++) {
        struct hca_mw *mw = window(i ? HCA_MW_TYPE_2 : HCA_MW_TYPE_1);
        key[i] = hca_mw_rkey(mw);
    }
    bed.qp[1] = second_qp();
    bed_walk(&bed, 1, HCA_QPS_RTS);
    for (int i = 0; i < 2; i++) assert_int_equal(bind(key[i], WRITE), HCA_WC_SUCCESS);
    struct hca_qp *second = bed.qp[1];
    bed.qp[1] = first;
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key[0], va(FROM), 8), HCA_WC_SUCCESS);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key[1], va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    reconnect();
    assert_int_equal(invalidate(1, key[1]), HCA_WC_LOC_QP_OP_ERR);
    reconnect();
    /* it dies with its queue pair, the other does not */
    assert_int_equal(hca_qp_destroy(bed.hca[1], second), 0);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key[0], va(FROM), 8), HCA_WC_SUCCESS);
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), -EBUSY);
    assert_int_equal(bind(key[1], WRITE), HCA_WC_SUCCESS);
    bed_close(&bed);
}

static void reset_invalidates(void **state)
{
    open_bed(HCA_QPT_RC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
    reconnect();
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), 8), HCA_WC_REM_ACCESS_ERR);
    assert_int_equal(hca_mr_dereg(bed.hca[1], mr), 0);
    bed_close(&bed);
}

/* ---- unreliable connections -------------------------------------------------------------- */

static void over_uc(void **state)
{
    open_bed(HCA_QPT_UC);
    uint32_t key = hca_mw_rkey(window(HCA_MW_TYPE_2));
    assert_int_equal(bind(key, WRITE), HCA_WC_SUCCESS);
    memset(bed.mem[0], 0x77, LEN);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), LEN), HCA_WC_SUCCESS);
    assert_memory_equal(bed.mem[1] + FROM, bed.mem[0], LEN);
    assert_int_equal(invalidate(1, key), HCA_WC_SUCCESS);
    memset(bed.mem[0], 0x78, LEN);
    assert_int_equal(use(HCA_WR_RDMA_WRITE, key, va(FROM), LEN), HCA_WC_SUCCESS);
    assert_int_equal(bed.mem[1][FROM], 0x77); /* nobody says so, but it is not granted */
    assert_int_equal(invalidate(1, key), HCA_WC_LOC_QP_OP_ERR);
    assert_int_equal(bed.qp[1]->state, HCA_QPS_SQE);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grants),
        cmocka_unit_test(no_more_than_bound),
        cmocka_unit_test(zero_based),
        cmocka_unit_test(not_before_bound_nor_as_lkey),
        cmocka_unit_test(refused_binds),
        cmocka_unit_test(reading_needs_no_write),
        cmocka_unit_test(datagrams_bind_nothing),
        cmocka_unit_test(type_1_is_bound_anew),
        cmocka_unit_test(type_2_is_invalidated_first),
        cmocka_unit_test(invalidates_by_wrong_keys),
        cmocka_unit_test(remote_invalidate),
        cmocka_unit_test(regions_wait_for_their_windows),
        cmocka_unit_test(type_2_is_one_queue_pairs),
        cmocka_unit_test(reset_invalidates),
        cmocka_unit_test(over_uc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
