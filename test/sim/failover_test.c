/* Scenes of failure, each made by hand: what a bond must do, in virtual time. */
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

/* Runs the scene; every promise must hold. */
static void run(void)
{
    script_end(&plan);
    workload_run_plan(&out, &plan, getenv("SIM_TRACE") ? stdout : NULL);
    plan_free(&plan);
    if (out.violation[0]) fail_msg("%s", out.violation);
}

static void messages(uint32_t qp, enum hca_wr_opcode op, uint32_t n, uint32_t len)
{
    for (uint32_t i = 0; i < n; i++) script_request(&plan, qp, op, len);
}

static uint64_t lasted_us(void) { return when_since(out.ended, out.started) / US_NS; }

static const enum hca_wr_opcode opcodes[] = {HCA_WR_RDMA_WRITE,
                                             HCA_WR_RDMA_WRITE_WITH_IMM,
                                             HCA_WR_SEND,
                                             HCA_WR_SEND_WITH_IMM,
                                             HCA_WR_RDMA_READ,
                                             HCA_WR_ATOMIC_CMP_AND_SWP,
                                             HCA_WR_ATOMIC_FETCH_AND_ADD,
                                             HCA_WR_FLUSH,
                                             HCA_WR_ATOMIC_WRITE};

/* Link 0 goes down in the middle of each kind of message, at many moments. */
static void in_mid_message(void **state)
{
    for (size_t i = 0; i < sizeof opcodes / sizeof *opcodes; i++) {
        for (uint64_t at = 15 * US_NS; at < 400 * US_NS; at += 29 * US_NS) {
            script_begin(&plan, at, 2, FABRIC_PAIRED);
            plan.must_survive = true;
            uint32_t a = script_pair(&plan, HCA_QPT_RC);
            bool small = opcodes[i] >= HCA_WR_ATOMIC_CMP_AND_SWP;
            messages(a, opcodes[i], small ? 40 : 3, 150000);
            script_cut(&plan, at, at + 20 * MS_NS, 0);
            run();
            assert_int_equal(out.retry_excs, 0);
            assert_int_equal(out.counters[0].local_ack_timeout_err, 0);
        }
    }
}

/* Where both ends know at once, the gap is a round trip and no retry is charged. */
static void gap_of_a_noticed_cut(void **state)
{
    uint64_t worst = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        script_begin(&plan, seed, 2, FABRIC_PAIRED);
        plan.notice_max_ns = 0;
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, HCA_WR_RDMA_WRITE, 8, 200000);
        script_cut(&plan, 100 * US_NS + seed * 7 * US_NS, 0, 0);
        run();
        assert_true(out.view[a].remaps >= 1);
        assert_int_equal(out.view[a].active, 1);
        assert_int_equal(out.counters[0].timeouts, 0);
        if (out.view[a].last_gap_ns > worst) worst = out.view[a].last_gap_ns;
    }
    print_message("the longest of 60 gaps, known at once at both ends: %llu us\n",
                  (unsigned long long)(worst / US_NS));
    assert_in_range(worst, 1, 200 * US_NS);
}

/* Where each end notices within 5 ms, the gap is about 10 ms at most, though the timeout is 67 ms.
 * The cut comes when the round trip is known. */
static void gap_of_a_cut_noticed_late(void **state)
{
    uint64_t worst = 0, sum = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        script_begin(&plan, seed, 2, FABRIC_PAIRED);
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, opcodes[seed % 5], 20, 200000);
        script_cut(&plan, 900 * US_NS + seed * 7 * US_NS, 0, 0);
        run();
        uint64_t clean = 20 * 200000 / 1250; /* us that the bytes take at 10 Gb/s */
        uint64_t gap = lasted_us() > clean ? lasted_us() - clean : 0;
        sum += gap;
        if (gap > worst) worst = gap;
    }
    print_message("the longest of 100 blackouts, notice of 0..5 ms: %llu us, mean %llu us\n",
                  (unsigned long long)worst, (unsigned long long)(sum / 100));
    assert_in_range(worst, 1, 12000);
    assert_in_range(sum / 100, 1, 6000);
}

/* A switch joins the hosts; each loses another port at the same moment. */
static void both_ends_at_once(void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        script_begin(&plan, seed, 2, FABRIC_SWITCH);
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 7; i++) messages(a, opcodes[i], 2, 60000);
        for (int i = 0; i < 7; i++) messages(a + 1, opcodes[i], 2, 60000);
        script_cut_port(&plan, seed * 11 * US_NS, 0, 0, 0);
        script_cut_port(&plan, seed * 11 * US_NS, 0, 1, (uint8_t)(seed & 1));
        run();
        assert_int_equal(out.retry_excs, 0);
    }
}

/* The second link dies while what the first lost is being sent again. */
static void second_failure_in_the_resend(void **state)
{
    for (uint64_t seed = 1; seed <= 120; seed++) {
        script_begin(&plan, seed, 3, FABRIC_PAIRED);
        plan.notice_max_ns = 200 * US_NS;
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 7; i++) messages(a, opcodes[i], 2, 60000);
        uint64_t at = 50 * US_NS + (seed % 10) * 31 * US_NS;
        script_cut(&plan, at, 0, 0);
        script_cut(&plan, at + seed * 5 * US_NS, 0, 1);
        run();
        assert_true(out.view[a].remaps >= 2 || out.view[a].active == 2);
    }
}

static void flapping(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        script_begin(&plan, seed, 2, FABRIC_PAIRED);
        plan.host[0].mode = plan.host[1].mode = seed & 1 ? BOND_BALANCE_XOR : BOND_ACTIVE_BACKUP;
        plan.notice_max_ns = MS_NS;
        plan.must_survive = true;
        plan.bytes_per_ms = 125000;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 7; i++) messages(a, opcodes[i], 3, 60000);
        for (int i = 0; i < 7; i++) messages(a + 1, opcodes[i], 3, 60000);
        for (uint64_t i = 0; i < 20; i++)
            script_cut(&plan, (1 + i * 2) * MS_NS, (2 + i * 2) * MS_NS, 0);
        run();
        assert_int_equal(out.retry_excs, 0);
    }
}

static void all_down(uint64_t down_ns, bool comes_back, bool survives)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        script_begin(&plan, seed, 2, FABRIC_PAIRED);
        plan.must_survive = survives;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, opcodes[seed % 7], 6, 200000);
        plan.qp[a].timeout = 12; /* 16.8 ms, by 8: 134 ms */
        for (uint8_t m = 0; m < 2; m++)
            script_cut(&plan, 300 * US_NS, comes_back ? 300 * US_NS + down_ns : 0, m);
        run();
        if (opcodes[seed % 7] >= HCA_WR_ATOMIC_CMP_AND_SWP) continue; /* done before the cut */
        assert_int_equal(out.retry_excs, survives ? 0 : 1);
        if (survives) continue;
        assert_int_equal(out.view[a].state, HCA_QPS_ERR);
        assert_int_equal(out.counters[0].local_ack_timeout_err, 1);
        if (!comes_back) assert_in_range(lasted_us(), 8 * 16777, 8 * 16777 + 30000);
    }
}

/* All links down, and up again before the retries are used up: nobody notices. */
static void all_down_for_a_while(void **state) { all_down(80 * MS_NS, true, true); }

/* Too long: the error that the IBTA promises, once. */
static void all_down_too_long(void **state) { all_down(400 * MS_NS, true, false); }

/* For ever: the same, after timeout x (retry + 1), and the world comes to rest. */
static void all_down_for_ever(void **state) { all_down(0, false, false); }

/* A plain port whose only link is cut without anyone's noticing. */
static void plain_port_silent(void **state)
{
    for (uint8_t retry = 0; retry <= 7; retry++) {
        script_begin(&plan, retry, 1, FABRIC_PAIRED);
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        plan.qp[a].retry_cnt = retry;
        messages(a, HCA_WR_RDMA_WRITE, 1, 1000);
        script_cut(&plan, 0, 0, 0);
        plan.cut[0].carrier = plan.cut[1].carrier = false;
        run();
        assert_int_equal(out.retry_excs, 1);
        uint64_t due = 67108 * (retry + 1u);
        assert_in_range(lasted_us(), due, due + due / 10 + 5000);
    }
}

/* A path dies behind a switch: one end of it, or neither, loses its carrier. Traffic of both
 * directions and every kind goes by the other path. */
static void path_dies(bool one_end_knows, enum bond_mode mode)
{
    uint64_t worst = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        script_begin(&plan, seed, 2, FABRIC_PAIRED);
        plan.host[0].mode = plan.host[1].mode = mode;
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 7; i++) messages(a, opcodes[i], 2, 60000);
        for (int i = 0; i < 7; i++) messages(a + 1, opcodes[i], 2, 60000);
        script_cut(&plan, seed * 11 * US_NS, 0, (uint8_t)(seed & 1));
        plan.cut[0].carrier = one_end_knows;
        plan.cut[1].carrier = false;
        run();
        assert_int_equal(out.retry_excs, 0);
        if (lasted_us() > worst) worst = lasted_us();
    }
    print_message("the longest of 60 runs with a path that dies unseen: %llu us\n",
                  (unsigned long long)worst);
    assert_in_range(worst, 1, 350000); /* eight timeouts of 67 ms end in an error */
}

/* Longer than detours last: each time that one ends, the next must be found. */
static void path_stays_dead(void **state)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        script_begin(&plan, seed, 3, FABRIC_PAIRED);
        plan.must_survive = true;
        plan.bytes_per_ms = 2500;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        for (int i = 0; i < 9; i++)
            for (int k = 0; k < 7; k++) messages(a, opcodes[k], 1, 200000);
        script_cut(&plan, 50 * MS_NS, 0, 0);
        plan.cut[0].carrier = seed % 3 != 0; /* the requester's end, the other, none */
        plan.cut[1].carrier = seed % 3 == 1 && seed > 3;
        /* a third member comes and goes: each time all detours end */
        for (uint64_t i = 0; i < 5; i++)
            script_cut(&plan, (400 + i * 400) * MS_NS, (600 + i * 400) * MS_NS, 2);
        run();
        assert_int_equal(out.retry_excs, 0);
        assert_in_range(lasted_us(), 3000000, 9000000);
    }
}

static void path_dies_seen_by_one(void **state)
{
    path_dies(true, BOND_ACTIVE_BACKUP);
    path_dies(true, BOND_BALANCE_XOR);
}

static void path_dies_unseen(void **state)
{
    path_dies(false, BOND_ACTIVE_BACKUP);
    path_dies(false, BOND_BALANCE_XOR);
}

/* A link of 10 Gb/s carries nearly that: the window opens, acknowledgements do not throttle it. */
static void throughput(void **state)
{
    for (int i = 0; i < 5; i++) {
        script_begin(&plan, 5, 1, FABRIC_PAIRED);
        plan.must_survive = true;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, opcodes[i], 16, 1 << 20);
        run();
        double gbps = 16.0 * (1 << 20) * 8 / 1000.0 / (double)lasted_us();
        print_message("opcode %d: %.2f Gb/s of 10\n", opcodes[i], gbps);
        assert_true(gbps > 8.5);
        assert_int_equal(out.counters[0].tx_retransmits, 0);
    }
}

/* A lost packet costs a round trip and what was under way, not a timer: one in a thousand lost
 * leaves most of the speed. */
static void throughput_with_loss(void **state)
{
    for (int i = 0; i < 5; i++) {
        script_begin(&plan, 5, 1, FABRIC_PAIRED);
        plan.must_survive = plan.links_lose = true;
        for (uint8_t h = 0; h < 2; h++) plan.host[h].link.loss_ppm = 1000;
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, opcodes[i], 16, 1 << 20);
        run();
        double gbps = 16.0 * (1 << 20) * 8 / 1000.0 / (double)lasted_us();
        print_message(
            "opcode %d, one packet in 1000 lost: %.2f Gb/s, %llu sent again, %llu timeouts\n",
            opcodes[i], gbps, (unsigned long long)out.view[a].retransmits,
            (unsigned long long)out.counters[0].timeouts);
        assert_true(gbps > 4.0);
        assert_int_equal(out.counters[0].timeouts, 0);
    }
}

/* A socket of 24 KB for eight queue pairs of jumbo packets: slow, but never an error. */
static void tiny_sockets(void **state)
{
    script_begin(&plan, 9, 1, FABRIC_PAIRED);
    plan.must_survive = plan.links_lose = true;
    for (uint8_t h = 0; h < 2; h++) plan.host[h].rx_room = 24 << 10;
    for (int q = 0; q < 6; q++) {
        uint32_t a = script_pair(&plan, HCA_QPT_RC);
        messages(a, HCA_WR_RDMA_WRITE, 2, 1 << 19);
        messages(a + 1, HCA_WR_RDMA_READ, 2, 1 << 19);
    }
    run();
    double gbps = 24.0 * (1 << 19) * 8 / 1000.0 / (double)lasted_us();
    print_message("12 queue pairs into sockets of 24 KB: %.2f Gb/s\n", gbps);
    assert_true(gbps > 0.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_mid_message),
        cmocka_unit_test(gap_of_a_noticed_cut),
        cmocka_unit_test(gap_of_a_cut_noticed_late),
        cmocka_unit_test(both_ends_at_once),
        cmocka_unit_test(second_failure_in_the_resend),
        cmocka_unit_test(flapping),
        cmocka_unit_test(all_down_for_a_while),
        cmocka_unit_test(all_down_too_long),
        cmocka_unit_test(all_down_for_ever),
        cmocka_unit_test(plain_port_silent),
        cmocka_unit_test(path_dies_seen_by_one),
        cmocka_unit_test(path_dies_unseen),
        cmocka_unit_test(path_stays_dead),
        cmocka_unit_test(throughput),
        cmocka_unit_test(throughput_with_loss),
        cmocka_unit_test(tiny_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
