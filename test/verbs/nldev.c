/* RDMA netlink's answers, message by message, as rdma(8) would read them; and whatever bytes come.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verbs/nldev.h"
#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <rdma/rdma_netlink.h>
#include <stdlib.h>
#include <string.h>

#define PORTID 4711
#define SEQ 99
#define MANY_QPS 700

static const struct ctl_dev DEVS[] = {
    {.name = "rb_eth0",
     .netdev = "eth0",
     .guid = 0x0201,
     .ifindex = 7,
     .port_state = CTL_PORT_DOWN,
     .number = 3},
    {.name = "rb_bond0",
     .netdev = "lo",
     .guid = 0xaabbccddeeff0011,
     .ifindex = 1,
     .port_state = CTL_PORT_ACTIVE,
     .number = 5},
};
static const struct ctl_cm_id CM_IDS[] = {
    {.device = "rb_bond0",
     .pid = 12,
     .ps = 0x106,
     .src_port = 7471,
     .state = CTL_CM_LISTEN,
     .src = {[10] = 0xff, 0xff, 10, 99, 0, 1}},
    {.device = "rb_bond0",
     .pid = 13,
     .lqpn = 0x4001,
     .ps = 0x106,
     .src_port = 1,
     .dst_port = 2,
     .qp_type = 2,
     .state = CTL_CM_CONNECT,
     .src = {0xfd, [15] = 1},
     .dst = {0xfd, [15] = 2}},
    {.device = "", .state = CTL_CM_IDLE},
    {.device = "", .pid = 14, .ps = 0x106, .src_port = 9, .state = CTL_CM_LISTEN},
};
static const struct ctl_function FUNCTIONS[] = {{.function = 1, .pid = 12, .device = "rb_bond0"}};
static const struct ctl_stat STATS[] = {
    {.device = "rb_bond0", .name = "tx_packets", .value = 5000000000},
    {.device = "rb_bond0", .name = "cnp_received", .value = 2},
    {.device = "rb_bond0", .member = "eth1", .name = "tx_packets", .value = 1},
    {.device = "rb_eth0", .name = "tx_packets", .value = 3},
};
static struct ctl_qp qps[MANY_QPS];

static const struct nldev_facts FACTS = {
    .dev = DEVS,
    .ndev = 2,
    .qp = qps,
    .nqp = MANY_QPS,
    .cm_id = CM_IDS,
    .ncm_id = 4,
    .function = FUNCTIONS,
    .nfunction = 1,
    .stat = STATS,
    .nstat = 4,
};

static uint8_t request[4096];
static struct nldev_reply reply;

static struct nlmsghdr *ask(uint16_t command, uint16_t flags)
{
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(request);

    nlh->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command);
    nlh->nlmsg_flags = NLM_F_REQUEST | flags;
    nlh->nlmsg_seq = SEQ;
    return nlh;
}

static struct nlmsghdr *ask_of(uint16_t command, uint16_t flags, unsigned number)
{
    struct nlmsghdr *nlh = ask(command, flags);

    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_DEV_INDEX, NLDEV_FIRST_INDEX + number);
    return nlh;
}

static void answered(const struct nlmsghdr *nlh)
{
    free(reply.bytes);
    reply = (struct nldev_reply){0};
    nldev_answer(nlh, PORTID, &FACTS, &reply);
    assert_false(reply.short_of_memory);
}

/* Message number `n`, sound; NULL past the last. */
static const struct nlmsghdr *message(unsigned n)
{
    size_t at = 0;

    while (at < reply.len) {
        const struct nlmsghdr *m = (const void *)(reply.bytes + at);
        assert_in_range(m->nlmsg_len, sizeof *m, NLDEV_MAX_MESSAGE);
        assert_true(m->nlmsg_len <= reply.len - at);
        assert_int_equal(m->nlmsg_pid, PORTID);
        if (!n--) return m;
        at += MNL_ALIGN(m->nlmsg_len);
    }
    return NULL;
}

static const struct nlattr *within(const struct nlattr *nest, unsigned type, unsigned n)
{
    const struct nlattr *attr;

    mnl_attr_for_each_nested(attr, nest) if (mnl_attr_get_type(attr) == type && !n--) return attr;
    return NULL;
}

static const struct nlattr *in(const struct nlmsghdr *m, unsigned type)
{
    const struct nlattr *attr;

    mnl_attr_for_each(attr, m, 0) if (mnl_attr_get_type(attr) == type) return attr;
    return NULL;
}

static uint32_t u32_in(const struct nlmsghdr *m, unsigned type)
{
    const struct nlattr *attr = in(m, type);
    assert_non_null(attr);
    return mnl_attr_get_u32(attr);
}

static const char *text_in(const struct nlmsghdr *m, unsigned type)
{
    const struct nlattr *attr = in(m, type);
    assert_non_null(attr);
    return mnl_attr_get_str(attr);
}

/* The error, or 0 of an acknowledgement, that message `n` is; it is the last. */
static int verdict(unsigned n)
{
    const struct nlmsghdr *m = message(n);

    assert_non_null(m);
    assert_int_equal(m->nlmsg_type, NLMSG_ERROR);
    assert_int_equal(m->nlmsg_seq, SEQ);
    assert_null(message(n + 1));
    return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(m))->error;
}

static int dump_ends(unsigned n)
{
    const struct nlmsghdr *m = message(n);

    assert_non_null(m);
    assert_int_equal(m->nlmsg_type, NLMSG_DONE);
    assert_true(m->nlmsg_flags & NLM_F_MULTI);
    assert_null(message(n + 1));
    return *(const int *)mnl_nlmsg_get_payload(m);
}

/* ---- devices and ports ------------------------------------------------------------------- */

static void test_devices(void **state)
{
    const struct nlmsghdr *m;

    answered(ask(RDMA_NLDEV_CMD_GET, NLM_F_DUMP | NLM_F_ACK));
    for (unsigned i = 0; i < 2; i++) {
        m = message(i);
        assert_int_equal(m->nlmsg_type, RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_GET));
        assert_true(m->nlmsg_flags & NLM_F_MULTI);
        assert_string_equal(text_in(m, RDMA_NLDEV_ATTR_DEV_NAME), DEVS[i].name);
        assert_int_equal(u32_in(m, RDMA_NLDEV_ATTR_DEV_INDEX), NLDEV_FIRST_INDEX + 3 + 2 * i);
        assert_int_equal(u32_in(m, RDMA_NLDEV_ATTR_PORT_INDEX), 1);
        assert_true(mnl_attr_get_u64(in(m, RDMA_NLDEV_ATTR_NODE_GUID)) == DEVS[i].guid);
    }
    assert_int_equal(dump_ends(2), 0);

    answered(ask_of(RDMA_NLDEV_CMD_GET, NLM_F_ACK, 5));
    assert_string_equal(text_in(message(0), RDMA_NLDEV_ATTR_DEV_NAME), "rb_bond0");
    assert_string_equal(text_in(message(0), RDMA_NLDEV_ATTR_DEV_PROTOCOL), "roce");
    assert_false(message(0)->nlmsg_flags & NLM_F_MULTI);
    assert_int_equal(verdict(1), 0);

    answered(ask_of(RDMA_NLDEV_CMD_GET, 0, 5));
    assert_non_null(message(0));
    assert_null(message(1));
}

static void test_ports(void **state)
{
    struct nlmsghdr *nlh = ask_of(RDMA_NLDEV_CMD_PORT_GET, 0, 5);

    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_PORT_INDEX, 1);
    answered(nlh);
    assert_int_equal(mnl_attr_get_u8(in(message(0), RDMA_NLDEV_ATTR_PORT_STATE)), 4);
    assert_int_equal(mnl_attr_get_u8(in(message(0), RDMA_NLDEV_ATTR_PORT_PHYS_STATE)), 5);
    assert_string_equal(text_in(message(0), RDMA_NLDEV_ATTR_NDEV_NAME), "lo");
    assert_null(in(message(0), RDMA_NLDEV_ATTR_LID));

    answered(ask_of(RDMA_NLDEV_CMD_PORT_GET, NLM_F_DUMP, 3));
    assert_int_equal(mnl_attr_get_u8(in(message(0), RDMA_NLDEV_ATTR_PORT_STATE)), 1);
    assert_int_equal(mnl_attr_get_u8(in(message(0), RDMA_NLDEV_ATTR_PORT_PHYS_STATE)), 3);
    assert_int_equal(u32_in(message(0), RDMA_NLDEV_ATTR_NDEV_INDEX), 7);
    assert_int_equal(dump_ends(1), 0);

    nlh = ask_of(RDMA_NLDEV_CMD_PORT_GET, 0, 5);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_PORT_INDEX, 2);
    answered(nlh);
    assert_int_equal(verdict(0), -EINVAL);
    answered(ask_of(RDMA_NLDEV_CMD_PORT_GET, 0, 5)); /* no port named */
    assert_int_equal(verdict(0), -EINVAL);
    answered(ask(RDMA_NLDEV_CMD_PORT_GET, NLM_F_DUMP)); /* no device named */
    assert_int_equal(dump_ends(0), -EINVAL);
}

/* ---- refusals ---------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    static const uint16_t UNKNOWN_HERE[] = {
        RDMA_NLDEV_CMD_SET,         RDMA_NLDEV_CMD_DELLINK,      RDMA_NLDEV_CMD_RES_CQ_GET,
        RDMA_NLDEV_CMD_RES_PD_GET,  RDMA_NLDEV_CMD_RES_MR_GET,   RDMA_NLDEV_CMD_RES_SRQ_GET,
        RDMA_NLDEV_CMD_GET_CHARDEV, RDMA_NLDEV_CMD_STAT_SET,     RDMA_NLDEV_CMD_STAT_DEL,
        RDMA_NLDEV_CMD_RES_CTX_GET, RDMA_NLDEV_CMD_RES_CM_ID_GET};
    struct nlmsghdr *nlh;

    for (unsigned i = 0; i < sizeof UNKNOWN_HERE / sizeof *UNKNOWN_HERE; i++) {
        answered(ask_of(UNKNOWN_HERE[i], NLM_F_ACK, 5));
        assert_int_equal(verdict(0), -EOPNOTSUPP);
    }
    answered(ask_of(RDMA_NLDEV_CMD_RES_CQ_GET, NLM_F_DUMP, 5));
    assert_int_equal(verdict(0), -EOPNOTSUPP);
    answered(ask(RDMA_NLDEV_CMD_NEWLINK, NLM_F_ACK));
    assert_int_equal(verdict(0), -EOPNOTSUPP);
    answered(ask(RDMA_NLDEV_CMD_SYS_SET, NLM_F_ACK));
    assert_int_equal(verdict(0), -EOPNOTSUPP);
    answered(ask_of(RDMA_NLDEV_CMD_GET, 0, 4)); /* no such device */
    assert_int_equal(verdict(0), -EINVAL);
    answered(ask_of(RDMA_NLDEV_NUM_OPS, 0, 5));
    assert_int_equal(verdict(0), -EINVAL);
    nlh = ask_of(RDMA_NLDEV_CMD_GET, 0, 5);
    nlh->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_LS, RDMA_NLDEV_CMD_GET);
    answered(nlh);
    assert_int_equal(verdict(0), -EINVAL);

    nlh = ask(RDMA_NLDEV_CMD_GET, 0);
    mnl_attr_put_u16(nlh, RDMA_NLDEV_ATTR_DEV_INDEX, 5);
    answered(nlh);
    assert_int_equal(verdict(0), -EINVAL);
    nlh = ask_of(RDMA_NLDEV_CMD_GET, 0, 5);
    nlh->nlmsg_len -= 2; /* the attribute is cut off */
    answered(nlh);
    assert_int_equal(verdict(0), -EINVAL);

    nlh = ask_of(RDMA_NLDEV_CMD_GET, 0, 5);
    nlh->nlmsg_flags = 0; /* no request */
    answered(nlh);
    assert_null(message(0));
}

static void test_whose(void **state)
{
    struct nlmsghdr *nlh = ask(RDMA_NLDEV_CMD_GET, 0);

    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_DEV_INDEX, 0);
    assert_int_equal(nldev_whose(nlh, &FACTS), NLDEV_KERNELS);
    assert_int_equal(nldev_whose(ask_of(RDMA_NLDEV_CMD_GET, 0, 5), &FACTS), NLDEV_OURS);
    assert_int_equal(nldev_whose(ask_of(RDMA_NLDEV_CMD_SET, 0, 5), &FACTS), NLDEV_OURS);
    assert_int_equal(nldev_whose(ask_of(RDMA_NLDEV_CMD_RES_QP_GET, NLM_F_DUMP, 5), &FACTS),
                     NLDEV_OURS);
    assert_int_equal(nldev_whose(ask_of(RDMA_NLDEV_CMD_GET, 0, 4), &FACTS), NLDEV_KERNELS);
    assert_int_equal(nldev_whose(ask(RDMA_NLDEV_CMD_GET, NLM_F_DUMP), &FACTS), NLDEV_BOTH);
    assert_int_equal(nldev_whose(ask(RDMA_NLDEV_CMD_RES_GET, NLM_F_DUMP), &FACTS), NLDEV_BOTH);
    assert_int_equal(nldev_whose(ask(RDMA_NLDEV_CMD_SYS_GET, 0), &FACTS), NLDEV_KERNELS);
    assert_int_equal(nldev_whose(ask(RDMA_NLDEV_CMD_NEWLINK, 0), &FACTS), NLDEV_KERNELS);
}

/* ---- what programs hold ------------------------------------------------------------------ */

static void test_summary(void **state)
{
    static const struct {
        const char *name;
        uint64_t count;
    } want[] = {{"qp", MANY_QPS - 1}, {"cm_id", 3}, {"ctx", 1}};
    const struct nlattr *nest, *entry;

    answered(ask_of(RDMA_NLDEV_CMD_RES_GET, 0, 5));
    nest = in(message(0), RDMA_NLDEV_ATTR_RES_SUMMARY);
    for (unsigned i = 0; i < 3; i++) {
        entry = within(nest, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY, i);
        assert_string_equal(
            mnl_attr_get_str(within(entry, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME, 0)),
            want[i].name);
        assert_true(mnl_attr_get_u64(within(entry, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR, 0)) ==
                    want[i].count);
    }
    assert_null(within(nest, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY, 3));
    answered(ask(RDMA_NLDEV_CMD_RES_GET, NLM_F_DUMP));
    assert_int_equal(dump_ends(2), 0);
}

static void test_queue_pairs(void **state)
{
    const struct nlattr *entry, *nest;
    unsigned n = 0, messages = 0;
    struct nlmsghdr *nlh;

    answered(ask_of(RDMA_NLDEV_CMD_RES_QP_GET, NLM_F_DUMP, 5));
    for (; message(messages)->nlmsg_type != NLMSG_DONE; messages++) {
        nest = in(message(messages), RDMA_NLDEV_ATTR_RES_QP);
        assert_non_null(nest);
        mnl_attr_for_each_nested(entry, nest)
        {
            assert_int_equal(mnl_attr_get_u32(within(entry, RDMA_NLDEV_ATTR_RES_LQPN, 0)),
                             qps[++n].qpn);
            assert_int_equal(mnl_attr_get_u32(within(entry, RDMA_NLDEV_ATTR_RES_SQ_PSN, 0)), n);
        }
    }
    assert_int_equal(n, MANY_QPS - 1);
    assert_true(messages > 1);
    assert_int_equal(dump_ends(messages), 0);

    nlh = ask_of(RDMA_NLDEV_CMD_RES_QP_GET, 0, 5);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_LQPN, qps[9].qpn);
    answered(nlh);
    assert_int_equal(u32_in(message(0), RDMA_NLDEV_ATTR_RES_RQPN), 77);
    assert_int_equal(u32_in(message(0), RDMA_NLDEV_ATTR_RES_PID), 1000 + 9);
    assert_null(message(1));
    nlh = ask_of(RDMA_NLDEV_CMD_RES_QP_GET, 0, 5);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_LQPN, qps[0].qpn); /* another device's */
    answered(nlh);
    assert_int_equal(verdict(0), -ENOENT);
}

static void test_cm_ids(void **state)
{
    const struct nlattr *nest, *entry;
    const struct sockaddr_in *sin;
    const struct sockaddr_in6 *sin6;

    answered(ask_of(RDMA_NLDEV_CMD_RES_CM_ID_GET, NLM_F_DUMP, 5));
    nest = in(message(0), RDMA_NLDEV_ATTR_RES_CM_ID);
    entry = within(nest, RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY, 0);
    assert_int_equal(mnl_attr_get_u8(within(entry, RDMA_NLDEV_ATTR_RES_STATE, 0)), 8);
    assert_null(within(entry, RDMA_NLDEV_ATTR_RES_LQPN, 0));
    assert_null(within(entry, RDMA_NLDEV_ATTR_RES_DST_ADDR, 0));
    sin = mnl_attr_get_payload(within(entry, RDMA_NLDEV_ATTR_RES_SRC_ADDR, 0));
    assert_int_equal(sin->sin_family, AF_INET);
    assert_int_equal(ntohs(sin->sin_port), 7471);
    assert_int_equal(ntohl(sin->sin_addr.s_addr), 0x0a630001);
    entry = within(nest, RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY, 1);
    assert_int_equal(mnl_attr_get_u8(within(entry, RDMA_NLDEV_ATTR_RES_STATE, 0)), 5);
    assert_int_equal(mnl_attr_get_u32(within(entry, RDMA_NLDEV_ATTR_RES_LQPN, 0)), 0x4001);
    sin6 = mnl_attr_get_payload(within(entry, RDMA_NLDEV_ATTR_RES_DST_ADDR, 0));
    assert_int_equal(sin6->sin6_family, AF_INET6);
    assert_memory_equal(&sin6->sin6_addr, CM_IDS[1].dst, 16);
    entry = within(nest, RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY, 2); /* on every device */
    sin6 = mnl_attr_get_payload(within(entry, RDMA_NLDEV_ATTR_RES_SRC_ADDR, 0));
    assert_int_equal(ntohs(sin6->sin6_port), 9);
    assert_null(within(nest, RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY, 3));

    answered(ask_of(RDMA_NLDEV_CMD_RES_CTX_GET, NLM_F_DUMP, 5));
    entry = within(in(message(0), RDMA_NLDEV_ATTR_RES_CTX), RDMA_NLDEV_ATTR_RES_CTX_ENTRY, 0);
    assert_int_equal(mnl_attr_get_u32(within(entry, RDMA_NLDEV_ATTR_RES_PID, 0)), 12);
}

static void test_counters(void **state)
{
    struct nlmsghdr *nlh = ask_of(RDMA_NLDEV_CMD_STAT_GET, 0, 5);
    const struct nlattr *nest, *entry;

    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_PORT_INDEX, 1);
    answered(nlh);
    nest = in(message(0), RDMA_NLDEV_ATTR_STAT_HWCOUNTERS);
    for (unsigned i = 0; i < 3; i++) {
        entry = within(nest, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY, i);
        assert_string_equal(
            mnl_attr_get_str(within(entry, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_NAME, 0)),
            i < 2 ? STATS[i].name : "rp_cnp_handled");
        assert_true(mnl_attr_get_u64(within(entry, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_VALUE,
                                            0)) == STATS[i < 2 ? i : 1].value);
    }
    assert_null(within(nest, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY, 3));

    nlh = ask_of(RDMA_NLDEV_CMD_STAT_GET, NLM_F_DUMP, 5);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_STAT_RES, RDMA_NLDEV_ATTR_RES_QP);
    answered(nlh);
    assert_int_equal(dump_ends(0), 0);
    nlh = ask_of(RDMA_NLDEV_CMD_STAT_GET, NLM_F_DUMP, 5);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_STAT_RES, RDMA_NLDEV_ATTR_RES_MR);
    answered(nlh);
    assert_int_equal(dump_ends(0), -EOPNOTSUPP);
}

/* ---- whatever bytes come ----------------------------------------------------------------- */

static uint32_t dice;
static uint32_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 17;
    return dice ^= dice << 5;
}

/* Each in memory of its own length: a sanitizer sees a look past its end. */
static void test_noise(void **state)
{
    for (uint32_t seed = 1; seed <= 50000; seed++) {
        size_t len = sizeof(struct nlmsghdr) + (dice = seed, roll() % 80);
        struct nlmsghdr *nlh = malloc(len);
        unsigned n = 0;

        for (size_t i = 0; i < len; i++) ((uint8_t *)nlh)[i] = (uint8_t)roll();
        if (seed % 4) /* mostly half way in order */
            for (size_t i = sizeof *nlh; i + 8 <= len; i += 8) {
                struct nlattr attr = {8 - !(roll() % 16), roll() % (roll() % 2 ? 4 : 100)};
                uint32_t value = roll() % 4 ? NLDEV_FIRST_INDEX + 5 : roll() % 3;
                memcpy((uint8_t *)nlh + i, &attr, sizeof attr);
                memcpy((uint8_t *)nlh + i + 4, &value, sizeof value);
            }
        nlh->nlmsg_len = (uint32_t)len;
        nlh->nlmsg_type = RDMA_NL_GET_TYPE(roll() % 8 ? RDMA_NL_NLDEV : roll(), roll() % 40);
        if (roll() % 8) nlh->nlmsg_flags |= NLM_F_REQUEST;
        nldev_whose(nlh, &FACTS);
        nldev_wants(nlh);
        answered(nlh);
        while (message(n)) n++;
        if (n) {
            const uint16_t last = message(n - 1)->nlmsg_type;
            assert_true(last == NLMSG_DONE || last == NLMSG_ERROR ||
                        !(nlh->nlmsg_flags & NLM_F_ACK));
        }
        free(nlh);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),  cmocka_unit_test(test_ports),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_whose),
        cmocka_unit_test(test_summary),  cmocka_unit_test(test_queue_pairs),
        cmocka_unit_test(test_cm_ids),   cmocka_unit_test(test_counters),
        cmocka_unit_test(test_noise),
    };

    for (unsigned i = 0; i < MANY_QPS; i++)
        qps[i] = (struct ctl_qp){.device = "rb_bond0",
                                 .pid = 1000 + i,
                                 .qpn = 0x4000 + i,
                                 .dqpn = 77,
                                 .sq_psn = i,
                                 .type = 2,
                                 .state = 3};
    strcpy(qps[0].device, "rb_eth0");
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(reply.bytes);
    return rc;
}
