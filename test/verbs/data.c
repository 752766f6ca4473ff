/* Data over RC, posted both ways. */
#include "end.h"

static void moves_data(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    for (int i = 0; i < ROOM; i++) a.buf[i] = (uint8_t)(i * 7);
    post_recv(&b, 1, 0, 5000);
    assert_int_equal(post(&a, &b, IBV_WR_SEND_WITH_IMM, 5000), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 5000);
    assert_int_equal(wc.imm_data, 0x12345678);
    assert_true(wc.wc_flags & IBV_WC_WITH_IMM);
    assert_int_equal(wc.qp_num, b.qp->qp_num);
    assert_memory_equal(a.buf, b.buf, 5000);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.wr_id, 100 + IBV_WR_SEND_WITH_IMM);

    /* passive: b does not poll */
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, ROOM), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_memory_equal(a.buf, b.buf, ROOM);
    for (int i = 0; i < ROOM; i++) b.buf[i] = (uint8_t)(i * 11);
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_READ, ROOM), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RDMA_READ);
    assert_memory_equal(a.buf, b.buf, ROOM);
    *(uint64_t *)b.buf = 37;
    assert_int_equal(post(&a, &b, IBV_WR_ATOMIC_FETCH_AND_ADD, 8), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(*(uint64_t *)a.buf, 37);
    assert_int_equal(*(uint64_t *)b.buf, 42);
    close_end(&a);
    close_end(&b);
}

static void posts_all_or_none_through_wr(void **state)
{
    struct end a, b;
    struct ibv_poll_cq_attr none = {0};
    uint8_t word[16] = "inline";
    (void)state;

    open_pair(&a, &b);
    post_recv(&b, 1, 4096, 4096);
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(a.qp);
    assert_non_null(ex);
    ibv_wr_start(ex);
    ex->wr_id = 11;
    ex->wr_flags = 0;
    ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf);
    ibv_wr_set_inline_data(ex, word, sizeof word);
    ex->wr_id = 12;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(ex);
    memset(a.buf, 0x5a, 3000);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 3000);
    memset(word, 0, sizeof word); /* was copied */
    assert_int_equal(ibv_wr_complete(ex), 0);

    double until = seconds() + 3;
    while (ibv_start_poll(b.cq, &none) == ENOENT) assert_true(seconds() < until);
    assert_int_equal(b.cq->status, IBV_WC_SUCCESS);
    assert_int_equal(b.cq->wr_id, 1);
    assert_int_equal(ibv_wc_read_opcode(b.cq), IBV_WC_RECV);
    assert_int_equal(ibv_wc_read_byte_len(b.cq), 3000);
    assert_true(ibv_wc_read_completion_ts(b.cq) > 0);
    assert_int_equal(ibv_next_poll(b.cq), ENOENT);
    ibv_end_poll(b.cq);
    assert_string_equal((char *)b.buf, "inline");
    assert_memory_equal(b.buf + 4096, a.buf, 3000);

    /* more than fits: none is posted */
    ibv_wr_start(ex);
    for (int i = 0; i < 65; i++) {
        ex->wr_id = 20;
        ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf + 9000);
        ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 8);
    }
    assert_int_equal(ibv_wr_complete(ex), ENOMEM);
    /* a READ has no data of its own: what was before it is not posted either */
    ibv_wr_start(ex);
    ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf + 9100);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 8);
    ibv_wr_rdma_read(ex, b.mr->rkey, (uintptr_t)b.buf);
    ibv_wr_set_inline_data(ex, word, sizeof word);
    assert_int_equal(ibv_wr_complete(ex), EINVAL);
    ibv_wr_start(ex);
    ibv_wr_bind_mw(ex, NULL, 0, NULL);
    assert_int_equal(ibv_wr_complete(ex), EINVAL);
    ibv_wr_start(ex);
    ibv_wr_send_tso(ex, NULL, 0, 0);
    assert_int_equal(ibv_wr_complete(ex), EOPNOTSUPP);
    ibv_wr_start(ex);
    ibv_wr_abort(ex);
    struct ibv_wc wc;
    await(&a, &wc);
    assert_int_equal(wc.wr_id, 12);
    usleep(20000);
    assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(a.cq), 1, &wc), 0);
    assert_int_equal(b.buf[9000], 0);
    assert_int_equal(b.buf[9100], 0);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(moves_data), cmocka_unit_test(posts_all_or_none_through_wr))
