/* Two connection managers and the wire between them, one message at a time. */
#ifndef RBOND_TEST_CM_PAIR_H
#define RBOND_TEST_CM_PAIR_H

#include "cm/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define SERVICE 0x01061c06ull
#define CLIENT_QPN 0x11
#define SERVER_QPN 0x22

struct pair {
    struct cm *client, *server;
    struct gid client_gid, server_gid;
    struct cm_listener *listener;
    when_t now;
};

/* Takes all that `from` has to say to `to`; the attribute of the last message, 0: it was silent. */
static inline unsigned carry(struct pair *p, struct cm *from, struct cm *to)
{
    struct cm_out out;
    unsigned last = 0;
    while (cm_output(from, &out, 1)) {
        struct cm_route back = {.local = out.route.remote, .remote = out.route.local};
        last = out.mad[17];
        cm_input(to, out.mad, sizeof out.mad, &back, p->now);
    }
    return last;
}

/* Loses all that `from` has to say; how many messages that were. */
static inline unsigned lose(struct cm *from)
{
    struct cm_out out;
    unsigned n = 0;
    while (cm_output(from, &out, 1)) n++;
    return n;
}

/* The next event, which must be of this type. */
static inline struct cm_event expect(struct cm *cm, enum cm_event_type type)
{
    struct cm_event e;
    assert_true(cm_next_event(cm, &e));
    assert_int_equal(e.type, type);
    return e;
}

static inline void expect_none(struct cm *cm)
{
    struct cm_event e;
    assert_false(cm_next_event(cm, &e));
}

/* Lets time pass to the next deadline of `cm`. */
static inline void wait_for(struct pair *p, struct cm *cm)
{
    assert_false(when_is_never(cm_deadline(cm)));
    if (cm_deadline(cm).ns > p->now.ns) p->now = cm_deadline(cm);
    cm_expire(cm, p->now);
}

static inline void pair_open(struct pair *p)
{
    *p = (struct pair){.now = {SEC_NS}};
    p->client_gid = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 9, 0, 1}};
    p->server_gid = (struct gid){{[10] = 0xff, [11] = 0xff, 10, 9, 0, 2}};
    p->client = cm_new(&(struct cm_conf){.seed = 1, .max_ids = 64});
    p->server = cm_new(&(struct cm_conf){.seed = 2, .max_ids = 64});
    assert_int_equal(cm_listen(p->server, SERVICE, CM_SCOPE_ANY, NULL, 8, p, &p->listener, p->now),
                     0);
}

static inline void pair_close(struct pair *p)
{
    cm_free(p->client);
    cm_free(p->server);
}

static inline struct cm_id *connect_as(struct pair *p, struct cm *cm, qpn_t qpn,
                                       enum cm_service service)
{
    struct cm_connect_param param = {
        .route = {.local = p->client_gid, .remote = p->server_gid},
        .service_id = SERVICE,
        .service = service,
        .path_mtu = 3,
        .ack_timeout = 17,
        .offer = {.qpn = qpn,
                  .psn = psn_of(0x1c1f54),
                  .responder_resources = 1,
                  .initiator_depth = 2,
                  .retry_count = 7,
                  .rnr_retry_count = 6,
                  .ca_guid = 0xc11e47,
                  .private_data = "ask",
                  .private_len = 3},
    };
    struct cm_id *id;
    assert_int_equal(cm_connect(cm, &param, p, &id, p->now), 0);
    return id;
}

static inline struct cm_id *connect_from(struct pair *p, struct cm *cm, qpn_t qpn)
{
    return connect_as(p, cm, qpn, CM_SERVICE_RC);
}

static inline void accept_with(struct pair *p, struct cm_id *id, qpn_t qpn)
{
    struct cm_offer offer = {.qpn = qpn,
                             .ca_guid = 0x5e47e4,
                             .responder_resources = 2,
                             .initiator_depth = 1,
                             .rnr_retry_count = 5,
                             .private_data = "yes",
                             .private_len = 3};
    assert_int_equal(cm_accept(id, &offer, p->now), 0);
}

static inline void accept_it(struct pair *p, struct cm_id *id) { accept_with(p, id, SERVER_QPN); }

/* The client is established; its RTU has still to be carried. */
static inline void meet(struct pair *p, struct cm_id **client, struct cm_id **server)
{
    *client = connect_from(p, p->client, CLIENT_QPN);
    assert_int_equal(carry(p, p->client, p->server), CM_REQ);
    *server = expect(p->server, CM_EVENT_REQ).id;
    cm_taken(*server);
    accept_it(p, *server);
    assert_int_equal(carry(p, p->server, p->client), CM_REP);
    expect(p->client, CM_EVENT_REP);
    assert_int_equal(cm_ready(*client, p->now), 0);
}

/* Both ends established, all events taken. */
static inline void establish(struct pair *p, struct cm_id **client, struct cm_id **server)
{
    meet(p, client, server);
    assert_int_equal(carry(p, p->client, p->server), CM_RTU);
    expect(p->server, CM_EVENT_ESTABLISHED);
}

#endif
