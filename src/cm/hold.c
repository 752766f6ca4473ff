/* Requests for a service that nobody listens to yet. A server that ends one listener and begins the
 * next (perftest does, between its control and its data connections) has a moment without any; a
 * client that comes just then, on a software adapter's short ways, would be refused for being
 * quick. So a request waits CM_GRACE_NS for a listener to claim it before it is refused. */
#include "cm/engine.h"

#include "base/must.h"

static void decode(const struct cm_id *id, struct cm_msg *msg)
{
    bool ok = cm_msg_decode(msg, id->sent, sizeof id->sent);
    must(ok);
}

bool hold_request(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route, when_t now)
{
    if (cm->nheld == CM_MAX_HELD) return false;
    struct cm_id *id = cm_id_new(cm, route);
    if (!id) return false;
    id->sidr = msg->attr == CM_SIDR_REQ;
    id->remote_id = id->sidr ? msg->sidr_req.request_id : msg->req.local_comm_id;
    id->remote_guid = id->sidr ? 0 : msg->req.local_ca_guid;
    id->service_id = id->sidr ? msg->sidr_req.service_id : msg->req.service_id;
    id->req_tid = msg->tid;
    cm_msg_encode(id->sent, msg);
    cm_id_hash(id);
    id->state = CMS_UNCLAIMED;
    id->orphan = true;
    cm->nheld++;
    list_add_tail(&cm->unclaimed, &id->waiting);
    cm_set_deadline(id, when_add(now, CM_GRACE_NS));
    return true;
}

static void release(struct cm_id *id, struct cm_msg *msg, struct cm_route *route)
{
    decode(id, msg);
    *route = id->route;
    id->cm->nheld--;
    list_del(&id->waiting);
    cm_id_free(id);
}

static void again(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route, when_t now)
{
    if (msg->attr == CM_SIDR_REQ)
        sidr_req_input(cm, msg, route, now);
    else
        conn_req_input(cm, msg, route, now);
}

void cm_id_give_back(struct cm_id *id, when_t now)
{
    if (id->state != CMS_REQ_RCVD && id->state != CMS_SIDR_RCVD) {
        cm_id_destroy(id, now);
        return;
    }
    struct cm *cm = id->cm;
    struct cm_msg msg;
    struct cm_route route = id->route;
    decode(id, &msg);
    cm_id_free(id);
    again(cm, &msg, &route, now);
}

void hold_claim(struct cm *cm, when_t now)
{
    list_for_each_safe (pos, tmp, &cm->unclaimed) {
        struct cm_id *id = container_of(pos, struct cm_id, waiting);
        struct cm_msg msg;
        struct cm_route route;
        if (!cm_find_listener(cm, id->service_id, &id->route.local)) continue;
        release(id, &msg, &route);
        again(cm, &msg, &route, now);
    }
}

void hold_forget(struct cm_id *id)
{
    struct cm_msg msg;
    struct cm_route route;
    release(id, &msg, &route);
}

/* The refusal is kept for a while: were the request that is under way once more held anew, a later
 * listener would get what its sender has long given up. */
void hold_expire(struct cm_id *id, when_t now)
{
    struct cm_msg request, refusal;
    decode(id, &request);
    compose_refusal(&refusal, &request, CM_REJ_INVALID_SERVICE_ID);
    if (!id->sidr) id->cm->counters.rejects_sent++;
    id->cm->nheld--;
    list_del(&id->waiting);
    cm_msg_encode(id->sent, &refusal);
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    id->state = id->sidr ? CMS_SIDR_DONE : CMS_REJ_SENT;
    cm_set_deadline(id, when_add(now, CM_KEEP_REFUSAL_NS));
}
