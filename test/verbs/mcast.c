/* Multicast: whom the groups' datagrams reach, what attaching refuses, and that a program's end
 * leaves its groups. */
#include "end.h"
#include <arpa/inet.h>
#include <sys/wait.h>

#define MCAST_QPN 0xffffff

static union ibv_gid gid_of(const char *text)
{
    union ibv_gid gid;
    assert_int_equal(inet_pton(AF_INET6, text, &gid), 1);
    return gid;
}

static void to_rts(struct end *e)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    assert_int_equal(ibv_modify_qp(e->qp, &attr, IBV_QP_STATE), 0);
    attr.qp_state = IBV_QPS_RTS;
    assert_int_equal(ibv_modify_qp(e->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
}

static struct ibv_ah *ah_to(struct end *e, const union ibv_gid *group)
{
    union ibv_gid own;
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 1};
    attr.grh.sgid_index = (uint8_t)gid_index(e->context, &own);
    attr.grh.dgid = *group;
    struct ibv_ah *ah = ibv_create_ah(e->pd, &attr);
    assert_non_null(ah);
    return ah;
}

static void send_to(struct end *e, struct ibv_ah *ah)
{
    struct ibv_wc wc;
    struct ibv_sge sge = {(uintptr_t)e->buf, 1000, e->mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.ud = {ah, MCAST_QPN, 0x1111}},
                       *bad;
    assert_int_equal(ibv_post_send(e->qp, &wr, &bad), 0);
    do await(e, &wc);
    while (wc.opcode != IBV_WC_SEND);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
}

static void hears(struct end *e, const struct end *from)
{
    struct ibv_wc wc;
    await(e, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 1040);
    assert_int_equal(wc.src_qp, from->qp->qp_num);
    assert_memory_equal(e->buf + 4096 + 40, from->buf, 1000);
}

static void hears_nothing(struct end *e)
{
    struct ibv_wc wc;
    double until = seconds() + 0.05;
    while (seconds() < until) assert_int_equal(ibv_poll_cq(ibv_cq_ex_to_cq(e->cq), 1, &wc), 0);
}

/* The kernel takes a second or two before it lets a new link-local address be used. */
static void await_ipv6(struct ibv_context *context)
{
    struct ibv_gid_entry entry;
    for (double until = seconds() + 8; seconds() < until; usleep(20000))
        if (ibv_query_gid_ex(context, 1, 0, &entry, 0) == 0) return;
    fail_msg("no link-local GID");
}

/* Two functions hear a third; it does not hear itself, since it has not attached. */
static void reaches_every_function(void **state)
{
    static const char *const groups[] = {"::ffff:239.9.9.9", "ff15::9:9", "ff01:0:2c9:85::"};
    struct end ends[3];
    for (int i = 0; i < 3; i++) {
        open_end(&ends[i], IBV_QPT_UD);
        to_rts(&ends[i]);
        memset(ends[i].buf, 0x11 * (i + 1), 1000);
    }
    await_ipv6(ends[0].context);
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        union ibv_gid group = gid_of(groups[g]);
        struct ibv_ah *ah = ah_to(&ends[0], &group);
        for (int i = 1; i < 3; i++) {
            assert_int_equal(ibv_attach_mcast(ends[i].qp, &group, 0), 0);
            post_recv(&ends[i], 1, 4096, 2048);
        }
        send_to(&ends[0], ah);
        for (int i = 1; i < 3; i++) hears(&ends[i], &ends[0]);
        assert_int_equal(ibv_detach_mcast(ends[1].qp, &group, 0), 0);
        post_recv(&ends[1], 1, 4096, 2048);
        post_recv(&ends[2], 1, 4096, 2048);
        send_to(&ends[0], ah);
        hears(&ends[2], &ends[0]);
        hears_nothing(&ends[1]);
        assert_int_equal(ibv_detach_mcast(ends[2].qp, &group, 0), 0);
        assert_int_equal(ibv_destroy_ah(ah), 0);
    }
    for (int i = 0; i < 3; i++) close_end(&ends[i]);
}

static struct ibv_qp *deaf_to_itself(struct end *e)
{
    struct ibv_qp_init_attr_ex init = {
        .send_cq = ibv_cq_ex_to_cq(e->cq),
        .recv_cq = ibv_cq_ex_to_cq(e->cq),
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_UD,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_CREATE_FLAGS,
        .pd = e->pd,
        .create_flags = IBV_QP_CREATE_BLOCK_SELF_MCAST_LB};
    struct ibv_qp *qp = ibv_create_qp_ex(e->context, &init);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x1111};
    assert_non_null(qp);
    assert_int_equal(
        ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
    return qp;
}

static void hears_itself_unless_blocked(void **state)
{
    union ibv_gid group = gid_of("::ffff:239.9.9.10");
    struct end e;
    open_end(&e, IBV_QPT_UD);
    to_rts(&e);
    struct ibv_ah *ah = ah_to(&e, &group);
    assert_int_equal(ibv_attach_mcast(e.qp, &group, 0), 0);
    post_recv(&e, 1, 4096, 2048);
    send_to(&e, ah);
    hears(&e, &e);

    struct ibv_qp *open = e.qp;
    e.qp = deaf_to_itself(&e);
    to_rts(&e);
    assert_int_equal(ibv_attach_mcast(e.qp, &group, 0), 0);
    post_recv(&e, 1, 4096, 2048);
    send_to(&e, ah);
    hears_nothing(&e);
    assert_int_equal(ibv_detach_mcast(e.qp, &group, 0), 0);
    assert_int_equal(ibv_destroy_qp(e.qp), 0);
    e.qp = open;
    assert_int_equal(ibv_detach_mcast(e.qp, &group, 0), 0);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&e);
}

static void what_attaching_refuses(void **state)
{
    union ibv_gid group = gid_of("::ffff:239.9.9.11"), host = gid_of("::ffff:10.78.0.1");
    struct ibv_device_attr attr;
    struct end ud, rc;
    open_end(&ud, IBV_QPT_UD);
    open_end(&rc, IBV_QPT_RC);
    assert_int_equal(ibv_attach_mcast(rc.qp, &group, 0), EINVAL);
    assert_int_equal(ibv_attach_mcast(ud.qp, &host, 0), EINVAL);
    assert_int_equal(ibv_detach_mcast(ud.qp, &group, 0), EINVAL);
    assert_int_equal(ibv_attach_mcast(ud.qp, &group, 0), 0);
    assert_int_equal(ibv_attach_mcast(ud.qp, &group, 0xc000), 0);
    assert_int_equal(ibv_destroy_qp(ud.qp), EBUSY);
    assert_int_equal(ibv_detach_mcast(ud.qp, &group, 0), 0);
    assert_int_equal(ibv_detach_mcast(ud.qp, &group, 0), EINVAL);

    assert_int_equal(ibv_query_device(ud.context, &attr), 0);
    assert_true(attr.max_mcast_grp > 0 && attr.max_mcast_qp_attach > 0);
    for (int i = 0; i < attr.max_mcast_grp; i++) {
        group.raw[14] = (uint8_t)i;
        assert_int_equal(ibv_attach_mcast(ud.qp, &group, 0), 0);
    }
    group.raw[13] = 1;
    assert_int_equal(ibv_attach_mcast(ud.qp, &group, 0), ENOMEM);
    group.raw[13] = 9;
    for (int i = 0; i < attr.max_mcast_grp; i++) {
        group.raw[14] = (uint8_t)i;
        assert_int_equal(ibv_detach_mcast(ud.qp, &group, 0), 0);
    }
    close_end(&ud);
    close_end(&rc);
}

static bool joined(const char *group)
{
    char line[256];
    bool found = false;
    FILE *f = fopen("/proc/net/igmp", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) found = found || strstr(line, group);
    fclose(f);
    return found;
}

/* rbondd keeps the socket of a program that has gone. */
static void a_programs_end_leaves_its_groups(void **state)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct end e;
        union ibv_gid group = gid_of("::ffff:239.9.9.12");
        open_end(&e, IBV_QPT_UD);
        _exit(ibv_attach_mcast(e.qp, &group, 0) == 0 && joined("0C0909EF") ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (double until = seconds() + 3; joined("0C0909EF");)
        if (seconds() > until) fail_msg("the group is still joined");
}

EDGE_MAIN(cmocka_unit_test(reaches_every_function), cmocka_unit_test(hears_itself_unless_blocked),
          cmocka_unit_test(what_attaching_refuses),
          cmocka_unit_test(a_programs_end_leaves_its_groups))
