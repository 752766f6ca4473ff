#include "verbs/nldev_call.h"

#include "verbs/caps.h"
#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdlib.h>
#include <string.h>

#define NODE_TYPE_CA 1
#define NETNS_EXCLUSIVE 0 /* a device is seen in its own network namespace only */

/* ---- messages ---------------------------------------------------------------------------- */

void nldev_add(struct nldev_reply *reply, const struct nlmsghdr *message)
{
    size_t len = MNL_ALIGN(message->nlmsg_len);

    if (reply->short_of_memory) return;
    if (reply->room - reply->len < len) {
        size_t room = (reply->room + len) * 2;
        uint8_t *bytes = realloc(reply->bytes, room);
        if (!bytes) {
            reply->short_of_memory = true;
            return;
        }
        reply->bytes = bytes;
        reply->room = room;
    }
    memset(reply->bytes + reply->len, 0, len);
    memcpy(reply->bytes + reply->len, message, message->nlmsg_len);
    reply->len += len;
}

static void begin(struct nldev_draft *draft, const struct nldev_call *call, uint16_t type,
                  uint16_t flags)
{
    draft->nlh = mnl_nlmsg_put_header(draft->bytes);
    draft->nlh->nlmsg_type = type;
    draft->nlh->nlmsg_flags = flags;
    draft->nlh->nlmsg_seq = call->request->nlmsg_seq;
    draft->nlh->nlmsg_pid = call->portid;
}

void nldev_put_name(struct nlmsghdr *nlh, uint16_t type, const char *field)
{
    char text[CTL_NAME_LEN] = "";

    memcpy(text, field, strnlen(field, CTL_NAME_LEN - 1));
    mnl_attr_put_strz(nlh, type, text);
}

static uint32_t index_of(const struct ctl_dev *dev) { return NLDEV_FIRST_INDEX + dev->number; }

static void begin_command(struct nldev_draft *draft, const struct nldev_call *call,
                          uint16_t command)
{
    begin(draft, call, (uint16_t)RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command),
          call->dump ? NLM_F_MULTI : 0);
}

void nldev_begin(struct nldev_draft *draft, const struct nldev_call *call, uint16_t command,
                 const struct ctl_dev *dev)
{
    begin_command(draft, call, command);
    mnl_attr_put_u32(draft->nlh, RDMA_NLDEV_ATTR_DEV_INDEX, index_of(dev));
    nldev_put_name(draft->nlh, RDMA_NLDEV_ATTR_DEV_NAME, dev->name);
}

/* What the request said is repeated by its header alone, as with NETLINK_CAP_ACK. */
static void acknowledge(const struct nldev_call *call, int error)
{
    struct nldev_draft draft;
    struct nlmsgerr *body;

    begin(&draft, call, NLMSG_ERROR, NLM_F_CAPPED);
    body = mnl_nlmsg_put_extra_header(draft.nlh, sizeof *body);
    body->error = error;
    body->msg = *call->request;
    nldev_add(call->reply, draft.nlh);
}

static void end_dump(const struct nldev_call *call, int error)
{
    struct nldev_draft draft;
    int *body;

    begin(&draft, call, NLMSG_DONE, NLM_F_MULTI);
    body = mnl_nlmsg_put_extra_header(draft.nlh, sizeof *body);
    *body = error;
    nldev_add(call->reply, draft.nlh);
}

/* ---- devices ----------------------------------------------------------------------------- */

static int write_device(struct nldev_call *call, const struct ctl_dev *dev)
{
    struct nldev_draft draft;

    nldev_begin(&draft, call, RDMA_NLDEV_CMD_GET, dev);
    mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT); /* how many there are */
    mnl_attr_put_u64(draft.nlh, RDMA_NLDEV_ATTR_CAP_FLAGS, DEVICE_CAP_FLAGS);
    mnl_attr_put_strz(draft.nlh, RDMA_NLDEV_ATTR_FW_VERSION, RBOND_VERSION);
    mnl_attr_put_u64(draft.nlh, RDMA_NLDEV_ATTR_NODE_GUID, dev->guid);
    mnl_attr_put_u64(draft.nlh, RDMA_NLDEV_ATTR_SYS_IMAGE_GUID, dev->guid);
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_ATTR_DEV_NODE_TYPE, NODE_TYPE_CA);
    mnl_attr_put_strz(draft.nlh, RDMA_NLDEV_ATTR_DEV_PROTOCOL, "roce");
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_ATTR_DEV_DIM, 0);
    nldev_add(call->reply, draft.nlh);
    return 0;
}

static int device_get(struct nldev_call *call) { return write_device(call, call->dev); }

static int device_dump(struct nldev_call *call)
{
    for (size_t i = 0; i < call->facts->ndev; i++) write_device(call, call->facts->dev + i);
    return 0;
}

/* LIDs and capabilities belong to an InfiniBand port: the kernel leaves them out on Ethernet. */
static void write_port(struct nldev_call *call)
{
    const struct ctl_dev *dev = call->dev;
    const bool active = dev->port_state == CTL_PORT_ACTIVE;
    struct nldev_draft draft;

    nldev_begin(&draft, call, RDMA_NLDEV_CMD_PORT_GET, dev);
    mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_PORT_INDEX, NLDEV_PORT);
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_ATTR_PORT_STATE, dev->port_state);
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_ATTR_PORT_PHYS_STATE,
                    active ? PHYS_STATE_LINK_UP : PHYS_STATE_DISABLED);
    if (dev->ifindex) {
        mnl_attr_put_u32(draft.nlh, RDMA_NLDEV_ATTR_NDEV_INDEX, dev->ifindex);
        nldev_put_name(draft.nlh, RDMA_NLDEV_ATTR_NDEV_NAME, dev->netdev);
    }
    nldev_add(call->reply, draft.nlh);
}

static int port_get(struct nldev_call *call)
{
    if (!(call->has & NLDEV_HAS_PORT) || call->port != NLDEV_PORT) return -EINVAL;
    write_port(call);
    return 0;
}

static int port_dump(struct nldev_call *call)
{
    write_port(call);
    return 0;
}

static int res_dump(struct nldev_call *call)
{
    for (size_t i = 0; i < call->facts->ndev; i++) {
        call->dev = call->facts->dev + i;
        nldev_res_get(call);
    }
    return 0;
}

/* Asked only where the kernel has no RDMA. */
static int system_get(struct nldev_call *call)
{
    struct nldev_draft draft;

    begin_command(&draft, call, RDMA_NLDEV_CMD_SYS_GET);
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_SYS_ATTR_NETNS_MODE, NETNS_EXCLUSIVE);
    /* No device writes to memory past the program's own page table, so a fork needs no care. */
    mnl_attr_put_u8(draft.nlh, RDMA_NLDEV_SYS_ATTR_COPY_ON_FORK, 1);
    nldev_add(call->reply, draft.nlh);
    return 0;
}

/* ---- requests ---------------------------------------------------------------------------- */

/* Commands without any function are the kernel's that no device of ours does. */
static const struct command {
    int (*get)(struct nldev_call *call), (*dump)(struct nldev_call *call);
    unsigned wants;
    bool of_all; /* the dump names no device */
} COMMANDS[RDMA_NLDEV_NUM_OPS] = {
    [RDMA_NLDEV_CMD_GET] = {device_get, device_dump, .of_all = true},
    [RDMA_NLDEV_CMD_PORT_GET] = {port_get, port_dump},
    [RDMA_NLDEV_CMD_SYS_GET] = {system_get},
    [RDMA_NLDEV_CMD_RES_GET] = {nldev_res_get, res_dump, NLDEV_QPS | NLDEV_CM_IDS | NLDEV_FUNCTIONS,
                                .of_all = true},
    [RDMA_NLDEV_CMD_RES_QP_GET] = {nldev_qp_get, nldev_qp_dump, NLDEV_QPS},
    [RDMA_NLDEV_CMD_RES_CM_ID_GET] = {NULL, nldev_cm_id_dump, NLDEV_CM_IDS},
    [RDMA_NLDEV_CMD_RES_CTX_GET] = {NULL, nldev_ctx_dump, NLDEV_FUNCTIONS},
    [RDMA_NLDEV_CMD_STAT_GET] = {nldev_stat_get, nldev_stat_dump, NLDEV_STATS},
    [RDMA_NLDEV_CMD_STAT_GET_STATUS] = {nldev_stat_status, NULL, NLDEV_STATS},
};

/* NULL: none that this client knows. */
static const struct command *command_of(const struct nlmsghdr *request)
{
    const unsigned op = RDMA_NL_GET_OP(request->nlmsg_type);

    if (RDMA_NL_GET_CLIENT(request->nlmsg_type) != RDMA_NL_NLDEV || !op || op >= RDMA_NLDEV_NUM_OPS)
        return NULL;
    return COMMANDS + op;
}

unsigned nldev_wants(const struct nlmsghdr *request)
{
    const struct command *command = command_of(request);

    return command ? command->wants : 0;
}

/* False: an attribute does not hold what it should, or the last is cut off. libmnl would read on to
 * the next multiple of four. */
static bool read_attributes(struct nldev_call *call)
{
    const struct {
        uint16_t type;
        uint32_t *to;
    } known[] = {
        {RDMA_NLDEV_ATTR_DEV_INDEX, &call->index},     {RDMA_NLDEV_ATTR_PORT_INDEX, &call->port},
        {RDMA_NLDEV_ATTR_RES_LQPN, &call->lqpn},       {RDMA_NLDEV_ATTR_STAT_RES, &call->stat_res},
        {RDMA_NLDEV_ATTR_STAT_MODE, &call->stat_mode},
    };
    const uint8_t *at = mnl_nlmsg_get_payload(call->request);
    size_t left = call->request->nlmsg_len - MNL_NLMSG_HDRLEN;

    while (left) {
        const struct nlattr *attr = (const void *)at;
        if (left < sizeof *attr || attr->nla_len < sizeof *attr || attr->nla_len > left)
            return false;
        for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
            if (mnl_attr_get_type(attr) != known[i].type) continue;
            if (mnl_attr_get_payload_len(attr) != sizeof(uint32_t)) return false;
            *known[i].to = mnl_attr_get_u32(attr);
            call->has |= 1u << i;
        }
        size_t step = MNL_ALIGN(attr->nla_len);
        if (step > left) step = left;
        at += step;
        left -= step;
    }
    return true;
}

static const struct ctl_dev *device_at(const struct nldev_facts *facts, uint32_t index)
{
    for (size_t i = 0; i < facts->ndev; i++)
        if (index_of(facts->dev + i) == index) return facts->dev + i;
    return NULL;
}

static bool dumps(const struct nlmsghdr *request, const struct command *command)
{
    return command && command->dump && request->nlmsg_flags & NLM_F_DUMP;
}

enum nldev_whose nldev_whose(const struct nlmsghdr *request, const struct nldev_facts *facts)
{
    struct nldev_call call = {.request = request};
    const struct command *command = command_of(request);

    if (RDMA_NL_GET_CLIENT(request->nlmsg_type) != RDMA_NL_NLDEV) return NLDEV_KERNELS;
    if (dumps(request, command) && command->of_all) return NLDEV_BOTH;
    if (!read_attributes(&call) || !(call.has & NLDEV_HAS_INDEX)) return NLDEV_KERNELS;
    return device_at(facts, call.index) ? NLDEV_OURS : NLDEV_KERNELS;
}

/* Which device is meant; 0 or a negative errno. */
static int find_device(struct nldev_call *call, const struct command *command)
{
    if (call->dump && command->of_all) return 0;
    if (call->has & NLDEV_HAS_INDEX) {
        call->dev = device_at(call->facts, call->index);
        return call->dev ? 0 : -EINVAL;
    }
    if (!command->get && !command->dump) return 0; /* what nobody does needs no device */
    return command->get == system_get ? 0 : -EINVAL;
}

static int run(struct nldev_call *call, const struct command *command)
{
    int rc;

    if (!command || !read_attributes(call)) return -EINVAL;
    rc = find_device(call, command);
    if (rc) return rc;
    if (call->dump) return command->dump(call);
    return command->get ? command->get(call) : -EOPNOTSUPP;
}

void nldev_answer(const struct nlmsghdr *request, uint32_t portid, const struct nldev_facts *facts,
                  struct nldev_reply *reply)
{
    const struct command *command = command_of(request);
    struct nldev_call call = {.request = request, .portid = portid, .facts = facts, .reply = reply};
    int error = 0;

    call.dump = dumps(request, command);
    if (request->nlmsg_flags & NLM_F_REQUEST && request->nlmsg_type >= NLMSG_MIN_TYPE)
        error = run(&call, command);
    else
        call.dump = false; /* nothing was asked */
    if (call.dump)
        end_dump(&call, error);
    else if (error || request->nlmsg_flags & NLM_F_ACK)
        acknowledge(&call, error);
}
