/* Socket addresses of ids, and binding to one. */
#include "daemon/ucma.h"

#include "base/bits.h"
#include <endian.h>
#include <errno.h>
#include <infiniband/ib.h>

/* ---- socket addresses --------------------------------------------------------------------------
 */

size_t ucma_addr_len(const struct sockaddr_in6 *addr)
{
    switch (addr->sin6_family) {
    case AF_INET: return sizeof(struct sockaddr_in);
    case AF_INET6: return sizeof(struct sockaddr_in6);
    default: return 0;
    }
}

struct gid ucma_addr_gid(const struct sockaddr_in6 *addr)
{
    struct gid g = {{0}};
    if (addr->sin6_family == AF_INET6) {
        memcpy(g.raw, &addr->sin6_addr, sizeof g.raw);
    } else if (addr->sin6_family == AF_INET) {
        g.raw[10] = g.raw[11] = 0xff;
        memcpy(g.raw + 12, &((const struct sockaddr_in *)addr)->sin_addr, 4);
    }
    return g;
}

/* sin_port and sin6_port are at the same place. */
uint16_t ucma_addr_port(const struct sockaddr_in6 *addr) { return ntohs(addr->sin6_port); }

void ucma_addr_set(struct sockaddr_in6 *addr, const struct gid *gid, uint16_t port)
{
    *addr = (struct sockaddr_in6){0};
    addr->sin6_port = htons(port);
    if (gid_is_ipv4(gid)) {
        addr->sin6_family = AF_INET;
        memcpy(&((struct sockaddr_in *)addr)->sin_addr, gid->raw + 12, 4);
    } else {
        addr->sin6_family = AF_INET6;
        memcpy(&addr->sin6_addr, gid->raw, sizeof gid->raw);
    }
}

int ucma_addr_copy(struct sockaddr_in6 *out, const struct sockaddr *addr, size_t len)
{
    *out = (struct sockaddr_in6){0};
    if (len < sizeof addr->sa_family) return -EINVAL;
    size_t want = addr->sa_family == AF_INET    ? sizeof(struct sockaddr_in)
                  : addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                : 0;
    if (want == 0) return -EAFNOSUPPORT;
    if (len < want) return -EINVAL;
    memcpy(out, addr, want);
    return 0;
}

static bool is_loopback(const struct gid *gid)
{
    static const struct gid one = {{[15] = 1}};
    return gid_is_ipv4(gid) ? gid->raw[12] == 127 : gid_equal(gid, &one);
}

/* No device in particular: the wildcards, and 127.0.0.1 and ::1, of which no device has a GID. The
 * kernel takes them for the same, in binding and in resolving. */
bool ucma_addr_is_any(const struct sockaddr_in6 *addr)
{
    static const struct gid any4 = {{[10] = 0xff, [11] = 0xff}};
    struct gid g = ucma_addr_gid(addr);
    return gid_is_zero(&g) || gid_equal(&g, &any4) || is_loopback(&g);
}

bool ucma_gid_is_link_local(const struct gid *gid)
{
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;
}

uint32_t ucma_addr_scope(const struct sockaddr_in6 *addr)
{
    struct gid g = ucma_addr_gid(addr);
    return addr->sin6_family == AF_INET6 && ucma_gid_is_link_local(&g) ? addr->sin6_scope_id : 0;
}

/* ---- binding -----------------------------------------------------------------------------------
 */

void ucma_use_device(struct ucma_id *id, const struct cmbroker_device *dev, uint8_t index)
{
    id->guid = dev->guid;
    id->sgid_index = index;
    id->path_mtu = broker_path_mtu(dev->state->mtu);
}

/* No GID is this address: it is not this host's, or no device of ours stands on its net device. */
static int no_device(struct ucma_id *id, const struct gid *gid, uint32_t scope)
{
    struct route_query q = {.dst = *gid, .oif = scope};
    struct route_answer a;
    bool ours = route_lookup(id->broker->routes, &q, &a) == 0 && a.local;
    return ours ? -ENODEV : -EADDRNOTAVAIL;
}

/* The port space that a service id asks an id of the space `own` to be in; 0: none of its. */
static uint16_t space_of(uint16_t own, const struct sockaddr_ib *ib)
{
    static const uint16_t spaces[] = {RDMA_PS_IB, RDMA_PS_TCP, RDMA_PS_UDP};
    uint64_t mask = be64toh(ib->sib_sid_mask) >> 16, wanted = be64toh(ib->sib_sid) >> 16 & mask;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        if ((own == RDMA_PS_IB || own == spaces[i]) && wanted == (spaces[i] & mask))
            return spaces[i];
    return 0;
}

/* InfiniBand's own addresses: a GID, a service id. Without a GID they are a wildcard, and by
 * binding to it librdmacm finds out whether the family is known. One with a GID is no RoCE port's,
 * as Linux has it: those have IP addresses. */
static int copy_ib(const struct ucma_id *id, const struct sockaddr *addr, size_t len,
                   struct sockaddr_in6 *out, uint16_t *ps)
{
    struct sockaddr_ib ib;
    if (len < sizeof ib) return -EINVAL;
    memcpy(&ib, addr, sizeof ib);
    *out = (struct sockaddr_in6){.sin6_family = AF_INET6};
    memcpy(&out->sin6_addr, ib.sib_addr.sib_raw, sizeof out->sin6_addr);
    if (!ucma_addr_is_any(out)) return -ENODEV;
    *ps = space_of(id->ps, &ib);
    if (!*ps) return -EPROTONOSUPPORT;
    out->sin6_port = htons((uint16_t)be64toh(ib.sib_sid));
    return 0;
}

static int take_port_in(struct ucma_id *id, uint16_t ps)
{
    const uint16_t before = id->ps;
    id->ps = ps;
    int err = ucma_take_port(id);
    if (err) id->ps = before;
    return err;
}

int ucma_bind(struct ucma_id *id, const struct sockaddr *addr, size_t len)
{
    if (id->state != UCMA_IDLE) return -EINVAL;
    struct sockaddr_in6 src;
    uint16_t ps = id->ps;
    bool is_ib = len >= sizeof addr->sa_family && addr->sa_family == AF_IB;
    int err = is_ib ? copy_ib(id, addr, len, &src, &ps) : ucma_addr_copy(&src, addr, len);
    if (err) return err;
    struct cmbroker_device dev;
    uint8_t index = 0;
    struct gid gid = ucma_addr_gid(&src);
    bool any = ucma_addr_is_any(&src);
    if (ucma_gid_is_link_local(&gid) && !src.sin6_scope_id) return -EINVAL;
    if (!any && !broker_device_by_gid(id->broker, &gid, ucma_addr_scope(&src), &dev, &index))
        return no_device(id, &gid, ucma_addr_scope(&src));
    id->src = src;
    err = take_port_in(id, ps);
    if (err) {
        id->src = (struct sockaddr_in6){0};
        return err;
    }
    if (!any) {
        ucma_use_device(id, &dev, index);
        id->route.local = gid;
    }
    id->is_ib = is_ib;
    id->state = UCMA_BOUND;
    return 0;
}
