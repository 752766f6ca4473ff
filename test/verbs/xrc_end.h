/* What the XRC tests make of an end (end.h): domains, targets, initiators, SRQs. */
#ifndef RBOND_TEST_XRC_END_H
#define RBOND_TEST_XRC_END_H

#include "end.h"

/* NULL with errno. */
struct ibv_xrcd *open_domain(struct ibv_context *context, int file, int oflags);
struct ibv_qp *new_target(struct ibv_context *context, struct ibv_xrcd *domain);
struct ibv_qp *open_target(struct ibv_context *context, struct ibv_xrcd *domain, uint32_t num,
                           void *qp_context);

/* An initiator of the end's PD and CQ, which has ibv_wr_send, too. */
struct ibv_qp *new_sender(const struct end *e);
/* As ibv_create_srq_ex wants it: of the end's PD and CQ. */
struct ibv_srq_init_attr_ex srq_init(const struct end *e, struct ibv_xrcd *domain);
/* The number is peers'. */
struct ibv_srq *new_xrc_srq(const struct end *e, struct ibv_xrcd *domain, uint32_t *num);

/* To RTS, to the peer on the same device; `timeout` as in struct ibv_qp_attr. */
void up(struct end *e, struct ibv_qp *qp, struct ibv_qp *peer, uint8_t timeout);

/* The next completion must be this one. */
void expect(struct end *e, uint64_t id, enum ibv_wc_status status);
/* The next async event that is not of a first packet, acknowledged. */
struct ibv_async_event next_event(struct ibv_context *context);

/* Two ends, an initiator's and a target's, and the target's domain, of a file. */
extern struct end ini, tgt;
extern struct ibv_xrcd *xrcd;
extern int fd;

void bed_up(void);
/* No descriptor may be open that was not before. */
void bed_down(void);

#endif
