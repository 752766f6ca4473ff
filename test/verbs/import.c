/* More handles of a context, and in them of what the first one made. */
#include "end.h"

static struct ibv_context *again(struct ibv_context *c)
{
    struct ibv_context *more = ibv_import_device(dup(c->cmd_fd));
    assert_non_null(more);
    assert_ptr_not_equal(more, c);
    assert_ptr_equal(more->device, c->device);
    assert_int_not_equal(more->async_fd, c->async_fd);
    return more;
}

/* A pair whose b uses an imported context, PD and MR; the original of b lives in `first`. */
static void imports_what_traffic_needs(void **state)
{
    struct end a, first;
    struct ibv_wc wc;
    (void)state;

    open_end(&a, IBV_QPT_RC);
    open_end(&first, IBV_QPT_RC);
    struct end b = {.context = again(first.context), .buf = first.buf};
    b.pd = ibv_import_pd(b.context, first.pd->handle);
    assert_non_null(b.pd);
    assert_int_equal(b.pd->handle, first.pd->handle);
    b.mr = ibv_import_mr(b.pd, first.mr->handle);
    assert_non_null(b.mr);
    assert_null(b.mr->addr);
    assert_int_equal(b.mr->lkey, first.mr->lkey);
    assert_int_equal(b.mr->rkey, first.mr->rkey);
    assert_int_equal(b.mr->length, ROOM);
    assert_int_equal(ibv_dealloc_pd(first.pd), EBUSY);
    struct ibv_cq_init_attr_ex ci = {.cqe = 64, .wc_flags = IBV_WC_STANDARD_FLAGS};
    assert_non_null(b.cq = ibv_create_cq_ex(b.context, &ci));
    assert_int_not_equal(b.cq->handle, first.cq->handle);
    make_qp(&b, IBV_QPT_RC);
    connect_rc(&a, &b, 14);
    connect_rc(&b, &a, 14);
    memset(a.buf, 0x3c, 3000);
    post_recv(&b, 1, 8192, 3000);
    assert_int_equal(post(&a, &b, IBV_WR_SEND, 3000), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_memory_equal(b.buf + 8192, a.buf, 3000);
    await(&a, &wc);
    assert_int_equal(post(&a, &b, IBV_WR_RDMA_WRITE, 3000), 0);
    await(&a, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);

    /* in pyverbs' order: the handles first, then what was made with them */
    ibv_unimport_mr(b.mr);
    ibv_unimport_pd(b.pd);
    ibv_unimport_pd(b.pd); /* while objects of it are left this is known, and changes nothing */
    assert_int_equal(ibv_dealloc_pd(b.pd), EINVAL);
    assert_int_equal(ibv_destroy_qp(b.qp), 0);
    ibv_unimport_pd(b.pd);
    assert_int_equal(ibv_dealloc_pd(b.pd), EINVAL);
    assert_int_equal(ibv_destroy_cq(ibv_cq_ex_to_cq(b.cq)), 0);
    assert_int_equal(ibv_close_device(b.context), 0);
    /* the region is there still */
    connect_rc(&first, &a, 14);
    post_recv(&first, 1, 0, 64);
    close_end(&first);
    close_end(&a);
}

/* The first may be closed before the others. */
static void outlives_the_first(void **state)
{
    struct ibv_context *c = ibv_open_device(device), *more = again(c);
    struct ibv_pd *pd = ibv_alloc_pd(c);
    struct ibv_pd *imported = ibv_import_pd(more, pd->handle);
    (void)state;

    assert_int_equal(ibv_dealloc_pd(imported), 0); /* this handle alone */
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(c), 0);
    pd = ibv_alloc_pd(more);
    assert_non_null(pd);
    struct ibv_device_attr attr;
    assert_int_equal(ibv_query_device(more, &attr), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(more), 0);
}

static void each_hears_of_the_port(void **state)
{
    struct ibv_context *c = ibv_open_device(device), *more = again(c), *both[] = {c, more};
    struct ibv_async_event event;
    (void)state;

    assert_int_equal(system("ip link set vb down"), 0);
    for (int i = 0; i < 2; i++) {
        struct pollfd pfd = {.fd = both[i]->async_fd, .events = POLLIN};
        do {
            assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
            assert_int_equal(ibv_get_async_event(both[i], &event), 0);
            ibv_ack_async_event(&event);
        } while (event.event_type != IBV_EVENT_PORT_ERR);
    }
    assert_int_equal(system("ip link set vb up"), 0);
    assert_int_equal(ibv_close_device(more), 0);
    assert_int_equal(ibv_close_device(c), 0);
}

static void shares_device_memory(void **state)
{
    struct ibv_context *c = ibv_open_device(device), *more = again(c);
    struct ibv_alloc_dm_attr attr = {.length = 4096};
    struct ibv_dm *dm = ibv_alloc_dm(c, &attr);
    char word[8] = "shared", got[8];
    (void)state;

    assert_non_null(dm);
    struct ibv_dm *imported = ibv_import_dm(more, dm->handle);
    assert_non_null(imported);
    assert_int_equal(ibv_memcpy_to_dm(dm, 8, word, 8), 0);
    assert_int_equal(ibv_memcpy_from_dm(got, imported, 8, 8), 0);
    assert_string_equal(got, "shared");
    assert_int_equal(ibv_free_dm(dm), 0);
    assert_int_equal(ibv_memcpy_from_dm(got, imported, 8, 8), 0);
    ibv_unimport_dm(imported);
    assert_null(ibv_import_dm(more, 12345));
    assert_int_equal(ibv_close_device(more), 0);
    assert_int_equal(ibv_close_device(c), 0);
}

static void refuses_what_is_not_there(void **state)
{
    int fds[2];
    struct ibv_context *c = ibv_open_device(device), *more = again(c);
    struct ibv_pd *pd = ibv_alloc_pd(c);
    (void)state;

    assert_null(ibv_import_pd(more, 99999));
    assert_int_equal(errno, ENOENT);
    assert_null(ibv_import_mr(pd, pd->handle)); /* a handle of something else */
    assert_int_equal(errno, ENOENT);
    assert_int_equal(pipe(fds), 0); /* the real library's affair: it must not meet our devices */
    assert_null(ibv_import_device(fds[0]));
    close(fds[0]);
    close(fds[1]);
    assert_null(ibv_import_device(-1));
    assert_int_equal(errno, EBADF);
    int fd = dup(c->cmd_fd);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(more), 0);
    assert_int_equal(ibv_close_device(c), 0);
    assert_null(ibv_import_device(fd)); /* of a context that is no more, or another process's */
    assert_int_equal(errno, EOPNOTSUPP);
    close(fd);
}

EDGE_MAIN(cmocka_unit_test(imports_what_traffic_needs), cmocka_unit_test(outlives_the_first),
          cmocka_unit_test(each_hears_of_the_port), cmocka_unit_test(shares_device_memory),
          cmocka_unit_test(refuses_what_is_not_there))
