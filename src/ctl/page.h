/* Shared memory between rbondd and one device's or function's owners.
 * The device page: written by rbondd alone, mapped read only by programs; a seqlock guards it.
 * The function page: written by the program, read by rbondd, which trusts none of it: it copies a
 * record once and checks the copy. */
#ifndef RBOND_CTL_PAGE_H
#define RBOND_CTL_PAGE_H

#include "ctl/proto.h"
#include "hca/hca.h"
#include <stdatomic.h>

struct device_state {
    struct steering steering;
    uint32_t member_ifindex[STEER_MAX_MEMBERS];
    uint32_t mtu;            /* L3, bytes */
    uint32_t speed_mbps;
    uint32_t gid_generation; /* grows when gids change */
    uint8_t port_state;      /* enum ctl_port_state */
    uint8_t pad[3];
    struct gid gid[CTL_MAX_GIDS];          /* zero: an empty slot. Indices never move */
    uint32_t gid_ifindex[CTL_MAX_GIDS];
};

struct device_page {
    _Atomic uint32_t seq; /* odd while rbondd writes */
    _Atomic uint32_t generation; /* = state.steering.generation; cheap to look at on the data path */
    struct device_state state;
};

/* Writer: seq odd, release fence; write; release store of seq even. Pairs with page_read. */
void page_write(struct device_page *page, const struct device_state *state);
/* A consistent copy; retries while the writer is at it. */
void page_read(const struct device_page *page, struct device_state *out);

#define FUNCTION_PAGE_QPS HCA_MAX_QP

/* A multicast group that the function's receive socket has joined on a net device. */
#define FUNCTION_PAGE_MEMBERSHIPS (HCA_MAX_MCAST_GROUPS * STEER_MAX_MEMBERS)

struct function_membership {
    struct gid group;
    uint32_t ifindex; /* 0: an empty slot */
};

struct function_page {
    _Atomic uint64_t counters[64];                     /* struct hca_counters, in its order */
    struct hca_member_counters member[STEER_MAX_MEMBERS];
    struct hca_qp_view qp[FUNCTION_PAGE_QPS];          /* slot = QP index; qpn 0: free */
    struct function_membership membership[FUNCTION_PAGE_MEMBERSHIPS];
    _Atomic uint64_t epoch; /* between a program and its forked children: verbs/process.c */
};

#endif
