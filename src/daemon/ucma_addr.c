/* Addresses of ids: binding and the port numbers of the port spaces, and how an address leads to a
 * device. The kernel routes (watch/route.h); the device is the one that has the route's source
 * address among its GIDs, or, where the route leaves by a bond's member, that bond. */
#include "daemon/ucma.h"

#include "base/bits.h"
#include <errno.h>
#include <stdio.h>

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

static int copy_addr(struct sockaddr_in6 *out, const struct sockaddr *addr, size_t len)
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
static bool is_any(const struct sockaddr_in6 *addr)
{
    static const struct gid any4 = {{[10] = 0xff, [11] = 0xff}};
    struct gid g = ucma_addr_gid(addr);
    return gid_is_zero(&g) || gid_equal(&g, &any4) || is_loopback(&g);
}

static bool is_link_local(const struct gid *gid)
{
    return gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;
}

static uint32_t scope_of(const struct sockaddr_in6 *addr)
{
    struct gid g = ucma_addr_gid(addr);
    return addr->sin6_family == AF_INET6 && is_link_local(&g) ? addr->sin6_scope_id : 0;
}

/* ---- port numbers
 * -------------------------------------------------------------------------------- */

static bool overlap(const struct ucma_id *a, const struct ucma_id *b)
{
    bool any_a = is_any(&a->src), any_b = is_any(&b->src);
    if (!any_a && !any_b) {
        struct gid ga = ucma_addr_gid(&a->src), gb = ucma_addr_gid(&b->src);
        return gid_equal(&ga, &gb);
    }
    if (a->src.sin6_family == b->src.sin6_family) return true;
    /* IPv6's wildcard covers IPv4 as well, unless its owner wants none of it. */
    const struct ucma_id *six = a->src.sin6_family == AF_INET6 ? a : b;
    return is_any(&six->src) && !six->afonly;
}

static bool port_taken(const struct ucma_id *id, uint16_t port)
{
    list_for_each (pos, &id->broker->ports) {
        const struct ucma_id *other = container_of(pos, struct ucma_id, port);
        if (other->ps != id->ps || ucma_addr_port(&other->src) != port) continue;
        bool shared = other->reuseaddr && id->reuseaddr && other->state != UCMA_LISTENING;
        if (!shared && overlap(other, id)) return true;
    }
    return false;
}

static void ephemeral_range(uint32_t *first, uint32_t *last)
{
    unsigned a, b;
    *first = 32768;
    *last = 60999;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (!f) return;
    if (fscanf(f, "%u %u", &a, &b) == 2 && a > 0 && a <= b && b < 65536) {
        *first = a;
        *last = b;
    }
    fclose(f);
}

static int take_port(struct ucma_id *id)
{
    struct cmbroker *b = id->broker;
    uint16_t port = ucma_addr_port(&id->src);
    if (port == 0) {
        uint32_t first, last;
        ephemeral_range(&first, &last);
        uint32_t n = last - first + 1;
        if (b->next_port == 0) b->next_port = (uint32_t)broker_random(b);
        for (uint32_t i = 0; i < n && port == 0; i++) {
            uint16_t candidate = (uint16_t)(first + b->next_port++ % n);
            if (!port_taken(id, candidate)) port = candidate;
        }
        if (port == 0) return -EADDRNOTAVAIL;
    } else if (port_taken(id, port)) {
        return -EADDRINUSE;
    }
    id->src.sin6_port = htons(port);
    list_add_tail(&b->ports, &id->port);
    return 0;
}

void ucma_release_port(struct ucma_id *id) { list_del(&id->port); }

/* ---- commands
 * ------------------------------------------------------------------------------------ */

static void use_device(struct ucma_id *id, const struct cmbroker_device *dev, uint8_t index)
{
    id->guid = dev->guid;
    id->sgid_index = index;
    id->path_mtu = broker_path_mtu(dev->state->mtu);
}

int ucma_bind(struct ucma_id *id, const struct sockaddr *addr, size_t len)
{
    if (id->state != UCMA_IDLE) return -EINVAL;
    struct sockaddr_in6 src;
    int err = copy_addr(&src, addr, len);
    if (err) return err;
    struct cmbroker_device dev;
    uint8_t index = 0;
    struct gid gid = ucma_addr_gid(&src);
    bool any = is_any(&src);
    if (!any && !broker_device_by_gid(id->broker, &gid, scope_of(&src), &dev, &index))
        return -ENODEV;
    id->src = src;
    err = take_port(id);
    if (err) {
        id->src = (struct sockaddr_in6){0};
        return err;
    }
    if (!any) {
        use_device(id, &dev, index);
        id->route.local = gid;
    }
    id->state = UCMA_BOUND;
    return 0;
}

static bool same_family(const struct gid *a, const struct gid *b)
{
    return gid_is_ipv4(a) == gid_is_ipv4(b);
}

/* The device's first GID of the family that is not link-local. */
static bool first_gid(const struct cmbroker_device *dev, const struct gid *family, struct gid *out,
                      uint8_t *index)
{
    for (uint8_t i = 0; i < CTL_MAX_GIDS; i++) {
        const struct gid *g = &dev->state->gid[i];
        if (gid_is_zero(g) || is_link_local(g) || !same_family(g, family)) continue;
        *out = *g;
        *index = i;
        return true;
    }
    return false;
}

/* Programs that speak to no address in particular mean this host: any device will do. */
static int resolve_loopback(struct ucma_id *id, const struct gid *dst)
{
    struct cmbroker *b = id->broker;
    struct cmbroker_device dev;
    struct gid gid;
    uint8_t index;
    for (size_t i = 0; b->conf.device(b->conf.ctx, i, &dev); i++) {
        if (id->guid && dev.guid != id->guid) continue;
        if (!first_gid(&dev, dst, &gid, &index)) continue;
        use_device(id, &dev, index);
        id->route.local = id->route.remote = gid;
        return 0;
    }
    return -ENODEV;
}

/* The bond, or plain port, that leaves by this net device. */
static bool device_by_member(struct cmbroker *b, uint32_t ifindex, struct cmbroker_device *out)
{
    for (size_t i = 0; b->conf.device(b->conf.ctx, i, out); i++)
        for (uint8_t m = 0; m < out->state->steering.nmembers && m < STEER_MAX_MEMBERS; m++)
            if (out->state->member_ifindex[m] == ifindex) return true;
    return false;
}

static int resolve_remote(struct ucma_id *id, const struct gid *dst, uint32_t oif)
{
    bool bound = !is_any(&id->src);
    struct gid src = ucma_addr_gid(&id->src);
    struct route_query q = {.dst = *dst, .src = bound ? &src : NULL, .oif = oif};
    struct route_answer a;
    int err = route_lookup(id->broker->routes, &q, &a);
    if (err) return err;

    struct cmbroker_device dev;
    uint8_t index;
    if (!bound) {
        src = a.prefsrc;
        uint32_t on = is_link_local(&src) ? a.oif : 0;
        if (!broker_device_by_gid(id->broker, &src, on, &dev, &index) &&
            !(device_by_member(id->broker, a.oif, &dev) && first_gid(&dev, dst, &src, &index)))
            return -ENODEV;
    } else if (!broker_device_by_gid(id->broker, &src, scope_of(&id->src), &dev, &index)) {
        return -ENODEV;
    }
    use_device(id, &dev, index);
    if (a.mtu && broker_path_mtu(a.mtu) < id->path_mtu) id->path_mtu = broker_path_mtu(a.mtu);
    id->route.local = src;
    id->route.remote = *dst;
    return 0;
}

int ucma_resolve_addr(struct ucma_id *id, const struct sockaddr *src, size_t src_len,
                      const struct sockaddr *dst, size_t dst_len)
{
    struct sockaddr_in6 to;
    int err = copy_addr(&to, dst, dst_len);
    if (err) return err;
    if (id->state == UCMA_IDLE) {
        struct sockaddr_in6 any = {.sin6_family = to.sin6_family};
        bool given = src_len >= sizeof src->sa_family && src->sa_family != AF_UNSPEC;
        err = given ? ucma_bind(id, src, src_len)
                    : ucma_bind(id, (struct sockaddr *)&any, ucma_addr_len(&any));
        if (err) return err;
    }
    if (id->state != UCMA_BOUND) return -EINVAL;
    struct gid gid = ucma_addr_gid(&to);
    struct gid from = ucma_addr_gid(&id->src);
    if (!is_any(&id->src) && !same_family(&gid, &from)) return -EINVAL;
    uint32_t scope = scope_of(&to) ? scope_of(&to) : scope_of(&id->src);
    err = is_any(&to) ? resolve_loopback(id, &gid) : resolve_remote(id, &gid, scope);
    if (err) return err;
    id->route.traffic_class = id->tos;
    uint16_t port = ucma_addr_port(&id->src);
    ucma_addr_set(&id->src, &id->route.local, port);
    if (is_link_local(&id->route.local)) id->src.sin6_scope_id = scope;
    id->dst = to;
    id->state = UCMA_ADDR_RESOLVED;
    ucma_report(id, UCMA_EV_ADDR_RESOLVED, 0);
    return 0;
}

int ucma_resolve_route(struct ucma_id *id)
{
    if (id->state != UCMA_ADDR_RESOLVED) return -EINVAL;
    id->state = UCMA_ROUTE_RESOLVED;
    ucma_report(id, UCMA_EV_ROUTE_RESOLVED, 0);
    return 0;
}
