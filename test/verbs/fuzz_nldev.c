/* RDMA netlink's answers under libFuzzer: any bytes as a request. */
#include "verbs/nldev.h"
#include <stdlib.h>
#include <string.h>

#define PORTID 7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct ctl_dev DEV = {.name = "rb_a", .netdev = "a", .port_state = CTL_PORT_ACTIVE};
static const struct ctl_qp QP = {.device = "rb_a", .qpn = 0x4002, .type = 2, .state = 3};
static const struct ctl_cm_id CM_ID = {.device = "rb_a", .state = CTL_CM_LISTEN, .src_port = 1};
static const struct ctl_function FUNCTION = {.device = "rb_a", .function = 1};
static const struct ctl_stat STAT = {.device = "rb_a", .name = "tx_packets"};
static const struct nldev_facts FACTS = {.dev = &DEV,
                                         .qp = &QP,
                                         .cm_id = &CM_ID,
                                         .function = &FUNCTION,
                                         .stat = &STAT,
                                         .ndev = 1,
                                         .nqp = 1,
                                         .ncm_id = 1,
                                         .nfunction = 1,
                                         .nstat = 1};

/* Whole messages of its socket, and an end where one was asked for. */
static void check(const struct nldev_reply *reply, const struct nlmsghdr *request)
{
    const struct nlmsghdr *m = NULL;

    for (size_t at = 0; at < reply->len; at += NLMSG_ALIGN(m->nlmsg_len)) {
        m = (const void *)(reply->bytes + at);
        if (m->nlmsg_len < sizeof *m || m->nlmsg_len > NLDEV_MAX_MESSAGE ||
            m->nlmsg_len > reply->len - at || m->nlmsg_pid != PORTID ||
            m->nlmsg_seq != request->nlmsg_seq)
            abort();
    }
    if (request->nlmsg_flags & NLM_F_ACK &&
        !(m && (m->nlmsg_type == NLMSG_DONE || m->nlmsg_type == NLMSG_ERROR)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nldev_reply reply = {0};
    struct nlmsghdr *request;

    if (size < sizeof *request) return 0;
    request = malloc(size); /* of just that size: reading past it is seen */
    memcpy(request, data, size);
    request->nlmsg_len = (uint32_t)size;
    nldev_wants(request);
    if (nldev_whose(request, &FACTS) > NLDEV_BOTH) abort();
    nldev_answer(request, PORTID, &FACTS, &reply);
    check(&reply, request);
    free(reply.bytes);
    free(request);
    return 0;
}
