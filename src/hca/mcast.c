/* Multicast (IBTA 10.5): groups -> UD QPs. A datagram to QPN 0xffffff is given to every attached
 * QP, which takes it into a receive buffer of its own if the Q_Key is its own, or leaves it, as it
 * would one that was sent to it alone. Attaching allocates; delivery does not. */
#include "hca/mcast.h"
#include "hca/qp.h"
#include "hca/ud.h"
#include <errno.h>
#include <stdlib.h>

struct mcast_group {
    struct gid gid;
    struct hca_qp **qp;
    uint32_t nqps, room;
};

static struct mcast_group *find(const struct hca *hca, const struct gid *gid)
{
    for (uint32_t i = 0; i < hca->mcast.ngroups; i++)
        if (gid_equal(&hca->mcast.group[i].gid, gid)) return &hca->mcast.group[i];
    return NULL;
}

/* Its place among the group's; group->nqps: it is not attached. */
static uint32_t place_of(const struct mcast_group *group, const struct hca_qp *qp)
{
    uint32_t i = 0;
    while (i < group->nqps && group->qp[i] != qp) i++;
    return i;
}

/* ---- attaching -------------------------------------------------------------------------- */

static int make_table(struct mcast *mcast)
{
    if (mcast->group) return 0;
    mcast->twins = twins_new();
    mcast->group = calloc(HCA_MAX_MCAST_GROUPS, sizeof *mcast->group);
    if (mcast->group && mcast->twins) return 0;
    twins_free(mcast->twins);
    free(mcast->group);
    *mcast = (struct mcast){0};
    return -ENOMEM;
}

static int make_room(struct mcast_group *group)
{
    if (group->nqps < group->room) return 0;
    if (group->nqps == HCA_MAX_MCAST_QPS) return -ENOMEM;
    uint32_t room = group->room ? group->room * 2 : 4;
    struct hca_qp **qp = realloc(group->qp, room * sizeof(struct hca_qp *));
    if (!qp) return -ENOMEM;
    group->qp = qp;
    group->room = room;
    return 0;
}

int hca_mcast_attach(struct hca *hca, struct hca_qp *qp, const struct gid *gid)
{
    struct mcast *mcast = &hca->mcast;
    if (!gid_is_multicast(gid) || qp->type != HCA_QPT_UD) return -EINVAL;
    int err = make_table(mcast);
    if (err < 0) return err;
    struct mcast_group *group = find(hca, gid);
    if (group && place_of(group, qp) < group->nqps) return 0;
    bool first = !group;
    if (first) {
        if (mcast->ngroups == HCA_MAX_MCAST_GROUPS) return -ENOMEM;
        group = &mcast->group[mcast->ngroups];
        *group = (struct mcast_group){.gid = *gid};
    }
    err = make_room(group);
    if (err < 0) return err;
    group->qp[group->nqps++] = qp;
    mcast->ngroups += first;
    qp->mcast_groups++;
    return 0;
}

static void leave(struct mcast *mcast, struct mcast_group *group, uint32_t place)
{
    group->qp[place]->mcast_groups--;
    group->qp[place] = group->qp[--group->nqps];
    if (group->nqps) return;
    free(group->qp);
    *group = mcast->group[--mcast->ngroups];
}

int hca_mcast_detach(struct hca *hca, struct hca_qp *qp, const struct gid *gid)
{
    struct mcast_group *group = find(hca, gid);
    if (!group) return -EINVAL;
    uint32_t place = place_of(group, qp);
    if (place == group->nqps) return -EINVAL;
    leave(&hca->mcast, group, place);
    return 0;
}

void mcast_forget(struct hca *hca, struct hca_qp *qp)
{
    struct mcast *mcast = &hca->mcast;
    for (uint32_t i = mcast->ngroups; i-- > 0;) {
        struct mcast_group *group = &mcast->group[i];
        uint32_t place = place_of(group, qp);
        if (place < group->nqps) leave(mcast, group, place);
    }
}

void mcast_free(struct hca *hca)
{
    struct mcast *mcast = &hca->mcast;
    for (uint32_t i = 0; i < mcast->ngroups; i++) free(mcast->group[i].qp);
    free(mcast->group);
    twins_free(mcast->twins);
}

bool hca_mcast_has(const struct hca *hca, const struct gid *group) { return find(hca, group); }

bool hca_mcast_group(const struct hca *hca, uint32_t index, struct gid *group)
{
    if (index >= hca->mcast.ngroups) return false;
    *group = hca->mcast.group[index].gid;
    return true;
}

/* ---- delivery --------------------------------------------------------------------------- */

static void give(struct hca *hca, struct hca_qp *qp, const struct hca_rx *rx,
                 const struct roce_hdr *h, const uint8_t *payload, size_t len, when_t now)
{
    if (qp->block_own_mcast && rx->own && h->deth.sqpn == qp->qpn) return;
    uint64_t *why_not = hca_refuse(hca, qp, h, rx);
    if (why_not) {
        ++*why_not;
        return;
    }
    qp->view.rx_packets++;
    qp->view.rx_bytes += rx->len;
    ud_input(qp, rx, h, payload, len, now);
}

void mcast_input(struct hca *hca, const struct hca_rx *rx, const struct roce_hdr *h,
                 const uint8_t *payload, size_t len, when_t now)
{
    struct mcast_group *group = find(hca, &rx->dst);
    if (!group) { /* another function's of this host */
        hca->counters.rx_multicast_unwanted++;
        return;
    }
    if (hca->table.nmembers > 1 && twins_heard(hca->mcast.twins, rx, h, now)) {
        hca->counters.rx_multicast_twins++;
        return;
    }
    hca->counters.rx_multicast++;
    for (uint32_t i = 0; i < group->nqps; i++) give(hca, group->qp[i], rx, h, payload, len, now);
}
