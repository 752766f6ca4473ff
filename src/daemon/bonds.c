#include "daemon/bonds.h"
#include "ctl/codec.h"
#include <ctype.h>
#include <errno.h>
#include <net/if_arp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_DELAY_MS 3600000u

__attribute__((format(printf, 3, 4))) static int refuse(struct ctl_error *error, int rc,
                                                        const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return rc;
}

static int check_name(const char *name, struct ctl_error *error)
{
    size_t len = strlen(name);
    bool ok = len > 0 && len < IFNAMSIZ;

    for (size_t i = 0; i < len; i++)
        ok = ok && (isalnum((unsigned char)name[i]) || strchr("._-", name[i]));
    if (ok) return 0;
    return refuse(error, -EINVAL,
                  "bad name \"%s\" for a bond: 1 to 15 letters, digits, '.', '_' or '-'", name);
}

static int check_mode(uint32_t mode, struct ctl_error *error)
{
    static const char *const names[] = {"balance-rr", "active-backup", "balance-xor", "broadcast",
                                        "802.3ad",    "balance-tlb",   "balance-alb"};

    if (mode == CTL_MODE_ACTIVE_BACKUP || mode == CTL_MODE_BALANCE_XOR) return 0;
    if (mode < sizeof names / sizeof names[0])
        return refuse(error, -EOPNOTSUPP,
                      "mode %s is not supported: a managed bond is active-backup or balance-xor",
                      names[mode]);
    return refuse(error, -EINVAL, "unknown bond mode %u: active-backup (1) or balance-xor (2)",
                  mode);
}

static uint8_t index_of(const struct ctl_bond_conf *conf, const char *member)
{
    for (uint8_t m = 0; m < conf->nmembers; m++)
        if (strcmp(conf->member[m], member) == 0) return m;
    return STEER_NO_MEMBER;
}

/* What does not depend on which net devices there are. */
static int check_attributes(const struct ctl_bond_conf *conf, struct ctl_error *error)
{
    int rc = check_mode(conf->mode, error);

    if (rc < 0) return rc;
    if (conf->min_links > conf->nmembers)
        return refuse(error, -EINVAL, "min_links %u is more than the %u members of %s",
                      conf->min_links, conf->nmembers, conf->name);
    if (conf->updelay_ms > MAX_DELAY_MS || conf->downdelay_ms > MAX_DELAY_MS)
        return refuse(error, -EINVAL, "updelay and downdelay are at most %u ms", MAX_DELAY_MS);
    if (conf->primary[0] && index_of(conf, conf->primary) == STEER_NO_MEMBER)
        return refuse(error, -EINVAL, "primary %s is no member of %s", conf->primary, conf->name);
    return 0;
}

static int check_port(const struct registry *reg, const char *name, struct ctl_error *error)
{
    const struct netdev *nd = netdevs_by_name(&reg->netdevs, name);

    if (!nd) return refuse(error, -ENODEV, "no such interface: %s", name);
    if (nd->link.type != ARPHRD_ETHER)
        return refuse(error, -EINVAL, "%s is not an Ethernet port", name);
    const struct netdev *master = netdevs_by_index(&reg->netdevs, nd->link.master);
    if (nd->link.master)
        return refuse(error, -EBUSY, "%s belongs to %s already", name,
                      master ? master->link.name : "another net device");
    return 0;
}

static int check_members(const struct registry *reg, const struct ctl_bond_conf *conf,
                         bool from_conf, struct ctl_error *error)
{
    if (conf->nmembers == 0)
        return refuse(error, -EINVAL, "bond %s needs at least one member", conf->name);
    for (uint8_t m = 0; m < conf->nmembers; m++) {
        const char *name = conf->member[m];
        if (!name[0] || strlen(name) >= IFNAMSIZ)
            return refuse(error, -EINVAL, "bad member name \"%s\"", name);
        if (index_of(conf, name) != m) return refuse(error, -EINVAL, "%s is given twice", name);
        const struct device *bond = registry_bond_of(reg, name);
        if (bond) return refuse(error, -EBUSY, "%s is already in bond %s", name, bond->conf.name);
        int rc = from_conf ? 0 : check_port(reg, name, error);
        if (rc < 0) return rc;
    }
    return 0;
}

static int check_netdev(const struct registry *reg, const struct ctl_bond_conf *conf,
                        bool from_conf, struct ctl_error *error)
{
    const struct device *bond = registry_bond_of(reg, conf->netdev);

    if (bond)
        return refuse(error, -EBUSY,
                      "the addresses of %s belong to bond %s already: name another net device",
                      conf->netdev, bond->conf.name);
    if (!from_conf && !netdevs_by_name(&reg->netdevs, conf->netdev))
        return refuse(error, -ENODEV, "no such interface: %s", conf->netdev);
    return 0;
}

int bonds_add(struct registry *reg, const struct ctl_bond_conf *conf, bool from_conf,
              struct ctl_error *error)
{
    struct ctl_bond_conf c = *conf;
    char device[CTL_NAME_LEN + 4];

    c.mask = 0;
    for (unsigned m = c.nmembers; m < CTL_MAX_MEMBERS; m++) memset(c.member[m], 0, CTL_NAME_LEN);
    if (!c.netdev[0]) ctl_string_set(c.netdev, sizeof c.netdev, "lo");
    int rc = check_name(c.name, error);
    if (rc < 0) return rc;
    snprintf(device, sizeof device, "rb_%s", c.name);
    if (registry_by_name(reg, device)) return refuse(error, -EEXIST, "%s exists already", device);
    rc = check_members(reg, &c, from_conf, error);
    if (rc == 0) rc = check_attributes(&c, error);
    if (rc == 0) rc = check_netdev(reg, &c, from_conf, error);
    if (rc == 0 && registry_put_bond(reg, &c) < 0)
        rc = refuse(error, -ENOMEM, "too many devices, or no memory for another");
    return rc;
}

static struct device *find(const struct registry *reg, const char *name, struct ctl_error *error)
{
    for (size_t i = 0; i < reg->ndevices; i++) {
        struct device *d = registry_at(reg, i);
        if (d && d->is_bond && (strcmp(d->conf.name, name) == 0 || strcmp(d->name, name) == 0))
            return d;
    }
    refuse(error, -ENOENT, "no such bond: %s", name);
    return NULL;
}

int bonds_del(struct registry *reg, const char *name, struct ctl_error *error)
{
    struct device *d = find(reg, name, error);

    if (!d) return -ENOENT;
    registry_drop_bond(reg, d);
    return 0;
}

int bonds_set(struct registry *reg, const struct ctl_bond_conf *conf, struct ctl_error *error)
{
    struct device *d = find(reg, conf->name, error);

    if (!d) return -ENOENT;
    struct ctl_bond_conf c = d->conf;
    if (conf->mask & CTL_BOND_MODE) c.mode = conf->mode;
    if (conf->mask & CTL_BOND_MIN_LINKS) c.min_links = conf->min_links;
    if (conf->mask & CTL_BOND_UPDELAY) c.updelay_ms = conf->updelay_ms;
    if (conf->mask & CTL_BOND_DOWNDELAY) c.downdelay_ms = conf->downdelay_ms;
    if (conf->mask & CTL_BOND_PRIMARY) memcpy(c.primary, conf->primary, sizeof c.primary);
    int rc = check_attributes(&c, error);
    if (rc < 0) return rc;
    return registry_change_bond(reg, d, &c);
}
