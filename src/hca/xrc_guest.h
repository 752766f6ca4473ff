/* The callee's half of XRC between functions: other functions' targets, as guests in our SRQs. See
 * call.h. */
#ifndef RBOND_HCA_XRC_GUEST_H
#define RBOND_HCA_XRC_GUEST_H

#include "hca/call.h"

struct hca_srq;

/* The SRQ is being destroyed: receives that guests have taken from it are lost. */
void xrc_guests_srq_gone(struct hca *hca, const struct hca_srq *srq);
/* That function has gone, as hca_function_gone says. */
void xrc_guests_gone(struct hca *hca, uint32_t xrcd, uint16_t function, when_t now);
void xrc_guests_free_all(struct hca *hca);

#endif
