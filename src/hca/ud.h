/* The unreliable datagram service of one QP. */
#ifndef RBOND_HCA_UD_H
#define RBOND_HCA_UD_H

#include "hca/hca.h"

struct hca_qp;

/* Every UD receive buffer begins with room for a GRH; an IPv4 header takes its last 20 bytes. */
#define UD_GRH_LEN 40

void ud_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now);
size_t ud_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now);

#endif
