/* A QP's states as a program sees them: posting in each, draining, the events on the way, what
 * ibv_query_qp tells, the rate limit. */
#include "end.h"

#define RTR_MASK                                                                                   \
    (IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |                \
     IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)
#define RTS_MASK                                                                                   \
    (IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |         \
     IBV_QP_MAX_QP_RD_ATOMIC)

static int go(struct end *e, enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state};
    return ibv_modify_qp(e->qp, &attr, IBV_QP_STATE);
}

static enum ibv_qp_state state_of(struct end *e)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    assert_int_equal(ibv_query_qp(e->qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, attr.cur_qp_state);
    return attr.qp_state;
}

/* The next async event but COMM_EST, which comes or not as the peer is quick or slow; acknowledged.
 */
static struct ibv_async_event next_event(struct end *e)
{
    struct ibv_async_event event;
    struct pollfd pfd = {.fd = e->context->async_fd, .events = POLLIN};

    do {
        if (poll(&pfd, 1, WAIT_MS) != 1) fail_msg("no event");
        assert_int_equal(ibv_get_async_event(e->context, &event), 0);
        ibv_ack_async_event(&event);
    } while (event.event_type == IBV_EVENT_COMM_EST);
    return event;
}

/* ---- posting ----------------------------------------------------------------------------- */

/* A list of two, of which the second is wrong or too much: the first is posted, bad_wr tells the
 * second. */
static void posts_up_to_the_bad_one(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    struct ibv_sge sge = {(uintptr_t)a.buf, 8, a.mr->lkey};
    struct ibv_send_wr second = {.wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND},
                       first = second, *bad;
    first.wr_id = 1;
    first.next = &second;
    first.send_flags = IBV_SEND_SIGNALED;
    second.opcode = (enum ibv_wr_opcode)77;
    post_recv(&b, 1, 0, 64);
    assert_int_equal(ibv_post_send(a.qp, &first, &bad), EINVAL);
    assert_ptr_equal(bad, &second);
    await(&a, &wc);
    assert_int_equal(wc.wr_id, 1);
    await(&b, &wc);

    static const struct {
        int flags, num_sge;
        uint32_t len;
        enum ibv_wr_opcode opcode;
    } wrong[] = {
        {0, 5, 8, IBV_WR_SEND}, /* more than max_send_sge */
        {0, -1, 8, IBV_WR_SEND},
        {IBV_SEND_INLINE, 1, 129, IBV_WR_SEND}, /* more than max_inline_data */
        {IBV_SEND_INLINE, 1, 8, IBV_WR_RDMA_READ},
        {IBV_SEND_IP_CSUM, 1, 8, IBV_WR_SEND}, /* no device_cap_flags for it */
        {1 << 20, 1, 8, IBV_WR_SEND},
        {0, 1, 8, IBV_WR_TSO},
        {0, 1, 8, IBV_WR_DRIVER1},
        {0, 1, 8, (enum ibv_wr_opcode)14}, /* IBV_WR_FLUSH: ibv_wr_flush alone */
        {0, 1, 8, IBV_WR_ATOMIC_WRITE},    /* the same */
    };
    struct ibv_sge many[5] = {sge, sge, sge, sge, sge};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        many[0].length = wrong[i].len;
        struct ibv_send_wr wr = {.sg_list = many,
                                 .num_sge = wrong[i].num_sge,
                                 .opcode = wrong[i].opcode,
                                 .send_flags = (unsigned)wrong[i].flags};
        bad = NULL;
        if (ibv_post_send(a.qp, &wr, &bad) != EINVAL) fail_msg("wrong request %u", i);
        assert_ptr_equal(bad, &wr);
    }
    struct ibv_recv_wr recv = {.sg_list = many, .num_sge = 5}, *bad_recv;
    assert_int_equal(ibv_post_recv(b.qp, &recv, &bad_recv), EINVAL);
    assert_ptr_equal(bad_recv, &recv);
    recv.num_sge = 0;
    int n = 0, rc;
    while ((rc = ibv_post_recv(b.qp, &recv, &bad_recv)) == 0) assert_true(++n <= 64);
    assert_int_equal(rc, ENOMEM);
    assert_int_equal(n, 64);
    assert_ptr_equal(bad_recv, &recv);
    close_end(&a);
    close_end(&b);
}

static void posts_as_its_state_allows(void **state)
{
    static const struct {
        enum ibv_qp_state state;
        int send, recv;
    } expect[] = {
        {IBV_QPS_RESET, EINVAL, EINVAL},
        {IBV_QPS_INIT, EINVAL, 0},
        {IBV_QPS_RTR, EINVAL, 0},
        {IBV_QPS_RTS, 0, 0},
        {IBV_QPS_SQD, 0, 0},
        {IBV_QPS_ERR, 0, 0},
    };
    (void)state;

    for (unsigned i = 0; i < sizeof expect / sizeof *expect; i++) {
        struct end e;
        struct ibv_recv_wr recv = {.wr_id = 5}, *bad_recv;
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
        enum ibv_qp_state want = expect[i].state;
        struct ibv_wc wc;
        open_end(&e, IBV_QPT_UD);
        if (want == IBV_QPS_RESET) assert_int_equal(go(&e, IBV_QPS_RESET), 0);
        if (want >= IBV_QPS_RTR) assert_int_equal(go(&e, IBV_QPS_RTR), 0);
        attr.qp_state = IBV_QPS_RTS;
        if (want >= IBV_QPS_RTS)
            assert_int_equal(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
        if (want > IBV_QPS_RTS) assert_int_equal(go(&e, want), 0);
        assert_int_equal(state_of(&e), want);
        assert_int_equal(e.qp->state, want);

        union ibv_gid gid;
        struct ibv_ah_attr aa = {.is_global = 1, .port_num = 1};
        aa.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
        aa.grh.dgid = gid;
        struct ibv_ah *ah = ibv_create_ah(e.pd, &aa);
        struct ibv_send_wr send = {.wr_id = 6, .opcode = IBV_WR_SEND, .wr.ud = {ah, 9, 9}}, *bad;
        assert_int_equal(ibv_post_recv(e.qp, &recv, &bad_recv), expect[i].recv);
        assert_int_equal(ibv_post_send(e.qp, &send, &bad), expect[i].send);
        if (want == IBV_QPS_ERR) {
            for (int n = 0; n < 2; n++) {
                await(&e, &wc);
                assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
                assert_int_equal(wc.qp_num, e.qp->qp_num);
            }
        }
        assert_int_equal(ibv_destroy_ah(ah), 0);
        close_end(&e);
    }
}

/* ---- draining ---------------------------------------------------------------------------- */

static void drains_and_tells(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    for (int i = 0; i < 8; i++) post_recv(&b, 1, 0, 64);
    for (int i = 0; i < 4; i++) assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
    struct ibv_async_event event = next_event(&a);
    assert_int_equal(event.event_type, IBV_EVENT_SQ_DRAINED);
    assert_ptr_equal(event.element.qp, a.qp);
    struct ibv_qp_init_attr init;
    assert_int_equal(ibv_query_qp(a.qp, &attr, IBV_QP_STATE, &init), 0);
    assert_int_equal(attr.qp_state, IBV_QPS_SQD);
    assert_int_equal(attr.sq_draining, 0);
    /* accepted, and kept until the queue goes on */
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
    for (int i = 0; i < 4; i++) await(&a, &wc);
    usleep(20000);
    assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(a.cq), 1, &wc), 0);
    attr = (struct ibv_qp_attr){.timeout = 15, .retry_cnt = 3};
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT), 0);
    assert_int_equal(go(&a, IBV_QPS_RTS), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    close_end(&a);
    close_end(&b);
}

static void refuses_migration(void **state)
{
    struct end a, b;
    struct ibv_qp_attr attr = {.path_mig_state = IBV_MIG_REARM};
    struct ibv_device_attr da;
    (void)state;

    open_pair(&a, &b);
    assert_int_equal(ibv_query_device(a.context, &da), 0);
    assert_false(da.device_cap_flags & (IBV_DEVICE_AUTO_PATH_MIG | IBV_DEVICE_RESIZE_MAX_WR));
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_PATH_MIG_STATE), EOPNOTSUPP);
    attr.path_mig_state = IBV_MIG_MIGRATED; /* where it is */
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_PATH_MIG_STATE), 0);
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_ALT_PATH), EOPNOTSUPP);
    assert_int_equal(ibv_modify_qp(a.qp, &attr, IBV_QP_CAP), EINVAL);
    assert_int_equal(state_of(&a), IBV_QPS_RTS);
    close_end(&a);
    close_end(&b);
}

/* ---- events ------------------------------------------------------------------------------ */

static void tells_of_the_first_message_in_rtr(void **state)
{
    struct end a, b;
    struct ibv_async_event event;
    struct ibv_wc wc;
    (void)state;

    open_end(&a, IBV_QPT_RC);
    open_end(&b, IBV_QPT_RC);
    connect_rc(&a, &b, 14);
    union ibv_gid gid;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = a.qp->qp_num,
                               .rq_psn = 7,
                               .max_dest_rd_atomic = 1,
                               .ah_attr = {.is_global = 1, .port_num = 1}};
    attr.ah_attr.grh.sgid_index = (uint8_t)gid_index(b.context, &gid);
    attr.ah_attr.grh.dgid = gid;
    assert_int_equal(ibv_modify_qp(b.qp, &attr, RTR_MASK), 0);
    post_recv(&b, 1, 0, 64);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 64), 0);
    await(&a, &wc);
    struct pollfd pfd = {.fd = b.context->async_fd, .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
    assert_int_equal(ibv_get_async_event(b.context, &event), 0);
    assert_int_equal(event.event_type, IBV_EVENT_COMM_EST);
    assert_ptr_equal(event.element.qp, b.qp);
    ibv_ack_async_event(&event);
    close_end(&a);
    close_end(&b);
}

static void tells_of_the_last_receive_of_an_srq(void **state)
{
    struct end e;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_destroy_qp(e.qp), 0);
    struct ibv_srq_init_attr si = {.attr = {.max_wr = 4, .max_sge = 1}};
    assert_non_null(e.srq = ibv_create_srq(e.pd, &si));
    make_qp(&e, IBV_QPT_RC);
    assert_int_equal(ibv_destroy_srq(e.srq), EBUSY);
    struct ibv_recv_wr wr = {0}, *bad;
    assert_int_equal(ibv_post_recv(e.qp, &wr, &bad), EINVAL); /* it has no queue of its own */
    assert_int_equal(go(&e, IBV_QPS_ERR), 0);
    struct ibv_async_event event = next_event(&e);
    assert_int_equal(event.event_type, IBV_EVENT_QP_LAST_WQE_REACHED);
    assert_ptr_equal(event.element.qp, e.qp);
    assert_int_equal(ibv_destroy_qp(e.qp), 0);
    e.qp = NULL;
    assert_int_equal(ibv_destroy_srq(e.srq), 0);
    close_end(&e);
}

/* A request that a responder's own receive queue cannot take: it fails there, and says so. */
static void tells_of_a_bad_request(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    uint64_t odd = (uintptr_t)b.buf + 4; /* an atomic wants 8 bytes aligned */
    struct ibv_sge sge = {(uintptr_t)a.buf, 8, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.atomic = {.remote_addr = odd, .rkey = b.mr->rkey}},
                       *bad;
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_REM_INV_REQ_ERR);
    struct ibv_async_event event = next_event(&b);
    assert_int_equal(event.event_type, IBV_EVENT_QP_REQ_ERR);
    assert_ptr_equal(event.element.qp, b.qp);
    assert_int_equal(state_of(&b), IBV_QPS_ERR);
    close_end(&a);
    close_end(&b);
}

/* ---- ibv_query_qp ------------------------------------------------------------------------ */

static void tells_all_that_was_set(void **state)
{
    struct end e;
    struct ibv_qp_attr got;
    struct ibv_qp_init_attr init;
    union ibv_gid gid;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_512,
        .dest_qp_num = 0x123456,
        .rq_psn = 0xabcdef,
        .max_dest_rd_atomic = 3,
        .min_rnr_timer = 21,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .sl = 5,
                    .static_rate = IBV_RATE_10_GBPS,
                    .grh = {.flow_label = 0xbeef, .hop_limit = 33, .traffic_class = 0x68}}};
    attr.ah_attr.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
    attr.ah_attr.grh.dgid = gid;
    assert_int_equal(ibv_modify_qp(e.qp, &attr, RTR_MASK), 0);
    struct ibv_qp_attr rts = {.qp_state = IBV_QPS_RTS,
                              .timeout = 17,
                              .retry_cnt = 6,
                              .rnr_retry = 5,
                              .sq_psn = 0x123,
                              .max_rd_atomic = 2,
                              .rate_limit = 1000000};
    assert_int_equal(ibv_modify_qp(e.qp, &rts, RTS_MASK | IBV_QP_RATE_LIMIT), 0);
    assert_int_equal(ibv_query_qp(e.qp, &got, IBV_QP_STATE, &init), 0);
    assert_int_equal(got.qp_state, IBV_QPS_RTS);
    assert_int_equal(got.path_mtu, IBV_MTU_512);
    assert_int_equal(got.path_mig_state, IBV_MIG_MIGRATED);
    assert_int_equal(got.dest_qp_num, 0x123456);
    assert_int_equal(got.rq_psn, 0xabcdef);
    assert_int_equal(got.sq_psn, 0x123);
    assert_int_equal(got.max_dest_rd_atomic, 3);
    assert_int_equal(got.max_rd_atomic, 2);
    assert_int_equal(got.min_rnr_timer, 21);
    assert_int_equal(got.timeout, 17);
    assert_int_equal(got.retry_cnt, 6);
    assert_int_equal(got.rnr_retry, 5);
    assert_int_equal(got.rate_limit, 1000000);
    assert_int_equal(got.port_num, 1);
    assert_int_equal(got.pkey_index, 0);
    assert_int_equal(got.qp_access_flags, ALL_ACCESS);
    assert_int_equal(got.sq_draining, 0);
    assert_memory_equal(&got.ah_attr.grh.dgid, &gid, 16);
    assert_int_equal(got.ah_attr.grh.sgid_index, attr.ah_attr.grh.sgid_index);
    assert_int_equal(got.ah_attr.grh.flow_label, 0xbeef);
    assert_int_equal(got.ah_attr.grh.hop_limit, 33);
    assert_int_equal(got.ah_attr.grh.traffic_class, 0x68);
    assert_int_equal(got.ah_attr.sl, 5);
    assert_int_equal(got.ah_attr.static_rate, IBV_RATE_10_GBPS);
    assert_int_equal(got.ah_attr.is_global, 1);
    assert_int_equal(got.ah_attr.port_num, 1);
    assert_ptr_equal(init.send_cq, ibv_cq_ex_to_cq(e.cq));
    assert_ptr_equal(init.recv_cq, ibv_cq_ex_to_cq(e.cq));
    assert_null(init.srq);
    assert_int_equal(init.qp_type, IBV_QPT_RC);
    assert_int_equal(init.sq_sig_all, 0);
    assert_true(init.cap.max_send_wr >= 64 && init.cap.max_recv_wr >= 64);
    assert_int_equal(init.cap.max_inline_data, 128);
    assert_memory_equal(&init.cap, &got.cap, sizeof got.cap);
    assert_int_equal(ibv_query_qp_data_in_order(e.qp, IBV_WR_RDMA_WRITE, 0), 0);
    struct ibv_ece ece;
    assert_int_equal(ibv_query_ece(e.qp, &ece), EOPNOTSUPP);
    assert_int_equal(ibv_set_ece(e.qp, &ece), EOPNOTSUPP);
    close_end(&e);
}

/* A peer that is named by its LID, and told so again. */
static void leads_to_a_lid(void **state)
{
    struct ibv_port_attr port;
    struct ibv_qp_attr got;
    struct ibv_qp_init_attr init;
    struct end e;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    assert_int_equal(ibv_query_port(e.context, 1, &port), 0);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR,
                               .path_mtu = IBV_MTU_512,
                               .dest_qp_num = 0x123456,
                               .ah_attr = {.dlid = port.lid, .sl = 3, .port_num = 1}};
    assert_int_equal(ibv_modify_qp(e.qp, &attr, RTR_MASK), 0);
    assert_int_equal(ibv_query_qp(e.qp, &got, IBV_QP_AV, &init), 0);
    assert_memory_equal(&got.ah_attr, &attr.ah_attr, sizeof got.ah_attr);
    close_end(&e);
}

static void refuses_what_it_cannot_be(void **state)
{
    static const uint32_t flags[] = {IBV_QP_CREATE_SCATTER_FCS, IBV_QP_CREATE_CVLAN_STRIPPING,
                                     IBV_QP_CREATE_SOURCE_QPN, IBV_QP_CREATE_PCI_WRITE_END_PADDING};
    static const uint32_t masks[] = {IBV_QP_INIT_ATTR_MAX_TSO_HEADER, IBV_QP_INIT_ATTR_IND_TABLE,
                                     IBV_QP_INIT_ATTR_RX_HASH, 1 << 20};
    static const uint64_t ops[] = {IBV_QP_EX_WITH_TSO, 1 << 13, 1 << 14, 1ull << 40};
    struct end e;
    (void)state;

    open_end(&e, IBV_QPT_RC);
    const struct ibv_qp_init_attr_ex good = {.send_cq = ibv_cq_ex_to_cq(e.cq),
                                             .recv_cq = ibv_cq_ex_to_cq(e.cq),
                                             .qp_type = IBV_QPT_RC,
                                             .comp_mask = IBV_QP_INIT_ATTR_PD,
                                             .pd = e.pd};
    struct ibv_qp_init_attr_ex qi;
    for (int i = 0; i < 4; i++) {
        qi = good;
        qi.comp_mask |= IBV_QP_INIT_ATTR_CREATE_FLAGS;
        qi.create_flags = flags[i];
        assert_null(ibv_create_qp_ex(e.context, &qi));
        assert_int_equal(errno, EOPNOTSUPP);
        qi = good;
        qi.comp_mask |= masks[i];
        assert_null(ibv_create_qp_ex(e.context, &qi));
        assert_int_equal(errno, EOPNOTSUPP);
        qi = good;
        qi.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        qi.send_ops_flags = ops[i];
        assert_null(ibv_create_qp_ex(e.context, &qi));
        assert_int_equal(errno, EOPNOTSUPP);
    }
    qi = good;
    qi.qp_type = IBV_QPT_RAW_PACKET;
    assert_null(ibv_create_qp_ex(e.context, &qi));
    assert_int_equal(errno, EOPNOTSUPP);
    qi.qp_type = IBV_QPT_DRIVER;
    assert_null(ibv_create_qp_ex(e.context, &qi));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_counters_init_attr counters = {0};
    assert_null(ibv_create_counters(e.context, &counters));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_flow_attr flow = {.type = IBV_FLOW_ATTR_NORMAL, .size = sizeof flow, .port = 1};
    assert_null(ibv_create_flow(e.qp, &flow));
    assert_int_equal(errno, EOPNOTSUPP);
    struct ibv_wq_init_attr wi = {.wq_type = IBV_WQT_RQ, .pd = e.pd, .cq = good.recv_cq};
    assert_null(ibv_create_wq(e.context, &wi));
    assert_int_equal(errno, EOPNOTSUPP);
    close_end(&e);
}

/* ---- the rate limit ---------------------------------------------------------------------- */

static void keeps_to_its_rate(void **state)
{
    struct end a, b;
    struct ibv_device_attr_ex da;
    struct ibv_qp_rate_limit_attr limit = {.rate_limit = 80000}; /* 10 MB/s */
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    assert_int_equal(ibv_query_device_ex(a.context, NULL, &da), 0);
    assert_true(ibv_is_qpt_supported(da.packet_pacing_caps.supported_qpts, IBV_QPT_RC));
    assert_true(da.packet_pacing_caps.qp_rate_limit_max >= 100000000);
    assert_int_equal(ibv_modify_qp_rate_limit(a.qp, &limit), 0);
    double from = seconds();
    for (int i = 0; i < 20; i++) {
        assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 50000), 0);
        await(&a, &wc);
    }
    double took = seconds() - from; /* 1 MB and its headers */
    assert_true(took > 0.09);
    limit.rate_limit = 0;
    assert_int_equal(ibv_modify_qp_rate_limit(a.qp, &limit), 0);
    limit.rate_limit = UINT32_MAX;
    assert_int_equal(ibv_modify_qp_rate_limit(a.qp, &limit), EINVAL);
    limit = (struct ibv_qp_rate_limit_attr){.rate_limit = 5, .comp_mask = 1};
    assert_int_equal(ibv_modify_qp_rate_limit(a.qp, &limit), EINVAL);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(posts_up_to_the_bad_one), cmocka_unit_test(posts_as_its_state_allows),
          cmocka_unit_test(drains_and_tells), cmocka_unit_test(refuses_migration),
          cmocka_unit_test(tells_of_the_first_message_in_rtr),
          cmocka_unit_test(tells_of_the_last_receive_of_an_srq),
          cmocka_unit_test(tells_of_a_bad_request), cmocka_unit_test(tells_all_that_was_set),
          cmocka_unit_test(leads_to_a_lid), cmocka_unit_test(refuses_what_it_cannot_be),
          cmocka_unit_test(keeps_to_its_rate))
