/* Handles of XRC targets of other functions (ibv_open_qp). The target's function keeps one handle for
 * each function that has some, and does what these ask of it over the lines of kin.h. Here a handle
 * has a QP of its own adapter that stays in RESET, for everything that a target refuses anyway. */
#ifndef RBOND_VERBS_QP_REMOTE_H
#define RBOND_VERBS_QP_REMOTE_H

#include "verbs/line.h"
#include "verbs/object.h"

/* Without the lock; each 0 or an errno. EIO: the target has gone. */
int qp_remote_open(struct rb_qp *qp);
int qp_remote_modify(struct rb_qp *qp, const struct hca_qp_attr *attr, int mask);
int qp_remote_query(struct rb_qp *qp, struct hca_qp_attr *attr);
void qp_remote_close(struct rb_qp *qp);

/* For kin.c, holding the lock. What a function wants: true: `answer` goes back. */
bool qp_remote_serve(struct function *f, uint32_t xrcd, uint16_t function, const struct kin_note *note,
                     struct kin_note *answer);
void qp_remote_answered(struct function *f, uint16_t function, const struct kin_note *answer);
void qp_remote_gone(struct function *f, uint32_t xrcd, uint16_t function);
/* The function is being closed: those that stand for others'. */
void qp_remote_free(struct function *f);
/* For event.c: the handle that stands for another function's has heard of these. False: no room. */
bool qp_remote_tell(struct function *f, struct rb_qp *qp, uint32_t events);

#endif
