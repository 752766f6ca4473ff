#include "ctl/codec.h"
#include <errno.h>
#include <string.h>

int ctl_check(const void *msg, size_t n, struct ctl_hdr *hdr)
{
    memset(hdr, 0, sizeof *hdr);
    if (n < sizeof *hdr || n > CTL_MAX_MSG) return -EBADMSG;
    memcpy(hdr, msg, sizeof *hdr);
    if (hdr->version != CTL_VERSION) return -EPROTO;
    if (hdr->len != n) return -EBADMSG;
    return 0;
}

bool ctl_string_ok(const char *field, size_t size) { return memchr(field, 0, size) != NULL; }

void ctl_string_set(char *field, size_t size, const char *text)
{
    size_t len = strnlen(text, size - 1);
    memset(field, 0, size);
    memcpy(field, text, len);
}

static int check_name(const void *body)
{
    struct ctl_name name;
    memcpy(&name, body, sizeof name);
    return ctl_string_ok(name.name, sizeof name.name) ? 0 : -EINVAL;
}

static int check_reclaim(const void *body)
{
    struct ctl_reclaim reclaim;
    memcpy(&reclaim, body, sizeof reclaim);
    if (reclaim.function == 0) return -EINVAL; /* rbondd's own */
    return ctl_string_ok(reclaim.name, sizeof reclaim.name) ? 0 : -EINVAL;
}

static int check_bond_conf(const void *body)
{
    struct ctl_bond_conf conf;
    memcpy(&conf, body, sizeof conf);
    if (conf.nmembers > CTL_MAX_MEMBERS) return -EINVAL;
    if (!ctl_string_ok(conf.name, sizeof conf.name) ||
        !ctl_string_ok(conf.netdev, sizeof conf.netdev) ||
        !ctl_string_ok(conf.primary, sizeof conf.primary))
        return -EINVAL;
    for (unsigned i = 0; i < CTL_MAX_MEMBERS; i++)
        if (!ctl_string_ok(conf.member[i], sizeof conf.member[i])) return -EINVAL;
    return 0;
}

static int check_xrcd(const void *body)
{
    struct ctl_xrcd xrcd;
    memcpy(&xrcd, body, sizeof xrcd);
    return xrcd.flags & ~(CTL_XRCD_CREATE | CTL_XRCD_EXCL) ? -EINVAL : 0;
}

/* One row per request: its name, its body. CTL_ANY_LEN: the consumer checks (ctl/ucma.h). */
#define CTL_ANY_LEN ((size_t)-1)

static const struct request {
    const char *name;
    size_t len;
    int (*check)(const void *body);
} requests[] = {
    [CTL_HELLO] = {"hello", 0, NULL},
    [CTL_DEV_LIST] = {"dev-list", 0, NULL},
    [CTL_OPEN] = {"open", sizeof(struct ctl_name), check_name},
    [CTL_BOND_ADD] = {"bond-add", sizeof(struct ctl_bond_conf), check_bond_conf},
    [CTL_BOND_DEL] = {"bond-del", sizeof(struct ctl_name), check_name},
    [CTL_BOND_SET] = {"bond-set", sizeof(struct ctl_bond_conf), check_bond_conf},
    [CTL_BOND_LIST] = {"bond-list", 0, NULL},
    [CTL_LINK_LIST] = {"link-list", 0, NULL},
    [CTL_FUNCTION_LIST] = {"function-list", 0, NULL},
    [CTL_QP_LIST] = {"qp-list", 0, NULL},
    [CTL_STAT] = {"stat", 0, NULL},
    [CTL_MONITOR] = {"monitor", 0, NULL},
    [CTL_CM_OPEN] = {"cm-open", CTL_ANY_LEN, NULL},
    [CTL_CM_CMD] = {"cm-cmd", CTL_ANY_LEN, NULL},
    [CTL_GID_LIST] = {"gid-list", 0, NULL},
    [CTL_RECLAIM] = {"reclaim", sizeof(struct ctl_reclaim), check_reclaim},
    [CTL_CM_ID_LIST] = {"cm-id-list", 0, NULL},
    [CTL_XRCD] = {"xrcd", sizeof(struct ctl_xrcd), check_xrcd},
};

static const struct request *request_of(uint32_t type)
{
    if (type >= sizeof requests / sizeof requests[0] || !requests[type].name) return NULL;
    return &requests[type];
}

int ctl_check_request(const struct ctl_hdr *hdr, const void *body, size_t len)
{
    const struct request *r = request_of(hdr->type);

    if (!r) return -EOPNOTSUPP;
    if (r->len != CTL_ANY_LEN && len != r->len) return -EBADMSG;
    return r->check ? r->check(body) : 0;
}

bool ctl_check_records(const struct ctl_hdr *hdr, size_t record_size)
{
    size_t body = hdr->len - sizeof *hdr;

    if (record_size == 0) return hdr->count == 0 && body == 0;
    return hdr->count <= CTL_MAX_MSG && body == hdr->count * record_size;
}

const char *ctl_type_name(uint32_t type)
{
    const struct request *r = request_of(type);
    return r ? r->name : type == CTL_EVENT ? "event" : "?";
}

const char *ctl_event_name(uint32_t type)
{
    static const char *const names[] = {
        [CTL_EV_TABLE] = "table",
        [CTL_EV_PORT_ACTIVE] = "port-active",
        [CTL_EV_PORT_ERR] = "port-err",
        [CTL_EV_GID_CHANGE] = "gid-change",
        [CTL_EV_DEVICE_ADD] = "device-add",
        [CTL_EV_DEVICE_DEL] = "device-del",
        [CTL_EV_LINK_UP] = "link-up",
        [CTL_EV_LINK_DOWN] = "link-down",
        [CTL_EV_FAILOVER] = "failover",
        [CTL_EV_FUNCTION_ADD] = "function-add",
        [CTL_EV_FUNCTION_DEL] = "function-del",
        [CTL_EV_XRC_PEER] = "xrc-peer",
    };
    if (type >= sizeof names / sizeof names[0] || !names[type]) return "?";
    return names[type];
}
