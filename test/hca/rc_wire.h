/* Two adapters back to back over a wire that does what a test's script says, in virtual time. */
#ifndef TEST_HCA_RC_WIRE_H
#define TEST_HCA_RC_WIRE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hca/hca.h"
#include "wire/opcode.h"

#define WIRE_MEM (4u << 20)
#define WIRE_MAX_QP 64
#define WIRE_LOG 65536
#define WIRE_XRCD 9
#define WIRE_DELAY_NS (10 * US_NS)

enum fate {
    PASS,
    DROP,
    TWICE,
    LATE,  /* overtaken by what follows within 50 us */
    MARKED /* congestion experienced, if it can tell */
};

struct seen { /* a packet that a side sent, dropped ones included */
    when_t at;
    uint8_t from, opcode, syndrome, member, traffic_class;
    bool ackreq;
    psn_t psn;
    qpn_t dqpn;
    uint32_t len, msn, reth_len;
};

struct flight;

struct wire {
    struct hca *hca[2];
    uint32_t pd[2];
    struct hca_cq *scq[2], *rcq[2];
    struct hca_srq *srq; /* side 1's, if wanted */
    uint32_t xrc_srqn;   /* what wire_wr names: the SRQ's number; 0 without XRC */
    uint32_t nqp;
    struct hca_qp *qp[2][WIRE_MAX_QP];
    struct hca_mr *mr[2];
    uint8_t *mem[2];
    struct gid gid[2];
    when_t now;
    uint64_t rtt_extra_ns;
    enum fate (*script)(struct wire *w, const struct seen *packet);
    when_t (*beside)(struct wire *w); /* the test's own part of each step; when it has another */
    uint64_t budget, random; /* the script's own */
    struct flight *flights;
    uint64_t flight_seq;
    struct seen *log;
    uint32_t nlog;
};

struct wire_conf {
    uint8_t path_mtu; /* 1..5; 0: 3 */
    uint8_t timeout, retry_cnt, rnr_retry, min_rnr_timer;
    uint8_t max_rd_atomic; /* 0: 4 */
    bool no_rd_atomic;
    uint32_t access; /* of the QPs; 0: all */
    uint32_t psn;    /* of both sides */
    uint32_t nqp;    /* 0: 1 */
    bool srq, sig_none;
    bool xrc; /* side 0: initiators; side 1: targets, and an XRC SRQ of domain WIRE_XRCD */
    bool xrcd_shared;
    uint32_t max_window, start_window, inflight_cap;
    uint32_t max_wr; /* 0: 256 */
};

void wire_open(struct wire *w, const struct wire_conf *conf);
void wire_close(struct wire *w);
/* Lets time pass to `until`, or with NEVER until nothing is under way and no deadline stands. */
void wire_run(struct wire *w, when_t until);
void wire_run_for(struct wire *w, uint64_t ns);
void wire_steer(struct wire *w, int side, uint8_t member);
/* Hands a side bytes as if from the other's QP 0. */
void wire_inject(struct wire *w, int to, const struct roce_hdr *h, const void *payload,
                 uint32_t len);

/* Posts on qp[side][0]; local and remote offsets into the sides' memory. Signalled. */
struct hca_send_wr wire_wr(const struct wire *w, int side, enum hca_wr_opcode op, uint64_t id,
                           uint32_t remote);
void wire_post(struct wire *w, int side, uint32_t qp, enum hca_wr_opcode op, uint64_t id,
               uint32_t local, uint32_t remote, uint32_t len, uint32_t flags);
void wire_recv(struct wire *w, int side, uint32_t qp, uint64_t id, uint32_t local, uint32_t len);
struct hca_wc wire_wc(struct hca_cq *cq);
void wire_no_wc(struct hca_cq *cq);
void wire_expect(struct hca_cq *cq, uint64_t id, enum hca_wc_status status);
/* Packets of a side in the log with this opcode; -1: any. */
uint32_t wire_count(const struct wire *w, int from, int opcode);
void wire_fill(struct wire *w, int side, uint32_t at, uint32_t len, uint64_t seed);
void wire_same(const struct wire *w, uint32_t at0, uint32_t at1, uint32_t len);
uint64_t wire_random(struct wire *w);
enum hca_qp_state wire_state(const struct wire *w, int side);

#endif
