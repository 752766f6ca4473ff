/* Multicast: groups, delivery to each attached QP, the sender's own copy, twins over two members.
 */
#include "bed.h"
#include <errno.h>

static struct bed bed;
static struct hca_qp *second; /* another QP on side 1, with the same CQs */
static const struct gid group = {{[10] = 0xff, [11] = 0xff, 239, 1, 2, 3}};
static const struct gid group6 = {{0xff, 0x15, [15] = 9}};

static struct hca_qp *one_more(int side, bool block_own)
{
    struct hca_qp *first = bed.qp[side], *qp;
    struct hca_qp_init init = {.type = HCA_QPT_UD,
                               .pd = bed.pd[side],
                               .send_cq = bed.scq[side],
                               .recv_cq = bed.rcq[side],
                               .cap = {.max_send_wr = 4, .max_recv_wr = 4},
                               .block_own_mcast = block_own};
    assert_int_equal(hca_qp_create(bed.hca[side], &init, &qp), 0);
    bed.qp[side] = qp;
    bed_walk(&bed, side, HCA_QPS_RTS);
    bed.qp[side] = first;
    return qp;
}

static int setup(void **state)
{
    bed_open(&bed, HCA_QPT_UD);
    for (int i = 0; i < 4096; i++) bed.mem[0][i] = (uint8_t)(i * 31 + 7);
    second = one_more(1, false);
    return 0;
}

static int teardown(void **state)
{
    bed_close(&bed); /* attached as some are */
    return 0;
}

static int attach(struct hca_qp *qp, const struct gid *gid)
{
    return hca_mcast_attach(bed.hca[1], qp, gid);
}

static void recv_on(struct hca_qp *qp, uint64_t wr_id, uint32_t offset)
{
    struct hca_qp *first = bed.qp[1];
    bed.qp[1] = qp;
    bed_recv(&bed, 1, wr_id, offset, 1024);
    bed.qp[1] = first;
}

static void send_to(const struct gid *gid, uint32_t qkey)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, 100);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, &sge);
    if (!gid_is_ipv4(gid)) wr.ah.sgid = (struct gid){{0xfe, 0x80, [15] = 1}};
    wr.ah.dgid = *gid;
    wr.remote_qpn = ROCE_QPN_MULTICAST;
    wr.remote_qkey = qkey;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
}

static void each_attached_qp_has_its_own(void **state)
{
    assert_int_equal(attach(bed.qp[1], &group), 0);
    assert_int_equal(attach(second, &group), 0);
    assert_int_equal(attach(second, &group), 0); /* twice: once is heard */
    recv_on(bed.qp[1], 1, 0);
    recv_on(second, 2, 2048);
    send_to(&group, BED_QKEY);
    struct hca_wc wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.wr_id, 1);
    assert_int_equal(wc.qpn, hca_qp_num(bed.qp[1]));
    assert_int_equal(wc.src_qpn, hca_qp_num(bed.qp[0]));
    assert_int_equal(wc.byte_len, 140);
    assert_int_equal(wc.flags, HCA_WC_GRH);
    wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.wr_id, 2);
    assert_int_equal(wc.qpn, hca_qp_num(second));
    bed_empty(bed.rcq[1]);
    for (uint32_t at = 0; at <= 2048; at += 2048) {
        assert_memory_equal(bed.mem[1] + at + 40, bed.mem[0], 100);
        assert_memory_equal(bed.mem[1] + at + 36, group.raw + 12, 4); /* the GRH tells the group */
    }
    assert_int_equal(hca_counters(bed.hca[0])->tx_multicast, 1);
    assert_int_equal(hca_counters(bed.hca[1])->rx_multicast, 1);
}

static void each_for_itself(void **state)
{
    attach(bed.qp[1], &group6);
    attach(second, &group6);
    recv_on(second, 2, 0); /* the first has no buffer */
    send_to(&group6, BED_QKEY);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 2);
    bed_empty(bed.rcq[1]);
    assert_int_equal(hca_counters(bed.hca[1])->rx_dropped, 1);

    recv_on(second, 3, 0);
    recv_on(bed.qp[1], 4, 0);
    struct hca_qp_attr attr = {.qkey = 5};
    assert_int_equal(hca_qp_modify(bed.hca[1], second, &attr, HCA_QP_QKEY, bed.now), 0);
    send_to(&group6, 5);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 3);
    assert_int_equal(hca_counters(bed.hca[1])->rx_bad_qkey, 1);

    attr.state = HCA_QPS_RESET;
    assert_int_equal(hca_qp_modify(bed.hca[1], second, &attr, HCA_QP_STATE, bed.now), 0);
    send_to(&group6, BED_QKEY);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 4);
    assert_int_equal(hca_counters(bed.hca[1])->rx_bad_state, 1);
}

static void who_is_not_attached_hears_nothing(void **state)
{
    recv_on(bed.qp[1], 1, 0);
    recv_on(second, 2, 0);
    send_to(&group, BED_QKEY);
    attach(second, &group6);
    send_to(&group, BED_QKEY);
    assert_int_equal(hca_counters(bed.hca[1])->rx_multicast_unwanted, 2);
    assert_int_equal(hca_mcast_detach(bed.hca[1], second, &group6), 0);
    assert_false(hca_mcast_has(bed.hca[1], &group6));
    send_to(&group6, BED_QKEY);
    assert_int_equal(hca_counters(bed.hca[1])->rx_multicast_unwanted, 3);
    bed_empty(bed.rcq[1]);
}

/* A group's datagram to one QP's number, and a host's to the multicast QPN, are nobody's. */
static void address_and_number_agree(void **state)
{
    attach(bed.qp[1], &group);
    recv_on(bed.qp[1], 1, 0);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, NULL);
    wr.ah.dgid = group;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    bed_pump(&bed);
    assert_int_equal(hca_counters(bed.hca[1])->rx_bad_qp, 1);
    wr = bed_send_wr(&bed, 7, NULL);
    wr.remote_qpn = ROCE_QPN_MULTICAST;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    bed_pump(&bed);
    assert_int_equal(hca_counters(bed.hca[1])->rx_multicast_unwanted, 1);
    bed_empty(bed.rcq[1]);
}

static void attaching(void **state)
{
    struct hca *hca = bed.hca[1];
    struct gid seen;
    assert_int_equal(attach(second, &bed.gid[0]), -EINVAL);
    assert_int_equal(hca_mcast_detach(hca, second, &group), -EINVAL);
    assert_int_equal(attach(second, &group), 0);
    assert_int_equal(attach(bed.qp[1], &group6), 0);
    assert_int_equal(hca_mcast_detach(hca, second, &group6), -EINVAL);
    assert_true(hca_mcast_group(hca, 0, &seen) && gid_equal(&seen, &group));
    assert_true(hca_mcast_group(hca, 1, &seen) && gid_equal(&seen, &group6));
    assert_false(hca_mcast_group(hca, 2, &seen));
    assert_int_equal(hca_qp_destroy(hca, second), -EBUSY);
    assert_int_equal(hca_mcast_detach(hca, second, &group), 0);
    assert_true(hca_mcast_group(hca, 0, &seen) && gid_equal(&seen, &group6));
    assert_false(hca_mcast_group(hca, 1, &seen));
    assert_int_equal(hca_qp_destroy(hca, second), 0);

    struct gid many = {{0xff, 0x15}};
    for (int i = 0; i < HCA_MAX_MCAST_GROUPS - 1; i++) {
        many.raw[2] = (uint8_t)i;
        assert_int_equal(attach(bed.qp[1], &many), 0);
    }
    many.raw[3] = 1;
    assert_int_equal(attach(bed.qp[1], &many), -ENOMEM);
}

static void rc_cannot(void **state)
{
    struct bed rc;
    bed_open(&rc, HCA_QPT_RC);
    assert_int_equal(hca_mcast_attach(rc.hca[1], rc.qp[1], &group), -EINVAL);
    bed_close(&rc);
}

static struct hca_rx made(uint8_t bytes[64], qpn_t sqpn, uint32_t psn, uint8_t member)
{
    struct roce_hdr h = {.opcode = 0x64,
                         .pkey = 0xffff,
                         .dqpn = ROCE_QPN_MULTICAST,
                         .psn = psn_of(psn),
                         .deth = {BED_QKEY, sqpn}};
    size_t len = roce_encode(bytes, &h);
    return (struct hca_rx){
        .src = bed.gid[0], .dst = group, .member = member, .data = bytes, .len = len};
}

static void hear(uint32_t psn, uint8_t member)
{
    uint8_t bytes[64];
    struct hca_rx rx = made(bytes, 5, psn, member);
    hca_input(bed.hca[1], &rx, bed.now);
}

static uint64_t heard(void) { return hca_counters(bed.hca[1])->rx_multicast; }

static void twins_are_heard_once(void **state)
{
    attach(second, &group);
    for (uint32_t i = 0; i < 300; i++) hear(0xffff80 + i, 0);
    for (uint32_t i = 0; i < 310; i++) hear(0xffff80 + i, 1);
    assert_int_equal(heard(), 310);
    assert_int_equal(hca_counters(bed.hca[1])->rx_multicast_twins, 300);
    for (uint32_t i = 0; i < 310; i++) hear(0xffff80 + i, 0); /* late ones of the first member */
    assert_int_equal(heard(), 310 + 300); /* what it had brought itself is a sender's new begin */
    bed.now = when_add(bed.now, SEC_NS);
    hear(0xffff80, 1);
    assert_int_equal(heard(), 611); /* long ago */
    hear(0xffff80 + 5000, 0);
    hear(0xffff80 + 5000, 1);
    assert_int_equal(heard(), 612);
}

static void the_senders_own_copy(void **state)
{
    uint8_t bytes[64];
    struct hca_qp *deaf = one_more(1, true);
    recv_on(second, 1, 0);
    recv_on(deaf, 2, 0);
    attach(second, &group);
    attach(deaf, &group);
    struct hca_rx rx = made(bytes, hca_qp_num(deaf), 1, 0);
    rx.own = true;
    hca_input(bed.hca[1], &rx, bed.now);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 1);
    bed_empty(bed.rcq[1]);
    rx.own = false; /* a stranger's QP of the same number */
    hca_input(bed.hca[1], &rx, bed.now);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 2);
    recv_on(second, 3, 0);
    rx = made(bytes, hca_qp_num(second), 2, 0);
    rx.own = true; /* who has not asked for silence hears itself */
    hca_input(bed.hca[1], &rx, bed.now);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 3);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(each_attached_qp_has_its_own),
        T(each_for_itself),
        T(who_is_not_attached_hears_nothing),
        T(address_and_number_agree),
        T(attaching),
        T(rc_cannot),
        T(twins_are_heard_once),
        T(the_senders_own_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
