/* What waits at an XRC target: requests for SRQs of other functions, and what came behind them, in
 * a ring in the order of their PSNs.
 *
 *            head              sent              tail
 *   executed  |  called         |  has its turn   |     c->next is expected from the peer
 *
 * [head, sent) are with one callee. Its verdicts come in order and move the target's expected PSN
 * as the execution here would have. A refusal empties the ring, and so that no verdict on what was
 * dropped is taken for one on what the peer sends again, each such time is another epoch. What
 * finds no room is dropped; when the ring is empty the peer is told at once. */
#include "hca/xrc_calls.h"
#include "base/must.h"
#include "hca/qp.h"
#include "hca/xrc_guest.h"
#include "wire/opcode.h"
#include <errno.h>
#include <stdlib.h>

enum { SLOTS = 128, NFUNCTIONS = 1 << HCA_FUNCTION_BITS };

struct slot {
    struct roce_hdr h;
    size_t len; /* as it came; beyond HCA_MAX_MTU nothing is kept of it */
    uint8_t payload[HCA_MAX_MTU];
};

/* READ data is asked for piece by piece, by one READ at a time. */
struct fetch {
    enum { FETCH_NONE, FETCH_DUE, FETCH_ASKED, FETCH_HERE, FETCH_REFUSED } state;
    uint16_t function;
    uint32_t epoch;
    psn_t psn; /* of the first packet that it is for */
    uint32_t npackets, bytes, srqn, rkey;
    uint64_t va;
};

struct set {
    uint64_t bits[NFUNCTIONS / 64];
};

struct xrc_calls {
    struct list node; /* in hca->calling or hca->calls_full */
    struct hca *hca;
    struct hca_qp *qp; /* NULL: destroyed */
    qpn_t qpn;
    uint32_t xrcd;
    uint32_t head, sent,
        tail; /* 0 all when the ring is empty: as few slots as can be are touched */
    psn_t next;
    uint32_t epoch;
    uint16_t callee;  /* of [head, sent) */
    uint32_t srqn;    /* of the message under way, where it is another function's; else 0 */
    bool gap;         /* something was dropped behind what waits */
    struct set met;   /* these know the target */
    bool failed;      /* the end of which they are to hear was a failure */
    struct set leave; /* these are to hear of its end */
    struct fetch fetch;
    struct slot slot[SLOTS];
    uint8_t data[HCA_CALL_DATA];
};

static uint16_t function_of(uint32_t number) { return (uint16_t)(number >> HCA_INDEX_BITS); }

static struct slot *at(struct xrc_calls *c, uint32_t index) { return &c->slot[index % SLOTS]; }

static bool waits(const struct xrc_calls *c) { return c->head != c->tail; }

static bool is_elsewhere(const struct hca *hca, const struct roce_hdr *h)
{
    return function_of(h->xrc_srqn) != hca->conf.function;
}

static void want_turn(struct xrc_calls *c)
{
    if (list_empty(&c->node)) list_add_tail(&c->hca->calling, &c->node);
}

/* ---- functions that know the target -------------------------------------------------------- */

static void set_add(struct set *s, uint16_t f) { s->bits[f / 64] |= 1ull << f % 64; }

static void set_del(struct set *s, uint16_t f) { s->bits[f / 64] &= ~(1ull << f % 64); }

/* -1: none */
static int set_first(const struct set *s)
{
    for (int i = 0; i < NFUNCTIONS / 64; i++)
        if (s->bits[i]) return i * 64 + __builtin_ctzll(s->bits[i]);
    return -1;
}

static void say_farewell(struct xrc_calls *c, bool failed)
{
    c->failed = failed || (c->failed && set_first(&c->leave) >= 0);
    for (int i = 0; i < NFUNCTIONS / 64; i++) c->leave.bits[i] |= c->met.bits[i];
    c->met = (struct set){{0}};
    if (set_first(&c->leave) >= 0) want_turn(c);
}

/* ---- life ---------------------------------------------------------------------------------- */

int xrc_calls_new(struct hca_qp *qp)
{
    struct xrc_calls *c = calloc(1, sizeof *c); /* touched as it is used */
    if (!c) return -ENOMEM;
    c->hca = qp->hca;
    c->qp = qp;
    c->xrcd = qp->xrcd;
    list_init(&c->node);
    qp->rc.resp.calls = c;
    return 0;
}

static void drop(struct xrc_calls *c)
{
    c->head = c->sent = c->tail = 0;
    c->gap = false;
    c->epoch++;
}

void xrc_calls_stop(struct hca_qp *qp, bool failed)
{
    struct xrc_calls *c = qp->rc.resp.calls;
    if (!c) return;
    c->qpn = qp->qpn;
    c->srqn = 0;
    drop(c);
    c->fetch = (struct fetch){.epoch = c->fetch.epoch + 1};
    say_farewell(c, failed);
}

static void free_one(struct xrc_calls *c)
{
    list_del(&c->node);
    free(c);
}

void xrc_calls_leave(struct hca_qp *qp)
{
    struct xrc_calls *c = qp->rc.resp.calls;
    if (!c) return;
    xrc_calls_stop(qp, false);
    qp->rc.resp.calls = NULL;
    c->qp = NULL;
    if (list_empty(&c->node)) free_one(c);
}

void xrc_calls_free_all(struct hca *hca)
{
    while (!list_empty(&hca->calling))
        free_one(container_of(hca->calling.next, struct xrc_calls, node));
    while (!list_empty(&hca->calls_full))
        free_one(container_of(hca->calls_full.next, struct xrc_calls, node));
}

/* ---- in their turn ------------------------------------------------------------------------- */

/* Is a request behind `sent` to be called now? */
static bool call_is_due(const struct xrc_calls *c)
{
    if (c->sent == c->tail) return false;
    const struct roce_hdr *h = &c->slot[c->sent % SLOTS].h;
    return is_elsewhere(c->hca, h) && (c->sent == c->head || function_of(h->xrc_srqn) == c->callee);
}

/* The one at the head is refused: the peer sends it again, or nothing any more. */
static void refuse_head(struct xrc_calls *c, uint8_t syndrome)
{
    drop(c);
    rc_resp_refuse(c->qp, syndrome);
}

static void execute_here(struct xrc_calls *c, when_t now)
{
    struct slot *s = at(c, c->head);
    c->sent = ++c->head;
    rc_resp_execute(c->qp, &s->h, s->payload, s->len, now);
    if (c->qp->rc.resp.muted || c->qp->rc.resp.dead) drop(c);
}

/* A message keeps to its SRQ; the callee sees to that where both are its own. */
static bool may_be_called(const struct xrc_calls *c, const struct slot *s)
{
    if (s->len > HCA_MAX_MTU) return false;
    return c->head != c->sent || c->qp->rc.resp.message == RC_NO_MESSAGE ||
           c->srqn == s->h.xrc_srqn;
}

static void when_empty(struct xrc_calls *c)
{
    const struct rc_resp *r = &c->qp->rc.resp;
    bool gap = c->gap;
    c->head = c->sent = c->tail = 0;
    c->gap = false;
    if (gap && !r->muted && !r->dead) rc_resp_refuse(c->qp, AETH_NAK_PSN_SEQUENCE);
}

static void go_on(struct xrc_calls *c, when_t now)
{
    while (waits(c) && c->head == c->sent && !is_elsewhere(c->hca, &at(c, c->head)->h))
        execute_here(c, now);
    if (call_is_due(c)) {
        if (may_be_called(c, at(c, c->sent)))
            want_turn(c);
        else if (c->head == c->sent)
            refuse_head(c, AETH_NAK_INVALID_REQUEST);
    }
    if (!waits(c)) when_empty(c);
}

/* ---- requests in --------------------------------------------------------------------------- */

static uint32_t psns_of(const struct hca_qp *qp, const struct roce_hdr *h)
{
    if (!(roce_opcode(h->opcode)->props & OP_READ_REQ) || h->reth.len == 0) return 1;
    return (uint32_t)(((uint64_t)h->reth.len + qp->mtu - 1) >> __builtin_ctz(qp->mtu));
}

static void keep(struct xrc_calls *c, const struct roce_hdr *h, const uint8_t *payload, size_t len)
{
    struct slot *s = at(c, c->tail++);
    s->h = *h;
    s->len = len;
    if (len <= HCA_MAX_MTU) memcpy(s->payload, payload, len);
    c->next = psn_add(h->psn, psns_of(c->qp, h));
}

bool xrc_calls_input(struct hca_qp *qp, const struct roce_hdr *h, const uint8_t *payload,
                     size_t len, when_t now)
{
    struct xrc_calls *c = qp->rc.resp.calls;
    int32_t beyond_executed = psn_diff(h->psn, qp->rc.resp.epsn);
    if (!waits(c)) {
        if (beyond_executed != 0 || !is_elsewhere(qp->hca, h)) return false;
        keep(c, h, payload, len);
    } else {
        int32_t ahead = psn_diff(h->psn, c->next);
        if (beyond_executed < 0) return false;
        if (ahead < 0) {
            qp->hca->counters.duplicate_request++; /* its answer is on the way */
            return true;
        }
        if (ahead > 0 || c->tail - c->head == SLOTS) {
            c->gap = true;
            return true;
        }
        keep(c, h, payload, len);
    }
    go_on(c, now);
    return true;
}

/* ---- calls out ----------------------------------------------------------------------------- */

static struct hca_call call_of(const struct xrc_calls *c, enum hca_call_kind kind,
                               uint16_t function, uint32_t epoch)
{
    return (struct hca_call){.kind = kind,
                             .xrcd = c->xrcd,
                             .function = function,
                             .qpn = c->qp ? c->qp->qpn : c->qpn,
                             .epoch = epoch};
}

static void make_request(struct xrc_calls *c, struct hca_call *call)
{
    struct slot *s = at(c, c->sent);
    const struct hca_qp *qp = c->qp;
    struct roce_hdr h = s->h;
    h.pad = 0;
    *call = call_of(c, HCA_CALL_REQUEST, function_of(h.xrc_srqn), c->epoch);
    call->src_qpn = qp->attr.dest_qpn;
    call->access = qp->attr.access;
    call->mtu = qp->mtu;
    call->min_rnr_timer = qp->attr.min_rnr_timer;
    call->hdr_len = (uint8_t)roce_encode(call->hdr, &h);
    call->payload = s->payload;
    call->len = (uint32_t)s->len;
}

static void make_read(struct xrc_calls *c, struct hca_call *call)
{
    const struct fetch *f = &c->fetch;
    *call = call_of(c, HCA_CALL_READ, f->function, f->epoch);
    call->va = f->va;
    call->srqn = f->srqn;
    call->rkey = f->rkey;
    call->bytes = f->bytes;
}

static bool make_call(struct xrc_calls *c, struct hca_call *call)
{
    int leave = set_first(&c->leave);
    if (leave >= 0) {
        *call = call_of(c, HCA_CALL_END, (uint16_t)leave, c->epoch);
        call->failed = c->failed;
    } else if (!c->qp)
        return false;
    else if (c->fetch.state == FETCH_DUE)
        make_read(c, call);
    else if (call_is_due(c) && may_be_called(c, at(c, c->sent)))
        make_request(c, call);
    else
        return false;
    return true;
}

bool hca_next_call(struct hca *hca, struct hca_call *call)
{
    while (!list_empty(&hca->calling)) {
        struct xrc_calls *c = container_of(hca->calling.next, struct xrc_calls, node);
        if (make_call(c, call)) return true;
        list_del(&c->node);
        if (!c->qp) free_one(c);
    }
    return false;
}

/* The one that hca_next_call gave. */
static struct xrc_calls *caller(struct hca *hca)
{
    must(!list_empty(&hca->calling));
    return container_of(hca->calling.next, struct xrc_calls, node);
}

void hca_call_sent(struct hca *hca, const struct hca_call *call)
{
    struct xrc_calls *c = caller(hca);
    switch (call->kind) {
    case HCA_CALL_END: set_del(&c->leave, call->function); break;
    case HCA_CALL_READ: c->fetch.state = FETCH_ASKED; break;
    case HCA_CALL_REQUEST:
        c->callee = call->function;
        c->sent++;
        set_add(&c->met, call->function);
        break;
    }
    list_del(&c->node); /* others have their turn */
    list_add_tail(&hca->calling, &c->node);
}

void hca_call_full(struct hca *hca, const struct hca_call *call)
{
    struct xrc_calls *c = caller(hca);
    list_del(&c->node);
    list_add_tail(&hca->calls_full, &c->node);
}

void hca_calls_resume(struct hca *hca)
{
    while (!list_empty(&hca->calls_full)) {
        struct list *node = hca->calls_full.next;
        list_del(node);
        list_add_tail(&hca->calling, node);
    }
}

static void refuse_read(struct xrc_calls *c)
{
    c->fetch.state = FETCH_REFUSED;
    agenda_ready(c->qp);
}

void hca_call_lost(struct hca *hca, const struct hca_call *call, when_t now)
{
    struct xrc_calls *c = caller(hca);
    switch (call->kind) {
    case HCA_CALL_END: set_del(&c->leave, call->function); break;
    case HCA_CALL_READ: refuse_read(c); break;
    case HCA_CALL_REQUEST: refuse_head(c, AETH_NAK_INVALID_REQUEST); break;
    }
}

static void callee_gone(struct xrc_calls *c, uint16_t function)
{
    const struct fetch *f = &c->fetch;
    set_del(&c->leave, function);
    set_del(&c->met, function);
    if (!c->qp) return;
    if (f->function == function && (f->state == FETCH_DUE || f->state == FETCH_ASKED))
        refuse_read(c);
    /* What has its turn only later finds nobody then. */
    if (c->head != c->sent && c->callee == function) refuse_head(c, AETH_NAK_INVALID_REQUEST);
}

static void gone_for_all(struct list *orphans, uint32_t xrcd, uint16_t function)
{
    list_for_each (node, orphans) {
        struct xrc_calls *c = container_of(node, struct xrc_calls, node);
        if (!c->qp && c->xrcd == xrcd) callee_gone(c, function);
    }
}

void hca_function_gone(struct hca *hca, uint32_t xrcd, uint16_t function, when_t now)
{
    list_for_each (node, &hca->qps) {
        struct hca_qp *qp = container_of(node, struct hca_qp, all);
        if (qp->type != HCA_QPT_XRC_RECV || qp->xrcd != xrcd || !qp->rc.resp.calls) continue;
        callee_gone(qp->rc.resp.calls, function);
    }
    gone_for_all(&hca->calling, xrcd, function);
    gone_for_all(&hca->calls_full, xrcd, function);
    xrc_guests_gone(hca, xrcd, function, now);
    cq_fail_overrun(hca, now);
}

/* ---- answers in ---------------------------------------------------------------------------- */

static bool is_refusal(uint8_t syndrome)
{
    return (syndrome & 0xe0) == AETH_RNR_NAK || syndrome == AETH_NAK_PSN_SEQUENCE ||
           syndrome == AETH_NAK_INVALID_REQUEST || syndrome == AETH_NAK_REMOTE_ACCESS ||
           syndrome == AETH_NAK_REMOTE_OPERATION;
}

static void take_refusal(struct xrc_calls *c, const struct hca_answer *a)
{
    struct hca_qp *qp = c->qp;
    bool sane = is_refusal(a->syndrome);
    bool known = a->event == HCA_EVENT_QP_REQ_ERR || a->event == HCA_EVENT_QP_ACCESS_ERR;
    drop(c);
    if (sane && !a->fatal)
        rc_reply_nak(qp, a->syndrome);
    else
        rc_reply_fatal(qp, sane ? a->syndrome : AETH_NAK_REMOTE_OPERATION, qp->rc.resp.epsn,
                       known ? a->event : -1);
}

/* What is left of a READ so long ago that its PSNs come again. */
static void forget_data_from(struct xrc_calls *c, psn_t psn)
{
    struct fetch *f = &c->fetch;
    if ((f->state == FETCH_HERE || f->state == FETCH_REFUSED) && psn_diff(f->psn, psn) >= 0)
        f->state = FETCH_NONE;
}

static void take_verdict(struct xrc_calls *c, uint16_t function, const struct hca_answer *a,
                         when_t now)
{
    struct slot *s = at(c, c->head);
    if (c->head == c->sent || c->callee != function || a->epoch != c->epoch) return;
    if (psn_diff(a->psn, s->h.psn) != 0) return;
    if (a->syndrome != AETH_ACK) {
        take_refusal(c, a);
        return;
    }
    c->head++;
    forget_data_from(c, s->h.psn);
    rc_resp_executed_elsewhere(c->qp, &s->h, a->result, now);
    c->srqn = c->qp->rc.resp.message == RC_NO_MESSAGE ? 0 : s->h.xrc_srqn;
    if (c->qp->rc.resp.dead)
        drop(c);
    else
        go_on(c, now);
}

static void take_data(struct xrc_calls *c, uint16_t function, const struct hca_answer *a)
{
    struct fetch *f = &c->fetch;
    size_t have = 0;
    if (f->state != FETCH_ASKED || f->function != function || a->epoch != f->epoch) return;
    for (uint32_t i = 0; i < a->pieces && i < HCA_CALL_PIECES; i++) {
        if (a->piece[i].iov_len > sizeof c->data - have) break;
        memcpy(c->data + have, a->piece[i].iov_base, a->piece[i].iov_len);
        have += a->piece[i].iov_len;
    }
    f->state = have == f->bytes ? FETCH_HERE : FETCH_REFUSED;
    agenda_ready(c->qp);
}

void hca_answer_input(struct hca *hca, uint32_t xrcd, uint16_t function, const struct hca_answer *a,
                      when_t now)
{
    struct hca_qp *qp = numbers_find(hca, &hca->qpns, a->qpn);
    if (!qp || qp->type != HCA_QPT_XRC_RECV || qp->xrcd != xrcd || !qp->rc.resp.calls) return;
    if (a->kind == HCA_CALL_REQUEST) take_verdict(qp->rc.resp.calls, function, a, now);
    if (a->kind == HCA_CALL_READ) take_data(qp->rc.resp.calls, function, a);
    cq_fail_overrun(hca, now);
}

/* ---- READ data ------------------------------------------------------------------------------ */

static bool is_for(const struct fetch *f, const struct rc_resource *res, psn_t psn)
{
    int32_t ahead = psn_diff(psn, f->psn);
    return f->srqn == res->srqn && f->rkey == res->rkey && ahead >= 0 &&
           (uint32_t)ahead < f->npackets;
}

static void ask(struct xrc_calls *c, const struct rc_resource *res, psn_t psn)
{
    uint32_t mtu = c->qp->mtu, shift = (uint32_t)__builtin_ctz(mtu), n = HCA_CALL_PIECES;
    uint32_t offset = res->cur << shift, left = res->length - offset;
    if (n > res->end - res->cur) n = res->end - res->cur;
    c->fetch = (struct fetch){.state = FETCH_DUE,
                              .function = function_of(res->srqn),
                              .epoch = c->fetch.epoch + 1,
                              .psn = psn,
                              .npackets = n,
                              .bytes = n << shift < left ? n << shift : left,
                              .srqn = res->srqn,
                              .rkey = res->rkey,
                              .va = res->va + offset};
    want_turn(c);
}

enum xrc_data xrc_calls_data(struct hca_qp *qp, const struct rc_resource *res, uint8_t **data)
{
    struct xrc_calls *c = qp->rc.resp.calls;
    struct fetch *f = &c->fetch;
    psn_t psn = psn_add(res->psn, res->cur);
    if (f->state == FETCH_DUE || f->state == FETCH_ASKED) return XRC_DATA_AWAITED;
    if (f->state == FETCH_NONE || !is_for(f, res, psn)) {
        ask(c, res, psn);
        return XRC_DATA_AWAITED;
    }
    bool here = f->state == FETCH_HERE;
    uint32_t ahead = (uint32_t)psn_diff(psn, f->psn);
    *data = c->data + (ahead << __builtin_ctz(qp->mtu));
    if (!here || ahead + 1 == f->npackets) f->state = FETCH_NONE; /* for who asks again: anew */
    return here ? XRC_DATA_HERE : XRC_DATA_REFUSED;
}
