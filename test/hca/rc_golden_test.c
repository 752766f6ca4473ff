/* The kernel's rxe as the requester, out of its own traces: our responder, given the same requests,
 * gives the answers that rxe's responder gave, PSN for PSN. */
#include "rc_wire.h"
#include "wire/frame.h"
#include <stdio.h>
#include <stdlib.h>

enum { MAX_FRAMES = 4096 };

struct said {
    struct gid src, dst;
    struct roce_hdr h;
    uint8_t payload[2048];
    uint32_t len;
    bool request, used;
};

static struct said frames[MAX_FRAMES];
static uint32_t nframes;
static struct wire w;

static void load(const char *name)
{
    static struct pcap p;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.pcap", getenv("RBOND_GOLDEN"), name);
    assert_true(pcap_open(&p, path));
    nframes = 0;
    while (pcap_next(&p)) {
        struct frame f;
        size_t hdr_len;
        assert_true(nframes < MAX_FRAMES);
        struct said *s = &frames[nframes];
        if (!frame_open(&f, p.frame, p.len) || f.roce[0] >= ROCE_UC) continue;
        assert_int_equal(roce_decode(&s->h, f.roce, f.roce_len, &hdr_len), ROCE_OK);
        s->src = f.ip.src;
        s->dst = f.ip.dst;
        s->len = (uint32_t)(f.roce_len - hdr_len - s->h.pad);
        assert_true(s->len <= sizeof s->payload);
        memcpy(s->payload, f.roce + hdr_len, s->len);
        s->request = !(roce_opcode(s->h.opcode)->props & OP_RESPONSE);
        s->used = false;
        nframes++;
    }
    pcap_close(&p);
    assert_true(nframes > 0);
}

static bool same_responder(const struct said *a, const struct said *b)
{
    return a->request && b->request && a->h.dqpn == b->h.dqpn && gid_equal(&a->dst, &b->dst);
}

/* The trace's answer to request `i` that equals what we gave. */
static void match(uint32_t i, const struct hca_tx *tx)
{
    struct roce_hdr h;
    size_t hdr_len;
    uint8_t bytes[ROCE_MAX_HDR_LEN + 4096] = {0};
    memcpy(bytes, tx->hdr, tx->hdr_len);
    assert_int_equal(roce_decode(&h, bytes, tx->hdr_len + tx->payload_len + tx->pad, &hdr_len),
                     ROCE_OK);
    for (uint32_t j = i + 1; j < nframes; j++) {
        struct said *s = &frames[j];
        if (s->used || s->request || !gid_equal(&s->src, &frames[i].dst)) continue;
        if (s->h.opcode != h.opcode || psn_diff(s->h.psn, h.psn) != 0) continue;
        assert_int_equal(h.aeth.syndrome, s->h.aeth.syndrome);
        assert_int_equal(h.aeth.msn, s->h.aeth.msn);
        assert_int_equal(tx->payload_len, s->len);
        s->used = true;
        return;
    }
    fail_msg("frame %u: rxe gave no %s with PSN %u", i, roce_opcode(h.opcode)->name, h.psn.v);
}

static void answer(uint32_t i, uint64_t lowest)
{
    struct hca_tx tx[16];
    struct roce_hdr h = frames[i].h;
    h.reth.va = h.reth.va - lowest + (uintptr_t)w.mem[1];
    h.atomic.va = h.atomic.va - lowest + (uintptr_t)w.mem[1];
    h.reth.rkey = h.atomic.rkey = hca_mr_rkey(w.mr[1]);
    wire_inject(&w, 1, &h, frames[i].payload, frames[i].len);
    for (size_t n; (n = hca_output(w.hca[1], tx, 16, w.now)) > 0;)
        for (size_t k = 0; k < n; k++) match(i, &tx[k]);
}

/* All requests to the QP that frame `first` is for. */
static void play(uint32_t first)
{
    uint64_t lowest = UINT64_MAX;
    for (uint32_t i = first; i < nframes; i++) {
        const struct roce_hdr *h = &frames[i].h;
        if (!same_responder(&frames[i], &frames[first])) continue;
        if (h->reth.va && h->reth.va < lowest) lowest = h->reth.va;
        if (h->atomic.va && h->atomic.va < lowest) lowest = h->atomic.va;
    }
    wire_open(&w, &(struct wire_conf){.psn = frames[first].h.psn.v, .max_rd_atomic = 64});
    for (uint32_t i = 0; i < 256; i++) wire_recv(&w, 1, 0, i, 0, 8192);
    for (uint32_t i = first; i < nframes; i++)
        if (same_responder(&frames[i], &frames[first])) answer(i, lowest);
    assert_int_equal(wire_state(&w, 1), HCA_QPS_RTS);
    wire_close(&w);
}

static void trace(const char *name)
{
    uint32_t answers = 0;
    load(name);
    for (uint32_t i = 0; i < nframes; i++) {
        bool seen = !frames[i].request;
        for (uint32_t j = 0; j < i && !seen; j++) seen = same_responder(&frames[j], &frames[i]);
        if (!seen) play(i);
    }
    for (uint32_t i = 0; i < nframes; i++) {
        if (frames[i].request) continue;
        answers++;
        if (!frames[i].used)
            fail_msg("%s: answer %u, %s with PSN %u, we did not give", name, i,
                     roce_opcode(frames[i].h.opcode)->name, frames[i].h.psn.v);
    }
    print_message("%s: %u answers as rxe gave them\n", name, answers);
    assert_true(answers > 0);
}

static void sends(void **state) { trace("rxe-send-rc"); }
static void reads(void **state) { trace("rxe-read"); }
static void compare_and_swap(void **state) { trace("rxe-atomic-cs"); }
static void fetch_and_add(void **state) { trace("rxe-atomic-fa"); }
static void writes(void **state) { trace("rxe-write_bw"); }
static void writes_by_cm(void **state) { trace("rxe-write_bw-cm"); }
static void rping(void **state) { trace("rxe-rping"); }
static void with_loss(void **state) { trace("rxe-write-loss"); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sends),
        cmocka_unit_test(reads),
        cmocka_unit_test(compare_and_swap),
        cmocka_unit_test(fetch_and_add),
        cmocka_unit_test(writes),
        cmocka_unit_test(writes_by_cm),
        cmocka_unit_test(rping),
        cmocka_unit_test(with_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
