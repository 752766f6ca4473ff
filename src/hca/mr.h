/* Memory regions: keys -> ranges. A key is index << 8 | random tag; an lkey equals its rkey. */
#ifndef RBOND_HCA_MR_H
#define RBOND_HCA_MR_H

#include "hca/hca.h"

/* The memory behind [va, va + len) of this key, or NULL where the key is unknown, of another PD,
 * the range outside, or `access` (all of the bits) not granted. len 0 is always granted to a valid
 * key. */
uint8_t *mr_at(const struct hca *hca, uint32_t pd, uint32_t key, uint64_t va, uint64_t len,
               uint32_t access);
/* SEND with invalidate, local invalidate: revokes the rkey; false where it is unknown, of another
 * PD, or not invalidatable (an ordinary MR). */
bool mr_invalidate(struct hca *hca, uint32_t pd, uint32_t rkey);

#endif
