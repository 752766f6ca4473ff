#include "daemon/lists.h"
#include "ctl/codec.h"
#include <stdlib.h>
#include <string.h>

static void start(struct records *r, size_t size) { *r = (struct records){.size = size}; }

/* A fresh record, all zero; NULL when the list is full or memory short. */
static void *add(struct records *r)
{
    if (r->count == LIST_MAX_RECORDS || r->failed) return NULL;
    if (r->count == r->room) {
        size_t room = r->room ? r->room * 2 : 16;
        void *bytes = realloc(r->bytes, room * r->size);
        if (!bytes) {
            r->failed = true;
            return NULL;
        }
        r->bytes = bytes;
        r->room = room;
    }
    return memset((char *)r->bytes + r->size * r->count++, 0, r->size);
}

void list_devices(const struct registry *reg, struct records *out)
{
    struct ctl_dev *to;

    start(out, sizeof *to);
    list_for_each (node, &reg->devices)
        if ((to = add(out)))
            device_describe(container_of(node, struct device, node), &reg->netdevs, to);
}

void list_gids(const struct registry *reg, struct records *out)
{
    struct ctl_gid *to;

    start(out, sizeof *to);
    list_for_each (node, &reg->devices) {
        const struct device *d = container_of(node, struct device, node);
        for (uint32_t i = 0; i < CTL_MAX_GIDS; i++) {
            const struct netdev *nd;
            if (gid_is_zero(&d->state.gid[i]) || !(to = add(out))) continue;
            nd = netdevs_by_index(&reg->netdevs, d->state.gid_ifindex[i]);
            ctl_string_set(to->device, sizeof to->device, d->name);
            if (nd) ctl_string_set(to->netdev, sizeof to->netdev, nd->link.name);
            to->index = i;
            memcpy(to->gid, &d->state.gid[i], sizeof to->gid);
        }
    }
}

void list_bonds(const struct registry *reg, struct records *out)
{
    struct ctl_bond *to;

    start(out, sizeof *to);
    list_for_each (node, &reg->devices) {
        const struct device *d = container_of(node, struct device, node);
        if (d->is_bond && (to = add(out))) device_describe_bond(d, &reg->netdevs, to);
    }
}

/* The device that traffic of a net device belongs to: as a port, a member, or by its addresses. */
static const struct device *device_over(const struct registry *reg, const char *netdev)
{
    list_for_each (node, &reg->devices) {
        const struct device *d = container_of(node, struct device, node);
        if (device_member(d, netdev) != STEER_NO_MEMBER || strcmp(d->conf.netdev, netdev) == 0)
            return d;
    }
    return NULL;
}

void list_links(const struct registry *reg, struct records *out)
{
    start(out, sizeof(struct ctl_link));
    list_for_each (node, &reg->netdevs.all) {
        const struct watch_link *link = &container_of(node, struct netdev, node)->link;
        const struct netdev *master = netdevs_by_index(&reg->netdevs, link->master);
        const struct device *d = device_over(reg, link->name);
        struct ctl_link *to = add(out);
        if (!to) return;
        ctl_string_set(to->name, sizeof to->name, link->name);
        if (d) ctl_string_set(to->device, sizeof to->device, d->name);
        if (master) ctl_string_set(to->master, sizeof to->master, master->link.name);
        to->ifindex = link->ifindex;
        to->mtu = link->mtu;
        to->up = link->up;
        to->carrier = link->carrier;
        memcpy(to->mac, link->mac, sizeof to->mac);
    }
}

static bool count_qp(void *ctx, const struct function *fn, const struct hca_qp_view *view)
{
    ++*(uint32_t *)ctx;
    return true;
}

void list_functions(const struct functions *fs, struct records *out)
{
    start(out, sizeof(struct ctl_function));
    for (unsigned n = 0; n < FUNCTIONS_MAX; n++) {
        const struct function *fn = functions_at(fs, n);
        struct ctl_function *to = fn ? add(out) : NULL;
        if (!to) continue;
        to->function = fn->number;
        to->pid = (uint32_t)fn->pid;
        memcpy(to->device, fn->device_name, sizeof to->device);
        memcpy(to->comm, fn->comm, sizeof to->comm);
        function_read_qps(fn, count_qp, &to->qps);
    }
}

static void member_name(const struct function *fn, uint8_t member, char *to)
{
    if (fn->device && member < fn->device->conf.nmembers)
        memcpy(to, fn->device->conf.member[member], CTL_NAME_LEN);
}

static bool add_qp(void *ctx, const struct function *fn, const struct hca_qp_view *v)
{
    struct ctl_qp *to = add(ctx);

    if (!to) return false;
    memcpy(to->device, fn->device_name, sizeof to->device);
    memcpy(to->comm, fn->comm, sizeof to->comm);
    to->pid = (uint32_t)fn->pid;
    to->function = fn->number;
    to->qpn = v->qpn;
    to->dqpn = v->dqpn;
    to->rq_psn = v->rq_psn.v;
    to->sq_psn = v->sq_psn.v;
    to->type = v->type;
    to->state = v->state;
    to->bucket = v->bucket;
    to->home = v->home;
    to->active = v->active;
    member_name(fn, v->home, to->home_name);
    member_name(fn, v->active, to->active_name);
    memcpy(to->dgid, v->dgid.raw, sizeof to->dgid);
    to->tx_packets = v->tx_packets;
    to->tx_bytes = v->tx_bytes;
    to->rx_packets = v->rx_packets;
    to->rx_bytes = v->rx_bytes;
    to->retransmits = v->retransmits;
    to->remaps = v->remaps;
    to->remapped_at_ns = v->remapped_at.ns;
    to->last_gap_ns = v->last_gap_ns;
    return true;
}

void list_qps(const struct functions *fs, struct records *out)
{
    start(out, sizeof(struct ctl_qp));
    for (unsigned n = 0; n < FUNCTIONS_MAX; n++)
        if (functions_at(fs, n)) function_read_qps(functions_at(fs, n), add_qp, out);
}

void list_cm_ids(struct cmbroker *broker, struct records *out)
{
    struct ctl_cm_id one, *to;
    size_t cursor = 0;

    start(out, sizeof one);
    while (broker && cmbroker_id(broker, &cursor, &one)) {
        if (!(to = add(out))) return;
        *to = one;
    }
}

/* ---- counters ---------------------------------------------------------------------------- */

static const char *const counter_names[] = {
#define X(name) #name,
    HCA_COUNTERS(X)
#undef X
};
#define NCOUNTERS (sizeof counter_names / sizeof counter_names[0])
static_assert(NCOUNTERS <= 64, "struct function_page has room for 64");

static void add_stat(struct records *out, const char *device, const char *member, const char *name,
                     uint64_t value)
{
    struct ctl_stat *to = add(out);

    if (!to) return;
    ctl_string_set(to->device, sizeof to->device, device);
    ctl_string_set(to->member, sizeof to->member, member);
    ctl_string_set(to->name, sizeof to->name, name);
    to->value = value;
}

static void sum_functions(const struct functions *fs, const struct device *d,
                          struct function_counts *sum)
{
    memcpy(sum->counter, d->past, sizeof sum->counter);
    memcpy(sum->member, d->past_member, sizeof sum->member);
    for (unsigned n = 0; n < FUNCTIONS_MAX; n++) {
        const struct function *fn = functions_at(fs, n);
        struct function_counts one;
        if (!fn || fn->device != d) continue;
        function_read_counts(fn, &one);
        for (unsigned i = 0; i < NCOUNTERS; i++) sum->counter[i] += one.counter[i];
        for (unsigned m = 0; m < STEER_MAX_MEMBERS; m++) {
            sum->member[m].tx_packets += one.member[m].tx_packets;
            sum->member[m].tx_bytes += one.member[m].tx_bytes;
            sum->member[m].rx_packets += one.member[m].rx_packets;
            sum->member[m].rx_bytes += one.member[m].rx_bytes;
            sum->member[m].retransmits += one.member[m].retransmits;
        }
    }
}

static void list_device_stats(const struct functions *fs, const struct device *d,
                              struct records *out)
{
    struct function_counts sum;

    sum_functions(fs, d, &sum);
    for (unsigned i = 0; i < NCOUNTERS; i++)
        add_stat(out, d->name, "", counter_names[i], sum.counter[i]);
    add_stat(out, d->name, "", "failovers", d->engine.failovers);
    add_stat(out, d->name, "", "functions", d->functions);
    for (uint8_t m = 0; m < d->conf.nmembers; m++) {
        const char *member = d->conf.member[m];
        add_stat(out, d->name, member, "tx_packets", sum.member[m].tx_packets);
        add_stat(out, d->name, member, "tx_bytes", sum.member[m].tx_bytes);
        add_stat(out, d->name, member, "rx_packets", sum.member[m].rx_packets);
        add_stat(out, d->name, member, "rx_bytes", sum.member[m].rx_bytes);
        add_stat(out, d->name, member, "retransmits", sum.member[m].retransmits);
        add_stat(out, d->name, member, "link_downs", d->engine.member[m].downs);
    }
}

void list_stats(const struct registry *reg, const struct functions *fs,
                const struct cmbroker *broker, struct records *out)
{
    const char *name;
    uint64_t value;

    start(out, sizeof(struct ctl_stat));
    list_for_each (node, &reg->devices)
        list_device_stats(fs, container_of(node, struct device, node), out);
    for (size_t i = 0; broker && cmbroker_counter(broker, i, &name, &value); i++)
        add_stat(out, "", "", name, value);
}
