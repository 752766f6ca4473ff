/* What the connection manager says beside what a kernel said (test/golden), service id resolution,
 * and what it makes of nonsense. */
#include "pair.h"

#include "base/bits.h"
#include "wire/frame.h"
#include <stdlib.h>
#include <string.h>

/* The MAD of the trace's first frame with this attribute. */
static void golden_mad(const char *file, unsigned attr, uint8_t mad[MAD_LEN],
                       struct cm_route *route)
{
    char path[512];
    struct pcap pcap;
    struct frame f;
    snprintf(path, sizeof path, "%s/%s", getenv("RBOND_GOLDEN"), file);
    assert_true(pcap_open(&pcap, path));
    while (pcap_next(&pcap)) {
        struct roce_hdr h;
        size_t at;
        if (!frame_open(&f, pcap.frame, pcap.len)) continue;
        if (roce_decode(&h, f.roce, f.roce_len, &at) != ROCE_OK || h.dqpn != 1) continue;
        if (f.roce_len - at != MAD_LEN || f.roce[at + 17] != attr) continue;
        memcpy(mad, f.roce + at, MAD_LEN);
        *route = (struct cm_route){.local = f.ip.dst, .remote = f.ip.src};
        pcap_close(&pcap);
        return;
    }
    fail_msg("%s has no such message", file);
}

static void test_req_as_the_kernel_sends_it(void **state)
{
    (void)state;
    struct pair p;
    uint8_t theirs[MAD_LEN];
    struct cm_route route;
    struct cm_msg m;
    golden_mad("rxe-rping.pcap", CM_REQ, theirs, &route);
    assert_true(cm_msg_decode(&m, theirs, sizeof theirs));
    pair_open(&p);
    struct cm_connect_param param = {
        .route = {.local = route.remote, .remote = route.local},
        .service_id = m.req.service_id,
        .path_mtu = m.req.path_mtu,
        .ack_timeout = m.req.primary.local_ack_timeout,
        .offer = {.qpn = m.req.local_qpn,
                  .psn = m.req.starting_psn,
                  .responder_resources = m.req.responder_resources,
                  .initiator_depth = m.req.initiator_depth,
                  .retry_count = m.req.retry_count,
                  .rnr_retry_count = m.req.rnr_retry_count,
                  .ca_guid = m.req.local_ca_guid,
                  .private_data = m.req.private_data,
                  .private_len = sizeof m.req.private_data},
    };
    struct cm_id *id;
    struct cm_out ours;
    assert_int_equal(cm_connect(p.client, &param, NULL, &id, p.now), 0);
    assert_int_equal(cm_output(p.client, &ours, 1), 1);
    memcpy(ours.mad + 8, theirs + 8, 8);                     /* transaction id */
    memcpy(ours.mad + MAD_HDR_LEN, theirs + MAD_HDR_LEN, 4); /* communication id */
    memset(theirs + 112, 0, 3);                              /* its flow label, a random number */
    assert_memory_equal(ours.mad, theirs, MAD_LEN);
    pair_close(&p);
}

static void test_kernel_as_the_client(void **state)
{
    (void)state;
    struct pair p;
    uint8_t mad[MAD_LEN];
    struct cm_route route;
    struct rdma_cm_hdr h;
    golden_mad("rxe-rping.pcap", CM_REQ, mad, &route);
    pair_open(&p);
    assert_int_equal(cm_input(p.server, mad, sizeof mad, &route, p.now), CM_OK);
    struct cm_event e = expect(p.server, CM_EVENT_REQ);
    assert_true(rdma_cm_hdr_decode(&h, e.msg.req.private_data, sizeof e.msg.req.private_data));
    assert_true(gid_equal(&h.src, &route.remote));
    accept_it(&p, e.id);
    struct cm_out out;
    struct cm_msg rep;
    assert_int_equal(cm_output(p.server, &out, 1), 1);
    assert_true(cm_msg_decode(&rep, out.mad, sizeof out.mad));
    assert_int_equal(rep.rep.remote_comm_id, e.msg.req.local_comm_id);
    assert_int_equal(rep.tid, e.msg.tid);
    pair_close(&p);
}

/* ---- service id resolution
 * ----------------------------------------------------------------------- */

static struct cm_id *ask(struct pair *p)
{
    struct cm_route route = {.local = p->client_gid, .remote = p->server_gid};
    struct cm_id *id;
    assert_int_equal(cm_sidr(p->client, &route, SERVICE, "who", 3, p, &id, p->now), 0);
    return id;
}

static void test_sidr(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *c = ask(&p);
    carry(&p, p.client, p.server);
    struct cm_event req = expect(p.server, CM_EVENT_SIDR_REQ);
    assert_memory_equal(req.msg.sidr_req.private_data, "who\0", 4);
    assert_int_equal(cm_sidr_answer(req.id, CM_SIDR_OK, 0x33, 0x44, "me", 2, p.now), 0);
    assert_int_equal(cm_sidr_answer(req.id, CM_SIDR_OK, 0x33, 0x44, "me", 2, p.now), -22);
    assert_int_equal(lose(p.server), 1);
    wait_for(&p, p.client); /* asked again, it repeats its answer without its user */
    carry(&p, p.client, p.server);
    expect_none(p.server);
    carry(&p, p.server, p.client);
    struct cm_event rep = expect(p.client, CM_EVENT_SIDR_REP);
    assert_int_equal(rep.msg.sidr_rep.qpn, 0x33);
    assert_int_equal(rep.msg.sidr_rep.qkey, 0x44);
    assert_memory_equal(rep.msg.sidr_rep.private_data, "me\0", 3);
    cm_id_destroy(c, p.now);
    cm_id_destroy(req.id, p.now);
    wait_for(&p, p.server);
    assert_int_equal(p.client->nids + p.server->nids, 0);
    pair_close(&p);
}

static void test_sidr_refusals(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    ask(&p);
    carry(&p, p.client, p.server);
    cm_id_destroy(expect(p.server, CM_EVENT_SIDR_REQ).id, p.now);
    carry(&p, p.server, p.client);
    assert_int_equal(expect(p.client, CM_EVENT_SIDR_REP).msg.sidr_rep.status, CM_SIDR_REJECTED);
    cm_listener_destroy(p.listener);
    ask(&p);
    carry(&p, p.client, p.server);
    wait_for(&p, p.server);
    carry(&p, p.server, p.client);
    assert_int_equal(expect(p.client, CM_EVENT_SIDR_REP).msg.sidr_rep.status,
                     CM_SIDR_UNSUPPORTED_SERVICE);
    ask(&p);
    for (unsigned i = 0; i < CM_MAX_RETRIES; i++) {
        assert_int_equal(lose(p.client), 1);
        wait_for(&p, p.client);
    }
    lose(p.client);
    wait_for(&p, p.client);
    expect(p.client, CM_EVENT_SIDR_ERROR);
    pair_close(&p);
}

/* ---- nonsense
 * ------------------------------------------------------------------------------------- */

static uint64_t random_state = 42;

static uint32_t rnd(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33);
}

/* Messages of the right form with fields that half fit, for ids in all states. */
static void test_nonsense(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    struct cm_id *id[8];
    for (unsigned i = 0; i < 8; i++) {
        id[i] = connect_from(&p, p.client, 100 + i);
        if (i & 1) carry(&p, p.client, p.server);
        carry(&p, p.server, p.client);
    }
    for (unsigned n = 0; n < 200000; n++) {
        struct cm *cm = rnd() & 1 ? p.client : p.server;
        uint8_t mad[MAD_LEN] = {1, 7, 2, 3};
        for (size_t i = 4; i < sizeof mad; i++) mad[i] = (uint8_t)rnd();
        mad[16] = 0;
        mad[17] = (uint8_t)(0x10 + rnd() % 12);
        if (rnd() % 8) memset(mad + 18, 0, 6);
        put_be32(mad + 24, rnd() % 4 ? id[rnd() % 8]->remote_id : rnd());
        put_be32(mad + 28, rnd() % 4 ? id[rnd() % 8]->local_id : rnd());
        if (mad[17] == CM_REQ && rnd() % 2) put_be64(mad + 32, SERVICE);
        struct cm_route route = {.local = p.client_gid, .remote = p.server_gid};
        if (cm == p.server)
            route = (struct cm_route){.local = p.server_gid, .remote = p.client_gid};
        cm_input(cm, mad, rnd() % 64 ? sizeof mad : rnd() % sizeof mad, &route, p.now);
        lose(cm);
        struct cm_event e;
        while (cm_next_event(cm, &e))
            if (e.type == CM_EVENT_REQ || e.type == CM_EVENT_SIDR_REQ) cm_id_destroy(e.id, p.now);
        if (rnd() % 16 == 0) {
            p.now = when_add(p.now, rnd() % (SEC_NS / 4));
            cm_expire(cm, p.now);
        }
    }
    for (unsigned i = 0; i < 8; i++) cm_id_destroy(id[i], p.now);
    for (unsigned i = 0; i < 1000 && (p.client->nids || p.server->nids); i++) {
        p.now = when_add(p.now, SEC_NS);
        cm_expire(p.client, p.now);
        cm_expire(p.server, p.now);
        struct cm_event e;
        while (cm_next_event(p.server, &e)) {
        }
        lose(p.client);
        lose(p.server);
    }
    assert_int_equal(p.client->nids, 0);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_req_as_the_kernel_sends_it),
        cmocka_unit_test(test_kernel_as_the_client),
        cmocka_unit_test(test_sidr),
        cmocka_unit_test(test_sidr_refusals),
        cmocka_unit_test(test_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
