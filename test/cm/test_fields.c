/* What a REQ's fields and unlooked-for messages make the engine do. */
#include "pair.h"

/* The client's REQ with other words in it, on the server's desk. */
static struct cm_id *request_with(struct pair *p, uint8_t max_retries, uint8_t response_timeout,
                                  bool alternate)
{
    struct cm_out out;
    struct cm_msg m;
    connect_from(p, p->client, CLIENT_QPN);
    assert_int_equal(cm_output(p->client, &out, 1), 1);
    assert_true(cm_msg_decode(&m, out.mad, sizeof out.mad));
    m.req.max_cm_retries = max_retries;
    m.req.local_cm_response_timeout = response_timeout;
    if (alternate) m.req.alternate.local_gid = p->client_gid;
    cm_msg_encode(out.mad, &m);
    struct cm_route back = {.local = out.route.remote, .remote = out.route.local};
    assert_int_equal(cm_input(p->server, out.mad, sizeof out.mad, &back, p->now), CM_OK);
    return expect(p->server, CM_EVENT_REQ).id;
}

/* The REP is repeated as often as the REQ allows, and the peer has its response timeout before it
 * counts as silent. */
static void test_rep_is_repeated_as_the_req_says(void **state)
{
    (void)state;
    static const struct {
        uint8_t retries, timeout;
    } says[] = {{0, 20}, {3, 18}, {15, 20}, {5, 0}, {2, 31}};
    for (size_t i = 0; i < sizeof says / sizeof says[0]; i++) {
        struct pair p;
        pair_open(&p);
        accept_it(&p, request_with(&p, says[i].retries, says[i].timeout, false));
        unsigned reps = lose(p.server);
        when_t last = p.now;
        struct cm_event e;
        while (!cm_next_event(p.server, &e)) {
            last = p.now;
            wait_for(&p, p.server);
            unsigned n = lose(p.server);
            if (p.server->counters.timeouts == 0) reps += n;
        }
        assert_int_equal(e.type, CM_EVENT_REP_ERROR);
        assert_int_equal(reps, 1 + says[i].retries);
        assert_true(when_since(p.now, last) >= cm_wire_ns(says[i].timeout));
        assert_true(when_since(p.now, last) <= cm_wire_ns(CM_MAX_RESPONSE));
        pair_close(&p);
    }
}

static void test_no_alternate_path(void **state)
{
    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        struct pair p;
        pair_open(&p);
        accept_it(&p, request_with(&p, 15, 20, asked));
        carry(&p, p.server, p.client);
        struct cm_event e = expect(p.client, CM_EVENT_REP);
        assert_int_equal(e.msg.rep.failover_accepted, asked ? CM_FAILOVER_NOT_SUPPORTED : 0);
        pair_close(&p);
    }
}

static void test_path_migration_is_ignored(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    struct cm_msg m = {.attr = CM_LAP};
    m.raw.local_comm_id = c->local_id;
    m.raw.remote_comm_id = s->local_id;
    struct cm_route route = {.local = p.server_gid, .remote = p.client_gid};
    uint8_t mad[MAD_LEN];
    cm_msg_encode(mad, &m);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &route, p.now), CM_UNSUPPORTED);
    assert_int_equal(lose(p.server), 0);
    expect_none(p.server);
    assert_int_equal(cm_counters(p.server)->rx_unsupported, 1);
    pair_close(&p);
}

/* The server gives up before the RTU comes through: the client, up already, is told. */
static void test_rejected_after_the_rtu(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c, *s;
    meet(&p, &c, &s);
    assert_int_equal(lose(p.client), 1);
    struct cm_event e;
    while (!cm_next_event(p.server, &e)) {
        lose(p.server);
        wait_for(&p, p.server);
    }
    assert_int_equal(e.type, CM_EVENT_REP_ERROR);
    assert_int_equal(carry(&p, p.server, p.client), CM_REJ);
    assert_int_equal(expect(p.client, CM_EVENT_REJ).msg.rej.reason, CM_REJ_TIMEOUT);
    wait_for(&p, p.client);
    expect(p.client, CM_EVENT_TIMEWAIT_EXIT);
    pair_close(&p);
}

/* The server's QP is at the far end of an older connection of the client's: that one goes, and the
 * REQ, repeated, makes a new request. */
static void test_stale_rep(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    cm_free(p.server);
    p.server = cm_new(&(struct cm_conf){.seed = 78, .max_ids = 64});
    assert_int_equal(cm_listen(p.server, SERVICE, CM_SCOPE_ANY, NULL, 8, &p, &p.listener, p.now),
                     0);
    struct cm_id *again = connect_from(&p, p.client, CLIENT_QPN + 1);
    carry(&p, p.client, p.server);
    accept_it(&p, expect(p.server, CM_EVENT_REQ).id);
    assert_int_equal(carry(&p, p.server, p.client), CM_REP);
    expect_none(p.client);
    carry(&p, p.client, p.server); /* DREQ for the old, REJ to the REP */
    assert_int_equal(expect(p.server, CM_EVENT_REJ).msg.rej.reason, CM_REJ_STALE_CONN);
    carry(&p, p.server, p.client);
    assert_ptr_equal(expect(p.client, CM_EVENT_DREP).id, c);
    wait_for(&p, p.client); /* the REQ comes again */
    carry(&p, p.client, p.server);
    accept_it(&p, expect(p.server, CM_EVENT_REQ).id);
    carry(&p, p.server, p.client);
    assert_ptr_equal(expect(p.client, CM_EVENT_REP).id, again);
    pair_close(&p);
}

/* A REP that names more READs than the REQ offered, as a peer with a larger device does, gets what
 * was offered: the queue pair could not be set to more. */
static void test_rep_asks_for_too_much(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_offer offer = {
        .qpn = SERVER_QPN, .ca_guid = 0x5e47e4, .responder_resources = 200, .initiator_depth = 201};
    assert_int_equal(cm_accept(expect(p.server, CM_EVENT_REQ).id, &offer, p.now), 0);
    carry(&p, p.server, p.client);
    assert_ptr_equal(expect(p.client, CM_EVENT_REP).id, c);
    struct cm_qp_params params;
    assert_int_equal(cm_qp_params(c, &params), 0);
    assert_int_equal(params.max_rd_atomic, 2);
    assert_int_equal(params.max_dest_rd_atomic, 1);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rep_is_repeated_as_the_req_says),
        cmocka_unit_test(test_no_alternate_path),
        cmocka_unit_test(test_path_migration_is_ignored),
        cmocka_unit_test(test_rejected_after_the_rtu),
        cmocka_unit_test(test_stale_rep),
        cmocka_unit_test(test_rep_asks_for_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
