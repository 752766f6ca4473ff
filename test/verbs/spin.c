/* When the worker leaves a program alone: programs of several kinds in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verbs/spin.h"

/* A program in rounds of `round_us`: for so long at their beginning it polls, every `poll_us`. */
struct program {
    uint64_t round_us, polling_us, poll_us;
    bool needs_worker; /* while nobody watches it waits after its polls, for a packet */
};

struct outcome {
    uint64_t away_us, looks, left;
};

/* `us` of it under a worker who wakes every 10 us on watch, as packets come. */
static struct outcome observe(struct spin *s, const struct program *p, uint64_t from, uint64_t us)
{
    struct outcome o = {0};
    uint64_t at = 0, act_at = from;
    bool away = false;

    for (uint64_t t = from; t < from + us; t++) {
        when_t now = {t * US_NS};
        if (!(away && p->needs_worker && at == p->polling_us)) {
            if (at < p->polling_us && at % p->poll_us == 0) spin_polled(s, now);
            at = (at + 1) % p->round_us;
        }
        if (away) o.away_us++;
        if (t < act_at) continue;
        if (away) o.looks++;
        bool before = away;
        away = away ? spin_goes_on(s, false, now) : spin_leave(s, now);
        if (away && !before) o.left++;
        act_at = t + (away ? spin_look_after(s) / US_NS : 10);
    }
    return o;
}

#define SECOND_US 1000000

static const struct program spins = {.round_us = 1, .polling_us = 1, .poll_us = 1};
/* Between two RDMA WRITEs it polls as often as one that spins. */
static const struct program seems = {
    .round_us = 12, .polling_us = 4, .poll_us = 1, .needs_worker = true};

static void one_that_spins_is_left_alone(void **state)
{
    struct spin s = {0};
    (void)state;

    struct outcome o = observe(&s, &spins, SECOND_US, SECOND_US);
    assert_int_equal(o.left, 1);
    assert_in_range(o.away_us, SECOND_US - 200, SECOND_US - SPIN_PROOF_LEAST_NS / US_NS);
    assert_in_range(o.looks, 1000, 1010); /* one a millisecond */
}

static void one_that_polls_once_a_round_is_served(void **state)
{
    (void)state;

    for (uint64_t round_us = 10; round_us < 3000; round_us += round_us / 3) {
        const struct program polls_once = {.round_us = round_us, .polling_us = 1, .poll_us = 1};
        struct spin s = {0};
        assert_int_equal(observe(&s, &polls_once, SECOND_US, SECOND_US).left, 0);
    }
}

static void one_that_seems_to_spin_loses_little(void **state)
{
    struct spin s = {0};
    (void)state;

    struct outcome o = observe(&s, &seems, SECOND_US, SECOND_US);
    assert_in_range(o.left, 1, SECOND_US / 800);
    assert_in_range(o.away_us, 1, SECOND_US / 15);
}

static void a_mistake_is_forgotten_when_it_does_spin(void **state)
{
    const struct program at_last_spins = {
        .round_us = SECOND_US, .polling_us = SECOND_US / 100 * 98, .poll_us = 1};
    struct spin s = {0};
    (void)state;

    observe(&s, &seems, SECOND_US, SECOND_US);
    assert_int_equal(s.proof_ns, SPIN_PROOF_MOST_NS);
    struct outcome o = observe(&s, &at_last_spins, 2 * SECOND_US, SECOND_US);
    assert_in_range(o.away_us, SECOND_US / 100 * 97, SECOND_US);
    assert_int_equal(s.proof_ns, SPIN_PROOF_LEAST_NS);
}

/* What it waits for wakes the worker, which takes the processor from it. */
static void one_that_loses_its_processor_still_spins(void **state)
{
    const struct program disturbed = {.round_us = 45, .polling_us = 15, .poll_us = 1};
    struct spin s = {0};
    (void)state;

    assert_in_range(observe(&s, &disturbed, SECOND_US, SECOND_US).away_us, SECOND_US / 10 * 9,
                    SECOND_US);
}

/* Another program has the processor for every other slice. */
static void one_that_shares_its_processor_is_left_alone_when_it_spins(void **state)
{
    const struct program shares = {.round_us = 6000, .polling_us = 3000, .poll_us = 1};
    struct spin s = {0};
    (void)state;

    struct outcome o = observe(&s, &shares, SECOND_US, SECOND_US);
    assert_in_range(o.away_us, SECOND_US / 10 * 4, SECOND_US / 10 * 7);
    assert_int_equal(s.proof_ns, SPIN_PROOF_LEAST_NS);
}

static void that_it_stops_is_seen_at_the_next_look(void **state)
{
    struct spin s = {0};
    (void)state;

    observe(&s, &spins, SECOND_US, 100000);
    when_t stopped = {(SECOND_US + 100000) * US_NS};
    assert_true(spin_goes_on(&s, false, stopped));
    /* It has polled often in this time, too, but not of late. */
    spin_count(&s, 1000);
    assert_false(spin_goes_on(&s, false, when_add(stopped, MS_NS)));
}

static void one_that_is_about_to_sleep_is_watched(void **state)
{
    struct spin s = {0};
    when_t now = {(SECOND_US + 1000) * US_NS};
    (void)state;

    observe(&s, &spins, SECOND_US, 1000);
    spin_armed(&s);
    assert_false(spin_goes_on(&s, true, now));
    assert_false(spin_leave(&s, now));
    assert_int_equal(s.proof_ns, 0); /* it was no mistake */
    /* With the CQ still armed it spins again. */
    struct outcome o = observe(&s, &spins, SECOND_US + 1000, 1000);
    assert_in_range(o.away_us, 800, 1000 - SPIN_PROOF_LEAST_NS / US_NS);
}

/* rsockets: polls for 10 us, then sleeps. */
static void one_that_sleeps_every_time_is_watched(void **state)
{
    struct spin s = {0};
    (void)state;

    for (uint64_t t = SECOND_US; t < 2 * SECOND_US; t++) {
        if (t % 40 < 10) spin_polled(&s, (when_t){t * US_NS});
        if (t % 40 == 10) spin_armed(&s);
        if (t % 10 == 5) assert_false(spin_leave(&s, (when_t){t * US_NS}));
    }
}

static void a_long_round_is_no_pause(void **state)
{
    struct spin s = {0};
    when_t now = {SEC_NS};
    (void)state;

    spin_leave(&s, now);
    for (int i = 0; i < 100; i++, now = when_add(now, US_NS)) spin_polled(&s, now);
    assert_true(spin_leave(&s, now));
    spin_polled(&s, now);
    now = when_add(now, 400 * US_NS); /* in the middle of it */
    assert_true(spin_goes_on(&s, true, now));
    now = when_add(now, 50 * US_NS); /* behind it: what was sent counts */
    spin_count(&s, 256);
    spin_polled(&s, now);
    assert_true(spin_goes_on(&s, false, now));
}

static void polls_may_be_counted_round_the_corner(void **state)
{
    struct spin s = {.polls = UINT32_MAX - 20, .polls_then = UINT32_MAX - 20};
    (void)state;

    assert_in_range(observe(&s, &spins, SECOND_US, 1000).away_us, 800, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_spins_is_left_alone),
        cmocka_unit_test(one_that_polls_once_a_round_is_served),
        cmocka_unit_test(one_that_seems_to_spin_loses_little),
        cmocka_unit_test(a_mistake_is_forgotten_when_it_does_spin),
        cmocka_unit_test(one_that_loses_its_processor_still_spins),
        cmocka_unit_test(one_that_shares_its_processor_is_left_alone_when_it_spins),
        cmocka_unit_test(that_it_stops_is_seen_at_the_next_look),
        cmocka_unit_test(one_that_is_about_to_sleep_is_watched),
        cmocka_unit_test(one_that_sleeps_every_time_is_watched),
        cmocka_unit_test(a_long_round_is_no_pause),
        cmocka_unit_test(polls_may_be_counted_round_the_corner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
