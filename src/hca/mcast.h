/* Multicast groups of an adapter and the UD QPs attached to them. */
#ifndef RBOND_HCA_MCAST_H
#define RBOND_HCA_MCAST_H

#include "hca/hca.h"
#include "hca/twins.h"

struct mcast_group;

struct mcast {
    struct mcast_group *group; /* HCA_MAX_MCAST_GROUPS of them once there was one */
    uint32_t ngroups;          /* that have a QP: the first so many */
    struct twins *twins;       /* made with `group` */
};

/* A packet to QPN 0xffffff. */
void mcast_input(struct hca *hca, const struct hca_rx *rx, const struct roce_hdr *h,
                 const uint8_t *payload, size_t len, when_t now);
/* The QP leaves all its groups. */
void mcast_forget(struct hca *hca, struct hca_qp *qp);
void mcast_free(struct hca *hca);

#endif
