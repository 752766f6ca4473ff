/* ibv_resolve_eth_l2_from_gid: to which MAC address packets for an address vector would go. The
 * data path does not ask: the kernel finds it for every packet. Here the program asks the same
 * kernel, by its route and its neighbour table, and waits while it looks. Errors are negative, as
 * the real library's are. */
#include "verbs/context.h"
#include "verbs/function.h"
#include "verbs/real.h"
#include "watch/route.h"
#include <linux/if_vlan.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS (1 * SEC_NS)
#define LOOK_NS (10 * MS_NS)
#define NO_VLAN 0xffff

/* RFC 1112, RFC 2464. */
static void mac_of_group(const struct gid *group, uint8_t mac[ETHERNET_LL_SIZE])
{
    if (gid_is_ipv4(group)) {
        const uint8_t *ip = group->raw + 12;
        memcpy(mac, (uint8_t[]){0x01, 0x00, 0x5e, ip[1] & 0x7f, ip[2], ip[3]}, ETHERNET_LL_SIZE);
    } else {
        memcpy(mac, (uint8_t[]){0x33, 0x33}, 2);
        memcpy(mac + 2, group->raw + 12, 4);
    }
}

static int mac_of_device(uint32_t ifindex, uint8_t mac[ETHERNET_LL_SIZE])
{
    struct ifreq ifr = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    bool found = if_indextoname(ifindex, ifr.ifr_name) && ioctl(fd, SIOCGIFHWADDR, &ifr) == 0;
    close(fd);
    if (!found) return -ENODEV;
    memcpy(mac, ifr.ifr_hwaddr.sa_data, ETHERNET_LL_SIZE);
    return 0;
}

static uint16_t vlan_of_device(uint32_t ifindex)
{
    struct vlan_ioctl_args args = {.cmd = GET_VLAN_VID_CMD};
    char name[IF_NAMESIZE];
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return NO_VLAN;
    bool is = false;
    if (if_indextoname(ifindex, name)) {
        strncpy(args.device1, name, sizeof args.device1 - 1);
        is = ioctl(fd, SIOCGIFVLAN, &args) == 0;
    }
    close(fd);
    return is ? (uint16_t)args.u.VID : NO_VLAN;
}

/* Until the kernel knows, for it may have to ask the neighbour first. */
static int await_neighbour(struct route *route, uint32_t ifindex, const struct gid *addr,
                           uint8_t mac[ETHERNET_LL_SIZE])
{
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    when_t until = when_add(function_now(), WAIT_NS);
    bool asked = false;

    for (;;) {
        int known = route_neighbour(route, ifindex, addr, mac);
        if (known != 0) return known < 0 ? known : 0;
        if (!asked) route_seek_neighbour(ifindex, addr);
        asked = true;
        if (when_due(until, function_now())) return -EHOSTUNREACH;
        nanosleep(&pause, NULL);
    }
}

static int resolve(struct route *route, const struct hca_ah *ah, uint32_t netdev,
                   uint8_t mac[ETHERNET_LL_SIZE], uint16_t *vid)
{
    struct route_query query = {.dst = ah->dgid, .src = &ah->sgid};
    struct route_answer answer;

    if (!gid_is_ipv4(&ah->dgid) && ah->dgid.raw[0] == 0xfe) query.oif = netdev; /* link-local */
    int rc = route_lookup(route, &query, &answer);
    if (rc) return rc;
    uint32_t oif = answer.local ? netdev : answer.oif;
    if (vid) *vid = vlan_of_device(oif);
    if (answer.local) return mac_of_device(oif, mac);
    return await_neighbour(route, oif, gid_is_zero(&answer.gateway) ? &ah->dgid : &answer.gateway,
                           mac);
}

/* 0 or a negative errno, as libibverbs' own. */
static int resolve_attr(struct function *f, const struct ibv_ah_attr *attr,
                        uint8_t mac[ETHERNET_LL_SIZE], uint16_t *vid)
{
    struct device_state state;
    struct route *route;
    struct hca_ah ah;

    int rc = -ah_resolve(f, attr, &ah);
    if (rc) return rc;
    function_state(f, &state);
    uint32_t netdev = state.gid_ifindex[ah.sgid_index];
    if (gid_is_multicast(&ah.dgid)) {
        mac_of_group(&ah.dgid, mac);
        if (vid) *vid = vlan_of_device(netdev);
        return 0;
    }
    rc = route_open(&route);
    if (rc) return rc;
    rc = resolve(route, &ah, netdev, mac, vid);
    route_close(route);
    return rc;
}

EXPORT int ibv_resolve_eth_l2_from_gid(struct ibv_context *context, struct ibv_ah_attr *attr,
                                       uint8_t mac[ETHERNET_LL_SIZE], uint16_t *vid)
{
    if (!context_is_ours(context))
        return REAL(ibv_resolve_eth_l2_from_gid, "IBVERBS_1.1")(context, attr, mac, vid);
    return -verb_result(-resolve_attr(rb_context(context)->f, attr, mac, vid));
}
