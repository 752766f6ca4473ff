/* Inside the connection manager: what its files share. */
#ifndef RBOND_CM_ENGINE_H
#define RBOND_CM_ENGINE_H

#include "base/heap.h"
#include "base/list.h"
#include "cm/cm.h"

#define CM_HASH 4096
#define CM_OUT_RING 1024

/* Our own retransmission: the first after RTO_FIRST, doubling up to RTO_MAX, as often as the REQ's
 * max_cm_retries allows; after the last, the peer has the whole response timeout that the REQ
 * gives it (25 s in all between two of us). Short beside that timeout, because a lost message is as
 * a rule a dead member, and the next attempt leaves by another. */
#define CM_RTO_FIRST_NS (100 * MS_NS)
/* And for each id that waits as well: a peer makes some thousand connections a second, and where
 * many are asked of it at once they have their turns; repeating the questions would make it worse.
 */
#define CM_RTO_TURN_NS MS_NS
#define CM_RTO_MAX_NS (1600 * MS_NS)
#define CM_MAX_RETRIES 15
/* While an MRA holds us the message is still repeated, seldom: the peer may have died since. */
#define CM_HELD_RTO_NS (2 * SEC_NS)
#define CM_ORPHAN_RETRIES 5
#define CM_STALE_RETRIES 5
/* How long an answer that ends the matter is kept for a question that comes again. */
#define CM_KEEP_ANSWER_NS (30 * SEC_NS)
#define CM_GRACE_NS SEC_NS
#define CM_KEEP_REFUSAL_NS (5 * SEC_NS) /* of a request that nobody claimed */
#define CM_MAX_HELD 256
#define CM_TIMEWAIT_MAX_NS (250 * MS_NS)
/* As long as we wait for anybody's answer, whatever timeout he asks for. */
#define CM_MAX_RESPONSE 24

/* Wire fields as Linux fills them: 4.096 us * 2^n. */
#define CM_RESPONSE_TIMEOUT 20
#define CM_MRA_TIMEOUT 24
#define CM_HOP_LIMIT 64
#define CM_TARGET_ACK_DELAY 12 /* 17 ms, as a time */

enum cm_state {
    CMS_REQ_SENT,
    CMS_REQ_HELD, /* REQ sent, MRA received */
    CMS_REQ_RCVD,
    CMS_REJ_SENT, /* to a REQ; kept a while to answer duplicates */
    CMS_REP_SENT,
    CMS_REP_HELD, /* REP sent, MRA received */
    CMS_REP_RCVD,
    CMS_ESTABLISHED,
    CMS_DREQ_SENT,
    CMS_DREQ_RCVD,
    CMS_TIMEWAIT,
    CMS_SIDR_SENT,
    CMS_SIDR_RCVD,
    CMS_SIDR_DONE, /* answered; kept a while to answer duplicates */
    CMS_UNCLAIMED, /* a request that waits for a listener: hold.c */
    CMS_CLOSED,    /* over; waits for its user to destroy it */
};

struct cm_id {
    struct cm *cm;
    void *owner;
    bool orphan; /* its user has let go */
    bool active; /* we sent the REQ */
    bool sidr;   /* a resolution, not a connection */
    enum cm_state state;
    uint32_t slot, local_id, remote_id;
    uint64_t remote_guid, service_id, tid;
    uint64_t req_tid; /* of the REQ or SIDR_REQ that made it */
    struct cm_route route;
    struct cm_listener *listener; /* its backlog counts this id; NULL: no longer */
    struct list waiting;          /* in listener->requests or, CMS_UNCLAIMED, cm->unclaimed */
    struct list hash;             /* by remote id and address, once known */
    struct list qp_hash;          /* by remote QP and address, once known */
    struct heap_node alarm;       /* in cm->alarms */
    when_t hold_until;
    uint16_t attempts;
    uint8_t max_retries;      /* as the REQ has it */
    uint8_t response_timeout; /* the peer's to answer us: 4.096 us * 2^n */
    uint8_t stale_retries;
    uint32_t refused_rep;  /* whose REP was stale: its local id; 0: none */
    uint8_t sent[MAD_LEN]; /* the last message of the handshake, for repeating */
    uint32_t pending_events;
    /* what the two ends agreed */
    uint8_t path_mtu, ack_timeout, service;
    uint8_t responder_resources, initiator_depth, retry_count, rnr_retry_count;
    qpn_t local_qpn, remote_qpn;
    psn_t sq_psn, rq_psn;
    uint64_t local_guid;
    bool failover_asked; /* the REQ named an alternate path */
};

struct cm_listener {
    struct cm *cm;
    struct list all;
    uint64_t service_id;
    enum cm_scope scope;
    struct gid local; /* CM_SCOPE_ADDRESS */
    uint32_t backlog, waiting;
    struct list requests; /* the `waiting` */
    void *owner;
};

struct cm_queued_event {
    struct list all;
    struct cm_event event;
};

struct cm {
    struct cm_conf conf;
    uint64_t random;
    struct cm_id **slots; /* conf.max_ids */
    uint32_t next_slot, nids, nheld;
    struct list by_remote[CM_HASH], by_remote_qp[CM_HASH];
    struct heap alarms; /* room for conf.max_ids */
    struct list unclaimed, listeners, events;
    struct cm_out *out; /* ring */
    uint32_t out_head, out_tail;
    struct cm_counters counters;
};

/* cm.c: ids */
struct cm_id *cm_id_new(struct cm *cm, const struct cm_route *route); /* NULL: full, no memory */
void cm_id_free(struct cm_id *id);
/* Frees it if its user has let go, else leaves it closed. */
void cm_id_close(struct cm_id *id);
struct cm_id *cm_find_local(struct cm *cm, uint32_t local_id, const struct cm_route *route);
/* The id that a REQ or SIDR_REQ with this remote id from this place made. Its transaction tells it
 * from one of a peer that has died and happens to use the number again; 0: any. */
struct cm_id *cm_find_remote(struct cm *cm, uint32_t remote_id, uint64_t remote_guid,
                             const struct cm_route *route, bool sidr, uint64_t tid);
/* The live connection whose far end is this QP. */
struct cm_id *cm_find_remote_qp(struct cm *cm, qpn_t qpn, uint64_t guid, const struct gid *remote);
void cm_id_hash(struct cm_id *id);
void cm_id_hash_qp(struct cm_id *id);
void cm_set_deadline(struct cm_id *id, when_t when); /* NEVER: none */
uint64_t cm_random(struct cm *cm);
uint64_t cm_wire_ns(uint8_t timeout); /* of a five-bit field, at most CM_MAX_RESPONSE */

/* cm.c: queues */
void cm_send_mad(struct cm *cm, const struct cm_route *route, const uint8_t *mad, uint8_t attempt);
void cm_send_msg(struct cm *cm, const struct cm_route *route, const struct cm_msg *msg);
/* Encodes into id->sent, sends, and arms the retransmission. */
void cm_send_timed(struct cm_id *id, const struct cm_msg *msg, when_t now);
/* Sends id->sent again and arms the next one. */
void cm_resend(struct cm_id *id, when_t now);
void cm_report(struct cm_id *id, enum cm_event_type type, const struct cm_msg *msg);
/* Forgets the id's events that have not been taken. */
void cm_forget_events(struct cm_id *id);

/* listen.c */
void cm_waits(struct cm_id *id, struct cm_listener *listener); /* until cm_taken */
struct cm_listener *cm_find_listener(struct cm *cm, uint64_t service_id, const struct gid *local);

/* compose.c: messages of one id, ready to encode */
void compose_req(struct cm_msg *m, const struct cm_id *id, const struct cm_offer *offer);
void compose_rep(struct cm_msg *m, const struct cm_id *id, const struct cm_offer *offer);
void compose_mra(struct cm_msg *m, const struct cm_id *id, enum cm_msg_answered answers);
void compose_rej(struct cm_msg *m, const struct cm_id *id, enum cm_msg_answered answers,
                 uint16_t reason, const void *private_data, size_t len);
/* The no to a REP that no id of ours takes. */
void compose_rej_rep(struct cm_msg *m, const struct cm_msg *rep, uint16_t reason);
/* The no to a REQ, with this reason, or to a SIDR_REQ: that there is no such service. */
void compose_refusal(struct cm_msg *m, const struct cm_msg *request, uint16_t reason);
void compose_rtu(struct cm_msg *m, const struct cm_id *id);
void compose_dreq(struct cm_msg *m, const struct cm_id *id);
void compose_drep(struct cm_msg *m, const struct cm_id *id);
/* The answer to a message that is for no id of ours; false where none is due. */
bool compose_stranger(struct cm_msg *m, const struct cm_msg *msg);

/* hold.c */
/* False: it cannot wait; refuse it now. */
bool hold_request(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route,
                  when_t now);
/* There is a new listener. */
void hold_claim(struct cm *cm, when_t now);
void hold_expire(struct cm_id *id, when_t now);
void hold_forget(struct cm_id *id); /* its sender has given up */

/* conn_input.c */
void conn_refuse(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route,
                 uint16_t reason);
enum cm_verdict conn_req_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route, when_t now);
enum cm_verdict conn_input(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route,
                           when_t now);

/* conn.c */
void conn_send_rej(struct cm_id *id, enum cm_msg_answered answers, uint16_t reason,
                   const void *private_data, size_t len);
void conn_send_drep(struct cm_id *id, when_t now); /* and enters timewait */
void conn_timewait(struct cm_id *id, when_t now);
void conn_go_established(struct cm_id *id);
void conn_expire(struct cm_id *id, when_t now);
void conn_destroy(struct cm_id *id, when_t now);

/* sidr.c */
void sidr_refuse(struct cm *cm, const struct cm_msg *msg, const struct cm_route *route);
enum cm_verdict sidr_req_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route, when_t now);
enum cm_verdict sidr_rep_input(struct cm *cm, const struct cm_msg *msg,
                               const struct cm_route *route);
void sidr_expire(struct cm_id *id, when_t now);
void sidr_destroy(struct cm_id *id, when_t now);

#endif
