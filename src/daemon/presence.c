#include "daemon/presence.h"
#include "daemon/log.h"
#include "wire/arp.h"
#include <errno.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t speaker(const struct bond *bond)
{
    if (!bond->usable) return STEER_NO_MEMBER;
    for (uint8_t m = 0; m < bond->conf.nmembers; m++)
        if ((bond->usable & (1u << m)) && bond_member_active(bond, m)) return m;
    return (uint8_t)__builtin_ctz(bond->usable);
}

static void send_from(int fd, const struct watch_link *link, const struct gid *address)
{
    struct sockaddr_ll everybody = {.sll_family = AF_PACKET,
                                    .sll_protocol = htons(ETH_TYPE_ARP),
                                    .sll_ifindex = (int)link->ifindex,
                                    .sll_halen = 6};
    uint8_t arp[ARP_LEN];

    memset(everybody.sll_addr, 0xff, 6);
    arp_announcement(arp, link->mac, address->raw + 12);
    if (sendto(fd, arp, sizeof arp, 0, (struct sockaddr *)&everybody, sizeof everybody) < 0)
        log_debug("%s: no ARP announcement: %s", link->name, strerror(errno));
}

void presence_announce(const struct device *device, const struct netdevs *nds)
{
    uint8_t member = speaker(&device->engine);
    if (member == STEER_NO_MEMBER) return;
    const struct netdev *nd = netdevs_by_name(nds, device->conf.member[member]);
    if (!nd || !nd->link.has_mac) return;

    /* Protocol 0: it receives nothing. */
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        log_debug("%s: no ARP announcement: %s", device->name, strerror(errno));
        return;
    }
    for (size_t i = 0; i < CTL_MAX_GIDS; i++)
        if (gid_is_ipv4(&device->gids.slot[i])) send_from(fd, &nd->link, &device->gids.slot[i]);
    close(fd);
}
