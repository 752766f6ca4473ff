/* Multicast by the broker's commands: groups joined and left, and what is refused. */
#include "base/bits.h"
#include "prog.h"

#include <infiniband/ib.h>

static ssize_t join(struct prog *p, uint32_t id, uint64_t uid, uint32_t group, uint16_t flags)
{
    struct rdma_ucm_join_mcast j = {
        .uid = uid, .id = id, .addr_size = sizeof(struct sockaddr_in), .join_flags = flags};
    struct sockaddr_in6 addr = ipv4(group, 0);
    memcpy(&j.addr, &addr, sizeof addr);
    return COMMAND(p, JOIN_MCAST, j);
}

static uint32_t joined(struct prog *p, uint32_t id, uint64_t uid, uint32_t group)
{
    uint32_t handle;
    assert_int_equal(join(p, id, uid, group, RDMA_MC_JOIN_FLAG_FULLMEMBER), 4);
    memcpy(&handle, p->reply, sizeof handle);
    return handle;
}

static ssize_t leave(struct prog *p, uint32_t handle, uint32_t *reported)
{
    ssize_t n = COMMAND(p, LEAVE_MCAST, (struct rdma_ucm_destroy_id){.id = handle});
    if (n == 4) memcpy(reported, p->reply, sizeof *reported);
    return n;
}

#define ALL_MINE 0xef010203u /* 239.1.2.3 */

static void test_multicast(void **st)
{
    (void)st;
    struct prog p, q;
    uint32_t reported;
    open_prog(&p, 10);
    open_prog(&q, 10);
    uint32_t id = create(&p, 1, RDMA_PS_UDP);
    assert_int_equal(join(&p, id, 7, ALL_MINE, 0), -EINVAL); /* of no device yet */
    assert_int_equal(bind_to(&p, id, ipv4(HERE, 0)), 0);
    uint32_t group = joined(&p, id, 7, ALL_MINE);
    struct rdma_ucm_event_resp e = expect(&p, MULTICAST_JOIN);
    assert_int_equal(e.uid, 7);
    assert_int_equal(e.id, group);
    assert_int_equal(e.param.ud.qp_num, 0xffffff);
    assert_int_equal(e.param.ud.qkey, 0x01234567);
    assert_int_equal(e.param.ud.ah_attr.grh.sgid_index, 1);
    assert_int_equal(e.param.ud.ah_attr.grh.hop_limit, 64);
    assert_int_equal(get_be32(e.param.ud.ah_attr.grh.dgid + 12), ALL_MINE);
    assert_int_equal(get_be32(e.param.ud.ah_attr.grh.dgid + 8), 0xffff);
    assert_int_equal(leave(&q, group, &reported), -ENOENT); /* another channel's */
    assert_int_equal(leave(&p, group, &reported), 4);
    assert_int_equal(reported, 1);
    assert_int_equal(leave(&p, group, &reported), -ENOENT);

    /* Left before its event is fetched: there is none. */
    group = joined(&p, id, 8, ALL_MINE);
    uint32_t other = joined(&p, id, 9, ALL_MINE + 1);
    assert_int_equal(leave(&p, group, &reported), 4);
    assert_int_equal(reported, 0);
    e = expect(&p, MULTICAST_JOIN);
    assert_int_equal(e.uid, 9);
    assert_int_equal(e.id, other);
    expect_none(&p);

    joined(&p, id, 10, HERE); /* a host's */
    e = expect(&p, MULTICAST_ERROR);
    assert_int_equal(e.uid, 10);
    assert_int_equal((int)e.status, -EINVAL);
    joined(&p, id, 11, ALL_MINE);
    assert_int_equal(destroy(&p, id), 3); /* and what it had joined */
    expect_none(&p);
    close_prog(&p);
    close_prog(&q);
}

static void test_multicast_addresses(void **st)
{
    (void)st;
    struct prog p;
    open_prog(&p, 10);
    uint32_t id = create(&p, 1, RDMA_PS_UDP), tcp = create(&p, 2, RDMA_PS_TCP);
    assert_int_equal(bind_to(&p, id, ipv4(HERE, 0)), 0);
    assert_int_equal(bind_to(&p, tcp, ipv4(HERE, 0)), 0);
    assert_int_equal(join(&p, tcp, 7, ALL_MINE, 0), -EINVAL);
    assert_int_equal(join(&p, id, 7, ALL_MINE, RDMA_MC_JOIN_FLAG_RESERVED), -EINVAL);
    assert_int_equal(join(&p, id, 7, ALL_MINE, RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER), 4);
    expect(&p, MULTICAST_JOIN);

    struct rdma_ucm_join_ip_mcast old = {.uid = 5, .id = id};
    old.addr =
        (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = {{{0xff, 0x15, [15] = 9}}}};
    assert_int_equal(COMMAND(&p, JOIN_IP_MCAST, old), 4);
    struct rdma_ucm_event_resp e = expect(&p, MULTICAST_JOIN);
    assert_int_equal(e.uid, 5);
    assert_memory_equal(e.param.ud.ah_attr.grh.dgid, &old.addr.sin6_addr, 16);
    assert_int_equal(e.param.ud.ah_attr.grh.hop_limit, 1);

    struct rdma_ucm_join_mcast j = {.uid = 6, .id = id, .addr_size = 48};
    struct {
        uint16_t family, pkey;
        uint32_t flowinfo;
        uint8_t gid[16];
    } ib = {AF_IB, 0, 0, {0xff, 0x12, 0xa0, 0x1b}};
    memcpy(&j.addr, &ib, sizeof ib);
    assert_int_equal(COMMAND(&p, JOIN_MCAST, j), 4);
    assert_memory_equal(expect(&p, MULTICAST_JOIN).param.ud.ah_attr.grh.dgid, ib.gid, 16);
    j.addr_size = 47;
    assert_int_equal(COMMAND(&p, JOIN_MCAST, j), -EINVAL);
    memset(&ib.gid, 0, sizeof ib.gid);
    memcpy(&j.addr, &ib, sizeof ib);
    j.addr_size = 48;
    assert_int_equal(COMMAND(&p, JOIN_MCAST, j), -EINVAL);
    j.addr_size = 0;
    assert_int_equal(COMMAND(&p, JOIN_MCAST, j), -EINVAL);
    close_prog(&p);
}

int main(void)
{
    int rc = prog_network();
    if (rc) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_multicast),
        cmocka_unit_test(test_multicast_addresses),
    };
    return cmocka_run_group_tests(tests, prog_set_up, prog_tear_down);
}
