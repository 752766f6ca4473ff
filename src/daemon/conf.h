/* The configuration file (JSON): which ports become devices, which bonds are there from the start.
 *   { "log_level": "info", "include": ["eth*"], "exclude": ["docker*"],
 *     "bonds": [ { "name": "bond0", "members": ["eth0", "eth1"], "netdev": "lo",
 *                  "mode": "active-backup", "primary": "eth0", "min_links": 1,
 *                  "updelay": 0, "downdelay": 0 } ] }
 * Delays are milliseconds. */
#ifndef RBOND_DAEMON_CONF_H
#define RBOND_DAEMON_CONF_H

#include "ctl/proto.h"
#include "daemon/log.h"
#include <net/if.h>
#include <stddef.h>

#define CONF_MAX_GLOBS 64
#define CONF_MAX_BONDS 64
#define CONF_GLOB_LEN 64

struct conf {
    size_t ninclude, nexclude, nbonds;
    char include[CONF_MAX_GLOBS][CONF_GLOB_LEN], exclude[CONF_MAX_GLOBS][CONF_GLOB_LEN];
    struct ctl_bond_conf bond[CONF_MAX_BONDS];
    bool has_log_level;
    enum log_level log_level;
};

struct conf_error {
    char text[200];
};

/* Negative errno with a line for the user in *error. -ENOENT: no such file. */
int conf_read(struct conf *conf, const char *path, struct conf_error *error);
/* The same from text; `name` is what messages call it. */
int conf_parse(struct conf *conf, const char *text, const char *name, struct conf_error *error);

bool conf_includes(const struct conf *conf, const char *netdev);
bool conf_excludes(const struct conf *conf, const char *netdev);

/* "active-backup", "balance-xor"; 0 for other words. */
uint32_t conf_bond_mode(const char *word);

#endif
