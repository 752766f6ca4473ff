/* What a device says of itself. */
#include "end.h"
#include <dlfcn.h>

static void says_what_it_is(void **state)
{
    struct ibv_device_attr_ex attr;
    struct ibv_port_attr port;
    struct ibv_gid_entry entry;
    union ibv_gid gid;
    __be16 pkey;
    (void)state;

    struct ibv_context *c = ibv_open_device(device);
    assert_non_null(c);
    assert_int_equal(ibv_query_device_ex(c, NULL, &attr), 0);
    assert_int_equal(attr.orig_attr.phys_port_cnt, 1);
    assert_true(attr.orig_attr.node_guid == ibv_get_device_guid(device));
    assert_true(attr.orig_attr.node_guid != 0);
    assert_true(ibv_get_device_index(device) >= 0x10000); /* never one of the kernel's */
    assert_int_equal(ibv_query_port(c, 1, &port), 0);
    assert_int_equal(port.state, IBV_PORT_ACTIVE);
    assert_int_equal(port.link_layer, IBV_LINK_LAYER_ETHERNET);
    assert_int_equal(ibv_query_port(c, 2, &port), EINVAL);
    int i = gid_index(c, &gid);
    assert_true(i >= 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, (uint32_t)i, &entry, 0), 0);
    assert_int_equal(entry.gid_type, IBV_GID_TYPE_ROCE_V2);
    assert_true(entry.ndev_ifindex > 0);
    assert_int_equal(ibv_query_gid_ex(c, 1, 31, &entry, 0), ENODATA);
    assert_int_equal(ibv_query_gid_ex(c, 1, 32, &entry, 0), EINVAL);
    assert_int_equal(ibv_query_gid_ex(c, 1, 0, &entry, 1), EOPNOTSUPP);
    assert_int_equal(ibv_query_pkey(c, 1, 0, &pkey), 0);
    assert_int_equal(pkey, 0xffff);
    assert_int_equal(ibv_query_pkey(c, 1, 1, &pkey), -1);
    assert_int_equal(ibv_close_device(c), 0);
}

static void tells_its_speed(void **state)
{
    int (*query_port_speed)(struct ibv_context *, uint32_t, uint64_t *) =
        dlsym(RTLD_DEFAULT, "ibv_query_port_speed");
    struct ibv_context *c = ibv_open_device(device);
    uint64_t speed = 0;
    (void)state;

    assert_non_null(query_port_speed); /* newer than the headers here */
    assert_int_equal(query_port_speed(c, 1, &speed), 0);
    assert_int_equal(speed, 100); /* a veth's 10 Gb/s */
    assert_int_equal(query_port_speed(c, 2, &speed), EINVAL);
    assert_int_equal(ibv_close_device(c), 0);
}

static void has_no_completion_counters(void **state)
{
    int (*caps)(struct ibv_context *, void *, size_t) =
        dlsym(RTLD_DEFAULT, "_ibv_query_comp_cntr_caps");
    void *(*create)(struct ibv_context *, void *) = dlsym(RTLD_DEFAULT, "ibv_create_comp_cntr");
    struct ibv_context *c = ibv_open_device(device);
    uint64_t room[4];
    (void)state;

    assert_int_equal(caps(c, room, sizeof room), ENOTSUP);
    assert_null(create(c, room));
    assert_int_equal(errno, ENOTSUP);
    assert_int_equal(ibv_close_device(c), 0);
}

/* ---- limits ------------------------------------------------------------------------------ */

static void makes_as_many_domains_as_it_says(void **state)
{
    struct ibv_device_attr a;
    union ibv_gid gid;
    struct ibv_context *c = ibv_open_device(device);
    (void)state;

    assert_int_equal(ibv_query_device(c, &a), 0);
    struct ibv_pd **pds = calloc((size_t)a.max_pd, sizeof *pds);
    for (int i = 0; i < a.max_pd; i++)
        if (!(pds[i] = ibv_alloc_pd(c))) fail_msg("PD %d: %s", i, strerror(errno));
    struct ibv_ah_attr aa = {.is_global = 1, .port_num = 1};
    aa.grh.sgid_index = (uint8_t)gid_index(c, &gid);
    aa.grh.dgid = gid;
    struct ibv_ah **ahs = calloc((size_t)a.max_ah, sizeof *ahs);
    for (int i = 0; i < a.max_ah; i++)
        if (!(ahs[i] = ibv_create_ah(pds[0], &aa))) fail_msg("AH %d: %s", i, strerror(errno));
    for (int i = 0; i < a.max_ah; i++)
        if (ibv_destroy_ah(ahs[i]) != 0) fail_msg("AH %d stays", i);
    for (int i = 0; i < a.max_pd; i++)
        if (ibv_dealloc_pd(pds[i]) != 0) fail_msg("PD %d stays", i);
    free(pds);
    free(ahs);
    assert_int_equal(ibv_close_device(c), 0);
}

static void makes_as_many_queues_as_it_says(void **state)
{
    struct ibv_device_attr a;
    struct ibv_context *c = ibv_open_device(device);
    struct ibv_pd *pd = ibv_alloc_pd(c);
    (void)state;

    assert_int_equal(ibv_query_device(c, &a), 0);
    struct ibv_cq **cqs = calloc((size_t)a.max_cq, sizeof *cqs);
    for (int i = 0; i < a.max_cq; i++)
        if (!(cqs[i] = ibv_create_cq(c, 1, NULL, NULL, 0))) fail_msg("CQ %d: %m", i);
    struct ibv_qp **qps = calloc((size_t)a.max_qp + 1, sizeof *qps);
    for (int i = 0; i <= a.max_qp; i++) {
        struct ibv_qp_init_attr qi = {.send_cq = cqs[0],
                                      .recv_cq = cqs[1],
                                      .qp_type = IBV_QPT_UD,
                                      .cap = {.max_send_wr = 1, .max_recv_wr = 1}};
        qps[i] = ibv_create_qp(pd, &qi);
        if (i < a.max_qp && !qps[i]) fail_msg("QP %d: %m", i);
    }
    assert_null(qps[a.max_qp]);
    assert_int_equal(errno, ENOMEM);
    for (int i = 0; i < a.max_qp; i++)
        if (ibv_destroy_qp(qps[i]) != 0) fail_msg("QP %d stays", i);
    for (int i = 0; i < a.max_cq; i++)
        if (ibv_destroy_cq(cqs[i]) != 0) fail_msg("CQ %d stays", i);
    free(qps);
    free(cqs);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(c), 0);
}

static struct ibv_qp *qp_with(struct ibv_pd *pd, struct ibv_cq *cq, struct ibv_qp_cap cap)
{
    struct ibv_qp_init_attr qi = {.send_cq = cq, .recv_cq = cq, .cap = cap, .qp_type = IBV_QPT_RC};
    struct ibv_qp *qp = ibv_create_qp(pd, &qi);
    if (!qp) return NULL;
    assert_true(qi.cap.max_send_wr >= cap.max_send_wr && qi.cap.max_recv_wr >= cap.max_recv_wr);
    assert_true(qi.cap.max_send_sge >= cap.max_send_sge);
    assert_true(qi.cap.max_recv_sge >= cap.max_recv_sge);
    return qp;
}

static void makes_them_as_large_as_it_says(void **state)
{
    struct ibv_device_attr a;
    struct ibv_context *c = ibv_open_device(device);
    struct ibv_pd *pd = ibv_alloc_pd(c);
    (void)state;

    assert_int_equal(ibv_query_device(c, &a), 0);
    struct ibv_cq *cq = ibv_create_cq(c, a.max_cqe, NULL, NULL, 0);
    assert_non_null(cq);
    assert_null(ibv_create_cq(c, a.max_cqe + 1, NULL, NULL, 0));
    struct ibv_qp_cap most = {.max_send_wr = (uint32_t)a.max_qp_wr,
                              .max_recv_wr = (uint32_t)a.max_qp_wr,
                              .max_send_sge = (uint32_t)a.max_sge,
                              .max_recv_sge = (uint32_t)a.max_sge};
    struct ibv_qp *qp = qp_with(pd, cq, most);
    assert_non_null(qp);
    assert_int_equal(ibv_destroy_qp(qp), 0);
    struct ibv_qp_cap more = most;
    more.max_send_wr++;
    assert_null(qp_with(pd, cq, more));
    assert_int_equal(errno, EINVAL);
    more = most;
    more.max_recv_sge++;
    assert_null(qp_with(pd, cq, more));
    assert_int_equal(errno, EINVAL);
    struct ibv_srq_init_attr si = {
        .attr = {.max_wr = (uint32_t)a.max_srq_wr, .max_sge = (uint32_t)a.max_srq_sge}};
    struct ibv_srq *srq = ibv_create_srq(pd, &si);
    assert_non_null(srq);
    assert_int_equal(ibv_destroy_srq(srq), 0);
    si.attr.max_wr = (uint32_t)a.max_srq_wr + 1;
    assert_null(ibv_create_srq(pd, &si));
    assert_int_equal(errno, EINVAL);
    assert_int_equal(ibv_destroy_cq(cq), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(c), 0);
}

int __openat_2(int at, const char *path, int flags);

/* rbondd's tree, which stands for it, is everybody's. */
static void sysfs_is_not_written(void **state)
{
    const char *path = "/sys/class/infiniband/rb_va/node_desc";
    (void)state;

    for (double until = seconds() + 3; access(path, R_OK) != 0; usleep(10000))
        assert_true(seconds() < until);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    fclose(file);
    assert_null(fopen(path, "w"));
    assert_int_equal(open(path, O_WRONLY), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(__openat_2(AT_FDCWD, path, O_WRONLY), -1); /* built with _FORTIFY_SOURCE */
    assert_int_equal(errno, ENOENT);
    int fd = __openat_2(AT_FDCWD, path, O_RDONLY);
    assert_true(fd >= 0);
    close(fd);
    assert_null(fopen("/sys/class/infiniband/rb_va/nothing", "w"));
}

EDGE_MAIN(cmocka_unit_test(sysfs_is_not_written), cmocka_unit_test(says_what_it_is),
          cmocka_unit_test(tells_its_speed), cmocka_unit_test(has_no_completion_counters),
          cmocka_unit_test(makes_as_many_domains_as_it_says),
          cmocka_unit_test(makes_as_many_queues_as_it_says),
          cmocka_unit_test(makes_them_as_large_as_it_says))
