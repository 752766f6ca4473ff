/* What answers say about a timer's resend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hca/rc_doubt.h"

static struct rc_doubt d;
static when_t now;

/* The next answer after so long: to all, beyond what was resent. */
static enum rc_doubt_verdict answer(uint64_t after_us, bool all, bool ahead, uint64_t least_us)
{
    now = when_add(now, after_us * US_NS);
    return rc_doubt_answered(&d, all, ahead, least_us * US_NS, now);
}

static void strike(void)
{
    now = when_add(now, MS_NS);
    rc_doubt_struck(&d, now);
}

static int begin(void **state)
{
    rc_doubt_over(&d);
    now = (when_t){SEC_NS};
    return 0;
}

static void none_without_a_strike(void **state)
{
    assert_int_equal(answer(1, false, true, 100), RC_DOUBT_NONE);
    assert_int_equal(answer(1, true, false, 0), RC_DOUBT_NONE);
}

static void all_there(void **state)
{
    strike();
    assert_int_equal(answer(100, true, true, 100), RC_DOUBT_ALL_THERE);
    assert_int_equal(answer(1, false, false, 100), RC_DOUBT_NONE);
}

/* Faster than the way there and back. */
static void too_soon(void **state)
{
    strike();
    assert_int_equal(answer(50, false, false, 100), RC_DOUBT_UNFOUNDED);
    assert_int_equal(answer(1, false, false, 100), RC_DOUBT_NONE);
}

static void lost(void **state)
{
    strike();
    assert_int_equal(answer(100, false, false, 100), RC_DOUBT_STANDS);
    assert_int_equal(answer(100, false, false, 100), RC_DOUBT_FOUNDED);
    assert_int_equal(answer(1, false, false, 100), RC_DOUBT_NONE);
}

/* A lost NAK: the first answer brings out what had arrived, the second is to the resend. */
static void lost_further_on(void **state)
{
    strike();
    assert_int_equal(answer(100, false, true, 100), RC_DOUBT_STANDS);
    assert_int_equal(answer(100, false, false, 100), RC_DOUBT_FOUNDED);
}

static void ahead_twice(void **state)
{
    strike();
    assert_int_equal(answer(5000, false, true, 100), RC_DOUBT_STANDS);
    assert_int_equal(answer(100, false, true, 100), RC_DOUBT_UNFOUNDED);
}

/* Nothing is measured yet: what the first answer took stands for it. */
static void first_flight(void **state)
{
    strike();
    assert_int_equal(answer(30000, false, false, 0), RC_DOUBT_STANDS);
    assert_int_equal(answer(3, false, false, 0), RC_DOUBT_UNFOUNDED);
    begin(NULL);
    strike();
    assert_int_equal(answer(20, false, false, 0), RC_DOUBT_STANDS);
    assert_int_equal(answer(20, false, false, 0), RC_DOUBT_FOUNDED);
}

/* Another strike with no answer between: what looked like the first sending's was not. */
static void not_twice(void **state)
{
    strike();
    assert_int_equal(answer(50, false, false, 100), RC_DOUBT_UNFOUNDED);
    strike();
    assert_int_equal(answer(50, false, true, 100), RC_DOUBT_STANDS);
    assert_int_equal(answer(50, false, true, 100), RC_DOUBT_FOUNDED);
    assert_int_equal(answer(50, false, true, 100), RC_DOUBT_NONE);
    strike();
    assert_int_equal(answer(50, false, false, 100), RC_DOUBT_UNFOUNDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(none_without_a_strike, begin),
        cmocka_unit_test_setup(all_there, begin),
        cmocka_unit_test_setup(too_soon, begin),
        cmocka_unit_test_setup(lost, begin),
        cmocka_unit_test_setup(lost_further_on, begin),
        cmocka_unit_test_setup(ahead_twice, begin),
        cmocka_unit_test_setup(first_flight, begin),
        cmocka_unit_test_setup(not_twice, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
