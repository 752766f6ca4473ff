/* Protection, thread and parent domains, and a parent domain's allocator. */
#include "end.h"
#include "rbond/rbonddv.h"

static void counts_what_uses_them(void **state)
{
    struct end e;
    struct ibv_td_init_attr ti = {0};
    (void)state;

    open_end(&e, IBV_QPT_RC);
    struct ibv_td *td = ibv_alloc_td(e.context, &ti);
    assert_non_null(td);
    struct ibv_pd *pd = ibv_alloc_pd(e.context);
    struct ibv_parent_domain_init_attr pi = {.pd = pd, .td = td};
    struct ibv_pd *parent = ibv_alloc_parent_domain(e.context, &pi);
    assert_non_null(parent);
    assert_int_equal(ibv_dealloc_td(td), EBUSY);
    assert_int_equal(ibv_dealloc_pd(pd), EBUSY);

    struct ibv_mr *mr = ibv_reg_mr(parent, e.buf, ROOM, IBV_ACCESS_LOCAL_WRITE);
    assert_non_null(mr);
    assert_int_equal(ibv_dealloc_pd(parent), EBUSY);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    union ibv_gid gid;
    struct ibv_ah_attr aa = {.is_global = 1, .port_num = 1};
    aa.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
    aa.grh.dgid = gid;
    struct ibv_ah *ah = ibv_create_ah(parent, &aa);
    assert_non_null(ah);
    assert_int_equal(ibv_dealloc_pd(parent), EBUSY);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    struct ibv_srq_init_attr si = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(parent, &si);
    assert_non_null(srq);
    assert_int_equal(ibv_dealloc_pd(parent), EBUSY);
    assert_int_equal(ibv_destroy_srq(srq), 0);
    struct ibv_cq_init_attr_ex ci = {
        .cqe = 4, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = parent};
    struct ibv_cq_ex *cq = ibv_create_cq_ex(e.context, &ci);
    assert_non_null(cq);
    assert_int_equal(ibv_dealloc_pd(parent), EBUSY);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);

    assert_int_equal(ibv_dealloc_pd(parent), 0);
    assert_int_equal(ibv_dealloc_td(td), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    close_end(&e);
}

static void *never(struct ibv_pd *pd, void *context, size_t size, size_t align, uint64_t type)
{
    fail_msg("asked for memory");
    return NULL;
}

static void refuses_what_is_no_domain(void **state)
{
    struct end a, b;
    (void)state;

    open_end(&a, IBV_QPT_RC);
    open_end(&b, IBV_QPT_RC);
    struct ibv_td_init_attr ti = {.comp_mask = 1};
    assert_null(ibv_alloc_td(a.context, &ti));
    assert_int_equal(errno, EINVAL);
    struct ibv_parent_domain_init_attr pi = {.pd = b.pd};
    assert_null(ibv_alloc_parent_domain(a.context, &pi)); /* another context's */
    assert_int_equal(errno, EINVAL);
    pi = (struct ibv_parent_domain_init_attr){.pd = a.pd, .comp_mask = 1 << 7};
    assert_null(ibv_alloc_parent_domain(a.context, &pi));
    assert_int_equal(errno, EINVAL);
    pi = (struct ibv_parent_domain_init_attr){
        .pd = a.pd, .comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS, .alloc = never};
    assert_null(ibv_alloc_parent_domain(a.context, &pi)); /* who would free it? */
    assert_int_equal(errno, EINVAL);
    pi = (struct ibv_parent_domain_init_attr){.pd = a.pd};
    struct ibv_pd *parent = ibv_alloc_parent_domain(a.context, &pi);
    assert_non_null(parent);
    pi.pd = parent;
    assert_null(ibv_alloc_parent_domain(a.context, &pi)); /* not a protection domain itself */
    assert_int_equal(errno, EINVAL);
    struct ibv_cq_init_attr_ex ci = {
        .cqe = 4, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = a.pd};
    assert_null(ibv_create_cq_ex(a.context, &ci)); /* nor a parent domain */
    assert_int_equal(errno, EINVAL);
    struct ibv_qp_init_attr qi = {
        .send_cq = ibv_cq_ex_to_cq(b.cq), .recv_cq = ibv_cq_ex_to_cq(a.cq), .qp_type = IBV_QPT_RC};
    assert_null(ibv_create_qp(a.pd, &qi)); /* two adapters */
    assert_int_equal(errno, EINVAL);
    assert_int_equal(ibv_dealloc_pd(parent), 0);
    close_end(&a);
    close_end(&b);
}

/* ---- an allocator ------------------------------------------------------------------------ */

struct arena {
    struct ibv_pd *pd; /* that must ask */
    int asked[4], live[4];
    void *answer; /* NULL or IBV_ALLOCATOR_USE_DEFAULT; else memory */
    bool gives;
};

static void *give(struct ibv_pd *pd, void *context, size_t size, size_t align, uint64_t type)
{
    struct arena *arena = context;
    void *at = NULL;

    assert_ptr_equal(pd, arena->pd);
    assert_true(type == RBONDDV_RESOURCE_QP || type == RBONDDV_RESOURCE_CQ);
    arena->asked[type]++;
    if (!arena->gives) return arena->answer;
    assert_int_equal(posix_memalign(&at, align, size), 0);
    memset(at, 0, size);
    arena->live[type]++;
    return at;
}

static void take(struct ibv_pd *pd, void *context, void *at, uint64_t type)
{
    struct arena *arena = context;

    assert_ptr_equal(pd, arena->pd);
    arena->live[type]--;
    free(at);
}

/* Has the end use a parent domain with this arena instead of its protection domain. */
static void adopt(struct end *e, struct arena *arena)
{
    struct ibv_parent_domain_init_attr pi = {.pd = e->pd,
                                             .comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS |
                                                          IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT,
                                             .alloc = give,
                                             .free = take,
                                             .pd_context = arena};
    assert_non_null(arena->pd = ibv_alloc_parent_domain(e->context, &pi));
    assert_int_equal(ibv_destroy_qp(e->qp), 0);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(e->cq)), 0);
    struct ibv_cq_init_attr_ex ci = {.cqe = 200,
                                     .channel = e->channel,
                                     .wc_flags = IBV_WC_STANDARD_FLAGS,
                                     .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD,
                                     .parent_domain = arena->pd};
    assert_non_null(e->cq = ibv_create_cq_ex(e->context, &ci));
    struct ibv_pd *pd = e->pd;
    e->pd = arena->pd;
    make_qp(e, IBV_QPT_RC);
    e->pd = pd;
}

static void keeps_rings_in_the_programs_memory(void **state)
{
    struct arena arena = {.gives = true};
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_end(&a, IBV_QPT_RC);
    open_end(&b, IBV_QPT_RC);
    adopt(&a, &arena);
    assert_int_equal(arena.asked[RBONDDV_RESOURCE_CQ], 1);
    assert_int_equal(arena.asked[RBONDDV_RESOURCE_QP], 1);
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
    for (int i = 0; i < 300; i++) {
        a.buf[0] = (uint8_t)i;
        post_recv(&b, 1, 4096, 1000);
        assert_int_equal(post(&a, &b, IBV_WR_SEND, 1000), 0);
        await(&b, &wc);
        assert_int_equal(b.buf[4096], (uint8_t)i);
        await(&a, &wc);
        if (i == 150) assert_int_equal(ibv_resize_cq(ibv_cq_ex_to_cq(a.cq), 500), 0);
    }
    assert_int_equal(arena.asked[RBONDDV_RESOURCE_CQ], 2);
    assert_int_equal(arena.live[RBONDDV_RESOURCE_CQ], 1);
    assert_int_equal(ibv_resize_cq(ibv_cq_ex_to_cq(a.cq), 1 << 30), EINVAL);
    assert_int_equal(ibv_destroy_qp(a.qp), 0);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(a.cq)), 0);
    assert_int_equal(arena.live[RBONDDV_RESOURCE_CQ], 0);
    assert_int_equal(arena.live[RBONDDV_RESOURCE_QP], 0);

    struct ibv_cq_init_attr_ex ci = {
        .cqe = 8, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = arena.pd};
    arena.gives = false; /* it has none left */
    assert_null(ibv_create_cq_ex(a.context, &ci));
    assert_int_equal(errno, ENOMEM);
    arena.answer = IBV_ALLOCATOR_USE_DEFAULT;
    assert_non_null(a.cq = ibv_create_cq_ex(a.context, &ci));
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(a.cq)), 0);
    ci.comp_mask = 0;
    assert_non_null(a.cq = ibv_create_cq_ex(a.context, &ci));
    a.qp = NULL;
    assert_int_equal(ibv_dealloc_pd(arena.pd), 0);
    close_end(&a);
    close_end(&b);
}

EDGE_MAIN(cmocka_unit_test(counts_what_uses_them), cmocka_unit_test(refuses_what_is_no_domain),
          cmocka_unit_test(keeps_rings_in_the_programs_memory))
