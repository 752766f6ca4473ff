/* Scenes of far peers: a round trip that is longer than the ACK timeout, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/script.h"
#include "sim/workload.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct plan plan;
static struct outcome out;

static const enum hca_wr_opcode opcodes[] = {
    HCA_WR_RDMA_WRITE,          HCA_WR_RDMA_WRITE_WITH_IMM, HCA_WR_SEND,
    HCA_WR_SEND_WITH_IMM,       HCA_WR_RDMA_READ,           HCA_WR_ATOMIC_CMP_AND_SWP,
    HCA_WR_ATOMIC_FETCH_AND_ADD};
#define OPCODES (sizeof opcodes / sizeof *opcodes)

#define FAR_NS (150 * MS_NS) /* one way; the timeout of script_pair is 67 ms */

static bool is_atomic(enum hca_wr_opcode op) { return op >= HCA_WR_ATOMIC_CMP_AND_SWP; }

/* Two plain ports so far apart; every request must succeed. */
static void begin(uint64_t seed, uint8_t members, struct link_profile link)
{
    script_begin(&plan, seed, members, FABRIC_PAIRED);
    plan.must_survive = true;
    plan.links_lose = link.loss_ppm > 0;
    plan.links_double = link.dup_ppm > 0;
    for (int h = 0; h < 2; h++) plan.host[h].link = link;
}

static void messages(uint32_t qp, enum hca_wr_opcode op, uint32_t n, uint32_t len)
{
    for (uint32_t i = 0; i < n; i++) script_request(&plan, qp, op, len);
}

/* Runs the scene; every promise must hold. */
static void run(void)
{
    script_end(&plan);
    workload_run_plan(&out, &plan, getenv("SIM_TRACE") ? stdout : NULL);
    plan_free(&plan);
    if (out.violation[0]) fail_msg("%s", out.violation);
    assert_int_equal(out.retry_excs, 0);
}

static uint64_t lasted_ms(void) { return when_since(out.ended, out.started) / MS_NS; }

/* 16 MiB where a window holds one: some 17 round trips, after four that open it. */
static void bulk(void **state)
{
    for (size_t i = 0; i < OPCODES; i++) {
        begin(i, 1, (struct link_profile){.delay_ns = FAR_NS});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, opcodes[i], is_atomic(opcodes[i]) ? 64 : 16, 1 << 20);
        run();
        print_message("opcode %d: %llu ms, %llu sent again, %llu timeouts\n", opcodes[i],
                      (unsigned long long)lasted_ms(), (unsigned long long)out.view[a].retransmits,
                      (unsigned long long)out.counters[0].timeouts);
        /* Atomics: 16 may be out, so four round trips. */
        assert_in_range(lasted_ms(), 1, is_atomic(opcodes[i]) ? 1800 : 7500);
        assert_in_range(out.view[a].retransmits, 0, 10);
    }
}

/* Acknowledgements that come in clumps, as a busy machine finds them, open the window no slower. */
static void clumped(void **state)
{
    begin(1, 1, (struct link_profile){.delay_ns = FAR_NS});
    plan.host[0].rx_wake_ns = 10 * MS_NS;
    plan.host[0].rx_burst = 64;
    uint32_t a = script_pair(&plan, HCA_QPT_RC);
    messages(a, HCA_WR_RDMA_WRITE, 64, 1 << 16);
    run();
    print_message("4 MiB, in clumps: %llu ms\n", (unsigned long long)lasted_ms());
    assert_in_range(lasted_ms(), 1, 3000);
}

/* One request at a time: a round trip each, though no answer can be told from one to a resend until
 * the clocks wait long enough. */
static void one_at_a_time(void **state)
{
    for (size_t i = 0; i < OPCODES; i++) {
        begin(i, 1, (struct link_profile){.delay_ns = FAR_NS});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        plan.qp[a].send_depth = 1;
        messages(a, opcodes[i], 30, 64);
        run();
        assert_in_range(lasted_ms(), 30 * 300, 30 * 300 + 300);
        assert_in_range(out.view[a].retransmits, 0, 10);
    }
}

/* Both ways, the receives posted as they are used up: the receiver may not be ready. */
static void not_ready(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        begin(seed, 1, (struct link_profile){.delay_ns = FAR_NS});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (uint32_t q = a; q < a + 2; q++) {
            plan.qp[q].eager_receives = false;
            plan.qp[q].recv_depth = 2;
            messages(q, opcodes[1 + seed % 3], 20, 10000);
        }
        run();
        assert_true(out.counters[0].rnr_nak_received + out.counters[1].rnr_nak_received > 0);
        assert_int_equal(out.counters[0].local_ack_timeout_err, 0);
    }
}

/* One packet in a hundred is lost: most losses are told by a NAK, a round trip later. */
static void lossy(uint64_t delay_ns, uint64_t most_ms)
{
    uint64_t sum = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        begin(seed, 1, (struct link_profile){.delay_ns = delay_ns, .loss_ppm = 10000});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        enum hca_wr_opcode op = opcodes[seed % OPCODES];
        messages(a, op, is_atomic(op) ? 64 : 8, 1 << 19);
        run();
        sum += lasted_ms();
    }
    print_message("%llu ms a way, one in 100 lost: %llu ms for 4 MiB\n",
                  (unsigned long long)(delay_ns / MS_NS), (unsigned long long)(sum / 30));
    assert_in_range(sum / 30, 1, most_ms);
}

static void lossy_near(void **state) { lossy(20 * MS_NS, 3000); }
static void lossy_far(void **state) { lossy(FAR_NS, 20000); }

/* Delays that jump about the timeout, packets doubled, lost and overtaken: everything once, and in
 * the end. */
static void unsteady(void **state)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        begin(seed, 1,
              (struct link_profile){.delay_ns = (seed % 5) * 20 * MS_NS + MS_NS,
                                    .jitter_ns = (1 + seed % 7) * 12 * MS_NS,
                                    .reorder = seed % 3 == 0,
                                    .loss_ppm = seed % 2 ? 5000 : 0,
                                    .dup_ppm = seed % 4 ? 0 : 30000});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (size_t i = 0; i < OPCODES; i++) messages(a, opcodes[(i + seed) % OPCODES], 2, 40000);
        for (size_t i = 0; i < OPCODES; i++)
            messages(a + 1, opcodes[(i * seed) % OPCODES], 2, 5000);
        if (seed % 2) plan.qp[a].send_depth = 3;
        run();
    }
}

/* A bond whose members are all far: it does not take them for dead, once it knows. */
static void bond_is_calm(void **state)
{
    begin(3, 2, (struct link_profile){.delay_ns = FAR_NS});
    uint32_t a = script_pair(&plan, HCA_QPT_RC);
    messages(a, HCA_WR_RDMA_WRITE, 40, 1 << 19);
    run();
    print_message("%llu detours in %llu ms\n", (unsigned long long)out.counters[0].detours,
                  (unsigned long long)lasted_ms());
    assert_in_range(out.counters[0].detours, 0, 4);
    assert_in_range(lasted_ms(), 1, 10000);
}

/* One member of it dies unseen, later. */
static void path_dies(void **state)
{
    uint64_t worst = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        begin(seed, 2, (struct link_profile){.delay_ns = seed % 2 ? FAR_NS : 60 * MS_NS});
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 20; i++) messages(a, opcodes[seed % 5], 1, 1 << 18);
        for (int i = 0; i < 20; i++) messages(a + 1, opcodes[seed % 5], 1, 1 << 18);
        script_cut(&plan, 1500 * MS_NS + seed * 11 * MS_NS, 0, 0);
        plan.cut[0].carrier = plan.cut[1].carrier = false;
        run();
        if (lasted_ms() > worst) worst = lasted_ms();
    }
    print_message("the longest of 20 runs with a path that dies unseen: %llu ms\n",
                  (unsigned long long)worst);
    assert_in_range(worst, 1, 9000);
}

/* A peer that is gone is reported after timeout x (retry_cnt + 1): within the four times of C9-141
 * where it was far, and in just that where it was near. */
static void peer_dies(void **state)
{
    static const uint64_t ways[] = {10 * US_NS, MS_NS, 15 * MS_NS, 60 * MS_NS, FAR_NS};
    const uint64_t timeout_ms = 67, cut_ms = 2000;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        script_begin(&plan, i, 1, FABRIC_PAIRED);
        for (int h = 0; h < 2; h++) plan.host[h].link.delay_ns = ways[i];
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, HCA_WR_RDMA_WRITE, 64, 1 << 20);
        plan.bytes_per_ms = 25000;
        script_cut(&plan, cut_ms * MS_NS, 0, 0);
        plan.cut[0].carrier = plan.cut[1].carrier = false;
        script_end(&plan);
        workload_run_plan(&out, &plan, getenv("SIM_TRACE") ? stdout : NULL);
        plan_free(&plan);
        if (out.violation[0]) fail_msg("%s", out.violation);
        assert_int_equal(out.retry_excs, 1);
        uint64_t took = lasted_ms() - cut_ms, most = 8 * timeout_ms + 2 * ways[i] / MS_NS + 50;
        if (ways[i] > 20 * MS_NS) most = 4 * 8 * timeout_ms + 400;
        print_message("%llu us a way: RETRY_EXC_ERR %llu ms after the cut\n",
                      (unsigned long long)(ways[i] / US_NS), (unsigned long long)took);
        assert_in_range(took, 8 * timeout_ms - 5, most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bulk),          cmocka_unit_test(clumped),
        cmocka_unit_test(one_at_a_time), cmocka_unit_test(not_ready),
        cmocka_unit_test(lossy_near),    cmocka_unit_test(lossy_far),
        cmocka_unit_test(unsteady),      cmocka_unit_test(bond_is_calm),
        cmocka_unit_test(path_dies),     cmocka_unit_test(peer_dies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
