#include "daemon/gids.h"
#include <linux/if_addr.h>
#include <net/if_arp.h>
#include <string.h>

static bool is_link_local(const struct gid *g)
{
    return g->raw[0] == 0xfe && (g->raw[1] & 0xc0) == 0x80;
}

static bool is_host(const struct gid *g)
{
    static const struct gid localhost6 = {{[15] = 1}};

    return gid_equal(g, &localhost6) || (gid_is_ipv4(g) && g->raw[12] == 127);
}

static bool eligible(const struct watch_addr *a, bool ethernet)
{
    if (a->flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) return false;
    if (is_host(&a->addr) || gid_is_zero(&a->addr)) return false;
    return ethernet || !is_link_local(&a->addr);
}

static bool has(const struct gid_table *t, const struct gid *g)
{
    for (unsigned i = 0; i < CTL_MAX_GIDS; i++)
        if (gid_equal(&t->slot[i], g)) return true;
    return false;
}

static bool remove_gone(struct gid_table *t, const struct netdev *nd, bool ethernet)
{
    bool changed = false;

    for (unsigned i = 0; i < CTL_MAX_GIDS; i++) {
        bool stays = gid_is_zero(&t->slot[i]);
        for (size_t k = 0; nd && k < nd->naddrs && !stays; k++)
            stays = gid_equal(&nd->addr[k].addr, &t->slot[i]) && eligible(&nd->addr[k], ethernet);
        if (stays) continue;
        memset(&t->slot[i], 0, sizeof t->slot[i]);
        changed = true;
    }
    return changed;
}

/* The slot it had; else one that nobody had; else an empty one. CTL_MAX_GIDS: the table is full. */
static unsigned choose_slot(const struct gid_table *t, const struct gid *g, bool ethernet)
{
    unsigned fresh = CTL_MAX_GIDS, empty = CTL_MAX_GIDS;

    if (ethernet && is_link_local(g) && gid_is_zero(&t->slot[0])) return 0;
    for (unsigned i = CTL_MAX_GIDS; i-- > (ethernet ? 1 : 0);) {
        if (!gid_is_zero(&t->slot[i])) continue;
        if (gid_equal(&t->former[i], g)) return i;
        if (gid_is_zero(&t->former[i])) fresh = i;
        empty = i;
    }
    return fresh < CTL_MAX_GIDS ? fresh : empty;
}

bool gids_update(struct gid_table *table, const struct netdev *nd)
{
    bool ethernet = !nd || nd->link.type == ARPHRD_ETHER;
    bool changed = remove_gone(table, nd, ethernet);

    for (size_t k = 0; nd && k < nd->naddrs; k++) {
        const struct gid *g = &nd->addr[k].addr;
        if (!eligible(&nd->addr[k], ethernet) || has(table, g)) continue;
        unsigned i = choose_slot(table, g, ethernet);
        if (i == CTL_MAX_GIDS) break;
        table->slot[i] = table->former[i] = *g;
        changed = true;
    }
    return changed;
}

unsigned gids_count(const struct gid_table *table)
{
    unsigned n = 0;

    for (unsigned i = 0; i < CTL_MAX_GIDS; i++) n += !gid_is_zero(&table->slot[i]);
    return n;
}
