/* What keys lead to: memory regions, and windows of them (mw.c). A key is index << 8 | tag; a region's
 * lkey equals its rkey. All that a look-up needs is in one cache line, a window's the same as a
 * region's: a remote access through a window costs no second look-up. */
#ifndef RBOND_HCA_MR_H
#define RBOND_HCA_MR_H

#include "base/list.h"
#include "hca/hca.h"

struct hca_qp;

/* Beside enum hca_access in region.access: the key may stand in an SGE. Windows have none of it. */
#define MR_LOCAL_READ (1u << 31)

enum region_kind { REGION_FREE, REGION_MR, REGION_MW_1, REGION_MW_2 };

enum region_backing {
    BACKED_BY_MEMORY, /* there as long as the region is */
    BACKED_ON_DEMAND, /* each access asks for its pages: hca_conf.page_in */
    BACKED_BY_NOTHING /* the null region: zeros to read, writes are dropped */
};

struct region {
    uint64_t iova, length;
    uintptr_t base;
    uint32_t access; /* 0: nothing can be reached, as through a window that is not bound */
    uint32_t key, pd;
    qpn_t qpn; /* a bound window of type 2: its QP's; 0: all QPs of the PD */
    enum region_backing backing;
    enum region_kind kind;
    uint32_t windows;     /* a region's: bound to it now */
    struct region *under; /* a bound window's: the region */
    struct list link;     /* free: in mr_table.free; a bound window of type 2: in hca_qp.windows */
};

struct hca_mr {
    struct region region;
};

struct hca_mw {
    struct region region;
};

/* The memory behind [va, va + len) of an SGE, or NULL where the key is unknown, of another PD, the
 * range outside, `access` (all of the bits) not granted, or a page on demand not to be had. len 0
 * is always granted to a valid key; at most MR_MAX_PIECE bytes. */
uint8_t *mr_at(const struct hca *hca, uint32_t pd, uint32_t key, uint64_t va, uint64_t len,
               uint32_t access);
#define MR_MAX_PIECE HCA_MAX_MTU

/* The same for a peer's request that comes in on QP `qpn`; len is not 0. */
uint8_t *mr_remote_at(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint64_t va,
                      uint64_t len, uint32_t access);
/* Would it be granted? Pages on demand are not asked for, and len has no bound. */
bool mr_remote_grants(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint64_t va,
                      uint64_t len, uint32_t access);

/* Is it a key that grants this, somewhere? */
bool mr_remote_has(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint32_t access);

/* A free slot with a fresh tag, kind still REGION_FREE; NULL: no memory. */
struct region *region_take(struct hca *hca);
void region_give(struct hca *hca, struct region *r);
/* The slot that this key's index names, whatever its tag; NULL: none, or free. */
struct region *region_named(const struct hca *hca, uint32_t key);

/* mw.c */
/* Executes a bind or a local invalidate, as ordered by the send queue. HCA_WC_SUCCESS, or the
 * status it fails with. */
enum hca_wc_status mw_execute(struct hca_qp *qp, const struct hca_send_wr *wr);
/* SEND with invalidate: revokes the rkey. False where it is unknown, or is no window of type 2
 * that is bound to this QP (IBTA 10.6.5: ordinary regions and windows of type 1 are not
 * invalidated). */
bool mw_invalidate(struct hca_qp *qp, uint32_t rkey);
/* The QP is reset or destroyed: windows of type 2 bound to it are bound no more. */
void mw_forget_qp(struct hca_qp *qp);

#endif
