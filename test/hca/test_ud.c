/* Datagrams: the GRH in front, Q_Keys, lengths, send errors and the SQE state. */
#include "base/bits.h"
#include "bed.h"
#include "hca/ud.h"
#include "wire/opcode.h"
#include <errno.h>

static struct bed bed;

static int setup(void **state)
{
    bed_open(&bed, HCA_QPT_UD);
    for (int i = 0; i < 4096; i++) bed.mem[0][i] = (uint8_t)(i * 31 + 7);
    return 0;
}

static int teardown(void **state)
{
    bed_close(&bed);
    return 0;
}

static void post(const struct hca_send_wr *wr)
{
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], wr, bed.now), 0);
}

static enum hca_qp_state state_of(int side)
{
    struct hca_qp_attr attr;
    hca_qp_query(bed.qp[side], &attr);
    return attr.state;
}

static void arrives_with_ipv4_header(void **state)
{
    bed_recv(&bed, 1, 40, 0, 2048);
    struct hca_sge sge = bed_sge(&bed, 0, 0, 101);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, &sge);
    wr.opcode = HCA_WR_SEND_WITH_IMM;
    wr.imm_be = 0xabcdef01;
    post(&wr);
    bed_pump(&bed);

    struct hca_wc wc = bed_poll(bed.scq[0]);
    assert_int_equal(wc.wr_id, 7);
    assert_int_equal(wc.opcode, HCA_WC_SEND);
    wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.wr_id, 40);
    assert_int_equal(wc.status, HCA_WC_SUCCESS);
    assert_int_equal(wc.opcode, HCA_WC_RECV);
    assert_int_equal(wc.byte_len, 141);
    assert_int_equal(wc.flags, HCA_WC_GRH | HCA_WC_WITH_IMM);
    assert_int_equal(wc.imm_be, 0xabcdef01);
    assert_int_equal(wc.src_qpn, hca_qp_num(bed.qp[0]));
    assert_int_equal(wc.sl, 10); /* UDP over IPv4, as adapters say it */
    assert_memory_equal(bed.mem[1] + UD_GRH_LEN, bed.mem[0], 101);

    const uint8_t *ip = bed.mem[1] + 20;
    assert_int_equal(ip[0], 0x45);
    assert_int_equal(ip[1], BED_CLASS);
    assert_int_equal(get_be16(ip + 2), 20 + 8 + 12 + 8 + 4 + 101 + 3 + 4);
    assert_int_equal(ip[8], 33);
    assert_int_equal(ip[9], 17);
    assert_int_equal(get_be32(ip + 12), 0x0a000001);
    assert_int_equal(get_be32(ip + 16), 0x0a000002);
    uint32_t sum = 0;
    for (int i = 0; i < 20; i += 2) sum += get_be16(ip + i);
    assert_int_equal((sum >> 16) + (sum & 0xffff), 0xffff); /* RFC 1071 */
}

static void arrives_with_ipv6_header(void **state)
{
    bed_recv(&bed, 1, 40, 0, 40);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, NULL);
    wr.ah.sgid = (struct gid){.raw = {0xfe, 0x80, [15] = 1}};
    wr.ah.dgid = (struct gid){.raw = {0xfe, 0x80, [15] = 2}};
    post(&wr);
    bed_pump(&bed);
    struct hca_wc wc = bed_poll(bed.rcq[1]);
    assert_int_equal(wc.byte_len, 40);
    assert_int_equal(wc.sl, 9); /* UDP over IPv6 */
    const uint8_t *ip = bed.mem[1];
    assert_int_equal(get_be32(ip), 0x66800000);
    assert_int_equal(get_be16(ip + 4), 8 + 12 + 8 + 4);
    assert_int_equal(ip[6], 17);
    assert_int_equal(ip[7], 33);
    assert_memory_equal(ip + 8, wr.ah.sgid.raw, 16);
    assert_memory_equal(ip + 24, wr.ah.dgid.raw, 16);
}

static void qkeys(void **state)
{
    bed_recv(&bed, 1, 1, 0, 2048);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, NULL);
    wr.remote_qkey = 0x22222222;
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS); /* nobody tells the sender */
    bed_empty(bed.rcq[1]);
    assert_int_equal(hca_counters(bed.hca[1])->rx_bad_qkey, 1);
    wr.remote_qkey = 0x80000000; /* stands for the QP's own */
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 1);
}

static void no_buffer_or_a_short_one(void **state)
{
    struct hca_sge sge = bed_sge(&bed, 0, 0, 100);
    struct hca_send_wr wr = bed_send_wr(&bed, 7, &sge);
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(hca_counters(bed.hca[1])->rx_dropped, 1);
    bed_recv(&bed, 1, 1, 0, 139);
    post(&wr);
    bed_pump(&bed);
    bed_empty(bed.rcq[1]);
    assert_int_equal(hca_counters(bed.hca[1])->resp_local_length_error, 1);
    assert_int_equal(state_of(1), HCA_QPS_RTS);
    sge.length = 99;
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 1);
}

static void above_the_mtu(void **state)
{
    hca_set_mtu(bed.hca[0], 1024);
    for (uint64_t i = 0; i < 4; i++) {
        struct hca_sge sge = bed_sge(&bed, 0, 0, i == 1 ? 1025 : 1024);
        struct hca_send_wr wr = bed_send_wr(&bed, i, &sge);
        post(&wr);
    }
    for (unsigned i = 0; i < 4; i++) bed_recv(&bed, 1, i, i * 2048, 2048);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
    struct hca_wc wc = bed_poll(bed.scq[0]);
    assert_int_equal(wc.wr_id, 1);
    assert_int_equal(wc.status, HCA_WC_LOC_LEN_ERR);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_WR_FLUSH_ERR);
    bed_empty(bed.scq[0]);
    assert_int_equal(state_of(0), HCA_QPS_SQE);
    bed_poll(bed.rcq[1]);
    bed_empty(bed.rcq[1]);

    /* SQE flushes what is posted, receives, and returns to RTS by request */
    struct hca_send_wr wr = bed_send_wr(&bed, 9, NULL);
    post(&wr);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_WR_FLUSH_ERR);
    struct hca_qp_attr attr = {.state = HCA_QPS_RTS, .cur_state = HCA_QPS_SQE};
    assert_int_equal(
        hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE | HCA_QP_CUR_STATE, bed.now), 0);
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 1);
}

/* Over a net device of large packets, from a peer that is not RoCE's. */
static void longer_than_any_mtu(void **state)
{
    enum { LEN = HCA_MAX_MTU + 4 };
    static uint8_t bytes[ROCE_MAX_HDR_LEN + LEN];
    struct hca_mr *null;
    struct roce_hdr h = {.opcode = ROCE_UD | ROCE_SEND_ONLY,
                         .pkey = ROCE_PKEY_DEFAULT,
                         .dqpn = hca_qp_num(bed.qp[1]),
                         .deth = {BED_QKEY, 5}};
    assert_int_equal(hca_mr_reg_null(bed.hca[1], bed.pd[1], &null), 0);
    struct hca_sge sge = {0, 2 * LEN, hca_mr_lkey(null)};
    const struct hca_recv_wr wr = {.wr_id = 4, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_post_recv(bed.hca[1], bed.qp[1], &wr, bed.now), 0);

    struct hca_rx rx = {.src = bed.gid[0], .dst = bed.gid[1], .data = bytes};
    rx.len = roce_encode(bytes, &h) + LEN;
    hca_input(bed.hca[1], &rx, bed.now);
    bed_empty(bed.rcq[1]);
    assert_int_equal(hca_counters(bed.hca[1])->resp_local_length_error, 1);
    rx.len -= 4;
    hca_input(bed.hca[1], &rx, bed.now);
    assert_int_equal(bed_poll(bed.rcq[1]).byte_len, UD_GRH_LEN + HCA_MAX_MTU);
}

static void bad_receive_key(void **state)
{
    struct hca_sge sge = bed_sge(&bed, 1, 0, 2048);
    sge.lkey ^= 0x55;
    struct hca_recv_wr rwr = {.wr_id = 3, .sge = &sge, .num_sge = 1};
    assert_int_equal(hca_post_recv(bed.hca[1], bed.qp[1], &rwr, bed.now), 0);
    bed_recv(&bed, 1, 4, 0, 2048);
    struct hca_send_wr wr = bed_send_wr(&bed, 9, NULL);
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed_poll(bed.rcq[1]).status, HCA_WC_LOC_PROT_ERR);
    assert_int_equal(bed_poll(bed.rcq[1]).status, HCA_WC_WR_FLUSH_ERR);
    assert_int_equal(state_of(1), HCA_QPS_ERR);
}

static void completes_only_when_the_port_has_read(void **state)
{
    struct hca_tx tx[4];
    struct hca_send_wr wr = bed_send_wr(&bed, 9, NULL);
    post(&wr);
    assert_int_equal(hca_output(bed.hca[0], tx, 4, bed.now), 1);
    bed_empty(bed.scq[0]);
    assert_true(when_due(hca_deadline(bed.hca[0]), bed.now));
    assert_int_equal(hca_output(bed.hca[0], tx, 4, bed.now), 0);
    assert_int_equal(bed_poll(bed.scq[0]).wr_id, 9);
    assert_true(when_is_never(hca_deadline(bed.hca[0])));
}

static void no_member(void **state)
{
    bed_steer(&bed, 0, STEER_NO_MEMBER);
    struct hca_send_wr wr = bed_send_wr(&bed, 9, NULL);
    post(&wr);
    bed_pump(&bed);
    assert_int_equal(bed.carried, 0);
    assert_int_equal(hca_counters(bed.hca[0])->tx_packets, 0);
    assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS);
}

static void inline_bytes_are_copied_at_once(void **state)
{
    char text[] = "these bytes";
    bed_recv(&bed, 1, 1, 0, 2048);
    struct hca_sge sge[3] = {{(uintptr_t)text, 6, 0}, {0, 0, 0}, {(uintptr_t)text + 6, 5, 0}};
    struct hca_send_wr wr = bed_send_wr(&bed, 9, sge);
    wr.num_sge = 3;
    wr.flags |= HCA_SEND_INLINE;
    post(&wr);
    memset(text, 0, sizeof text);
    bed_pump(&bed);
    bed_poll(bed.rcq[1]);
    assert_memory_equal(bed.mem[1] + UD_GRH_LEN, "these bytes", 11);
    sge[0].length = 60;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
}

static void opcodes_of_other_services(void **state)
{
    struct hca_send_wr wr = bed_send_wr(&bed, 9, NULL);
    wr.opcode = HCA_WR_RDMA_WRITE;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    wr.opcode = HCA_WR_RDMA_READ;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
    wr.opcode = (enum hca_wr_opcode)77;
    assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), -EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(arrives_with_ipv4_header),
        TEST(arrives_with_ipv6_header),
        TEST(qkeys),
        TEST(no_buffer_or_a_short_one),
        TEST(above_the_mtu),
        TEST(longer_than_any_mtu),
        TEST(bad_receive_key),
        TEST(completes_only_when_the_port_has_read),
        TEST(no_member),
        TEST(inline_bytes_are_copied_at_once),
        TEST(opcodes_of_other_services),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
