/* See qp_remote.h. */
#include "verbs/qp_remote.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/kin.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* How long another process may take to answer; one that is stopped does not. */
#define PATIENCE_NS (10 * SEC_NS)
#define LOOK_MS 2
/* Events that a target can have. */
#define OF_A_QP                                                                                    \
    (1u << IBV_EVENT_QP_FATAL | 1u << IBV_EVENT_QP_REQ_ERR | 1u << IBV_EVENT_QP_ACCESS_ERR |       \
     1u << IBV_EVENT_COMM_EST | 1u << IBV_EVENT_QP_LAST_WQE_REACHED)

/* Another process wrote it: a bool is read as such only when it is one. */
static struct kin_note tidy(const struct kin_note *from)
{
    struct kin_note note = *from;
    bool *const flags[] = {&note.attr.en_sqd_async_notify, &note.attr.sq_draining};

    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        unsigned char byte;
        memcpy(&byte, flags[i], sizeof byte);
        *flags[i] = byte & 1;
    }
    return note;
}

/* ---- the handle's side --------------------------------------------------------------------- */

struct question {
    struct list node; /* in function->questions */
    uint16_t function;
    struct kin_note note; /* then the answer */
    bool answered;
};

void qp_remote_answered(struct function *f, uint16_t function, const struct kin_note *answer)
{
    list_for_each (node, &f->questions) {
        struct question *q = container_of(node, struct question, node);
        if (q->answered || q->function != function || q->note.seq != answer->seq) continue;
        q->note = tidy(answer);
        q->answered = true;
        return;
    }
}

/* Holding the lock, which is let go meanwhile. */
static int await(struct function *f, struct question *q)
{
    when_t until = when_add(function_now(), PATIENCE_NS);

    while (!q->answered && !when_due(until, function_now())) {
        struct pollfd pfd = {.fd = kin_fd(f), .events = POLLIN};
        pthread_mutex_unlock(&f->lock);
        poll(&pfd, 1, LOOK_MS);
        pthread_mutex_lock(&f->lock);
        function_drive(f, false, function_now());
    }
    return q->answered ? q->note.result : ETIMEDOUT;
}

static int ask(struct rb_qp *qp, struct kin_note *note)
{
    struct function *f = qp->f;
    struct question q = {.function = qp->elsewhere, .note = *note};

    int rc = function_lock(f);
    if (rc) return rc;
    q.note.qpn = qp_public(qp)->qp_num;
    q.note.seq = ++f->questions_asked;
    rc = qp->lost ? EIO : -kin_put_note(f, qp->xrc_domain, qp->elsewhere, &q.note);
    if (rc == 0) {
        list_add_tail(&f->questions, &q.node);
        rc = await(f, &q);
        list_del(&q.node);
    }
    function_unlock(f);
    *note = q.note;
    return rc;
}

int qp_remote_open(struct rb_qp *qp)
{
    struct kin_note note = {.kind = KIN_QP_OPEN};
    int rc = ask(qp, &note);
    return rc == ENOENT ? EINVAL : rc; /* no such function: no such target */
}

int qp_remote_modify(struct rb_qp *qp, const struct hca_qp_attr *attr, int mask)
{
    struct kin_note note = {.kind = KIN_QP_MODIFY, .mask = (uint32_t)mask, .attr = *attr};
    return ask(qp, &note);
}

int qp_remote_query(struct rb_qp *qp, struct hca_qp_attr *attr)
{
    struct kin_note note = {.kind = KIN_QP_QUERY};
    int rc = ask(qp, &note);
    if (rc) return rc;
    *attr = note.attr;
    qp->addressed = note.addressed;
    return 0;
}

void qp_remote_close(struct rb_qp *qp)
{
    struct kin_note note = {.kind = KIN_QP_CLOSE};
    ask(qp, &note);
}

static struct rb_qp *handle(struct function *f, uint32_t xrcd, uint16_t function, uint32_t qpn)
{
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        if (qp->elsewhere == function && qp->xrc_domain == xrcd && qp_public(qp)->qp_num == qpn)
            return qp;
    }
    return NULL;
}

static void handles_gone(struct function *f, uint32_t xrcd, uint16_t function)
{
    const struct kin_note gone = {.result = EIO};

    list_for_each (node, &f->questions) {
        struct question *q = container_of(node, struct question, node);
        if (q->answered || q->function != function) continue;
        q->note = gone;
        q->answered = true;
    }
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        if (qp->elsewhere != function || qp->xrc_domain != xrcd || qp->lost) continue;
        qp->lost = true;
        events_qp(f, qp, 1u << IBV_EVENT_QP_FATAL);
    }
}

/* ---- the target's side --------------------------------------------------------------------- */

static struct rb_qp *target(struct function *f, uint32_t xrcd, uint32_t qpn)
{
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        if (!qp->elsewhere && qp->xrc_domain == xrcd && qp_public(qp)->qp_num == qpn) return qp;
    }
    return NULL;
}

/* The one of the target's handles that stands for a function's; NULL: none. */
static struct rb_qp *stand_in(struct rb_qp *qp, uint16_t function)
{
    if (!qp || qp->stands_for == function) return qp;
    list_for_each (node, &qp->handles) {
        struct rb_qp *other = container_of(node, struct rb_qp, handles);
        if (other->stands_for == function) return other;
    }
    return NULL;
}

static int open_for(struct function *f, struct rb_qp *qp, uint16_t function)
{
    if (!qp) return EINVAL;
    struct rb_qp *more = stand_in(qp, function);
    if (more) {
        more->stands_times++;
        return 0;
    }
    more = calloc(1, sizeof *more);
    if (!more) return ENOMEM;
    qp_fill(more, &f->ctx->v.context, NULL, IBV_QPT_XRC_RECV, qp_public(qp)->qp_num);
    more->f = f;
    more->hca = qp->hca;
    more->addressed = qp->addressed;
    more->xrc_domain = qp->xrc_domain;
    more->stands_for = function;
    more->stands_times = 1;
    list_add_tail(&qp->handles, &more->handles);
    return 0;
}

static void close_for(struct rb_qp *qp)
{
    bool last;
    qp_detach(qp, &last);
    qp_free(qp);
}

static int modify_for(struct function *f, struct rb_qp *qp, const struct kin_note *note)
{
    const struct hca_qp_attr *a = &note->attr;
    bool mtu = note->mask & HCA_QP_PATH_MTU;

    if ((note->mask & HCA_QP_STATE) && (unsigned)a->state > HCA_QPS_ERR) return EINVAL;
    if (mtu && (a->path_mtu < IBV_MTU_256 || a->path_mtu > function_mtu(f->state.mtu)))
        return EINVAL;
    return qp_change(qp, a, (int)note->mask);
}

bool qp_remote_serve(struct function *f, uint32_t xrcd, uint16_t function,
                     const struct kin_note *note, struct kin_note *answer)
{
    if (note->kind == KIN_QP_EVENT) {
        struct rb_qp *qp = handle(f, xrcd, function, note->qpn);
        if (qp) events_qp(f, qp, note->mask & OF_A_QP);
        return false;
    }
    struct rb_qp *qp = target(f, xrcd, note->qpn), *theirs = stand_in(qp, function);
    *answer = (struct kin_note){.kind = note->kind, .qpn = note->qpn, .seq = note->seq};
    if (note->kind == KIN_QP_OPEN) {
        answer->result = open_for(f, qp, function);
    } else if (!theirs) {
        answer->result = EINVAL;
    } else if (note->kind == KIN_QP_MODIFY) {
        const struct kin_note tidied = tidy(note);
        answer->result = modify_for(f, theirs, &tidied);
    } else if (note->kind == KIN_QP_QUERY) {
        hca_qp_query(theirs->hca, &answer->attr);
        answer->addressed = theirs->addressed;
    } else if (--theirs->stands_times == 0) {
        close_for(theirs);
    }
    return true;
}

/* One at a time: what ends may be what stood in the list for all of its target's handles. */
static struct rb_qp *any_for(struct function *f, uint32_t xrcd, uint16_t function)
{
    list_for_each (node, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        struct rb_qp *theirs = qp->xrc_domain == xrcd ? stand_in(qp, function) : NULL;
        if (theirs) return theirs;
    }
    return NULL;
}

void qp_remote_gone(struct function *f, uint32_t xrcd, uint16_t function)
{
    struct rb_qp *qp;

    handles_gone(f, xrcd, function);
    while ((qp = any_for(f, xrcd, function))) close_for(qp);
}

void qp_remote_free(struct function *f)
{
    list_for_each_safe (node, tmp, &f->qps) {
        struct rb_qp *qp = container_of(node, struct rb_qp, link);
        list_for_each_safe (n, after, &qp->handles) {
            struct rb_qp *other = container_of(n, struct rb_qp, handles);
            if (!other->stands_for) continue;
            list_del(n);
            qp_free(other);
        }
        if (!qp->stands_for) continue;
        list_del(&qp->link);
        list_del(&qp->handles);
        qp_free(qp);
    }
}

bool qp_remote_tell(struct function *f, struct rb_qp *qp, uint32_t events)
{
    struct kin_note note = {.kind = KIN_QP_EVENT, .qpn = qp_public(qp)->qp_num, .mask = events};
    return kin_put_note(f, qp->xrc_domain, qp->stands_for, &note) != -EAGAIN;
}
