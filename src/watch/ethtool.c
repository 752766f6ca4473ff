#include "watch/ethtool.h"
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* ETHTOOL_GLINKSETTINGS is asked twice: first for how many words its masks have. */
static bool link_settings(int fd, struct ifreq *ifr, struct ethtool_link_settings *settings)
{
    ifr->ifr_data = (char *)settings;
    settings->cmd = ETHTOOL_GLINKSETTINGS;
    settings->link_mode_masks_nwords = 0;
    if (ioctl(fd, SIOCETHTOOL, ifr) != 0 || settings->link_mode_masks_nwords >= 0) return false;
    settings->link_mode_masks_nwords = (__s8)-settings->link_mode_masks_nwords;
    settings->cmd = ETHTOOL_GLINKSETTINGS;
    return ioctl(fd, SIOCETHTOOL, ifr) == 0;
}

uint32_t ethtool_speed_mbps(const char *name)
{
    union {
        struct ethtool_link_settings settings;
        char room[sizeof(struct ethtool_link_settings) + 3 * 127 * 4];
    } u;
    struct ifreq ifr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return 0;
    memset(&u, 0, sizeof u);
    memset(&ifr, 0, sizeof ifr);
    memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
    bool ok = link_settings(fd, &ifr, &u.settings);
    close(fd);
    return ok && u.settings.speed != (uint32_t)SPEED_UNKNOWN ? u.settings.speed : 0;
}

static bool read_number(const char *name, const char *file, long *value)
{
    char path[128];

    snprintf(path, sizeof path, "/sys/class/net/%.15s/%s", name, file);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fscanf(f, "%ld", value) == 1;
    fclose(f);
    return ok;
}

uint8_t ethtool_numa_node(const char *name, uint32_t ifindex)
{
    long index, node;

    /* sysfs belongs to the namespace it was mounted in: is this our port? */
    if (!read_number(name, "ifindex", &index) || index != (long)ifindex) return NUMA_NONE;
    if (!read_number(name, "device/numa_node", &node) || node < 0 || node >= NUMA_NONE)
        return NUMA_NONE;
    return (uint8_t)node;
}
