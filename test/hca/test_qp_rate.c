/* The rate limit of one QP, of every service: kept in the long run, told, changed while it runs,
 * and of no concern to what is owed to the peer. */
#include "bed.h"
#include <errno.h>

#define MESSAGE 16384
#define MESSAGES 60

static struct bed bed;

static int teardown(void **state)
{
    bed_close(&bed);
    return 0;
}

/* Carries packets both ways; time goes on when neither side has one. */
static void run_until_idle(void)
{
    for (;;) {
        bed_pump(&bed);
        when_t at = when_min(hca_deadline(bed.hca[0]), hca_deadline(bed.hca[1]));
        if (when_is_never(at)) return;
        if (when_before(bed.now, at)) bed.now = at;
        for (int side = 0; side < 2; side++) hca_expire(bed.hca[side], bed.now);
    }
}

static void post_sends(int side, unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        struct hca_sge sge = bed_sge(&bed, side, 0, len);
        struct hca_send_wr wr = bed_send_wr(&bed, i, &sge);
        assert_int_equal(hca_post_send(bed.hca[side], bed.qp[side], &wr, bed.now), 0);
    }
}

/* Megabits that went in a second, on the wire. */
static double rate_of(enum hca_qp_type type, uint32_t len)
{
    uint64_t bytes = 0;
    when_t from = bed.now;
    for (int i = 0; i < MESSAGES; i++) {
        bed_recv(&bed, 1, 1, 16384, MESSAGE + 40);
        post_sends(0, 1, len);
        run_until_idle();
        bed_poll(bed.scq[0]);
        bed_poll(bed.rcq[1]);
        uint32_t mtu = type == HCA_QPT_UD ? 4096 : 1024, packets = (len + mtu - 1) / mtu;
        bytes += len + packets * 100;
    }
    return (double)bytes * 8 / (double)when_since(bed.now, from) * 1000;
}

static void is_kept(void **state)
{
    static const enum hca_qp_type types[] = {HCA_QPT_RC, HCA_QPT_UC, HCA_QPT_UD};
    for (int i = 0; i < 3; i++) {
        uint32_t len = types[i] == HCA_QPT_UD ? 4096 : MESSAGE;
        bed_open(&bed, types[i]);
        assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], 50000, 0), 0);
        struct hca_qp_attr attr;
        hca_qp_query(bed.qp[0], &attr);
        assert_int_equal(attr.rate_limit, 50000);
        double mbps = rate_of(types[i], len);
        if (mbps < 45 || mbps > 52) fail_msg("type %d: %.1f Mb/s of 50", types[i], mbps);
        assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], 5000, 0), 0);
        mbps = rate_of(types[i], len);
        if (mbps < 4.5 || mbps > 5.2) fail_msg("type %d: %.1f Mb/s of 5", types[i], mbps);
        if (i < 2) bed_close(&bed);
    }
}

static void bursts_are_as_asked(void **state)
{
    struct hca_tx tx[64];
    bed_open(&bed, HCA_QPT_UC);
    assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], 1000, 4096), 0); /* 4 packets */
    post_sends(0, 1, MESSAGE);
    assert_int_equal(hca_output(bed.hca[0], tx, 64, bed.now), 4);
    assert_int_equal(hca_output(bed.hca[0], tx, 64, bed.now), 0);
    when_t at = hca_deadline(bed.hca[0]);
    assert_true(when_before(when_add(bed.now, 30 * MS_NS), at)); /* 4.4 KB at 1 Mb/s: 35 ms */
    assert_true(when_before(at, when_add(bed.now, 40 * MS_NS)));
    /* no limit any more: the rest goes at once */
    assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], 0, 0), 0);
    assert_int_equal(hca_output(bed.hca[0], tx, 64, bed.now), 12);
}

static void answers_are_not_held(void **state)
{
    bed_open(&bed, HCA_QPT_RC);
    assert_int_equal(hca_qp_rate_limit(bed.hca[1], bed.qp[1], 1, 0), 0); /* the peer's */
    when_t from = bed.now;
    for (int i = 0; i < 20; i++) {
        bed_recv(&bed, 1, 1, 16384, MESSAGE);
        post_sends(0, 1, MESSAGE);
        bed_pump(&bed);
        assert_int_equal(bed_poll(bed.scq[0]).status, HCA_WC_SUCCESS); /* acknowledged */
    }
    assert_true(bed.now.ns == from.ns);
}

static void only_where_requests_go(void **state)
{
    bed_open(&bed, HCA_QPT_RC);
    struct hca_qp_attr attr = {.state = HCA_QPS_RTS, .rate_limit = 77};
    const uint32_t mask = HCA_QP_STATE | HCA_QP_RATE_LIMIT;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, mask, bed.now), 0);
    hca_qp_query(bed.qp[0], &attr);
    assert_int_equal(attr.rate_limit, 77);
    attr.rate_limit = HCA_MAX_RATE_KBPS + 1;
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, mask, bed.now), -EINVAL);
    assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], HCA_MAX_RATE_KBPS + 1, 0), -EINVAL);
    attr = (struct hca_qp_attr){.state = HCA_QPS_RESET, .rate_limit = 5};
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, mask, bed.now), -EINVAL);
    assert_int_equal(hca_qp_modify(bed.hca[0], bed.qp[0], &attr, HCA_QP_STATE, bed.now), 0);
    assert_int_equal(hca_qp_rate_limit(bed.hca[0], bed.qp[0], 5, 0), -EINVAL);
    hca_qp_query(bed.qp[0], &attr);
    assert_int_equal(attr.rate_limit, 0); /* RESET forgets it */
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(is_kept),
        TEST(bursts_are_as_asked),
        TEST(answers_are_not_held),
        TEST(only_where_requests_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
