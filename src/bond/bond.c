#include "bond/bond.h"
#include "base/must.h"
#include <errno.h>
#include <string.h>

static uint32_t links_needed(const struct bond *bond)
{
    return bond->conf.min_links ? bond->conf.min_links : 1;
}

static uint8_t usable_set(const struct bond *bond)
{
    uint8_t set = 0;

    for (uint8_t m = 0; m < bond->conf.nmembers; m++)
        if (member_usable(&bond->member[m])) set |= (uint8_t)(1u << m);
    return set;
}

/* A bond that would be down does not wait for updelay or damping (Linux bonding: updelay is ignored
 * while there is no active member). */
static void promote_if_needed(struct bond *bond)
{
    uint32_t have = (uint32_t)__builtin_popcount(usable_set(bond));

    for (uint8_t m = 0; m < bond->conf.nmembers && have < links_needed(bond); m++) {
        if (bond->member[m].state != MEMBER_RISING) continue;
        member_promote(&bond->member[m]);
        have++;
    }
}

/* For balance-xor: where one of the lost member's buckets went. */
static uint8_t heir(const struct steering *before, const struct steering *after, uint8_t lost)
{
    for (unsigned b = 0; b < STEER_BUCKETS; b++)
        if (before->active[b] == lost && after->active[b] != lost) return after->active[b];
    return STEER_NO_MEMBER;
}

static void note_failover(struct bond *bond, const struct steering *before,
                          struct bond_change *change)
{
    change->old = change->active = STEER_NO_MEMBER;
    if (bond->conf.mode == BOND_ACTIVE_BACKUP) {
        change->old = before->active[0];
        change->active = bond->table.active[0];
    } else if (change->left) {
        change->old = (uint8_t)__builtin_ctz(change->left);
        change->active = heir(before, &bond->table, change->old);
    }
    change->failover = change->old != change->active && change->old != STEER_NO_MEMBER &&
                       change->active != STEER_NO_MEMBER;
    if (change->failover) bond->failovers++;
}

/* Recomputes everything from the members' states. */
static struct bond_change decide(struct bond *bond, when_t now)
{
    struct bond_change change = {0};
    struct steering before = bond->table, *table = &bond->table;

    promote_if_needed(bond);
    uint8_t usable = usable_set(bond);
    bool active = (uint32_t)__builtin_popcount(usable) >= links_needed(bond);
    /* Below min_links the port is down, and a port that is down sends nothing. */
    uint8_t eligible = active ? usable : 0;

    if (bond->conf.mode == BOND_ACTIVE_BACKUP) {
        uint8_t chosen = select_active_backup(table, eligible, bond->conf.primary, bond->current);
        if (chosen != STEER_NO_MEMBER) bond->current = chosen;
    } else {
        select_balance_xor(table, eligible);
    }

    table->usable = eligible;

    change.came = usable & (uint8_t)~bond->usable;
    change.left = bond->usable & (uint8_t)~usable;
    change.port = active != bond->port_active;
    change.table =
        table->generation == 0 || memcmp(before.active, table->active, sizeof table->active) != 0 ||
        memcmp(before.home, table->home, sizeof table->home) != 0 || before.usable != table->usable;
    bond->usable = usable;
    bond->port_active = active;
    note_failover(bond, &before, &change);
    if (change.table) {
        table->generation++;
        table->changed = now;
    }
    return change;
}

static int check_conf(const struct bond_conf *conf)
{
    if (conf->nmembers == 0 || conf->nmembers > STEER_MAX_MEMBERS) return -EINVAL;
    if (conf->mode != BOND_ACTIVE_BACKUP && conf->mode != BOND_BALANCE_XOR) return -EINVAL;
    if (conf->primary != STEER_NO_MEMBER && conf->primary >= conf->nmembers) return -EINVAL;
    return 0;
}

int bond_init(struct bond *bond, const struct bond_conf *conf, when_t now)
{
    int rc = check_conf(conf);

    if (rc < 0) return rc;
    memset(bond, 0, sizeof *bond);
    bond->conf = *conf;
    bond->current = STEER_NO_MEMBER;
    for (uint8_t m = 0; m < STEER_MAX_MEMBERS; m++) member_init(&bond->member[m]);
    select_home(&bond->table, conf->mode, conf->nmembers, conf->primary);
    memset(bond->table.active, STEER_NO_MEMBER, sizeof bond->table.active);
    decide(bond, now);
    return 0;
}

int bond_configure(struct bond *bond, const struct bond_conf *conf, when_t now,
                   struct bond_change *change)
{
    int rc = check_conf(conf);

    if (rc < 0) return rc;
    if (conf->nmembers != bond->conf.nmembers) return -EINVAL;
    struct steering before = bond->table;
    bond->conf = *conf;
    select_home(&bond->table, conf->mode, conf->nmembers, conf->primary);
    *change = decide(bond, now);
    /* decide() saw the new homes already: compare with what stood before them. */
    if (!change->table && memcmp(before.home, bond->table.home, sizeof before.home) != 0) {
        change->table = true;
        bond->table.generation++;
        bond->table.changed = now;
    }
    return 0;
}

struct bond_change bond_link(struct bond *bond, uint8_t member, bool carrier, bool up, when_t now)
{
    must(member < bond->conf.nmembers);
    member_link(&bond->member[member], carrier && up, bond->conf.updelay_ns,
                bond->conf.downdelay_ns, now);
    return decide(bond, now);
}

when_t bond_deadline(const struct bond *bond)
{
    when_t first = NEVER;

    for (uint8_t m = 0; m < bond->conf.nmembers; m++)
        first = when_min(first, bond->member[m].deadline);
    return first;
}

struct bond_change bond_expire(struct bond *bond, when_t now)
{
    for (uint8_t m = 0; m < bond->conf.nmembers; m++) member_expire(&bond->member[m], now);
    return decide(bond, now);
}

bool bond_member_active(const struct bond *bond, uint8_t member)
{
    return memchr(bond->table.active, member, sizeof bond->table.active) != NULL;
}
