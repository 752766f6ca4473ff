/* UC and UD keep to the port's speed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hca/pace.h"

static const struct hca_tx packet = {.hdr_len = 12, .payload_len = 4096};

static void no_speed_is_no_limit(void **state)
{
    struct pace pace = {0};
    (void)state;

    for (int i = 0; i < 100000; i++) pace_sent(&pace, &packet, 1, (when_t){0});
    assert_true(pace_admits(&pace, (when_t){0}));
}

/* What goes in a second that asks whenever it is told to. */
static uint64_t sent_in_a_second(uint64_t bytes_per_sec)
{
    struct pace pace = {0};
    when_t now = {5 * SEC_NS}, end = when_add(now, SEC_NS);
    uint64_t bytes = 0, asked = 0;
    pace_port(&pace, bytes_per_sec);

    while (when_before(now, end)) {
        assert_true(++asked < 10000000);
        if (!pace_admits(&pace, now)) {
            assert_true(when_before(now, pace_resume_at(&pace)));
            now = pace_resume_at(&pace);
            assert_true(pace_admits(&pace, now));
            continue;
        }
        pace_sent(&pace, &packet, 1, now);
        bytes += packet.payload_len;
    }
    return bytes;
}

static void keeps_to_the_speed(void **state)
{
    (void)state;
    uint64_t fast = sent_in_a_second(1250000000), slow = sent_in_a_second(125000000);

    assert_in_range(fast, 1180000000, 1250000000);
    assert_in_range(slow, 118000000, 125000000);
}

static void keeps_to_a_rate_of_packets(void **state)
{
    struct pace pace = {0};
    const struct hca_tx small = {.hdr_len = 12};
    (void)state;

    pace_port(&pace, 1250000000);
    for (int i = 0; i < 1000; i++) pace_sent(&pace, &small, 1, (when_t){0});
    assert_false(pace_admits(&pace, (when_t){1 * MS_NS}));
    assert_true(pace_admits(&pace, (when_t){2 * MS_NS}));
}

static void idleness_saves_nothing_up(void **state)
{
    struct pace pace = {.bytes_per_sec = 1250000000};
    when_t now = {SEC_NS};
    int n = 0;
    (void)state;

    pace_sent(&pace, &packet, 1, (when_t){0});
    for (; pace_admits(&pace, now); n++) pace_sent(&pace, &packet, 1, now);
    assert_in_range(n, 20, 40); /* some 125 KB, not the second's worth */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_speed_is_no_limit),
        cmocka_unit_test(keeps_to_the_speed),
        cmocka_unit_test(keeps_to_a_rate_of_packets),
        cmocka_unit_test(idleness_saves_nothing_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
