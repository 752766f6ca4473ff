/* Verbs that return an error number leave it in errno, too: each of them with an argument that it
 * must refuse. */
#include "end.h"
#include "rbond/rbonddv.h"
#include <dlfcn.h>

#define FAILS(call, error)                                                                         \
    do {                                                                                           \
        errno = 0;                                                                                 \
        int rc_ = (call);                                                                          \
        if (rc_ != (error) || errno != abs(error))                                                 \
            fail_msg("%s: %d, errno %d", #call, rc_, errno);                                       \
    } while (0)

/* With a handle that is none of the object's: every verb looks there first. */
#define GARBLED(object, call)                                                                      \
    do {                                                                                           \
        (object)->handle ^= 1;                                                                     \
        FAILS(call, EINVAL);                                                                       \
        (object)->handle ^= 1;                                                                     \
    } while (0)

static struct end e;

static int open_rc(void **state)
{
    (void)state;
    open_end(&e, IBV_QPT_RC);
    return 0;
}

static int close_it(void **state)
{
    (void)state;
    close_end(&e);
    return 0;
}

static void of_a_device(void **state)
{
    struct ibv_values_ex values = {.comp_mask = 1 << 9};
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    union ibv_gid gid;
    uint16_t pkey, vid;
    uint8_t mac[6];
    struct ibv_ah_attr ah = {.port_num = 2};
    (void)state;

    FAILS(ibv_query_rt_values_ex(e.context, &values), EINVAL);
    FAILS(ibv_query_port(e.context, 2, &port), EINVAL);
    FAILS(ibv_query_gid_ex(e.context, 2, 0, &entry, 0), EINVAL);
    FAILS(ibv_query_gid_ex(e.context, 1, 31, &entry, 0), ENODATA);
    FAILS(ibv_query_gid_ex(e.context, 1, 0, &entry, 1), EOPNOTSUPP);
    FAILS(ibv_query_gid(e.context, 1, 999, &gid) ? EINVAL : 0, EINVAL);
    FAILS(ibv_query_pkey(e.context, 1, 999, &pkey) ? EINVAL : 0, EINVAL);
    FAILS(ibv_resolve_eth_l2_from_gid(e.context, &ah, mac, &vid), -EINVAL);
}

static void of_domains_and_memory(void **state)
{
    struct ibv_sge sge = {.lkey = e.mr->lkey, .addr = (uintptr_t)e.buf, .length = 8};
    struct ibv_alloc_dm_attr dma = {.length = 4096};
    struct ibv_td_init_attr tdi = {0};
    struct ibv_mw_bind bind = {.bind_info = {.mr = e.mr, .addr = (uintptr_t)e.buf, .length = 8}};
    struct ibv_ah_attr aa = {.is_global = 1, .port_num = 1};
    char bytes[8];
    (void)state;

    FAILS(ibv_dealloc_pd(e.pd), EBUSY);
    GARBLED(e.pd, ibv_dealloc_pd(e.pd));
    GARBLED(e.mr, ibv_dereg_mr(e.mr));
    FAILS(ibv_advise_mr(e.pd, 99, 0, &sge, 1), ENOTSUP);
    FAILS(ibv_advise_mr(e.pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 0), EINVAL);
    FAILS(ibv_advise_mr(e.pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1), EINVAL);

    struct ibv_dm *dm = ibv_alloc_dm(e.context, &dma);
    struct ibv_mr *of_dm =
        ibv_reg_dm_mr(e.pd, dm, 0, 4096, IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE);
    assert_non_null(of_dm);
    FAILS(ibv_free_dm(dm), EBUSY);
    GARBLED(dm, ibv_free_dm(dm));
    FAILS(ibv_memcpy_to_dm(dm, 1, bytes, 8), EINVAL);
    FAILS(ibv_memcpy_from_dm(bytes, dm, 4096, 8), EFAULT);
    assert_int_equal(ibv_dereg_mr(of_dm), 0);
    assert_int_equal(ibv_free_dm(dm), 0);

    struct ibv_td *td = ibv_alloc_td(e.context, &tdi);
    struct ibv_parent_domain_init_attr pdi = {.pd = e.pd, .td = td};
    struct ibv_pd *parent = ibv_alloc_parent_domain(e.context, &pdi);
    assert_non_null(parent);
    FAILS(ibv_dealloc_td(td), EBUSY);
    assert_int_equal(ibv_dealloc_pd(parent), 0);
    assert_int_equal(ibv_dealloc_td(td), 0);

    struct ibv_mw *mw = ibv_alloc_mw(e.pd, IBV_MW_TYPE_1);
    assert_non_null(mw);
    bind.send_flags = IBV_SEND_INLINE;
    FAILS(ibv_bind_mw(e.qp, mw, &bind), EINVAL);
    bind.send_flags = 0;
    FAILS(ibv_bind_mw(e.qp, mw, &bind), EINVAL); /* not in this state */
    GARBLED(mw, ibv_dealloc_mw(mw));
    assert_int_equal(ibv_dealloc_mw(mw), 0);

    int index = gid_index(e.context, &aa.grh.dgid);
    aa.grh.sgid_index = (uint8_t)index;
    struct ibv_ah *ah = ibv_create_ah(e.pd, &aa);
    assert_non_null(ah);
    GARBLED(ah, ibv_destroy_ah(ah));
    assert_int_equal(ibv_destroy_ah(ah), 0);
}

static void of_completion_queues(void **state)
{
    struct ibv_cq *cq = ibv_cq_ex_to_cq(e.cq);
    struct ibv_modify_cq_attr attr = {.attr_mask = 1 << 9};
    struct ibv_poll_cq_attr poll_attr = {.comp_mask = 1};
    struct ibv_wc wc;
    (void)state;

    FAILS(ibv_destroy_comp_channel(e.channel), EBUSY);
    FAILS(ibv_destroy_cq(cq), EBUSY);
    FAILS(ibv_resize_cq(cq, 0), EINVAL);
    FAILS(ibv_modify_cq(cq, &attr), EINVAL);
    FAILS(ibv_start_poll(e.cq, &poll_attr), EINVAL);
    FAILS(ibv_poll_cq(cq, -1, &wc), -EINVAL);
    GARBLED(cq, ibv_destroy_cq(cq));
    GARBLED(cq, ibv_resize_cq(cq, 8));
    GARBLED(cq, ibv_req_notify_cq(cq, 0));
    GARBLED(cq, ibv_modify_cq(cq, &attr));
}

static void of_shared_receive_queues(void **state)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq_attr attr = {.srq_limit = 99};
    struct ibv_recv_wr wr = {.num_sge = -1}, *bad;
    uint32_t num;
    (void)state;

    struct ibv_srq *srq = ibv_create_srq(e.pd, &init);
    assert_non_null(srq);
    FAILS(ibv_modify_srq(srq, &attr, 1 << 9), EINVAL);
    FAILS(ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT), EINVAL);
    FAILS(ibv_post_srq_recv(srq, &wr, &bad), EINVAL);
    FAILS(ibv_get_srq_num(srq, &num), EINVAL);
    GARBLED(srq, ibv_query_srq(srq, &attr));
    GARBLED(srq, ibv_destroy_srq(srq));
    assert_int_equal(ibv_destroy_srq(srq), 0);
}

static void of_xrc_domains(void **state)
{
    struct ibv_xrcd_init_attr xi = {.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                    .fd = -1,
                                    .oflags = O_CREAT};
    (void)state;

    struct ibv_xrcd *xrcd = ibv_open_xrcd(e.context, &xi);
    assert_non_null(xrcd);
    struct ibv_qp_init_attr_ex qi = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
    struct ibv_qp *qp = ibv_create_qp_ex(e.context, &qi);
    assert_non_null(qp);
    FAILS(ibv_close_xrcd(xrcd), EBUSY);
    assert_int_equal(ibv_destroy_qp(qp), 0);
    assert_int_equal(ibv_close_xrcd(xrcd), 0);
}

static void of_queue_pairs(void **state)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS};
    struct ibv_qp_init_attr init;
    struct ibv_qp_rate_limit_attr rate = {.comp_mask = 1};
    struct ibv_ece ece = {0};
    union ibv_gid gid = {.raw = {0xff}};
    uint8_t configured;
    (void)state;

    FAILS(ibv_modify_qp(e.qp, &attr, IBV_QP_STATE), EINVAL);
    FAILS(ibv_modify_qp_rate_limit(e.qp, &rate), EINVAL);
    FAILS(ibv_attach_mcast(e.qp, &gid, 0), EINVAL);
    FAILS(ibv_detach_mcast(e.qp, &gid, 0), EINVAL);
    FAILS(ibv_set_ece(e.qp, &ece), EOPNOTSUPP);
    FAILS(ibv_query_ece(e.qp, &ece), EOPNOTSUPP);
    GARBLED(e.qp, ibv_modify_qp(e.qp, &attr, IBV_QP_STATE));
    GARBLED(e.qp, ibv_query_qp(e.qp, &attr, IBV_QP_STATE, &init));
    GARBLED(e.qp, ibv_destroy_qp(e.qp));
    GARBLED(e.qp, ibv_attach_mcast(e.qp, &gid, 0));

    __typeof__(&rbonddv_query_qp_affinity) query = dlsym(RTLD_DEFAULT, "rbonddv_query_qp_affinity");
    __typeof__(&rbonddv_modify_qp_affinity) modify =
        dlsym(RTLD_DEFAULT, "rbonddv_modify_qp_affinity");
    assert_true(query && modify);
    GARBLED(e.qp, query(e.qp, &configured, NULL));
    FAILS(modify(e.qp, 17), EINVAL);
}

static void of_posting(void **state)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND}, *bad;
    struct ibv_recv_wr recv = {.num_sge = -1}, *bad_recv;
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(e.qp);
    (void)state;

    FAILS(ibv_post_send(e.qp, &wr, &bad), EINVAL); /* not in this state */
    FAILS(ibv_post_recv(e.qp, &recv, &bad_recv), EINVAL);
    GARBLED(e.qp, ibv_post_send(e.qp, &wr, &bad));
    GARBLED(e.qp, ibv_post_recv(e.qp, &recv, &bad_recv));
    ibv_wr_start(ex);
    ibv_wr_send(ex);
    FAILS(ibv_wr_complete(ex), EINVAL);
    ibv_wr_start(ex);
    ex->wr_flags = 1 << 30;
    ibv_wr_send(ex);
    FAILS(ibv_wr_complete(ex), EINVAL);
    ex->wr_flags = 0;
}

/* None of a batch is posted where one of it is too long. */
static void of_a_batch(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_pair(&a, &b);
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(a.qp);
    struct ibv_sge halves[] = {{0, 0x40000001, a.mr->lkey}, {0, 0x40000000, a.mr->lkey}};
    ibv_wr_start(ex);
    ex->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf);
    ibv_wr_set_sge(ex, a.mr->lkey, (uintptr_t)a.buf, 64);
    ibv_wr_rdma_write(ex, b.mr->rkey, (uintptr_t)b.buf);
    ibv_wr_set_sge_list(ex, 2, halves);
    FAILS(ibv_wr_complete(ex), EINVAL);
    for (double until = seconds() + 0.05; seconds() < until;)
        assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(a.cq), 1, &wc), 0);
    close_end(&a);
    close_end(&b);
}

/* By the table of operations, as the inline verbs call them. */
static void of_what_there_is_not(void **state)
{
    struct verbs_context *v = verbs_get_ctx(e.context);
    struct ibv_wq_attr attr = {0};
    (void)state;

    FAILS(v->modify_wq(NULL, &attr), EOPNOTSUPP);
    FAILS(v->destroy_wq(NULL), EOPNOTSUPP);
    FAILS(v->destroy_rwq_ind_table(NULL), EOPNOTSUPP);
    FAILS(v->ibv_destroy_flow(NULL), EOPNOTSUPP);
    FAILS(v->post_srq_ops(NULL, NULL, NULL), EOPNOTSUPP);
}

#define WITH_END(test) cmocka_unit_test_setup_teardown(test, open_rc, close_it)

EDGE_MAIN(WITH_END(of_a_device), WITH_END(of_domains_and_memory), WITH_END(of_completion_queues),
          WITH_END(of_shared_receive_queues), WITH_END(of_xrc_domains), WITH_END(of_queue_pairs),
          WITH_END(of_posting), cmocka_unit_test(of_a_batch), WITH_END(of_what_there_is_not))
