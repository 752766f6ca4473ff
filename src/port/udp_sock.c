/* The UDP port's sockets: made where the rights are (rbondd, or a test), used where the data is. */
#include "port/port.h"
#include "port/udp_port.h"
#include <errno.h>
#include <linux/filter.h>
#include <netinet/udp.h>
#include <sys/random.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BUFFER_WANTED (8 << 20)
#define SPORT_TRIES 64
#define HOP_LIMIT_DEFAULT 64

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29
#endif

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND 33
#endif

static int set_int(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

/* As large as the caller's rights allow; less is slower, not wrong. */
static void set_buffer(int fd, int force, int plain)
{
    if (set_int(fd, SOL_SOCKET, force, BUFFER_WANTED) != 0)
        (void)set_int(fd, SOL_SOCKET, plain, BUFFER_WANTED);
}

struct option {
    int level, name, value;
};

static int set_all(int fd, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int rc = set_int(fd, options[i].level, options[i].name, options[i].value);
        if (rc != 0) return rc;
    }
    return 0;
}

static int bind_any(int fd, uint16_t port)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    return bind(fd, (struct sockaddr *)&any, sizeof any) == 0 ? 0 : -errno;
}

static int dual_stack_socket(void)
{
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP);
    return fd < 0 ? -errno : fd;
}

int port_udp_rx_socket(void)
{
    static const struct option options[] = {
        {SOL_IPV6, IPV6_V6ONLY, 0},
        {SOL_SOCKET, SO_REUSEPORT, 1},
        {SOL_UDP, UDP_GRO, 1},
        /* A UDP checksum of 0 is RoCE's way (IBTA A17.3), and rxe's over IPv6. */
        {SOL_UDP, UDP_NO_CHECK6_RX, 1},
        {SOL_IPV6, IPV6_RECVPKTINFO, 1},
        {SOL_IPV6, IPV6_RECVTCLASS, 1},
        {SOL_IPV6, IPV6_RECVHOPLIMIT, 1},
        {SOL_IP, IP_RECVTOS, 1},
        {SOL_IP, IP_RECVTTL, 1},
        /* Multicast: only the groups that this very socket has joined. */
        {SOL_IP, IP_MULTICAST_ALL, 0},
        {SOL_IPV6, IPV6_MULTICAST_ALL, 0},
    };
    int fd = dual_stack_socket();
    if (fd < 0) return fd;
    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    int rc = set_all(fd, options, sizeof options / sizeof *options);
    if (rc == 0) rc = bind_any(fd, ROCE_UDP_PORT);
    if (rc == 0) return fd;
    close(fd);
    return rc;
}

static int attach(int fd, int how, const struct sock_fprog *program)
{
    return setsockopt(fd, SOL_SOCKET, how, program, sizeof *program) == 0 ? 0 : -errno;
}

/* Nobody sends to a source port; what comes all the same must not fill a buffer. */
static int receive_nothing(int fd)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    return attach(fd, SO_ATTACH_FILTER, &program);
}

static int bind_random_sport(int fd)
{
    int rc = -EADDRINUSE;
    for (int i = 0; i < SPORT_TRIES && rc == -EADDRINUSE; i++) {
        uint16_t r = 0;
        if (getrandom(&r, sizeof r, 0) != sizeof r) return -EIO;
        rc = bind_any(fd, (uint16_t)(ROCE_SPORT_MIN | r));
    }
    return rc;
}

int port_udp_tx_socket(void)
{
    /* FLOWINFO_SEND: a flow label may be given with the address. PMTU probing: DF set and never
     * fragmented here; IPv4 identification 0, segment i of a train has i, which the ICRC counts on.
     */
    static const struct option options[] = {
        {SOL_IPV6, IPV6_V6ONLY, 0},
        {SOL_IPV6, IPV6_FLOWINFO_SEND, 1},
        {SOL_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE},
        {SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE},
        {SOL_IPV6, IPV6_UNICAST_HOPS, HOP_LIMIT_DEFAULT},
        {SOL_IPV6, IPV6_MULTICAST_HOPS, HOP_LIMIT_DEFAULT},
        {SOL_IP, IP_TTL, HOP_LIMIT_DEFAULT},
        {SOL_IP, IP_MULTICAST_TTL, HOP_LIMIT_DEFAULT},
    };
    int fd = dual_stack_socket();
    if (fd < 0) return fd;
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    int rc = set_all(fd, options, sizeof options / sizeof *options);
    if (rc == 0) rc = receive_nothing(fd);
    if (rc == 0) rc = bind_random_sport(fd);
    if (rc == 0) return fd;
    close(fd);
    return rc;
}

static int steer_by_qpn(int rx_fd)
{
    /* The program sees the UDP payload: BTH's word 1 is a reserved byte and the destination QPN. A
     * datagram too short for it goes to index 0; an index past the group to the kernel's hash. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffffff),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, HCA_INDEX_BITS),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return attach(rx_fd, SO_ATTACH_REUSEPORT_CBPF, &program);
}

/* Where one socket alone has joined an IPv4 group, Linux (since 6.6) finds it early, and then asks
 * the steering program all the same, which knows nothing of groups. So there are always two: this
 * one is of every group that anybody has joined, and its filter, which sees the UDP header, drops
 * what it so gets. */
static int be_second_in_groups(int rx_fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 8 + 8, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8 + 4),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffffff),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ROCE_QPN_MULTICAST, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    int rc = attach(rx_fd, SO_ATTACH_FILTER, &program);
    return rc == 0 ? set_int(rx_fd, SOL_IP, IP_MULTICAST_ALL, 1) : rc;
}

int port_udp_steer(int rx_fd)
{
    int rc = steer_by_qpn(rx_fd);
    return rc == 0 ? be_second_in_groups(rx_fd) : rc;
}

int port_udp_lock(int rx_fd) { return set_int(rx_fd, SOL_SOCKET, SO_LOCK_FILTER, 1); }

static int membership(int rx_fd, const struct gid *group, uint32_t ifindex, int ipv4, int ipv6)
{
    int rc;
    if (gid_is_ipv4(group)) {
        struct ip_mreqn m = {.imr_ifindex = (int)ifindex};
        memcpy(&m.imr_multiaddr, group->raw + 12, 4);
        rc = setsockopt(rx_fd, SOL_IP, ipv4, &m, sizeof m);
    } else {
        struct ipv6_mreq m = {.ipv6mr_interface = ifindex};
        memcpy(&m.ipv6mr_multiaddr, group->raw, 16);
        rc = setsockopt(rx_fd, SOL_IPV6, ipv6, &m, sizeof m);
    }
    return rc == 0 ? 0 : -errno;
}

int port_udp_join(int rx_fd, const struct gid *group, uint32_t ifindex)
{
    int rc = membership(rx_fd, group, ifindex, IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP);
    return rc == -EADDRINUSE ? 0 : rc; /* it is in it: rbondd's restart has left it so */
}

int port_udp_leave(int rx_fd, const struct gid *group, uint32_t ifindex)
{
    return membership(rx_fd, group, ifindex, IP_DROP_MEMBERSHIP, IPV6_DROP_MEMBERSHIP);
}
