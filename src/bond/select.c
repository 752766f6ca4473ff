#include "bond/select.h"
#include "base/must.h"
#include <string.h>

static bool has(uint8_t set, uint8_t member)
{
    return member < STEER_MAX_MEMBERS && (set >> member & 1);
}

void select_home(struct steering *table, enum bond_mode mode, uint8_t nmembers, uint8_t primary)
{
    must(nmembers > 0 && nmembers <= STEER_MAX_MEMBERS);
    table->nmembers = nmembers;
    for (unsigned b = 0; b < STEER_BUCKETS; b++)
        table->home[b] = mode == BOND_BALANCE_XOR ? (uint8_t)(b % nmembers)
                         : primary < nmembers     ? primary
                                                  : 0;
}

uint8_t select_active_backup(struct steering *table, uint8_t usable, uint8_t primary,
                             uint8_t current)
{
    uint8_t chosen = has(usable, primary)   ? primary
                     : has(usable, current) ? current
                     : usable               ? (uint8_t)__builtin_ctz(usable)
                                            : STEER_NO_MEMBER;

    memset(table->active, chosen, sizeof table->active);
    /* Without a primary no member is preferred: where the bond sits is its home. */
    if (primary == STEER_NO_MEMBER && chosen != STEER_NO_MEMBER)
        memset(table->home, chosen, sizeof table->home);
    return chosen;
}

void select_balance_xor(struct steering *table, uint8_t usable)
{
    uint8_t order[STEER_MAX_MEMBERS], n = 0;

    for (uint8_t m = 0; m < table->nmembers; m++)
        if (has(usable, m)) order[n++] = m;
    for (unsigned b = 0; b < STEER_BUCKETS; b++) {
        if (has(usable, table->home[b]))
            table->active[b] = table->home[b];
        else if (n == 0)
            table->active[b] = STEER_NO_MEMBER;
        else if (!has(usable, table->active[b]))
            table->active[b] = order[(b / table->nmembers) % n];
    }
}
