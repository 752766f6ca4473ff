/* RDMA netlink (rdma/rdma_netlink.h, client RDMA_NL_NLDEV) for rbondd's devices: the requests that
 * rdma(8) sends to the kernel, answered as the kernel answers them. Bytes and facts in, messages
 * out; netlink.c brings both and carries the answers. */
#ifndef RBOND_VERBS_NLDEV_H
#define RBOND_VERBS_NLDEV_H

#include "ctl/proto.h"
#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>

/* The kernel counts its devices from 0: ours cannot be taken for one of them. */
#define NLDEV_FIRST_INDEX 0x10000u
/* No message is longer, bytes: rdma(8) reads into a page. */
#define NLDEV_MAX_MESSAGE 3776

/* What rbondd told; a list that nldev_wants does not name may be left empty. */
struct nldev_facts {
    const struct ctl_dev *dev;
    const struct ctl_qp *qp;
    const struct ctl_cm_id *cm_id;
    const struct ctl_function *function;
    const struct ctl_stat *stat;
    size_t ndev, nqp, ncm_id, nfunction, nstat;
};

#define NLDEV_QPS 1u
#define NLDEV_CM_IDS 2u
#define NLDEV_FUNCTIONS 4u
#define NLDEV_STATS 8u

/* The lists beside `dev` that an answer needs. */
unsigned nldev_wants(const struct nlmsghdr *request);

/* Who is to answer, where the kernel has RDMA netlink. BOTH: a dump over all devices, the kernel's
 * first; nldev_answer ends it. */
enum nldev_whose { NLDEV_OURS, NLDEV_KERNELS, NLDEV_BOTH };
enum nldev_whose nldev_whose(const struct nlmsghdr *request, const struct nldev_facts *facts);

/* Messages, one after the other, each aligned. `bytes` is malloc'd, the caller's. */
struct nldev_reply {
    uint8_t *bytes;
    size_t len, room;
    bool short_of_memory; /* what follows is missing */
};

/* The reply grows by one message, which is copied. */
void nldev_add(struct nldev_reply *reply, const struct nlmsghdr *message);

/* The answer to one request (whole: its nlmsg_len bytes are there) of the socket `portid`, with the
 * acknowledgement or error that ends it. */
void nldev_answer(const struct nlmsghdr *request, uint32_t portid, const struct nldev_facts *facts,
                  struct nldev_reply *reply);

#endif
