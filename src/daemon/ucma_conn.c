/* Connections of ids: from ucma commands to cm/ and from its events back to the program's. Private
 * data of a REQ or SIDR_REQ is led by the RDMA-CM header (IBTA annex A11), which names the two
 * socket addresses. */
#include "daemon/ucma.h"

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

#define REQ_USER_LEN (CM_REQ_PRIVATE - RDMA_CM_HDR_LEN)
#define SIDR_USER_LEN (CM_SIDR_REQ_PRIVATE - RDMA_CM_HDR_LEN)

static bool is_ud(const struct ucma_id *id) { return id->qp_type == IBV_QPT_UD; }

bool ucma_qp_type_is_known(uint8_t qp_type)
{
    return qp_type == IBV_QPT_RC || qp_type == IBV_QPT_UC || qp_type == IBV_QPT_UD ||
           qp_type == IBV_QPT_XRC_SEND || qp_type == IBV_QPT_XRC_RECV;
}

/* An XRC initiator asks a target, or a target is asked; both are one service. */
static enum cm_service service_type(const struct ucma_id *id)
{
    switch (id->qp_type) {
    case IBV_QPT_UC: return CM_SERVICE_UC;
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV: return CM_SERVICE_EXT;
    default: return CM_SERVICE_RC;
    }
}

static uint64_t service_of(const struct ucma_id *id, const struct sockaddr_in6 *addr)
{
    return (uint64_t)id->ps << 16 | ucma_addr_port(addr);
}

static size_t put_header(const struct ucma_id *id, uint8_t *room,
                         const struct rdma_ucm_conn_param *param)
{
    struct rdma_cm_hdr h = {.port = ucma_addr_port(&id->src),
                            .src = ucma_addr_gid(&id->src),
                            .dst = ucma_addr_gid(&id->dst)};
    rdma_cm_hdr_encode(room, &h);
    memcpy(room + RDMA_CM_HDR_LEN, param->private_data, param->private_data_len);
    return RDMA_CM_HDR_LEN + param->private_data_len;
}

static uint8_t three_bits(uint8_t v) { return v < 7 ? v : 7; }

static struct cm_offer offer_of(const struct ucma_id *id, const struct rdma_ucm_conn_param *param,
                                const struct rdma_ucm_ece *ece)
{
    return (struct cm_offer){
        .qpn = param->qp_num & 0xffffff,
        .psn = psn_of((uint32_t)broker_random(id->broker)),
        .responder_resources = param->responder_resources,
        .initiator_depth = param->initiator_depth,
        .retry_count = three_bits(param->retry_count),
        .rnr_retry_count = three_bits(param->rnr_retry_count),
        .flow_control = param->flow_control,
        .srq = param->srq,
        .ca_guid = id->guid,
        .ece = {ece->vendor_id & 0xffffff, ece->attr_mod},
        .private_data = param->private_data,
        .private_len = param->private_data_len,
    };
}

/* ---- commands
 * -------------------------------------------------------------------------------------- */

int ucma_connect(struct ucma_id *id, const struct rdma_ucm_conn_param *param,
                 const struct rdma_ucm_ece *ece)
{
    if (id->state != UCMA_ROUTE_RESOLVED || id->cm) return -EINVAL;
    if (id->qp_type == IBV_QPT_XRC_RECV) return -EINVAL; /* it can only be asked */
    if (id->removed) return -ENODEV;
    if (param->private_data_len > (is_ud(id) ? SIDR_USER_LEN : REQ_USER_LEN)) return -EINVAL;
    struct cmbroker *b = id->broker;
    uint8_t room[CM_SIDR_REQ_PRIVATE];
    size_t len = put_header(id, room, param);
    int err;
    if (is_ud(id)) {
        err = cm_sidr(b->cm, &id->route, service_of(id, &id->dst), room, len, id, &id->cm,
                      broker_now());
    } else {
        struct cm_connect_param p = {
            .route = id->route,
            .service_id = service_of(id, &id->dst),
            .service = service_type(id),
            .path_mtu = id->path_mtu,
            .ack_timeout = id->ack_timeout ? id->ack_timeout : UCMA_PACKET_LIFETIME + 1,
            .offer = offer_of(id, param, ece),
        };
        p.offer.private_data = room;
        p.offer.private_len = len;
        err = cm_connect(b->cm, &p, id, &id->cm, broker_now());
    }
    if (err) return err;
    id->qpn = param->qp_num & 0xffffff;
    id->state = UCMA_CONNECTING;
    return 0;
}

int ucma_listen(struct ucma_id *id, uint32_t backlog)
{
    if (id->state == UCMA_IDLE) {
        struct sockaddr_in any = {.sin_family = AF_INET};
        int err = ucma_bind(id, (struct sockaddr *)&any, sizeof any);
        if (err) return err;
    }
    if (id->state != UCMA_BOUND) return -EINVAL;
    int claimed = ucma_claim_port(id);
    if (claimed) return claimed;
    if (backlog == 0 || backlog > UCMA_MAX_BACKLOG) backlog = UCMA_MAX_BACKLOG;
    enum cm_scope scope = CM_SCOPE_ADDRESS;
    if (!id->guid) {
        bool four = id->src.sin6_family == AF_INET;
        scope = four ? CM_SCOPE_IPV4 : id->afonly ? CM_SCOPE_IPV6 : CM_SCOPE_ANY;
    }
    struct gid local = ucma_addr_gid(&id->src);
    int err = cm_listen(id->broker->cm, service_of(id, &id->src), scope, &local, backlog, id,
                        &id->listener, broker_now());
    if (!err) id->state = UCMA_LISTENING;
    return err;
}

int ucma_accept(struct ucma_id *id, const struct rdma_ucm_conn_param *param,
                const struct rdma_ucm_ece *ece)
{
    if (id->state != UCMA_CONNECTING || !id->cm) return -EINVAL;
    if (id->removed) return -ENODEV;
    if (!param) return cm_ready(id->cm, broker_now());
    id->qpn = param->qp_num & 0xffffff;
    if (is_ud(id)) {
        id->qkey = param->qkey ? param->qkey : id->qkey;
        return cm_sidr_answer(id->cm, CM_SIDR_OK, param->qp_num & 0xffffff, id->qkey,
                              param->private_data, param->private_data_len, broker_now());
    }
    if (param->private_data_len > CM_REP_PRIVATE) return -EINVAL;
    struct cm_offer offer = offer_of(id, param, ece);
    return cm_accept(id->cm, &offer, broker_now());
}

int ucma_reject(struct ucma_id *id, uint8_t reason, const void *data, size_t len)
{
    if (!id->cm) return -EINVAL;
    if (reason == 0) reason = CM_REJ_CONSUMER_DEFINED;
    if (is_ud(id)) return cm_sidr_answer(id->cm, CM_SIDR_REJECTED, 0, 0, data, len, broker_now());
    return cm_reject(id->cm, reason, data, len, broker_now());
}

int ucma_disconnect(struct ucma_id *id)
{
    if (!id->cm || is_ud(id)) return -EINVAL;
    (void)!cm_disconnect(id->cm,
                         broker_now()); /* where that comes too late, it is done: as Linux */
    return 0;
}

int ucma_notify(struct ucma_id *id, uint32_t event)
{
    if (!id->cm || event != IBV_EVENT_COMM_EST) return -EINVAL;
    return cm_established(id->cm, broker_now());
}

/* ---- what cm/ reports
 * ------------------------------------------------------------------------------ */

static void put_private(struct rdma_ucm_conn_param *c, const uint8_t *data, size_t len)
{
    memcpy(c->private_data, data, len);
    c->private_data_len = (uint8_t)len;
}

/* Makes an id of a request; NULL: refused or dropped. */
static struct ucma_id *request_id(struct ucma_id *listener, const struct cm_event *e,
                                  const uint8_t *private_data, size_t len)
{
    struct rdma_cm_hdr h;
    struct cmbroker_device dev;
    uint8_t index;
    struct cmbroker *b = listener->broker;
    if (!rdma_cm_hdr_decode(&h, private_data, len) ||
        !broker_device_by_gid(b, &e->route.local, 0, &dev, &index)) {
        cm_id_destroy(e->id, broker_now());
        return NULL;
    }
    struct ucma_id *id;
    if (ucma_id_new(listener->channel, &id)) {
        cm_id_drop(e->id);
        return NULL;
    }
    id->ps = listener->ps;
    id->qp_type = listener->qp_type;
    id->tos = listener->tos;
    id->ack_timeout = listener->ack_timeout;
    id->state = UCMA_CONNECTING;
    id->guid = dev.guid;
    id->sgid_index = index;
    id->route = e->route;
    id->path_mtu = broker_path_mtu(dev.state->mtu);
    id->cm = e->id;
    ucma_addr_set(&id->src, &h.dst, ucma_addr_port(&listener->src));
    ucma_addr_set(&id->dst, &h.src, h.port);
    cm_id_set_owner(e->id, id);
    return id;
}

/* The event is the listener's until the program fetches it; the new id has no uid before ACCEPT. */
static struct rdma_ucm_event_resp *report_request(struct ucma_id *listener, struct ucma_id *id)
{
    struct ucma_event *u = ucma_report(listener, UCMA_EV_CONNECT_REQUEST, 0);
    u->request = id;
    u->resp.id = id->handle;
    return &u->resp;
}

static void on_req(const struct cm_event *e)
{
    struct ucma_id *listener = e->owner;
    const struct cm_req *req = &e->msg.req;
    struct ucma_id *id = request_id(listener, e, req->private_data, sizeof req->private_data);
    if (!id) return;
    if (req->transport_service_type != service_type(id)) {
        cm_reject(id->cm, CM_REJ_INVALID_TRANSPORT_TYPE, NULL, 0, broker_now());
        ucma_id_free(id);
        return;
    }
    if (req->path_mtu > id->path_mtu) {
        /* Its packets would not fit our ports, and a REP cannot ask for less (IBTA 12.7.9). */
        cm_reject(id->cm, CM_REJ_INVALID_MTU, NULL, 0, broker_now());
        ucma_id_free(id);
        return;
    }
    id->path_mtu = req->path_mtu;
    struct rdma_ucm_event_resp *resp = report_request(listener, id);
    resp->ece = (struct rdma_ucm_ece){req->ece.vendor_id, req->ece.attr_mod};
    struct rdma_ucm_conn_param *c = &resp->param.conn;
    put_private(c, req->private_data + RDMA_CM_HDR_LEN, REQ_USER_LEN);
    c->qp_num = req->local_qpn;
    c->responder_resources = req->initiator_depth;
    c->initiator_depth = req->responder_resources;
    c->flow_control = req->flow_control;
    c->retry_count = req->retry_count;
    c->rnr_retry_count = req->rnr_retry_count;
    c->srq = req->srq;
}

static void on_sidr_req(const struct cm_event *e)
{
    struct ucma_id *listener = e->owner;
    const struct cm_sidr_req *req = &e->msg.sidr_req;
    struct ucma_id *id = request_id(listener, e, req->private_data, sizeof req->private_data);
    if (!id) return;
    struct rdma_ucm_ud_param *u = &report_request(listener, id)->param.ud;
    memcpy(u->private_data, req->private_data + RDMA_CM_HDR_LEN, SIDR_USER_LEN);
    u->private_data_len = SIDR_USER_LEN;
}

/* To the program, unless it has not taken up the id yet: then nobody could make sense of it, and a
 * later ACCEPT fails (as the kernel has it). */
static struct ucma_event *tell(struct ucma_id *id, enum ucma_event_type type, int status)
{
    return id->uid ? ucma_report(id, type, status) : NULL;
}

static void on_rep(struct ucma_id *id, const struct cm_rep *rep)
{
    struct ucma_event *u = tell(id, UCMA_EV_CONNECT_RESPONSE, 0);
    if (!u) return;
    u->resp.ece = (struct rdma_ucm_ece){rep->ece.vendor_id, rep->ece.attr_mod};
    struct rdma_ucm_conn_param *c = &u->resp.param.conn;
    put_private(c, rep->private_data, sizeof rep->private_data);
    c->qp_num = id->qp_type == IBV_QPT_XRC_SEND ? rep->local_eecn : rep->local_qpn;
    c->responder_resources = rep->initiator_depth;
    c->initiator_depth = rep->responder_resources;
    c->flow_control = rep->flow_control;
    c->rnr_retry_count = rep->rnr_retry_count;
    c->srq = rep->srq;
}

static void on_rej(struct ucma_id *id, const struct cm_rej *rej)
{
    id->state = UCMA_DISCONNECTED;
    struct ucma_event *u = tell(id, UCMA_EV_REJECTED, rej->reason);
    if (u) put_private(&u->resp.param.conn, rej->private_data, sizeof rej->private_data);
}

static void on_disconnected(struct ucma_id *id, int status)
{
    if (id->state == UCMA_DISCONNECTED) return;
    id->state = UCMA_DISCONNECTED;
    tell(id, UCMA_EV_DISCONNECTED, status);
}

static void on_unreachable(struct ucma_id *id, int status)
{
    id->state = UCMA_DISCONNECTED;
    tell(id, UCMA_EV_UNREACHABLE, status);
}

static void on_sidr_rep(struct ucma_id *id, const struct cm_sidr_rep *rep)
{
    if (rep->status != CM_SIDR_OK) {
        on_unreachable(id, rep->status);
        return;
    }
    id->qkey = rep->qkey;
    struct ucma_event *u = tell(id, UCMA_EV_ESTABLISHED, 0);
    if (!u) return;
    struct rdma_ucm_ud_param *p = &u->resp.param.ud;
    p->ah_attr = ucma_ah_attr(id, 64);
    p->qp_num = rep->qpn;
    p->qkey = rep->qkey;
    memcpy(p->private_data, rep->private_data, sizeof rep->private_data);
    p->private_data_len = sizeof rep->private_data;
}

void ucma_cm_event(const struct cm_event *event)
{
    struct ucma_id *id = event->owner;
    switch (event->type) {
    case CM_EVENT_REQ: on_req(event); break;
    case CM_EVENT_SIDR_REQ: on_sidr_req(event); break;
    case CM_EVENT_REP: on_rep(id, &event->msg.rep); break;
    case CM_EVENT_SIDR_REP: on_sidr_rep(id, &event->msg.sidr_rep); break;
    case CM_EVENT_ESTABLISHED: tell(id, UCMA_EV_ESTABLISHED, 0); break;
    case CM_EVENT_REJ: on_rej(id, &event->msg.rej); break;
    case CM_EVENT_DREQ:
    case CM_EVENT_DREP: on_disconnected(id, 0); break;
    case CM_EVENT_DREQ_ERROR: on_disconnected(id, -ETIMEDOUT); break;
    case CM_EVENT_TIMEWAIT_EXIT: tell(id, UCMA_EV_TIMEWAIT_EXIT, 0); break;
    case CM_EVENT_REQ_ERROR:
    case CM_EVENT_REP_ERROR:
    case CM_EVENT_SIDR_ERROR: on_unreachable(id, -ETIMEDOUT); break;
    }
}
