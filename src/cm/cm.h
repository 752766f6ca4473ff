/* The InfiniBand connection manager (IBTA chapter 12) as a sans-IO engine: MADs and the user's
 * calls go in, MADs are pulled out, and what a user must hear is a queue of events.
 *
 *   cm.c     the tables of ids, demultiplexing, deadlines, the output and event queues
 *   conn.c   connections: the user's calls, deadlines; conn_input.c their messages; compose.c what
 *            they say: REQ, MRA, REJ, REP, RTU, DREQ, DREP
 *   sidr.c   service id resolution for UD: SIDR_REQ, SIDR_REP
 *   listen.c listeners by service id and address; hold.c requests that come just before theirs
 *
 * An id (struct cm_id) is one end of one connection or resolution. Its user owns it from
 * cm_connect, cm_sidr or the event that brought it, until cm_id_destroy; the engine may keep it for
 * longer, to say good-bye to the peer, but reports nothing more about it.
 *
 * Deliberately missing: path migration (a LAP is ignored, as Linux does where there is RoCE; an
 * alternate path in a REQ is answered with "not supported"), RD, redirection, and
 * peer-to-peer connections, which neither Linux nor librdmacm has.
 * Calls return 0 or a negative errno for the caller's mistake, -EINVAL meaning a wrong state. */
#ifndef RBOND_CM_CM_H
#define RBOND_CM_CM_H

#include "base/when.h"
#include "wire/cm_msg.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cm;
struct cm_id;
struct cm_listener;

struct cm_conf {
    uint64_t seed;    /* for ids: unpredictable in life, fixed in the simulator */
    uint32_t max_ids; /* at most 65536; REQs beyond are dropped, calls get -ENOMEM */
};

/* Between which addresses a message travels. */
struct cm_route {
    struct gid local, remote;
    uint8_t traffic_class;
};

/* A message to send. */
struct cm_out {
    struct cm_route route;
    uint8_t attempt; /* 0 at first; grows as a message is resent: leave by another member */
    uint8_t mad[MAD_LEN];
};

enum cm_event_type {
    CM_EVENT_REQ,           /* a connection request: a new id, `owner` is the listener's */
    CM_EVENT_REQ_ERROR,     /* nobody answered the REQ */
    CM_EVENT_REP,           /* accepted: prepare the QP, then cm_ready */
    CM_EVENT_REP_ERROR,     /* nobody answered the REP */
    CM_EVENT_ESTABLISHED,   /* RTU, or cm_established */
    CM_EVENT_REJ,           /* of an established connection, too: then it is over */
    CM_EVENT_DREQ,          /* the peer disconnects: answer with cm_disconnect */
    CM_EVENT_DREP,          /* it has confirmed our DREQ, or crossed it with its own */
    CM_EVENT_DREQ_ERROR,    /* nobody answered the DREQ */
    CM_EVENT_TIMEWAIT_EXIT, /* the last event of a connection */
    CM_EVENT_SIDR_REQ,      /* a new id, `owner` is the listener's */
    CM_EVENT_SIDR_ERROR,
    CM_EVENT_SIDR_REP,
};

struct cm_event {
    enum cm_event_type type;
    struct cm_id *id;
    void *owner; /* as given with the id; for REQ and SIDR_REQ, with the listener */
    struct cm_route route;
    struct cm_msg msg; /* REQ, REP, REJ, DREQ, SIDR_REQ, SIDR_REP: what arrived */
};

enum cm_verdict {
    CM_OK,
    CM_DUPLICATE,   /* known already; answered again where that helps */
    CM_BAD_MAD,     /* not a CM message */
    CM_UNKNOWN_ID,  /* for no id of ours, or not in this state */
    CM_NO_LISTENER, /* nobody listens: rejected, if that does not change at once */
    CM_STALE,       /* rejected: its QP is in an older connection */
    CM_BUSY,        /* dropped: backlog or table is full; the peer will try again */
    CM_UNSUPPORTED, /* LAP, APR: ignored */
};

#define CM_COUNTERS(X)                                                                             \
    X(rx_mads)                                                                                     \
    X(rx_bad)                                                                                      \
    X(rx_duplicates)                                                                               \
    X(rx_unknown)                                                                                  \
    X(rx_busy)                                                                                     \
    X(rx_unsupported)                                                                              \
    X(tx_mads)                                                                                     \
    X(tx_resent) X(tx_dropped) X(timeouts) X(rejects_sent) X(rejects_received) X(connections)

struct cm_counters {
#define X(name) uint64_t name;
    CM_COUNTERS(X)
#undef X
};

struct cm *cm_new(const struct cm_conf *conf); /* NULL: no memory */
void cm_free(struct cm *cm);

/* A MAD of class 7 that came from route->remote to route->local. */
enum cm_verdict cm_input(struct cm *cm, const uint8_t *mad, size_t len,
                         const struct cm_route *route, when_t now);
size_t cm_output(struct cm *cm, struct cm_out *out, size_t max);
when_t cm_deadline(const struct cm *cm);
void cm_expire(struct cm *cm, when_t now);
/* The next event; false when there is none. Events of a destroyed id are not reported. */
bool cm_next_event(struct cm *cm, struct cm_event *event);
const struct cm_counters *cm_counters(const struct cm *cm);
/* How many ids there are, those included that their users have let go. */
uint32_t cm_ids(const struct cm *cm);

/* ---- listeners ------------------------------------------------------------------------------ */

/* Which local addresses a listener answers for; of several the narrowest. */
enum cm_scope { CM_SCOPE_ADDRESS, CM_SCOPE_IPV4, CM_SCOPE_IPV6, CM_SCOPE_ANY };

/* `local` counts for CM_SCOPE_ADDRESS. `backlog`: how many requests may wait for cm_taken.
 * -EADDRINUSE where the same service id and scope has a listener. */
int cm_listen(struct cm *cm, uint64_t service_id, enum cm_scope scope, const struct gid *local,
              uint32_t backlog, void *owner, struct cm_listener **out, when_t now);
/* Ids it brought live on, with their users. */
void cm_listener_destroy(struct cm_listener *listener);
/* The user has taken up the request, which no longer counts against the backlog. */
void cm_taken(struct cm_id *id);

/* ---- connections ---------------------------------------------------------------------------- */

/* What one end tells the other of itself. */
struct cm_offer {
    qpn_t qpn;
    uint32_t qkey;
    /* At which the peer is to start (IBTA 12.7.31). cm_accept ignores it: programs ask for their
     * QP's attributes before they accept, so the number is chosen with the id. */
    psn_t psn;
    uint8_t responder_resources, initiator_depth;
    uint8_t retry_count, rnr_retry_count; /* 0..7 */
    bool flow_control, srq;
    uint64_t ca_guid;
    struct cm_ece ece;
    const void *private_data;
    size_t private_len;
};

struct cm_connect_param {
    struct cm_route route;
    uint64_t service_id;
    uint8_t service;     /* CM_SERVICE_RC, _UC; _EXT: XRC, this end the initiator */
    uint8_t path_mtu;    /* 1..5 */
    uint8_t ack_timeout; /* the QP's local ACK timeout, 0..31 */
    struct cm_offer offer;
};

/* Sends a REQ. */
int cm_connect(struct cm *cm, const struct cm_connect_param *param, void *owner, struct cm_id **out,
               when_t now);
/* After CM_EVENT_REQ: sends the REP. */
int cm_accept(struct cm_id *id, const struct cm_offer *offer, when_t now);
/* After CM_EVENT_REP: sends the RTU. */
int cm_ready(struct cm_id *id, when_t now);
/* The QP saw its first packet before the RTU came. -EISCONN where it is up already. */
int cm_established(struct cm_id *id, when_t now);
/* After CM_EVENT_REQ or CM_EVENT_REP. */
int cm_reject(struct cm_id *id, uint16_t reason, const void *private_data, size_t len, when_t now);
/* Sends a DREQ, or the DREP that a DREQ waits for. */
int cm_disconnect(struct cm_id *id, when_t now);
/* The user lets go: what the peer must hear (REJ, DREQ, DREP), it hears. */
void cm_id_destroy(struct cm_id *id, when_t now);
/* Lets go of a request without a word, so that the peer tries again later. */
void cm_id_drop(struct cm_id *id);
/* Lets go of a request that nobody has looked at: the next listener gets it. */
void cm_id_give_back(struct cm_id *id, when_t now);
/* From now on events come with this owner. */
void cm_id_set_owner(struct cm_id *id, void *owner);

/* ---- service id resolution ------------------------------------------------------------------ */

int cm_sidr(struct cm *cm, const struct cm_route *route, uint64_t service_id,
            const void *private_data, size_t len, void *owner, struct cm_id **out, when_t now);
/* After CM_EVENT_SIDR_REQ. `status` is enum cm_sidr_status; the id is then done with. */
int cm_sidr_answer(struct cm_id *id, uint8_t status, qpn_t qpn, uint32_t qkey,
                   const void *private_data, size_t len, when_t now);

/* ---- what the QP needs ---------------------------------------------------------------------- */

struct cm_qp_params {
    struct cm_route route;
    uint8_t hop_limit;
    uint8_t path_mtu;
    qpn_t dest_qpn;
    psn_t rq_psn, sq_psn;
    uint8_t max_rd_atomic, max_dest_rd_atomic;
    uint8_t ack_timeout, retry_count, rnr_retry_count;
    bool remote_known; /* false: the peer has not answered; only what INIT needs is valid */
};

/* -EINVAL where the connection is not on its way or up. */
int cm_qp_params(const struct cm_id *id, struct cm_qp_params *out);

#endif
