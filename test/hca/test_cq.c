/* Completion queues: order, overrun, arming, resize, what a dead QP leaves, and a poller without
 * the lock. */
#include "bed.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>

static struct hca *hca;
static struct hca_cq *cq;
static int owner;
static const when_t now = {5};

static int setup(void **state)
{
    uint32_t cqe = 5;
    hca = hca_new(&(struct hca_conf){.function = 3, .seed = 9});
    assert_int_equal(hca_cq_create(hca, &cqe, &owner, &cq), 0);
    assert_int_equal(cqe, 8);
    return 0;
}

static int teardown(void **state)
{
    hca_free(hca);
    return 0;
}

static void push(uint64_t wr_id, qpn_t qpn, enum hca_wc_status status, bool solicited)
{
    struct hca_wc wc = {.wr_id = wr_id, .qpn = qpn, .status = status};
    cq_push(cq, &wc, solicited, now);
}

static void in_order(void **state)
{
    struct hca_wc wc[8];
    for (uint64_t i = 0; i < 100; i += 3) {
        for (uint64_t k = i; k < i + 3; k++) push(k, 1, HCA_WC_SUCCESS, false);
        assert_int_equal(hca_cq_poll(cq, wc, 2), 2);
        assert_int_equal(wc[0].wr_id, i);
        assert_int_equal(wc[1].wr_id, i + 1);
        assert_int_equal(wc[1].stamp_ns, now.ns);
        assert_int_equal(hca_cq_poll(cq, wc, 8), 1);
        assert_int_equal(wc[0].wr_id, i + 2);
    }
    assert_int_equal(hca_cq_poll(cq, wc, 8), 0);
}

static void overrun(void **state)
{
    struct hca_wc wc[16];
    struct hca_event event;
    for (uint64_t i = 0; i < 8; i++) push(i, 1, HCA_WC_SUCCESS, false);
    assert_false(hca_next_event(hca, &event));
    hca_cq_arm(hca, cq, false);
    push(8, 1, HCA_WC_SUCCESS, false);
    push(9, 1, HCA_WC_SUCCESS, false);
    assert_true(hca_next_event(hca, &event));
    assert_int_equal(event.type, HCA_EVENT_CQ_ERR);
    assert_ptr_equal(event.owner, &owner);
    assert_false(hca_next_event(hca, &event));
    assert_ptr_equal(hca_next_notified(hca), &owner);
    assert_int_equal(hca_cq_poll(cq, wc, 16), 8);
    assert_int_equal(wc[7].wr_id, 7);
    assert_int_equal(hca_cq_poll(cq, wc, 16), -EOVERFLOW);
    push(10, 1, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 16), -EOVERFLOW);
}

static void overrun_fails_its_qps(void **state)
{
    struct bed bed;
    uint32_t one = 1;
    struct hca_event event;
    bed_open(&bed, HCA_QPT_UD);
    assert_int_equal(hca_cq_resize(bed.hca[1], bed.rcq[1], &one), 0);
    for (unsigned i = 0; i < 4; i++) bed_recv(&bed, 1, i, i * 256, 256);
    struct hca_sge sge = bed_sge(&bed, 0, 0, 100);
    for (unsigned i = 0; i < 2; i++) {
        struct hca_send_wr wr = bed_send_wr(&bed, i, &sge);
        assert_int_equal(hca_post_send(bed.hca[0], bed.qp[0], &wr, bed.now), 0);
    }
    bed_pump(&bed);
    assert_true(hca_next_event(bed.hca[1], &event));
    assert_int_equal(event.type, HCA_EVENT_CQ_ERR);
    struct hca_qp_attr attr;
    hca_qp_query(bed.qp[1], &attr);
    assert_int_equal(attr.state, HCA_QPS_ERR);
    assert_int_equal(bed_poll(bed.rcq[1]).wr_id, 0);
    bed_close(&bed);
}

static void arm_any(void **state)
{
    hca_cq_arm(hca, cq, false);
    assert_null(hca_next_notified(hca));
    push(2, 1, HCA_WC_SUCCESS, false);
    push(3, 1, HCA_WC_SUCCESS, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    assert_null(hca_next_notified(hca));
    push(4, 1, HCA_WC_SUCCESS, true);
    assert_null(hca_next_notified(hca)); /* once */
}

/* A program that sleeps now would not hear of them otherwise. */
static void arm_with_completions_inside(void **state)
{
    struct hca_wc wc[16];
    push(1, 1, HCA_WC_SUCCESS, false);
    hca_cq_arm(hca, cq, true); /* none of the kind */
    assert_null(hca_next_notified(hca));
    hca_cq_arm(hca, cq, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    hca_cq_arm(hca, cq, false); /* one, and the program was told */
    assert_null(hca_next_notified(hca));
    push(2, 1, HCA_WC_SUCCESS, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    hca_cq_arm(hca, cq, false); /* told, but programs may take one for each event */
    assert_ptr_equal(hca_next_notified(hca), &owner);
    assert_int_equal(hca_cq_poll(cq, wc, 16), 2);
    push(3, 1, HCA_WC_SUCCESS, false);
    assert_null(hca_next_notified(hca));
    hca_cq_arm(hca, cq, false); /* it came between the last look and this */
    assert_ptr_equal(hca_next_notified(hca), &owner);
    push(4, 1, HCA_WC_SUCCESS, true);
    push(5, 1, HCA_WC_SUCCESS, false);
    hca_cq_arm(hca, cq, true);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    assert_int_equal(hca_cq_poll(cq, wc, 2), 2);
    hca_cq_arm(hca, cq, true); /* what is left is not solicited */
    assert_null(hca_next_notified(hca));
}

static void arm_solicited(void **state)
{
    hca_cq_arm(hca, cq, true);
    push(1, 1, HCA_WC_SUCCESS, false);
    assert_null(hca_next_notified(hca));
    push(2, 1, HCA_WC_SUCCESS, true);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    hca_cq_arm(hca, cq, true);
    push(3, 1, HCA_WC_WR_FLUSH_ERR, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
}

static void arm_is_not_weakened(void **state)
{
    hca_cq_arm(hca, cq, false);
    hca_cq_arm(hca, cq, true);
    push(1, 1, HCA_WC_SUCCESS, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
    hca_cq_arm(hca, cq, true);
    hca_cq_arm(hca, cq, false);
    push(2, 1, HCA_WC_SUCCESS, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
}

static void push_at(when_t at)
{
    struct hca_wc wc = {.status = HCA_WC_SUCCESS, .qpn = 1};
    cq_push(cq, &wc, false, at);
}

static void an_event_for_so_many(void **state)
{
    struct hca_wc wc[8];
    hca_cq_moderate(hca, cq, 3, 0);
    push(0, 1, HCA_WC_SUCCESS, false); /* not armed: does not count */
    assert_int_equal(hca_cq_poll(cq, wc, 8), 1);
    for (int round = 0; round < 2; round++) {
        hca_cq_arm(hca, cq, false);
        push(1, 1, HCA_WC_SUCCESS, false);
        push(2, 1, HCA_WC_SUCCESS, false);
        assert_null(hca_next_notified(hca));
        assert_true(when_is_never(hca_deadline(hca)));
        push(3, 1, HCA_WC_SUCCESS, false);
        assert_ptr_equal(hca_next_notified(hca), &owner);
        hca_cq_poll(cq, wc, 8);
    }
    hca_cq_arm(hca, cq, false);
    push(4, 1, HCA_WC_SUCCESS, false);
    hca_cq_moderate(hca, cq, 0, 0); /* what was held back comes */
    assert_ptr_equal(hca_next_notified(hca), &owner);
    hca_cq_arm(hca, cq, false);
    push(5, 1, HCA_WC_SUCCESS, false);
    assert_ptr_equal(hca_next_notified(hca), &owner);
}

static void an_event_after_so_long(void **state)
{
    uint32_t cqe = 8;
    static int second;
    struct hca_cq *other;
    assert_int_equal(hca_cq_create(hca, &cqe, &second, &other), 0);
    hca_cq_moderate(hca, cq, 100, 50 * US_NS);
    hca_cq_moderate(hca, other, 0, 20 * US_NS);
    hca_cq_arm(hca, cq, false);
    push_at((when_t){1000});
    push_at((when_t){40000}); /* counts from the first */
    assert_int_equal(hca_deadline(hca).ns, 51000);
    hca_cq_arm(hca, other, false);
    cq_push(other, &(struct hca_wc){.qpn = 1}, false, (when_t){2000});
    assert_int_equal(hca_deadline(hca).ns, 22000); /* the earlier one */
    hca_expire(hca, (when_t){21999});
    assert_null(hca_next_notified(hca));
    hca_expire(hca, (when_t){22000});
    assert_ptr_equal(hca_next_notified(hca), &second);
    assert_null(hca_next_notified(hca));
    assert_int_equal(hca_deadline(hca).ns, 51000);
    hca_cq_arm(hca, cq, false); /* it is on the way */
    assert_null(hca_next_notified(hca));
    assert_int_equal(hca_cq_deadline(hca).ns, 51000);
    hca_cq_expire(hca, (when_t){51000}); /* as without a port */
    assert_ptr_equal(hca_next_notified(hca), &owner);
    assert_true(when_is_never(hca_deadline(hca)));
    struct hca_wc wc[8];
    assert_int_equal(hca_cq_poll(cq, wc, 8), 2);
    hca_cq_arm(hca, cq, false);
    push_at((when_t){60000});
    assert_int_equal(hca_cq_destroy(hca, cq), 0);
    assert_true(when_is_never(hca_deadline(hca)));
}

static void overrun_ignored(void **state)
{
    struct hca_wc wc[16];
    struct hca_event event;
    hca_cq_ignore_overrun(cq);
    for (uint64_t i = 0; i < 11; i++) push(i, 1, HCA_WC_SUCCESS, false);
    assert_false(hca_next_event(hca, &event));
    assert_int_equal(hca_cq_poll(cq, wc, 16), 8);
    push(20, 1, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 16), 1);
    assert_int_equal(wc[0].wr_id, 20);
}

static void in_the_callers_memory(void **state)
{
    static struct hca_wc ring[8], larger[16];
    struct hca_cq *other;
    struct hca_wc wc[16];
    uint32_t cqe = 7;
    assert_int_equal(hca_cq_bytes(7), sizeof ring);
    assert_int_equal(hca_cq_bytes(0), 0);
    assert_int_equal(hca_cq_bytes(HCA_MAX_CQE + 1), 0);
    assert_int_equal(hca_cq_create_in(hca, &cqe, NULL, ring, &other), 0);
    for (uint64_t i = 1; i < 8; i++)
        cq_push(other, &(struct hca_wc){.wr_id = i, .qpn = 1}, false, now);
    assert_int_equal(ring[6].wr_id, 7);
    cqe = 9;
    assert_int_equal(hca_cq_resize_in(hca, other, &cqe, larger), 0);
    assert_int_equal(cqe, 16);
    memset(ring, 0xff, sizeof ring);
    assert_int_equal(hca_cq_poll(other, wc, 16), 7);
    assert_int_equal(wc[6].wr_id, 7);
    assert_int_equal(hca_cq_resize(hca, other, &cqe), 0); /* its own again */
    assert_int_equal(hca_cq_destroy(hca, other), 0);
}

static void resize(void **state)
{
    struct hca_wc wc[16];
    uint32_t cqe = 4;
    for (uint64_t i = 0; i < 7; i++) push(i, 1, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 1), 1);
    assert_int_equal(hca_cq_resize(hca, cq, &cqe), -EINVAL);
    cqe = 16;
    assert_int_equal(hca_cq_resize(hca, cq, &cqe), 0);
    for (uint64_t i = 7; i < 17; i++) push(i, 1, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 16), 16);
    for (uint64_t i = 0; i < 16; i++) assert_int_equal(wc[i].wr_id, i + 1);
    cqe = HCA_MAX_CQE + 1;
    assert_int_equal(hca_cq_resize(hca, cq, &cqe), -EINVAL);
}

static void forget(void **state)
{
    struct hca_wc wc[8];
    for (uint64_t i = 0; i < 6; i++) push(i, 1, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 6), 6);
    for (uint64_t i = 0; i < 8; i++) push(i, (qpn_t)(i % 3), HCA_WC_SUCCESS, false);
    cq_forget_qp(cq, 1);
    assert_int_equal(hca_cq_poll(cq, wc, 8), 5);
    assert_int_equal(wc[0].wr_id, 0);
    assert_int_equal(wc[1].wr_id, 2);
    assert_int_equal(wc[4].wr_id, 6);
    for (uint64_t i = 0; i < 8; i++) push(i, 2, HCA_WC_SUCCESS, false);
    assert_int_equal(hca_cq_poll(cq, wc, 8), 8);
    assert_int_equal(wc[7].wr_id, 7);
}

enum { MANY = 300000 };

static void *poller(void *arg)
{
    static uintptr_t wrong;
    uint64_t next = 0;
    struct hca_wc wc[3];
    while (next < MANY) {
        int n = hca_cq_poll(cq, wc, 3);
        for (int i = 0; i < n; i++) {
            if (wc[i].wr_id != next || wc[i].byte_len != (uint32_t)(next * 7)) wrong++;
            next++;
        }
        atomic_store((_Atomic uint64_t *)arg, next);
        if (n == 0) sched_yield();
    }
    return (void *)wrong;
}

static void polled_without_the_lock(void **state)
{
    _Atomic uint64_t taken = 0;
    pthread_t thread;
    void *wrong;
    assert_int_equal(pthread_create(&thread, NULL, poller, &taken), 0);
    for (uint64_t i = 0; i < MANY; i++) {
        while (i - atomic_load(&taken) >= 8) sched_yield();
        struct hca_wc wc = {.wr_id = i, .byte_len = (uint32_t)(i * 7)};
        cq_push(cq, &wc, false, now);
    }
    pthread_join(thread, &wrong);
    assert_null(wrong);
}

static void limits(void **state)
{
    struct hca_cq *other;
    uint32_t cqe = 0;
    assert_int_equal(hca_cq_create(hca, &cqe, NULL, &other), -EINVAL);
    cqe = HCA_MAX_CQE + 1;
    assert_int_equal(hca_cq_create(hca, &cqe, NULL, &other), -EINVAL);
    struct bed bed;
    bed_open(&bed, HCA_QPT_UC);
    assert_int_equal(hca_cq_destroy(bed.hca[0], bed.scq[0]), -EBUSY);
    hca_qp_destroy(bed.hca[0], bed.qp[0]);
    assert_int_equal(hca_cq_destroy(bed.hca[0], bed.scq[0]), 0);
    bed_close(&bed);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(in_order),
        TEST(overrun),
        TEST(overrun_fails_its_qps),
        TEST(arm_any),
        TEST(arm_with_completions_inside),
        TEST(arm_solicited),
        TEST(arm_is_not_weakened),
        TEST(resize),
        TEST(forget),
        TEST(polled_without_the_lock),
        TEST(limits),
        TEST(an_event_for_so_many),
        TEST(an_event_after_so_long),
        TEST(overrun_ignored),
        TEST(in_the_callers_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
