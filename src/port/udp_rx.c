/* Trains in: one receive call gives whole GRO trains, each datagram of which is checked by itself,
 * because GRO merges by 4-tuple and knows nothing of QPs. */
#include "base/bits.h"
#include "port/udp_port.h"
#include "wire/icrc.h"
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* What the ancillary data says of a train. */
struct arrival {
    struct icrc_path path;
    uint32_t begun; /* icrc_begin of it, once its udp_len is set */
    struct hca_rx rx;
    size_t segment;
    bool ipv4, looped, multicast;
};

void udp_rx_init(struct udp_rx *rx)
{
    for (int i = 0; i < UDP_RX_TRAINS; i++) {
        rx->iov[i] = (struct iovec){rx->buf[i], sizeof rx->buf[i]};
        rx->msg[i].msg_hdr = (struct msghdr){.msg_name = &rx->from[i],
                                             .msg_namelen = sizeof rx->from[i],
                                             .msg_iov = &rx->iov[i],
                                             .msg_iovlen = 1,
                                             .msg_control = rx->control[i].bytes,
                                             .msg_controllen = sizeof rx->control[i].bytes};
    }
}

static uint8_t member_of(const struct udp_port *p, uint32_t ifindex)
{
    for (uint8_t m = 0; m < p->nmembers; m++)
        if (p->member[m].ifindex == ifindex) return m;
    return STEER_NO_MEMBER;
}

static bool is_loopback(const struct gid *gid)
{
    static const struct gid one = {{[15] = 1}};
    return gid_is_ipv4(gid) ? gid->raw[12] == 127 : gid_equal(gid, &one);
}

static int cmsg_int(const struct cmsghdr *c)
{
    int v = 0;
    if (c->cmsg_len >= CMSG_LEN(sizeof v))
        memcpy(&v, CMSG_DATA(c), sizeof v);
    else if (c->cmsg_len > CMSG_LEN(0)) /* IP_TOS is a byte */
        v = *CMSG_DATA(c);
    return v;
}

static void read_control(const struct udp_port *p, struct msghdr *msg, struct arrival *a)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size = cmsg_int(c);
            if (size > 0) a->segment = (size_t)size;
        } else if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            memcpy(a->path.dst.raw, &info.ipi6_addr, 16);
            a->rx.member = member_of(p, info.ipi6_ifindex);
        } else if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_TOS) ||
                   (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_TCLASS)) {
            a->rx.traffic_class = (uint8_t)cmsg_int(c);
        } else if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_TTL) ||
                   (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
            a->rx.hop_limit = (uint8_t)cmsg_int(c);
        }
    }
}

static void describe(const struct udp_port *p, struct mmsghdr *m, struct arrival *a)
{
    const struct sockaddr_in6 *from = m->msg_hdr.msg_name;
    *a = (struct arrival){.segment = m->msg_len, .rx.member = STEER_NO_MEMBER};
    memcpy(a->path.src.raw, &from->sin6_addr, 16);
    a->path.sport = ntohs(from->sin6_port);
    a->path.dport = ROCE_UDP_PORT;
    a->path.df = true;
    read_control(p, &m->msg_hdr, a);
    a->rx.src = a->path.src;
    a->rx.dst = a->path.dst;
    a->ipv4 = gid_is_ipv4(&a->path.dst);
    a->looped = is_loopback(&a->path.src);
    a->multicast = gid_is_multicast(&a->path.dst);
    if (a->multicast) a->rx.own = udp_is_local(p, &a->path.src);
}

/* The identification that IPv4's ICRC covers is not to be seen here. Expected is the datagram's
 * place in its train, as GSO numbers them; otherwise the difference tells whether some other
 * explains it, such as 0 (trains that GRO put together) or a peer's counter. */
static bool icrc_right(struct arrival *a, uint8_t *roce, size_t len, uint16_t index)
{
    uint16_t udp_len = (uint16_t)(8 + len + ROCE_ICRC_LEN), id;
    if (a->path.udp_len != udp_len) {
        a->path.udp_len = udp_len;
        a->begun = icrc_begin(&a->path);
    }
    uint32_t crc = a->ipv4 ? icrc_renumber(a->begun, index) : a->begun;
    uint32_t want = icrc_end(icrc_feed_bth(crc, roce, len));
    uint32_t got = __builtin_bswap32(get_be32(roce + len));
    return want == got || (a->ipv4 && icrc_explained_v4(want, got, len, &id));
}

static bool addressed(const struct udp_port *p, const struct arrival *a, qpn_t qpn)
{
    return a->multicast ? qpn == ROCE_QPN_MULTICAST : qpn >> HCA_INDEX_BITS == p->function;
}

/* Another function's: GRO merged it behind one of ours, or the group has no socket for it. Only
 * once: what came over loopback and is still not ours belongs to nobody. Of multicast every
 * function has had its own copy. */
static void hand_on(struct udp_port *p, const struct arrival *a, uint8_t *roce, size_t len)
{
    if (!a->looped && !a->multicast && udp_hand_on(p, a->ipv4, &a->rx, roce, len))
        p->port.stats.rx_handed_on++;
    else
        p->port.stats.rx_foreign++;
}

/* What was handed on says behind its pad who sent it, and to whom. */
static bool unwrap(struct arrival *a, const uint8_t *data, size_t *len)
{
    struct udp_handed handed;
    if (*len < ROCE_BTH_LEN + sizeof handed) return false;
    *len -= sizeof handed;
    memcpy(&handed, data + *len, sizeof handed);
    a->rx.src = handed.src;
    a->rx.dst = handed.dst;
    a->rx.traffic_class = handed.traffic_class;
    a->rx.hop_limit = handed.hop_limit;
    return true;
}

/* Is the datagram good, and this function's? Then a->rx holds it. */
static bool take(struct udp_port *p, struct arrival *a, uint8_t *data, size_t len, uint16_t index)
{
    p->port.stats.rx_datagrams++;
    if (len < ROCE_BTH_LEN + ROCE_ICRC_LEN) {
        p->port.stats.rx_short++;
        return false;
    }
    len -= ROCE_ICRC_LEN;
    if (!icrc_right(a, data, len, index)) {
        p->port.stats.rx_icrc_errors++;
        return false;
    }
    if (!addressed(p, a, get_be24(data + 5))) {
        hand_on(p, a, data, len);
        return false;
    }
    if (a->looped && !a->multicast && !unwrap(a, data, &len)) {
        p->port.stats.rx_short++;
        return false;
    }
    a->rx.data = data;
    a->rx.len = len;
    return true;
}

int udp_rx(struct port *port, void (*sink)(void *ctx, const struct hca_rx *rx), void *ctx)
{
    struct udp_port *p = (struct udp_port *)port;
    struct udp_rx *rx = &p->rx;
    int given = 0, seen = 0, n;
    int before = errno; /* a program's: that nothing came is no error of the call it made */
    do {
        n = recvmmsg(port->rx_fd, rx->msg, UDP_RX_TRAINS, MSG_DONTWAIT, NULL);
        for (int i = 0; i < n; i++) {
            struct arrival a;
            describe(p, &rx->msg[i], &a);
            port->stats.rx_trains++;
            size_t len = rx->msg[i].msg_len, at = 0;
            uint16_t index = 0;
            /* An empty datagram is one too. */
            do {
                size_t piece = len - at < a.segment ? len - at : a.segment;
                if (take(p, &a, rx->buf[i] + at, piece, index++)) {
                    sink(ctx, &a.rx);
                    given++;
                }
                at += piece;
                seen++;
            } while (at < len);
            rx->msg[i].msg_hdr.msg_namelen = sizeof rx->from[i];
            rx->msg[i].msg_hdr.msg_controllen = sizeof rx->control[i].bytes;
        }
    } while (n == UDP_RX_TRAINS && seen < PORT_BURST);
    if (n < 0) errno = before;
    return given;
}
