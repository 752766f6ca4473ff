/* Completion queues: a single-producer, single-consumer ring; the producer is the engine. */
#ifndef RBOND_HCA_CQ_H
#define RBOND_HCA_CQ_H

#include "hca/hca.h"

/* Adds a completion. `solicited` counts for CQs armed for solicited ones; failures always do. A full
 * ring overruns: the CQ goes to error, HCA_EVENT_CQ_ERR is queued, its QPs fail. */
void cq_push(struct hca_cq *cq, const struct hca_wc *wc, bool solicited, when_t now);
/* The QP is reset or destroyed: its completions that wait are taken out (ibv_destroy_qp(3)). The
 * owner keeps the consumer out meanwhile. */
void cq_forget_qp(struct hca_cq *cq, qpn_t qpn);

#endif
