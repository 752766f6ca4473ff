/* The world itself: order of events, links' chances, cuts, sockets, plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sim/link.h"
#include "sim/plan.h"
#include "sim/timeline.h"
#include "sim/workload.h"
#include <stdlib.h>
#include <string.h>

static void nothing(void *ctx, uint64_t arg) {}

static void events_in_order(void **state)
{
    struct timeline t = {0};
    struct rng rng = {3};
    for (uint64_t i = 0; i < 5000; i++)
        timeline_at(&t, (when_t){rng_below(&rng, 400)}, nothing, NULL, i);
    struct event e, last = {0};
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(timeline_next(&t).ns, t.heap[0].at.ns);
        assert_true(timeline_pop(&t, &e));
        assert_true(i == 0 || e.at.ns > last.at.ns || (e.at.ns == last.at.ns && e.arg > last.arg));
        last = e;
    }
    assert_false(timeline_pop(&t, &e));
    assert_true(when_is_never(timeline_next(&t)));
    timeline_free(&t);
}

static void patterns(void **state)
{
    uint8_t bytes[100];
    pattern_fill(bytes, 99, 5, sizeof bytes);
    for (uint32_t i = 0; i < sizeof bytes; i++) assert_int_equal(bytes[i], pattern_byte(99, 5 + i));
    assert_int_equal(pattern_match(bytes, 99, 5, 100), 100);
    assert_int_equal(pattern_match(bytes + 3, 99, 8, 97), 97);
    bytes[71] ^= 4;
    assert_int_equal(pattern_match(bytes, 99, 5, 100), 71);
    assert_in_range(pattern_match(bytes, 100, 5, 100), 0, 3);
}

static uint32_t count_lost(struct link *l, uint32_t n)
{
    struct rng rng = {1};
    uint32_t lost = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct link_fate f = link_carry(l, &rng, (when_t){1000 + i * 100});
        lost += f.lost;
        assert_true(f.lost || when_before((when_t){1000 + i * 100}, f.arrive[0]));
    }
    return lost;
}

static void chances(void **state)
{
    struct link l = {
        .profile = {.delay_ns = 50, .loss_ppm = 100000, .dup_ppm = 50000, .corrupt_ppm = 20000}};
    assert_in_range(count_lost(&l, 100000), 9500, 10500);
    assert_in_range(l.doubled, 4200, 4800);
    assert_in_range(l.corrupted, 1600, 2000);
    assert_int_equal(l.overtaken, 0);
    struct link reordering = {.profile = {.delay_ns = 50, .jitter_ns = 1000, .reorder = true}};
    assert_int_equal(count_lost(&reordering, 10000), 0);
    assert_in_range(reordering.overtaken, 1000, 9000);
    struct link jittery = {.profile = {.delay_ns = 50, .jitter_ns = 1000}};
    count_lost(&jittery, 10000);
    assert_int_equal(jittery.overtaken, 0);
}

/* A corrupted datagram must be found by its ICRC, an intact one accepted. */
static void corruption_is_found(void **state)
{
    uint8_t payload[999];
    pattern_fill(payload, 5, 0, sizeof payload);
    struct rng rng = {8};
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        for (int i = 0; i < 500; i++) {
            struct hca_tx tx = {.member = 0, .pad = 1, .niov = 2, .payload_len = 999, .dqpn = 9};
            tx.payload[0] = (struct iovec){payload, 500};
            tx.payload[1] = (struct iovec){payload + 500, 499};
            if (!ipv6) tx.src.raw[10] = tx.src.raw[11] = tx.dst.raw[10] = tx.dst.raw[11] = 0xff;
            tx.src.raw[15] = 1;
            tx.dst.raw[15] = 2;
            struct roce_hdr h = {.opcode = 0x04, .pad = 1, .pkey = 0xffff, .dqpn = 9};
            tx.hdr_len = (uint8_t)roce_encode(tx.hdr, &h);
            struct datagram *d = sim_port_tx(&tx, (uint16_t)i);
            struct hca_rx rx;
            assert_true(sim_port_rx(d, &rx));
            assert_int_equal(rx.len, 12 + 1000);
            assert_memory_equal(rx.data + 12, payload, 999);
            uint8_t before[12 + 1000];
            memcpy(before, d->bytes, sizeof before);
            link_corrupt(d, &rng);
            before[4] = d->bytes[4]; /* FECN, BECN and reserved bits: not covered (IBTA A17) */
            bool changed = memcmp(before, d->bytes, sizeof before) != 0;
            assert_int_equal(sim_port_rx(d, &rx), !changed);
            free(d);
        }
    }
}

/* The same seed gives the same run, to the last packet; another seed gives another. */
static void deterministic(void **state)
{
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct outcome a, b, c;
        workload_run(&a, seed, PROFILE_COUNT, NULL);
        workload_run(&b, seed, PROFILE_COUNT, NULL);
        workload_run(&c, seed + 1000, PROFILE_COUNT, NULL);
        assert_string_equal(a.violation, "");
        assert_true(a.hash == b.hash && a.packets == b.packets && a.events == b.events);
        assert_true(a.hash != c.hash);
    }
}

/* The trace is a witness: with it or without it the run is the same, and it holds every packet. */
static void traced(void **state)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct outcome a, b;
    workload_run(&a, 12, PROFILE_COUNT, f);
    fclose(f);
    workload_run(&b, 12, PROFILE_COUNT, NULL);
    assert_true(a.hash == b.hash);
    uint64_t sends = 0;
    for (const char *at = text; (at = strstr(at, "  sends ")); at++) sends++;
    assert_int_equal(sends, a.packets);
    free(text);
}

/* The seeds reach everything that the oracle judges: else its silence would mean little. */
static void plans_are_various(void **state)
{
    uint32_t profile[PROFILE_COUNT] = {0}, control[5] = {0}, provoke[PROVOKE_COUNT] = {0};
    uint32_t op[16] = {0}, flags[16] = {0}, srq = 0, chained = 0, big = 0, survive = 0,
             mtu[6] = {0};
    for (uint64_t seed = 0; seed < 3000; seed++) {
        struct plan *p = malloc(sizeof *p);
        plan_draw(p, seed, PROFILE_COUNT);
        profile[p->profile]++;
        survive += p->must_survive;
        for (uint32_t i = 0; i < p->ncontrols; i++) control[p->control[i].kind]++;
        for (uint32_t i = 0; i < p->nqps; i++) {
            const struct plan_qp *q = &p->qp[i];
            provoke[q->provoke]++;
            srq += q->shared_receives;
            mtu[q->mtu]++;
            for (uint32_t k = 0; k < q->nrequests; k++) {
                op[q->request[k].op]++;
                flags[q->request[k].flags & 15]++;
                chained += q->request[k].chained;
                big += q->request[k].len > 100000;
            }
        }
        plan_free(p);
        free(p);
    }
    for (int i = 0; i < PROFILE_COUNT; i++) assert_in_range(profile[i], 100, 400);
    for (int i = 0; i < 5; i++) assert_in_range(control[i], 50, 3000);
    for (int i = 0; i < PROVOKE_COUNT; i++) assert_in_range(provoke[i], 10, 30000);
    for (int i = 0; i <= HCA_WR_ATOMIC_FETCH_AND_ADD; i++) assert_in_range(op[i], 500, 100000);
    for (int i = HCA_WR_FLUSH; i <= HCA_WR_ATOMIC_WRITE; i++) assert_in_range(op[i], 500, 100000);
    for (int i = 0; i < 16; i++) assert_in_range(flags[i], 50, 100000);
    for (int i = 1; i <= 5; i++) assert_in_range(mtu[i], 500, 10000);
    assert_in_range(srq, 500, 10000);
    assert_in_range(chained, 500, 100000);
    assert_in_range(big, 20, 10000);
    assert_in_range(survive, 1000, 2900);
}

/* Windows are opened, closed both ways, and used when closed. */
static void windows_are_used(void **state)
{
    uint64_t opened = 0, closed = 0, refused = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct outcome out;
        workload_run(&out, seed, PROFILE_COUNT, NULL);
        if (out.violation[0]) fail_msg("seed %llu: %s", (unsigned long long)seed, out.violation);
        opened += out.windows_opened;
        closed += out.windows_closed;
        refused += out.windows_refused;
    }
    assert_true(opened >= 50 && closed >= 40 && refused >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_in_order),   cmocka_unit_test(patterns),
        cmocka_unit_test(chances),           cmocka_unit_test(corruption_is_found),
        cmocka_unit_test(deterministic),     cmocka_unit_test(traced),
        cmocka_unit_test(plans_are_various), cmocka_unit_test(windows_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
