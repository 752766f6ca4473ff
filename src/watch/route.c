/* See route.h. The answer has the form of a route in a dump: struct rtmsg and attributes. */
#include "watch/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct route {
    struct mnl_socket *nl;
    uint32_t port, seq;
};

int route_open(struct route **out)
{
    struct route *r = calloc(1, sizeof *r);
    if (!r) return -ENOMEM;
    r->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!r->nl || mnl_socket_bind(r->nl, 0, MNL_SOCKET_AUTOPID) < 0) {
        int err = errno;
        if (r->nl) mnl_socket_close(r->nl);
        free(r);
        return -err;
    }
    r->port = mnl_socket_get_portid(r->nl);
    *out = r;
    return 0;
}

void route_close(struct route *route)
{
    if (!route) return;
    mnl_socket_close(route->nl);
    free(route);
}

static void put_address(struct nlmsghdr *nlh, uint16_t type, const struct gid *addr)
{
    if (gid_is_ipv4(addr))
        mnl_attr_put(nlh, type, 4, addr->raw + 12);
    else
        mnl_attr_put(nlh, type, 16, addr->raw);
}

static void compose(struct nlmsghdr *nlh, const struct route_query *q)
{
    bool ipv4 = gid_is_ipv4(&q->dst);
    nlh->nlmsg_type = RTM_GETROUTE;
    nlh->nlmsg_flags = NLM_F_REQUEST;
    struct rtmsg *rtm = mnl_nlmsg_put_extra_header(nlh, sizeof *rtm);
    rtm->rtm_family = ipv4 ? AF_INET : AF_INET6;
    rtm->rtm_dst_len = ipv4 ? 32 : 128;
    put_address(nlh, RTA_DST, &q->dst);
    if (q->src) {
        rtm->rtm_src_len = rtm->rtm_dst_len;
        put_address(nlh, RTA_SRC, q->src);
    }
    if (q->oif) mnl_attr_put_u32(nlh, RTA_OIF, q->oif);
}

static struct gid address_of(const struct nlattr *attr)
{
    struct gid g = {{[10] = 0xff, [11] = 0xff}};
    if (mnl_attr_get_payload_len(attr) == 4)
        memcpy(g.raw + 12, mnl_attr_get_payload(attr), 4);
    else if (mnl_attr_get_payload_len(attr) == 16)
        memcpy(g.raw, mnl_attr_get_payload(attr), 16);
    else
        memset(&g, 0, sizeof g);
    return g;
}

static void read_metrics(const struct nlattr *metrics, struct route_answer *a)
{
    const struct nlattr *attr;
    mnl_attr_for_each_nested(attr, metrics)
    {
        if (mnl_attr_get_type(attr) == RTAX_MTU && mnl_attr_validate(attr, MNL_TYPE_U32) >= 0)
            a->mtu = mnl_attr_get_u32(attr);
    }
}

static int read_answer(const struct nlmsghdr *nlh, void *data)
{
    struct route_answer *a = data;
    if (nlh->nlmsg_type != RTM_NEWROUTE) return MNL_CB_OK;
    if (nlh->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg))) return MNL_CB_ERROR;
    const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
    const struct nlattr *attr;
    a->local = rtm->rtm_type == RTN_LOCAL;
    mnl_attr_for_each(attr, nlh, sizeof *rtm)
    {
        switch (mnl_attr_get_type(attr)) {
        case RTA_PREFSRC: a->prefsrc = address_of(attr); break;
        case RTA_GATEWAY: a->gateway = address_of(attr); break;
        case RTA_OIF:
            if (mnl_attr_validate(attr, MNL_TYPE_U32) >= 0) a->oif = mnl_attr_get_u32(attr);
            break;
        case RTA_METRICS: read_metrics(attr, a); break;
        default: break;
        }
    }
    return MNL_CB_STOP;
}

/* Sends the one request in `buf` and runs its answer through `read`. */
static int ask(struct route *route, uint8_t *buf, size_t room, mnl_cb_t read, void *out)
{
    struct nlmsghdr *nlh = (struct nlmsghdr *)buf;
    nlh->nlmsg_seq = ++route->seq;
    if (mnl_socket_sendto(route->nl, nlh, nlh->nlmsg_len) < 0) return -errno;
    ssize_t n = mnl_socket_recvfrom(route->nl, buf, room);
    if (n < 0) return -errno;
    return mnl_cb_run(buf, (size_t)n, route->seq, route->port, read, out) < 0 ? -errno : 0;
}

int route_lookup(struct route *route, const struct route_query *query, struct route_answer *answer)
{
    if (query->src && gid_is_ipv4(query->src) != gid_is_ipv4(&query->dst)) return -EINVAL;
    uint8_t buf[8192];
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    compose(nlh, query);
    *answer = (struct route_answer){0};
    return ask(route, buf, sizeof buf, read_answer, answer);
}

/* ---- neighbours ------------------------------------------------------------------------------ */

struct neighbour {
    int known;
    uint8_t *mac;
};

static int read_neighbour(const struct nlmsghdr *nlh, void *data)
{
    static const unsigned valid =
        NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
    struct neighbour *n = data;
    const struct nlattr *attr;
    if (nlh->nlmsg_type != RTM_NEWNEIGH) return MNL_CB_OK;
    if (nlh->nlmsg_len < NLMSG_LENGTH(sizeof(struct ndmsg))) return MNL_CB_ERROR;
    const struct ndmsg *ndm = mnl_nlmsg_get_payload(nlh);
    n->known = (ndm->ndm_state & valid) != 0;
    mnl_attr_for_each(attr, nlh, sizeof *ndm)
    {
        if (n->mac && mnl_attr_get_type(attr) == NDA_LLADDR && mnl_attr_get_payload_len(attr) == 6)
            memcpy(n->mac, mnl_attr_get_payload(attr), 6);
    }
    return MNL_CB_STOP;
}

int route_neighbour(struct route *route, uint32_t ifindex, const struct gid *addr, uint8_t *mac)
{
    uint8_t buf[8192];
    struct neighbour answer = {.mac = mac};
    struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
    nlh->nlmsg_type = RTM_GETNEIGH;
    nlh->nlmsg_flags = NLM_F_REQUEST;
    struct ndmsg *ndm = mnl_nlmsg_put_extra_header(nlh, sizeof *ndm);
    ndm->ndm_family = gid_is_ipv4(addr) ? AF_INET : AF_INET6;
    ndm->ndm_ifindex = (int)ifindex;
    put_address(nlh, NDA_DST, addr);
    int err = ask(route, buf, sizeof buf, read_neighbour, &answer);
    return err == -ENOENT ? 0 : err ? err : answer.known;
}

void route_seek_neighbour(uint32_t ifindex, const struct gid *addr)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
    memcpy(&to.sin6_addr, addr->raw, sizeof addr->raw);
    to.sin6_scope_id = ifindex;
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    int index = (int)ifindex;
    /* Where that is not allowed, the main route is taken, which is as a rule the same. */
    (void)!setsockopt(fd, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof index);
    (void)!sendto(fd, "", 0, 0, (struct sockaddr *)&to, sizeof to);
    close(fd);
}
