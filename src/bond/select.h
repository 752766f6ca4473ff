/* Which member each affinity bucket uses: a table from the set of usable members. Pure. */
#ifndef RBOND_BOND_SELECT_H
#define RBOND_BOND_SELECT_H

#include "hca/steering.h"
#include <stdbool.h>

/* Linux bonding's numbers; enum ctl_bond_mode has them too. */
enum bond_mode { BOND_ACTIVE_BACKUP = 1, BOND_BALANCE_XOR = 2 };

/* active-backup: every bucket uses `current` while it is usable, unless the primary is usable; else
 * the first usable member. Returns the chosen one, STEER_NO_MEMBER without any. */
uint8_t select_active_backup(struct steering *table, uint8_t usable, uint8_t primary,
                             uint8_t current);

/* balance-xor: homes are dealt out in turn and stay. A bucket whose home is usable is there; one
 * that is displaced stays where it is while that is usable, else it is dealt to a usable member. So
 * a loss moves only what the lost member carried, and a return only what it had. */
void select_balance_xor(struct steering *table, uint8_t usable);

/* Homes of a fresh table of `nmembers`. */
void select_home(struct steering *table, enum bond_mode mode, uint8_t nmembers, uint8_t primary);

#endif
