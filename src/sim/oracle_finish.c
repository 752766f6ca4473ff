/* The oracle's last look, when nothing more will happen: states, requests and receives left open,
 * atomics, and every byte of memory. */
#include "sim/oracle.h"
#include "sim/trace.h"
#include <stdio.h>

void oracle_state(struct oracle *o, struct oracle_qp *q, enum hca_qp_state state)
{
    if (q->failed && state != HCA_QPS_ERR && !(!is_reliable(q->type) && state == HCA_QPS_SQE))
        oracle_says(o, "h%u qp %06x: has failed, yet is in state %d", q->host, q->qpn, state);
    if (!q->failed && state == HCA_QPS_ERR)
        oracle_says(o, "h%u qp %06x: is in ERR without a cause", q->host, q->qpn);
}

static void finish_requests(struct oracle *o, struct oracle_qp *q)
{
    struct oracle_qp *peer = &o->qp[q->peer];
    bool peer_ended = peer->failed || peer->gone;
    if (q->unexcused[0] && !peer_ended)
        oracle_says(o, "h%u qp %06x %s", q->host, q->qpn, q->unexcused);
    if (q->flush_seen && !q->failed)
        oracle_says(o, "h%u qp %06x: flushed without a cause", q->host, q->qpn);
    for (uint32_t i = q->head; i < q->posted && oracle_content(o); i++) {
        struct request *r = &q->request[i];
        if (r->state != WORK_POSTED) continue;
        bool silent = !q->sig_all && !(r->flags & HCA_SEND_SIGNALED) && !q->failed;
        if (!silent) says_of(o, q, i, "never completed");
    }
    for (uint32_t i = 0; i < q->posted && oracle_content(o); i++) {
        const struct request *r = &q->request[i];
        if (!is_reliable(q->type) || r->state != WORK_DONE || !oracle_uses_receive(r->op)) continue;
        if (!r->delivered && !peer->gone && !q->gone)
            says_of(o, q, i, "succeeded, and the peer saw no completion of its receive");
    }
}

/* A receive that did not complete well: nothing in it, or the beginning of a message due next. */
static void check_unfinished(struct oracle *o, const struct recv_queue *rq, uint32_t i)
{
    const struct receive *v = &rq->receive[i];
    if (v->state == WORK_DONE || v->state == WORK_PLANNED) return;
    if (buf_tail_untouched(&v->room, 0)) goto settled;
    for (uint32_t k = 0; k < o->nqp; k++) {
        const struct oracle_qp *q = &o->qp[k], *peer = &o->qp[q->peer];
        if (q->rq != rq) continue;
        if (q->type == HCA_QPT_UC) goto settled; /* the remains of messages given up */
        for (uint32_t m = 0; m < peer->posted; m++)
            if (!peer->request[m].delivered && buf_prefix(&v->room, peer->request[m].key))
                goto settled;
    }
    oracle_says(o, "receive %u of queue %u never succeeded, and holds bytes of no message due", i,
                rq->id);
    return;
settled:
    for (uint32_t p = 0; p < v->room.n; p++) v->room.plot[p]->wild = true;
}

static void check_receives(struct oracle *o, struct oracle_qp *q)
{
    if (q->rq->shared || !q->failed || q->gone) return;
    for (uint32_t i = q->rq->head; i < q->rq->posted; i++)
        if (q->rq->receive[i].state == WORK_POSTED)
            oracle_says(o, "h%u qp %06x: receive %u was not flushed", q->host, q->qpn, i);
}

/* Which request a buffer belongs to, for the message. */
static void name_owner(const struct oracle *o, const struct plot *plot, char *out, size_t room)
{
    snprintf(out, room, "no request's");
    for (uint32_t k = 0; k < o->nqp; k++) {
        const struct oracle_qp *q = &o->qp[k];
        for (uint32_t i = 0; i < q->planned; i++) {
            const struct request *r = &q->request[i];
            bool mine = r->remote == plot;
            for (uint32_t n = 0; n < r->local.n; n++) mine = mine || r->local.plot[n] == plot;
            if (mine)
                snprintf(out, room, "h%u qp %06x request %u's (%s, state %d)", q->host, q->qpn, i,
                         wr_opcode_name(r->op), r->state);
        }
    }
    for (uint32_t k = 0; k < o->nrq; k++)
        for (uint32_t i = 0; i < o->rq[k]->planned; i++)
            for (uint32_t n = 0; n < o->rq[k]->receive[i].room.n; n++)
                if (o->rq[k]->receive[i].room.plot[n] == plot)
                    snprintf(out, room, "queue %u receive %u's (state %d)", k, i,
                             o->rq[k]->receive[i].state);
}

static void check_outside(struct oracle *o)
{
    o->blind = false;
    for (uint32_t g = 0; g < o->nground; g++) {
        size_t where;
        if (!ground_outside_ok(&o->ground[g], &where))
            oracle_says(o, "h%u: a byte outside the regions has changed, at arena offset %zu", g,
                        where);
    }
}

static void check_memory(struct oracle *o)
{
    for (uint32_t g = 0; g < o->nground; g++) {
        struct ground *ground = &o->ground[g];
        size_t where;
        if (!ground_guards_ok(ground, &where))
            oracle_says(o, "h%u: a byte between buffers has changed, at arena offset %zu", g,
                        where);
        for (size_t i = 0; i < ground->nplots && oracle_content(o); i++) {
            const struct plot *p = ground->plot[i];
            if (plot_as_expected(p)) continue;
            char owner[120];
            name_owner(o, p, owner, sizeof owner);
            oracle_says(o,
                        "h%u: %s buffer was written to when nobody should (lot %u, offset %u, %u "
                        "bytes; wrong at %u)",
                        g, owner, p->lot, p->offset, p->len,
                        pattern_match(p->bytes, p->key, p->koff, p->len));
        }
    }
}

void oracle_finish(struct oracle *o)
{
    if (o->blind) {
        check_outside(o);
        return;
    }
    for (uint32_t k = 0; k < o->nqp && oracle_content(o); k++) {
        finish_requests(o, &o->qp[k]);
        check_receives(o, &o->qp[k]);
    }
    for (uint32_t k = 0; k < o->nrq && oracle_content(o); k++)
        for (uint32_t i = 0; i < o->rq[k]->posted; i++) check_unfinished(o, o->rq[k], i);
    for (uint32_t k = 0; k < o->nword && oracle_content(o); k++) oracle_check_word(o, &o->word[k]);
    if (oracle_content(o)) check_memory(o);
}
