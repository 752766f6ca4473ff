/* The lab's links, addresses and routes. Link i is a veth port va<i> in host a and vb<i> in host b;
 * the other ends, pa<i> and pb<i>, are the two ports of bridge br<i> in `wire`. A cable is pulled
 * by setting a wire-side end down: the host's port loses carrier and stays administratively up.
 *
 * Both ends of a cable change in one request (a group's), so that neither host hears of it first:
 * an ARP request into a port that has no carrier yet is lost, and the kernel asks again a second
 * later.
 *
 * The wire's ends get interface indices that no host uses. Where a veth's own index equals its
 * peer's, the kernel takes it for a device without a lower one and holds carrier news back for up
 * to a second.
 *
 * A host reaches the other's bond address by one route with a next hop per link. The IPv6 next hops
 * are link-local: neighbour discovery does not answer on a port for an address that sits on lo. */
#include "cli/lab.h"
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WIRE_INDEX 1001 /* of pa0; two for each link */
#define CABLE_GROUP 1   /* of link 0: both its wire-side ends are one interface group */
#define SCRIPT_MAX 8192

struct script {
    char text[SCRIPT_MAX];
    size_t used;
};

static void say(struct script *script, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void say(struct script *script, const char *format, ...)
{
    va_list args;
    int len;

    va_start(args, format);
    len = vsnprintf(script->text + script->used, SCRIPT_MAX - script->used, format, args);
    va_end(args);
    script->used += (size_t)len;
    if (script->used >= SCRIPT_MAX) script->used = SCRIPT_MAX - 1;
}

/* `ip -batch` inside a host. */
static bool run_script(const struct lab *lab, enum lab_host host, const struct script *script)
{
    int pipefd[2], status = -1;
    bool fed;
    pid_t pid;

    if (pipe(pipefd)) return false;
    pid = fork();
    if (!pid) {
        dup2(pipefd[0], STDIN_FILENO);
        close(pipefd[0]);
        close(pipefd[1]);
        if (!lab_enter(lab, host)) _exit(1);
        execlp("ip", "ip", "-batch", "-", (char *)NULL);
        failed("cannot start 'ip': install iproute2 (tools/setup does)");
        _exit(1);
    }
    close(pipefd[0]);
    fed = pid > 0 && write(pipefd[1], script->text, script->used) == (ssize_t)script->used;
    close(pipefd[1]);
    if (pid > 0) waitpid(pid, &status, 0);
    return fed && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void say_wire(struct script *script, const struct lab *lab)
{
    for (unsigned i = 0; i < lab->links; i++) {
        say(script, "link add br%u type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n", i);
        for (unsigned h = LAB_A; h <= LAB_B; h++) {
            const char *name = LAB_HOST_NAMES[h];

            say(script,
                "link add p%s%u index %u mtu %u type veth peer name v%s%u netns %d mtu %u\n", name,
                i, WIRE_INDEX + 2 * i + h, lab->mtu, name, i, (int)lab->holder[h].pid, lab->mtu);
            say(script, "link set p%s%u master br%u group %u up\n", name, i, i, CABLE_GROUP + i);
        }
        say(script, "link set br%u up\n", i);
    }
}

static void say_host(struct script *script, const struct lab *lab, enum lab_host host)
{
    const char *name = LAB_HOST_NAMES[host];
    unsigned mine = (unsigned)host + 1, peer = 3 - mine;

    say(script, "link set lo up\n");
    for (unsigned i = 0; i < lab->links; i++) {
        say(script, "addr add 192.168.%u.%u/24 dev v%s%u\n", i, mine, name, i);
        say(script, "addr add fe80::%x:%u/64 dev v%s%u nodad\n", i + 1, mine, name, i);
        say(script, "link set v%s%u up\n", name, i);
    }
    say(script, "addr add 10.99.0.%u/32 dev lo\naddr add fd99::%u/128 dev lo nodad\n", mine, mine);
    say(script, "route add 10.99.0.%u/32 src 10.99.0.%u", peer, mine);
    for (unsigned i = 0; i < lab->links; i++)
        say(script, " nexthop via 192.168.%u.%u dev v%s%u", i, peer, name, i);
    say(script, "\nroute add fd99::%u/128 src fd99::%u", peer, mine);
    for (unsigned i = 0; i < lab->links; i++)
        say(script, " nexthop via fe80::%x:%u dev v%s%u", i + 1, peer, name, i);
    say(script, "\n");
}

bool lab_build(const struct lab *lab)
{
    struct script script = {.used = 0};

    say_wire(&script, lab);
    if (!run_script(lab, LAB_WIRE, &script)) {
        failed("cannot lay the lab's links: the kernel wants veth and bridge; 'ip' said why above");
        return false;
    }
    for (int host = LAB_A; host <= LAB_B; host++) {
        script.used = 0;
        say_host(&script, lab, (enum lab_host)host);
        if (!run_script(lab, (enum lab_host)host, &script)) {
            failed("cannot set up the addresses of host '%s': 'ip' said why above",
                   LAB_HOST_NAMES[host]);
            return false;
        }
    }
    return true;
}

static bool interface_flags(int request, const char *name, struct ifreq *ifr)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok;

    snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%s", name);
    ok = fd >= 0 && !ioctl(fd, (unsigned long)request, ifr);
    if (fd >= 0) close(fd);
    return ok;
}

static bool set_up(const char *name, bool up)
{
    struct ifreq ifr;

    if (!interface_flags(SIOCGIFFLAGS, name, &ifr)) return false;
    ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
    return interface_flags(SIOCSIFFLAGS, name, &ifr);
}

/* RTM_NEWLINK without an interface but with IFLA_GROUP speaks of all interfaces of the group. */
static bool set_group_up(uint32_t group, bool up)
{
    char bytes[MNL_SOCKET_BUFFER_SIZE];
    struct nlmsghdr *request = mnl_nlmsg_put_header(bytes);
    struct mnl_socket *netlink = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    struct ifinfomsg *link;
    ssize_t len = -1;

    if (!netlink) return false;
    request->nlmsg_type = RTM_NEWLINK;
    request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    link = mnl_nlmsg_put_extra_header(request, sizeof *link);
    link->ifi_change = IFF_UP;
    link->ifi_flags = up ? IFF_UP : 0;
    mnl_attr_put_u32(request, IFLA_GROUP, group);
    if (!mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) &&
        mnl_socket_sendto(netlink, request, request->nlmsg_len) >= 0)
        len = mnl_socket_recvfrom(netlink, bytes, sizeof bytes);
    if (len >= 0)
        len = mnl_cb_run(bytes, (size_t)len, 0, mnl_socket_get_portid(netlink), NULL, NULL);
    mnl_socket_close(netlink);
    return len >= 0;
}

bool lab_plug(const struct lab *lab, enum lab_host host, uint32_t link, bool both, bool up,
              uint64_t *at_ns)
{
    struct timespec now;
    char name[IFNAMSIZ];

    if (!lab_enter(lab, LAB_WIRE)) {
        failed("cannot enter the lab '%s': %s", lab->name, strerror(errno));
        return false;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    *at_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    snprintf(name, sizeof name, "p%s%u", LAB_HOST_NAMES[host], link);
    if (both ? set_group_up(CABLE_GROUP + link, up) : set_up(name, up)) return true;
    failed("cannot set %s %s in the lab's wire: %s", name, up ? "up" : "down", strerror(errno));
    return false;
}

bool lab_carrier(enum lab_host host, uint32_t link)
{
    char name[IFNAMSIZ];
    struct ifreq ifr;

    snprintf(name, sizeof name, "v%s%u", LAB_HOST_NAMES[host], link);
    return interface_flags(SIOCGIFFLAGS, name, &ifr) && ifr.ifr_flags & IFF_RUNNING;
}
