/* Multicast groups of UD QPs. The adapter keeps who is attached; here the function's receive socket
 * joins and leaves what any of its QPs listens to, on every member: nobody knows by which of them
 * the others send. What it has joined stands in the function's page, because rbondd, which keeps
 * the socket when the program has gone, must know what to leave. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include <string.h>

/* The kernel keeps multicast of interface-local scope (ff01::, the default of perftest) from the
 * wire: such groups travel as link-local ones. */
struct gid mcast_wire(const struct gid *group)
{
    struct gid wire = *group;
    if (wire.raw[0] == 0xff && (wire.raw[1] & 0x0f) < 2)
        wire.raw[1] = (uint8_t)((wire.raw[1] & 0xf0) | 2);
    return wire;
}

/* ---- memberships: holding the lock ------------------------------------------------------- */

static bool is_member(const struct function *f, uint32_t ifindex)
{
    for (uint8_t m = 0; m < f->state.steering.nmembers; m++)
        if (f->state.member_ifindex[m] == ifindex) return true;
    return false;
}

/* The membership's slot; with a zero group, an empty one. NULL: there is none. */
static struct function_membership *find(struct function *f, const struct gid *group,
                                        uint32_t ifindex)
{
    for (size_t i = 0; i < FUNCTION_PAGE_MEMBERSHIPS; i++) {
        struct function_membership *m = &f->out->membership[i];
        if (m->ifindex == ifindex && gid_equal(&m->group, group)) return m;
    }
    return NULL;
}

static void leave(struct function *f, struct function_membership *m)
{
    if (f->port)
        port_udp_leave(f->port->rx_fd, &m->group, m->ifindex); /* its net device may have gone */
    memset(m, 0, sizeof *m);
    f->memberships--;
}

static int join(struct function *f, const struct gid *group, uint32_t ifindex)
{
    static const struct gid none;
    if (find(f, group, ifindex)) return 0;
    struct function_membership *m = find(f, &none, 0);
    if (!m) return -ENOMEM;
    /* In the page before it is true: whatever happens, rbondd leaves it. */
    *m = (struct function_membership){*group, ifindex};
    int rc = f->port ? port_udp_join(f->port->rx_fd, group, ifindex) : 0; /* function_refit will */
    if (rc < 0)
        memset(m, 0, sizeof *m);
    else
        f->memberships++;
    return rc;
}

/* Joins on every member. 0 where one of them has it, else the negative errno of the last; -ENOMEM
 * where there are more members than the socket may join (net.ipv4.igmp_max_memberships): a group on
 * some members only would be lost with them. What was joined stays so, for mcast_follow to leave.
 */
static int join_members(struct function *f, const struct gid *group)
{
    int rc = -ENETDOWN;
    bool any = false;
    for (uint8_t m = 0; m < f->state.steering.nmembers; m++) {
        if (f->state.member_ifindex[m] == 0) continue;
        rc = join(f, group, f->state.member_ifindex[m]);
        if (rc == -ENOBUFS || rc == -ENOMEM) return -ENOMEM;
        any = any || rc == 0;
    }
    return any ? 0 : rc;
}

void mcast_follow(struct function *f)
{
    struct gid group;
    for (size_t i = 0; f->memberships > 0 && i < FUNCTION_PAGE_MEMBERSHIPS; i++) {
        struct function_membership *m = &f->out->membership[i];
        if (m->ifindex && !(hca_mcast_has(f->hca, &m->group) && is_member(f, m->ifindex)))
            leave(f, m);
    }
    for (uint32_t i = 0; hca_mcast_group(f->hca, i, &group); i++) (void)join_members(f, &group);
}

/* ---- verbs ------------------------------------------------------------------------------- */

/* As it is on the wire. */
static struct gid group_of(const union ibv_gid *gid)
{
    struct gid group;
    memcpy(&group, gid, sizeof group);
    return mcast_wire(&group);
}

static int attach(struct rb_qp *qp, const union ibv_gid *gid)
{
    struct function *f = qp->f;
    struct gid group = group_of(gid);
    int rc = function_lock(f);
    if (rc) return rc;
    bool first = !hca_mcast_has(f->hca, &group);
    rc = -hca_mcast_attach(f->hca, qp->hca, &group);
    if (rc == 0 && first) {
        rc = -join_members(f, &group);
        if (rc) {
            hca_mcast_detach(f->hca, qp->hca, &group);
            mcast_follow(f);
        }
    }
    function_unlock(f);
    return rc;
}

static int detach(struct rb_qp *qp, const union ibv_gid *gid)
{
    struct function *f = qp->f;
    struct gid group = group_of(gid);
    int rc = function_lock(f);
    if (rc) return rc;
    rc = -hca_mcast_detach(f->hca, qp->hca, &group);
    if (rc == 0 && !hca_mcast_has(f->hca, &group)) mcast_follow(f);
    function_unlock(f);
    return rc;
}

/* The LID of a group has no meaning on Ethernet. */
EXPORT int ibv_attach_mcast(struct ibv_qp *ibv, const union ibv_gid *gid, uint16_t lid)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_attach_mcast, "IBVERBS_1.1")(ibv, gid, lid);
    struct rb_qp *qp = rb_qp(ibv);
    return verb_result(qp ? attach(qp, gid) : EINVAL);
}

EXPORT int ibv_detach_mcast(struct ibv_qp *ibv, const union ibv_gid *gid, uint16_t lid)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_detach_mcast, "IBVERBS_1.1")(ibv, gid, lid);
    struct rb_qp *qp = rb_qp(ibv);
    return verb_result(qp ? detach(qp, gid) : EINVAL);
}
