/* What programs hold in a device, and its counters: rdma resource, rdma statistic. rbondd knows of
 * queue pairs, of the connection manager's ids and of contexts (its functions); of CQs, PDs, memory
 * regions and SRQs it does not, so nothing is said of those. */
#include "verbs/nldev_call.h"

#include "ctl/alias.h"
#include <errno.h>
#include <infiniband/verbs.h>
#include <libmnl/libmnl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* No entry of a list is longer, bytes: one of a CM id with both addresses. */
#define MAX_ENTRY 384

static bool is_of(const struct nldev_call *call, const char device[CTL_NAME_LEN])
{
    return !strncmp(device, call->dev->name, CTL_NAME_LEN);
}

/* One that listens at every address listens on every device, and the kernel has it under each. */
static bool has_cm_id(const struct nldev_call *call, const struct ctl_cm_id *id)
{
    return is_of(call, id->device) || (!*id->device && id->state == CTL_CM_LISTEN);
}

/* ---- tables ------------------------------------------------------------------------------ */

/* A nested attribute of entries, over as many messages as they need. */
struct table {
    struct nldev_call *call;
    struct nldev_draft draft;
    struct nlattr *nest, *entry;
    uint16_t command, type;
};

static void table_start(struct table *t)
{
    nldev_begin(&t->draft, t->call, t->command, t->call->dev);
    t->nest = mnl_attr_nest_start(t->draft.nlh, t->type);
}

static void table_end(struct table *t)
{
    mnl_attr_nest_end(t->draft.nlh, t->nest);
    nldev_add(t->call->reply, t->draft.nlh);
}

static struct nlmsghdr *entry_start(struct table *t, uint16_t type)
{
    if (t->draft.nlh->nlmsg_len + MAX_ENTRY > sizeof t->draft.bytes) {
        table_end(t);
        table_start(t);
    }
    t->entry = mnl_attr_nest_start(t->draft.nlh, type);
    return t->draft.nlh;
}

static void entry_end(struct table *t) { mnl_attr_nest_end(t->draft.nlh, t->entry); }

/* ---- how many there are ------------------------------------------------------------------ */

static void write_sum(struct nlmsghdr *nlh, const char *name, uint64_t count)
{
    struct nlattr *entry = mnl_attr_nest_start(nlh, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY);

    mnl_attr_put_strz(nlh, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_NAME, name);
    mnl_attr_put_u64(nlh, RDMA_NLDEV_ATTR_RES_SUMMARY_ENTRY_CURR, count);
    mnl_attr_nest_end(nlh, entry);
}

int nldev_res_get(struct nldev_call *call)
{
    const struct nldev_facts *facts = call->facts;
    struct nldev_draft draft;
    struct nlattr *nest;
    uint64_t qps = 0, cm_ids = 0, contexts = 0;

    for (size_t i = 0; i < facts->nqp; i++) qps += is_of(call, facts->qp[i].device);
    for (size_t i = 0; i < facts->ncm_id; i++) cm_ids += has_cm_id(call, facts->cm_id + i);
    for (size_t i = 0; i < facts->nfunction; i++)
        contexts += is_of(call, facts->function[i].device);

    nldev_begin(&draft, call, RDMA_NLDEV_CMD_RES_GET, call->dev);
    nest = mnl_attr_nest_start(draft.nlh, RDMA_NLDEV_ATTR_RES_SUMMARY);
    write_sum(draft.nlh, "qp", qps);
    write_sum(draft.nlh, "cm_id", cm_ids);
    write_sum(draft.nlh, "ctx", contexts);
    mnl_attr_nest_end(draft.nlh, nest);
    nldev_add(call->reply, draft.nlh);
    return 0;
}

/* ---- queue pairs ------------------------------------------------------------------------- */

static bool is_connected(uint8_t type) { return type == IBV_QPT_RC || type == IBV_QPT_UC; }

static void write_qp(struct nlmsghdr *nlh, const struct ctl_qp *qp)
{
    /* A QP that has not left RESET has no port yet. */
    if (qp->state != IBV_QPS_RESET) mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_LQPN, qp->qpn);
    if (is_connected(qp->type)) {
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_RQPN, qp->dqpn);
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_RQ_PSN, qp->rq_psn);
    }
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_SQ_PSN, qp->sq_psn);
    if (qp->type != IBV_QPT_UD)
        mnl_attr_put_u8(nlh, RDMA_NLDEV_ATTR_RES_PATH_MIG_STATE, IBV_MIG_MIGRATED);
    mnl_attr_put_u8(nlh, RDMA_NLDEV_ATTR_RES_TYPE, qp->type);
    mnl_attr_put_u8(nlh, RDMA_NLDEV_ATTR_RES_STATE, qp->state);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_PID, qp->pid);
}

int nldev_qp_get(struct nldev_call *call)
{
    const struct nldev_facts *facts = call->facts;
    struct nldev_draft draft;

    if (!(call->has & NLDEV_HAS_LQPN)) return -EINVAL;
    for (size_t i = 0; i < facts->nqp; i++) {
        if (facts->qp[i].qpn != call->lqpn || !is_of(call, facts->qp[i].device)) continue;
        nldev_begin(&draft, call, RDMA_NLDEV_CMD_RES_QP_GET, call->dev);
        write_qp(draft.nlh, facts->qp + i);
        nldev_add(call->reply, draft.nlh);
        return 0;
    }
    return -ENOENT;
}

int nldev_qp_dump(struct nldev_call *call)
{
    struct table t = {call, .command = RDMA_NLDEV_CMD_RES_QP_GET, .type = RDMA_NLDEV_ATTR_RES_QP};

    if (call->has & NLDEV_HAS_PORT && call->port != NLDEV_PORT) return -EINVAL;
    table_start(&t);
    for (size_t i = 0; i < call->facts->nqp; i++) {
        if (!is_of(call, call->facts->qp[i].device)) continue;
        write_qp(entry_start(&t, RDMA_NLDEV_ATTR_RES_QP_ENTRY), call->facts->qp + i);
        entry_end(&t);
    }
    table_end(&t);
    return 0;
}

/* ---- ids of the connection manager ------------------------------------------------------- */

/* enum rdma_cm_state, which is the kernel's alone, as rdma(8) reads it. */
static uint8_t cm_state(uint8_t state)
{
    static const uint8_t STATES[] = {
        [CTL_CM_IDLE] = 0,           [CTL_CM_ADDR_QUERY] = 1, [CTL_CM_ADDR_RESOLVED] = 2,
        [CTL_CM_ROUTE_RESOLVED] = 4, [CTL_CM_CONNECT] = 5,    [CTL_CM_DISCONNECT] = 6,
        [CTL_CM_ADDR_BOUND] = 7,     [CTL_CM_LISTEN] = 8,
    };

    return state < sizeof STATES ? STATES[state] : 0;
}

/* Left out where there is none. */
static void put_address(struct nlmsghdr *nlh, uint16_t type, const uint8_t gid[16], uint16_t port)
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff}, NONE[16];
    struct sockaddr_storage address = {0};

    if (!memcmp(gid, MAPPED, sizeof MAPPED)) {
        struct sockaddr_in *sin = (struct sockaddr_in *)&address;
        sin->sin_family = AF_INET;
        sin->sin_port = htons(port);
        memcpy(&sin->sin_addr, gid + 12, sizeof sin->sin_addr);
    } else {
        struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&address;
        if (!memcmp(gid, NONE, sizeof NONE) && !port) return;
        sin6->sin6_family = AF_INET6;
        sin6->sin6_port = htons(port);
        memcpy(&sin6->sin6_addr, gid, sizeof sin6->sin6_addr);
    }
    mnl_attr_put(nlh, type, sizeof address, &address);
}

static void write_cm_id(struct nlmsghdr *nlh, const struct ctl_cm_id *id)
{
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT);
    if (id->lqpn) {
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_LQPN, id->lqpn);
        mnl_attr_put_u8(nlh, RDMA_NLDEV_ATTR_RES_TYPE, id->qp_type);
    }
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_PS, id->ps);
    mnl_attr_put_u8(nlh, RDMA_NLDEV_ATTR_RES_STATE, cm_state(id->state));
    put_address(nlh, RDMA_NLDEV_ATTR_RES_SRC_ADDR, id->src, id->src_port);
    put_address(nlh, RDMA_NLDEV_ATTR_RES_DST_ADDR, id->dst, id->dst_port);
    mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_PID, id->pid);
}

int nldev_cm_id_dump(struct nldev_call *call)
{
    struct table t = {call, .command = RDMA_NLDEV_CMD_RES_CM_ID_GET,
                      .type = RDMA_NLDEV_ATTR_RES_CM_ID};

    if (call->has & NLDEV_HAS_PORT && call->port != NLDEV_PORT) return -EINVAL;
    table_start(&t);
    for (size_t i = 0; i < call->facts->ncm_id; i++) {
        if (!has_cm_id(call, call->facts->cm_id + i)) continue;
        write_cm_id(entry_start(&t, RDMA_NLDEV_ATTR_RES_CM_ID_ENTRY), call->facts->cm_id + i);
        entry_end(&t);
    }
    table_end(&t);
    return 0;
}

/* ---- contexts ---------------------------------------------------------------------------- */

int nldev_ctx_dump(struct nldev_call *call)
{
    struct table t = {call, .command = RDMA_NLDEV_CMD_RES_CTX_GET, .type = RDMA_NLDEV_ATTR_RES_CTX};

    table_start(&t);
    for (size_t i = 0; i < call->facts->nfunction; i++) {
        const struct ctl_function *f = call->facts->function + i;
        if (!is_of(call, f->device)) continue;
        struct nlmsghdr *nlh = entry_start(&t, RDMA_NLDEV_ATTR_RES_CTX_ENTRY);
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_CTXN, f->function);
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_RES_PID, f->pid);
        entry_end(&t);
    }
    table_end(&t);
    return 0;
}

/* ---- counters ---------------------------------------------------------------------------- */

/* The device's own; those of one member have no place here. */
static bool is_counter(const struct nldev_call *call, const struct ctl_stat *stat)
{
    return is_of(call, stat->device) && !*stat->member;
}

/* Its nest, name and value, bytes: a message has room for 70. */
#define COUNTER_ENTRY (4 + 4 + CTL_NAME_LEN + 4 + 8)

static const struct {
    const char *name, *counter;
} ALIASES[] = {
#define X(alias, counter) {#alias, #counter},
    CTL_HW_ALIASES(X)
#undef X
};

/* False: the message is full. */
static bool write_counter(struct nlmsghdr *nlh, const char *name, uint32_t n, const uint64_t *value)
{
    struct nlattr *entry;

    if (nlh->nlmsg_len + COUNTER_ENTRY > NLDEV_MAX_MESSAGE) return false;
    entry = mnl_attr_nest_start(nlh, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY);
    nldev_put_name(nlh, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_NAME, name);
    if (value)
        mnl_attr_put_u64(nlh, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_ENTRY_VALUE, *value);
    else
        mnl_attr_put_u32(nlh, RDMA_NLDEV_ATTR_STAT_HWCOUNTER_INDEX, n);
    mnl_attr_nest_end(nlh, entry);
    return true;
}

/* With their values, or with the numbers by which they could be switched on and off. */
static int write_counters(struct nldev_call *call, uint16_t command, bool values)
{
    const struct nldev_facts *facts = call->facts;
    struct nldev_draft draft;
    struct nlattr *nest;
    uint32_t n = 0;

    nldev_begin(&draft, call, command, call->dev);
    mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT);
    nest = mnl_attr_nest_start(draft.nlh, RDMA_NLDEV_ATTR_STAT_HWCOUNTERS);
    for (size_t i = 0; i < facts->nstat; i++) {
        const struct ctl_stat *stat = facts->stat + i;
        const uint64_t value = stat->value;
        if (!is_counter(call, stat)) continue;
        if (!write_counter(draft.nlh, stat->name, n++, values ? &value : NULL)) return -EMSGSIZE;
        for (size_t a = 0; a < sizeof ALIASES / sizeof *ALIASES; a++)
            if (!strncmp(stat->name, ALIASES[a].counter, sizeof stat->name) &&
                !write_counter(draft.nlh, ALIASES[a].name, n++, values ? &value : NULL))
                return -EMSGSIZE;
    }
    mnl_attr_nest_end(draft.nlh, nest);
    nldev_add(call->reply, draft.nlh);
    return 0;
}

static bool port_is_wrong(const struct nldev_call *call)
{
    return !(call->has & NLDEV_HAS_PORT) || call->port != NLDEV_PORT;
}

/* No queue pair is bound to a counter of its own, by itself or by command. */
static int write_qp_mode(struct nldev_call *call)
{
    struct nldev_draft draft;

    nldev_begin(&draft, call, RDMA_NLDEV_CMD_STAT_GET, call->dev);
    mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT);
    mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_STAT_MODE, RDMA_COUNTER_MODE_NONE);
    nldev_add(call->reply, draft.nlh);
    return 0;
}

int nldev_stat_get(struct nldev_call *call)
{
    if (port_is_wrong(call)) return -EINVAL;
    if (!(call->has & NLDEV_HAS_STAT_RES))
        return write_counters(call, RDMA_NLDEV_CMD_STAT_GET, true);
    if (call->stat_res != RDMA_NLDEV_ATTR_RES_QP) return -EOPNOTSUPP;
    return call->has & NLDEV_HAS_STAT_MODE ? write_qp_mode(call) : -ENOENT;
}

/* Counters that objects are bound to: there are none of QPs. */
int nldev_stat_dump(struct nldev_call *call)
{
    if (!(call->has & NLDEV_HAS_STAT_RES)) return -EINVAL;
    return call->stat_res == RDMA_NLDEV_ATTR_RES_QP ? 0 : -EOPNOTSUPP;
}

int nldev_stat_status(struct nldev_call *call)
{
    if (port_is_wrong(call)) return -EINVAL;
    return write_counters(call, RDMA_NLDEV_CMD_STAT_GET_STATUS, false);
}
