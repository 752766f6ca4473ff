/* XRC: domains, SRQs by number, initiators, targets and their further handles. */
#include "xrc_end.h"
#include <sys/wait.h>

/* One context with a domain of a file, an XRC SRQ and a target; the other has the initiator. */
static struct ibv_srq *srq;
static struct ibv_qp *sender, *target;
static uint32_t srqn;

static int set_up(void **state)
{
    (void)state;

    bed_up();
    srq = new_xrc_srq(&tgt, xrcd, &srqn);
    target = new_target(tgt.context, xrcd);
    sender = new_sender(&ini);
    assert_non_null(target);
    assert_non_null(sender);
    up(&tgt, target, sender, 14);
    up(&ini, sender, target, 14);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(ibv_destroy_qp(sender), 0);
    if (target) assert_int_equal(ibv_destroy_qp(target), 0);
    assert_int_equal(ibv_destroy_srq(srq), 0);
    bed_down();
    return 0;
}

static void post_shared(uint64_t id, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)tgt.buf + 4096, len, tgt.mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    assert_int_equal(ibv_post_srq_recv(srq, &wr, &bad), 0);
}

static void send_one(uint32_t to, uint64_t id, uint32_t len)
{
    struct ibv_sge sge = {(uintptr_t)ini.buf, len, ini.mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .qp_type.xrc.remote_srqn = to},
                       *bad;
    assert_int_equal(ibv_post_send(sender, &wr, &bad), 0);
}

static void domains(void **state)
{
    struct ibv_xrcd_init_attr init = {.comp_mask = IBV_XRCD_INIT_ATTR_FD, .fd = fd};
    struct ibv_device_attr attr;
    (void)state;

    assert_int_equal(ibv_query_device(tgt.context, &attr), 0);
    assert_true(attr.device_cap_flags & IBV_DEVICE_XRC);
    assert_null(ibv_open_xrcd(tgt.context, &init));
    assert_int_equal(errno, EINVAL);
    assert_null(open_domain(tgt.context, fd, O_CREAT | O_EXCL)); /* it is there */
    assert_int_equal(errno, EINVAL);
    assert_null(open_domain(tgt.context, 12345, O_CREAT));
    assert_int_equal(errno, EBADF);
    int seen = open("/proc/self/exe", O_PATH); /* finding a file is not opening it */
    assert_null(open_domain(tgt.context, seen, O_CREAT));
    assert_int_equal(errno, EBADF);
    close(seen);
    assert_null(open_domain(tgt.context, -1, 0));
    assert_int_equal(errno, EINVAL);
    struct ibv_xrcd *again = open_domain(tgt.context, fd, 0);
    assert_non_null(again);
    assert_int_equal(ibv_close_xrcd(again), 0);
    assert_int_equal(ibv_close_xrcd(xrcd), EBUSY);
    int other = open("/proc/self/exe", O_RDONLY);
    assert_null(open_domain(tgt.context, other, 0)); /* none was made of it */
    assert_int_equal(errno, EAGAIN);
    struct ibv_xrcd *a = open_domain(tgt.context, other, O_CREAT | O_EXCL);
    assert_non_null(a);
    assert_int_equal(ibv_close_xrcd(a), 0);
    assert_null(open_domain(tgt.context, other, 0)); /* the last has closed it */
    struct ibv_xrcd *b = open_domain(tgt.context, -1, O_CREAT);
    assert_non_null(b);
    assert_int_equal(ibv_close_xrcd(b), 0);
    close(other);
}

static void creation(void **state)
{
    struct ibv_srq_init_attr_ex si = srq_init(&tgt, xrcd);
    uint32_t num;
    (void)state;

    si.comp_mask &= ~(uint32_t)IBV_SRQ_INIT_ATTR_CQ;
    assert_null(ibv_create_srq_ex(tgt.context, &si));
    assert_int_equal(errno, EINVAL);
    si = srq_init(&tgt, xrcd);
    si.srq_type = IBV_SRQT_TM;
    si.comp_mask |= IBV_SRQ_INIT_ATTR_TM;
    assert_null(ibv_create_srq_ex(tgt.context, &si));
    assert_int_equal(errno, EOPNOTSUPP);
    si = srq_init(&tgt, xrcd);
    si.attr.max_sge = 1000;
    assert_null(ibv_create_srq_ex(tgt.context, &si));
    assert_int_equal(errno, EINVAL);
    si = srq_init(&ini, xrcd); /* of another context */
    assert_null(ibv_create_srq_ex(tgt.context, &si));
    assert_int_equal(errno, EINVAL);
    si = srq_init(&tgt, xrcd);
    si.srq_type = IBV_SRQT_BASIC;
    struct ibv_srq *basic = ibv_create_srq_ex(tgt.context, &si);
    assert_non_null(basic);
    assert_int_equal(ibv_get_srq_num(basic, &num), EINVAL);
    assert_int_equal(ibv_destroy_srq(basic), 0);
    assert_null(new_target(tgt.context, NULL));
    assert_int_equal(errno, EINVAL);
    struct ibv_qp_init_attr_ex qi = {.qp_type = IBV_QPT_XRC_SEND,
                                     .comp_mask = IBV_QP_INIT_ATTR_XRCD,
                                     .xrcd = xrcd,
                                     .send_cq = ibv_cq_ex_to_cq(tgt.cq)};
    assert_null(ibv_create_qp_ex(tgt.context, &qi)); /* no PD */
    assert_int_equal(errno, EINVAL);
    struct ibv_recv_wr wr = {.wr_id = 1}, *bad;
    assert_int_equal(ibv_post_recv(sender, &wr, &bad), EINVAL);
    assert_int_equal(ibv_post_recv(target, &wr, &bad), EINVAL);
    struct ibv_send_wr send = {.opcode = IBV_WR_SEND}, *bad_send;
    assert_int_equal(ibv_post_send(target, &send, &bad_send), EINVAL);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(tgt.cq)), EBUSY);
}

static void sends_to_a_number(void **state)
{
    struct ibv_wc wc;
    (void)state;

    post_shared(1, 3000);
    memset(ini.buf, 0x5a, 3000);
    send_one(srqn, 7, 3000);
    expect(&ini, 7, IBV_WC_SUCCESS);
    await(&tgt, &wc);
    assert_int_equal(wc.wr_id, 1);
    assert_int_equal(wc.byte_len, 3000);
    assert_int_equal(wc.qp_num, target->qp_num);
    assert_int_equal(wc.src_qp, sender->qp_num);
    assert_memory_equal(ini.buf, tgt.buf + 4096, 3000);

    post_shared(2, 64);
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(sender);
    assert_non_null(ex);
    ibv_wr_start(ex);
    ex->wr_id = 8;
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(ex);
    ibv_wr_set_xrc_srqn(ex, srqn);
    ibv_wr_set_sge(ex, ini.mr->lkey, (uintptr_t)ini.buf, 64);
    assert_int_equal(ibv_wr_complete(ex), 0);
    expect(&ini, 8, IBV_WC_SUCCESS);
    expect(&tgt, 2, IBV_WC_SUCCESS);
    send_one(srqn + 1, 9, 64); /* nobody's */
    expect(&ini, 9, IBV_WC_REM_INV_REQ_ERR);
}

static void limit_and_size(void **state)
{
    struct ibv_srq_attr attr = {.srq_limit = 2};
    (void)state;

    for (uint64_t id = 0; id < 3; id++) post_shared(id, 64);
    assert_int_equal(ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT), 0);
    assert_int_equal(ibv_query_srq(srq, &attr), 0);
    assert_int_equal(attr.srq_limit, 2);
    for (uint64_t id = 0; id < 2; id++) {
        send_one(srqn, id, 8);
        expect(&ini, id, IBV_WC_SUCCESS);
        expect(&tgt, id, IBV_WC_SUCCESS);
    }
    struct ibv_async_event event = next_event(tgt.context);
    assert_int_equal(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
    assert_ptr_equal(event.element.srq, srq);
    assert_int_equal(ibv_query_srq(srq, &attr), 0);
    assert_int_equal(attr.srq_limit, 0);
    attr.max_wr = 100;
    attr.srq_limit = 1000;
    assert_int_equal(ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT), EINVAL);
    assert_int_equal(ibv_query_srq(srq, &attr), 0);
    assert_true(attr.max_wr < 100); /* neither was taken */
    attr.max_wr = 100;
    assert_int_equal(ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR), 0);
    for (uint64_t id = 3; id < 100; id++) post_shared(id, 64);
    send_one(srqn, 9, 8);
    expect(&tgt, 2, IBV_WC_SUCCESS);
}

static void further_handles(void **state)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    struct ibv_async_event event;
    (void)state;

    struct ibv_xrcd *alien = open_domain(tgt.context, -1, O_CREAT);
    assert_null(open_target(tgt.context, alien, target->qp_num, &fd));
    assert_int_equal(errno, EINVAL);
    assert_null(open_target(tgt.context, xrcd, target->qp_num ^ 1, &fd));
    struct ibv_qp *second = open_target(tgt.context, xrcd, target->qp_num, &fd);
    struct ibv_qp *third = open_target(tgt.context, xrcd, target->qp_num, &fd);
    assert_non_null(second);
    assert_non_null(third);
    assert_int_equal(third->qp_num, target->qp_num);
    assert_ptr_equal(third->qp_context, &fd);
    assert_int_equal(ibv_query_qp(third, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_RTS);

    assert_int_equal(ibv_destroy_qp(target), 0); /* it lives on by the others */
    target = NULL;
    post_shared(1, 64);
    send_one(srqn, 5, 64);
    expect(&ini, 5, IBV_WC_SUCCESS);
    expect(&tgt, 1, IBV_WC_SUCCESS);
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_ERR};
    assert_int_equal(ibv_modify_qp(third, &attr, IBV_QP_STATE), 0);
    bool told[2] = {false};
    while (!told[0] || !told[1]) { /* each handle, once */
        event = next_event(tgt.context);
        assert_int_equal(event.event_type, IBV_EVENT_QP_LAST_WQE_REACHED);
        int which = event.element.qp == third;
        assert_ptr_equal(event.element.qp, which ? third : second);
        assert_false(told[which]);
        told[which] = true;
    }
    assert_int_equal(ibv_destroy_qp(second), 0);
    assert_int_equal(ibv_destroy_qp(third), 0);
    assert_null(open_target(tgt.context, xrcd, sender->qp_num, &fd));
    assert_int_equal(ibv_close_xrcd(alien), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

EDGE_MAIN(TEST(domains), TEST(creation), TEST(sends_to_a_number), TEST(limit_and_size),
          TEST(further_handles))
