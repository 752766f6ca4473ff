/* The unreliable connected service of one QP. */
#ifndef RBOND_HCA_UC_H
#define RBOND_HCA_UC_H

#include "hca/hca.h"
#include "hca/rq.h"

struct hca_qp;

struct uc {
    uint32_t send_offset;   /* into the WQE at sq.next */
    psn_t send_psn, expect_psn;
    bool in_message;        /* a message is being received; the rest says how far */
    bool is_write;
    bool have_rwqe;         /* a receive WQE is taken; a broken message leaves it to the next */
    struct rwqe rwqe;
    uint64_t va;
    uint32_t rkey, length, offset; /* of a WRITE: as its RETH says; how much has arrived */
};

void uc_to_rtr(struct hca_qp *qp);
void uc_to_rts(struct hca_qp *qp);
/* The receive WQE in use completes as flushed; qp.c flushes the queues behind it. */
void uc_to_err(struct hca_qp *qp, when_t now);
void uc_reset(struct hca_qp *qp);
void uc_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now);
size_t uc_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now);

#endif
