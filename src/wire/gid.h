/* A GID: 16 bytes, an IPv6 address or an IPv4 address mapped into one (RoCE v2, annex A17). */
#ifndef RBOND_WIRE_GID_H
#define RBOND_WIRE_GID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct gid {
    uint8_t raw[16];
};

static inline bool gid_equal(const struct gid *a, const struct gid *b)
{
    return memcmp(a->raw, b->raw, sizeof a->raw) == 0;
}

static inline bool gid_is_zero(const struct gid *g)
{
    static const struct gid zero;
    return gid_equal(g, &zero);
}

/* Is this ::ffff:a.b.c.d, hence IPv4 on the wire? The address is then raw[12..15]. */
static inline bool gid_is_ipv4(const struct gid *g)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(g->raw, prefix, sizeof prefix) == 0;
}

/* An IPv6 multicast address, or an IPv4 one mapped. */
static inline bool gid_is_multicast(const struct gid *g)
{
    return g->raw[0] == 0xff || (gid_is_ipv4(g) && (g->raw[12] & 0xf0) == 0xe0);
}

#endif
