/* See oracle_bed.h. */
#include "oracle_bed.h"
#include <string.h>

struct plan plan;
struct oracle oracle;
struct oracle_qp qps[4];
struct recv_queue *queues[4];
when_t now;

static void begin(enum hca_qp_type type)
{
    script_begin(&plan, 7, 1, FABRIC_PAIRED);
    script_pair(&plan, type);
    if (type == HCA_QPT_RC) {
        script_request(&plan, 0, HCA_WR_SEND, 100);
        script_request(&plan, 0, HCA_WR_RDMA_WRITE, 5000);
        script_request(&plan, 0, HCA_WR_RDMA_READ, 3000);
        script_request(&plan, 0, HCA_WR_ATOMIC_FETCH_AND_ADD, 8);
        script_request(&plan, 0, HCA_WR_RDMA_WRITE_WITH_IMM, 200);
        script_request(&plan, 0, HCA_WR_SEND_WITH_IMM, 9000);
        script_request(&plan, 0, HCA_WR_RDMA_WRITE, 700)->flags = 0;
        script_request(&plan, 0, HCA_WR_FLUSH, 700);
        script_request(&plan, 0, HCA_WR_ATOMIC_WRITE, 8);
        script_request(&plan, 0, HCA_WR_RDMA_WRITE, 10);
    } else {
        for (int i = 0; i < 4; i++) script_request(&plan, 0, HCA_WR_SEND_WITH_IMM, 64);
    }
    script_end(&plan);
    oracle = (struct oracle){.qp = qps,
                             .nqp = 2,
                             .rq = queues,
                             .nrq = 2,
                             .ground = plan.ground,
                             .nground = 2,
                             .word = plan.word,
                             .nword = plan.nwords};
    now = (when_t){SEC_NS};
    for (uint16_t i = 0; i < 2; i++) {
        struct plan_qp *p = &plan.qp[i];
        queues[i] = &p->rq;
        p->rq.id = i;
        qps[i] = (struct oracle_qp){.type = p->type,
                                    .host = p->host,
                                    .qpn = 100u + i,
                                    .index = i,
                                    .peer = (uint16_t)(1 - i),
                                    .send_cq = i,
                                    .recv_cq = i,
                                    .timeout_ns = 4096ull << 14,
                                    .retry_cnt = 7,
                                    .request = p->request,
                                    .planned = p->nrequests,
                                    .rq = &p->rq,
                                    .path_bad_since = NEVER};
    }
    for (uint32_t i = 0; i < plan.qp[1].rq.planned; i++) oracle_recv_posted(&oracle, queues[1]);
    for (uint32_t i = 0; i < plan.qp[0].nrequests; i++) {
        struct request *r = &plan.qp[0].request[i];
        if (r->op == HCA_WR_RDMA_READ)
            plot_paint(r->remote, r->key, 0);
        else if (!r->word)
            buf_paint(&r->local, r->key);
        oracle_posted(&oracle, &qps[0], now);
    }
}

int end(void **state)
{
    plan_free(&plan);
    return 0;
}

int begin_rc(void **state)
{
    begin(HCA_QPT_RC);
    return 0;
}

int begin_uc(void **state)
{
    begin(HCA_QPT_UC);
    return 0;
}

int begin_ud(void **state)
{
    begin(HCA_QPT_UD);
    return 0;
}

/* ---- what a correct adapter does ---------------------------------------------------------------
 */

struct request *request(uint32_t i) { return &plan.qp[0].request[i]; }

static void fill(struct buf *b, uint64_t key, uint32_t len)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < b->n && off < len; off += b->plot[i++]->len) {
        uint32_t n = b->plot[i]->len < len - off ? b->plot[i]->len : len - off;
        pattern_fill(b->plot[i]->bytes, key, off, n);
    }
}

void execute(uint32_t i, uint32_t receive)
{
    struct request *r = request(i);
    uint64_t old, new;
    switch (r->op) {
    case HCA_WR_SEND:
    case HCA_WR_SEND_WITH_IMM: fill(&queues[1]->receive[receive].room, r->key, r->len); break;
    case HCA_WR_RDMA_READ: fill(&r->local, r->key, r->len); break;
    case HCA_WR_ATOMIC_FETCH_AND_ADD:
        memcpy(&old, r->word->plot->bytes, 8);
        new = old + r->compare_add;
        memcpy(r->word->plot->bytes, &new, 8);
        memcpy(r->local.plot[0]->bytes, &old, 8);
        break;
    case HCA_WR_FLUSH: break;
    default: pattern_fill(r->remote->bytes, r->key, 0, r->len);
    }
}

void completes(uint32_t i, enum hca_wc_status status)
{
    static const enum hca_wc_opcode opcode[] = {
        HCA_WC_SEND, HCA_WC_RDMA_WRITE, HCA_WC_RDMA_READ, HCA_WC_FETCH_ADD,    HCA_WC_RDMA_WRITE,
        HCA_WC_SEND, HCA_WC_RDMA_WRITE, HCA_WC_FLUSH,     HCA_WC_ATOMIC_WRITE, HCA_WC_RDMA_WRITE};
    struct hca_wc wc = {.wr_id = oracle_send_id(&qps[0], i),
                        .status = status,
                        .opcode = qps[0].type == HCA_QPT_RC ? opcode[i] : HCA_WC_SEND,
                        .byte_len = request(i)->op == HCA_WR_FLUSH ? 0 : request(i)->len,
                        .qpn = 100};
    oracle_completion(&oracle, 0, &wc, now);
}

struct hca_wc receive_wc(uint32_t receive, uint32_t i)
{
    const struct request *r = request(i);
    bool imm = r->op != HCA_WR_SEND;
    return (struct hca_wc){
        .wr_id = oracle_recv_id(queues[1], receive),
        .opcode = r->op == HCA_WR_RDMA_WRITE_WITH_IMM ? HCA_WC_RECV_RDMA_WITH_IMM : HCA_WC_RECV,
        .byte_len = r->len + (qps[0].type == HCA_QPT_UD ? 40 : 0),
        .flags = (imm ? HCA_WC_WITH_IMM : 0) | (qps[0].type == HCA_QPT_UD ? HCA_WC_GRH : 0u),
        .imm_be = imm ? r->imm_be : 0,
        .src_qpn = 100,
        .qpn = 101};
}

void receives(uint32_t receive, uint32_t i)
{
    struct hca_wc wc = receive_wc(receive, i);
    oracle_completion(&oracle, 1, &wc, now);
}

/* Requests first .. n-1, all well. */
static void run_from(uint32_t first, uint32_t n)
{
    static const int receive_of[] = {0, -1, -1, -1, 1, 2, -1, -1, -1, -1};
    for (uint32_t i = first; i < n; i++) {
        execute(i, (uint32_t)receive_of[i]);
        if (receive_of[i] >= 0) receives((uint32_t)receive_of[i], i);
        if (i != SILENT_WRITE) completes(i, HCA_WC_SUCCESS);
    }
}

void run_well(uint32_t n) { run_from(0, n); }

void run_rest(uint32_t first)
{
    run_from(first, LAST + 1);
    oracle_finish(&oracle);
}

void content(void) { assert_string_equal(oracle.violation, ""); }

void caught(const char *words)
{
    if (strstr(oracle.violation, words)) return;
    fail_msg("wanted \"%s\", the oracle says \"%s\"", words, oracle.violation);
}
