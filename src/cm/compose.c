/* What an id's messages say: the fields of REQ, REP, MRA, REJ, RTU, DREQ and DREP from the id's
 * state, filled as Linux fills them for RoCE where IBTA leaves a choice. */
#include "cm/engine.h"

#include "base/bits.h"
#include "base/must.h"

static void put_private(uint8_t *room, size_t cap, const void *data, size_t len)
{
    must(len <= cap);
    if (len) memcpy(room, data, len);
}

static void begin(struct cm_msg *m, const struct cm_id *id, enum cm_attr attr)
{
    memset(m, 0, sizeof *m);
    m->attr = attr;
    m->tid = id->tid;
}

void compose_req(struct cm_msg *m, const struct cm_id *id, const struct cm_offer *offer)
{
    begin(m, id, CM_REQ);
    m->req = (struct cm_req){
        .local_comm_id = id->local_id,
        .service_id = id->service_id,
        .local_ca_guid = id->local_guid,
        .local_qkey = offer->qkey,
        .local_qpn = id->local_qpn,
        .responder_resources = id->responder_resources,
        .initiator_depth = id->initiator_depth,
        .remote_cm_response_timeout = CM_RESPONSE_TIMEOUT,
        .local_cm_response_timeout = CM_RESPONSE_TIMEOUT,
        .transport_service_type = id->service,
        .ext_transport_type = id->service == CM_SERVICE_EXT ? CM_EXT_XRC : 0,
        .flow_control = offer->flow_control,
        .starting_psn = id->rq_psn,
        .retry_count = id->retry_count,
        .rnr_retry_count = id->rnr_retry_count,
        .pkey = ROCE_PKEY_DEFAULT,
        .path_mtu = id->path_mtu,
        .max_cm_retries = CM_MAX_RETRIES,
        .srq = offer->srq,
        .ece = offer->ece,
        .primary = {.local_lid = 0xffff, /* permissive: there are no LIDs on Ethernet */
                    .remote_lid = 0xffff,
                    .local_gid = id->route.local,
                    .remote_gid = id->route.remote,
                    .traffic_class = id->route.traffic_class,
                    .hop_limit = CM_HOP_LIMIT,
                    .local_ack_timeout = id->ack_timeout},
    };
    put_private(m->req.private_data, CM_REQ_PRIVATE, offer->private_data, offer->private_len);
}

void compose_rep(struct cm_msg *m, const struct cm_id *id, const struct cm_offer *offer)
{
    bool xrc = id->service == CM_SERVICE_EXT;
    begin(m, id, CM_REP);
    m->rep = (struct cm_rep){
        .local_comm_id = id->local_id,
        .remote_comm_id = id->remote_id,
        .local_qkey = offer->qkey,
        .local_qpn = xrc ? 0 : id->local_qpn,
        .local_eecn = xrc ? id->local_qpn : 0,
        .starting_psn = id->rq_psn,
        .responder_resources = offer->responder_resources,
        .initiator_depth = offer->initiator_depth,
        .target_ack_delay = CM_TARGET_ACK_DELAY,
        .failover_accepted = id->failover_asked ? CM_FAILOVER_NOT_SUPPORTED : 0,
        .flow_control = offer->flow_control,
        .rnr_retry_count = offer->rnr_retry_count,
        .srq = offer->srq || xrc, /* a target takes its receives from SRQs alone */
        .ece = offer->ece,
        .local_ca_guid = id->local_guid,
    };
    put_private(m->rep.private_data, CM_REP_PRIVATE, offer->private_data, offer->private_len);
}

void compose_mra(struct cm_msg *m, const struct cm_id *id, enum cm_msg_answered answers)
{
    begin(m, id, CM_MRA);
    m->mra.local_comm_id = id->local_id;
    m->mra.remote_comm_id = id->remote_id;
    m->mra.answers = (uint8_t)answers;
    m->mra.service_timeout = CM_MRA_TIMEOUT;
}

void compose_rej(struct cm_msg *m, const struct cm_id *id, enum cm_msg_answered answers,
                 uint16_t reason, const void *private_data, size_t len)
{
    begin(m, id, CM_REJ);
    m->rej.local_comm_id = id->local_id;
    m->rej.remote_comm_id = id->remote_id;
    m->rej.answers = (uint8_t)answers;
    m->rej.reason = reason;
    if (reason == CM_REJ_TIMEOUT) { /* it has not told us its id: it finds ours by our CA's GUID */
        m->rej.ari_len = 8;
        put_be64(m->rej.ari, id->local_guid);
    }
    put_private(m->rej.private_data, CM_REJ_PRIVATE, private_data, len);
}

void compose_refusal(struct cm_msg *m, const struct cm_msg *request, uint16_t reason)
{
    memset(m, 0, sizeof *m);
    m->tid = request->tid;
    if (request->attr == CM_SIDR_REQ) {
        m->attr = CM_SIDR_REP;
        m->sidr_rep.request_id = request->sidr_req.request_id;
        m->sidr_rep.status = CM_SIDR_UNSUPPORTED_SERVICE;
        m->sidr_rep.service_id = request->sidr_req.service_id;
        return;
    }
    m->attr = CM_REJ;
    m->rej.remote_comm_id = request->req.local_comm_id;
    m->rej.answers = CM_ANSWERS_REQ;
    m->rej.reason = reason;
}

void compose_rtu(struct cm_msg *m, const struct cm_id *id)
{
    begin(m, id, CM_RTU);
    m->rtu.local_comm_id = id->local_id;
    m->rtu.remote_comm_id = id->remote_id;
}

void compose_dreq(struct cm_msg *m, const struct cm_id *id)
{
    begin(m, id, CM_DREQ);
    m->dreq.local_comm_id = id->local_id;
    m->dreq.remote_comm_id = id->remote_id;
    m->dreq.remote_qpn = id->remote_qpn;
}

void compose_drep(struct cm_msg *m, const struct cm_id *id)
{
    begin(m, id, CM_DREP);
    m->drep.local_comm_id = id->local_id;
    m->drep.remote_comm_id = id->remote_id;
}

void compose_rej_rep(struct cm_msg *m, const struct cm_msg *rep, uint16_t reason)
{
    memset(m, 0, sizeof *m);
    m->attr = CM_REJ;
    m->tid = rep->tid;
    m->rej.local_comm_id = rep->rep.remote_comm_id;
    m->rej.remote_comm_id = rep->rep.local_comm_id;
    m->rej.answers = CM_ANSWERS_REP;
    m->rej.reason = reason;
}

/* A DREQ always gets its DREP, that the peer may rest (IBTA 12.9.8.3). A REP that nobody waits for
 * gets a REJ, or its sender would repeat it until it gives up. */
bool compose_stranger(struct cm_msg *m, const struct cm_msg *msg)
{
    memset(m, 0, sizeof *m);
    m->tid = msg->tid;
    if (msg->attr == CM_DREQ) {
        m->attr = CM_DREP;
        m->drep.local_comm_id = msg->dreq.remote_comm_id;
        m->drep.remote_comm_id = msg->dreq.local_comm_id;
        return true;
    }
    if (msg->attr == CM_REP) {
        compose_rej_rep(m, msg, CM_REJ_INVALID_COMM_ID);
        return true;
    }
    return false;
}
