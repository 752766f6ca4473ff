/* Queue pairs: mistakes, states, members. */
#include "end.h"
#include "rbond/rbonddv.h"
#include <dlfcn.h>

static void refuses_mistakes(void **state)
{
    struct end e;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_dealloc_pd(e.pd), EBUSY);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(e.cq)), EBUSY);
    assert_int_equal(ibv_destroy_comp_channel(e.channel), EBUSY);
    e.qp->handle ^= 0x55;
    assert_int_equal(ibv_destroy_qp(e.qp), EINVAL);
    e.qp->handle ^= 0x55;
    e.mr->handle ^= 0x55;
    assert_int_equal(ibv_dereg_mr(e.mr), EINVAL);
    e.mr->handle ^= 0x55;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE), EINVAL);
    assert_int_equal(e.qp->state, IBV_QPS_INIT);

    void *hole = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_null(ibv_reg_mr(e.pd, hole, 8192, IBV_ACCESS_LOCAL_WRITE)); /* read only */
    assert_int_equal(errno, EFAULT);
    struct ibv_mr *mr = ibv_reg_mr(e.pd, hole, 8192, 0);
    assert_non_null(mr);
    ibv_dereg_mr(mr);
    munmap((char *)hole + 4096, 4096);
    assert_null(ibv_reg_mr(e.pd, hole, 8192, 0));
    assert_int_equal(errno, EFAULT);
    munmap(hole, 4096);
    assert_null(ibv_reg_mr(e.pd, e.buf, ROOM, IBV_ACCESS_REMOTE_WRITE)); /* without local */
    assert_int_equal(errno, EINVAL);

    struct ibv_qp_init_attr_ex qi = {.send_cq = ibv_cq_ex_to_cq(e.cq),
                                     .recv_cq = ibv_cq_ex_to_cq(e.cq),
                                     .qp_type = IBV_QPT_UD,
                                     .comp_mask =
                                         IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                     .pd = e.pd,
                                     .send_ops_flags = IBV_QP_EX_WITH_RDMA_READ};
    assert_null(ibv_create_qp_ex(e.context, &qi));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(post(&e, &e, IBV_WR_SEND, 8), EINVAL); /* not in RTS */
    close_end(&e);
}

static void refuses_a_path_mtu_beyond_the_port(void **state)
{
    struct end e;
    struct ibv_port_attr port;
    union ibv_gid gid;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_query_port(e.context, 1, &port), 0);
    assert_int_equal(port.active_mtu, IBV_MTU_1024); /* edge.sh leaves 1500 */
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_2048,
                               .dest_qp_num = 77,
                               .max_dest_rd_atomic = 1,
                               .ah_attr = {.is_global = 1, .port_num = 1}};
    int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
               IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    attr.ah_attr.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
    attr.ah_attr.grh.dgid = gid;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.path_mtu = IBV_MTU_1024;
    memset(&attr.ah_attr.grh.dgid, 0, 16);
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.ah_attr.grh.dgid = gid;
    attr.ah_attr.is_global = 0;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), EINVAL);
    attr.ah_attr.is_global = 1;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, mask), 0);
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr got;
    assert_int_equal(ibv_query_qp(e.qp, &got, mask, &init), 0);
    assert_int_equal(got.qp_state, IBV_QPS_RTR);
    assert_int_equal(got.path_mtu, IBV_MTU_1024);
    assert_int_equal(got.dest_qp_num, 77);
    assert_int_equal(got.ah_attr.is_global, 1);
    assert_memory_equal(&got.ah_attr.grh.dgid, &gid, 16);
    assert_ptr_equal(init.send_cq, ibv_cq_ex_to_cq(e.cq));
    close_end(&e);
}

static void tells_of_a_qp_in_error(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    struct ibv_async_event event;
    (void)state;

    open_pair(&a, &b);
    fcntl(b.context->async_fd, F_SETFL, O_NONBLOCK);
    while (ibv_get_async_event(b.context, &event) == 0) ibv_ack_async_event(&event);
    struct ibv_mr *mr = b.mr;
    struct ibv_mr wrong = *mr;
    wrong.rkey ^= 0xff;
    b.mr = &wrong;
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 64), 0);
    b.mr = mr;
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_REM_ACCESS_ERR);
    assert_int_equal(a.qp->state, IBV_QPS_RTS); /* libibverbs changes it in modify_qp only */
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr attr;
    assert_int_equal(ibv_query_qp(a.qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_ERR);
    struct pollfd pfd = {.fd = b.context->async_fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
    bool access_error = false;
    while (ibv_get_async_event(b.context, &event) == 0) {
        if (event.event_type == IBV_EVENT_QP_ACCESS_ERR) access_error = event.element.qp == b.qp;
        ibv_ack_async_event(&event);
    }
    assert_true(access_error);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 8), 0); /* accepted, and flushed */
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
    close_end(&a);
    close_end(&b);
}

static void knows_its_members(void **state)
{
    struct end e;
    uint8_t configured = 9, active = 9;
    __typeof__(&rbonddv_query_qp_affinity) query = dlsym(RTLD_DEFAULT, "rbonddv_query_qp_affinity");
    __typeof__(&rbonddv_modify_qp_affinity) modify =
        dlsym(RTLD_DEFAULT, "rbonddv_modify_qp_affinity");
    (void)state;

    assert_non_null(query);
    assert_non_null(modify);
    open_end(&e, IBV_QPT_RC);
    assert_int_equal(query(e.qp, &configured, &active), 0);
    assert_int_equal(configured, 0);
    assert_int_equal(active, 0);
    assert_int_equal(modify(e.qp, 0), 0);
    assert_int_equal(modify(e.qp, 1), EINVAL); /* a plain port has one member */
    close_end(&e);
}

/* What the peer has seen completed is acknowledged, and what it acknowledged is no failure, though
 * both ends go at once, as at the end of a connection. */
static void settles_before_it_ends(void **state)
{
    struct end a, b;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    for (int i = 0; i < 50; i++) {
        post_recv(&b, 1, 0, 64);
        assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
        await(&b, &wc);
        assert_int_equal(wc.status, IBV_WC_SUCCESS);
        assert_int_equal(ibv_modify_qp(b.qp, &attr, IBV_QP_STATE), 0);
        assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_STATE), 0);
        await(&a, &wc);
        assert_int_equal(wc.status, IBV_WC_SUCCESS);
        ibv_destroy_qp(a.qp);
        ibv_destroy_qp(b.qp);
        make_qp(&a, IBV_QPT_RC);
        make_qp(&b, IBV_QPT_RC);
        connect_rc(&a, &b, 14);
        connect_rc(&b, &a, 14);
    }
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(refuses_mistakes), cmocka_unit_test(refuses_a_path_mtu_beyond_the_port),
          cmocka_unit_test(tells_of_a_qp_in_error), cmocka_unit_test(knows_its_members),
          cmocka_unit_test(settles_before_it_ends))
