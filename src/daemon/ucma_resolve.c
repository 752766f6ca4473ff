/* From an address to a device and a path. The kernel routes (watch/route.h); the device is the one
 * that has the route's source address among its GIDs, or, where the route leaves by a bond's
 * member, that bond. Then the next hop must be a neighbour whose link address the kernel knows: of
 * a bond, by any member in use. It is asked to look for it, and asked again, until the program's
 * timeout: as with the kernel's CM that is an ADDR_ERROR of -ETIMEDOUT, and no device there one of
 * -ENODEV, while what has no route fails at once. */
#include "daemon/ucma.h"

#include <errno.h>
#include <rdma/ib_user_sa.h>

/* How long until the kernel is asked again, at first and at most. */
#define LOOK_FIRST_NS MS_NS
#define LOOK_MAX_NS (50 * MS_NS)

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
        if (gid_is_zero(g) || ucma_gid_is_link_local(g) || !same_family(g, family)) continue;
        *out = *g;
        *index = i;
        return true;
    }
    return false;
}

/* ---- the outcome ----------------------------------------------------------------------------- */

static void resolved(struct ucma_id *id)
{
    uint16_t port = ucma_addr_port(&id->src);
    uint32_t scope = ucma_addr_scope(&id->dst) ? ucma_addr_scope(&id->dst) : id->src.sin6_scope_id;
    heap_set(&id->broker->resolving, &id->look_again, NEVER);
    id->route.traffic_class = id->tos;
    ucma_addr_set(&id->src, &id->route.local, port);
    if (ucma_gid_is_link_local(&id->route.local)) id->src.sin6_scope_id = scope;
    id->state = UCMA_ADDR_RESOLVED;
    ucma_report(id, UCMA_EV_ADDR_RESOLVED, 0);
}

/* The program may try again. */
static void failed(struct ucma_id *id, int err)
{
    heap_set(&id->broker->resolving, &id->look_again, NEVER);
    id->state = UCMA_BOUND;
    ucma_report(id, UCMA_EV_ADDR_ERROR, err);
}

/* ---- neighbours ------------------------------------------------------------------------------ */

static struct gid next_hop(const struct route_answer *a, const struct gid *dst)
{
    return gid_is_zero(&a->gateway) ? *dst : a->gateway;
}

static bool in_use(const struct steering *t, uint8_t member)
{
    for (size_t b = 0; b < STEER_BUCKETS; b++)
        if (t->active[b] == member) return true;
    return false;
}

/* Is the destination's next hop by this net device known? With `seek` the kernel is set to work. No
 * source is named: with one, IPv6 takes the net device for a hint. */
static bool known_by(struct ucma_id *id, uint32_t ifindex, bool seek)
{
    struct route_query q = {.dst = id->route.remote, .oif = ifindex};
    struct route_answer a;
    if (route_lookup(id->broker->routes, &q, &a) != 0 || a.oif != ifindex) return false;
    struct gid hop = next_hop(&a, &id->route.remote);
    if (route_neighbour(id->broker->routes, ifindex, &hop, NULL) == 1) return true;
    if (seek) route_seek_neighbour(ifindex, &hop);
    return false;
}

static bool neighbour_known(struct ucma_id *id, const struct cmbroker_device *dev, bool seek)
{
    const struct steering *t = &dev->state->steering;
    for (uint8_t m = 0; m < t->nmembers && m < STEER_MAX_MEMBERS; m++)
        if (in_use(t, m) && known_by(id, dev->state->member_ifindex[m], seek)) return true;
    return false;
}

static void look(struct ucma_id *id, bool first)
{
    struct cmbroker_device dev;
    when_t now = broker_now();
    if (!broker_device_by_guid(id->broker, id->guid, &dev))
        failed(id, -ENODEV);
    else if (neighbour_known(id, &dev, first) || (first && neighbour_known(id, &dev, false)))
        resolved(id);
    else if (when_due(id->resolve_until, now))
        failed(id, -ETIMEDOUT);
    else
        heap_set(&id->broker->resolving, &id->look_again,
                 when_min(when_add(now, id->look_ns), id->resolve_until));
    id->look_ns = id->look_ns * 2 < LOOK_MAX_NS ? id->look_ns * 2 : LOOK_MAX_NS;
}

void ucma_resolve_expire(struct cmbroker *b, when_t now)
{
    while (when_due(heap_when(&b->resolving), now)) {
        struct ucma_id *id = container_of(heap_first(&b->resolving), struct ucma_id, look_again);
        heap_set(&b->resolving, &id->look_again, NEVER);
        look(id, false);
    }
}

/* ---- commands
 * ------------------------------------------------------------------------------------ */

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
        ucma_use_device(id, &dev, index);
        id->route.local = id->route.remote = gid;
        resolved(id);
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

static int resolve_remote(struct ucma_id *id, const struct gid *dst, uint32_t oif, uint32_t ms)
{
    struct cmbroker *b = id->broker;
    bool bound = !ucma_addr_is_any(&id->src);
    struct gid src = ucma_addr_gid(&id->src);
    struct route_query q = {.dst = *dst, .src = bound ? &src : NULL, .oif = oif};
    struct route_answer a;
    int err = route_lookup(b->routes, &q, &a);
    if (err) return err;

    struct cmbroker_device dev;
    uint8_t index;
    if (!bound) src = a.prefsrc;
    uint32_t on = ucma_gid_is_link_local(&src) ? (bound ? ucma_addr_scope(&id->src) : a.oif) : 0;
    if (!broker_device_by_gid(b, &src, on, &dev, &index) &&
        (bound || !(device_by_member(b, a.oif, &dev) && first_gid(&dev, dst, &src, &index)))) {
        failed(id, -ENODEV);
        return 0;
    }
    ucma_use_device(id, &dev, index);
    if (a.mtu && broker_path_mtu(a.mtu) < id->path_mtu) id->path_mtu = broker_path_mtu(a.mtu);
    id->route.local = src;
    id->route.remote = *dst;
    id->state = UCMA_RESOLVING;
    id->resolve_until = when_add(broker_now(), ms * MS_NS);
    id->look_ns = LOOK_FIRST_NS;
    if (a.local || gid_is_multicast(dst)) /* whose link address follows from the group */
        resolved(id);
    else
        look(id, true);
    return 0;
}

static int bind_for(struct ucma_id *id, const struct sockaddr *src, size_t src_len,
                    const struct sockaddr_in6 *to)
{
    struct sockaddr_in6 any = {.sin6_family = to->sin6_family};
    if (id->state != UCMA_IDLE) return 0;
    if (src_len >= sizeof src->sa_family && src->sa_family != AF_UNSPEC)
        return ucma_bind(id, src, src_len);
    return ucma_bind(id, (struct sockaddr *)&any, ucma_addr_len(&any));
}

int ucma_resolve_addr(struct ucma_id *id, const struct sockaddr *src, size_t src_len,
                      const struct sockaddr *dst, size_t dst_len, uint32_t timeout_ms)
{
    struct sockaddr_in6 to;
    int err = ucma_addr_copy(&to, dst, dst_len);
    if (!err) err = bind_for(id, src, src_len, &to);
    if (err) return err;
    if (id->state != UCMA_BOUND) return -EINVAL;
    if (id->nevents >= UCMA_MAX_WAITING) return -ENOMEM; /* it asks again, and hears no answer */
    struct gid gid = ucma_addr_gid(&to);
    struct gid from = ucma_addr_gid(&id->src);
    if (!ucma_addr_is_any(&id->src) && !same_family(&gid, &from)) return -EINVAL;
    uint32_t scope = ucma_addr_scope(&to) ? ucma_addr_scope(&to) : ucma_addr_scope(&id->src);
    id->dst = to;
    return ucma_addr_is_any(&to) ? resolve_loopback(id, &gid)
                                 : resolve_remote(id, &gid, scope, timeout_ms);
}

/* The first record that is good for both directions of everything. The two GIDs stay as they were
 * resolved; a packet cannot be larger than our ports carry. */
int ucma_set_path(struct ucma_id *id, const void *option, size_t len)
{
    const uint32_t wanted = IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL;
    struct ib_path_rec_data data = {0};
    if (len == 0 || len % sizeof data) return -EINVAL;
    for (; len > 0 && data.flags != wanted; len -= sizeof data) {
        memcpy(&data, option, sizeof data);
        option = (const uint8_t *)option + sizeof data;
    }
    if (data.flags != wanted || id->state != UCMA_ADDR_RESOLVED) return -EINVAL;
    const uint8_t *record = (const uint8_t *)data.path_rec;
    uint8_t mtu = record[54] & 0x3f;
    if (mtu && mtu < id->path_mtu) id->path_mtu = mtu;
    id->route.traffic_class = record[48];
    return ucma_resolve_route(id);
}

int ucma_resolve_route(struct ucma_id *id)
{
    if (id->state != UCMA_ADDR_RESOLVED) return -EINVAL;
    if (id->removed) return -ENODEV;
    id->state = UCMA_ROUTE_RESOLVED;
    ucma_report(id, UCMA_EV_ROUTE_RESOLVED, 0);
    return 0;
}
