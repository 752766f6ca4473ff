/* Datagrams and address handles. */
#include "end.h"

static void to_rts(struct end *e)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTR};
    assert_int_equal(ibv_modify_qp(e->qp, &attr, IBV_QP_STATE), 0);
    attr.qp_state = IBV_QPS_RTS;
    assert_int_equal(ibv_modify_qp(e->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
}

static void answers_a_datagram(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    union ibv_gid gid;
    struct end *both[] = {&a, &b};
    (void)state;

    for (int i = 0; i < 2; i++) {
        open_end(both[i], IBV_QPT_UD);
        to_rts(both[i]);
        post_recv(both[i], 1, 4096, 1024 + 40);
    }
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh.hop_limit = 3};
    attr.grh.sgid_index = (uint8_t)gid_index(a.context, &gid);
    attr.grh.dgid = gid;
    struct ibv_ah *ah = ibv_create_ah(a.pd, &attr);
    assert_non_null(ah);
    struct ibv_sge sge = {(uintptr_t)a.buf, 1024, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.ud = {ah, b.qp->qp_num, 0x1111}},
                       *bad;
    memset(a.buf, 0x77, 1024);
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.byte_len, 1024 + 40);
    assert_int_equal(wc.src_qp, a.qp->qp_num);
    assert_true(wc.wc_flags & IBV_WC_GRH);
    assert_memory_equal(b.buf + 4096 + 40, a.buf, 1024);
    struct ibv_ah_attr to_a;
    struct ibv_grh *grh = (struct ibv_grh *)(b.buf + 4096);
    assert_int_equal(ibv_init_ah_from_wc(b.context, 1, &wc, grh, &to_a), 0);
    assert_int_equal(to_a.sl, 0);
    assert_memory_equal(&to_a.grh.dgid, &gid, 16);
    struct ibv_ah *back = ibv_create_ah_from_wc(b.pd, &wc, grh, 1);
    assert_non_null(back);
    sge = (struct ibv_sge){(uintptr_t)b.buf, 10, b.mr->lkey};
    wr.wr.ud.ah = back;
    wr.wr.ud.remote_qpn = wc.src_qp;
    assert_int_equal(ibv_post_send(b.qp, &wr, &bad), 0);
    do await(&a, &wc);
    while (wc.opcode != IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 50);
    assert_int_equal(ibv_destroy_ah(back), 0);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&a);
    close_end(&b);
}

/* Both ends are on one port: its own LID leads back to it. */
static void finds_a_port_by_its_lid(void **state)
{
    struct ibv_port_attr port;
    struct end a, b;
    struct ibv_wc wc;
    (void)state;

    open_end(&a, IBV_QPT_UD);
    open_end(&b, IBV_QPT_UD);
    to_rts(&a);
    to_rts(&b);
    post_recv(&b, 1, 4096, 1024 + 40);
    assert_int_equal(ibv_query_port(b.context, 1, &port), 0);
    assert_int_not_equal(port.lid, 0);
    struct ibv_ah_attr attr = {.dlid = port.lid, .port_num = 1};
    struct ibv_ah *ah = ibv_create_ah(a.pd, &attr);
    assert_non_null(ah);
    struct ibv_sge sge = {(uintptr_t)a.buf, 100, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .wr.ud = {ah, b.qp->qp_num, 0x1111}},
                       *bad;
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    await(&b, &wc);
    assert_int_equal(wc.status, IBV_WC_SUCCESS);
    assert_int_equal(wc.byte_len, 140);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&a);
    close_end(&b);
}

/* ---- what an address handle carries ------------------------------------------------------- */

static void carries_class_and_hops(void **state)
{
    struct end a, b;
    struct ibv_wc wc;
    union ibv_gid gid;
    (void)state;

    open_end(&a, IBV_QPT_UD);
    open_end(&b, IBV_QPT_UD);
    to_rts(&a);
    to_rts(&b);
    post_recv(&b, 1, 4096, 512);
    struct ibv_ah_attr attr = {.is_global = 1,
                               .port_num = 1,
                               .static_rate = IBV_RATE_10_GBPS,
                               .sl = 3,
                               .grh = {.hop_limit = 17, .traffic_class = 0x68}};
    attr.grh.sgid_index = (uint8_t)gid_index(a.context, &gid);
    attr.grh.dgid = gid;
    struct ibv_ah *ah = ibv_create_ah(a.pd, &attr);
    assert_non_null(ah);
    struct ibv_sge sge = {(uintptr_t)a.buf, 100, a.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.ud = {ah, b.qp->qp_num, 0x1111}},
                       *bad;
    assert_int_equal(ibv_post_send(a.qp, &wr, &bad), 0);
    await(&b, &wc);
    const uint8_t *ip = b.buf + 4096 + 20;
    assert_int_equal(ip[0], 0x45);
    assert_int_equal(ip[1], 0x68);
    assert_int_equal(ip[8], 17);
    struct ibv_ah_attr back;
    struct ibv_grh *grh = (struct ibv_grh *)(b.buf + 4096);
    assert_int_equal(ibv_init_ah_from_wc(b.context, 1, &wc, grh, &back), 0);
    assert_int_equal(back.is_global, 1);
    assert_int_equal(back.port_num, 1);
    assert_int_equal(back.grh.traffic_class, 0x68);
    assert_int_equal(back.grh.sgid_index, attr.grh.sgid_index);
    assert_int_equal(ibv_init_ah_from_wc(b.context, 2, &wc, grh, &back), -1);
    assert_int_equal(errno, EINVAL);
    memset(grh, 0xff, sizeof *grh); /* no header of IP */
    assert_int_equal(ibv_init_ah_from_wc(b.context, 1, &wc, grh, &back), -1);
    assert_null(ibv_create_ah_from_wc(b.pd, &wc, grh, 1));
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&a);
    close_end(&b);
}

static void refuses_wrong_addresses(void **state)
{
    struct end e;
    union ibv_gid gid;
    (void)state;

    open_end(&e, IBV_QPT_UD);
    struct ibv_ah_attr good = {.is_global = 1, .port_num = 1}, attr;
    good.grh.sgid_index = (uint8_t)gid_index(e.context, &gid);
    good.grh.dgid = gid;
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        attr = good;                                                                               \
        change;                                                                                    \
        errno = 0;                                                                                 \
        assert_null(ibv_create_ah(e.pd, &attr));                                                   \
        assert_int_equal(errno, EINVAL);                                                           \
    } while (0)
    REFUSED(attr.port_num = 2);
    REFUSED(attr.is_global = 0);
    REFUSED((attr.is_global = 0, attr.dlid = 0xc001)); /* a multicast LID */
    REFUSED(attr.grh.sgid_index = 31);                 /* an empty slot */
    REFUSED(attr.grh.sgid_index = 200);                /* none at all */
    REFUSED(memset(&attr.grh.dgid, 0, 16));
    REFUSED(attr.grh.dgid.raw[0] = 0xfe); /* IPv6 from IPv4 */
    struct ibv_ah *ah = ibv_create_ah(e.pd, &good);
    assert_non_null(ah);
    ah->handle ^= 0x100;
    assert_int_equal(ibv_destroy_ah(ah), EINVAL);
    ah->handle ^= 0x100;
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&e);
}

/* ---- MAC addresses ------------------------------------------------------------------------ */

static int resolve(struct end *e, const union ibv_gid *dgid, uint8_t mac[6], uint16_t *vid)
{
    union ibv_gid gid;
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh.dgid = *dgid};
    attr.grh.sgid_index = (uint8_t)gid_index(e->context, &gid);
    return ibv_resolve_eth_l2_from_gid(e->context, &attr, mac, vid);
}

static void finds_mac_addresses(void **state)
{
    static const uint8_t neighbour[6] = {2, 0, 0, 0, 0, 9}, group[6] = {1, 0, 0x5e, 0, 0, 5};
    struct end e;
    union ibv_gid own, gid;
    uint8_t mac[6], device_mac[6];
    uint16_t vid;
    (void)state;

    assert_int_equal(system("ip neigh replace 10.78.0.9 lladdr 02:00:00:00:00:09 dev va"), 0);
    open_end(&e, IBV_QPT_UD);
    assert_true(gid_index(e.context, &own) >= 0); /* 10.78.0.1 */
    gid = own;
    gid.raw[15] = 9;
    assert_int_equal(resolve(&e, &gid, mac, &vid), 0);
    assert_memory_equal(mac, neighbour, 6);
    assert_int_equal(vid, 0xffff);
    gid.raw[15] = 77; /* nobody */
    assert_int_equal(resolve(&e, &gid, mac, NULL), -EHOSTUNREACH);
    memcpy(gid.raw + 12, (uint8_t[]){224, 0, 0, 5}, 4);
    assert_int_equal(resolve(&e, &gid, mac, NULL), 0);
    assert_memory_equal(mac, group, 6);
    FILE *file = fopen("/sys/class/net/va/address", "r");
    /* sysfs may be another namespace's: then only that there is an answer */
    bool told =
        file && fscanf(file, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &device_mac[0], &device_mac[1],
                       &device_mac[2], &device_mac[3], &device_mac[4], &device_mac[5]) == 6;
    if (file) fclose(file);
    assert_int_equal(resolve(&e, &own, mac, &vid), 0);
    if (told) assert_memory_equal(mac, device_mac, 6);
    memset(&gid, 0, sizeof gid);
    assert_int_equal(resolve(&e, &gid, mac, &vid), -EINVAL);
    close_end(&e);
}

static long sent_so_far(void)
{
    long sent = -1;
    FILE *f = fopen("/sys/class/infiniband/rb_va/ports/1/counters/port_xmit_packets", "r");

    if (f && fscanf(f, "%ld", &sent) != 1) sent = -1;
    if (f) fclose(f);
    return sent;
}

/* The program sleeps after it has posted, and so would the worker. */
static void counters_tell_of_what_nobody_polls(void **state)
{
    struct end e;
    union ibv_gid own;
    struct ibv_ah_attr to = {.is_global = 1, .port_num = 1};
    (void)state;

    open_end(&e, IBV_QPT_UD);
    to_rts(&e);
    to.grh.sgid_index = (uint8_t)gid_index(e.context, &own);
    to.grh.dgid = own;
    to.grh.dgid.raw[15] = 99; /* nobody answers */
    struct ibv_ah *ah = ibv_create_ah(e.pd, &to);
    struct ibv_sge sge = {(uintptr_t)e.buf, 8, e.mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND,
                             .wr.ud = {ah, e.qp->qp_num, 0x1111}},
                       *bad;
    long before;
    for (double until = seconds() + WAIT_MS / 1e3; (before = sent_so_far()) < 0; usleep(10000))
        assert_true(seconds() < until);
    usleep(100000); /* the counters are published, the worker sleeps */
    assert_int_equal(ibv_post_send(e.qp, &wr, &bad), 0);
    for (double until = seconds() + WAIT_MS / 1e3; sent_so_far() <= before; usleep(50000))
        assert_true(seconds() < until);
    assert_int_equal(ibv_destroy_ah(ah), 0);
    close_end(&e);
}

EDGE_MAIN(cmocka_unit_test(answers_a_datagram), cmocka_unit_test(finds_a_port_by_its_lid),
          cmocka_unit_test(carries_class_and_hops), cmocka_unit_test(refuses_wrong_addresses),
          cmocka_unit_test(finds_mac_addresses),
          cmocka_unit_test(counters_tell_of_what_nobody_polls))
