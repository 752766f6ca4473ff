/* See trace.h. */
#include "sim/trace.h"
#include "sim/rng.h"
#include "wire/opcode.h"
#include <stdarg.h>
#include <string.h>

void trace_bytes(struct trace *t, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    uint64_t h = t->hash;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x9fb21c651e98df25ull;
        h ^= h >> 29;
    }
    for (; len; len--) h = (h ^ *p++) * 0x100000001b3ull;
    t->hash = h;
    t->events++;
}

void trace_line(struct trace *t, when_t now, const char *fmt, ...)
{
    if (!t->out) return;
    fprintf(t->out, "%12.3f us  ", (double)now.ns / 1000.0);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(t->out, fmt, ap);
    va_end(ap);
    fputc('\n', t->out);
}

static void print_packet(struct trace *t, when_t now, const char *what, const struct datagram *d)
{
    struct roce_hdr h;
    size_t hdr_len = 0;
    enum roce_verdict v = roce_decode(&h, d->bytes, d->len - ROCE_ICRC_LEN, &hdr_len);
    fprintf(t->out, "%12.3f us  %-9s h%u.%u>h%u.%u ", (double)now.ns / 1000.0, what, d->src_host,
            d->src_member, d->dst_host, d->dst_member);
    if (v != ROCE_OK) {
        fprintf(t->out, "undecodable (%d), %u bytes\n", v, d->len);
        return;
    }
    const struct roce_opcode *op = roce_opcode(h.opcode);
    fprintf(t->out, "%-22s qp %06x>%06x psn %06x%s%s", op->name, d->sqpn, h.dqpn, h.psn.v,
            h.ackreq ? " A" : "", h.solicited ? " S" : "");
    if (op->props & OP_RETH)
        fprintf(t->out, " va %llx rkey %x len %u", (unsigned long long)h.reth.va, h.reth.rkey,
                h.reth.len);
    if (op->props & OP_AETH) fprintf(t->out, " syndrome %02x msn %u", h.aeth.syndrome, h.aeth.msn);
    fprintf(t->out, " payload %zu%s\n", d->len - ROCE_ICRC_LEN - hdr_len - h.pad,
            d->corrupted ? " corrupted" : "");
}

void trace_packet(struct trace *t, when_t now, const char *what, const struct datagram *d)
{
    uint8_t where[4] = {d->src_host, d->src_member, d->dst_host, d->dst_member};
    trace_bytes(t, &now.ns, sizeof now.ns);
    trace_bytes(t, where, sizeof where);
    trace_bytes(t, d->bytes, d->len < 64 ? d->len : 64);
    trace_bytes(t, d->bytes + d->len - 4, 4);
    if (t->out) print_packet(t, now, what, d);
}

void trace_wc(struct trace *t, when_t now, uint8_t host, const struct hca_wc *wc)
{
    uint64_t facts[] = {now.ns,
                        host,
                        wc->wr_id,
                        wc->status,
                        wc->status ? 0 : wc->opcode,
                        wc->status ? 0 : wc->byte_len,
                        wc->qpn};
    trace_bytes(t, facts, sizeof facts);
    trace_line(t, now, "completes h%u qp %06x %s %u: %s, %u bytes", host, wc->qpn,
               wc->wr_id >> 56 == 'R' ? "receive" : "request", (unsigned)wc->wr_id,
               wc_status_name(wc->status), wc->status ? 0 : wc->byte_len);
}

const char *wc_status_name(enum hca_wc_status s)
{
    switch (s) {
    case HCA_WC_SUCCESS: return "SUCCESS";
    case HCA_WC_LOC_LEN_ERR: return "LOC_LEN_ERR";
    case HCA_WC_MW_BIND_ERR: return "MW_BIND_ERR";
    case HCA_WC_LOC_QP_OP_ERR: return "LOC_QP_OP_ERR";
    case HCA_WC_LOC_PROT_ERR: return "LOC_PROT_ERR";
    case HCA_WC_WR_FLUSH_ERR: return "WR_FLUSH_ERR";
    case HCA_WC_BAD_RESP_ERR: return "BAD_RESP_ERR";
    case HCA_WC_LOC_ACCESS_ERR: return "LOC_ACCESS_ERR";
    case HCA_WC_REM_INV_REQ_ERR: return "REM_INV_REQ_ERR";
    case HCA_WC_REM_ACCESS_ERR: return "REM_ACCESS_ERR";
    case HCA_WC_REM_OP_ERR: return "REM_OP_ERR";
    case HCA_WC_RETRY_EXC_ERR: return "RETRY_EXC_ERR";
    case HCA_WC_RNR_RETRY_EXC_ERR: return "RNR_RETRY_EXC_ERR";
    case HCA_WC_REM_ABORT_ERR: return "REM_ABORT_ERR";
    case HCA_WC_FATAL_ERR: return "FATAL_ERR";
    case HCA_WC_GENERAL_ERR: return "GENERAL_ERR";
    }
    return "unknown status";
}

const char *wr_opcode_name(enum hca_wr_opcode op)
{
    switch (op) {
    case HCA_WR_RDMA_WRITE: return "WRITE";
    case HCA_WR_RDMA_WRITE_WITH_IMM: return "WRITE_WITH_IMM";
    case HCA_WR_SEND: return "SEND";
    case HCA_WR_SEND_WITH_IMM: return "SEND_WITH_IMM";
    case HCA_WR_RDMA_READ: return "READ";
    case HCA_WR_ATOMIC_CMP_AND_SWP: return "CMP_SWAP";
    case HCA_WR_ATOMIC_FETCH_AND_ADD: return "FETCH_ADD";
    case HCA_WR_LOCAL_INV: return "LOCAL_INV";
    case HCA_WR_BIND_MW: return "BIND_MW";
    case HCA_WR_SEND_WITH_INV: return "SEND_WITH_INV";
    case HCA_WR_FLUSH: return "FLUSH";
    case HCA_WR_ATOMIC_WRITE: return "ATOMIC_WRITE";
    }
    return "unknown";
}
