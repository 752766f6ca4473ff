/* One member of a bond: from its link's ups and downs to "may be used". updelay and downdelay as
 * Linux bonding has them; besides, a link that flaps is trusted later each time. Sans-IO. */
#ifndef RBOND_BOND_MEMBER_H
#define RBOND_BOND_MEMBER_H

#include "base/when.h"

/* A link that falls again within this time of its rise has flapped. */
#define MEMBER_STABLE_NS (1 * SEC_NS)
/* Flaps that cost nothing; from then on the hold before use doubles, up to the ceiling. */
#define MEMBER_FREE_FLAPS 2
#define MEMBER_HOLD_NS (100 * MS_NS)
#define MEMBER_HOLD_MAX_NS (10 * SEC_NS)

enum member_state {
    MEMBER_DOWN,   /* no link */
    MEMBER_RISING, /* link, not yet trusted: until the deadline */
    MEMBER_UP,
    MEMBER_FALLING, /* no link, still used: until the deadline */
};

struct member {
    enum member_state state;
    when_t deadline; /* NEVER but in RISING and FALLING */
    when_t rose;     /* when the link came last */
    uint32_t flaps;
    uint64_t downs; /* times it left use */
};

void member_init(struct member *m);
void member_link(struct member *m, bool link, uint64_t updelay_ns, uint64_t downdelay_ns,
                 when_t now);
void member_expire(struct member *m, when_t now);
/* Nothing better is there: use a rising member now. */
void member_promote(struct member *m);

static inline bool member_usable(const struct member *m)
{
    return m->state == MEMBER_UP || m->state == MEMBER_FALLING;
}

#endif
