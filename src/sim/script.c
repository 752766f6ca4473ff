/* See script.h. */
#include "sim/script.h"
#include "base/must.h"
#include "sim/plan_messages.h"
#include <stdlib.h>

void script_begin(struct plan *p, uint64_t seed, uint8_t members, enum fabric fabric)
{
    *p = (struct plan){.seed = seed,
                       .profile = PROFILE_CUTS,
                       .nhosts = 2,
                       .fabric = fabric,
                       .bytes_per_ms = 1250000,
                       .notice_max_ns = 5 * MS_NS};
    struct rng rng = {mix64(seed)};
    for (uint8_t i = 0; i < 2; i++) {
        p->host[i] = (struct host_conf){
            .nmembers = members,
            .mode = BOND_ACTIVE_BACKUP,
            .hca = {.function = 1,
                    .seed = rng_u64(&rng),
                    .max_window = 1 << 20,
                    .start_window = 64 << 10,
                    .inflight_cap = 4 << 20},
            .link = {.delay_ns = 10 * US_NS},
            .tx_burst = 32,
            .rx_burst = 16,
            .rx_room = 16 << 20,
            .rx_wake_ns = 1000,
            .rx_cost_ns = 200,
        };
        p->cq_mode[i] = CQ_ARMED;
    }
    plan_grounds(p, &rng);
}

uint32_t script_pair(struct plan *p, enum hca_qp_type type)
{
    uint32_t first = p->nqps;
    must(first + 2 <= PLAN_MAX_QPS);
    p->nqps += 2;
    for (uint32_t i = first; i < first + 2; i++) {
        p->qp[i] = (struct plan_qp){
            .type = type,
            .host = (uint8_t)(i - first),
            .peer = (uint16_t)(2 * first + 1 - i),
            .mtu = 5,
            .timeout = 14,
            .retry_cnt = 7,
            .rnr_retry = 7,
            .min_rnr_timer = 1,
            .max_rd_atomic = 16,
            .max_dest_rd_atomic = 16,
            .send_depth = SCRIPT_MAX_REQUESTS,
            .recv_depth = SCRIPT_MAX_REQUESTS,
            .max_sge = 2,
            .sq_psn = 0xfffff0,
            .rq_psn = 0xfffff0,
            .eager_receives = true,
        };
        p->qp[i].request = calloc(SCRIPT_MAX_REQUESTS + 1, sizeof(struct request));
        must(p->qp[i].request);
    }
    return first;
}

static struct word *the_word(struct plan *p, uint8_t host)
{
    for (uint32_t i = 0; i < p->nwords; i++)
        if (p->word[i].plot->host == host) return &p->word[i];
    struct word *w = &p->word[p->nwords++];
    *w = (struct word){.plot = ground_plot(&p->ground[host], LOT_RW0, 8), .init = mix64(p->seed)};
    w->plot->wild = true;
    return w;
}

struct request *script_request(struct plan *p, uint32_t qp, enum hca_wr_opcode op, uint32_t len)
{
    struct plan_qp *q = &p->qp[qp];
    const struct plan_qp *peer = &p->qp[q->peer];
    must(q->nrequests < SCRIPT_MAX_REQUESTS);
    struct request *r = &q->request[q->nrequests++];
    bool atomic = op == HCA_WR_ATOMIC_CMP_AND_SWP || op == HCA_WR_ATOMIC_FETCH_AND_ADD;
    uint64_t chance = mix64(p->seed ^ (uint64_t)qp << 32 ^ q->nrequests);
    *r = (struct request){.op = op,
                          .flags = HCA_SEND_SIGNALED,
                          .len = atomic || op == HCA_WR_ATOMIC_WRITE ? 8 : len,
                          .imm_be = (uint32_t)chance,
                          .key = chance | 1,
                          .compare_add = mix64(chance),
                          .swap = mix64(chance + 1),
                          .to = q->peer};
    if (r->len && !oracle_is_bare(op)) {
        r->local.len = r->len;
        r->local.n = 1;
        r->local.plot[0] = ground_plot(&p->ground[q->host], LOT_RW0, r->len);
        r->local.plot[0]->uses++;
    }
    if (atomic)
        r->word = the_word(p, peer->host);
    else if (op != HCA_WR_SEND && op != HCA_WR_SEND_WITH_IMM)
        r->remote = ground_plot(&p->ground[peer->host], LOT_RW0, r->len);
    if (r->remote) r->remote->uses++;
    plan_count_message(p, r);
    p->npackets += 1 + len / 4096;
    return r;
}

void script_cut_port(struct plan *p, uint64_t at_ns, uint64_t mend_ns, uint8_t host, uint8_t member)
{
    must(p->ncuts < PLAN_MAX_CUTS);
    p->cut[p->ncuts++] = (struct plan_cut){at_ns, mend_ns, host, member, true, true, true};
}

void script_cut(struct plan *p, uint64_t at_ns, uint64_t mend_ns, uint8_t member)
{
    script_cut_port(p, at_ns, mend_ns, 0, member);
    script_cut_port(p, at_ns, mend_ns, 1, member);
}

void script_end(struct plan *p)
{
    struct rng rng = {mix64(p->seed + 1)};
    plan_receives(p, &rng);
}
