/* Two adapters under libFuzzer. The input is a run of operations: posts, output, delivery with and
 * without a change, packets made up or given whole, time, modifies, and the rest of the verbs. What
 * is looked for: a crash, an assertion, a byte outside (ASan), a loop without end, and output that
 * does not decode. Both sides are hostile, and both are under test. */
#include "base/must.h"
#include "fuzz_bed.h"
#include "wire/opcode.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fuzz_bed bed;

/* ---- packets on the wire ---------------------------------------------------------------- */

static void put_on_wire(int from, const struct hca_tx *tx)
{
    size_t len = tx->hdr_len, hdr_len;
    struct roce_hdr h;
    must(tx->member < STEER_MAX_MEMBERS && tx->niov <= HCA_MAX_SGE && tx->payload_len <= 4096);
    uint8_t *data = malloc(tx->hdr_len + tx->payload_len + tx->pad);
    must(data);
    memcpy(data, tx->hdr, tx->hdr_len);
    for (uint8_t i = 0; i < tx->niov; i++) {
        memcpy(data + len, tx->payload[i].iov_base, tx->payload[i].iov_len);
        len += tx->payload[i].iov_len;
    }
    must(len == tx->hdr_len + tx->payload_len);
    memset(data + len, 0, tx->pad);
    len += tx->pad;
    must(roce_decode(&h, data, len, &hdr_len) == ROCE_OK && hdr_len == tx->hdr_len);
    if (bed.nwire == MAX_WIRE) {
        free(data);
        return;
    }
    bed.wire[bed.nwire++] = (struct wire){.from = (uint8_t)from,
                                          .rx = {.src = tx->src,
                                                 .dst = tx->dst,
                                                 .hop_limit = tx->hop_limit,
                                                 .member = tx->member,
                                                 .data = data,
                                                 .len = len},
                                          .data = data};
}

static void output(struct bytes *in, int side)
{
    struct hca_tx tx[16];
    size_t n = hca_output(bed.side[side].hca, tx, 1 + pick(in, 16), bed.now);
    for (size_t i = 0; i < n; i++) put_on_wire(side, &tx[i]);
}

static void deliver(const struct wire *w)
{
    hca_input(bed.side[!w->from].hca, &w->rx, bed.now);
    if (gid_is_multicast(&w->rx.dst)) {
        struct hca_rx own = w->rx;
        own.own = true;
        hca_input(bed.side[w->from].hca, &own, bed.now);
    }
}

static void take_off(uint32_t k)
{
    free(bed.wire[k].data);
    memmove(&bed.wire[k], &bed.wire[k + 1], (bed.nwire - k - 1) * sizeof *bed.wire);
    bed.nwire--;
}

/* One field is another; the header stays as long as it is. */
static void mutate(struct bytes *in, struct wire *w)
{
    struct roce_hdr h;
    size_t len;
    if (roce_decode(&h, w->data, w->rx.len, &len) != ROCE_OK) return;
    switch (pick(in, 13)) {
    case 0: h.psn = psn_add(h.psn, (uint32_t)(int8_t)take8(in)); break;
    case 1: h.psn = psn_of(take32(in)); break;
    case 2: h.aeth.syndrome = take8(in); break;
    case 3: h.aeth.msn = take16(in); break;
    case 4: h.reth.len = take32(in); break;
    case 5: h.reth.va += (uint64_t)(int16_t)take16(in); break;
    case 6: h.atomic.va += (uint64_t)(int8_t)take8(in); break;
    case 7: h.ackreq = !h.ackreq; break;
    case 8: h.pad = take8(in) & 3; break;
    case 9: h.ieth_rkey = take32(in); break;
    case 12:
        h.feth.placement = take8(in);
        h.feth.selectivity = h.feth.placement >> 4;
        break;
    case 10: w->rx.len -= take8(in) % (w->rx.len - len + 1); break;
    case 11: {
        uint8_t other = (h.opcode & 0xe0) | (take8(in) & 31);
        const struct roce_opcode *op = roce_opcode(other);
        if ((op->props & OP_KNOWN) && op->hdr_len == len) h.opcode = other;
        break;
    }
    }
    roce_encode(w->data, &h);
}

static void wire_op(struct bytes *in, uint32_t how)
{
    if (!bed.nwire) return;
    uint32_t k = how < 4 ? 0 : pick(in, bed.nwire);
    struct wire *w = &bed.wire[k];
    bool stays = false;
    if (how == 5) mutate(in, w);
    if (how == 6) stays = true; /* doubled */
    if (how != 7) deliver(w);   /* lost */
    if (!stays) take_off(k);
}

/* ---- packets from nowhere --------------------------------------------------------------- */

static void inject(int to, const uint8_t *bytes, size_t len, const struct gid *dst, uint8_t member)
{
    uint8_t *exact = malloc(len ? len : 1);
    must(exact);
    if (len) memcpy(exact, bytes, len);
    struct hca_rx rx = {.src = bed.side[!to].gid,
                        .dst = *dst,
                        .member = member,
                        .hop_limit = 64,
                        .data = exact,
                        .len = len};
    hca_input(bed.side[to].hca, &rx, bed.now);
    free(exact);
}

static qpn_t qpn_of(int side, uint32_t i)
{
    const struct hca_qp *qp = bed.side[side].qp[i];
    return qp ? hca_qp_num(qp) : 0;
}

/* Bytes as they are, as a capture's, but for the number of the queue pair. */
static void given(struct bytes *in, int to)
{
    size_t len, want = take16(in) & 0x1fff;
    uint32_t i = pick(in, NQP + 1);
    bool patch = maybe(in);
    const uint8_t *run = take_run(in, want, &len);
    static uint8_t copy[0x2000];
    memcpy(copy, run, len);
    if (patch && len >= 8) {
        qpn_t qpn = i < NQP ? qpn_of(to, i) : ROCE_QPN_MULTICAST;
        copy[5] = (uint8_t)(qpn >> 16);
        copy[6] = (uint8_t)(qpn >> 8);
        copy[7] = (uint8_t)qpn;
    }
    struct gid group = fuzz_group(0);
    inject(to, copy, len, i < NQP ? &bed.side[to].gid : &group, 0);
}

static psn_t psn_near(struct bytes *in, const struct hca_qp *qp)
{
    uint8_t which = take8(in);
    int8_t off = (int8_t)take8(in);
    psn_t base = psn_of(0);
    if (qp &&
        (qp->type == HCA_QPT_RC || qp->type == HCA_QPT_XRC_SEND || qp->type == HCA_QPT_XRC_RECV)) {
        const psn_t at[] = {qp->rc.resp.epsn, qp->rc.req.una, qp->rc.req.next, qp->rc.req.top};
        base = at[which & 3];
    } else if (qp && qp->type == HCA_QPT_UC) {
        base = qp->uc.expect_psn;
    }
    return psn_add(base, (uint32_t)off);
}

static uint32_t rkey_of(struct bytes *in, int side)
{
    const struct side *s = &bed.side[side];
    uint32_t i = pick(in, NMR + NMW + 1);
    if (i < NMR) return s->mr[i] ? hca_mr_rkey(s->mr[i]) : 1;
    if (i < NMR + NMW) return hca_mw_rkey(s->mw[i - NMR]);
    return take32(in);
}

static uint64_t va_of(struct bytes *in, int side)
{
    uint32_t i = pick(in, NMR + 1);
    int16_t off = (int16_t)take16(in);
    return (i < NMR ? (uintptr_t)bed.side[side].mem[i] : 0) + (uint64_t)(int64_t)off;
}

static uint32_t length_of(struct bytes *in)
{
    uint32_t v = take16(in);
    return v & 0x8000 ? v << 16 : v;
}

static void made_up(struct bytes *in, int to)
{
    static uint8_t bytes[ROCE_MAX_HDR_LEN + 5000];
    uint32_t i = pick(in, NQP + NGROUP);
    const struct hca_qp *qp = i < NQP ? bed.side[to].qp[i] : NULL;
    struct roce_hdr h = {.opcode = take8(in)};
    if (!(roce_opcode(h.opcode)->props & OP_KNOWN)) return;
    uint8_t flags = take8(in);
    h.solicited = flags & 1;
    h.ackreq = flags & 2;
    h.migreq = !(flags & 4);
    h.pkey = flags & 8 ? 0x7fff : 0xffff;
    h.dqpn = i < NQP ? qpn_of(to, i) : ROCE_QPN_MULTICAST;
    h.psn = psn_near(in, qp);
    h.deth.qkey = flags & 16 ? 3 : 0x11111111;
    h.deth.sqpn = qpn_of(!to, 6);
    h.reth.va = h.atomic.va = va_of(in, to);
    h.reth.rkey = h.atomic.rkey = h.ieth_rkey = rkey_of(in, to);
    h.reth.len = length_of(in);
    h.atomic.swap_add = h.atomic.compare = take8(in);
    h.aeth.syndrome = take8(in);
    h.aeth.msn = take8(in);
    h.feth.placement = h.aeth.msn & 3;
    h.feth.selectivity = h.aeth.msn >> 2 & 3;
    h.xrc_srqn = bed.side[to].srq[1] ? hca_srq_num(bed.side[to].srq[1]) : 9;
    size_t payload = take16(in) % 4900;
    h.pad = flags & 32 ? take8(in) & 3 : -payload & 3;
    size_t len = roce_encode(bytes, &h);
    struct gid group = fuzz_group(i < NQP ? 0 : i - NQP);
    inject(to, bytes, len + payload + h.pad, i < NQP ? &bed.side[to].gid : &group,
           flags & 64 ? 1 : 0);
}

/* ---- posts ------------------------------------------------------------------------------ */

static uint32_t sges(struct bytes *in, int side, struct hca_sge *sge)
{
    const struct side *s = &bed.side[side];
    uint32_t n = pick(in, 5);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = pick(in, NMR);
        uint32_t offset = take16(in) % (uint32_t)fuzz_mr_len(i), room;
        room = (uint32_t)fuzz_mr_len(i) - offset;
        uint8_t how = take8(in);
        uint32_t len = take16(in) % (room + 1);
        if (how & 1) len = length_of(in); /* perhaps beyond it */
        sge[k] = (struct hca_sge){(uintptr_t)s->mem[i] + offset, len,
                                  s->mr[i] && !(how & 2) ? hca_mr_lkey(s->mr[i]) : how};
    }
    return n;
}

/* Mostly to what a window can be bound to, with its next key. */
static void bind(struct bytes *in, const struct side *s, struct hca_send_wr *wr)
{
    uint32_t mr = pick(in, NMR), mw = pick(in, NMW);
    uint8_t how = take8(in);
    wr->bind_lkey = s->mr[mr] ? hca_mr_lkey(s->mr[mr]) : 0;
    wr->bind_length = 8u * (how >> 2);
    wr->bind_access = HCA_ACCESS_REMOTE_READ;
    if (how & 1) {
        wr->bind_length = take16(in);
        wr->bind_access = take8(in);
        return;
    }
    wr->remote_addr = (uintptr_t)s->mem[mr];
    wr->rkey = hca_mw_rkey(s->mw[mw]);
    wr->rkey = (wr->rkey & ~0xffu) | ((wr->rkey + 1) & 0xff);
}

/* 0 .. 10 are the first ones, and one that there is not; then those without data. */
static enum hca_wr_opcode opcode_of(uint32_t k)
{
    return (enum hca_wr_opcode)(k < 11 ? k : HCA_WR_FLUSH + (k - 11));
}

static void flush(struct bytes *in, struct hca_send_wr *wr)
{
    uint8_t how = take8(in);
    wr->flush_length = how & 0x80 ? length_of(in) : take8(in);
    wr->flush_type = how & 7;
    wr->flush_level = how >> 3 & 3;
}

static void post_send(struct bytes *in, int side)
{
    struct side *s = &bed.side[side];
    uint32_t i = pick(in, NQP);
    struct hca_sge sge[4];
    struct hca_send_wr wr = {.opcode = opcode_of(pick(in, 13)), .flags = take8(in) & 31};
    if (!s->qp[i]) return;
    wr.num_sge = sges(in, side, sge);
    wr.sge = sge;
    if (wr.flags & HCA_SEND_INLINE) /* those bytes are read now */
        for (uint32_t k = 0; k < wr.num_sge; k++)
            sge[k] = (struct hca_sge){(uintptr_t)s->mem[1], sge[k].length & 0x1ff, 0};
    wr.remote_addr = va_of(in, wr.opcode == HCA_WR_BIND_MW ? side : !side);
    wr.rkey = wr.inv_rkey = rkey_of(in, wr.opcode == HCA_WR_BIND_MW || maybe(in) ? side : !side);
    if (wr.opcode == HCA_WR_BIND_MW) {
        bind(in, s, &wr);
    } else if (wr.opcode == HCA_WR_FLUSH) {
        flush(in, &wr);
    } else {
        wr.compare_add = take8(in);
        wr.swap = take8(in);
    }
    uint32_t to = pick(in, NQP + NGROUP);
    wr.ah = (struct hca_ah){.sgid = s->gid,
                            .dgid = to < NQP ? bed.side[!side].gid : fuzz_group(to - NQP)};
    wr.remote_qpn = to < NQP ? qpn_of(!side, to) : ROCE_QPN_MULTICAST;
    wr.remote_qkey = 0x11111111;
    wr.xrc_srqn = bed.side[!side].srq[1] ? hca_srq_num(bed.side[!side].srq[1]) : 5;
    (void)!hca_post_send(s->hca, s->qp[i], &wr, bed.now);
}

static void post_recv(struct bytes *in, int side)
{
    struct side *s = &bed.side[side];
    uint32_t i = pick(in, NQP + NSRQ);
    struct hca_sge sge[4];
    struct hca_recv_wr wr = {.sge = sge};
    wr.num_sge = sges(in, side, sge);
    if (i < NQP && s->qp[i])
        (void)!hca_post_recv(s->hca, s->qp[i], &wr, bed.now);
    else if (i >= NQP && s->srq[i - NQP])
        (void)!hca_srq_post(s->hca, s->srq[i - NQP], &wr);
}

/* ---- states and time -------------------------------------------------------------------- */

static void modify(struct bytes *in, int side)
{
    struct side *s = &bed.side[side];
    uint32_t i = pick(in, NQP);
    if (!s->qp[i]) return;
    struct hca_qp_attr attr = fuzz_qp_attr(&bed, side, i);
    attr.state = (enum hca_qp_state)pick(in, 8);
    attr.cur_state = s->qp[i]->state;
    uint32_t mask = fuzz_qp_mask(s->qp[i]->type, attr.state);
    uint8_t how = take8(in);
    if (how & 1) mask ^= 1u << pick(in, 26);
    if (how & 2) mask &= ~(uint32_t)HCA_QP_STATE;
    if (how & 4) mask = take32(in);
    if (how & 8) attr.path_mtu = take8(in) & 7;
    if (how & 16) attr.timeout = attr.retry_cnt = attr.rnr_retry = take8(in) & 31;
    if (how & 32) attr.max_rd_atomic = attr.max_dest_rd_atomic = take8(in);
    if (how & 64) attr.access = take8(in);
    if (how & 128) attr.sq_psn = attr.rq_psn = psn_of(take32(in));
    (void)!hca_qp_modify(s->hca, s->qp[i], &attr, mask, bed.now);
}

static void pass_time(struct bytes *in, int side)
{
    uint8_t how = take8(in);
    when_t at = hca_deadline(bed.side[side].hca);
    if ((how & 0x80) && !when_is_never(at))
        bed.now = when_before(bed.now, at) ? at : bed.now;
    else
        bed.now = when_add(bed.now, 1ull << how % 36);
    for (int k = 0; k < 2; k++)
        if (when_due(hca_deadline(bed.side[k].hca), bed.now)) hca_expire(bed.side[k].hca, bed.now);
}

static void steer(struct bytes *in, int side)
{
    struct hca *hca = bed.side[side].hca;
    struct steering table = {.generation = 2, .nmembers = 2, .usable = 3, .changed = bed.now};
    uint8_t how = take8(in);
    if (how & 1) memset(table.active, 1, sizeof table.active);
    if (how & 2) {
        memset(table.active, STEER_NO_MEMBER, sizeof table.active);
        table.usable = 0;
    }
    if (how & 4) table.active[pick(in, NQP)] = take8(in) & 1;
    hca_steer(hca, &table, bed.now);
    if ((how & 8) && bed.side[side].qp[how >> 4 & 7])
        hca_qp_set_bucket(hca, bed.side[side].qp[how >> 4 & 7], take8(in), bed.now);
}

/* ---- completions ------------------------------------------------------------------------ */

static void completions(struct bytes *in, int side)
{
    struct side *s = &bed.side[side];
    struct hca_wc wc[8];
    struct hca_event event;
    struct hca_cq *cq = s->cq[pick(in, NCQ)];
    uint8_t how = take8(in);
    uint32_t cqe = 1 + (how >> 4) * 8u;
    switch (how & 7) {
    case 0: hca_cq_arm(s->hca, cq, how & 8); break;
    case 1: hca_cq_moderate(s->hca, cq, how >> 4, (how & 8) * US_NS); break;
    case 2: (void)!hca_cq_resize(s->hca, cq, &cqe); break;
    case 3:
        while (hca_next_event(s->hca, &event)) must(event.owner);
        break;
    case 4:
        while (hca_next_notified(s->hca)) continue;
        break;
    default: (void)!hca_cq_poll(cq, wc, 1 + (how >> 5)); break;
    }
}

/* ---- the other verbs -------------------------------------------------------------------- */

static void remake_qp(struct side *s, int side, uint32_t i)
{
    if (!s->qp[i]) {
        fuzz_qp_create(&bed, side, i);
        return;
    }
    for (uint32_t g = 0; g < NGROUP; g++) {
        struct gid group = fuzz_group(g);
        (void)!hca_mcast_detach(s->hca, s->qp[i], &group);
    }
    must(hca_qp_destroy(s->hca, s->qp[i]) == 0);
    s->qp[i] = NULL;
}

static void remake_mr(struct bytes *in, struct side *s, uint32_t i)
{
    if (!s->mr[i])
        fuzz_mr_create(s, i);
    else if (maybe(in))
        (void)!hca_mr_rereg(s->hca, s->mr[i], s->pd[0], s->mem[i], fuzz_mr_len(i),
                            (uintptr_t)s->mem[i], HCA_ACCESS_LOCAL_WRITE);
    else if (hca_mr_dereg(s->hca, s->mr[i]) == 0)
        s->mr[i] = NULL;
}

static void remake_srq(struct side *s, uint32_t i)
{
    if (!s->srq[i])
        fuzz_srq_create(s, i);
    else if (i && hca_srq_destroy(s->hca, s->srq[i]) == 0)
        s->srq[i] = NULL;
}

static void look(struct side *s, uint32_t i)
{
    struct hca_qp_view view;
    struct hca_qp_attr attr;
    struct hca_span span;
    if (s->qp[i]) {
        hca_qp_view(s->qp[i], &view);
        hca_qp_query(s->qp[i], &attr);
        must(view.qpn == hca_qp_num(s->qp[i]) && attr.state == s->qp[i]->state);
        must(hca_qp_send_room(s->qp[i]) <= 4);
    }
    const struct hca_mr *mr = s->mr[i % NMR];
    if (mr && hca_mr_span(s->hca, s->pd[0], hca_mr_lkey(mr), i, 8, &span) == 0) must(span.at);
}

static void other(struct bytes *in, int side)
{
    struct side *s = &bed.side[side];
    uint8_t how = take8(in);
    uint32_t i = pick(in, NQP), n = take8(in);
    struct gid group = fuzz_group(how & 1);
    switch (how >> 1 & 15) {
    case 0: (void)!fuzz_qp_walk(&bed, side, i, (enum hca_qp_state)(n % 7)); break;
    case 1: remake_qp(s, side, i); break;
    case 2: remake_mr(in, s, i % NMR); break;
    case 3:
        if (s->qp[i]) (void)!hca_mcast_attach(s->hca, s->qp[i], &group);
        break;
    case 4:
        if (s->qp[i]) (void)!hca_mcast_detach(s->hca, s->qp[i], &group);
        break;
    case 5:
        hca_mw_dealloc(s->hca, s->mw[how & 1]);
        must(hca_mw_alloc(s->hca, s->pd[0], how & 32 ? HCA_MW_TYPE_1 : HCA_MW_TYPE_2,
                          &s->mw[how & 1]) == 0);
        break;
    case 6: remake_srq(s, how & 1); break;
    case 7:
        if (s->srq[how & 1])
            (void)!hca_srq_modify(s->hca, s->srq[how & 1], how & 32 ? &n : NULL,
                                  how & 64 ? &n : NULL);
        break;
    case 8: hca_hold_acks(s->hca, how & 1); break;
    case 9: hca_set_mtu(s->hca, 256u << (n & 3)); break;
    case 10: hca_set_speed(s->hca, n * 1000000ull); break;
    case 11: fuzz_pages = how & 1; break;
    case 12:
        if (s->qp[i]) (void)!hca_qp_rate_limit(s->hca, s->qp[i], n * 1000, n);
        break;
    case 13: look(s, i); break;
    default: memset(s->mem[i % NMR], (int)n, fuzz_mr_len(i % NMR)); break;
    }
}

/* Carries what there is until it is quiet, or long enough. */
static void settle(struct bytes *in)
{
    for (int round = 0; round < 8; round++) {
        for (int side = 0; side < 2; side++) output(in, side);
        while (bed.nwire) wire_op(in, 0);
    }
}

static void step(struct bytes *in)
{
    uint8_t op = take8(in);
    int side = op >> 7;
    switch (op & 15) {
    case 0:
    case 1: post_send(in, side); break;
    case 2: post_recv(in, side); break;
    case 3: output(in, side); break;
    case 4:
    case 5: wire_op(in, 0); break;
    case 6: wire_op(in, op >> 4 & 7); break;
    case 7: given(in, side); break;
    case 8:
    case 9: made_up(in, side); break;
    case 10: pass_time(in, side); break;
    case 11: modify(in, side); break;
    case 12: completions(in, side); break;
    case 13: settle(in); break;
    case 14: op & 64 ? steer(in, side) : pass_time(in, side); break;
    case 15: other(in, side); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = {data, size};
    fuzz_bed_open(&bed);
    for (int n = 0; in.left && n < 400; n++) step(&in);
    struct bytes none = {data, 0};
    settle(&none);
    fuzz_bed_close(&bed);
    return 0;
}
