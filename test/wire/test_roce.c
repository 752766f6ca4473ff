/* PSN arithmetic, the opcode table, the transport headers at every length. */
#include "base/bits.h"
#include "wire/cmocka_all.h"
#include "wire/opcode.h"
#include "wire/roce.h"
#include <stdlib.h>
#include <string.h>

static void test_psn(void **state)
{
    assert_int_equal(psn_diff(psn_of(5), psn_of(3)), 2);
    assert_int_equal(psn_diff(psn_of(3), psn_of(5)), -2);
    assert_int_equal(psn_diff(psn_of(0), psn_of(0xffffff)), 1);
    assert_int_equal(psn_diff(psn_of(0xffffff), psn_of(0)), -1);
    assert_int_equal(psn_diff(psn_of(0x7fffff), psn_of(0)), 0x7fffff);
    assert_int_equal(psn_diff(psn_of(0x800000), psn_of(0)), -0x800000);
    assert_int_equal(psn_add(psn_of(0xfffffe), 5).v, 3);
    assert_int_equal(psn_add(psn_of(3), (uint32_t)-5).v, 0xfffffe);
}

/* Bytes of BTH and extended headers, by IBTA figure: typed in, not computed. 0: no such opcode. */
static const uint8_t expected_len[256] = {
    /* RC */
    [0x00] = 12,
    [0x01] = 12,
    [0x02] = 12,
    [0x03] = 16,
    [0x04] = 12,
    [0x05] = 16,
    [0x06] = 28,
    [0x07] = 12,
    [0x08] = 12,
    [0x09] = 16,
    [0x0a] = 28,
    [0x0b] = 32,
    [0x0c] = 28,
    [0x0d] = 16,
    [0x0e] = 12,
    [0x0f] = 16,
    [0x10] = 16,
    [0x11] = 16,
    [0x12] = 24,
    [0x13] = 40,
    [0x14] = 40,
    [0x16] = 16,
    [0x17] = 16,
    [0x1c] = 32,
    [0x1d] = 28,
    /* UC */
    [0x20] = 12,
    [0x21] = 12,
    [0x22] = 12,
    [0x23] = 16,
    [0x24] = 12,
    [0x25] = 16,
    [0x26] = 28,
    [0x27] = 12,
    [0x28] = 12,
    [0x29] = 16,
    [0x2a] = 28,
    [0x2b] = 32,
    /* UD */
    [0x64] = 20,
    [0x65] = 24,
    /* CNP */
    [0x81] = 28,
    /* XRC */
    [0xa0] = 16,
    [0xa1] = 16,
    [0xa2] = 16,
    [0xa3] = 20,
    [0xa4] = 16,
    [0xa5] = 20,
    [0xa6] = 32,
    [0xa7] = 16,
    [0xa8] = 16,
    [0xa9] = 20,
    [0xaa] = 32,
    [0xab] = 36,
    [0xac] = 32,
    [0xad] = 16,
    [0xae] = 12,
    [0xaf] = 16,
    [0xb0] = 16,
    [0xb1] = 16,
    [0xb2] = 24,
    [0xb3] = 44,
    [0xb4] = 44,
    [0xb6] = 20,
    [0xb7] = 20,
    [0xbc] = 36,
    [0xbd] = 32,
};

static void test_opcode_table(void **state)
{
    for (int i = 0; i < 256; i++) {
        const struct roce_opcode *op = roce_opcode((uint8_t)i);
        assert_int_equal(op->hdr_len, expected_len[i]);
        assert_int_equal(!op->props, !expected_len[i]);
        assert_int_equal(!op->name, !expected_len[i]);
    }
    assert_string_equal(roce_opcode(0x00)->name, "RC SEND_FIRST");
    assert_string_equal(roce_opcode(0x2b)->name, "UC WRITE_ONLY_IMM");
    assert_string_equal(roce_opcode(0xb4)->name, "XRC FETCH_ADD");
    assert_int_equal(roce_opcode(0x17)->props,
                     OP_KNOWN | OP_FIRST | OP_LAST | OP_SEND | OP_PAYLOAD | OP_IETH);
    assert_int_equal(roce_opcode(0x12)->props,
                     OP_KNOWN | OP_FIRST | OP_LAST | OP_RESPONSE | OP_AETH | OP_ATOMICACK);
    assert_int_equal(roce_opcode(0x0e)->props, OP_KNOWN | OP_RESPONSE | OP_PAYLOAD);
}

/* Clears what is reserved, so that decode and encode must give the bytes back. */
static void clear_reserved(uint8_t *b, const struct roce_opcode *op)
{
    b[1] &= 0xf0;
    b[4] &= 0xc0;
    b[8] &= 0x80;
    uint8_t *p = b + ROCE_BTH_LEN;
    if (op->props & OP_XRCETH) p[0] = 0;
    if (op->props & OP_DETH) p[4] = 0;
    if ((b[0] & 0x1f) == 0x1c) {
        if (op->props & OP_XRCETH) p += 4;
        memset(p, 0, 3);
        p[3] &= 0x3f;
    }
    if (b[0] == 0x81) memset(p, 0, 16);
}

static void test_round_trip(void **state)
{
    srand(1);
    for (int round = 0; round < 256 * 50; round++) {
        uint8_t bytes[ROCE_MAX_HDR_LEN], again[ROCE_MAX_HDR_LEN];
        const struct roce_opcode *op = roce_opcode((uint8_t)round);
        if (!op->props) continue;
        for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rand();
        bytes[0] = (uint8_t)round;
        clear_reserved(bytes, op);
        struct roce_hdr h;
        size_t hdr_len;
        assert_int_equal(roce_decode(&h, bytes, sizeof bytes, &hdr_len), ROCE_OK);
        assert_int_equal(hdr_len, op->hdr_len);
        memset(again, 0xaa, sizeof again);
        assert_int_equal(roce_encode(again, &h), hdr_len);
        assert_memory_equal(again, bytes, hdr_len);
    }
}

/* Each opcode at each length, in a block of exactly that size, so that ASan sees a byte too far. */
static void test_truncated(void **state)
{
    for (int opcode = 0; opcode < 256; opcode++) {
        size_t need = expected_len[opcode];
        for (size_t len = 0; len <= ROCE_MAX_HDR_LEN; len++)
            for (unsigned pad = 0; pad < 4; pad++) {
                uint8_t *b = calloc(1, len ? len : 1);
                struct roce_hdr h;
                size_t hdr_len = 0;
                if (len > 0) b[0] = (uint8_t)opcode;
                if (len > 1) b[1] = (uint8_t)(pad << 4);
                enum roce_verdict want = len < ROCE_BTH_LEN ? ROCE_TOO_SHORT
                                         : !need            ? ROCE_BAD_OPCODE
                                         : len < need       ? ROCE_TOO_SHORT
                                         : len - need < pad ? ROCE_BAD_PAD
                                                            : ROCE_OK;
                assert_int_equal(roce_decode(&h, b, len, &hdr_len), want);
                if (want == ROCE_OK) assert_int_equal(hdr_len, need);
                free(b);
            }
    }
}

static void test_version(void **state)
{
    uint8_t b[16] = {0x04, 0x01};
    struct roce_hdr h;
    size_t hdr_len;
    assert_int_equal(roce_decode(&h, b, sizeof b, &hdr_len), ROCE_BAD_VERSION);
}

static void test_fields(void **state)
{
    /* RC WRITE_ONLY_IMM with each field its own value. */
    const uint8_t b[] = {0x0b, 0xb0, 0x80, 0x01, 0xc0, 0x12, 0x34, 0x56, 0x80, 0xab, 0xcd, 0xef,
                         1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,
                         13,   14,   15,   16,   0xde, 0xad, 0xbe, 0xef, 0,    0,    0};
    struct roce_hdr h;
    size_t hdr_len;
    assert_int_equal(roce_decode(&h, b, sizeof b, &hdr_len), ROCE_OK);
    assert_int_equal(hdr_len, 32);
    assert_true(h.solicited && !h.migreq && h.ackreq && h.fecn && h.becn);
    assert_int_equal(h.pad, 3);
    assert_int_equal(h.pkey, 0x8001);
    assert_int_equal(h.dqpn, 0x123456);
    assert_int_equal(h.psn.v, 0xabcdef);
    assert_int_equal(h.reth.va, 0x0102030405060708);
    assert_int_equal(h.reth.rkey, 0x090a0b0c);
    assert_int_equal(h.reth.len, 0x0d0e0f10);
    assert_int_equal(get_be32(&h.imm_be), 0xdeadbeef);
}

/* Annex A19: FETH before RETH; placement type in its lowest four bits, selectivity above them. */
static void test_flush(void **state)
{
    const uint8_t b[] = {0x1c, 0x40, 0xff, 0xff, 0,    0,  0,  9,  0x80, 0, 0,
                         5,    0xff, 0xff, 0xff, 0xd2, 1,  2,  3,  4,    5, 6,
                         7,    8,    9,    10,   11,   12, 13, 14, 15,   16};
    struct roce_hdr h;
    size_t hdr_len;
    uint8_t again[ROCE_MAX_HDR_LEN];
    assert_int_equal(roce_decode(&h, b, sizeof b, &hdr_len), ROCE_OK);
    assert_int_equal(hdr_len, 32);
    assert_int_equal(h.feth.placement, 2);
    assert_int_equal(h.feth.selectivity, 1);
    assert_int_equal(h.reth.va, 0x0102030405060708);
    assert_int_equal(h.reth.rkey, 0x090a0b0c);
    assert_int_equal(h.reth.len, 0x0d0e0f10);
    assert_int_equal(roce_encode(again, &h), 32);
    assert_memory_equal(again + 12, "\0\0\0\x12", 4);
    assert_string_equal(roce_opcode(0xbd)->name, "XRC ATOMIC_WRITE");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_psn),        cmocka_unit_test(test_opcode_table),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_version),    cmocka_unit_test(test_fields),
        cmocka_unit_test(test_flush),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
