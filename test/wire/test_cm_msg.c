/* CM messages: the fields of a connection of the kernel's, and every bit of every message. */
#include "base/bits.h"
#include "wire/cm_msg.h"
#include "wire/cmocka_all.h"
#include "wire/frame.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct pcap pcap;

/* The `nth` message (from 0) of that kind in a golden trace. */
static struct cm_msg golden(const char *name, enum cm_attr attr)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("RBOND_GOLDEN"), name);
    assert_true(pcap_open(&pcap, path));
    struct cm_msg m = {0};
    struct frame f;
    while (m.attr != attr && pcap_next(&pcap))
        if (!frame_open(&f, pcap.frame, pcap.len) || f.roce_len != 20 + MAD_LEN ||
            !cm_msg_decode(&m, f.roce + 20, MAD_LEN))
            m.attr = 0;
    pcap_close(&pcap);
    assert_int_equal(m.attr, attr);
    return m;
}

static const struct gid host1 = {{[10] = 0xff, 0xff, 10, 9, 0, 1}};
static const struct gid host2 = {{[10] = 0xff, 0xff, 10, 9, 0, 2}};

static void test_req(void **state)
{
    struct cm_msg m = golden("rxe-rping.pcap", CM_REQ);
    assert_int_equal(m.tid, 0x0000000275d968b6);
    assert_int_equal(m.req.local_comm_id, 0xb668d975);
    assert_int_equal(m.req.service_id, 0x0000000001061c06);
    assert_int_equal(m.req.local_ca_guid, 0x505400fffe7fc500);
    assert_int_equal(m.req.local_qkey, 0);
    assert_int_equal(m.req.local_qpn, 0x11);
    assert_int_equal(m.req.responder_resources, 1);
    assert_int_equal(m.req.initiator_depth, 1);
    assert_int_equal(m.req.remote_cm_response_timeout, 20);
    assert_int_equal(m.req.transport_service_type, 0);
    assert_false(m.req.flow_control);
    assert_int_equal(m.req.starting_psn.v, 0x1c1f54);
    assert_int_equal(m.req.local_cm_response_timeout, 20);
    assert_int_equal(m.req.retry_count, 7);
    assert_int_equal(m.req.pkey, 0xffff);
    assert_int_equal(m.req.path_mtu, 3);
    assert_int_equal(m.req.rnr_retry_count, 7);
    assert_int_equal(m.req.max_cm_retries, 15);
    assert_false(m.req.srq);
    assert_int_equal(m.req.primary.local_lid, 0xffff);
    assert_int_equal(m.req.primary.remote_lid, 0xffff);
    assert_true(gid_equal(&m.req.primary.local_gid, &host1));
    assert_true(gid_equal(&m.req.primary.remote_gid, &host2));
    assert_int_equal(m.req.primary.flow_label, 0x07962);
    assert_int_equal(m.req.primary.packet_rate, 0);
    assert_int_equal(m.req.primary.hop_limit, 64);
    assert_false(m.req.primary.subnet_local);
    assert_int_equal(m.req.primary.local_ack_timeout, 19);

    struct rdma_cm_hdr h;
    assert_true(rdma_cm_hdr_decode(&h, m.req.private_data, CM_REQ_PRIVATE));
    assert_int_equal(h.port, 0x8724);
    assert_true(gid_equal(&h.src, &host1) && gid_equal(&h.dst, &host2));
}

static void test_rep_and_disconnect(void **state)
{
    struct cm_msg m = golden("rxe-rping.pcap", CM_REP);
    assert_int_equal(m.rep.local_comm_id, 0x23fc3d54);
    assert_int_equal(m.rep.remote_comm_id, 0xb668d975);
    assert_int_equal(m.rep.local_qpn, 0x11);
    assert_int_equal(m.rep.starting_psn.v, 0x5346b5);
    assert_int_equal(m.rep.responder_resources, 1);
    assert_int_equal(m.rep.initiator_depth, 1);
    assert_int_equal(m.rep.target_ack_delay, 15);
    assert_int_equal(m.rep.rnr_retry_count, 7);
    assert_int_equal(m.rep.local_ca_guid, 0x505400fffe9d5e00);
    m = golden("rxe-rping.pcap", CM_DREQ);
    assert_int_equal(m.dreq.local_comm_id, 0xb668d975);
    assert_int_equal(m.dreq.remote_comm_id, 0x23fc3d54);
    assert_int_equal(m.dreq.remote_qpn, 0x11);
}

static void test_sidr(void **state)
{
    struct cm_msg m = golden("rxe-send-ud.pcap", CM_SIDR_REQ);
    assert_int_equal(m.sidr_req.request_id, 0xbc68d975);
    assert_int_equal(m.sidr_req.pkey, 0xffff);
    assert_int_equal(m.sidr_req.service_id, 0x01114853);
    m = golden("rxe-send-ud.pcap", CM_SIDR_REP);
    assert_int_equal(m.sidr_rep.request_id, 0xbc68d975);
    assert_int_equal(m.sidr_rep.status, CM_SIDR_OK);
    assert_int_equal(m.sidr_rep.qpn, 0x1e);
    assert_int_equal(m.sidr_rep.service_id, 0x01114853);
    assert_int_equal(m.sidr_rep.qkey, 0x01234567);
}

/* Bits after the MAD header that are reserved, by message, and so are written as zero. */
static size_t reserved_bits(enum cm_attr attr)
{
    switch (attr) {
    case CM_REQ: return 8 + 32 + 2 * (6 + 3 + 3);
    case CM_MRA: return 6 + 3;
    case CM_REJ: return 6 + 1;
    case CM_REP: return 4;
    case CM_DREQ: return 8;
    case CM_SIDR_REQ: return 16;
    default: return 0;
    }
}

/* A message with one bit set: either it comes back, or the bit is reserved and nothing does. */
static void test_every_bit(void **state)
{
    for (uint16_t attr = CM_REQ; attr <= CM_APR; attr++) {
        size_t lost = 0;
        for (size_t bit = 0; bit < MAD_DATA_LEN * 8; bit++) {
            uint8_t mad[MAD_LEN] = {1, CM_CLASS, CM_CLASS_VERSION, MAD_METHOD_SEND}, again[MAD_LEN];
            struct cm_msg m;
            put_be16(mad + 16, attr);
            mad[MAD_HDR_LEN + bit / 8] = (uint8_t)(0x80 >> bit % 8);
            assert_true(cm_msg_decode(&m, mad, sizeof mad));
            cm_msg_encode(again, &m);
            if (memcmp(again, mad, MAD_LEN) == 0) continue;
            mad[MAD_HDR_LEN + bit / 8] = 0;
            assert_memory_equal(again, mad, MAD_LEN);
            lost++;
        }
        assert_int_equal(lost, reserved_bits((enum cm_attr)attr));
    }
}

static void test_refused(void **state)
{
    uint8_t mad[MAD_LEN] = {1, CM_CLASS, CM_CLASS_VERSION, MAD_METHOD_SEND};
    struct cm_msg m;
    put_be16(mad + 16, CM_RTU);
    assert_true(cm_msg_decode(&m, mad, MAD_LEN));
    assert_string_equal(cm_msg_name(m.attr), "RTU");
    assert_false(cm_msg_decode(&m, mad, MAD_LEN - 1));
    for (int i = 0; i < 4; i++) {
        mad[i] ^= 0x10;
        assert_false(cm_msg_decode(&m, mad, MAD_LEN));
        mad[i] ^= 0x10;
    }
    put_be16(mad + 16, 0x0f);
    assert_false(cm_msg_decode(&m, mad, MAD_LEN));
    put_be16(mad + 16, 0x1b);
    assert_false(cm_msg_decode(&m, mad, MAD_LEN));
    assert_string_equal(cm_msg_name(0x1b), "?");
}

static void test_rdma_cm_hdr(void **state)
{
    struct rdma_cm_hdr h = {
        .port = 7, .src = {{0xfe, 0x80, [15] = 1}}, .dst = {{0xfe, 0x80, [15] = 2}}};
    struct rdma_cm_hdr got;
    uint8_t b[RDMA_CM_HDR_LEN];
    rdma_cm_hdr_encode(b, &h);
    assert_int_equal(b[1], 0x60);
    assert_true(rdma_cm_hdr_decode(&got, b, sizeof b));
    assert_memory_equal(&got, &h, sizeof h);
    assert_false(rdma_cm_hdr_decode(&got, b, sizeof b - 1));
    b[1] = 0x50;
    assert_false(rdma_cm_hdr_decode(&got, b, sizeof b));
    b[0] = 0x10;
    b[1] = 0x40;
    assert_false(rdma_cm_hdr_decode(&got, b, sizeof b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_req),     cmocka_unit_test(test_rep_and_disconnect),
        cmocka_unit_test(test_sidr),    cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_rdma_cm_hdr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
