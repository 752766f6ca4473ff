/* What the files of /sys/class/infiniband/DEV say, in the kernel's own formats. Left out is what
 * the kernel has no value for either: the attributes of an empty GID slot, counters that nobody
 * counts here. */
#include "ctl/alias.h"
#include "daemon/tree.h"
#include "wire/lid.h"
#include "wire/port_speed.h"
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CAP_MASK 0x04010000 /* CM_SUP, IP_BASED_GIDS: as verbs/query.c has it */
#define NO_NUMA_NODE 0xff

static bool same(const char *field, const char *text)
{
    return !strncmp(field, text, CTL_NAME_LEN);
}

/* A reader may hold the file open: it changes in place, and only when what it says changes. */
static void put(int dir, const char *path, const char *format, ...)
{
    char text[128], old[128];
    int fd = openat(dir, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644), len;
    ssize_t had;
    va_list args;

    if (fd < 0) return;
    va_start(args, format);
    len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    had = pread(fd, old, sizeof old, 0);
    if (had != len || memcmp(old, text, (size_t)len)) {
        if (pwrite(fd, text, (size_t)len, 0) == len && had > len && ftruncate(fd, len)) had = len;
    }
    close(fd);
}

static int into(int dir, const char *name)
{
    mkdirat(dir, name, 0755);
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- the device -------------------------------------------------------------------------- */

static bool read_line(const char *path, char *text, int size)
{
    FILE *file = fopen(path, "re");
    bool ok = file && fgets(text, size, file);

    if (file) fclose(file);
    if (ok) text[strcspn(text, "\n")] = 0;
    return ok;
}

/* /sys may show another network namespace, whose net device of this name is not ours. */
static bool sysfs_is_ours(const char *netdev)
{
    char path[96], theirs[64] = "", ours[64];
    struct ifreq ifr = {0};
    const unsigned char *mac = (const unsigned char *)ifr.ifr_hwaddr.sa_data;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok;

    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", netdev);
    ok = fd >= 0 && !ioctl(fd, SIOCGIFHWADDR, &ifr);
    if (fd >= 0) close(fd);
    snprintf(path, sizeof path, "/sys/class/net/%s/address", netdev);
    snprintf(ours, sizeof ours, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
    return ok && read_line(path, theirs, sizeof theirs) && !strcmp(ours, theirs);
}

/* The adapter that carries the device: programs find what lies near to it by its place. */
static bool link_adapter(int dir, const char *netdev)
{
    char path[96], real[PATH_MAX];

    snprintf(path, sizeof path, "/sys/class/net/%s/device", netdev);
    if (!*netdev || !sysfs_is_ours(netdev) || !realpath(path, real)) return false;
    if (strncmp(real, "/sys/", 5)) return false;
    return !symlinkat(real, dir, "device");
}

static void copy_node_file(int dir, const char *to, unsigned node, const char *name)
{
    char path[96], text[120];

    snprintf(path, sizeof path, "/sys/devices/system/node/node%u/%s", node, name);
    if (read_line(path, text, sizeof text)) put(dir, to, "%s\n", text);
}

/* As under an adapter: programs find a device's net device here. */
static void link_netdev(int dir, const char *netdev)
{
    char target[96], path[96];

    if (!*netdev || strchr(netdev, '/')) return;
    mkdirat(dir, "device/net", 0755);
    snprintf(target, sizeof target, "/sys/class/net/%s", netdev);
    snprintf(path, sizeof path, "device/net/%s", netdev);
    if (symlinkat(target, dir, path)) return; /* there already: the same */
}

/* A net device without hardware has a place at most: rbondd's configuration may know it. */
static void describe_adapter(int dir, const struct ctl_dev *dev)
{
    struct stat st;

    if (!fstatat(dir, "device", &st, AT_SYMLINK_NOFOLLOW)) return;
    if (link_adapter(dir, dev->netdev)) return;
    for (unsigned i = 0; i < dev->nmembers && i < CTL_MAX_MEMBERS; i++)
        if (link_adapter(dir, dev->member[i])) return;
    mkdirat(dir, "device", 0755);
    link_netdev(dir, dev->netdev);
    put(dir, "device/numa_node", "%d\n", dev->numa_node == NO_NUMA_NODE ? -1 : dev->numa_node);
    if (dev->numa_node == NO_NUMA_NODE) return;
    copy_node_file(dir, "device/local_cpus", dev->numa_node, "cpumap");
    copy_node_file(dir, "device/local_cpulist", dev->numa_node, "cpulist");
}

static void describe_device(int dir, const struct ctl_dev *dev)
{
    unsigned guid[4];

    for (int i = 0; i < 4; i++) guid[i] = dev->guid >> (48 - 16 * i) & 0xffff;
    put(dir, "node_type", "1: CA\n");
    put(dir, "node_guid", "%04x:%04x:%04x:%04x\n", guid[0], guid[1], guid[2], guid[3]);
    put(dir, "sys_image_guid", "%04x:%04x:%04x:%04x\n", guid[0], guid[1], guid[2], guid[3]);
    put(dir, "node_desc", "rbond %s\n", dev->name);
    put(dir, "fw_ver", RBOND_VERSION "\n");
    put(dir, "hw_rev", "0\n");
    put(dir, "hca_type", "rbond\n");
    put(dir, "board_id", "rbond\n");
    put(dir, "uevent", "NAME=%s\n", dev->name);
    put(dir, "parent", "%s\n", dev->netdev); /* as devices in software have it */
    describe_adapter(dir, dev);
}

/* ---- the port ---------------------------------------------------------------------------- */

static void describe_rate(int port, uint32_t mbps)
{
    static const struct {
        uint8_t speed;
        unsigned lane; /* tenths of Gb/s */
        const char *name;
    } SPEEDS[] = {{1, 25, "SDR"},   {2, 50, "DDR"},   {4, 100, "QDR"},  {8, 100, "FDR10"},
                  {16, 140, "FDR"}, {32, 250, "EDR"}, {64, 500, "HDR"}, {128, 1000, "NDR"}};
    struct port_speed as = port_speed_of(mbps);
    unsigned lanes = as.width == 1 ? 1 : 4, i = 0;

    while (SPEEDS[i].speed != as.speed) i++;
    put(port, "rate", "%u%s Gb/sec (%uX %s)\n", lanes * SPEEDS[i].lane / 10,
        lanes * SPEEDS[i].lane % 10 ? ".5" : "", lanes, SPEEDS[i].name);
}

static const struct ctl_gid *gid_at(const struct records *gids, const char *device, unsigned slot)
{
    const struct ctl_gid *gid = gids->bytes;

    for (size_t i = 0; i < gids->count; i++)
        if (same(gid[i].device, device) && gid[i].index == slot) return gid + i;
    return NULL;
}

static uint16_t lid_at(const struct records *gids, const char *device)
{
    struct gid table[CTL_MAX_GIDS] = {0};
    size_t index;

    for (unsigned slot = 0; slot < CTL_MAX_GIDS; slot++) {
        const struct ctl_gid *gid = gid_at(gids, device, slot);
        if (gid) memcpy(table[slot].raw, gid->gid, sizeof table[slot].raw);
    }
    return lid_of(table, CTL_MAX_GIDS, &index);
}

static void describe_port(int port, const struct ctl_dev *dev, uint16_t lid)
{
    bool active = dev->port_state == CTL_PORT_ACTIVE;

    put(port, "state", active ? "4: ACTIVE\n" : "1: DOWN\n");
    put(port, "phys_state", active ? "5: LinkUp\n" : "3: Disabled\n");
    put(port, "link_layer", "Ethernet\n");
    describe_rate(port, dev->speed_mbps);
    put(port, "cap_mask", "0x%08x\n", CAP_MASK);
    put(port, "lid", "0x%x\n", lid);
    put(port, "lid_mask_count", "0\n");
    put(port, "sm_lid", "0x0\n");
    put(port, "sm_sl", "0\n");
    mkdirat(port, "pkeys", 0755);
    put(port, "pkeys/0", "0xffff\n");
}

static void put_gid(int port, unsigned slot, const struct ctl_gid *gid)
{
    static const struct ctl_gid EMPTY;
    const uint8_t *raw = (gid ? gid : &EMPTY)->gid;
    char name[32], text[48];

    for (int i = 0; i < 8; i++) snprintf(text + 5 * i, 6, "%02x%02x:", raw[2 * i], raw[2 * i + 1]);
    text[39] = 0;
    snprintf(name, sizeof name, "gids/%u", slot);
    put(port, name, "%s\n", text);
    snprintf(name, sizeof name, "gid_attrs/types/%u", slot);
    if (gid)
        put(port, name, "RoCE v2\n");
    else
        unlinkat(port, name, 0);
    snprintf(name, sizeof name, "gid_attrs/ndevs/%u", slot);
    if (gid)
        put(port, name, "%.*s\n", CTL_NAME_LEN - 1, gid->netdev);
    else
        unlinkat(port, name, 0);
}

static void describe_gids(int port, const char *device, const struct records *gids)
{
    mkdirat(port, "gids", 0755);
    mkdirat(port, "gid_attrs", 0755);
    mkdirat(port, "gid_attrs/types", 0755);
    mkdirat(port, "gid_attrs/ndevs", 0755);
    for (unsigned slot = 0; slot < CTL_MAX_GIDS; slot++)
        put_gid(port, slot, gid_at(gids, device, slot));
}

/* ---- counters ---------------------------------------------------------------------------- */

/* A device's counters: they follow each other in a list. */
struct slice {
    const struct ctl_stat *stat;
    size_t count;
};

static struct slice slice_of(const struct records *stats, const char *device)
{
    const struct ctl_stat *stat = stats->bytes;
    struct slice slice = {0};

    for (size_t i = 0; i < stats->count; i++) {
        if (!same(stat[i].device, device)) continue;
        if (!slice.count++) slice.stat = stat + i;
    }
    return slice;
}

/* The sum over members, for what members alone count; elsewhere the device's own. */
static uint64_t counted(const struct slice *slice, const char *name)
{
    bool of_members = !strcmp(name, "link_downs");
    uint64_t sum = 0;

    for (size_t i = 0; i < slice->count; i++)
        if (!!slice->stat[i].member[0] == of_members && same(slice->stat[i].name, name))
            sum += slice->stat[i].value;
    return sum;
}

struct alias {
    const char *file;
    const char *counter; /* "": an adapter of this kind has no such event */
    unsigned unit;
};

static void put_aliases(int port, const char *dir, const struct alias *alias, size_t n,
                        const struct slice *slice)
{
    char name[64];

    for (; n; n--, alias++) {
        snprintf(name, sizeof name, "%s/%s", dir, alias->file);
        put(port, name, "%" PRIu64 "\n",
            *alias->counter ? counted(slice, alias->counter) / alias->unit : 0);
    }
}

/* IBTA PortCounters, as the kernel names them: data in units of four bytes. */
static void describe_counters(int port, const struct slice *slice)
{
    static const struct alias COUNTERS[] = {
        {"port_xmit_data", "tx_bytes", 4},
        {"port_rcv_data", "rx_bytes", 4},
        {"port_xmit_packets", "tx_packets", 1},
        {"port_rcv_packets", "rx_packets", 1},
        {"multicast_xmit_packets", "tx_multicast", 1},
        {"multicast_rcv_packets", "rx_multicast", 1},
        {"port_rcv_errors", "rx_bad_header", 1},
        {"port_xmit_discards", "tx_dropped", 1},
        {"link_downed", "link_downs", 1},
        {"port_xmit_wait", "", 1},
        {"port_rcv_constraint_errors", "", 1},
        {"port_xmit_constraint_errors", "", 1},
        {"port_rcv_remote_physical_errors", "", 1},
        {"port_rcv_switch_relay_errors", "", 1},
        {"symbol_error", "", 1},
        {"link_error_recovery", "", 1},
        {"local_link_integrity_errors", "", 1},
        {"excessive_buffer_overrun_errors", "", 1},
        {"VL15_dropped", "", 1},
    };

    mkdirat(port, "counters", 0755);
    put_aliases(port, "counters", COUNTERS, sizeof COUNTERS / sizeof *COUNTERS, slice);
}

/* Ours, many of which have the name that RoCE adapters give them, and those names of adapters that
 * mean one of ours under another. */
static void describe_hw_counters(int port, const struct slice *slice)
{
    static const struct alias ALIASES[] = {
#define X(alias, counter) {#alias, #counter, 1},
        CTL_HW_ALIASES(X)
#undef X
    };
    char name[64];

    mkdirat(port, "hw_counters", 0755);
    put(port, "hw_counters/lifespan", "%d\n", TREE_PERIOD_MS);
    put_aliases(port, "hw_counters", ALIASES, sizeof ALIASES / sizeof *ALIASES, slice);
    for (size_t i = 0; i < slice->count; i++) {
        const struct ctl_stat *stat = slice->stat + i;
        if (stat->member[0] || strchr(stat->name, '/')) continue;
        snprintf(name, sizeof name, "hw_counters/%.*s", CTL_NAME_LEN - 1, stat->name);
        put(port, name, "%" PRIu64 "\n", stat->value);
    }
}

void tree_counters_write(int sysfs, const char *device, const struct records *stats,
                         const struct records *before)
{
    struct slice now = slice_of(stats, device), was = slice_of(before, device);
    char path[CTL_NAME_LEN + 16];
    int port;

    if (!now.count) return;
    if (now.count == was.count && !memcmp(now.stat, was.stat, now.count * sizeof *now.stat)) return;
    snprintf(path, sizeof path, "%.*s/ports/1", CTL_NAME_LEN - 1, device);
    port = openat(sysfs, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (port < 0) return;
    describe_counters(port, &now);
    describe_hw_counters(port, &now);
    close(port);
}

/* ---- all of it --------------------------------------------------------------------------- */

void tree_device_write(int sysfs, const struct ctl_dev *dev, const struct tree_facts *facts)
{
    struct slice slice = slice_of(&facts->stats, dev->name);
    int dir = into(sysfs, dev->name), port;

    if (dir < 0) return; /* a real device has this name */
    describe_device(dir, dev);
    mkdirat(dir, "ports", 0755);
    port = into(dir, "ports/1");
    if (port >= 0) {
        describe_port(port, dev, lid_at(&facts->gids, dev->name));
        describe_gids(port, dev->name, &facts->gids);
        describe_counters(port, &slice);
        describe_hw_counters(port, &slice);
        close(port);
    }
    close(dir);
}

void tree_uverbs_write(int verbs, const struct ctl_dev *dev)
{
    char target[CTL_NAME_LEN + 32];
    int dir = into(verbs, dev->name);

    if (dir < 0) return;
    put(dir, "ibdev", "%s\n", dev->name);
    put(dir, "abi_version", "1\n");
    put(dir, "dev", "1:3\n"); /* DEV/infiniband/NAME is /dev/null */
    snprintf(target, sizeof target, "../../infiniband/%s/device", dev->name);
    if (symlinkat(target, dir, "device")) { /* there already: the same */
    }
    close(dir);
}
