/* What a device says of itself: attributes, port, GIDs, P_Keys. The port's and the GIDs' truth is
 * rbondd's page; the limits are hca/hca.h's. */
#include "verbs/caps.h"
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/mr.h"
#include "verbs/pages.h"
#include "verbs/real.h"
#include "wire/lid.h"
#include "wire/port_speed.h"
#include <endian.h>
#include <stdio.h>
#include <string.h>

#undef ibv_query_port

#define VENDOR_ID 0x525242 /* "RRB": no vendor's OUI, so that no program takes us for its own */
#define VENDOR_PART_ID 1
/* Bounded by memory alone; so many fit into any. */
#define MAX_OBJECTS (1 << 20)
#define MAX_CQS (1 << 16)

/* libibverbs' private enum of ibv_query_gid_type. */
enum { GID_TYPE_SYSFS_ROCE_V2 = 1 };

/* ---- the device -------------------------------------------------------------------------- */

/* The kernel lets a socket join so many IPv4 groups; on a bond, each counts once a member. */
static uint32_t max_groups(struct ibv_context *context)
{
    struct device_state state;
    unsigned joins = HCA_MAX_MCAST_GROUPS;

    function_state(rb_context(context)->f, &state);
    FILE *file = fopen("/proc/sys/net/ipv4/igmp_max_memberships", "re");
    if (file && fscanf(file, "%u", &joins) != 1) joins = HCA_MAX_MCAST_GROUPS;
    if (file) fclose(file);
    uint32_t groups = joins / (state.steering.nmembers ? state.steering.nmembers : 1);
    return groups < HCA_MAX_MCAST_GROUPS ? groups : HCA_MAX_MCAST_GROUPS;
}

static void describe_device(struct ibv_context *context, struct ibv_device_attr *a)
{
    const struct ctl_dev *dev = &rb_context(context)->f->opened.dev;

    memset(a, 0, sizeof *a);
    strncpy(a->fw_ver, RBOND_VERSION, sizeof a->fw_ver - 1);
    a->node_guid = htobe64(dev->guid);
    a->sys_image_guid = htobe64(dev->guid);
    a->max_mr_size = UINT64_MAX;
    a->page_size_cap = ~UINT64_C(0xfff); /* 4 KiB and all larger ones */
    a->vendor_id = VENDOR_ID;
    a->vendor_part_id = VENDOR_PART_ID;
    a->max_qp = HCA_QPS;
    a->max_qp_wr = HCA_MAX_WR;
    a->device_cap_flags = DEVICE_CAP_FLAGS;
    a->max_sge = HCA_MAX_SGE;
    a->max_sge_rd = HCA_MAX_SGE;
    a->max_cq = MAX_CQS;
    a->max_cqe = HCA_MAX_CQE;
    a->max_mr = MAX_OBJECTS;
    a->max_mw = MAX_OBJECTS;
    a->max_pd = MAX_OBJECTS;
    a->max_qp_rd_atom = HCA_MAX_RD_ATOMIC;
    a->max_qp_init_rd_atom = HCA_MAX_RD_ATOMIC;
    a->max_res_rd_atom = HCA_MAX_RD_ATOMIC * a->max_qp;
    /* rc_resp.c uses the processor's own, which is more: IBV_ATOMIC_GLOB. But adapters say this,
     * and programs look for no other: UCX 1.13 then emulates atomics in software. */
    a->atomic_cap = IBV_ATOMIC_HCA;
    a->max_ah = MAX_OBJECTS;
    a->max_srq = HCA_MAX_QP - 2; /* so many numbers there are for those of XRC */
    a->max_srq_wr = HCA_MAX_WR;
    a->max_srq_sge = HCA_MAX_SGE;
    a->max_mcast_grp = (int)max_groups(context);
    a->max_mcast_qp_attach = HCA_MAX_MCAST_QPS;
    a->max_total_mcast_qp_attach = a->max_mcast_grp * a->max_mcast_qp_attach;
    a->max_pkeys = 1;
    a->local_ca_ack_delay = 15; /* 134 ms: a worker may have to be scheduled first */
    a->phys_port_cnt = 1;
}

EXPORT int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    if (!context_is_ours(context)) return REAL(ibv_query_device, "IBVERBS_1.1")(context, attr);
    describe_device(context, attr);
    return 0;
}

/* All memory is brought in as it is used, whatever the operation. */
static void describe_odp(struct ibv_device_attr_ex *ex)
{
    const uint32_t ud = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV | IBV_ODP_SUPPORT_SRQ_RECV;
    const uint32_t uc = ud | IBV_ODP_SUPPORT_WRITE;
    const uint32_t rc = uc | IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC | IBV_ODP_SUPPORT_FLUSH |
                        IBV_ODP_SUPPORT_ATOMIC_WRITE;

    ex->odp_caps.general_caps = IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT;
    ex->odp_caps.per_transport_caps.rc_odp_caps = rc;
    ex->odp_caps.per_transport_caps.uc_odp_caps = uc;
    ex->odp_caps.per_transport_caps.ud_odp_caps = ud;
    ex->xrc_odp_caps = rc;
}

int rb_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
                       struct ibv_device_attr_ex *attr, size_t len)
{
    struct ibv_device_attr_ex ex = {0};

    if (input && input->comp_mask) return verb_result(EINVAL);
    if (len < sizeof ex.orig_attr) return verb_result(EINVAL);
    describe_device(context, &ex.orig_attr);
    ex.device_cap_flags_ex =
        ex.orig_attr.device_cap_flags | DEVICE_FLUSH_GLOBAL | DEVICE_ATOMIC_WRITE;
    ex.completion_timestamp_mask = UINT64_MAX; /* nanoseconds of CLOCK_MONOTONIC */
    ex.hca_core_clock = 1000000;               /* kHz */
    ex.packet_pacing_caps.qp_rate_limit_min = 1;
    ex.packet_pacing_caps.qp_rate_limit_max = HCA_MAX_RATE_KBPS;
    ex.packet_pacing_caps.supported_qpts =
        1 << IBV_QPT_RC | 1 << IBV_QPT_UC | 1 << IBV_QPT_UD | 1 << IBV_QPT_XRC_SEND;
    ex.cq_mod_caps.max_cq_count = UINT16_MAX;
    ex.cq_mod_caps.max_cq_period = UINT16_MAX;
    ex.phys_port_cnt_ex = 1;
    ex.max_dm_size = DM_MAX;
    if (pages_on_demand()) describe_odp(&ex);
    memset(attr, 0, len);
    memcpy(attr, &ex, len < sizeof ex ? len : sizeof ex);
    return 0;
}

int rb_query_rt_values(struct ibv_context *context, struct ibv_values_ex *values)
{
    (void)context;
    if (values->comp_mask & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK) return verb_result(EINVAL);
    if (values->comp_mask) {
        when_t now = function_now();
        values->raw_clock = (struct timespec){(time_t)(now.ns / SEC_NS), (long)(now.ns % SEC_NS)};
    }
    return 0;
}

/* ---- the port ---------------------------------------------------------------------------- */

int rb_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t len)
{
    struct function *f = rb_context(context)->f;
    struct device_state state;
    struct ibv_port_attr a = {0};
    struct port_speed speed;
    size_t index;

    if (port != 1) return verb_result(EINVAL);
    function_state(f, &state);
    speed = port_speed_of(state.speed_mbps);
    a.state = (enum ibv_port_state)state.port_state;
    a.max_mtu = IBV_MTU_4096;
    a.active_mtu = (enum ibv_mtu)function_mtu(state.mtu);
    a.gid_tbl_len = CTL_MAX_GIDS;
    a.port_cap_flags = IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
    a.max_msg_sz = HCA_MAX_MSG;
    a.pkey_tbl_len = 1;
    a.lid = lid_of(state.gid, CTL_MAX_GIDS, &index);
    a.max_vl_num = 1;
    a.phys_state = state.port_state == CTL_PORT_ACTIVE ? PHYS_STATE_LINK_UP : PHYS_STATE_DISABLED;
    a.link_layer = IBV_LINK_LAYER_ETHERNET;
    a.flags = IBV_QPF_GRH_REQUIRED;
    a.active_width = speed.width;
    a.active_speed = speed.speed;
    memset(attr, 0, len);
    memcpy(attr, &a, len < sizeof a ? len : sizeof a);
    return 0;
}

/* The exported function is the old one: its struct ends before port_cap_flags2. */
EXPORT int ibv_query_port(struct ibv_context *context, uint8_t port,
                          struct _compat_ibv_port_attr *attr)
{
    if (!context_is_ours(context)) return REAL(ibv_query_port, "IBVERBS_1.1")(context, port, attr);
    return rb_query_port(context, port, (struct ibv_port_attr *)attr,
                         offsetof(struct ibv_port_attr, port_cap_flags2));
}

/* Since IBVERBS_1.16, rdma-core 62: in units of 100 Mb/s. A bond's is the sum of what its usable
 * members have. */
EXPORT int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed);
int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed)
{
    struct device_state state;

    if (!context_is_ours(context))
        return REAL(ibv_query_port_speed, "IBVERBS_1.16")(context, port, speed);
    if (port != 1) return verb_result(EINVAL);
    function_state(rb_context(context)->f, &state);
    *speed = state.speed_mbps / 100;
    return 0;
}

/* ---- GIDs -------------------------------------------------------------------------------- */

EXPORT int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
    struct device_state state;

    if (!context_is_ours(context))
        return REAL(ibv_query_gid, "IBVERBS_1.1")(context, port, index, gid);
    if (port != 1 || index < 0 || index >= CTL_MAX_GIDS) {
        errno = EINVAL;
        return -1;
    }
    function_state(rb_context(context)->f, &state);
    memcpy(gid, &state.gid[index], sizeof *gid);
    return 0;
}

static void describe_gid(const struct device_state *state, uint32_t index,
                         struct ibv_gid_entry *entry)
{
    memset(entry, 0, sizeof *entry);
    memcpy(&entry->gid, &state->gid[index], sizeof entry->gid);
    entry->gid_index = index;
    entry->port_num = 1;
    entry->gid_type = IBV_GID_TYPE_ROCE_V2;
    entry->ndev_ifindex = state->gid_ifindex[index];
}

EXPORT int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index,
                             struct ibv_gid_entry *entry, uint32_t flags, size_t size)
{
    struct device_state state;
    struct ibv_gid_entry e;

    if (!context_is_ours(context))
        return REAL(_ibv_query_gid_ex, "IBVERBS_1.11")(context, port, index, entry, flags, size);
    if (flags) return verb_result(EOPNOTSUPP);
    if (port != 1 || index >= CTL_MAX_GIDS) return verb_result(EINVAL);
    function_state(rb_context(context)->f, &state);
    if (gid_is_zero(&state.gid[index])) return verb_result(ENODATA);
    describe_gid(&state, index, &e);
    memcpy(entry, &e, size < sizeof e ? size : sizeof e);
    return 0;
}

EXPORT ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries,
                                    size_t max, uint32_t flags, size_t size)
{
    struct device_state state;
    struct ibv_gid_entry e;
    size_t n = 0;

    if (!context_is_ours(context))
        return REAL(_ibv_query_gid_table, "IBVERBS_1.11")(context, entries, max, flags, size);
    if (flags) return -EOPNOTSUPP;
    function_state(rb_context(context)->f, &state);
    for (uint32_t i = 0; i < CTL_MAX_GIDS; i++) {
        if (gid_is_zero(&state.gid[i])) continue;
        if (n == max) return -EINVAL;
        describe_gid(&state, i, &e);
        memcpy((char *)entries + n++ * size, &e, size < sizeof e ? size : sizeof e);
    }
    return (ssize_t)n;
}

/* Private to rdma-core, used by ibv_devinfo; its node differs from release to release. */
EXPORT int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index, int *type);
int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index, int *type)
{
    if (!context_is_ours(context))
        return REAL(ibv_query_gid_type, NULL)(context, port, index, type);
    if (port != 1 || index >= CTL_MAX_GIDS) {
        errno = EINVAL;
        return -1;
    }
    *type = GID_TYPE_SYSFS_ROCE_V2;
    return 0;
}

/* ---- P_Keys: the default one ------------------------------------------------------------- */

EXPORT int ibv_query_pkey(struct ibv_context *context, uint8_t port, int index, __be16 *pkey)
{
    if (!context_is_ours(context))
        return REAL(ibv_query_pkey, "IBVERBS_1.1")(context, port, index, pkey);
    if (port != 1 || index != 0) {
        errno = EINVAL;
        return -1;
    }
    *pkey = htobe16(ROCE_PKEY_DEFAULT);
    return 0;
}

EXPORT int ibv_get_pkey_index(struct ibv_context *context, uint8_t port, __be16 pkey)
{
    if (!context_is_ours(context))
        return REAL(ibv_get_pkey_index, "IBVERBS_1.5")(context, port, pkey);
    return port == 1 && be16toh(pkey) == ROCE_PKEY_DEFAULT ? 0 : -1;
}
