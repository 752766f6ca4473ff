/* The caller's half of XRC between functions: what waits at a target. See call.h. */
#ifndef RBOND_HCA_XRC_CALLS_H
#define RBOND_HCA_XRC_CALLS_H

#include "hca/call.h"

struct hca_qp;
struct rc_resource;
struct xrc_calls;

/* For a new target: 0 or -ENOMEM. */
int xrc_calls_new(struct hca_qp *qp);
/* The target is being destroyed: what other functions must hear of it is said yet. */
void xrc_calls_leave(struct hca_qp *qp);
/* The target has failed, or else it is reset: nothing waits any more. */
void xrc_calls_stop(struct hca_qp *qp, bool failed);
void xrc_calls_free_all(struct hca *hca);

/* A request that has come. True: it waits, or was dropped; false: it is for the target itself to
 * execute or to answer, now. */
bool xrc_calls_input(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload, size_t len,
                     when_t now);

/* The data of the packet that a READ of another function's memory has next, to be sent now. */
enum xrc_data { XRC_DATA_AWAITED, XRC_DATA_HERE, XRC_DATA_REFUSED };
enum xrc_data xrc_calls_data(struct hca_qp *qp, const struct rc_resource *res, uint8_t **at);

#endif
