/* Multicast groups of ids. Joining gives the program an address for the group, as the kernel does
 * on RoCE: nobody is asked. It is librdmacm that then attaches the id's QP, whereupon librbond
 * joins on the network (verbs/mcast.c); a QP of no id is the program's to attach. */
#include "daemon/ucma.h"

#include <errno.h>
#include <infiniband/ib.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

enum { HOPS_IPV4 = 64, HOPS_IPV6 = 1 }; /* the kernel: cma_iboe_join_multicast */

/* The MGID that an address stands for (annex A17.4.2 for IPv4's). */
static int group_of(const struct sockaddr_storage *addr, size_t len, struct gid *group)
{
    struct sockaddr_in6 in6 = {0};
    struct sockaddr_ib ib;
    switch (addr->ss_family) {
    case AF_INET:
        if (len != sizeof(struct sockaddr_in)) return -EINVAL;
        memcpy(&in6, addr, sizeof(struct sockaddr_in));
        *group = ucma_addr_gid(&in6);
        return 0;
    case AF_INET6:
        if (len != sizeof in6) return -EINVAL;
        memcpy(&in6, addr, sizeof in6);
        *group = ucma_addr_gid(&in6);
        return 0;
    case AF_IB: /* the MGID itself */
        if (len != sizeof ib) return -EINVAL;
        memcpy(&ib, addr, sizeof ib);
        memcpy(group->raw, ib.sib_addr.sib_raw, sizeof group->raw);
        return 0;
    default: return -EINVAL;
    }
}

static int mcast_new(struct ucma_id *id, uint64_t uid, struct ucma_mcast **out)
{
    struct cmbroker *b = id->broker;
    struct ucma_user *user = id->channel->user;
    if (!ucma_user_may(user, user->mcasts, UCMA_MCASTS_PER_USER)) return -EDQUOT;
    struct ucma_mcast *mc = b->nmcasts < UCMA_MAX_MCASTS ? calloc(1, sizeof *mc) : NULL;
    if (!mc) return -ENOMEM;
    user->mcasts++;
    mc->id = id;
    mc->uid = uid;
    mc->handle = b->next_mcast++;
    list_add_tail(&id->mcasts, &mc->all);
    b->nmcasts++;
    *out = mc;
    return 0;
}

static void mcast_free(struct ucma_mcast *mc)
{
    mc->id->broker->nmcasts--;
    mc->id->channel->user->mcasts--;
    list_del(&mc->all);
    free(mc);
}

void ucma_forget_mcasts(struct ucma_id *id)
{
    list_for_each_safe (pos, tmp, &id->mcasts)
        mcast_free(container_of(pos, struct ucma_mcast, all));
}

static void report(struct ucma_mcast *mc, const struct gid *group)
{
    struct ucma_id *id = mc->id;
    bool can = gid_is_multicast(group);
    struct ucma_event *e =
        ucma_report(id, can ? UCMA_EV_MULTICAST_JOIN : UCMA_EV_MULTICAST_ERROR, can ? 0 : -EINVAL);
    e->mcast = mc;
    e->resp.uid = mc->uid;
    e->resp.id = mc->handle;
    if (!can) return;
    struct rdma_ucm_ud_param *p = &e->resp.param.ud;
    p->qp_num = ROCE_QPN_MULTICAST;
    p->qkey = id->qkey;
    p->ah_attr = (struct ib_uverbs_ah_attr){
        .grh = {.sgid_index = id->sgid_index,
                .hop_limit = gid_is_ipv4(group) ? HOPS_IPV4 : HOPS_IPV6},
        .is_global = 1,
        .port_num = 1,
    };
    memcpy(p->ah_attr.grh.dgid, group->raw, sizeof p->ah_attr.grh.dgid);
}

ssize_t ucma_join(struct ucma_id *id, const struct rdma_ucm_join_mcast *join, void *reply)
{
    struct sockaddr_storage addr;
    struct gid group;
    memcpy(&addr, &join->addr, sizeof addr);
    int err = group_of(&addr, join->addr_size, &group);
    if (err) return err;
    if (gid_is_zero(&group) || id->qp_type != IBV_QPT_UD || !id->guid) return -EINVAL;
    if (id->state != UCMA_BOUND && id->state != UCMA_ADDR_RESOLVED) return -EINVAL;
    /* Who only sends is not attached by librdmacm. */
    if (join->join_flags != RDMA_MC_JOIN_FLAG_FULLMEMBER &&
        join->join_flags != RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER)
        return -EINVAL;
    struct ucma_mcast *mc;
    err = mcast_new(id, join->uid, &mc);
    if (err) return err;
    report(mc, &group);
    struct rdma_ucm_create_id_resp r = {.id = mc->handle};
    memcpy(reply, &r, sizeof r);
    return sizeof r;
}

static struct ucma_mcast *find(const struct cmbroker_channel *channel, uint32_t handle)
{
    list_for_each (id_pos, &channel->ids) {
        const struct ucma_id *id = container_of(id_pos, struct ucma_id, all);
        list_for_each (pos, &id->mcasts) {
            struct ucma_mcast *mc = container_of(pos, struct ucma_mcast, all);
            if (mc->handle == handle) return mc;
        }
    }
    return NULL;
}

ssize_t ucma_leave(struct cmbroker_channel *channel, uint32_t handle, void *reply)
{
    struct ucma_mcast *mc = find(channel, handle);
    if (!mc) return -ENOENT;
    ucma_drop_mcast_events(mc);
    struct rdma_ucm_destroy_id_resp r = {.events_reported = mc->events_reported};
    mcast_free(mc);
    memcpy(reply, &r, sizeof r);
    return sizeof r;
}
