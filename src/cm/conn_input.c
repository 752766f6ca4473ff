/* What a connection's messages do to it: a REQ makes one, the others find theirs by the ids they
 * carry. The states are described in conn.c. */
#include "cm/engine.h"

#include "base/bits.h"

/* A message that comes again while our user is still at it: more time is what its sender needs. */
static void send_mra(struct cm_id *id, enum cm_msg_answered answers)
{
    struct cm_msg m;
    compose_mra(&m, id, answers);
    cm_send_msg(id->cm, &id->route, &m);
}

/* ---- REQ --------------------------------------------------------------------------------- */

void conn_refuse(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route,
                 uint16_t reason)
{
    struct cm_msg m;
    compose_refusal(&m, msg, reason);
    cm_send_msg(cm, route, &m);
    cm->counters.rejects_sent++;
}

static enum cm_verdict duplicate_req(struct cm_id *id, const struct cm_msg *msg)
{
    switch (id->state) {
    case CMS_REQ_RCVD: send_mra(id, CM_ANSWERS_REQ); break;
    case CMS_REJ_SENT:
    case CMS_REP_SENT:
    case CMS_REP_HELD: cm_send_mad(id->cm, &id->route, id->sent, (uint8_t)id->attempts); break;
    case CMS_TIMEWAIT: conn_refuse(id->cm, msg, &id->route, CM_REJ_STALE_CONN); break;
    default: break;
    }
    return CM_DUPLICATE;
}

/* A REQ or REP from a QP that another connection of ours still has at its far end proves that
 * connection dead (IBTA 12.9.8.3.1): it is disconnected. The REQ, rejected now, may come again
 * when that is done. */
static void drop_stale(struct cm_id *old, when_t now)
{
    switch (old->state) {
    case CMS_ESTABLISHED: cm_disconnect(old, now); break;
    case CMS_REP_SENT:
    case CMS_REP_HELD:
    case CMS_REQ_RCVD:
    case CMS_REP_RCVD: {
        struct cm_msg rej = {.attr = CM_REJ};
        rej.rej.reason = CM_REJ_STALE_CONN;
        cm_report(old, CM_EVENT_REJ, &rej);
        cm_id_close(old);
        break;
    }
    default: break; /* is being disconnected */
    }
}

static void keep_req(struct cm_id *id, const struct cm_msg *msg)
{
    const struct cm_req *req = &msg->req;
    id->remote_id = req->local_comm_id;
    id->remote_guid = req->local_ca_guid;
    id->service_id = req->service_id;
    id->tid = id->req_tid = msg->tid;
    id->route.traffic_class = req->primary.traffic_class;
    id->path_mtu = req->path_mtu;
    id->ack_timeout = req->primary.local_ack_timeout;
    id->service = req->transport_service_type;
    id->max_retries = req->max_cm_retries;
    id->response_timeout = req->local_cm_response_timeout;
    id->failover_asked = !gid_is_zero(&req->alternate.local_gid);
    /* What one end may start, the other must answer. */
    id->responder_resources = req->initiator_depth;
    id->initiator_depth = req->responder_resources;
    id->retry_count = req->retry_count;
    id->rnr_retry_count = req->rnr_retry_count;
    id->remote_qpn = req->local_qpn;
    id->sq_psn = req->starting_psn;
    id->rq_psn = psn_of((uint32_t)cm_random(id->cm));
}

static bool service_is_known(const struct cm_req *req)
{
    if (req->transport_service_type == CM_SERVICE_EXT) return req->ext_transport_type == CM_EXT_XRC;
    return req->transport_service_type != CM_SERVICE_RD;
}

enum cm_verdict conn_req_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route, when_t now)
{
    const struct cm_req *req = &msg->req;
    struct cm_id *id =
        cm_find_remote(cm, req->local_comm_id, req->local_ca_guid, route, false, msg->tid);
    if (id) return duplicate_req(id, msg);
    struct cm_id *old = cm_find_remote_qp(cm, req->local_qpn, req->local_ca_guid, &route->remote);
    if (old && req->local_qpn != 0) {
        drop_stale(old, now);
        conn_refuse(cm, msg, route, CM_REJ_STALE_CONN);
        return CM_STALE;
    }
    struct cm_listener *l = cm_find_listener(cm, req->service_id, &route->local);
    if (!l) {
        if (!hold_request(cm, msg, route, now))
            conn_refuse(cm, msg, route, CM_REJ_INVALID_SERVICE_ID);
        return CM_NO_LISTENER;
    }
    if (!service_is_known(req)) {
        conn_refuse(cm, msg, route, CM_REJ_INVALID_TRANSPORT_TYPE);
        return CM_UNKNOWN_ID;
    }
    if (req->path_mtu < 1 || req->path_mtu > 5) {
        conn_refuse(cm, msg, route, CM_REJ_INVALID_MTU);
        return CM_UNKNOWN_ID;
    }
    if (l->waiting >= l->backlog || !(id = cm_id_new(cm, route))) return CM_BUSY;
    cm_waits(id, l);
    keep_req(id, msg);
    cm_id_hash(id);
    cm_id_hash_qp(id);
    cm_msg_encode(id->sent, msg); /* for cm_id_give_back */
    id->state = CMS_REQ_RCVD;
    cm_report(id, CM_EVENT_REQ, msg);
    return CM_OK;
}

/* ---- answers ----------------------------------------------------------------------------- */

static enum cm_verdict mra_input(struct cm_id *id, const struct cm_mra *mra, when_t now)
{
    if (mra->answers == CM_ANSWERS_REQ &&
        (id->state == CMS_REQ_SENT || id->state == CMS_REQ_HELD)) {
        id->state = CMS_REQ_HELD;
        id->remote_id = mra->local_comm_id;
    } else if (mra->answers == CM_ANSWERS_REP &&
               (id->state == CMS_REP_SENT || id->state == CMS_REP_HELD)) {
        id->state = CMS_REP_HELD;
    } else {
        return CM_UNKNOWN_ID;
    }
    id->hold_until = when_add(now, cm_wire_ns(mra->service_timeout));
    cm_set_deadline(id, when_add(now, CM_HELD_RTO_NS));
    return CM_OK;
}

/* The REP names a QP that we have, or had when it first came, at the far end of another connection
 * (`old`). Its sender hears the same at each repetition, since it believes the first REJ. */
static enum cm_verdict stale_rep(struct cm_id *id, const struct cm_msg *rep, struct cm_id *old,
                                 when_t now)
{
    struct cm_msg rej;
    if (old) drop_stale(old, now);
    id->refused_rep = rep->rep.local_comm_id;
    compose_rej_rep(&rej, rep, CM_REJ_STALE_CONN);
    cm_send_msg(id->cm, &id->route, &rej);
    id->cm->counters.rejects_sent++;
    return CM_STALE; /* our REQ, repeated, asks anew */
}

static qpn_t rep_qpn(const struct cm_id *id, const struct cm_rep *rep)
{
    return id->service == CM_SERVICE_EXT ? rep->local_eecn : rep->local_qpn;
}

static enum cm_verdict rep_input(struct cm_id *id, const struct cm_msg *msg, when_t now)
{
    const struct cm_rep *rep = &msg->rep;
    if (id->state == CMS_REP_RCVD || id->state == CMS_ESTABLISHED) {
        if (!id->active || id->remote_id != rep->local_comm_id) return CM_UNKNOWN_ID;
        if (id->state == CMS_REP_RCVD)
            send_mra(id, CM_ANSWERS_REP);
        else
            cm_send_mad(id->cm, &id->route, id->sent, 0); /* the RTU */
        return CM_DUPLICATE;
    }
    if (id->state != CMS_REQ_SENT && id->state != CMS_REQ_HELD) return CM_UNKNOWN_ID;
    qpn_t qpn = rep_qpn(id, rep);
    struct cm_id *old = cm_find_remote_qp(id->cm, qpn, rep->local_ca_guid, &id->route.remote);
    if ((old && qpn != 0) || (id->refused_rep && rep->local_comm_id == id->refused_rep))
        return stale_rep(id, msg, old, now);
    id->remote_id = rep->local_comm_id;
    id->remote_guid = rep->local_ca_guid;
    id->remote_qpn = qpn;
    cm_id_hash_qp(id);
    id->sq_psn = rep->starting_psn;
    /* A REP may not ask for more than the REQ offered (IBTA 12.7.28 and on), but programs answer
     * with what their own device has. */
    if (id->initiator_depth > rep->responder_resources)
        id->initiator_depth = rep->responder_resources;
    if (id->responder_resources > rep->initiator_depth)
        id->responder_resources = rep->initiator_depth;
    id->rnr_retry_count = rep->rnr_retry_count;
    id->state = CMS_REP_RCVD;
    cm_set_deadline(id, NEVER);
    cm_report(id, CM_EVENT_REP, msg);
    return CM_OK;
}

static enum cm_verdict rtu_input(struct cm_id *id)
{
    if (id->active) return CM_UNKNOWN_ID;
    if (id->state == CMS_REP_SENT || id->state == CMS_REP_HELD) {
        conn_go_established(id);
        cm_report(id, CM_EVENT_ESTABLISHED, NULL);
        return CM_OK;
    }
    return id->state == CMS_ESTABLISHED ? CM_DUPLICATE : CM_UNKNOWN_ID;
}

/* The peer has not yet taken down what it rejects us for, or has just begun to: try again. */
static bool retry_stale(struct cm_id *id, const struct cm_rej *rej, when_t now)
{
    if (rej->reason != CM_REJ_STALE_CONN || id->state != CMS_REQ_SENT) return false;
    if (id->stale_retries++ >= CM_STALE_RETRIES) return false;
    cm_set_deadline(id, when_add(now, CM_RTO_FIRST_NS << id->stale_retries));
    return true;
}

static enum cm_verdict rej_input(struct cm_id *id, const struct cm_msg *msg, when_t now)
{
    switch (id->state) {
    case CMS_REQ_SENT:
    case CMS_REQ_HELD:
        if (msg->rej.answers != CM_ANSWERS_REQ) return CM_UNKNOWN_ID;
        if (retry_stale(id, &msg->rej, now)) return CM_OK;
        break;
    case CMS_REP_RCVD: /* to a REQ: late, for the peer has accepted one since */
        if (msg->rej.answers == CM_ANSWERS_REQ) return CM_UNKNOWN_ID;
        break;
    case CMS_REQ_RCVD:
    case CMS_REP_SENT:
    case CMS_REP_HELD: break;
    case CMS_DREQ_SENT: /* it knows of no connection: as good as a DREP */
        cm_report(id, CM_EVENT_DREP, msg);
        conn_timewait(id, now);
        return CM_OK;
    case CMS_UNCLAIMED: hold_forget(id); return CM_OK;
    case CMS_ESTABLISHED: /* our RTU was lost, and the peer has given up */
        if (msg->rej.answers == CM_ANSWERS_REQ) return CM_UNKNOWN_ID; /* a DREQ comes with it */
        id->cm->counters.rejects_received++;
        cm_report(id, CM_EVENT_REJ, msg);
        conn_timewait(id, now);
        return CM_OK;
    default: return CM_UNKNOWN_ID;
    }
    id->cm->counters.rejects_received++;
    cm_report(id, CM_EVENT_REJ, msg);
    cm_id_close(id);
    return CM_OK;
}

static enum cm_verdict dreq_input(struct cm_id *id, const struct cm_msg *msg, when_t now)
{
    if (msg->dreq.remote_qpn != id->local_qpn) return CM_UNKNOWN_ID;
    switch (id->state) {
    case CMS_REQ_SENT: /* accepted and given up at once; both REP and REJ were lost */
    case CMS_REQ_HELD: {
        struct cm_msg m = {.attr = CM_REJ};
        m.rej.reason = CM_REJ_CONSUMER_DEFINED;
        cm_report(id, CM_EVENT_REJ, &m);
        compose_stranger(&m, msg);
        cm_send_msg(id->cm, &id->route, &m);
        cm_id_close(id);
        return CM_OK;
    }
    case CMS_REP_SENT: /* it has the REP, then; its RTU is late or lost */
    case CMS_REP_HELD:
        conn_go_established(id);
        cm_report(id, CM_EVENT_ESTABLISHED, NULL);
        break;
    case CMS_REP_RCVD:
    case CMS_ESTABLISHED: break;
    case CMS_DREQ_SENT: /* both at once */
        id->tid = msg->tid;
        cm_report(id, CM_EVENT_DREP, msg);
        conn_send_drep(id, now);
        return CM_OK;
    case CMS_DREQ_RCVD: return CM_DUPLICATE; /* its answer waits for our user */
    case CMS_TIMEWAIT: {
        struct cm_msg m;
        compose_drep(&m, id);
        m.tid = msg->tid;
        cm_send_msg(id->cm, &id->route, &m);
        return CM_DUPLICATE;
    }
    default: return CM_UNKNOWN_ID;
    }
    id->tid = msg->tid;
    id->state = CMS_DREQ_RCVD;
    cm_set_deadline(id, NEVER);
    cm_report(id, CM_EVENT_DREQ, msg);
    return CM_OK;
}

static enum cm_verdict drep_input(struct cm_id *id, const struct cm_msg *msg, when_t now)
{
    if (id->state == CMS_TIMEWAIT) return CM_DUPLICATE;
    if (id->state != CMS_DREQ_SENT) return CM_UNKNOWN_ID;
    cm_report(id, CM_EVENT_DREP, msg);
    conn_timewait(id, now);
    return CM_OK;
}

/* The id a message is for, or NULL. Once both ends know both ids, both must be right. */
static struct cm_id *addressee(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route)
{
    /* All these messages begin with the sender's id and the receiver's. */
    uint32_t theirs = msg->raw.local_comm_id, ours = msg->raw.remote_comm_id;
    if (msg->attr == CM_REJ && msg->rej.reason == CM_REJ_TIMEOUT && msg->rej.ari_len >= 8) {
        struct cm_id *id = cm_find_remote(cm, theirs, get_be64(msg->rej.ari), route, false, 0);
        if (id) return id;
    }
    struct cm_id *id = cm_find_local(cm, ours, route);
    if (!id || id->sidr || id->state == CMS_CLOSED || id->state == CMS_UNCLAIMED) return NULL;
    if (id->state == CMS_REQ_SENT || id->state == CMS_REQ_HELD) return id;
    return id->remote_id == theirs ? id : NULL;
}

enum cm_verdict conn_input(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route,
                           when_t now)
{
    struct cm_id *id = addressee(cm, msg, route);
    enum cm_verdict v = CM_UNKNOWN_ID;
    if (id) {
        switch (msg->attr) {
        case CM_MRA: v = mra_input(id, &msg->mra, now); break;
        case CM_REJ: v = rej_input(id, msg, now); break;
        case CM_REP: v = rep_input(id, msg, now); break;
        case CM_RTU: v = rtu_input(id); break;
        case CM_DREQ: v = dreq_input(id, msg, now); break;
        case CM_DREP: v = drep_input(id, msg, now); break;
        default: break;
        }
        return v;
    }
    struct cm_msg answer;
    if (compose_stranger(&answer, msg)) cm_send_msg(cm, route, &answer);
    return v;
}
