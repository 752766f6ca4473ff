/* Frames of the kernel's rxe: each decodes, encodes to the same bytes, has the ICRC that it
 * carries, and so do the CM messages inside. */
#include "wire/cm_msg.h"
#include "wire/cmocka_all.h"
#include "wire/frame.h"
#include "wire/opcode.h"
#include <glob.h>
#include <stdlib.h>

static struct pcap pcap;
static unsigned roce_frames, cm_frames, nonzero_ids;

static void check_headers(const struct frame *f, const uint8_t *bytes)
{
    uint8_t again[ETH_HDR_MAX_LEN + IPV6_HDR_LEN + UDP_HDR_LEN];
    size_t n = eth_encode(again, &f->eth);
    n += ip_encode(again + n, &f->ip);
    udp_encode(again + n, &f->udp);
    assert_memory_equal(again, bytes, n + UDP_HDR_LEN);
}

static void check_cm(const uint8_t *mad, size_t len)
{
    struct cm_msg m;
    uint8_t again[MAD_LEN];
    assert_true(cm_msg_decode(&m, mad, len));
    cm_msg_encode(again, &m);
    assert_memory_equal(again, mad, MAD_LEN);
    const uint8_t *private_data = m.attr == CM_REQ        ? m.req.private_data
                                  : m.attr == CM_SIDR_REQ ? m.sidr_req.private_data
                                                          : NULL;
    if (private_data) {
        struct rdma_cm_hdr h;
        assert_true(rdma_cm_hdr_decode(&h, private_data, CM_REQ_PRIVATE));
        rdma_cm_hdr_encode(again, &h);
        assert_memory_equal(again, private_data, RDMA_CM_HDR_LEN);
    }
    cm_frames++;
}

static void check_frame(void)
{
    struct frame f;
    if (!frame_open(&f, pcap.frame, pcap.len)) return;
    roce_frames++;
    check_headers(&f, pcap.frame);

    struct roce_hdr h;
    size_t hdr_len;
    assert_int_equal(roce_decode(&h, f.roce, f.roce_len, &hdr_len), ROCE_OK);
    uint8_t again[ROCE_MAX_HDR_LEN];
    assert_int_equal(roce_encode(again, &h), hdr_len);
    assert_memory_equal(again, f.roce, hdr_len);
    assert_int_equal(frame_icrc(&f), f.icrc);

    uint16_t id, real_id = f.ip.id;
    f.ip.id = 0;
    assert_true(icrc_explained_v4(frame_icrc(&f), f.icrc, f.roce_len, &id));
    assert_int_equal(id, real_id);
    nonzero_ids += real_id != 0;

    if (h.dqpn == 1) check_cm(f.roce + hdr_len, f.roce_len - hdr_len);
}

static void test_every_frame(void **state)
{
    glob_t found;
    char pattern[512];
    snprintf(pattern, sizeof pattern, "%s/rxe-*.pcap", getenv("RBOND_GOLDEN"));
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 10);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        assert_true(pcap_open(&pcap, found.gl_pathv[i]));
        while (pcap_next(&pcap)) check_frame();
        pcap_close(&pcap);
    }
    globfree(&found);
    /* What tshark counts in the ten traces. */
    assert_int_equal(roce_frames, 749);
    assert_int_equal(cm_frames, 55);
    assert_true(nonzero_ids > 700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_frame)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
