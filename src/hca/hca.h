/* The software adapter: one function's QPs, CQs, SRQs and memory regions as a sans-IO engine.
 *
 * Nothing here reads a clock, does I/O, takes a lock or logs. The owner (verbs/function.c, or a
 * host of sim/) serialises all calls on one hca with a lock of its own; hca_cq_poll alone may run
 * beside them (see there). Creation calls allocate; the data path does not.
 *
 * Facts go in (hca_input, hca_steer, hca_expire, the verbs below), packets are pulled out
 * (hca_output), completions are polled from CQs, and what would be a callback elsewhere is a queue
 * that the owner drains: hca_next_event (async events) and hca_next_notified (armed CQs that
 * fired).
 *
 * Numbers (states, masks, statuses, opcodes, access flags) have the values of <infiniband/verbs.h>,
 * which verbs/ asserts at build time; this layer does not include that header.
 *
 * Errors: 0 or a negative errno for the caller's mistakes, as the man page of the verb has them. */
#ifndef RBOND_HCA_HCA_H
#define RBOND_HCA_HCA_H

#include "base/when.h"
#include "hca/steering.h"
#include "wire/gid.h"
#include "wire/roce.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define HCA_FUNCTION_BITS 10
#define HCA_INDEX_BITS 14
#define HCA_MAX_QP (1u << HCA_INDEX_BITS)
#define HCA_QPS (HCA_MAX_QP - 3) /* that can be: the first two and the last index are never given */
#define HCA_MAX_SGE 16
#define HCA_MAX_INLINE 1024
#define HCA_MAX_WR 16384
#define HCA_MAX_CQE (1 << 22) /* memory is touched as completions come */
#define HCA_MAX_RD_ATOMIC 128
#define HCA_MAX_MTU 4096u /* bytes of payload in a packet (IBTA 9.2) */
#define HCA_MAX_MSG (1u << 31)
#define HCA_MAX_RATE_KBPS 400000000u /* of a rate limit: 400 Gb/s */
#define HCA_MAX_MCAST_GROUPS 256
#define HCA_MAX_MCAST_QPS 1024 /* attached to one group */

struct hca;
struct hca_qp;
struct hca_cq;
struct hca_srq;
struct hca_mr;
struct hca_mw;

/* ---- numbers ---------------------------------------------------------------------------- */

enum hca_qp_type {
    HCA_QPT_RC = 2,
    HCA_QPT_UC = 3,
    HCA_QPT_UD = 4,
    HCA_QPT_XRC_SEND = 9,  /* initiator: an RC requester without responder (annex A14) */
    HCA_QPT_XRC_RECV = 10, /* target: an RC responder that takes its receives from the SRQ that each
                            * request names */
};

enum hca_qp_state {
    HCA_QPS_RESET, HCA_QPS_INIT, HCA_QPS_RTR, HCA_QPS_RTS, HCA_QPS_SQD, HCA_QPS_SQE, HCA_QPS_ERR
};

enum hca_attr_mask { /* enum ibv_qp_attr_mask */
    HCA_QP_STATE = 1 << 0,
    HCA_QP_CUR_STATE = 1 << 1,
    HCA_QP_EN_SQD_ASYNC_NOTIFY = 1 << 2,
    HCA_QP_ACCESS_FLAGS = 1 << 3,
    HCA_QP_PKEY_INDEX = 1 << 4,
    HCA_QP_PORT = 1 << 5,
    HCA_QP_QKEY = 1 << 6,
    HCA_QP_AV = 1 << 7,
    HCA_QP_PATH_MTU = 1 << 8,
    HCA_QP_TIMEOUT = 1 << 9,
    HCA_QP_RETRY_CNT = 1 << 10,
    HCA_QP_RNR_RETRY = 1 << 11,
    HCA_QP_RQ_PSN = 1 << 12,
    HCA_QP_MAX_QP_RD_ATOMIC = 1 << 13,
    HCA_QP_ALT_PATH = 1 << 14,
    HCA_QP_MIN_RNR_TIMER = 1 << 15,
    HCA_QP_SQ_PSN = 1 << 16,
    HCA_QP_MAX_DEST_RD_ATOMIC = 1 << 17,
    HCA_QP_PATH_MIG_STATE = 1 << 18,
    HCA_QP_CAP = 1 << 19,
    HCA_QP_DEST_QPN = 1 << 20,
    HCA_QP_RATE_LIMIT = 1 << 25,
};

enum hca_access { /* enum ibv_access_flags */
    HCA_ACCESS_LOCAL_WRITE = 1 << 0,
    HCA_ACCESS_REMOTE_WRITE = 1 << 1,
    HCA_ACCESS_REMOTE_READ = 1 << 2,
    HCA_ACCESS_REMOTE_ATOMIC = 1 << 3,
    HCA_ACCESS_MW_BIND = 1 << 4,
    HCA_ACCESS_ZERO_BASED = 1 << 5,
    HCA_ACCESS_ON_DEMAND = 1 << 6,
    HCA_ACCESS_HUGETLB = 1 << 7,
    HCA_ACCESS_FLUSH_GLOBAL = 1 << 8,
    HCA_ACCESS_FLUSH_PERSISTENT = 1 << 9, /* a QP may have it, no region does */
    HCA_ACCESS_RELAXED_ORDERING = 1 << 20,
};

enum hca_mw_type { HCA_MW_TYPE_1 = 1, HCA_MW_TYPE_2 = 2 }; /* enum ibv_mw_type */

enum hca_wr_opcode { /* enum ibv_wr_opcode */
    HCA_WR_RDMA_WRITE = 0,
    HCA_WR_RDMA_WRITE_WITH_IMM = 1,
    HCA_WR_SEND = 2,
    HCA_WR_SEND_WITH_IMM = 3,
    HCA_WR_RDMA_READ = 4,
    HCA_WR_ATOMIC_CMP_AND_SWP = 5,
    HCA_WR_ATOMIC_FETCH_AND_ADD = 6,
    HCA_WR_LOCAL_INV = 7,
    HCA_WR_BIND_MW = 8,
    HCA_WR_SEND_WITH_INV = 9,
    HCA_WR_FLUSH = 14,
    HCA_WR_ATOMIC_WRITE = 15,
};

enum hca_flush_type { /* enum ibv_placement_type */
    HCA_FLUSH_GLOBAL = 1 << 0,
    HCA_FLUSH_PERSISTENT = 1 << 1,
};

enum hca_flush_level { HCA_FLUSH_RANGE, HCA_FLUSH_MR }; /* enum ibv_selectivity_level */

enum hca_send_flags { /* enum ibv_send_flags */
    HCA_SEND_FENCE = 1 << 0,
    HCA_SEND_SIGNALED = 1 << 1,
    HCA_SEND_SOLICITED = 1 << 2,
    HCA_SEND_INLINE = 1 << 3,
};

enum hca_wc_status { /* enum ibv_wc_status */
    HCA_WC_SUCCESS = 0,
    HCA_WC_LOC_LEN_ERR = 1,
    HCA_WC_LOC_QP_OP_ERR = 2,
    HCA_WC_LOC_PROT_ERR = 4,
    HCA_WC_WR_FLUSH_ERR = 5,
    HCA_WC_MW_BIND_ERR = 6,
    HCA_WC_BAD_RESP_ERR = 7,
    HCA_WC_LOC_ACCESS_ERR = 8,
    HCA_WC_REM_INV_REQ_ERR = 9,
    HCA_WC_REM_ACCESS_ERR = 10,
    HCA_WC_REM_OP_ERR = 11,
    HCA_WC_RETRY_EXC_ERR = 12,
    HCA_WC_RNR_RETRY_EXC_ERR = 13,
    HCA_WC_REM_ABORT_ERR = 16,
    HCA_WC_FATAL_ERR = 19,
    HCA_WC_GENERAL_ERR = 21,
};

enum hca_wc_opcode { /* enum ibv_wc_opcode */
    HCA_WC_SEND = 0,
    HCA_WC_RDMA_WRITE = 1,
    HCA_WC_RDMA_READ = 2,
    HCA_WC_COMP_SWAP = 3,
    HCA_WC_FETCH_ADD = 4,
    HCA_WC_BIND_MW = 5,
    HCA_WC_LOCAL_INV = 6,
    HCA_WC_FLUSH = 8,
    HCA_WC_ATOMIC_WRITE = 9,
    HCA_WC_RECV = 128,
    HCA_WC_RECV_RDMA_WITH_IMM = 129,
};

enum hca_wc_flags { /* enum ibv_wc_flags */
    HCA_WC_GRH = 1 << 0,
    HCA_WC_WITH_IMM = 1 << 1,
    HCA_WC_WITH_INV = 1 << 3,
};

/* ---- values ----------------------------------------------------------------------------- */

/* An address vector, its GIDs resolved. */
struct hca_ah {
    struct gid sgid, dgid;
    uint32_t flow_label; /* 20 bits */
    uint8_t sgid_index, hop_limit, traffic_class, sl;
    uint8_t static_rate, port_num;
    uint16_t dlid; /* the LID that `dgid` was found by; 0: it was given as a GID */
};

struct hca_qp_cap {
    uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data;
};

struct hca_qp_attr {
    enum hca_qp_state state, cur_state;
    uint8_t path_mtu;              /* enum ibv_mtu: 1..5 for 256..4096 */
    uint8_t timeout;               /* local ACK timeout: 4.096 us * 2^timeout, 0 infinite */
    uint8_t retry_cnt, rnr_retry;  /* 0..7; rnr_retry 7 is infinite */
    uint8_t min_rnr_timer;         /* 0..31, IBTA table 45 */
    uint8_t max_rd_atomic, max_dest_rd_atomic;
    uint8_t port_num;
    uint16_t pkey_index;
    uint32_t qkey, access;
    uint32_t rate_limit;           /* kbps; 0: none */
    psn_t rq_psn, sq_psn;
    qpn_t dest_qpn;
    struct hca_ah av;
    bool en_sqd_async_notify;
    bool sq_draining;              /* out */
    struct hca_qp_cap cap;         /* out */
};

/* XRC_SEND has no recv_cq, srq and receive capacity; XRC_RECV has a domain, and of the rest only
 * `bucket` and `owner`. */
struct hca_qp_init {
    enum hca_qp_type type;
    uint32_t pd;
    uint32_t xrcd;        /* the owner's number of an XRC domain, not 0 */
    bool xrcd_shared;     /* other functions take part in it: see hca/call.h */
    struct hca_cq *send_cq, *recv_cq;
    struct hca_srq *srq;  /* NULL: a receive queue of its own */
    struct hca_qp_cap cap; /* in: wanted; hca_qp_create writes what was given, at least as much */
    bool sq_sig_all;
    bool block_own_mcast; /* UD: its own multicast datagrams are not given to it */
    uint8_t bucket;       /* the affinity bucket in the steering table */
    void *queues;         /* room for the work queues: hca_qp_bytes() zeroes, aligned as malloc does,
                             the caller's again after hca_qp_destroy; NULL: the adapter's own */
    void *owner;          /* the caller's, returned in events */
};

struct hca_srq_init {
    uint32_t pd;
    uint32_t max_wr, max_sge; /* in: wanted; hca_srq_create writes what was given */
    uint32_t limit;
    uint32_t xrcd;     /* an XRC SRQ: its domain; 0: a basic one */
    struct hca_cq *cq; /* an XRC SRQ: where its receives complete */
    void *owner;
};

struct hca_sge {
    uint64_t addr;
    uint32_t length;
    uint32_t lkey;
};

struct hca_send_wr {
    uint64_t wr_id;
    enum hca_wr_opcode opcode;
    uint32_t flags;   /* enum hca_send_flags */
    uint32_t imm_be;
    uint32_t inv_rkey; /* SEND_WITH_INV, LOCAL_INV */
    uint64_t remote_addr; /* BIND_MW: where in the region */
    uint32_t rkey;        /* BIND_MW: the window's new one */
    union {
        struct {
            uint64_t compare_add, swap;
        };
        struct { /* BIND_MW */
            uint64_t bind_length; /* 0: type 1 is bound to nothing from now on */
            uint32_t bind_lkey, bind_access;
        };
        struct { /* FLUSH, which has no SGE */
            uint32_t flush_length; /* FLUSH_RANGE: from remote_addr on, at most HCA_MAX_MSG */
            uint8_t flush_type, flush_level;
        };
        uint64_t atomic_value; /* ATOMIC_WRITE, which has no SGE: eight bytes as they lie in memory */
    };
    struct hca_ah ah; /* UD */
    qpn_t remote_qpn;
    uint32_t remote_qkey;
    uint32_t xrc_srqn; /* XRC_SEND: the remote SRQ's number */
    const struct hca_sge *sge; /* with HCA_SEND_INLINE: bytes are copied now, lkey ignored */
    uint32_t num_sge;
};

struct hca_recv_wr {
    uint64_t wr_id;
    const struct hca_sge *sge;
    uint32_t num_sge;
};

struct hca_wc {
    uint64_t wr_id;
    enum hca_wc_status status;
    enum hca_wc_opcode opcode; /* valid for SUCCESS; filled always */
    uint32_t vendor_err;
    uint32_t byte_len;
    uint32_t imm_be;           /* HCA_WC_WITH_IMM */
    uint32_t inv_rkey;         /* HCA_WC_WITH_INV */
    qpn_t qpn, src_qpn;
    uint32_t flags;            /* enum hca_wc_flags */
    uint8_t sl;
    uint64_t stamp_ns;         /* `now` of the call that completed it */
};

/* A packet that arrived: its ICRC was right and is cut off. `data` is valid during the call. */
struct hca_rx {
    struct gid src, dst;
    uint8_t traffic_class, hop_limit; /* TOS, TTL for IPv4 */
    uint8_t member;                   /* the member it came in on; STEER_NO_MEMBER: unknown */
    bool own;                         /* multicast: this device's own, looped back */
    const uint8_t *data;              /* BTH .. pad */
    size_t len;
};

/* A packet to send. The port adds pad, ICRC, UDP and IP headers. `payload` points into user memory
 * (or the engine's own) and is valid until the next call on this hca. UC and UD requests complete
 * in the call of hca_output (or hca_expire) after the one that gave their packets. */
struct hca_tx {
    struct gid src, dst;
    uint32_t flow_label;
    uint8_t traffic_class, hop_limit;
    uint8_t member;    /* never STEER_NO_MEMBER */
    uint8_t hdr_len;   /* BTH and extended headers; BTH.pad is set */
    uint8_t pad;       /* zero bytes to append after the payload */
    uint8_t niov;
    qpn_t qpn, dqpn;   /* whose it is, and to whom: ports spread flows by them */
    uint32_t payload_len;
    struct iovec payload[HCA_MAX_SGE];
    uint8_t hdr[ROCE_MAX_HDR_LEN];
};

enum hca_event_type { /* enum ibv_event_type */
    HCA_EVENT_CQ_ERR = 0,
    HCA_EVENT_QP_FATAL = 1,
    HCA_EVENT_QP_REQ_ERR = 2,
    HCA_EVENT_QP_ACCESS_ERR = 3,
    HCA_EVENT_COMM_EST = 4,
    HCA_EVENT_SQ_DRAINED = 5,
    HCA_EVENT_SRQ_ERR = 14,
    HCA_EVENT_SRQ_LIMIT_REACHED = 15,
    HCA_EVENT_QP_LAST_WQE_REACHED = 16,
};

struct hca_event {
    enum hca_event_type type;
    void *owner; /* of the QP, CQ or SRQ the type speaks of */
};

/* What an adapter counts. Each is a 64-bit word that only grows; ctl/ publishes them by these
 * names, so one list makes struct, names and page. Packets with a wrong ICRC and those that found
 * no room in a socket never meet the adapter: verbs/publish.c fills those two in. */
#define HCA_COUNTERS(X)                                                                            \
    X(tx_packets) X(tx_bytes) X(rx_packets) X(rx_bytes)                                            \
    X(tx_retransmits) X(timeouts) X(local_ack_timeout_err) X(rnr_nak_sent) X(rnr_nak_received)     \
    X(packet_seq_err) X(out_of_sequence) X(duplicate_request) X(implied_nak_seq_err)               \
    X(rx_bad_header) X(rx_bad_qp) X(rx_bad_pkey) X(rx_bad_qkey) X(rx_bad_state) X(rx_dropped)      \
    X(resp_remote_access_errors) X(resp_local_length_error) X(req_remote_invalid_request)         \
    X(req_remote_access_errors) X(rx_icrc_encapsulated) X(tx_dropped)                              \
    X(cqe_error) X(cqe_flush_error) X(cnp_received) X(cnp_sent) X(ecn_marked) X(remaps) X(detours)                           \
    X(tx_multicast) X(rx_multicast) X(rx_multicast_unwanted) X(rx_multicast_twins)

struct hca_counters {
#define X(name) uint64_t name;
    HCA_COUNTERS(X)
#undef X
};

struct hca_member_counters {
    uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes, retransmits;
};

/* One QP seen from outside: `rbond resource show qp`. */
struct hca_qp_view {
    qpn_t qpn, dqpn;
    psn_t rq_psn, sq_psn; /* those of its attributes */
    uint8_t type, state, bucket, home, active; /* home, active: members */
    struct gid dgid;
    uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes, retransmits;
    uint64_t remaps;         /* times the QP moved to another member */
    when_t remapped_at;      /* `steering.changed` of the last remap that met unacked requests */
    uint64_t last_gap_ns;    /* from there to the next acknowledged packet */
};

/* ---- the adapter ------------------------------------------------------------------------ */

struct hca_conf {
    uint16_t function;      /* QP numbers are function << HCA_INDEX_BITS | index */
    uint64_t seed;          /* for keys: unpredictable in life, fixed in the simulator */
    uint32_t max_window;    /* ceiling of a QP's byte window */
    uint32_t start_window;  /* where it starts; small where receive buffers are */
    uint32_t inflight_cap;  /* ceiling of the sum over all QPs, bytes */
    /* Brings in the pages of [at, at + len), a part of a region on demand; false: some are not to be
     * had, or not to be written. Asked at each access to such a region. NULL: they are all there. */
    bool (*page_in)(void *at, size_t len, bool write);
};

/* NULL when memory is short. Until the first hca_steer every QP holds its packets. */
struct hca *hca_new(const struct hca_conf *conf);
/* Frees the adapter and every object left in it. */
void hca_free(struct hca *hca);

void hca_input(struct hca *hca, const struct hca_rx *rx, when_t now);
/* The port's payload MTU, 256 .. 4096: the ceiling of UD messages and of QPs' path
 * MTUs. At first 4096. */
void hca_set_mtu(struct hca *hca, uint32_t bytes);
/* While acknowledgements are held, hca_output keeps back ACKs that carry nothing else: the owner knows
 * that the program is about to send, and one burst then takes both. Those held get their turn with
 * hca_hold_acks(hca, false). At first none is held. */
void hca_hold_acks(struct hca *hca, bool hold);
/* Is one kept back now? */
bool hca_acks_held(const struct hca *hca);
/* The port's speed, which UC and UD keep to. At first 0: no limit. */
void hca_set_speed(struct hca *hca, uint64_t bytes_per_sec);
/* Writes up to `max` packets, QPs in turn, and returns how many; 0 when nothing may go now. To be
 * called until it gives 0: that call completes the UC and UD requests of the one before. */
size_t hca_output(struct hca *hca, struct hca_tx *out, size_t max, when_t now);
/* When hca_expire wants to be called next; NEVER when idle. A moment already past is fine. */
when_t hca_deadline(const struct hca *hca);
void hca_expire(struct hca *hca, when_t now);
/* The table has changed: QPs of moved buckets resend from the oldest unacknowledged PSN. */
void hca_steer(struct hca *hca, const struct steering *table, when_t now);

/* The next async event; false when there is none. */
bool hca_next_event(struct hca *hca, struct hca_event *event);
/* The next armed CQ that got its completion, as the owner given at creation; NULL when none. */
void *hca_next_notified(struct hca *hca);

const struct hca_counters *hca_counters(const struct hca *hca);
const struct hca_member_counters *hca_member_counters(const struct hca *hca, uint8_t member);
/* Counts bad datagrams that the port or owner found before hca_input would see them. */
void hca_count_bad_rx(struct hca *hca);

/* ---- verbs ------------------------------------------------------------------------------ */

/* A protection domain is a number. */
uint32_t hca_pd_alloc(struct hca *hca);

/* Registers [addr, addr + length), reached by its keys at `iova`, or from 0 on with ZERO_BASED.
 * -EINVAL for access flags that the man page of ibv_reg_mr forbids, FLUSH_PERSISTENT (the memory is
 * not known to be persistent), wrapping ranges. The memory
 * must stay mapped until hca_mr_dereg, but for ON_DEMAND: then hca_conf.page_in is asked, and
 * [NULL, SIZE_MAX) is all there is. */
int hca_mr_reg(struct hca *hca, uint32_t pd, void *addr, size_t length, uint64_t iova,
               uint32_t access, struct hca_mr **mr);
/* ibv_alloc_null_mr(3): as lkey alone; any address reads zeros, what is written is dropped. */
int hca_mr_reg_null(struct hca *hca, uint32_t pd, struct hca_mr **mr);
/* All anew but the keys. An error leaves the region as it was: as above, -EBUSY while windows are
 * bound to it, -EINVAL for the null region. */
int hca_mr_rereg(struct hca *hca, struct hca_mr *mr, uint32_t pd, void *addr, size_t length,
                 uint64_t iova, uint32_t access);
/* -EBUSY while windows are bound to it. */
int hca_mr_dereg(struct hca *hca, struct hca_mr *mr);
uint32_t hca_mr_lkey(const struct hca_mr *mr);
uint32_t hca_mr_rkey(const struct hca_mr *mr);

/* A part of a region as an SGE names it. */
struct hca_span {
    void *at;
    bool on_demand, writable;
};
/* -ENOENT no such lkey, -EINVAL it is a window's or the null region's, -EPERM of another PD,
 * -EFAULT outside. */
int hca_mr_span(const struct hca *hca, uint32_t pd, uint32_t lkey, uint64_t va, uint64_t len,
                struct hca_span *span);

/* A memory window, not bound. HCA_WR_BIND_MW binds it: rkey is the one it then has, of the same
 * index, the tag the program's choice. */
int hca_mw_alloc(struct hca *hca, uint32_t pd, enum hca_mw_type type, struct hca_mw **mw);
/* Unbinds it first. */
void hca_mw_dealloc(struct hca *hca, struct hca_mw *mw);
uint32_t hca_mw_rkey(const struct hca_mw *mw);

/* `owner` comes back from hca_next_notified and in events. *cqe: wanted in, given out. */
int hca_cq_create(struct hca *hca, uint32_t *cqe, void *owner, struct hca_cq **cq);
/* What the ring of such a CQ takes; 0 where hca_cq_create would refuse it. */
size_t hca_cq_bytes(uint32_t cqe);
/* The same with its ring in memory of the caller's: hca_cq_bytes(*cqe) bytes, aligned as malloc
 * does, the caller's again after hca_cq_destroy or a resize. */
int hca_cq_create_in(struct hca *hca, uint32_t *cqe, void *owner, void *ring, struct hca_cq **cq);
/* From now on what finds the CQ full is lost without a word (IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN). */
void hca_cq_ignore_overrun(struct hca_cq *cq);
/* Holds the events of the armed CQ back until `count` completions have come or `period_ns` has
 * passed since the first; 0: that one does not count (ibv_modify_cq(3)). An event that is held back
 * now fires. */
void hca_cq_moderate(struct hca *hca, struct hca_cq *cq, uint32_t count, uint64_t period_ns);
/* When the first event that is held back is due; NEVER: none is. Part of hca_deadline and
 * hca_expire, and alone for an owner that has no port: then no other time passes. */
when_t hca_cq_deadline(const struct hca *hca);
void hca_cq_expire(struct hca *hca, when_t now);
/* -EBUSY while a QP uses it. */
int hca_cq_destroy(struct hca *hca, struct hca_cq *cq);
/* -EINVAL below the number of completions waiting. */
int hca_cq_resize(struct hca *hca, struct hca_cq *cq, uint32_t *cqe);
int hca_cq_resize_in(struct hca *hca, struct hca_cq *cq, uint32_t *cqe, void *ring);
/* Takes up to `max` completions. The only call that needs no owner's lock: one consumer at a time
 * may run beside any other call on the hca, resize and destroy excepted. A CQ that has overrun
 * gives -EOVERFLOW once what it holds is taken. */
int hca_cq_poll(struct hca_cq *cq, struct hca_wc *wc, int max);
/* Fires once, at the next completion (solicited or failed only, if `solicited`) added after this
 * call; at once where completions wait of which no notification has told. */
void hca_cq_arm(struct hca *hca, struct hca_cq *cq, bool solicited);

int hca_srq_create(struct hca *hca, struct hca_srq_init *init, struct hca_srq **srq);
/* What peers name an XRC SRQ by, 24 bits: function << HCA_INDEX_BITS | index. 0: a basic one. */
uint32_t hca_srq_num(const struct hca_srq *srq);
int hca_srq_modify(struct hca *hca, struct hca_srq *srq, const uint32_t *max_wr /* or NULL */,
                   const uint32_t *limit /* or NULL */);
void hca_srq_query(const struct hca_srq *srq, uint32_t *max_wr, uint32_t *max_sge, uint32_t *limit);
/* -EBUSY while a QP uses it. Requests for an XRC SRQ that has gone are refused: no QP uses it. */
int hca_srq_destroy(struct hca *hca, struct hca_srq *srq);
int hca_srq_post(struct hca *hca, struct hca_srq *srq, const struct hca_recv_wr *wr);

/* What the work queues of such a QP take; 0 where hca_qp_create would refuse it. */
size_t hca_qp_bytes(const struct hca_qp_init *init);
int hca_qp_create(struct hca *hca, struct hca_qp_init *init, struct hca_qp **qp);
/* -EBUSY while it is attached to a multicast group. */
int hca_qp_destroy(struct hca *hca, struct hca_qp *qp);
int hca_qp_modify(struct hca *hca, struct hca_qp *qp, const struct hca_qp_attr *attr, uint32_t mask,
                  when_t now);
/* Of a QP in RTS: what its requests may take, in kb/s as on the wire, and in how large bursts; 0: no
 * limit, the default burst. -EINVAL otherwise. */
int hca_qp_rate_limit(struct hca *hca, struct hca_qp *qp, uint32_t kbps, uint32_t burst);
void hca_qp_query(const struct hca_qp *qp, struct hca_qp_attr *attr);
/* Send requests that can be posted before the queue is full. */
uint32_t hca_qp_send_room(const struct hca_qp *qp);
qpn_t hca_qp_num(const struct hca_qp *qp);
void hca_qp_view(const struct hca_qp *qp, struct hca_qp_view *view);
/* Whom events of the QP are for, from now on. */
void hca_qp_set_owner(struct hca_qp *qp, void *owner);
/* Moves the QP to another affinity bucket, at once. */
void hca_qp_set_bucket(struct hca *hca, struct hca_qp *qp, uint8_t bucket, when_t now);

/* From now on the QP hears datagrams to the group, in whatever state it can receive; attached twice
 * it still hears each once. -EINVAL: no multicast GID or no UD QP; -ENOMEM: too many groups, or QPs
 * of one. That the network delivers the group here is the owner's care. */
int hca_mcast_attach(struct hca *hca, struct hca_qp *qp, const struct gid *group);
/* -EINVAL: it is not attached. */
int hca_mcast_detach(struct hca *hca, struct hca_qp *qp, const struct gid *group);
/* Is any QP attached to it? */
bool hca_mcast_has(const struct hca *hca, const struct gid *group);
/* The group number `index` of those with a QP; false past the last. The order holds until the next
 * attach or detach. */
bool hca_mcast_group(const struct hca *hca, uint32_t index, struct gid *group);

/* -EINVAL wrong state, opcode or SGE count; -ENOMEM queue full. Nothing is queued on an error. In
 * the error state both are accepted and flushed. */
int hca_post_send(struct hca *hca, struct hca_qp *qp, const struct hca_send_wr *wr, when_t now);
/* Are the type, level and length of a FLUSH what it may have? hca_post_send asks, too. */
bool hca_flush_is_sound(const struct hca_send_wr *wr);
int hca_post_recv(struct hca *hca, struct hca_qp *qp, const struct hca_recv_wr *wr, when_t now);

#endif
