/* Shared receive queues: an rq with a limit that fires once. */
#ifndef RBOND_HCA_SRQ_H
#define RBOND_HCA_SRQ_H

#include "hca/adapter.h"
#include "hca/rq.h"

struct hca_srq {
    struct hca *hca;
    struct event_source events; /* and the owner */
    struct list all;            /* in hca->srqs */
    uint32_t xrcd, num;         /* an XRC SRQ's; 0: a basic one */
    struct hca_cq *cq;          /* an XRC SRQ's */
    bool failed;                /* an XRC SRQ whose CQ has overrun */
    uint32_t pd;                /* receive SGEs are checked against it, whatever the QP's */
    uint32_t limit;             /* 0: not armed */
    uint32_t users;             /* QPs */
    struct rq rq;
};

bool srq_take(struct hca_srq *srq, struct rwqe *out);
/* The XRC SRQ of this number, or NULL. */
struct hca_srq *srq_find(const struct hca *hca, uint32_t num);
/* Its CQ is lost: requests that name it are refused from now on. */
void srq_fail(struct hca_srq *srq);

#endif
