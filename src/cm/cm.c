/* The engine's tables and queues: ids by number and by peer, deadlines, MADs out, events out. What
 * a message means is conn.c's and sidr.c's. */
#include "cm/engine.h"

#include "base/must.h"
#include <stdlib.h>

static void free_tables(struct cm *cm)
{
    heap_free(&cm->alarms);
    free(cm->slots);
    free(cm->out);
    free(cm);
}

struct cm *cm_new(const struct cm_conf *conf)
{
    must(conf->max_ids > 0 && conf->max_ids <= 65536);
    struct cm *cm = calloc(1, sizeof *cm);
    if (!cm) return NULL;
    cm->conf = *conf;
    cm->random = conf->seed | 1;
    cm->slots = calloc(conf->max_ids, sizeof(struct cm_id *));
    cm->out = calloc(CM_OUT_RING, sizeof *cm->out);
    if (!cm->slots || !cm->out || heap_reserve(&cm->alarms, conf->max_ids) < 0) {
        free_tables(cm);
        return NULL;
    }
    for (size_t i = 0; i < CM_HASH; i++) {
        list_init(&cm->by_remote[i]);
        list_init(&cm->by_remote_qp[i]);
    }
    list_init(&cm->unclaimed);
    list_init(&cm->listeners);
    list_init(&cm->events);
    return cm;
}

void cm_free(struct cm *cm)
{
    for (uint32_t i = 0; i < cm->conf.max_ids; i++)
        if (cm->slots[i]) cm_id_free(cm->slots[i]);
    list_for_each_safe (pos, tmp, &cm->listeners)
        cm_listener_destroy(container_of(pos, struct cm_listener, all));
    free_tables(cm);
}

const struct cm_counters *cm_counters(const struct cm *cm) { return &cm->counters; }

uint32_t cm_ids(const struct cm *cm) { return cm->nids; }

enum cm_verdict cm_input(struct cm *cm, const uint8_t *mad, size_t len,
                         const struct cm_route *route, when_t now)
{
    struct cm_msg msg;
    enum cm_verdict v;
    cm->counters.rx_mads++;
    if (!cm_msg_decode(&msg, mad, len)) {
        cm->counters.rx_bad++;
        return CM_BAD_MAD;
    }
    switch (msg.attr) {
    case CM_REQ: v = conn_req_input(cm, &msg, route, now); break;
    case CM_SIDR_REQ: v = sidr_req_input(cm, &msg, route, now); break;
    case CM_SIDR_REP: v = sidr_rep_input(cm, &msg, route); break;
    case CM_LAP:
    case CM_APR: v = CM_UNSUPPORTED; break;
    default: v = conn_input(cm, &msg, route, now); break;
    }
    if (v == CM_DUPLICATE) cm->counters.rx_duplicates++;
    if (v == CM_UNKNOWN_ID) cm->counters.rx_unknown++;
    if (v == CM_BUSY) cm->counters.rx_busy++;
    if (v == CM_UNSUPPORTED) cm->counters.rx_unsupported++;
    return v;
}

size_t cm_output(struct cm *cm, struct cm_out *out, size_t max)
{
    size_t n = 0;
    for (; n < max && cm->out_head != cm->out_tail; n++)
        out[n] = cm->out[cm->out_head++ % CM_OUT_RING];
    return n;
}

when_t cm_deadline(const struct cm *cm) { return heap_when(&cm->alarms); }

/* Each id sets its next alarm later than now, or none. */
void cm_expire(struct cm *cm, when_t now)
{
    while (when_due(heap_when(&cm->alarms), now)) {
        struct cm_id *id = container_of(heap_first(&cm->alarms), struct cm_id, alarm);
        cm_set_deadline(id, NEVER);
        if (id->state == CMS_UNCLAIMED)
            hold_expire(id, now);
        else if (id->sidr)
            sidr_expire(id, now);
        else
            conn_expire(id, now);
    }
}

bool cm_next_event(struct cm *cm, struct cm_event *event)
{
    if (list_empty(&cm->events)) return false;
    struct cm_queued_event *q = container_of(cm->events.next, struct cm_queued_event, all);
    *event = q->event;
    event->owner = q->event.id->owner; /* who may have taken it up since */
    q->event.id->pending_events--;
    list_del(&q->all);
    free(q);
    return true;
}

/* ---- ids --------------------------------------------------------------------------------------
 */

/* xorshift64*: ids need to be hard to guess, not secret; the seed is the daemon's. */
uint64_t cm_random(struct cm *cm)
{
    cm->random ^= cm->random >> 12;
    cm->random ^= cm->random << 25;
    cm->random ^= cm->random >> 27;
    return cm->random * 0x2545f4914f6cdd1dull;
}

struct cm_id *cm_id_new(struct cm *cm, const struct cm_route *route)
{
    if (cm->nids == cm->conf.max_ids) return NULL;
    struct cm_id *id = calloc(1, sizeof *id);
    if (!id) return NULL;
    while (cm->slots[cm->next_slot]) cm->next_slot = (cm->next_slot + 1) % cm->conf.max_ids;
    id->cm = cm;
    id->slot = cm->next_slot;
    /* Never 0, and a slot that comes again soon carries another salt. */
    while (id->local_id >> 16 == 0) id->local_id = (uint32_t)(cm_random(cm) >> 48 << 16) | id->slot;
    id->route = *route;
    id->alarm = HEAP_NODE_IDLE;
    id->hold_until = NEVER;
    id->max_retries = CM_MAX_RETRIES;
    id->response_timeout = CM_RESPONSE_TIMEOUT;
    list_init(&id->waiting);
    list_init(&id->hash);
    list_init(&id->qp_hash);
    cm->slots[id->slot] = id;
    cm->next_slot = (cm->next_slot + 1) % cm->conf.max_ids;
    cm->nids++;
    return id;
}

void cm_id_free(struct cm_id *id)
{
    cm_taken(id);
    cm_forget_events(id);
    cm_set_deadline(id, NEVER);
    list_del(&id->hash);
    list_del(&id->qp_hash);
    id->cm->slots[id->slot] = NULL;
    id->cm->nids--;
    free(id);
}

void cm_id_close(struct cm_id *id)
{
    cm_set_deadline(id, NEVER);
    list_del(&id->hash);
    list_del(&id->qp_hash);
    cm_taken(id);
    id->state = CMS_CLOSED;
    if (id->orphan) cm_id_free(id);
}

void cm_id_set_owner(struct cm_id *id, void *owner) { id->owner = owner; }

void cm_id_destroy(struct cm_id *id, when_t now)
{
    id->orphan = true;
    cm_forget_events(id);
    cm_taken(id);
    if (id->sidr)
        sidr_destroy(id, now);
    else
        conn_destroy(id, now);
}

void cm_id_drop(struct cm_id *id) { cm_id_free(id); }

struct cm_id *cm_find_local(struct cm *cm, uint32_t local_id, const struct cm_route *route)
{
    uint32_t slot = local_id & 0xffff;
    if (slot >= cm->conf.max_ids) return NULL;
    struct cm_id *id = cm->slots[slot];
    if (!id || id->local_id != local_id || !gid_equal(&id->route.remote, &route->remote))
        return NULL;
    return id;
}

/* FNV-1a over the address, the number in front. */
static size_t bucket(uint32_t number, const struct gid *remote)
{
    uint64_t h = number;
    for (size_t i = 0; i < sizeof remote->raw; i++) h = (h ^ remote->raw[i]) * 0x100000001b3ull;
    return (h ^ h >> 32) % CM_HASH;
}

void cm_id_hash(struct cm_id *id)
{
    list_del(&id->hash);
    list_add_tail(&id->cm->by_remote[bucket(id->remote_id, &id->route.remote)], &id->hash);
}

void cm_id_hash_qp(struct cm_id *id)
{
    list_del(&id->qp_hash);
    list_add_tail(&id->cm->by_remote_qp[bucket(id->remote_qpn, &id->route.remote)], &id->qp_hash);
}

struct cm_id *cm_find_remote(struct cm *cm, uint32_t remote_id, uint64_t remote_guid,
                             const struct cm_route *route, bool sidr, uint64_t tid)
{
    list_for_each (pos, &cm->by_remote[bucket(remote_id, &route->remote)]) {
        struct cm_id *id = container_of(pos, struct cm_id, hash);
        if (id->remote_id == remote_id && id->remote_guid == remote_guid && id->sidr == sidr &&
            !id->active && (tid == 0 || id->req_tid == tid) &&
            gid_equal(&id->route.remote, &route->remote))
            return id;
    }
    return NULL;
}

struct cm_id *cm_find_remote_qp(struct cm *cm, qpn_t qpn, uint64_t guid, const struct gid *remote)
{
    list_for_each (pos, &cm->by_remote_qp[bucket(qpn, remote)]) {
        struct cm_id *id = container_of(pos, struct cm_id, qp_hash);
        if (id->remote_qpn == qpn && id->remote_guid == guid && id->state != CMS_TIMEWAIT &&
            id->state != CMS_REJ_SENT && id->state != CMS_DREQ_RCVD &&
            gid_equal(&id->route.remote, remote))
            return id;
    }
    return NULL;
}

void cm_set_deadline(struct cm_id *id, when_t when) { heap_set(&id->cm->alarms, &id->alarm, when); }

/* ---- queues -----------------------------------------------------------------------------------
 */

void cm_send_mad(struct cm *cm, const struct cm_route *route, const uint8_t *mad, uint8_t attempt)
{
    if (cm->out_tail - cm->out_head == CM_OUT_RING) {
        cm->counters.tx_dropped++; /* as if the network had lost it */
        return;
    }
    struct cm_out *o = &cm->out[cm->out_tail++ % CM_OUT_RING];
    o->route = *route;
    o->attempt = attempt;
    memcpy(o->mad, mad, sizeof o->mad);
    cm->counters.tx_mads++;
}

void cm_send_msg(struct cm *cm, const struct cm_route *route, const struct cm_msg *msg)
{
    uint8_t mad[MAD_LEN];
    cm_msg_encode(mad, msg);
    cm_send_mad(cm, route, mad, 0);
}

uint64_t cm_wire_ns(uint8_t timeout)
{
    return 4096ull << (timeout < CM_MAX_RESPONSE ? timeout : CM_MAX_RESPONSE);
}

static uint64_t rto(const struct cm_id *id)
{
    uint64_t first = CM_RTO_FIRST_NS + id->cm->alarms.len * CM_RTO_TURN_NS;
    uint64_t ns = first << (id->attempts < 8 ? id->attempts : 8);
    uint64_t response = cm_wire_ns(id->response_timeout);
    if (ns > CM_RTO_MAX_NS) ns = CM_RTO_MAX_NS;
    return id->attempts >= id->max_retries && ns < response ? response : ns;
}

void cm_send_timed(struct cm_id *id, const struct cm_msg *msg, when_t now)
{
    cm_msg_encode(id->sent, msg);
    id->attempts = 0;
    cm_send_mad(id->cm, &id->route, id->sent, 0);
    cm_set_deadline(id, when_add(now, rto(id)));
}

void cm_resend(struct cm_id *id, when_t now)
{
    id->attempts++;
    id->cm->counters.tx_resent++;
    cm_send_mad(id->cm, &id->route, id->sent, id->attempts);
    cm_set_deadline(id, when_add(now, rto(id)));
}

void cm_report(struct cm_id *id, enum cm_event_type type, const struct cm_msg *msg)
{
    if (id->orphan) return;
    struct cm_queued_event *q = calloc(1, sizeof *q);
    must(q);
    q->event.type = type;
    q->event.id = id;
    q->event.route = id->route;
    if (msg) q->event.msg = *msg;
    list_add_tail(&id->cm->events, &q->all);
    id->pending_events++;
}

void cm_forget_events(struct cm_id *id)
{
    list_for_each_safe (pos, tmp, &id->cm->events) {
        if (id->pending_events == 0) return;
        struct cm_queued_event *q = container_of(pos, struct cm_queued_event, all);
        if (q->event.id != id) continue;
        list_del(&q->all);
        free(q);
        id->pending_events--;
    }
}
