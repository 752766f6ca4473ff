/* A test bed: two adapters, a connected pair of QPs, and packets carried between them by hand. */
#ifndef TEST_HCA_BED_H
#define TEST_HCA_BED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hca/qp.h"

#define BED_MEM 65536
#define BED_QKEY 0x11111111u
#define BED_CLASS 0x68 /* every packet's traffic class, and flow label */
#define BED_FLOW 0xbeef5

struct bed {
    struct hca *hca[2];
    uint32_t pd[2];
    struct hca_cq *scq[2], *rcq[2];
    struct hca_qp *qp[2];
    struct hca_mr *mr[2];
    uint8_t mem[2][BED_MEM];
    struct gid gid[2];
    when_t now;
    /* Asked for each packet: false loses it. NULL: all arrive. */
    bool (*carry)(struct bed *bed, int from, const struct roce_hdr *h);
    int carried, limit; /* packets that arrived; `carry` may use limit */
};

extern const char bed_owner[2][2]; /* owners of the QPs: &bed_owner[side][0] */

/* Both QPs in RTS, one member usable, path MTU 1024, all access granted. */
void bed_open(struct bed *bed, enum hca_qp_type type);
/* The same with QPs in RESET: for states tests. */
void bed_open_reset(struct bed *bed, enum hca_qp_type type, struct hca_srq *(*srq)(struct bed *));
void bed_close(struct bed *bed);

void bed_steer(struct bed *bed, int side, uint8_t member);
/* Walks one side's QP to `state` from RESET by the shortest way. */
void bed_walk(struct bed *bed, int side, enum hca_qp_state state);
/* Attributes that satisfy any transition. */
struct hca_qp_attr bed_attr(const struct bed *bed, int side);

/* Carries packets both ways until neither side gives any. */
void bed_pump(struct bed *bed);
/* Delivers one packet of `from` to the other side. */
void bed_deliver(struct bed *bed, int from, const struct hca_tx *tx);

struct hca_sge bed_sge(const struct bed *bed, int side, uint32_t offset, uint32_t len);
void bed_recv(struct bed *bed, int side, uint64_t wr_id, uint32_t offset, uint32_t len);
/* A signalled SEND from side 0's memory; flags are added. */
struct hca_send_wr bed_send_wr(const struct bed *bed, uint64_t wr_id, const struct hca_sge *sge);
/* The next completion, or a failed test. */
struct hca_wc bed_poll(struct hca_cq *cq);
void bed_empty(struct hca_cq *cq);

#endif
