/* What fuzz_hca.c plays with: two adapters with queue pairs of every type, connected by index, and
 * all else that they can be given. Memory is laid out exactly, so that ASan sees a byte too much. */
#ifndef TEST_HCA_FUZZ_BED_H
#define TEST_HCA_FUZZ_BED_H

#include "fuzz/bytes.h"
#include "hca/qp.h"

enum { NQP = 10, NCQ = 3, NMR = 7, NMW = 2, NGROUP = 2, NSRQ = 2, MAX_WIRE = 48 };

struct side {
    struct hca *hca;
    struct gid gid;
    uint32_t pd[2];
    struct hca_cq *cq[NCQ];
    struct hca_srq *srq[NSRQ]; /* the second is an XRC SRQ */
    struct hca_mr *mr[NMR];    /* NULL: deregistered */
    uint8_t *mem[NMR];
    struct hca_mw *mw[NMW];
    struct hca_qp *qp[NQP]; /* NULL: destroyed */
};

/* A packet that has left and not arrived. */
struct wire {
    uint8_t from;
    struct hca_rx rx;
    uint8_t *data; /* rx.data */
};

struct fuzz_bed {
    struct side side[2];
    struct wire wire[MAX_WIRE];
    uint32_t nwire;
    when_t now;
};

extern bool fuzz_pages; /* what hca_conf.page_in answers */

/* All queue pairs are in RTS, with two receives each. */
void fuzz_bed_open(struct fuzz_bed *bed);
void fuzz_bed_close(struct fuzz_bed *bed);

enum hca_qp_type fuzz_qp_type(int side, uint32_t i);
void fuzz_qp_create(struct fuzz_bed *bed, int side, uint32_t i);
/* By the shortest way from wherever it is; the errno of the step that was refused. */
int fuzz_qp_walk(struct fuzz_bed *bed, int side, uint32_t i, enum hca_qp_state state);
/* Attributes with which every transition is fine, and the mask it needs. */
struct hca_qp_attr fuzz_qp_attr(const struct fuzz_bed *bed, int side, uint32_t i);
uint32_t fuzz_qp_mask(enum hca_qp_type type, enum hca_qp_state to);

size_t fuzz_mr_len(uint32_t i);
void fuzz_mr_create(struct side *s, uint32_t i);
void fuzz_srq_create(struct side *s, uint32_t i);
struct gid fuzz_group(uint32_t i);

#endif
