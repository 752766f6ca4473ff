/* A bond as an engine: facts about its members' links go in, the steering table and the port's
 * state come out. No clock, no IO; the owner (daemon/bonds.c) calls bond_expire when bond_deadline
 * has come. Members are indices 0 .. nmembers-1, stable for the bond's life. */
#ifndef RBOND_BOND_BOND_H
#define RBOND_BOND_BOND_H

#include "bond/member.h"
#include "bond/select.h"

struct bond_conf {
    enum bond_mode mode;
    uint32_t min_links; /* 0 is taken as 1 */
    uint64_t updelay_ns, downdelay_ns;
    uint8_t nmembers;
    uint8_t primary; /* a member, or STEER_NO_MEMBER; counts in active-backup */
};

struct bond {
    struct bond_conf conf;
    struct member member[STEER_MAX_MEMBERS];
    struct steering table;
    uint8_t usable;  /* set of members */
    uint8_t current; /* active-backup: the active member */
    bool port_active;
    uint64_t failovers; /* times traffic left a member for another */
};

/* What a call changed. */
struct bond_change {
    bool table;          /* bond->table is a new generation */
    bool port;           /* bond->port_active flipped */
    uint8_t came, left;  /* sets of members that became usable, or ceased to be */
    bool failover;       /* traffic moved from `old` to `active` */
    uint8_t old, active; /* STEER_NO_MEMBER: none */
};

/* All members are down at first. -EINVAL: no members, too many, an unknown mode. */
int bond_init(struct bond *bond, const struct bond_conf *conf, when_t now);
/* The new configuration's nmembers must be the old one's. */
int bond_configure(struct bond *bond, const struct bond_conf *conf, when_t now,
                   struct bond_change *change);
/* `carrier`: there is a signal; `up`: the net device exists and is administratively up. */
struct bond_change bond_link(struct bond *bond, uint8_t member, bool carrier, bool up, when_t now);
when_t bond_deadline(const struct bond *bond);
struct bond_change bond_expire(struct bond *bond, when_t now);

/* Does some bucket use the member now? */
bool bond_member_active(const struct bond *bond, uint8_t member);

#endif
