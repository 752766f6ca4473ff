/* Connections, message by message. */
#include "pair.h"

static void test_handshake(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_event req = expect(p.server, CM_EVENT_REQ);
    assert_ptr_equal(req.owner, &p);
    assert_true(gid_equal(&req.route.remote, &p.client_gid));
    assert_memory_equal(req.msg.req.private_data, "ask\0", 4);
    struct cm_qp_params at_server, at_client;
    assert_int_equal(cm_qp_params(req.id, &at_server), 0); /* RTR comes before the REP is sent */
    accept_it(&p, req.id);
    carry(&p, p.server, p.client);
    assert_memory_equal(expect(p.client, CM_EVENT_REP).msg.rep.private_data, "yes\0", 4);
    assert_int_equal(cm_qp_params(c, &at_client), 0);

    assert_int_equal(at_server.dest_qpn, CLIENT_QPN);
    assert_int_equal(at_client.dest_qpn, SERVER_QPN);
    assert_int_equal(at_server.sq_psn.v, at_client.rq_psn.v);
    assert_int_equal(at_server.rq_psn.v, at_client.sq_psn.v);
    assert_int_equal(at_client.rq_psn.v, 0x1c1f54);
    assert_int_equal(at_server.max_rd_atomic, 1); /* what the other end said it can answer */
    assert_int_equal(at_server.max_dest_rd_atomic, 2);
    assert_int_equal(at_client.max_rd_atomic, 2);
    assert_int_equal(at_client.max_dest_rd_atomic, 1);
    assert_int_equal(at_server.rnr_retry_count, 6);
    assert_int_equal(at_client.rnr_retry_count, 5);
    assert_int_equal(at_server.ack_timeout, 17);

    assert_int_equal(cm_ready(c, p.now), 0);
    assert_int_equal(cm_ready(c, p.now), -22);
    carry(&p, p.client, p.server);
    expect(p.server, CM_EVENT_ESTABLISHED);
    assert_true(when_is_never(cm_deadline(p.client)));
    assert_true(when_is_never(cm_deadline(p.server)));
    pair_close(&p);
}

/* The target's number travels where RD has its EE context's (annex A14; Linux). */
static void test_xrc(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = connect_as(&p, p.client, CLIENT_QPN, CM_SERVICE_EXT);
    carry(&p, p.client, p.server);
    struct cm_event e = expect(p.server, CM_EVENT_REQ);
    assert_int_equal(e.msg.req.transport_service_type, 3);
    assert_int_equal(e.msg.req.ext_transport_type, 1);
    assert_int_equal(e.msg.req.local_qpn, CLIENT_QPN);
    accept_it(&p, e.id);
    carry(&p, p.server, p.client);
    e = expect(p.client, CM_EVENT_REP);
    assert_int_equal(e.msg.rep.local_qpn, 0);
    assert_int_equal(e.msg.rep.local_eecn, SERVER_QPN);
    assert_true(e.msg.rep.srq);
    struct cm_qp_params at_client;
    assert_int_equal(cm_qp_params(c, &at_client), 0);
    assert_int_equal(at_client.dest_qpn, SERVER_QPN);
    pair_close(&p);
}

static void test_unknown_services(void **state)
{
    (void)state;
    struct pair p;
    struct cm_out out;
    struct cm_msg m;
    for (int ext = 0; ext < 2; ext++) {
        pair_open(&p);
        connect_as(&p, p.client, CLIENT_QPN, ext ? CM_SERVICE_EXT : CM_SERVICE_RD);
        assert_true(cm_output(p.client, &out, 1));
        assert_true(cm_msg_decode(&m, out.mad, sizeof out.mad));
        if (ext) m.req.ext_transport_type = 2;
        cm_msg_encode(out.mad, &m);
        struct cm_route back = {.local = out.route.remote, .remote = out.route.local};
        cm_input(p.server, out.mad, sizeof out.mad, &back, p.now);
        expect_none(p.server);
        carry(&p, p.server, p.client);
        assert_int_equal(expect(p.client, CM_EVENT_REJ).msg.rej.reason,
                         CM_REJ_INVALID_TRANSPORT_TYPE);
        pair_close(&p);
    }
}

static void test_disconnect(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    assert_int_equal(cm_disconnect(c, p.now), 0);
    assert_int_equal(carry(&p, p.client, p.server), CM_DREQ);
    expect(p.server, CM_EVENT_DREQ);
    assert_int_equal(lose(p.server), 0); /* the DREP waits for the user */
    assert_int_equal(cm_disconnect(s, p.now), 0);
    assert_int_equal(carry(&p, p.server, p.client), CM_DREP);
    expect(p.client, CM_EVENT_DREP);
    wait_for(&p, p.client);
    expect(p.client, CM_EVENT_TIMEWAIT_EXIT);
    wait_for(&p, p.server);
    expect(p.server, CM_EVENT_TIMEWAIT_EXIT);
    cm_id_destroy(c, p.now);
    cm_id_destroy(s, p.now);
    assert_int_equal(p.client->nids + p.server->nids, 0);
    pair_close(&p);
}

static void test_both_disconnect_at_once(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    assert_int_equal(cm_disconnect(c, p.now), 0);
    assert_int_equal(cm_disconnect(s, p.now), 0);
    carry(&p, p.client, p.server);
    expect(p.server, CM_EVENT_DREP);
    carry(&p, p.server, p.client);
    expect(p.client, CM_EVENT_DREP);
    expect_none(p.client);
    expect_none(p.server);
    pair_close(&p);
}

static void test_nobody_listens(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    cm_listener_destroy(p.listener);
    connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    assert_int_equal(carry(&p, p.server, p.client), 0);
    wait_for(&p, p.server);
    assert_int_equal(carry(&p, p.server, p.client), CM_REJ);
    assert_int_equal(expect(p.client, CM_EVENT_REJ).msg.rej.reason, CM_REJ_INVALID_SERVICE_ID);
    expect_none(p.server);
    assert_int_equal(p.server->nheld, 0);
    wait_for(&p, p.server); /* the refusal, kept for requests that come late */
    assert_int_equal(p.server->nids, 0);
    pair_close(&p);
}

/* A server between two listeners: one request comes in the gap, one to the first and is not seen.
 */
static void test_listener_comes_back(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *unseen = expect(p.server, CM_EVENT_REQ).id;
    cm_listener_destroy(p.listener);
    cm_id_give_back(unseen, p.now);
    connect_from(&p, p.client, CLIENT_QPN + 1);
    carry(&p, p.client, p.server);
    carry(&p, p.client, p.server);
    assert_int_equal(p.server->nheld, 2);
    expect_none(p.server);
    int second;
    assert_int_equal(
        cm_listen(p.server, SERVICE, CM_SCOPE_ANY, NULL, 8, &second, &p.listener, p.now), 0);
    for (qpn_t qpn = CLIENT_QPN; qpn <= CLIENT_QPN + 1; qpn++) {
        struct cm_event e = expect(p.server, CM_EVENT_REQ);
        assert_ptr_equal(e.owner, &second);
        assert_int_equal(e.msg.req.local_qpn, qpn);
        accept_with(&p, e.id, SERVER_QPN + qpn);
    }
    carry(&p, p.server, p.client);
    expect(p.client, CM_EVENT_REP);
    expect(p.client, CM_EVENT_REP);
    assert_int_equal(p.server->nheld, 0);
    pair_close(&p);
}

static void test_rejection_is_kept(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *s = expect(p.server, CM_EVENT_REQ).id;
    assert_int_equal(cm_reject(s, CM_REJ_CONSUMER_DEFINED, "no", 2, p.now), 0);
    cm_id_destroy(s, p.now);
    assert_int_equal(lose(p.server), 1);
    wait_for(&p, p.client); /* asks again: the same answer, and no second request for the user */
    carry(&p, p.client, p.server);
    expect_none(p.server);
    carry(&p, p.server, p.client);
    struct cm_event e = expect(p.client, CM_EVENT_REJ);
    assert_int_equal(e.msg.rej.reason, CM_REJ_CONSUMER_DEFINED);
    assert_memory_equal(e.msg.rej.private_data, "no\0", 3);
    wait_for(&p, p.server);
    assert_int_equal(p.server->nids, 0);
    pair_close(&p);
}

static void test_peer_is_silent(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    when_t start = p.now;
    struct cm_id *c = connect_from(&p, p.client, CLIENT_QPN);
    struct cm_out out;
    assert_int_equal(cm_output(p.client, &out, 1), 1);
    for (unsigned attempt = 1; attempt <= CM_MAX_RETRIES; attempt++) {
        wait_for(&p, p.client);
        assert_int_equal(cm_output(p.client, &out, 1), 1);
        assert_int_equal(out.attempt, attempt);
        expect_none(p.client);
        if (attempt == 1)
            assert_in_range(when_since(p.now, start), CM_RTO_FIRST_NS,
                            CM_RTO_FIRST_NS + CM_RTO_TURN_NS);
    }
    wait_for(&p, p.client);
    expect(p.client, CM_EVENT_REQ_ERROR);
    assert_in_range(when_since(p.now, start), 15 * SEC_NS, 30 * SEC_NS);
    cm_id_destroy(c, p.now);
    assert_int_equal(p.client->nids, 0);
    pair_close(&p);
}

static void test_slow_user_gets_time(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *s = expect(p.server, CM_EVENT_REQ).id;
    when_t until = when_add(p.now, 60 * SEC_NS);
    while (p.now.ns < until.ns) { /* its user thinks for a minute */
        wait_for(&p, p.client);
        carry(&p, p.client, p.server);
        assert_int_equal(carry(&p, p.server, p.client), CM_MRA);
    }
    expect_none(p.client);
    expect_none(p.server);
    accept_it(&p, s);
    carry(&p, p.server, p.client);
    expect(p.client, CM_EVENT_REP);
    assert_int_equal(cm_ready(c, p.now), 0);
    pair_close(&p);
}

static void test_lost_rtu(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c, *s;
    meet(&p, &c, &s);
    assert_int_equal(lose(p.client), 1);
    wait_for(&p, p.server);
    carry(&p, p.server, p.client);
    assert_int_equal(carry(&p, p.client, p.server), CM_RTU);
    expect(p.server, CM_EVENT_ESTABLISHED);
    expect_none(p.client);
    pair_close(&p);
}

static void test_first_packet_establishes(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *s = expect(p.server, CM_EVENT_REQ).id;
    assert_int_equal(cm_established(s, p.now), -22);
    accept_it(&p, s);
    assert_int_equal(cm_established(s, p.now), 0);
    expect(p.server, CM_EVENT_ESTABLISHED);
    assert_int_equal(cm_established(s, p.now), -106);
    expect_none(p.server);
    pair_close(&p);
}

static void test_backlog(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    cm_listener_destroy(p.listener);
    assert_int_equal(cm_listen(p.server, SERVICE, CM_SCOPE_ANY, NULL, 1, &p, &p.listener, p.now),
                     0);
    connect_from(&p, p.client, CLIENT_QPN);
    connect_from(&p, p.client, CLIENT_QPN + 1);
    carry(&p, p.client, p.server);
    struct cm_id *first = expect(p.server, CM_EVENT_REQ).id;
    expect_none(p.server);
    assert_int_equal(cm_counters(p.server)->rx_busy, 1);
    assert_int_equal(lose(p.server), 0); /* no word: it will try again */
    cm_taken(first);
    wait_for(&p, p.client);
    wait_for(&p, p.client);
    carry(&p, p.client, p.server);
    expect(p.server, CM_EVENT_REQ);
    pair_close(&p);
}

/* A program dies with its host's daemon and comes back with the same QP number. */
static void test_stale_connection(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    cm_free(p.client);
    p.client = cm_new(&(struct cm_conf){.seed = 77, .max_ids = 64});
    c = connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    carry(&p, p.server, p.client); /* a DREQ for the old one; REJ, stale */
    expect_none(p.client);
    assert_int_equal(carry(&p, p.client, p.server), CM_DREP);
    assert_ptr_equal(expect(p.server, CM_EVENT_DREP).id, s);
    wait_for(&p, p.client);
    carry(&p, p.client, p.server);
    assert_ptr_not_equal(expect(p.server, CM_EVENT_REQ).id, s);
    assert_int_equal(cm_disconnect(s, p.now), 0);
    pair_close(&p);
}

static void test_user_goes_without_a_word(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    cm_id_destroy(c, p.now);
    assert_int_equal(lose(p.client), 1);
    wait_for(&p, p.client); /* nobody is left, and yet the DREQ is repeated */
    assert_int_equal(carry(&p, p.client, p.server), CM_DREQ);
    expect(p.server, CM_EVENT_DREQ);
    cm_id_destroy(s, p.now);
    assert_int_equal(carry(&p, p.server, p.client), CM_DREP);
    expect_none(p.client);
    wait_for(&p, p.client);
    wait_for(&p, p.server);
    expect_none(p.client);
    assert_int_equal(p.client->nids + p.server->nids, 0);
    pair_close(&p);
}

static void test_accepted_and_gone(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *s = expect(p.server, CM_EVENT_REQ).id;
    accept_it(&p, s);
    cm_id_destroy(s, p.now);
    assert_int_equal(lose(p.server), 3); /* REP, REJ, DREQ */
    wait_for(&p, p.server);
    assert_int_equal(carry(&p, p.server, p.client), CM_DREQ);
    expect(p.client, CM_EVENT_REJ);
    carry(&p, p.client, p.server);
    wait_for(&p, p.server);
    assert_int_equal(p.server->nids, 0);
    pair_close(&p);
}

static void test_rep_to_nobody(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = connect_from(&p, p.client, CLIENT_QPN);
    carry(&p, p.client, p.server);
    struct cm_id *s = expect(p.server, CM_EVENT_REQ).id;
    cm_id_destroy(c, p.now);
    assert_int_equal(lose(p.client), 1); /* its REJ */
    accept_it(&p, s);
    carry(&p, p.server, p.client);
    assert_int_equal(carry(&p, p.client, p.server), CM_REJ);
    assert_int_equal(expect(p.server, CM_EVENT_REJ).msg.rej.reason, CM_REJ_INVALID_COMM_ID);
    pair_close(&p);
}

static void test_narrowest_listener(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_listener *four, *here, *again;
    int on_four, on_here;
    assert_int_equal(cm_listen(p.server, SERVICE, CM_SCOPE_ANY, NULL, 8, &p, &again, p.now), -98);
    assert_int_equal(cm_listen(p.server, SERVICE, CM_SCOPE_IPV4, NULL, 8, &on_four, &four, p.now),
                     0);
    connect_from(&p, p.client, 1);
    carry(&p, p.client, p.server);
    assert_ptr_equal(expect(p.server, CM_EVENT_REQ).owner, &on_four);
    assert_int_equal(
        cm_listen(p.server, SERVICE, CM_SCOPE_ADDRESS, &p.server_gid, 8, &on_here, &here, p.now),
        0);
    connect_from(&p, p.client, 2);
    carry(&p, p.client, p.server);
    assert_ptr_equal(expect(p.server, CM_EVENT_REQ).owner, &on_here);
    pair_close(&p);
}

/* Nobody but the peer, by its address, its ids and our QP number, may end a connection. */
static void test_forged_dreq(void **state)
{
    (void)state;
    struct pair p;
    struct cm_id *c, *s;
    pair_open(&p);
    establish(&p, &c, &s);
    struct cm_msg m = {.attr = CM_DREQ};
    m.dreq.local_comm_id = c->local_id;
    m.dreq.remote_comm_id = s->local_id;
    m.dreq.remote_qpn = SERVER_QPN;
    uint8_t mad[MAD_LEN];
    struct cm_route route = {.local = p.server_gid, .remote = p.client_gid};
    struct cm_route elsewhere = {.local = p.server_gid, .remote = {{[15] = 9}}};
    cm_msg_encode(mad, &m);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &elsewhere, p.now), CM_UNKNOWN_ID);
    m.dreq.remote_qpn++;
    cm_msg_encode(mad, &m);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &route, p.now), CM_UNKNOWN_ID);
    m.dreq.remote_qpn--;
    m.dreq.local_comm_id++;
    cm_msg_encode(mad, &m);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &route, p.now), CM_UNKNOWN_ID);
    expect_none(p.server);
    m.dreq.local_comm_id--;
    cm_msg_encode(mad, &m);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &route, p.now), CM_OK);
    expect(p.server, CM_EVENT_DREQ);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_xrc),
        cmocka_unit_test(test_unknown_services),
        cmocka_unit_test(test_disconnect),
        cmocka_unit_test(test_both_disconnect_at_once),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_listener_comes_back),
        cmocka_unit_test(test_rejection_is_kept),
        cmocka_unit_test(test_peer_is_silent),
        cmocka_unit_test(test_slow_user_gets_time),
        cmocka_unit_test(test_lost_rtu),
        cmocka_unit_test(test_first_packet_establishes),
        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_stale_connection),
        cmocka_unit_test(test_user_goes_without_a_word),
        cmocka_unit_test(test_accepted_and_gone),
        cmocka_unit_test(test_rep_to_nobody),
        cmocka_unit_test(test_narrowest_listener),
        cmocka_unit_test(test_forged_dreq),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
