/* Opened devices, and the functions that their operation tables point to. */
#ifndef RBOND_VERBS_CONTEXT_H
#define RBOND_VERBS_CONTEXT_H

#include "verbs/object.h"

/* cq.c, post.c, srq.c: struct ibv_context_ops */
int rb_poll_cq(struct ibv_cq *cq, int max, struct ibv_wc *wc);
int rb_req_notify_cq(struct ibv_cq *cq, int solicited_only);
int rb_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int rb_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
int rb_post_srq_recv(struct ibv_srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);

/* struct verbs_context */
int rb_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
                  size_t len);
int rb_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
                       struct ibv_device_attr_ex *attr, size_t len);
int rb_query_rt_values(struct ibv_context *context, struct ibv_values_ex *values);
struct ibv_cq_ex *rb_create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *init);
struct ibv_qp *rb_create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *init);
int rb_modify_qp_rate_limit(struct ibv_qp *qp, struct ibv_qp_rate_limit_attr *attr);
int rb_modify_cq(struct ibv_cq *cq, struct ibv_modify_cq_attr *attr);
struct ibv_td *rb_alloc_td(struct ibv_context *context, struct ibv_td_init_attr *init);
int rb_dealloc_td(struct ibv_td *td);
struct ibv_pd *rb_alloc_parent_domain(struct ibv_context *context,
                                      struct ibv_parent_domain_init_attr *attr);
struct ibv_srq *rb_create_srq_ex(struct ibv_context *context, struct ibv_srq_init_attr_ex *init);
int rb_get_srq_num(struct ibv_srq *srq, uint32_t *num);
struct ibv_xrcd *rb_open_xrcd(struct ibv_context *context, struct ibv_xrcd_init_attr *init);
int rb_close_xrcd(struct ibv_xrcd *xrcd);
struct ibv_qp *rb_open_qp(struct ibv_context *context, struct ibv_qp_open_attr *attr);

/* xrcd.c: the adapter's number of the domain. */
uint32_t xrcd_number(const struct rb_xrcd *xrcd);
/* May others open it, too? */
bool xrcd_is_shared(const struct rb_xrcd *xrcd);
void xrcd_function_gone(const struct function *f);

/* qp.c: the public part of a handle, and its end. */
void qp_fill(struct rb_qp *qp, struct ibv_context *context, void *qp_context, enum ibv_qp_type type,
             uint32_t qp_num);
void qp_free(struct rb_qp *qp);
/* Holding the lock: the QP changes, 0 or an errno; a handle goes, and with the last one the QP. */
int qp_change(struct rb_qp *qp, const struct hca_qp_attr *to, int mask);
int qp_detach(struct rb_qp *qp, bool *last);
/* The adapter's QP of a new one. 0 or an errno. */
int qp_create_in_adapter(struct rb_qp *qp, struct ibv_qp_init_attr_ex *init);
/* qp_open.c: holding the lock of qp->f: the handle leaves the others of its QP. False: it was the
 * only one. */
bool qp_leave(struct rb_qp *qp);

/* context.c: another context of the one that the descriptor is of. 0 or an errno: ENODEV where it is
 * none of ours, EOPNOTSUPP where it is another process's. */
int context_import(int cmd_fd, struct ibv_context **out);

/* refuse.c: fills every operation that is still NULL with one that gives EOPNOTSUPP. */
void refuse_the_rest(struct verbs_context *v);

/* cq_ex.c: what ibv_start_poll and its kin call, for the wc_flags asked for. */
void cq_ex_fill(struct rb_cq *cq);
/* wr.c: what the ibv_wr_* calls call. */
void wr_fill(struct rb_qp *qp);
/* wr.c: the operations that a QP of this type has. */
uint64_t wr_operations(enum ibv_qp_type type);
void wr_free(struct rb_qp *qp);

/* pd.c: without function->lock. Asks the allocator of `pd` (NULL, or one without: `ring` stays
 * empty) for `size` bytes: 0 or ENOMEM. */
int pd_ring_alloc(struct rb_pd *pd, size_t size, uint64_t resource, struct pd_ring *ring);
void pd_ring_free(struct pd_ring *ring);

/* cq.c: with the public fields that `init` has; `parent` may be NULL. NULL with errno. */
struct rb_cq *cq_new(struct ibv_context *context, const struct ibv_cq_init_attr_ex *init,
                     struct rb_pd *parent);
/* From in to out the thread is the CQ's one consumer; it may come in more than once. */
void cq_consumer_in(struct rb_cq *cq);
void cq_consumer_out(struct rb_cq *cq);
/* Is the calling thread between ibv_start_poll and ibv_end_poll? */
bool cq_is_consumer(struct rb_cq *cq);

/* ah.c: an address vector as the adapter wants it. 0 or an errno. */
int ah_resolve(struct function *f, const struct ibv_ah_attr *attr, struct hca_ah *ah);
void ah_describe(const struct hca_ah *ah, struct ibv_ah_attr *attr);

/* comp_channel.c: NULL where it is none of ours. */
struct rb_channel *rb_channel(struct ibv_comp_channel *channel);
/* Puts one event into the pipe: 0 or a negative errno, -EAGAIN when it is full. */
int channel_put(struct rb_channel *channel, struct rb_cq *cq);

/* event.c: takes the object's unread events out of a pipe and returns how many they were. */
uint32_t events_purge(int rd, int wr, size_t size, uint64_t element);
int events_pipe(int fds[2]);

#endif
