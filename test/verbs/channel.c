/* Completion channels. */
#include "end.h"

static void wakes_a_sleeper(void **state)
{
    struct end a, b;
    struct ibv_cq *cq;
    void *context;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    struct ibv_cq *bcq = ibv_cq_ex_to_cq(b.cq);
    for (int i = 0; i < 200; i++) {
        post_recv(&b, 1, 0, 64);
        assert_int_equal(ibv_req_notify_cq(bcq, 0), 0);
        assert_int_equal(ibv_poll_cq(bcq, 1, &wc), 0);
        struct pollfd pfd = {.fd = b.channel->fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 0), 0);
        assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
        assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
        assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), 0);
        assert_ptr_equal(cq, bcq);
        assert_ptr_equal(context, &b);
        ibv_ack_cq_events(cq, 1);
        assert_int_equal(ibv_poll_cq(bcq, 1, &wc), 1);
        await(&a, &wc);
    }
    fcntl(b.channel->fd, F_SETFL, O_NONBLOCK);
    assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), -1);
    assert_int_equal(errno, EAGAIN);
    /* one that nobody reads: destroying the CQ neither waits for it nor leaves it behind */
    post_recv(&b, 1, 0, 64);
    assert_int_equal(ibv_req_notify_cq(bcq, 0), 0);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
    await(&a, &wc);
    assert_int_equal(ibv_destroy_qp(b.qp), 0);
    assert_int_equal(ibv_destroy_cq(bcq), 0);
    assert_int_equal(ibv_get_cq_event(b.channel, &cq, &context), -1);
    struct ibv_cq_init_attr_ex ci = {.cqe = 16, .channel = b.channel};
    assert_non_null(b.cq = ibv_create_cq_ex(b.context, &ci));
    b.qp = NULL;
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(wakes_a_sleeper))
