#include "rc_wire.h"
#include "wire/ip.h"
#include <stdlib.h>
#include <sys/mman.h>

struct flight {
    struct flight *next;
    when_t at;
    uint64_t seq;
    int to;
    struct hca_rx rx;
    uint8_t bytes[ROCE_MAX_HDR_LEN + 4096 + 4];
};

enum {
    ALL = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ |
          HCA_ACCESS_REMOTE_ATOMIC | HCA_ACCESS_FLUSH_GLOBAL
};

/* Zeroed, and only touched where it is used. */
static void *pages(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

static void make_side(struct wire *w, int side, const struct wire_conf *c)
{
    struct hca_conf conf = {.function = (uint16_t)(1 + side),
                            .seed = 5u + (unsigned)side,
                            .max_window = c->max_window,
                            .start_window = c->start_window,
                            .inflight_cap = c->inflight_cap};
    struct hca *hca = w->hca[side] = hca_new(&conf);
    assert_non_null(hca);
    w->gid[side] = (struct gid){.raw = {[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)(1 + side)}};
    w->pd[side] = hca_pd_alloc(hca);
    uint32_t cqe = 2048;
    assert_int_equal(hca_cq_create(hca, &cqe, &w->scq[side], &w->scq[side]), 0);
    assert_int_equal(hca_cq_create(hca, &cqe, &w->rcq[side], &w->rcq[side]), 0);
    w->mem[side] = pages(WIRE_MEM);
    assert_int_equal(hca_mr_reg(hca, w->pd[side], w->mem[side], WIRE_MEM, (uintptr_t)w->mem[side],
                                ALL, &w->mr[side]),
                     0);
    wire_steer(w, side, 0);
    struct hca_srq_init srq = {.pd = w->pd[1], .max_wr = 4096, .max_sge = 4};
    if (c->xrc) {
        srq.xrcd = WIRE_XRCD;
        srq.cq = w->rcq[1];
    }
    if ((c->srq || c->xrc) && side == 1) {
        assert_int_equal(hca_srq_create(hca, &srq, &w->srq), 0);
        w->xrc_srqn = hca_srq_num(w->srq);
    }
    for (uint32_t i = 0; i < w->nqp; i++) {
        struct hca_qp_init init = {.type = !c->xrc     ? HCA_QPT_RC
                                           : side == 0 ? HCA_QPT_XRC_SEND
                                                       : HCA_QPT_XRC_RECV,
                                   .pd = w->pd[side],
                                   .send_cq = w->scq[side],
                                   .recv_cq = w->rcq[side],
                                   .xrcd = WIRE_XRCD,
                                   .xrcd_shared = c->xrcd_shared,
                                   .srq = side == 1 && !c->xrc ? w->srq : NULL,
                                   .cap = {.max_send_wr = c->max_wr ? c->max_wr : 256,
                                           .max_recv_wr = c->max_wr ? c->max_wr : 256,
                                           .max_send_sge = 4,
                                           .max_recv_sge = 4,
                                           .max_inline_data = 512},
                                   .bucket = (uint8_t)i};
        assert_int_equal(hca_qp_create(hca, &init, &w->qp[side][i]), 0);
    }
}

static void connect_qp(struct wire *w, int side, uint32_t i, const struct wire_conf *c)
{
    uint8_t rd = c->no_rd_atomic ? 0 : c->max_rd_atomic ? c->max_rd_atomic : 4;
    struct hca_qp_attr a = {
        .path_mtu = c->path_mtu ? c->path_mtu : 3,
        .timeout = c->timeout,
        .retry_cnt = c->retry_cnt,
        .rnr_retry = c->rnr_retry,
        .min_rnr_timer = c->min_rnr_timer,
        .max_rd_atomic = rd,
        .max_dest_rd_atomic = rd,
        .port_num = 1,
        .access = c->access ? c->access : ALL,
        .rq_psn = psn_of(c->psn),
        .sq_psn = psn_of(c->psn),
        .dest_qpn = hca_qp_num(w->qp[!side][i]),
        .av = {.sgid = w->gid[side], .dgid = w->gid[!side], .hop_limit = 64},
    };
    const uint32_t mask[] = {
        HCA_QP_ACCESS_FLAGS | HCA_QP_PKEY_INDEX | HCA_QP_PORT,
        HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN | HCA_QP_MAX_DEST_RD_ATOMIC |
            HCA_QP_MIN_RNR_TIMER,
        HCA_QP_TIMEOUT | HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC |
            HCA_QP_SQ_PSN,
    };
    const uint32_t not_ini = HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER;
    const uint32_t not_tgt = HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC;
    uint32_t without = !c->xrc ? 0 : side == 0 ? not_ini : not_tgt;
    for (int s = 0; s < 3; s++) {
        a.state = (enum hca_qp_state)(HCA_QPS_INIT + s);
        assert_int_equal(hca_qp_modify(w->hca[side], w->qp[side][i], &a,
                                       (mask[s] | HCA_QP_STATE) & ~without, w->now),
                         0);
    }
}

void wire_open(struct wire *w, const struct wire_conf *conf)
{
    *w = (struct wire){.now = {MS_NS}, .nqp = conf->nqp ? conf->nqp : 1, .random = 1};
    w->log = pages(WIRE_LOG * sizeof *w->log);
    for (int side = 0; side < 2; side++) make_side(w, side, conf);
    for (int side = 0; side < 2; side++)
        for (uint32_t i = 0; i < w->nqp; i++) connect_qp(w, side, i, conf);
}

void wire_close(struct wire *w)
{
    while (w->flights) {
        struct flight *f = w->flights;
        w->flights = f->next;
        free(f);
    }
    for (int side = 0; side < 2; side++) {
        hca_free(w->hca[side]);
        munmap(w->mem[side], WIRE_MEM);
    }
    munmap(w->log, WIRE_LOG * sizeof *w->log);
}

uint64_t wire_random(struct wire *w)
{
    uint64_t z = w->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* ---- the wire ---------------------------------------------------------------------------- */

static struct flight *fly(struct wire *w, int from, const struct hca_tx *tx, uint64_t extra_ns)
{
    struct flight *f = calloc(1, sizeof *f), **at = &w->flights;
    size_t len = tx->hdr_len;
    memcpy(f->bytes, tx->hdr, tx->hdr_len);
    for (int i = 0; i < tx->niov; i++) {
        memcpy(f->bytes + len, tx->payload[i].iov_base, tx->payload[i].iov_len);
        len += tx->payload[i].iov_len;
    }
    assert_int_equal(len, tx->hdr_len + tx->payload_len);
    len += tx->pad;
    assert_int_equal(len % 4, 0);
    f->to = !from;
    f->at = when_add(w->now, WIRE_DELAY_NS + w->rtt_extra_ns + extra_ns);
    f->seq = w->flight_seq++;
    f->rx = (struct hca_rx){.src = tx->src, .dst = tx->dst, .member = tx->member, .len = len};
    f->rx.traffic_class = tx->traffic_class;
    while (*at && ((*at)->at.ns < f->at.ns || ((*at)->at.ns == f->at.ns && (*at)->seq < f->seq)))
        at = &(*at)->next;
    f->next = *at;
    *at = f;
    return f;
}

static struct seen *note(struct wire *w, int from, const struct hca_tx *tx)
{
    assert_true(w->nlog < WIRE_LOG);
    struct seen *s = &w->log[w->nlog++];
    *s = (struct seen){
        .at = w->now,
        .from = (uint8_t)from,
        .opcode = tx->hdr[0],
        .member = tx->member,
        .traffic_class = tx->traffic_class,
        .len = tx->payload_len,
        .dqpn = tx->dqpn,
        .ackreq = tx->hdr[8] >> 7,
        .psn = psn_of((uint32_t)tx->hdr[9] << 16 | (uint32_t)tx->hdr[10] << 8 | tx->hdr[11])};
    if (roce_opcode(s->opcode)->props & OP_AETH) {
        s->syndrome = tx->hdr[12];
        s->msn = (uint32_t)tx->hdr[13] << 16 | (uint32_t)tx->hdr[14] << 8 | tx->hdr[15];
    }
    if (s->opcode == ROCE_READ_REQUEST)
        s->reth_len = (uint32_t)tx->hdr[24] << 24 | (uint32_t)tx->hdr[25] << 16 |
                      (uint32_t)tx->hdr[26] << 8 | tx->hdr[27];
    return s;
}

static bool pull(struct wire *w, int side)
{
    struct hca_tx tx[16];
    size_t n = hca_output(w->hca[side], tx, 16, w->now);
    for (size_t i = 0; i < n; i++) {
        struct seen *s = note(w, side, &tx[i]);
        enum fate fate = w->script ? w->script(w, s) : PASS;
        if (fate == DROP) continue;
        struct flight *f = fly(w, side, &tx[i], fate == LATE ? 50 * US_NS : 0);
        if (fate == MARKED && (f->rx.traffic_class & ECN_MASK)) f->rx.traffic_class |= ECN_CE;
        if (fate == TWICE) fly(w, side, &tx[i], 0);
    }
    return n > 0;
}

static void deliver(struct wire *w)
{
    while (w->flights && w->flights->at.ns <= w->now.ns) {
        struct flight *f = w->flights;
        w->flights = f->next;
        f->rx.data = f->bytes;
        hca_input(w->hca[f->to], &f->rx, w->now);
        free(f);
    }
}

void wire_run(struct wire *w, when_t until)
{
    for (uint32_t steps = 0;; steps++) {
        assert_true(steps < 10000000);
        for (bool more = true; more;) {
            bool a = pull(w, 0), b = pull(w, 1);
            more = a || b;
        }
        when_t next = w->beside ? w->beside(w) : NEVER;
        if (w->flights) next = when_min(next, w->flights->at);
        for (int side = 0; side < 2; side++) next = when_min(next, hca_deadline(w->hca[side]));
        if (when_is_never(next) || when_before(until, next)) {
            if (!when_is_never(until)) w->now = until;
            return;
        }
        if (when_before(w->now, next)) w->now = next;
        if (w->beside) w->beside(w);
        deliver(w);
        for (int side = 0; side < 2; side++)
            if (when_due(hca_deadline(w->hca[side]), w->now)) hca_expire(w->hca[side], w->now);
    }
}

void wire_run_for(struct wire *w, uint64_t ns) { wire_run(w, when_add(w->now, ns)); }

void wire_steer(struct wire *w, int side, uint8_t member)
{
    static uint32_t generation;
    struct steering table = {.generation = ++generation, .nmembers = 2, .changed = w->now};
    memset(table.active, member, sizeof table.active);
    hca_steer(w->hca[side], &table, w->now);
}

void wire_inject(struct wire *w, int to, const struct roce_hdr *hdr, const void *payload,
                 uint32_t len)
{
    uint8_t bytes[ROCE_MAX_HDR_LEN + 8192] = {0};
    struct roce_hdr h = *hdr;
    h.dqpn = hca_qp_num(w->qp[to][0]);
    h.pkey = ROCE_PKEY_DEFAULT;
    h.pad = -len & 3;
    size_t at = roce_encode(bytes, &h);
    if (len) memcpy(bytes + at, payload, len);
    struct hca_rx rx = {
        .src = w->gid[!to], .dst = w->gid[to], .data = bytes, .len = at + len + h.pad};
    hca_input(w->hca[to], &rx, w->now);
}

/* ---- work -------------------------------------------------------------------------------- */

struct hca_send_wr wire_wr(const struct wire *w, int side, enum hca_wr_opcode op, uint64_t id,
                           uint32_t remote)
{
    return (struct hca_send_wr){.wr_id = id,
                                .opcode = op,
                                .flags = HCA_SEND_SIGNALED,
                                .imm_be = (uint32_t)id,
                                .xrc_srqn = w->xrc_srqn,
                                .remote_addr = (uintptr_t)w->mem[!side] + remote,
                                .rkey = hca_mr_rkey(w->mr[!side])};
}

void wire_post(struct wire *w, int side, uint32_t qp, enum hca_wr_opcode op, uint64_t id,
               uint32_t local, uint32_t remote, uint32_t len, uint32_t flags)
{
    struct hca_sge sge = {(uintptr_t)w->mem[side] + local, len, hca_mr_lkey(w->mr[side])};
    struct hca_send_wr wr = wire_wr(w, side, op, id, remote);
    wr.flags |= flags;
    wr.sge = &sge;
    wr.num_sge = len ? 1 : 0;
    assert_int_equal(hca_post_send(w->hca[side], w->qp[side][qp], &wr, w->now), 0);
}

void wire_recv(struct wire *w, int side, uint32_t qp, uint64_t id, uint32_t local, uint32_t len)
{
    struct hca_sge sge = {(uintptr_t)w->mem[side] + local, len, hca_mr_lkey(w->mr[side])};
    struct hca_recv_wr wr = {.wr_id = id, .sge = &sge, .num_sge = len ? 1 : 0};
    if (side == 1 && w->srq)
        assert_int_equal(hca_srq_post(w->hca[1], w->srq, &wr), 0);
    else
        assert_int_equal(hca_post_recv(w->hca[side], w->qp[side][qp], &wr, w->now), 0);
}

struct hca_wc wire_wc(struct hca_cq *cq)
{
    struct hca_wc wc;
    assert_int_equal(hca_cq_poll(cq, &wc, 1), 1);
    return wc;
}

void wire_no_wc(struct hca_cq *cq)
{
    struct hca_wc wc;
    assert_int_equal(hca_cq_poll(cq, &wc, 1), 0);
}

void wire_expect(struct hca_cq *cq, uint64_t id, enum hca_wc_status status)
{
    struct hca_wc wc = wire_wc(cq);
    assert_int_equal(wc.status, status);
    assert_int_equal(wc.wr_id, id);
}

uint32_t wire_count(const struct wire *w, int from, int opcode)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->nlog; i++)
        n += w->log[i].from == from && (opcode < 0 || w->log[i].opcode == opcode);
    return n;
}

void wire_fill(struct wire *w, int side, uint32_t at, uint32_t len, uint64_t seed)
{
    uint64_t kept = w->random;
    w->random = seed;
    for (uint32_t i = 0; i < len; i++) w->mem[side][at + i] = (uint8_t)wire_random(w);
    w->random = kept;
}

void wire_same(const struct wire *w, uint32_t at0, uint32_t at1, uint32_t len)
{
    assert_memory_equal(w->mem[0] + at0, w->mem[1] + at1, len);
}

enum hca_qp_state wire_state(const struct wire *w, int side)
{
    struct hca_qp_attr a;
    hca_qp_query(w->qp[side][0], &a);
    return a.state;
}
