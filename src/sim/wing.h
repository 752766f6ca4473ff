/* A wing: a second function of a host, which has the host's XRC targets. Their SRQs and memory are the
 * first's, so each of their requests goes from the one to the other (hca/call.h), over two lines that
 * lose nothing, keep the order and take their time. */
#ifndef RBOND_SIM_WING_H
#define RBOND_SIM_WING_H

#include "hca/hca.h"

struct host;

/* The adapters of a host that has one may have something for each other. */
void wing_pull(struct host *h);

#endif
