/* The RC service of one QP: joins requester, responder, timers and window to the calls of qp.c and
 * hca.c, and keeps the QP's deadline and turns. See rc.h for who does what. */
#include "hca/qp.h"
#include "hca/xrc_calls.h"
#include "wire/ip.h"
#include "wire/opcode.h"
#include <errno.h>
#include <stdlib.h>

#define CNP_INTERVAL_NS (50 * US_NS) /* between two to one peer: a window is cut once for both */

/* The agenda is brought forward at once, but put off only when it strikes: acknowledgements come by
 * the million, and each moves the deadline a little. */
static void keep_deadline(struct hca_qp *qp)
{
    when_t deadline = rc_timer_deadline(&qp->rc.timer);
    if (when_before(deadline, qp->alarm.when)) agenda_deadline(qp, deadline);
}

/* Unless they run: something is awaited, or held for want of a member. */
static void start_clocks(struct hca_qp *qp, when_t now)
{
    if (qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD) return;
    rc_timer_await(&qp->rc.timer, rc_req_waits(qp), now);
    keep_deadline(qp);
}

/* ---- life -------------------------------------------------------------------------------- */

int rc_init(struct hca_qp *qp)
{
    struct rc *rc = &qp->rc;
    if (!rc->resp.ring) rc->resp.ring = calloc(RC_RESOURCES, sizeof *rc->resp.ring);
    if (!rc->resp.ring) return -ENOMEM;
    rc_reset(qp);
    return 0;
}

void rc_fini(struct hca_qp *qp)
{
    window_stop(qp->hca, &qp->rc.window);
    xrc_calls_leave(qp);
    free(qp->rc.resp.ring);
    qp->rc.resp.ring = NULL;
}

void rc_reset(struct hca_qp *qp)
{
    window_stop(qp->hca, &qp->rc.window);
    rc_req_start(&qp->rc.req, psn_of(0));
    xrc_calls_stop(qp, false);
    rc_resp_start(&qp->rc.resp, psn_of(0));
    qp->rc.ecn = (struct rc_ecn){0};
    rc_timer_start(&qp->rc.timer);
    rc_doubt_over(&qp->rc.doubt);
    agenda_deadline(qp, NEVER);
}

void rc_to_rtr(struct hca_qp *qp) { rc_resp_start(&qp->rc.resp, qp->attr.rq_psn); }

void rc_to_rts(struct hca_qp *qp)
{
    rc_req_start(&qp->rc.req, qp->attr.sq_psn);
    /* WQEs are refused before RTS: the ring's indices need not be 0, but it is empty. */
    qp->rc.req.send_index = qp->sq.next;
    rc_timer_start(&qp->rc.timer);
    rc_doubt_over(&qp->rc.doubt);
    rc_attr_changed(qp);
    window_start(qp->hca, &qp->rc.window, qp->mtu);
}

void rc_to_err(struct hca_qp *qp, when_t now)
{
    rc_resp_stop(qp, now);
    rc_timer_start(&qp->rc.timer);
    window_stop(qp->hca, &qp->rc.window);
    agenda_deadline(qp, NEVER);
}

void rc_attr_changed(struct hca_qp *qp)
{
    const struct hca_qp_attr *a = &qp->attr;
    rc_timer_conf(&qp->rc.timer, a->timeout, a->retry_cnt, a->rnr_retry);
}

bool rc_sq_idle(const struct hca_qp *qp) { return qp->sq.head == qp->sq.next; }

/* ---- events ------------------------------------------------------------------------------ */

void rc_posted(struct hca_qp *qp, when_t now)
{
    if (qp->state != HCA_QPS_RTS) return;
    if (qp->member == STEER_NO_MEMBER)
        start_clocks(qp, now);
    else
        agenda_ready(qp);
}

void rc_input(struct hca_qp *qp, const struct hca_rx *rx, const struct roce_hdr *h,
              const uint8_t *payload, size_t len, when_t now)
{
    enum hca_qp_state s = qp->state;
    bool sends = s == HCA_QPS_RTS || s == HCA_QPS_SQD;
    detour_heard(qp, rx->member);
    if (roce_opcode(h->opcode)->props & OP_RESPONSE) {
        if (sends) {
            rc_comp_input(qp, h, payload, len, now);
            keep_deadline(qp);
        } else {
            qp->hca->counters.rx_bad_state++;
        }
    } else if (qp->type == HCA_QPT_XRC_SEND) {
        qp->hca->counters.rx_dropped++; /* it answers nobody */
    } else if (sends || s == HCA_QPS_RTR) {
        if (s == HCA_QPS_RTR && !qp->comm_established) qp_comm_established(qp);
        rc_resp_input(qp, rx->member, h, payload, len, now);
    } else {
        qp->hca->counters.rx_bad_state++;
    }
}

void rc_cnp(struct hca_qp *qp, when_t now)
{
    if (qp->state != HCA_QPS_RTS && qp->state != HCA_QPS_SQD) return;
    window_cut(&qp->rc.window, qp->rc.req.una, qp->rc.req.top);
}

void rc_ecn(struct hca_qp *qp, uint8_t traffic_class, when_t now)
{
    struct rc_ecn *e = &qp->rc.ecn;
    if ((traffic_class & ECN_MASK) != ECN_CE) return;
    qp->hca->counters.ecn_marked++;
    if (when_before(now, e->quiet_until)) return;
    e->quiet_until = when_add(now, CNP_INTERVAL_NS);
    e->cnp_due = true;
    agenda_ready(qp);
}

static void emit_cnp(struct hca_qp *qp, struct hca_tx *tx)
{
    struct roce_hdr h = {.opcode = ROCE_CNP_OPCODE, .becn = true};
    tx->niov = 0;
    tx->payload_len = 0;
    qp_emit(qp, tx, &h);
    qp->rc.ecn.cnp_due = false;
    qp->hca->counters.cnp_sent++;
}

static size_t requests_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    size_t room = qp_rate_room(qp, max, now);
    size_t n = room ? rc_req_output(qp, out, room, now) : 0;
    qp_rate_sent(qp, out, n, n == room && room < max, now);
    return n;
}

size_t rc_output(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    detour_end_if_due(qp, now);
    if (qp->member == STEER_NO_MEMBER) {
        window_turn_over(qp->hca, &qp->rc.window);
        start_clocks(qp, now); /* SQD may have been left just now */
        return 0;
    }
    size_t n = 0;
    if (qp->rc.ecn.cnp_due && qp->state >= HCA_QPS_RTR && qp->state <= HCA_QPS_SQD)
        emit_cnp(qp, &out[n++]);
    /* Half of a burst for each role while both have packets: neither starves the other. */
    n += rc_reply_output(qp, out + n, max - n > 1 ? (max - n) / 2 : max - n, now);
    /* The ACK goes last: who polls for it then finds what came before it there already. Its place
     * is kept, or requests without end would keep it back. */
    size_t room = max - n - (qp->rc.resp.ack_due && n < max);
    size_t requests = requests_output(qp, out + n, room, now);
    bool over = requests < room;
    n += requests;
    if (n < max) n += rc_reply_output(qp, out + n, max - n, now);
    if (n < max) n += rc_reply_ack_output(qp, out + n);
    if (n < max && !over) { /* the place was not needed: the ACK is held */
        size_t more = requests_output(qp, out + n, max - n, now);
        over = more < max - n;
        requests += more;
        n += more;
    }
    if (over) window_turn_over(qp->hca, &qp->rc.window);
    /* The burst may have ended in a local fault: a failed QP waits for nothing. */
    if (requests) start_clocks(qp, now);
    return n;
}

/* The oldest packet alone, until an answer tells what became of the rest. */
static void ask(struct hca_qp *qp, when_t now)
{
    struct rc *rc = &qp->rc;
    if (rc_timer_is_silent(&rc->timer, now)) {
        detour_start(qp, now);
        rc_timer_detoured(&rc->timer, now);
    }
    rc_doubt_struck(&rc->doubt, now);
    window_probe(&rc->window);
    rc->req.gap_handled = false;
    rc_req_rewind(qp);
    agenda_ready(qp);
}

void rc_expire(struct hca_qp *qp, when_t now)
{
    struct rc *rc = &qp->rc;
    switch (rc_timer_expire(&rc->timer, now)) {
    case RC_TIMER_IDLE: break;
    case RC_TIMER_PROBE: ask(qp, now); break;
    case RC_TIMER_RETRY:
        qp->hca->counters.timeouts++;
        ask(qp, now);
        break;
    case RC_TIMER_EXHAUSTED:
        qp->hca->counters.local_ack_timeout_err++;
        rc_req_fail(qp, HCA_WC_RETRY_EXC_ERR, now);
        return;
    case RC_TIMER_RNR_OVER: agenda_ready(qp); break;
    }
    if (!rc_timer_in_rnr(&rc->timer)) rc_timer_await(&rc->timer, rc_req_waits(qp), now);
    agenda_deadline(qp, rc_timer_deadline(&rc->timer));
    if (qp->limit.bytes_per_sec) agenda_ready(qp); /* perhaps it was what struck */
}

bool rc_port_moved(struct hca_qp *qp, when_t now)
{
    struct rc *rc = &qp->rc;
    bool sends = qp->state == HCA_QPS_RTS || qp->state == HCA_QPS_SQD;
    /* The last ACK may have died with the old port: a peer whose own port lives would not ask for
     * it again before its probe. */
    if (sends || qp->state == HCA_QPS_RTR) rc_reply_ack(qp);
    if (!sends) return false;
    bool unacked = psn_diff(rc->req.top, rc->req.una) > 0;
    if (unacked) {
        rc->req.gap_handled = false;
        rc_req_rewind(qp);
        rc_doubt_over(&rc->doubt);
        window_moved(qp->hca, &rc->window);
    }
    rc_timer_moved(&rc->timer, rc_req_waits(qp), now);
    keep_deadline(qp);
    agenda_ready(qp);
    return unacked;
}
