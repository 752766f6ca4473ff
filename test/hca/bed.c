#include "bed.h"
#include "wire/ip.h"
#include <stdlib.h>

const char bed_owner[2][2] = {"a", "b"};

static void make_side(struct bed *bed, int side, enum hca_qp_type type,
                      struct hca_srq *(*make_srq)(struct bed *))
{
    struct hca_conf conf = {.function = (uint16_t)(1 + side), .seed = 77u + (unsigned)side};
    struct hca *hca = bed->hca[side] = hca_new(&conf);
    assert_non_null(hca);
    bed->gid[side] = (struct gid){.raw = {[10] = 0xff, [11] = 0xff, 10, 0, 0, (uint8_t)(1 + side)}};
    bed->pd[side] = hca_pd_alloc(hca);
    uint32_t cqe = 256;
    assert_int_equal(hca_cq_create(hca, &cqe, &bed->scq[side], &bed->scq[side]), 0);
    assert_int_equal(hca_cq_create(hca, &cqe, &bed->rcq[side], &bed->rcq[side]), 0);
    uint32_t access = HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ |
                      HCA_ACCESS_REMOTE_ATOMIC;
    assert_int_equal(hca_mr_reg(hca, bed->pd[side], bed->mem[side], BED_MEM,
                                (uintptr_t)bed->mem[side], access, &bed->mr[side]),
                     0);
    bed_steer(bed, side, 0);
    struct hca_qp_init init = {
        .type = type,
        .pd = bed->pd[side],
        .xrcd = 1,
        .send_cq = bed->scq[side],
        .recv_cq = bed->rcq[side],
        .srq = make_srq && side == 1 ? make_srq(bed) : NULL,
        .cap = {.max_send_wr = 16,
                .max_recv_wr = 16,
                .max_send_sge = 4,
                .max_recv_sge = 4,
                .max_inline_data = 64},
        .owner = (void *)(uintptr_t)bed_owner[side],
    };
    assert_int_equal(hca_qp_create(hca, &init, &bed->qp[side]), 0);
}

void bed_open_reset(struct bed *bed, enum hca_qp_type type, struct hca_srq *(*srq)(struct bed *))
{
    memset(bed, 0, sizeof *bed);
    bed->now = (when_t){1000000};
    for (int side = 0; side < 2; side++) make_side(bed, side, type, srq);
}

void bed_open(struct bed *bed, enum hca_qp_type type)
{
    bed_open_reset(bed, type, NULL);
    for (int side = 0; side < 2; side++) bed_walk(bed, side, HCA_QPS_RTS);
}

void bed_close(struct bed *bed)
{
    for (int side = 0; side < 2; side++) hca_free(bed->hca[side]);
}

void bed_steer(struct bed *bed, int side, uint8_t member)
{
    struct steering table = {.generation = 1, .nmembers = 2, .changed = bed->now};
    memset(table.active, member, sizeof table.active);
    hca_steer(bed->hca[side], &table, bed->now);
}

struct hca_qp_attr bed_attr(const struct bed *bed, int side)
{
    return (struct hca_qp_attr){
        .path_mtu = 3,
        .timeout = 14,
        .retry_cnt = 7,
        .rnr_retry = 7,
        .min_rnr_timer = 12,
        .max_rd_atomic = 4,
        .max_dest_rd_atomic = 4,
        .port_num = 1,
        .qkey = BED_QKEY,
        .access = HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_READ | HCA_ACCESS_REMOTE_ATOMIC,
        .rq_psn = psn_of(0xfffffeu + (unsigned)!side),
        .sq_psn = psn_of(0xfffffeu + (unsigned)side),
        .dest_qpn = hca_qp_num(bed->qp[!side]),
        .av = {.sgid = bed->gid[side],
               .dgid = bed->gid[!side],
               .hop_limit = 64,
               .traffic_class = BED_CLASS,
               .flow_label = BED_FLOW},
    };
}

static void step(struct bed *bed, int side, enum hca_qp_state state, uint32_t mask)
{
    struct hca_qp_attr attr = bed_attr(bed, side);
    attr.state = state;
    assert_int_equal(
        hca_qp_modify(bed->hca[side], bed->qp[side], &attr, mask | HCA_QP_STATE, bed->now), 0);
}

/* A send whose key is unknown: UC and UD go to SQE. */
static void into_sqe(struct bed *bed, int side)
{
    struct hca_sge sge = {(uintptr_t)bed->mem[side], 8, 0xdead00};
    struct hca_send_wr wr = {
        .opcode = HCA_WR_SEND, .sge = &sge, .num_sge = 1, .remote_qpn = hca_qp_num(bed->qp[!side])};
    struct hca_tx tx[4];
    assert_int_equal(hca_post_send(bed->hca[side], bed->qp[side], &wr, bed->now), 0);
    assert_int_equal(hca_output(bed->hca[side], tx, 4, bed->now), 0);
    assert_int_equal(bed_poll(bed->scq[side]).status, HCA_WC_LOC_PROT_ERR);
}

void bed_walk(struct bed *bed, int side, enum hca_qp_state state)
{
    const uint32_t access = HCA_QP_ACCESS_FLAGS;
    const uint32_t init[] = {[HCA_QPT_RC] = access,
                             [HCA_QPT_UC] = access,
                             [HCA_QPT_UD] = HCA_QP_QKEY,
                             [HCA_QPT_XRC_SEND] = access,
                             [HCA_QPT_XRC_RECV] = access};
    const uint32_t rtr_uc = HCA_QP_AV | HCA_QP_PATH_MTU | HCA_QP_DEST_QPN | HCA_QP_RQ_PSN;
    const uint32_t rtr_rc = rtr_uc | HCA_QP_MAX_DEST_RD_ATOMIC | HCA_QP_MIN_RNR_TIMER;
    const uint32_t rtr[] = {[HCA_QPT_RC] = rtr_rc,
                            [HCA_QPT_UC] = rtr_uc,
                            [HCA_QPT_XRC_SEND] = rtr_uc,
                            [HCA_QPT_XRC_RECV] = rtr_rc};
    const uint32_t rts_rc =
        HCA_QP_TIMEOUT | HCA_QP_RETRY_CNT | HCA_QP_RNR_RETRY | HCA_QP_MAX_QP_RD_ATOMIC;
    const uint32_t rts[] = {
        [HCA_QPT_RC] = rts_rc, [HCA_QPT_XRC_SEND] = rts_rc, [HCA_QPT_XRC_RECV] = HCA_QP_TIMEOUT};
    enum hca_qp_type type = bed->qp[side]->type;
    if (state == HCA_QPS_ERR) step(bed, side, HCA_QPS_ERR, 0);
    if (state == HCA_QPS_RESET || state == HCA_QPS_ERR) return;
    step(bed, side, HCA_QPS_INIT, init[type] | HCA_QP_PKEY_INDEX | HCA_QP_PORT);
    if (state == HCA_QPS_INIT) return;
    step(bed, side, HCA_QPS_RTR, rtr[type]);
    if (state == HCA_QPS_RTR) return;
    step(bed, side, HCA_QPS_RTS, rts[type] | HCA_QP_SQ_PSN);
    if (state == HCA_QPS_SQD) step(bed, side, HCA_QPS_SQD, 0);
    if (state == HCA_QPS_SQE) into_sqe(bed, side);
}

void bed_deliver(struct bed *bed, int from, const struct hca_tx *tx)
{
    uint8_t bytes[ROCE_MAX_HDR_LEN + 4096 + 4] = {0};
    bool heeds = qp_is_reliable(bed->qp[from]);
    assert_int_equal(tx->traffic_class, BED_CLASS | (heeds ? ECN_ECT0 : 0));
    assert_int_equal(tx->flow_label, BED_FLOW);
    memcpy(bytes, tx->hdr, tx->hdr_len);
    size_t at = tx->hdr_len;
    for (int i = 0; i < tx->niov; i++) {
        memcpy(bytes + at, tx->payload[i].iov_base, tx->payload[i].iov_len);
        at += tx->payload[i].iov_len;
    }
    assert_int_equal(at, tx->hdr_len + tx->payload_len);
    assert_int_equal((tx->payload_len + tx->pad) % 4, 0);
    at += tx->pad;
    struct roce_hdr h;
    size_t hdr_len;
    assert_int_equal(roce_decode(&h, bytes, at, &hdr_len), ROCE_OK);
    if (bed->carry && !bed->carry(bed, from, &h)) return;
    bed->carried++;
    struct hca_rx rx = {.src = tx->src,
                        .dst = tx->dst,
                        .traffic_class = tx->traffic_class,
                        .hop_limit = tx->hop_limit,
                        .member = tx->member,
                        .data = bytes,
                        .len = at};
    hca_input(bed->hca[!from], &rx, bed->now);
}

void bed_pump(struct bed *bed)
{
    struct hca_tx tx[8];
    for (int quiet = 0, round = 0; quiet < 2; round++) {
        assert_true(round < 10000);
        size_t n = hca_output(bed->hca[round & 1], tx, 8, bed->now);
        for (size_t i = 0; i < n; i++) bed_deliver(bed, round & 1, &tx[i]);
        quiet = n ? 0 : quiet + 1;
    }
}

struct hca_sge bed_sge(const struct bed *bed, int side, uint32_t offset, uint32_t len)
{
    return (struct hca_sge){(uintptr_t)bed->mem[side] + offset, len, hca_mr_lkey(bed->mr[side])};
}

void bed_recv(struct bed *bed, int side, uint64_t wr_id, uint32_t offset, uint32_t len)
{
    struct hca_sge sge = bed_sge(bed, side, offset, len);
    struct hca_recv_wr wr = {.wr_id = wr_id, .sge = &sge, .num_sge = 1};
    if (bed->qp[side]->srq)
        assert_int_equal(hca_srq_post(bed->hca[side], bed->qp[side]->srq, &wr), 0);
    else
        assert_int_equal(hca_post_recv(bed->hca[side], bed->qp[side], &wr, bed->now), 0);
}

struct hca_send_wr bed_send_wr(const struct bed *bed, uint64_t wr_id, const struct hca_sge *sge)
{
    return (struct hca_send_wr){
        .wr_id = wr_id,
        .opcode = HCA_WR_SEND,
        .flags = HCA_SEND_SIGNALED,
        .remote_addr = (uintptr_t)bed->mem[1],
        .rkey = hca_mr_rkey(bed->mr[1]),
        .ah = {.sgid = bed->gid[0],
               .dgid = bed->gid[1],
               .hop_limit = 33,
               .traffic_class = BED_CLASS,
               .flow_label = BED_FLOW},
        .remote_qpn = hca_qp_num(bed->qp[1]),
        .remote_qkey = BED_QKEY,
        .sge = sge,
        .num_sge = sge ? 1 : 0,
    };
}

struct hca_wc bed_poll(struct hca_cq *cq)
{
    struct hca_wc wc;
    assert_int_equal(hca_cq_poll(cq, &wc, 1), 1);
    return wc;
}

void bed_empty(struct hca_cq *cq)
{
    struct hca_wc wc;
    assert_int_equal(hca_cq_poll(cq, &wc, 1), 0);
}
