/* Port numbers of the port spaces: who has which, by the kernel's rules. A number is shared by ids
 * of different addresses, by ids of different families that both want nothing of the other, and by
 * ids that all asked for it (REUSEADDR) while none of them listens. */
#include "daemon/ucma.h"

#include <errno.h>
#include <stdio.h>

#define RANGE_TTL_NS SEC_NS

static struct list *bucket(struct cmbroker *b, uint16_t port)
{
    return &b->ports[port % UCMA_PORT_HASH];
}

/* 0, -EADDRINUSE, or -EADDRNOTAVAIL where a wildcard is in the way. */
static int check_port(const struct ucma_id *id, uint16_t port, bool reuse)
{
    struct gid gid = ucma_addr_gid(&id->src);
    list_for_each (pos, bucket(id->broker, port)) {
        const struct ucma_id *other = container_of(pos, struct ucma_id, port);
        if (other == id || other->ps != id->ps || ucma_addr_port(&other->src) != port) continue;
        if (reuse && other->reuseaddr) continue;
        if (id->afonly && other->afonly && id->src.sin6_family != other->src.sin6_family) continue;
        if (ucma_addr_is_any(&id->src) || ucma_addr_is_any(&other->src)) return -EADDRNOTAVAIL;
        struct gid theirs = ucma_addr_gid(&other->src);
        if (gid_equal(&gid, &theirs)) return -EADDRINUSE;
    }
    return 0;
}

static bool read_numbers(const char *path, unsigned *a, unsigned *b)
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    int n = fscanf(f, "%u %u", a, b);
    fclose(f);
    return n >= 1;
}

/* The kernel's settings, looked up once a second. */
static void read_settings(struct cmbroker *b)
{
    when_t now = broker_now();
    if (b->port_count && when_before(now, b->settings_until)) return;
    b->settings_until = when_add(now, RANGE_TTL_NS);
    unsigned first = 32768, last = 60999, v6only = 0, none;
    if (!read_numbers("/proc/sys/net/ipv4/ip_local_port_range", &first, &last) || first == 0 ||
        first > last || last > 65535) {
        first = 32768;
        last = 60999;
    }
    b->port_first = first;
    b->port_count = last - first + 1;
    b->bindv6only = read_numbers("/proc/sys/net/ipv6/bindv6only", &v6only, &none) && v6only;
}

/* Half of those that ids without a wish for one get are a user's share. */
static bool may_have(const struct ucma_id *id, uint16_t port)
{
    const struct cmbroker *b = id->broker;
    const struct ucma_user *user = id->channel->user;
    bool in_range = port >= b->port_first && port - b->port_first < b->port_count;
    return (port && !in_range) || ucma_user_may(user, user->ports, (b->port_count + 1) / 2);
}

int ucma_take_port(struct ucma_id *id)
{
    struct cmbroker *b = id->broker;
    uint16_t port = ucma_addr_port(&id->src);
    read_settings(b);
    if (!may_have(id, port)) return -EDQUOT;
    if (!id->afonly_set) id->afonly = id->src.sin6_family == AF_INET || b->bindv6only;
    int err = port ? check_port(id, port, id->reuseaddr) : -EADDRNOTAVAIL;
    if (port == 0) {
        if (b->next_port == 0) b->next_port = (uint32_t)broker_random(b);
        for (uint32_t i = 0; i < b->port_count && err; i++) {
            port = (uint16_t)(b->port_first + b->next_port++ % b->port_count);
            err = check_port(id, port, false);
        }
        if (err) return -EADDRNOTAVAIL; /* as the kernel says it */
    }
    if (err) return err;
    id->src.sin6_port = htons(port);
    list_add_tail(bucket(b, port), &id->port);
    id->channel->user->ports++;
    return 0;
}

/* From now on the number is not shared. */
int ucma_claim_port(struct ucma_id *id)
{
    if (!id->reuseaddr) return 0;
    int err = check_port(id, ucma_addr_port(&id->src), false);
    if (!err) id->reuseaddr = false;
    return err;
}

void ucma_release_port(struct ucma_id *id)
{
    if (list_empty(&id->port)) return;
    list_del(&id->port);
    id->channel->user->ports--;
}
