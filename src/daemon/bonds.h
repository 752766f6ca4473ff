/* Managed bonds as users ask for them: every refusal with its reason, then the registry does it. A
 * refusal is a negative errno with one line in *error, and leaves everything as it was. */
#ifndef RBOND_DAEMON_BONDS_H
#define RBOND_DAEMON_BONDS_H

#include "daemon/registry.h"

/* `from_conf`: members and net device may come later than the bond (the daemon starts at boot). */
int bonds_add(struct registry *reg, const struct ctl_bond_conf *conf, bool from_conf,
              struct ctl_error *error);
int bonds_del(struct registry *reg, const char *name, struct ctl_error *error);
/* The fields that conf->mask names. */
int bonds_set(struct registry *reg, const struct ctl_bond_conf *conf, struct ctl_error *error);

#endif
