/* Every pair of states, for each service: with the least mask, one bit less, and bits too many. The
 * expectations are ibv_modify_qp(3)'s tables and IBTA 11.2.4.2's, written down a second time. */
#include "bed.h"
#include <errno.h>

enum { RESET, INIT, RTR, RTS, SQD, SQE, ERR, NSTATES };

static const char *const valid_to[NSTATES] = {
    [RESET] = "Y Y - - - - Y", [INIT] = "Y Y Y - - - Y", [RTR] = "Y - - Y - - Y",
    [RTS] = "Y - - Y Y - Y",   [SQD] = "Y - - Y Y - Y",  [SQE] = "Y - - Y - - Y",
    [ERR] = "Y - - - - - Y",
};

static bool is_valid(int from, int to) { return valid_to[from][to * 2] == 'Y'; }

static uint32_t required(enum hca_qp_type type, int from, int to)
{
    if (from == RESET && to == INIT)
        return HCA_QP_PKEY_INDEX | HCA_QP_PORT |
               (type == HCA_QPT_UD ? HCA_QP_QKEY : HCA_QP_ACCESS_FLAGS);
    if (from == INIT && to == RTR && type != HCA_QPT_UD)
        return HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN |
               (type == HCA_QPT_RC || type == HCA_QPT_XRC_RECV
                    ? HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER
                    : 0);
    if (from == RTR && to == RTS)
        return HCA_QP_SQ_PSN |
               (type == HCA_QPT_RC || type == HCA_QPT_XRC_SEND
                    ? HCA_QP_TIMEOUT | HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC
                : type == HCA_QPT_XRC_RECV ? HCA_QP_TIMEOUT
                                           : 0);
    return 0;
}

static int modify(struct bed *bed, int to, uint32_t mask)
{
    struct hca_qp_attr attr = bed_attr(bed, 0);
    attr.state = (enum hca_qp_state)to;
    return hca_qp_modify(bed->hca[0], bed->qp[0], &attr, mask | HCA_QP_STATE, bed->now);
}

static void check_pair(enum hca_qp_type type, int from, int to)
{
    struct bed bed;
    uint32_t want = required(type, from, to);
    bed_open_reset(&bed, type, NULL);
    bed_walk(&bed, 0, (enum hca_qp_state)from);

    struct hca_qp_attr before, after;
    hca_qp_query(bed.qp[0], &before);
    for (uint32_t bits = want; bits; bits &= bits - 1)
        assert_int_equal(modify(&bed, to, want & ~(bits & -bits)), -EINVAL);
    assert_int_equal(modify(&bed, to, want | HCA_QP_CAP), -EINVAL);
    if (to != RTS || from == SQE || type == HCA_QPT_XRC_RECV)
        assert_int_equal(modify(&bed, to, want | HCA_QP_RATE_LIMIT), -EINVAL);
    assert_int_equal(modify(&bed, to, want | 1u << 30), -EINVAL);
    if (to != INIT && to != RTR && !(from == SQD && to == SQD))
        assert_int_equal(modify(&bed, to, want | HCA_QP_PKEY_INDEX), -EINVAL);
    if (to != RTR) assert_int_equal(modify(&bed, to, want | HCA_QP_DEST_QPN), -EINVAL);
    hca_qp_query(bed.qp[0], &after);
    assert_memory_equal(&before, &after, sizeof before);

    assert_int_equal(modify(&bed, to, want), is_valid(from, to) ? 0 : -EINVAL);
    hca_qp_query(bed.qp[0], &after);
    assert_int_equal(after.state, is_valid(from, to) ? to : from);
    bed_close(&bed);
}

static void check_type(enum hca_qp_type type)
{
    for (int from = RESET; from < NSTATES; from++) {
        if (from == SQE && type != HCA_QPT_UC && type != HCA_QPT_UD) continue;
        for (int to = RESET; to < NSTATES; to++) check_pair(type, from, to);
    }
}

static void rc_pairs(void **state) { check_type(HCA_QPT_RC); }
static void uc_pairs(void **state) { check_type(HCA_QPT_UC); }
static void ud_pairs(void **state) { check_type(HCA_QPT_UD); }
static void xrc_send_pairs(void **state) { check_type(HCA_QPT_XRC_SEND); }
static void xrc_recv_pairs(void **state) { check_type(HCA_QPT_XRC_RECV); }

static void optional_bits(void **state)
{
    struct bed bed;
    bed_open(&bed, HCA_QPT_RC);
    assert_int_equal(modify(&bed, RTS, HCA_QP_MIN_RNR_TIMER | HCA_QP_ACCESS_FLAGS), 0);
    assert_int_equal(modify(&bed, RTS, HCA_QP_PATH_MIG_STATE), 0);
    assert_int_equal(modify(&bed, RTS, HCA_QP_ALT_PATH), -EOPNOTSUPP);
    assert_int_equal(modify(&bed, RTS, HCA_QP_RATE_LIMIT), 0);
    assert_int_equal(modify(&bed, RTS, HCA_QP_QKEY), -EINVAL);
    assert_int_equal(modify(&bed, RTS, HCA_QP_TIMEOUT), -EINVAL);
    assert_int_equal(modify(&bed, SQD, HCA_QP_EN_SQD_ASYNC_NOTIFY), 0);
    assert_int_equal(modify(&bed, SQD, HCA_QP_TIMEOUT | HCA_QP_AV | HCA_QP_RETRY_CNT), 0);
    bed_close(&bed);
    bed_open(&bed, HCA_QPT_UD);
    assert_int_equal(modify(&bed, RTS, HCA_QP_QKEY), 0);
    assert_int_equal(modify(&bed, RTS, HCA_QP_ACCESS_FLAGS), -EINVAL);
    bed_close(&bed);
    bed_open(&bed, HCA_QPT_XRC_SEND);
    assert_int_equal(modify(&bed, RTS, HCA_QP_ACCESS_FLAGS | HCA_QP_PATH_MIG_STATE), 0);
    assert_int_equal(modify(&bed, RTS, HCA_QP_MIN_RNR_TIMER), -EINVAL); /* it never sends RNR */
    assert_int_equal(modify(&bed, SQD, 0), 0);
    assert_int_equal(modify(&bed, SQD, HCA_QP_MAX_DEST_RD_ATOMIC), -EINVAL);
    assert_int_equal(modify(&bed, SQD, HCA_QP_RETRY_CNT | HCA_QP_MAX_QP_RD_ATOMIC), 0);
    bed_close(&bed);
    bed_open(&bed, HCA_QPT_XRC_RECV);
    assert_int_equal(modify(&bed, RTS, HCA_QP_ACCESS_FLAGS | HCA_QP_MIN_RNR_TIMER), 0);
    assert_int_equal(modify(&bed, SQD, 0), 0);
    assert_int_equal(modify(&bed, SQD, HCA_QP_RETRY_CNT), -EINVAL);
    assert_int_equal(modify(&bed, SQD, HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_TIMEOUT), 0);
    bed_close(&bed);
}

static void without_state_stays(void **state)
{
    struct bed bed;
    bed_open(&bed, HCA_QPT_RC);
    struct hca_qp_attr attr = {.state = HCA_QPS_RESET, .min_rnr_timer = 5};
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_MIN_RNR_TIMER, bed.now), 0);
    hca_qp_query(bed.qp[0], &attr);
    assert_int_equal(attr.state, HCA_QPS_RTS);
    assert_int_equal(attr.min_rnr_timer, 5);
    bed_close(&bed);
}

static void cur_state_must_be_true(void **state)
{
    struct bed bed;
    bed_open(&bed, HCA_QPT_RC);
    struct hca_qp_attr attr = {.state = HCA_QPS_RTS, .cur_state = HCA_QPS_RTR};
    const uint32_t mask = HCA_QP_STATE | HCA_QP_CUR_STATE;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, mask, bed.now), -EINVAL);
    attr.cur_state = HCA_QPS_RTS;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, mask, bed.now), 0);
    attr.state = (enum hca_qp_state)7;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), -EINVAL);
    bed_close(&bed);
}

static int rtr_with(struct bed *bed, void (*spoil)(struct hca_qp_attr *))
{
    struct hca_qp_attr attr = bed_attr(bed, 0);
    attr.state = HCA_QPS_RTR;
    spoil(&attr);
    return hca_qp_modify(bed->hca[0], bed->qp[0], &attr,
                         HCA_QP_STATE | required(HCA_QPT_RC, INIT, RTR), bed->now);
}

static void spoil_mtu_0(struct hca_qp_attr *a) { a->path_mtu = 0; }
static void spoil_mtu_6(struct hca_qp_attr *a) { a->path_mtu = 6; }
static void spoil_rnr(struct hca_qp_attr *a) { a->min_rnr_timer = 32; }
static void spoil_rd(struct hca_qp_attr *a) { a->max_dest_rd_atomic = HCA_MAX_RD_ATOMIC + 1; }
static void spoil_dgid(struct hca_qp_attr *a) { memset(&a->av.dgid, 0, sizeof a->av.dgid); }
static void spoil_family(struct hca_qp_attr *a) { a->av.dgid.raw[0] = 0x20; }
static void spoil_qpn(struct hca_qp_attr *a) { a->dest_qpn = 1 << 24; }
static void spoil_nothing(struct hca_qp_attr *a) {}

static void bad_values(void **state)
{
    struct bed bed;
    bed_open_reset(&bed, HCA_QPT_RC, NULL);
    bed_walk(&bed, 0, HCA_QPS_INIT);
    assert_int_equal(rtr_with(&bed, spoil_mtu_0), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_mtu_6), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_rnr), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_rd), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_dgid), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_family), -EINVAL);
    assert_int_equal(rtr_with(&bed, spoil_qpn), -EINVAL);
    hca_set_mtu(bed.hca[0], 512);
    assert_int_equal(rtr_with(&bed, spoil_nothing), -EINVAL); /* wants 1024 */
    hca_set_mtu(bed.hca[0], 1024);
    assert_int_equal(rtr_with(&bed, spoil_nothing), 0);
    bed_close(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rc_pairs),
        cmocka_unit_test(uc_pairs),
        cmocka_unit_test(ud_pairs),
        cmocka_unit_test(xrc_send_pairs),
        cmocka_unit_test(xrc_recv_pairs),
        cmocka_unit_test(optional_bits),
        cmocka_unit_test(without_state_stays),
        cmocka_unit_test(cur_state_must_be_true),
        cmocka_unit_test(bad_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
