/* Two hosts for a test. */
#include "net.h"
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int host_fd[2];

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

static bool own_namespace(void)
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNET) == 0) return true;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (!write_file("/proc/self/uid_map", map)) return false;
    snprintf(map, sizeof map, "0 %u 1", gid);
    return write_file("/proc/self/gid_map", map);
}

bool net_ip(const char *format, ...)
{
    char command[512] = "PATH=$PATH:/sbin:/usr/sbin ip ";
    size_t at = strlen(command);
    va_list args;
    va_start(args, format);
    vsnprintf(command + at, sizeof command - at, format, args);
    va_end(args);
    return system(command) == 0;
}

static bool addresses(char side, int host)
{
    for (int link = 0; link < 2; link++) {
        const char *v6 = link ? "fd07:1::" : "fd07::";
        if (!net_ip("link set v%c%d addrgenmode none up", side, link) ||
            !net_ip("addr add 10.7.%d.%d/24 dev v%c%d", link, host, side, link) ||
            !net_ip("addr add %s%d/64 dev v%c%d nodad", v6, host, side, link) ||
            !net_ip("addr add fe80::%d/64 dev v%c%d nodad", host, side, link))
            return false;
    }
    return net_ip("link set lo up");
}

bool net_up(int mtu)
{
    if (!own_namespace()) return false;
    host_fd[HOST_A] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) != 0) return false;
    host_fd[HOST_B] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    for (int link = 0; link < 2; link++) {
        if (!net_ip("link add vb%d mtu %d type veth peer name va%d mtu %d netns /proc/%d/fd/%d",
                    link, mtu, link, mtu, getpid(), host_fd[HOST_A]))
            return false;
    }
    if (!addresses('b', 2)) return false;
    net_enter(HOST_A);
    return addresses('a', 1);
}

void net_enter(enum net_host host)
{
    if (setns(host_fd[host], CLONE_NEWNET) != 0) abort();
}

uint32_t net_ifindex(const char *name) { return if_nametoindex(name); }

struct gid net_gid(bool ipv4, enum net_host host, int link)
{
    uint8_t h = host == HOST_A ? 1 : 2, l = (uint8_t)link;
    if (ipv4) return (struct gid){{[10] = 0xff, 0xff, 10, 7, l, h}};
    return (struct gid){{0xfd, 0x07, [3] = l, [15] = h}};
}

struct gid net_link_local(enum net_host host)
{
    return (struct gid){{0xfe, 0x80, [15] = host == HOST_A ? 1 : 2}};
}

bool net_no_offload(const char *name)
{
    struct ethtool_value off = {.cmd = ETHTOOL_STXCSUM};
    struct ifreq ifr = {.ifr_data = (void *)&off};
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", name);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = ioctl(fd, SIOCETHTOOL, &ifr) == 0;
    close(fd);
    return ok;
}

int net_capture(const char *name)
{
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(name)};
    int big = 8 << 20;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
    if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0) return fd;
    close(fd);
    return -1;
}
