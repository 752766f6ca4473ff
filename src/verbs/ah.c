/* Address handles. RoCE v2 needs a global route; its GIDs are all the adapter wants, the kernel
 * finds the way (and the MAC) of each packet. A LID alone leads to a GID (wire/lid.h). */
#include "base/bits.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include "wire/lid.h"
#include <stdlib.h>
#include <string.h>

/* A group's GID may be of the other family than the GID that was asked for: programs name groups as
 * InfiniBand does, in IPv6. Such datagrams leave with the device's first address of the family. */
static void fit_source(const struct device_state *state, struct hca_ah *ah)
{
    bool ipv4 = gid_is_ipv4(&ah->dgid);
    for (size_t i = 0; i < CTL_MAX_GIDS && gid_is_ipv4(&ah->sgid) != ipv4; i++)
        if (!gid_is_zero(&state->gid[i]) && gid_is_ipv4(&state->gid[i]) == ipv4)
            ah->sgid = state->gid[i];
}

#define LID_HOP_LIMIT 64 /* as the kernel's own packets have it */

/* LID 0 stands for none, as on every other RoCE port. */
static int resolve_lid(const struct device_state *state, const struct ibv_ah_attr *attr,
                       struct hca_ah *ah)
{
    size_t index;

    if (attr->dlid == 0 || attr->dlid >> LID_BITS) return EINVAL;
    if (lid_of(state->gid, CTL_MAX_GIDS, &index) == 0) return EINVAL;
    *ah = (struct hca_ah){.sgid = state->gid[index],
                          .dgid = lid_gid(&state->gid[index], attr->dlid),
                          .sgid_index = (uint8_t)index,
                          .hop_limit = LID_HOP_LIMIT,
                          .sl = attr->sl,
                          .static_rate = attr->static_rate,
                          .port_num = attr->port_num,
                          .dlid = attr->dlid};
    return 0;
}

int ah_resolve(struct function *f, const struct ibv_ah_attr *attr, struct hca_ah *ah)
{
    struct device_state state;

    if (attr->port_num != 1) return EINVAL;
    function_state(f, &state);
    if (!attr->is_global) return resolve_lid(&state, attr, ah);
    if (attr->grh.sgid_index >= CTL_MAX_GIDS) return EINVAL;
    *ah = (struct hca_ah){.sgid = state.gid[attr->grh.sgid_index],
                          .flow_label = attr->grh.flow_label & 0xfffff,
                          .sgid_index = attr->grh.sgid_index,
                          .hop_limit = attr->grh.hop_limit,
                          .traffic_class = attr->grh.traffic_class,
                          .sl = attr->sl,
                          .static_rate = attr->static_rate,
                          .port_num = attr->port_num};
    memcpy(&ah->dgid, &attr->grh.dgid, sizeof ah->dgid);
    if (gid_is_multicast(&ah->dgid)) {
        ah->dgid = mcast_wire(&ah->dgid);
        fit_source(&state, ah);
    }
    if (gid_is_zero(&ah->sgid) || gid_is_zero(&ah->dgid)) return EINVAL;
    if (gid_is_ipv4(&ah->sgid) != gid_is_ipv4(&ah->dgid)) return EINVAL;
    return 0;
}

void ah_describe(const struct hca_ah *ah, struct ibv_ah_attr *attr)
{
    memset(attr, 0, sizeof *attr);
    attr->sl = ah->sl;
    attr->static_rate = ah->static_rate;
    attr->port_num = ah->port_num;
    attr->dlid = ah->dlid;
    attr->is_global = ah->dlid == 0 && !gid_is_zero(&ah->dgid);
    if (!attr->is_global) return;
    memcpy(&attr->grh.dgid, &ah->dgid, sizeof attr->grh.dgid);
    attr->grh.flow_label = ah->flow_label;
    attr->grh.sgid_index = ah->sgid_index;
    attr->grh.hop_limit = ah->hop_limit;
    attr->grh.traffic_class = ah->traffic_class;
}

static struct ibv_ah *create(struct ibv_pd *ibv, const struct ibv_ah_attr *attr)
{
    struct rb_pd *pd = rb_pd(ibv);
    if (!pd) return fail_with(EINVAL);
    struct rb_context *ctx = rb_context(ibv->context);
    struct rb_ah *ah = calloc(1, sizeof *ah);
    if (!ah) return fail_with(ENOMEM);
    int rc = ah_resolve(ctx->f, attr, &ah->hca);
    if (rc) {
        free(ah);
        return fail_with(rc);
    }
    ah->tag = tag_new(ctx, RB_AH);
    ah->ibv.context = ibv->context;
    ah->ibv.pd = ibv;
    ah->ibv.handle = ah->tag.id;
    atomic_fetch_add(&pd->refs, 1);
    return &ah->ibv;
}

EXPORT struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
    if (!context_is_ours(pd->context)) return REAL(ibv_create_ah, "IBVERBS_1.1")(pd, attr);
    return create(pd, attr);
}

EXPORT int ibv_destroy_ah(struct ibv_ah *ibv)
{
    if (!context_is_ours(ibv->context)) return REAL(ibv_destroy_ah, "IBVERBS_1.1")(ibv);

    struct rb_ah *ah = rb_ah(ibv);
    if (!ah) return verb_result(EINVAL);
    struct rb_pd *pd = rb_pd(ibv->pd);
    if (pd) atomic_fetch_sub(&pd->refs, 1);
    ah->tag.magic = 0;
    free(ah);
    return 0;
}

/* ---- from a completion ------------------------------------------------------------------- */

static struct gid mapped(const uint8_t ipv4[4])
{
    struct gid gid = {{[10] = 0xff, [11] = 0xff}};
    memcpy(gid.raw + 12, ipv4, 4);
    return gid;
}

static int find_gid(struct function *f, const struct gid *gid)
{
    struct device_state state;

    function_state(f, &state);
    for (int i = 0; i < CTL_MAX_GIDS; i++)
        if (gid_equal(&state.gid[i], gid)) return i;
    return -1;
}

/* The first 40 bytes of a UD receive hold the IPv6 header, or an IPv4 header in the last 20 of them
 * (annex A17.4.5.2). */
static int address_from_grh(struct function *f, const struct ibv_grh *grh, struct ibv_ah_attr *attr)
{
    const uint8_t *bytes = (const uint8_t *)grh, *ip = bytes + 20;
    struct gid src, dst;

    if (bytes[0] >> 4 == 6) {
        memcpy(&src, &grh->sgid, sizeof src);
        memcpy(&dst, &grh->dgid, sizeof dst);
        attr->grh.flow_label = get_be32(bytes) & 0xfffff;
        attr->grh.traffic_class = (uint8_t)(get_be32(bytes) >> 20);
    } else if (ip[0] == 0x45) {
        src = mapped(ip + 12);
        dst = mapped(ip + 16);
        attr->grh.traffic_class = ip[1];
    } else {
        return EPROTONOSUPPORT;
    }
    int index = find_gid(f, &dst);
    if (index < 0) return ENOENT;
    memcpy(&attr->grh.dgid, &src, sizeof src); /* back to the sender */
    attr->grh.sgid_index = (uint8_t)index;
    attr->grh.hop_limit = 0xff;
    attr->is_global = 1;
    return 0;
}

static int init_from_wc(struct ibv_context *context, uint8_t port, const struct ibv_wc *wc,
                        const struct ibv_grh *grh, struct ibv_ah_attr *attr)
{
    memset(attr, 0, sizeof *attr); /* SL 0: that of a datagram's completion tells its IP version */
    attr->port_num = port;
    if (port != 1) return EINVAL;
    if (!(wc->wc_flags & IBV_WC_GRH) || !grh) return 0;
    return address_from_grh(rb_context(context)->f, grh, attr);
}

EXPORT int ibv_init_ah_from_wc(struct ibv_context *context, uint8_t port, struct ibv_wc *wc,
                               struct ibv_grh *grh, struct ibv_ah_attr *attr)
{
    if (!context_is_ours(context))
        return REAL(ibv_init_ah_from_wc, "IBVERBS_1.1")(context, port, wc, grh, attr);
    int rc = init_from_wc(context, port, wc, grh, attr);
    if (rc == 0) return 0;
    errno = rc;
    return -1;
}

EXPORT struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc,
                                            struct ibv_grh *grh, uint8_t port)
{
    struct ibv_ah_attr attr;

    if (!context_is_ours(pd->context))
        return REAL(ibv_create_ah_from_wc, "IBVERBS_1.1")(pd, wc, grh, port);
    int rc = init_from_wc(pd->context, port, wc, grh, &attr);
    return rc ? fail_with(rc) : create(pd, &attr);
}
