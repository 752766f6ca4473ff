/* The adapter: packets in (decode, find the QP, check, hand to its service), packets out (QPs in
 * turn), time, and steering. */
#include "base/must.h"
#include "hca/qp.h"
#include "hca/ud.h"
#include "hca/xrc_calls.h"
#include "hca/xrc_guest.h"
#include "wire/opcode.h"
#include <errno.h>
#include <stdlib.h>

enum {
    TURN = 16, /* packets a QP may give before the next one has its turn */
    SERVICE_MASK = 0xe0,
    PKEY_NUMBER = 0x7fff, /* the top bit tells full from limited membership (IBTA 10.9.1.1) */
};

struct hca *hca_new(const struct hca_conf *conf)
{
    if (conf->function >= 1u << HCA_FUNCTION_BITS) return NULL;
    struct hca *hca = calloc(1, sizeof *hca);
    if (!hca) return NULL;
    hca->conf = *conf;
    hca->mtu = HCA_MAX_MTU;
    hca->random = conf->seed;
    memset(hca->table.home, STEER_NO_MEMBER, sizeof hca->table.home);
    memset(hca->table.active, STEER_NO_MEMBER, sizeof hca->table.active);
    struct list *heads[] = {&hca->ready,    &hca->sent,      &hca->held,      &hca->events,
                            &hca->notified, &hca->overrun,   &hca->moderated, &hca->starved,
                            &hca->qps,      &hca->cqs,       &hca->srqs,      &hca->mrs.free,
                            &hca->calling,  &hca->calls_full};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) list_init(heads[i]);
    for (size_t i = 0; i < GUEST_CHAINS; i++) list_init(&hca->guests[i]);
    hca->qpns.cursor = (uint32_t)hca_random(hca) & (HCA_MAX_QP - 1);
    hca->srqns.cursor = (uint32_t)hca_random(hca) & (HCA_MAX_QP - 1);
    return hca;
}

void hca_free(struct hca *hca)
{
    if (!hca) return;
    xrc_guests_free_all(hca);
    list_for_each_safe (node, tmp, &hca->qps) {
        struct hca_qp *qp = container_of(node, struct hca_qp, all);
        mcast_forget(hca, qp);
        hca_qp_destroy(hca, qp);
    }
    list_for_each_safe (node, tmp, &hca->srqs)
        hca_srq_destroy(hca, container_of(node, struct hca_srq, all));
    list_for_each_safe (node, tmp, &hca->cqs)
        hca_cq_destroy(hca, container_of(node, struct hca_cq, all));
    xrc_calls_free_all(hca);
    mr_free_all(hca);
    mcast_free(hca);
    heap_free(&hca->alarms);
    free(hca);
}

/* SplitMix64: one addition and a mix, of full period. The seed is what makes it unpredictable. */
uint64_t hca_random(struct hca *hca)
{
    uint64_t z = hca->random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint32_t hca_pd_alloc(struct hca *hca) { return ++hca->next_pd; }

void hca_set_mtu(struct hca *hca, uint32_t bytes)
{
    must(bytes >= 256 && bytes <= HCA_MAX_MTU);
    hca->mtu = bytes;
}

void hca_set_speed(struct hca *hca, uint64_t bytes_per_sec)
{
    pace_port(&hca->pace, bytes_per_sec);
}

const struct hca_counters *hca_counters(const struct hca *hca) { return &hca->counters; }

const struct hca_member_counters *hca_member_counters(const struct hca *hca, uint8_t member)
{
    must(member < STEER_MAX_MEMBERS);
    return &hca->members[member];
}

void hca_count_bad_rx(struct hca *hca) { hca->counters.rx_bad_header++; }

/* ---- in --------------------------------------------------------------------------------- */

static void count_rx(struct hca *hca, const struct hca_rx *rx)
{
    hca->counters.rx_packets++;
    hca->counters.rx_bytes += rx->len;
    if (rx->member < STEER_MAX_MEMBERS) {
        hca->members[rx->member].rx_packets++;
        hca->members[rx->member].rx_bytes += rx->len;
    }
}

uint64_t *hca_refuse(struct hca *hca, const struct hca_qp *qp, const struct roce_hdr *h,
                     const struct hca_rx *rx)
{
    struct hca_counters *c = &hca->counters;
    uint8_t service = h->opcode & SERVICE_MASK;

    if (!qp) return &c->rx_bad_qp;
    if (service != qp->service && !(service == ROCE_CNP && qp_is_reliable(qp)))
        return &c->rx_bad_qp;
    if ((h->pkey & PKEY_NUMBER) != (ROCE_PKEY_DEFAULT & PKEY_NUMBER)) return &c->rx_bad_pkey;
    if (qp->state < HCA_QPS_RTR || qp->state > HCA_QPS_SQE) return &c->rx_bad_state;
    if (qp->type == HCA_QPT_UD) {
        /* IBTA 9.6.1.2: multicast goes to the multicast QPN, and nothing else does. */
        if (gid_is_multicast(&rx->dst) != (h->dqpn == ROCE_QPN_MULTICAST)) return &c->rx_bad_qp;
    } else if (!gid_equal(&rx->src, &qp->attr.av.dgid) || !gid_equal(&rx->dst, &qp->attr.av.sgid)) {
        return &c->rx_dropped; /* a connected QP hears its own peer alone */
    }
    return NULL;
}

void hca_input(struct hca *hca, const struct hca_rx *rx, when_t now)
{
    struct roce_hdr h;
    size_t hdr_len;
    count_rx(hca, rx);
    if (roce_decode(&h, rx->data, rx->len, &hdr_len) != ROCE_OK) {
        hca->counters.rx_bad_header++;
        return;
    }
    const uint8_t *payload = rx->data + hdr_len;
    size_t len = rx->len - hdr_len - h.pad;
    if (h.dqpn == ROCE_QPN_MULTICAST) {
        mcast_input(hca, rx, &h, payload, len, now);
        cq_fail_overrun(hca, now);
        return;
    }
    struct hca_qp *qp = numbers_find(hca, &hca->qpns, h.dqpn);
    uint64_t *why_not = hca_refuse(hca, qp, &h, rx);
    if (why_not) {
        ++*why_not;
        return;
    }
    qp->view.rx_packets++;
    qp->view.rx_bytes += rx->len;
    if ((h.opcode & SERVICE_MASK) == ROCE_CNP) {
        hca->counters.cnp_received++;
        rc_cnp(qp, now);
    } else if (qp_is_reliable(qp)) {
        rc_ecn(qp, rx->traffic_class, now);
        rc_input(qp, rx, &h, payload, len, now);
    } else if (qp->type == HCA_QPT_UC) {
        uc_input(qp, rx, &h, payload, len, now);
    } else {
        ud_input(qp, rx, &h, payload, len, now);
    }
    cq_fail_overrun(hca, now);
}

/* ---- out -------------------------------------------------------------------------------- */

static void complete_sent(struct hca *hca, when_t now)
{
    while (!list_empty(&hca->sent))
        qp_complete_sent(container_of(hca->sent.next, struct hca_qp, sent), now);
}

static size_t turn(struct hca_qp *qp, struct hca_tx *out, size_t max, when_t now)
{
    struct pace *port = &qp->hca->pace;

    if (qp_is_reliable(qp)) return rc_output(qp, out, max, now);
    if (!pace_admits(port, now)) {
        agenda_deadline(qp, pace_resume_at(port)); /* then it has its turn */
        return 0;
    }
    size_t room = qp_rate_room(qp, max, now);
    if (room == 0) return 0;
    size_t n =
        qp->type == HCA_QPT_UC ? uc_output(qp, out, room, now) : ud_output(qp, out, room, now);
    pace_sent(port, out, n, now);
    qp_rate_sent(qp, out, n, n == room, now);
    return n;
}

size_t hca_output(struct hca *hca, struct hca_tx *out, size_t max, when_t now)
{
    size_t n = 0;
    uint32_t idle = 0; /* turns in a row that gave nothing: all QPs had theirs, then it is enough */
    complete_sent(hca, now);
    while (n < max && idle <= hca->nqps && !list_empty(&hca->ready)) {
        struct hca_qp *qp = container_of(hca->ready.next, struct hca_qp, turn);
        list_del(&qp->turn);
        size_t want = max - n < TURN ? max - n : TURN;
        size_t got = turn(qp, out + n, want, now);
        must(got <= want);
        n += got;
        idle = got ? 0 : idle + 1;
        if (got == want) agenda_ready(qp);
    }
    if (n == 0) complete_sent(hca, now); /* sent to nowhere: no member */
    cq_fail_overrun(hca, now);
    return n;
}

void hca_hold_acks(struct hca *hca, bool hold)
{
    hca->hold_acks = hold;
    while (!hold && !list_empty(&hca->held)) {
        struct hca_qp *qp = container_of(hca->held.next, struct hca_qp, held);
        list_del(&qp->held);
        agenda_ready(qp);
    }
}

bool hca_acks_held(const struct hca *hca) { return !list_empty(&hca->held); }

/* ---- time ------------------------------------------------------------------------------- */

when_t hca_deadline(const struct hca *hca)
{
    if (!list_empty(&hca->sent)) return (when_t){0};
    return when_min(heap_when(&hca->alarms), hca_cq_deadline(hca));
}

void hca_expire(struct hca *hca, when_t now)
{
    complete_sent(hca, now);
    /* Each QP once: one that wants to be woken again at a moment already past waits for the next
     * call. */
    for (uint32_t left = hca->alarms.len; left > 0; left--) {
        if (!when_due(heap_when(&hca->alarms), now)) break;
        struct hca_qp *qp = container_of(heap_first(&hca->alarms), struct hca_qp, alarm);
        agenda_deadline(qp, NEVER);
        if (qp_is_reliable(qp))
            rc_expire(qp, now);
        else
            agenda_ready(qp); /* held by its pace */
    }
    hca_cq_expire(hca, now);
    cq_fail_overrun(hca, now);
}

/* ---- steering --------------------------------------------------------------------------- */

void hca_steer(struct hca *hca, const struct steering *table, when_t now)
{
    const struct steering before = hca->table;
    hca->table = *table;
    for (size_t i = 0; i < STEER_BUCKETS; i++) {
        if (hca->table.active[i] >= STEER_MAX_MEMBERS) hca->table.active[i] = STEER_NO_MEMBER;
    }
    list_for_each (node, &hca->qps) {
        struct hca_qp *qp = container_of(node, struct hca_qp, all);
        uint8_t member = hca->table.active[qp->bucket];
        /* News of something else: a detour has its reasons still. */
        if (member == before.active[qp->bucket] && detour_stands(qp)) continue;
        detour_reset(&qp->detour);
        qp_steer(qp, member, table->changed, now);
    }
    cq_fail_overrun(hca, now);
}
