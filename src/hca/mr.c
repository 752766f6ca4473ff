/* Memory regions, and the look-up of keys. A slot stays for ever, so that a key once given can be
 * told from the next one of the same slot: its tag is drawn anew, and differs, each time the slot
 * is taken. */
#include "hca/mr.h"
#include "base/must.h"
#include "hca/adapter.h"
#include <errno.h>
#include <stdlib.h>

enum { MAX_SLOTS = 1 << 24, TAG_BITS = 8 };

/* Bits 20 to 29 are hints that may be ignored (IBV_ACCESS_OPTIONAL_RANGE). */
#define OPTIONAL_ACCESS 0x3ff00000u
#define REMOTE_CHANGES (HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_ATOMIC)
#define CHANGES (HCA_ACCESS_LOCAL_WRITE | REMOTE_CHANGES)
#define KNOWN_ACCESS                                                                               \
    (HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_READ | REMOTE_CHANGES | HCA_ACCESS_MW_BIND |       \
     HCA_ACCESS_ZERO_BASED | HCA_ACCESS_ON_DEMAND | HCA_ACCESS_HUGETLB | HCA_ACCESS_FLUSH_GLOBAL | \
     OPTIONAL_ACCESS)

/* ---- slots ------------------------------------------------------------------------------- */

static struct region *slot_new(struct hca *hca)
{
    struct mr_table *t = &hca->mrs;
    uint32_t index = t->used ? t->used : 1;
    if (index >= MAX_SLOTS) return NULL;
    if (index >= t->room) {
        uint32_t room = t->room ? t->room * 2 : 64;
        struct region **slot = realloc(t->slot, room * sizeof(struct region *));
        if (!slot) return NULL;
        t->slot = slot;
        t->room = room;
        t->slot[0] = NULL;
    }
    struct region *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->key = index << TAG_BITS | (uint8_t)hca_random(hca);
    t->slot[index] = r;
    t->used = index + 1;
    return r;
}

struct region *region_take(struct hca *hca)
{
    struct mr_table *t = &hca->mrs;
    struct region *r;
    if (list_empty(&t->free)) {
        r = slot_new(hca);
        if (!r) return NULL;
    } else {
        r = container_of(t->free.next, struct region, link);
        list_del(&r->link);
    }
    uint8_t tag = (uint8_t)(r->key + 1 + hca_random(hca) % 255);
    *r = (struct region){.key = (r->key & ~0xffu) | tag};
    return r;
}

void region_give(struct hca *hca, struct region *r)
{
    must(r->kind != REGION_FREE && !r->windows && !r->under);
    r->kind = REGION_FREE;
    r->access = 0;
    list_add_tail(&hca->mrs.free, &r->link);
}

struct region *region_named(const struct hca *hca, uint32_t key)
{
    uint32_t index = key >> TAG_BITS;
    if (index == 0 || index >= hca->mrs.used) return NULL;
    struct region *r = hca->mrs.slot[index];
    return r->kind == REGION_FREE ? NULL : r;
}

void mr_free_all(struct hca *hca)
{
    for (uint32_t i = 1; i < hca->mrs.used; i++) free(hca->mrs.slot[i]);
    free(hca->mrs.slot);
}

/* ---- registering ------------------------------------------------------------------------- */

/* The address at which the region begins for those who use its key. */
static uint64_t first_va(uint64_t iova, uint32_t access)
{
    return access & HCA_ACCESS_ZERO_BASED ? 0 : iova;
}

static int check(const void *addr, size_t length, uint64_t iova, uint32_t access)
{
    uint64_t end;
    if (access & ~KNOWN_ACCESS) return -EINVAL;
    if ((access & REMOTE_CHANGES) && !(access & HCA_ACCESS_LOCAL_WRITE)) return -EINVAL;
    if (__builtin_add_overflow((uint64_t)(uintptr_t)addr, length, &end)) return -EINVAL;
    if (__builtin_add_overflow(first_va(iova, access), length, &end)) return -EINVAL;
    return 0;
}

static void set(struct region *r, uint32_t pd, void *addr, size_t length, uint64_t iova,
                uint32_t access)
{
    r->iova = first_va(iova, access);
    r->length = length;
    r->base = (uintptr_t)addr;
    r->pd = pd;
    r->access = access | MR_LOCAL_READ;
    r->backing = access & HCA_ACCESS_ON_DEMAND ? BACKED_ON_DEMAND : BACKED_BY_MEMORY;
}

int hca_mr_reg(struct hca *hca, uint32_t pd, void *addr, size_t length, uint64_t iova,
               uint32_t access, struct hca_mr **out)
{
    int err = check(addr, length, iova, access);
    if (err < 0) return err;
    struct region *r = region_take(hca);
    if (!r) return -ENOMEM;
    r->kind = REGION_MR;
    set(r, pd, addr, length, iova, access);
    *out = container_of(r, struct hca_mr, region);
    return 0;
}

int hca_mr_reg_null(struct hca *hca, uint32_t pd, struct hca_mr **out)
{
    struct region *r = region_take(hca);
    if (!r) return -ENOMEM;
    r->kind = REGION_MR;
    r->length = UINT64_MAX;
    r->pd = pd;
    r->access = HCA_ACCESS_LOCAL_WRITE | MR_LOCAL_READ;
    r->backing = BACKED_BY_NOTHING;
    *out = container_of(r, struct hca_mr, region);
    return 0;
}

int hca_mr_rereg(struct hca *hca, struct hca_mr *mr, uint32_t pd, void *addr, size_t length,
                 uint64_t iova, uint32_t access)
{
    struct region *r = &mr->region;
    if (r->backing == BACKED_BY_NOTHING) return -EINVAL;
    if (r->windows) return -EBUSY;
    int err = check(addr, length, iova, access);
    if (err == 0) set(r, pd, addr, length, iova, access);
    return err;
}

int hca_mr_dereg(struct hca *hca, struct hca_mr *mr)
{
    if (mr->region.windows) return -EBUSY;
    region_give(hca, &mr->region);
    return 0;
}

uint32_t hca_mr_lkey(const struct hca_mr *mr) { return mr->region.key; }

uint32_t hca_mr_rkey(const struct hca_mr *mr) { return mr->region.key; }

/* ---- looking up -------------------------------------------------------------------------- */

static const struct region *find(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key,
                                 uint32_t access)
{
    uint32_t index = key >> TAG_BITS;
    if (index == 0 || index >= hca->mrs.used) return NULL;
    const struct region *r = hca->mrs.slot[index];
    if (r->key != key || r->pd != pd || (r->access & access) != access) return NULL;
    return r->qpn == 0 || r->qpn == qpn ? r : NULL;
}

/* va below iova wraps to an offset beyond any length. */
static bool contains(const struct region *r, uint64_t va, uint64_t len)
{
    uint64_t offset = va - r->iova;
    return offset < r->length && len <= r->length - offset;
}

static uint8_t *special_at(const struct hca *hca, const struct region *r, uint8_t *at, uint64_t len,
                           uint32_t access)
{
    static const uint8_t zeros[MR_MAX_PIECE];
    static uint8_t sink[MR_MAX_PIECE]; /* written by all, read by none */
    bool changes = access & CHANGES;
    must(len <= MR_MAX_PIECE);
    if (r->backing == BACKED_BY_NOTHING) return changes ? sink : (uint8_t *)zeros;
    return !hca->conf.page_in || hca->conf.page_in(at, len, changes) ? at : NULL;
}

static uint8_t *region_at(const struct hca *hca, const struct region *r, uint64_t va, uint64_t len,
                          uint32_t access)
{
    uint8_t *at = (uint8_t *)(r->base + (uintptr_t)(va - r->iova));
    return r->backing == BACKED_BY_MEMORY ? at : special_at(hca, r, at, len, access);
}

uint8_t *mr_at(const struct hca *hca, uint32_t pd, uint32_t key, uint64_t va, uint64_t len,
               uint32_t access)
{
    static uint8_t nowhere;
    const struct region *r = find(hca, pd, 0, key, access | MR_LOCAL_READ);
    if (!r) return NULL;
    if (len == 0) return &nowhere;
    if (!contains(r, va, len) && r->backing != BACKED_BY_NOTHING) return NULL;
    return region_at(hca, r, va, len, access);
}

uint8_t *mr_remote_at(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint64_t va,
                      uint64_t len, uint32_t access)
{
    const struct region *r = find(hca, pd, qpn, key, access);
    return r && contains(r, va, len) ? region_at(hca, r, va, len, access) : NULL;
}

bool mr_remote_grants(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint64_t va,
                      uint64_t len, uint32_t access)
{
    const struct region *r = find(hca, pd, qpn, key, access);
    return r && contains(r, va, len);
}

bool mr_remote_has(const struct hca *hca, uint32_t pd, qpn_t qpn, uint32_t key, uint32_t access)
{
    return find(hca, pd, qpn, key, access);
}

int hca_mr_span(const struct hca *hca, uint32_t pd, uint32_t lkey, uint64_t va, uint64_t len,
                struct hca_span *span)
{
    const struct region *r = region_named(hca, lkey);
    if (!r || r->key != lkey) return -ENOENT;
    if (r->kind != REGION_MR || r->backing == BACKED_BY_NOTHING) return -EINVAL;
    if (r->pd != pd) return -EPERM;
    if (len && !contains(r, va, len)) return -EFAULT;
    *span = (struct hca_span){.at = (uint8_t *)(r->base + (uintptr_t)(va - r->iova)),
                              .on_demand = r->backing == BACKED_ON_DEMAND,
                              .writable = r->access & HCA_ACCESS_LOCAL_WRITE};
    return 0;
}
