/* Connections (IBTA 12.9). The active side: REQ_SENT, perhaps REQ_HELD by an MRA, REP_RCVD while
 * its user prepares the QP, ESTABLISHED. The passive side: REQ_RCVD while its user decides,
 * REP_SENT (REP_HELD), ESTABLISHED. Then DREQ_SENT or DREQ_RCVD, TIMEWAIT, CLOSED.
 *
 * A side that waits for an answer repeats its last message (id->sent) by id->deadline; a side that
 * gets a message twice repeats the answer it gave. The deadlines' lengths are in engine.h. */
#include "cm/engine.h"

#include <errno.h>

void conn_send_rej(struct cm_id *id, enum cm_msg_answered answers, uint16_t reason,
                   const void *private_data, size_t len)
{
    struct cm_msg m;
    compose_rej(&m, id, answers, reason, private_data, len);
    cm_send_msg(id->cm, &id->route, &m);
    id->cm->counters.rejects_sent++;
}

/* The user's no to a REQ: its one answer, however often the question comes. */
static void refuse(struct cm_id *id, uint16_t reason, const void *private_data, size_t len,
                   when_t now)
{
    struct cm_msg m;
    compose_rej(&m, id, CM_ANSWERS_REQ, reason, private_data, len);
    cm_msg_encode(id->sent, &m);
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    id->cm->counters.rejects_sent++;
    cm_taken(id);
    id->state = CMS_REJ_SENT;
    cm_set_deadline(id, when_add(now, CM_KEEP_ANSWER_NS));
}

/* Late packets of the old connection must not meet a new one on the same QP (IBTA 12.9.8.4); an RC
 * packet lives about as long as its ACK timeout. Bounded, since nothing here lingers for longer. */
void conn_timewait(struct cm_id *id, when_t now)
{
    uint64_t ns = 4096ull << id->ack_timeout;
    id->state = CMS_TIMEWAIT;
    cm_set_deadline(id, when_add(now, ns < CM_TIMEWAIT_MAX_NS ? ns : CM_TIMEWAIT_MAX_NS));
}

static void send_dreq(struct cm_id *id, when_t now)
{
    struct cm_msg m;
    id->tid = cm_random(id->cm);
    compose_dreq(&m, id);
    id->state = CMS_DREQ_SENT;
    cm_send_timed(id, &m, now);
}

void conn_send_drep(struct cm_id *id, when_t now)
{
    struct cm_msg m;
    compose_drep(&m, id);
    cm_msg_encode(id->sent, &m);
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    conn_timewait(id, now);
}

/* ---- the user's calls -------------------------------------------------------------------- */

static int check_offer(const struct cm_offer *o, size_t private_max)
{
    if (o->private_len > private_max || o->qpn > 0xffffff) return -EINVAL;
    return o->retry_count > 7 || o->rnr_retry_count > 7 ? -EINVAL : 0;
}

static void keep_offer(struct cm_id *id, const struct cm_offer *offer)
{
    id->local_qpn = offer->qpn;
    id->local_guid = offer->ca_guid;
    id->responder_resources = offer->responder_resources;
    id->initiator_depth = offer->initiator_depth;
}

int cm_connect(struct cm *cm, const struct cm_connect_param *param, void *owner, struct cm_id **out,
               when_t now)
{
    int err = check_offer(&param->offer, CM_REQ_PRIVATE);
    if (err || param->path_mtu < 1 || param->path_mtu > 5 || param->ack_timeout > 31)
        return -EINVAL;
    struct cm_id *id = cm_id_new(cm, &param->route);
    if (!id) return -ENOMEM;
    id->owner = owner;
    id->active = true;
    id->service_id = param->service_id;
    id->service = param->service;
    id->path_mtu = param->path_mtu;
    id->ack_timeout = param->ack_timeout;
    id->tid = cm_random(cm);
    id->rq_psn = param->offer.psn;
    id->retry_count = param->offer.retry_count;
    id->rnr_retry_count = param->offer.rnr_retry_count;
    keep_offer(id, &param->offer);

    struct cm_msg m;
    compose_req(&m, id, &param->offer);
    id->state = CMS_REQ_SENT;
    cm_send_timed(id, &m, now);
    *out = id;
    return 0;
}

int cm_accept(struct cm_id *id, const struct cm_offer *offer, when_t now)
{
    if (id->state != CMS_REQ_RCVD || check_offer(offer, CM_REP_PRIVATE)) return -EINVAL;
    struct cm_msg m;
    cm_taken(id);
    keep_offer(id, offer);
    compose_rep(&m, id, offer);
    id->state = CMS_REP_SENT;
    cm_send_timed(id, &m, now);
    return 0;
}

void conn_go_established(struct cm_id *id)
{
    id->state = CMS_ESTABLISHED;
    cm_set_deadline(id, NEVER);
    id->cm->counters.connections++;
}

int cm_ready(struct cm_id *id, when_t now)
{
    (void)now;
    if (id->state != CMS_REP_RCVD) return -EINVAL;
    struct cm_msg m;
    compose_rtu(&m, id);
    cm_msg_encode(id->sent, &m);
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    conn_go_established(id);
    return 0;
}

int cm_established(struct cm_id *id, when_t now)
{
    (void)now;
    if (id->state == CMS_ESTABLISHED) return -EISCONN;
    if (id->state != CMS_REP_SENT && id->state != CMS_REP_HELD) return -EINVAL;
    conn_go_established(id);
    cm_report(id, CM_EVENT_ESTABLISHED, NULL);
    return 0;
}

int cm_reject(struct cm_id *id, uint16_t reason, const void *private_data, size_t len, when_t now)
{
    if (len > CM_REJ_PRIVATE) return -EINVAL;
    if (id->state == CMS_REQ_RCVD) {
        refuse(id, reason, private_data, len, now);
    } else if (id->state == CMS_REP_RCVD) {
        conn_send_rej(id, CM_ANSWERS_REP, reason, private_data, len);
        cm_id_close(id);
    } else {
        return -EINVAL;
    }
    return 0;
}

int cm_disconnect(struct cm_id *id, when_t now)
{
    switch (id->state) {
    case CMS_REP_SENT: /* the REP may have arrived, and its RTU be lost */
    case CMS_REP_HELD:
    case CMS_ESTABLISHED: send_dreq(id, now); return 0;
    case CMS_DREQ_RCVD: conn_send_drep(id, now); return 0;
    case CMS_DREQ_SENT:
    case CMS_TIMEWAIT: return 0;
    default: return -EINVAL;
    }
}

/* The user has gone; cm_id_destroy has marked the id an orphan. */
void conn_destroy(struct cm_id *id, when_t now)
{
    switch (id->state) {
    case CMS_REQ_SENT:
    case CMS_REQ_HELD:
        conn_send_rej(id, CM_ANSWERS_REQ, CM_REJ_TIMEOUT, NULL, 0);
        cm_id_close(id);
        return;
    case CMS_REQ_RCVD: refuse(id, CM_REJ_CONSUMER_DEFINED, NULL, 0, now); return;
    case CMS_REP_RCVD:
        conn_send_rej(id, CM_ANSWERS_REP, CM_REJ_CONSUMER_DEFINED, NULL, 0);
        cm_id_close(id);
        return;
    case CMS_REP_SENT:
    case CMS_REP_HELD:
        /* The peer still waits for the REP, or has it already: the REJ is for the one case, the
         * DREQ, which is repeated, for the other. */
        conn_send_rej(id, CM_ANSWERS_REQ, CM_REJ_CONSUMER_DEFINED, NULL, 0);
        send_dreq(id, now);
        return;
    case CMS_ESTABLISHED: send_dreq(id, now); return;
    case CMS_DREQ_RCVD: conn_send_drep(id, now); return;
    case CMS_REJ_SENT:
    case CMS_DREQ_SENT:
    case CMS_TIMEWAIT: return;
    default: cm_id_close(id); return;
    }
}

int cm_qp_params(const struct cm_id *id, struct cm_qp_params *out)
{
    switch (id->state) {
    case CMS_REQ_SENT:
    case CMS_REQ_HELD:
    case CMS_REQ_RCVD:
    case CMS_REP_RCVD:
    case CMS_REP_SENT:
    case CMS_REP_HELD:
    case CMS_ESTABLISHED: break;
    default: return -EINVAL;
    }
    *out = (struct cm_qp_params){
        .route = id->route,
        .hop_limit = CM_HOP_LIMIT,
        .path_mtu = id->path_mtu,
        .dest_qpn = id->remote_qpn,
        .rq_psn = id->rq_psn,
        .sq_psn = id->sq_psn,
        .max_rd_atomic = id->initiator_depth,
        .max_dest_rd_atomic = id->responder_resources,
        .ack_timeout = id->ack_timeout,
        .retry_count = id->retry_count,
        .rnr_retry_count = id->rnr_retry_count,
        .remote_known = id->state != CMS_REQ_SENT && id->state != CMS_REQ_HELD,
    };
    return 0;
}

/* ---- deadlines --------------------------------------------------------------------------- */

static bool may_repeat(const struct cm_id *id, when_t now)
{
    bool held = id->state == CMS_REQ_HELD || id->state == CMS_REP_HELD;
    if (held && when_before(now, id->hold_until)) return true;
    uint8_t most = id->max_retries;
    if (id->orphan && most > CM_ORPHAN_RETRIES) most = CM_ORPHAN_RETRIES;
    return id->attempts < most;
}

static void give_up(struct cm_id *id, when_t now)
{
    id->cm->counters.timeouts++;
    switch (id->state) {
    case CMS_REQ_SENT:
    case CMS_REQ_HELD:
        cm_report(id, CM_EVENT_REQ_ERROR, NULL);
        conn_send_rej(id, CM_ANSWERS_REQ, CM_REJ_TIMEOUT, NULL, 0);
        cm_id_close(id);
        return;
    case CMS_REP_SENT:
    case CMS_REP_HELD:
        cm_report(id, CM_EVENT_REP_ERROR, NULL);
        conn_send_rej(id, CM_ANSWERS_REP, CM_REJ_TIMEOUT, NULL, 0);
        cm_id_close(id);
        return;
    default:
        cm_report(id, CM_EVENT_DREQ_ERROR, NULL);
        conn_timewait(id, now);
        return;
    }
}

void conn_expire(struct cm_id *id, when_t now)
{
    if (id->state == CMS_TIMEWAIT) cm_report(id, CM_EVENT_TIMEWAIT_EXIT, NULL);
    if (id->state == CMS_TIMEWAIT || id->state == CMS_REJ_SENT) {
        cm_id_close(id);
        return;
    }
    if (!may_repeat(id, now)) {
        give_up(id, now);
        return;
    }
    cm_resend(id, now);
    if (id->state == CMS_REQ_HELD || id->state == CMS_REP_HELD)
        cm_set_deadline(id, when_add(now, CM_HELD_RTO_NS));
}
