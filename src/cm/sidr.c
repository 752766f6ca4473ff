/* Service id resolution (IBTA 12.11): one question, one answer, for UD. SIDR_SENT repeats the
 * question by its deadline; the answering side keeps its answer a while (SIDR_DONE) for repeated
 * questions. */
#include "cm/engine.h"

#include <errno.h>

int cm_sidr(struct cm *cm, const struct cm_route *route, uint64_t service_id,
            const void *private_data, size_t len, void *owner, struct cm_id **out, when_t now)
{
    if (len > CM_SIDR_REQ_PRIVATE) return -EINVAL;
    struct cm_id *id = cm_id_new(cm, route);
    if (!id) return -ENOMEM;
    id->owner = owner;
    id->active = id->sidr = true;
    id->service_id = service_id;
    id->tid = cm_random(cm);
    id->state = CMS_SIDR_SENT;
    struct cm_msg m = {.attr = CM_SIDR_REQ, .tid = id->tid};
    m.sidr_req.request_id = id->local_id;
    m.sidr_req.pkey = ROCE_PKEY_DEFAULT;
    m.sidr_req.service_id = service_id;
    if (len) memcpy(m.sidr_req.private_data, private_data, len);
    cm_send_timed(id, &m, now);
    *out = id;
    return 0;
}

int cm_sidr_answer(struct cm_id *id, uint8_t status, qpn_t qpn, uint32_t qkey,
                   const void *private_data, size_t len, when_t now)
{
    if (id->state != CMS_SIDR_RCVD || len > CM_SIDR_REP_PRIVATE) return -EINVAL;
    struct cm_msg m = {.attr = CM_SIDR_REP, .tid = id->tid};
    m.sidr_rep.request_id = id->remote_id;
    m.sidr_rep.status = status;
    m.sidr_rep.qpn = qpn;
    m.sidr_rep.service_id = id->service_id;
    m.sidr_rep.qkey = qkey;
    if (len) memcpy(m.sidr_rep.private_data, private_data, len);
    cm_taken(id);
    cm_msg_encode(id->sent, &m);
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    id->state = CMS_SIDR_DONE;
    cm_set_deadline(id, when_add(now, CM_KEEP_ANSWER_NS));
    return 0;
}

void sidr_refuse(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route)
{
    struct cm_msg m;
    compose_refusal(&m, msg, 0);
    cm_send_msg(cm, route, &m);
}

enum cm_verdict sidr_req_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route, when_t now)
{
    const struct cm_sidr_req *req = &msg->sidr_req;
    struct cm_id *id = cm_find_remote(cm, req->request_id, 0, route, true, msg->tid);
    if (id) {
        if (id->state == CMS_SIDR_DONE) cm_send_mad(cm, &id->route, id->sent, 0);
        return CM_DUPLICATE;
    }
    struct cm_listener *l = cm_find_listener(cm, req->service_id, &route->local);
    if (!l) {
        if (!hold_request(cm, msg, route, now)) sidr_refuse(cm, msg, route);
        return CM_NO_LISTENER;
    }
    if (l->waiting >= l->backlog || !(id = cm_id_new(cm, route))) return CM_BUSY;
    id->sidr = true;
    cm_waits(id, l);
    id->remote_id = req->request_id;
    id->service_id = req->service_id;
    id->tid = id->req_tid = msg->tid;
    id->state = CMS_SIDR_RCVD;
    cm_msg_encode(id->sent, msg); /* for cm_id_give_back */
    cm_id_hash(id);
    cm_report(id, CM_EVENT_SIDR_REQ, msg);
    return CM_OK;
}

enum cm_verdict sidr_rep_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route)
{
    struct cm_id *id = cm_find_local(cm, msg->sidr_rep.request_id, route);
    if (!id || id->state != CMS_SIDR_SENT) return CM_UNKNOWN_ID;
    cm_report(id, CM_EVENT_SIDR_REP, msg);
    cm_id_close(id);
    return CM_OK;
}

void sidr_expire(struct cm_id *id, when_t now)
{
    if (id->state == CMS_SIDR_DONE) {
        cm_id_close(id);
        return;
    }
    if (id->attempts < CM_MAX_RETRIES) {
        cm_resend(id, now);
        return;
    }
    id->cm->counters.timeouts++;
    cm_report(id, CM_EVENT_SIDR_ERROR, NULL);
    cm_id_close(id);
}

void sidr_destroy(struct cm_id *id, when_t now)
{
    switch (id->state) {
    case CMS_SIDR_RCVD: cm_sidr_answer(id, CM_SIDR_REJECTED, 0, 0, NULL, 0, now); return;
    case CMS_SIDR_DONE: return; /* freed when its answer is no longer wanted */
    default: cm_id_close(id); return;
    }
}
