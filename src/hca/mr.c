/* Memory regions. A slot keeps its hca_mr for ever, so that a key once given can be told from the
 * next one of the same slot: its tag is drawn anew, and differs, at each registration. */
#include "hca/mr.h"
#include "base/must.h"
#include "hca/adapter.h"
#include <errno.h>
#include <stdlib.h>

enum { MAX_SLOTS = 1 << 24, TAG_BITS = 8 };

/* Bits 20 to 29 are hints that may be ignored (IBV_ACCESS_OPTIONAL_RANGE). */
#define OPTIONAL_ACCESS 0x3ff00000u
#define REMOTE_CHANGES (HCA_ACCESS_REMOTE_WRITE | HCA_ACCESS_REMOTE_ATOMIC)
#define KNOWN_ACCESS                                                                               \
    (HCA_ACCESS_LOCAL_WRITE | HCA_ACCESS_REMOTE_READ | REMOTE_CHANGES | HCA_ACCESS_MW_BIND |       \
     HCA_ACCESS_ZERO_BASED | HCA_ACCESS_HUGETLB | OPTIONAL_ACCESS)

struct hca_mr {
    uint64_t iova, length;
    uint8_t *base;
    uint32_t key, pd, access;
    bool live;
    struct list free; /* in mr_table.free unless live */
};

static struct hca_mr *slot_take(struct hca *hca)
{
    struct mr_table *t = &hca->mrs;
    if (!list_empty(&t->free)) {
        struct hca_mr *mr = container_of(t->free.next, struct hca_mr, free);
        list_del(&mr->free);
        return mr;
    }
    uint32_t index = t->used ? t->used : 1;
    if (index >= MAX_SLOTS) return NULL;
    if (index >= t->room) {
        uint32_t room = t->room ? t->room * 2 : 64;
        struct hca_mr **slot = realloc(t->slot, room * sizeof(struct hca_mr *));
        if (!slot) return NULL;
        t->slot = slot;
        t->room = room;
        t->slot[0] = NULL;
    }
    struct hca_mr *mr = calloc(1, sizeof *mr);
    if (!mr) return NULL;
    mr->key = index << TAG_BITS | (uint8_t)hca_random(hca);
    t->slot[index] = mr;
    t->used = index + 1;
    return mr;
}

int hca_mr_reg(struct hca *hca, uint32_t pd, void *addr, size_t length, uint64_t iova,
               uint32_t access, struct hca_mr **out)
{
    if (access & HCA_ACCESS_ON_DEMAND) return -EOPNOTSUPP;
    if (access & ~KNOWN_ACCESS) return -EINVAL;
    if ((access & REMOTE_CHANGES) && !(access & HCA_ACCESS_LOCAL_WRITE)) return -EINVAL;
    if (access & HCA_ACCESS_ZERO_BASED) iova = 0;
    uint64_t end;
    if (__builtin_add_overflow((uint64_t)(uintptr_t)addr, length, &end)) return -EINVAL;
    if (__builtin_add_overflow(iova, length, &end)) return -EINVAL;

    struct hca_mr *mr = slot_take(hca);
    if (!mr) return -ENOMEM;
    uint8_t tag = (uint8_t)(mr->key + 1 + hca_random(hca) % 255);
    mr->key = (mr->key & ~0xffu) | tag;
    mr->iova = iova;
    mr->length = length;
    mr->base = addr;
    mr->pd = pd;
    mr->access = access;
    mr->live = true;
    *out = mr;
    return 0;
}

int hca_mr_dereg(struct hca *hca, struct hca_mr *mr)
{
    must(mr->live);
    mr->live = false;
    list_add_tail(&hca->mrs.free, &mr->free);
    return 0;
}

uint32_t hca_mr_lkey(const struct hca_mr *mr) { return mr->key; }

uint32_t hca_mr_rkey(const struct hca_mr *mr) { return mr->key; }

static const struct hca_mr *find(const struct hca *hca, uint32_t pd, uint32_t key)
{
    uint32_t index = key >> TAG_BITS;
    if (index == 0 || index >= hca->mrs.used) return NULL;
    const struct hca_mr *mr = hca->mrs.slot[index];
    return mr->live && mr->key == key && mr->pd == pd ? mr : NULL;
}

uint8_t *mr_at(const struct hca *hca, uint32_t pd, uint32_t key, uint64_t va, uint64_t len,
               uint32_t access)
{
    const struct hca_mr *mr = find(hca, pd, key);
    if (!mr || (mr->access & access) != access) return NULL;
    uint64_t offset = va - mr->iova;
    if (len == 0) return mr->base + (offset <= mr->length ? offset : 0);
    /* va below iova wraps to an offset beyond any length. */
    if (offset >= mr->length || len > mr->length - offset) return NULL;
    return mr->base + offset;
}

bool mr_invalidate(struct hca *hca, uint32_t pd, uint32_t rkey)
{
    /* Only memory windows of type 2 and fast-registered regions can be invalidated (IBTA 10.6.5);
     * there are none here. */
    return false;
}

void mr_free_all(struct hca *hca)
{
    for (uint32_t i = 1; i < hca->mrs.used; i++) free(hca->mrs.slot[i]);
    free(hca->mrs.slot);
}
