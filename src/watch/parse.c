#include "watch/parse.h"
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

static void copy_string(char *to, size_t size, const struct nlattr *attr)
{
    size_t len = strnlen(mnl_attr_get_payload(attr), mnl_attr_get_payload_len(attr));

    if (len >= size) len = size - 1;
    memset(to, 0, size);
    memcpy(to, mnl_attr_get_payload(attr), len);
}

static void parse_linkinfo(const struct nlattr *nest, struct watch_link *link)
{
    const struct nlattr *attr;

    mnl_attr_for_each_nested(attr, nest)
    {
        if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
            copy_string(link->kind, sizeof link->kind, attr);
    }
}

static void parse_link_attr(const struct nlattr *attr, struct watch_link *link)
{
    uint16_t len = mnl_attr_get_payload_len(attr);

    switch (mnl_attr_get_type(attr)) {
    case IFLA_IFNAME: copy_string(link->name, sizeof link->name, attr); break;
    case IFLA_MTU:
        if (len >= 4) link->mtu = mnl_attr_get_u32(attr);
        break;
    case IFLA_MASTER:
        if (len >= 4) link->master = mnl_attr_get_u32(attr);
        break;
    case IFLA_OPERSTATE:
        if (len >= 1) link->operstate = mnl_attr_get_u8(attr);
        break;
    case IFLA_ADDRESS:
        link->has_mac = len == sizeof link->mac;
        if (link->has_mac) memcpy(link->mac, mnl_attr_get_payload(attr), sizeof link->mac);
        break;
    case IFLA_LINKINFO: parse_linkinfo(attr, link); break;
    default: break;
    }
}

bool watch_parse_link(const struct nlmsghdr *nlh, struct watch_link *link)
{
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *attr;

    if (nlh->nlmsg_type != RTM_NEWLINK && nlh->nlmsg_type != RTM_DELLINK) return false;
    if (mnl_nlmsg_get_payload_len(nlh) < sizeof *ifi || ifi->ifi_family != AF_UNSPEC) return false;
    memset(link, 0, sizeof *link);
    link->ifindex = (uint32_t)ifi->ifi_index;
    link->type = ifi->ifi_type;
    link->up = ifi->ifi_flags & IFF_UP;
    link->running = ifi->ifi_flags & IFF_RUNNING;
    /* IFF_LOWER_UP is netif_carrier_ok of a running device. Operstate waits for dormant layers
     * above it and is later. */
    link->carrier = ifi->ifi_flags & IFF_LOWER_UP;
    mnl_attr_for_each(attr, nlh, sizeof *ifi) { parse_link_attr(attr, link); }
    return link->ifindex != 0;
}

bool watch_parse_addr(const struct nlmsghdr *nlh, struct watch_addr *addr)
{
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *attr, *found = NULL;

    if (nlh->nlmsg_type != RTM_NEWADDR && nlh->nlmsg_type != RTM_DELADDR) return false;
    if (mnl_nlmsg_get_payload_len(nlh) < sizeof *ifa) return false;
    if (ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6) return false;
    size_t want = ifa->ifa_family == AF_INET ? 4 : 16;

    memset(addr, 0, sizeof *addr);
    addr->ifindex = ifa->ifa_index;
    addr->prefix_len = ifa->ifa_prefixlen;
    addr->scope = ifa->ifa_scope;
    addr->flags = ifa->ifa_flags;
    mnl_attr_for_each(attr, nlh, sizeof *ifa)
    {
        uint16_t type = mnl_attr_get_type(attr), len = mnl_attr_get_payload_len(attr);
        if (type == IFA_FLAGS && len >= 4) addr->flags = mnl_attr_get_u32(attr);
        /* IFA_LOCAL is this end's where the link is point to point; it comes with or after
         * IFA_ADDRESS, and IPv6 often has the latter alone. */
        if (type == IFA_LOCAL && len == want) found = attr;
        if (type == IFA_ADDRESS && len == want && !found) found = attr;
    }
    if (!found) return false;
    if (want == 4) addr->addr.raw[10] = addr->addr.raw[11] = 0xff;
    memcpy(addr->addr.raw + 16 - want, mnl_attr_get_payload(found), want);
    return true;
}
