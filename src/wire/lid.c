#include "wire/lid.h"
#include "base/bits.h"

#define LID_MASK ((1u << LID_BITS) - 1)

static bool is_link_local(const struct gid *gid)
{
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;
}

static uint16_t low_bits(const struct gid *gid) { return get_be16(gid->raw + 14) & LID_MASK; }

uint16_t lid_of(const struct gid *gids, size_t n, size_t *index)
{
    size_t found = n;

    for (size_t i = 0; i < n; i++) {
        if (gid_is_zero(&gids[i]) || is_link_local(&gids[i])) continue;
        if (found == n || (gid_is_ipv4(&gids[i]) && !gid_is_ipv4(&gids[found]))) found = i;
    }
    if (found == n) return 0;
    *index = found;
    return low_bits(&gids[found]);
}

struct gid lid_gid(const struct gid *own, uint16_t lid)
{
    struct gid gid = *own;

    put_be16(gid.raw + 14, (uint16_t)((get_be16(own->raw + 14) & ~LID_MASK) | (lid & LID_MASK)));
    return gid;
}
