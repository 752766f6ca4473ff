/* Which multicast datagrams have come by another member already: see twins.c. */
#ifndef RBOND_HCA_TWINS_H
#define RBOND_HCA_TWINS_H

#include "hca/hca.h"

struct twins;

struct twins *twins_new(void); /* NULL: memory is short */
void twins_free(struct twins *twins);
/* Has the same datagram come by another member? What is asked about counts as heard. */
bool twins_heard(struct twins *twins, const struct hca_rx *rx, const struct roce_hdr *h,
                 when_t now);

#endif
