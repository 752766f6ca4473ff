/* rbond bond: managed bonds, which rbondd keeps itself (the kernel's bonding driver takes no part).
 */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdio.h>
#include <string.h>

#define DELAY_MAX_MS 600000

static const char *const MODES[] = {"active-backup", "balance-xor"};
static const enum ctl_bond_mode MODE_OF[] = {CTL_MODE_ACTIVE_BACKUP, CTL_MODE_BALANCE_XOR};
static const char *const KEYS[] = {"mode",    "netdev",    "primary", "min-links",
                                   "updelay", "downdelay", "member"};
enum key {
    KEY_MODE,
    KEY_NETDEV,
    KEY_PRIMARY,
    KEY_MIN_LINKS,
    KEY_UPDELAY,
    KEY_DOWNDELAY,
    KEY_MEMBER,
    KEYS_END
};

static const struct column COLUMNS[] = {
    {"bond", "BOND"},           {"mode", "MODE"},       {"netdev", "NETDEV"},
    {"state", "STATE"},         {"min_links", NULL},    {"updelay_ms", NULL},
    {"downdelay_ms", NULL},     {"primary", "PRIMARY"}, {"generation", NULL},
    {"failovers", "FAILOVERS"}, {"members", "MEMBERS"}, {"carrier", "CARRIER"},
    {"usable", "USABLE"},       {"active", "ACTIVE"},
};

/* "rb_bond0" and "bond0" name the same bond: the first is its device. */
static const char *bond_word(const char *word) { return strncmp(word, "rb_", 3) ? word : word + 3; }

static const char *mode_name(uint32_t mode)
{
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++)
        if (mode == (uint32_t)MODE_OF[i]) return MODES[i];
    return "unknown";
}

static int parse_mode(const char *word, struct ctl_bond_conf *conf)
{
    int at = words_find(word, MODES, sizeof MODES / sizeof *MODES);

    if (at < 0)
        return misused("bond mode '%s' is not supported: active-backup and balance-xor are", word);
    conf->mode = MODE_OF[at];
    conf->mask |= CTL_BOND_MODE;
    return CLI_OK;
}

static int parse_members(int argc, char **argv, struct ctl_bond_conf *conf)
{
    for (int i = 0; i < argc; i++) {
        if (conf->nmembers == CTL_MAX_MEMBERS)
            return misused("a bond has at most %d members: '%s' is too much", CTL_MAX_MEMBERS,
                           argv[i]);
        if (!session_name("member", argv[i], conf->member[conf->nmembers])) return CLI_USAGE;
        for (int j = 0; j < conf->nmembers; j++)
            if (!strcmp(conf->member[j], conf->member[conf->nmembers]))
                return misused("member '%s' is named twice", argv[i]);
        conf->nmembers++;
    }
    return CLI_OK;
}

static int parse_number(const char *key, const char *word, uint32_t max, uint32_t *out,
                        uint32_t bit, struct ctl_bond_conf *conf)
{
    if (!words_number(word, max, out))
        return misused("%s wants a number from 0 to %u, not '%s'", key, max, word);
    conf->mask |= bit;
    return CLI_OK;
}

static int parse_pair(enum key key, const char *word, struct ctl_bond_conf *conf)
{
    switch (key) {
    case KEY_MODE: return parse_mode(word, conf);
    case KEY_NETDEV: return session_name("net device", word, conf->netdev) ? CLI_OK : CLI_USAGE;
    case KEY_PRIMARY:
        conf->mask |= CTL_BOND_PRIMARY;
        return session_name("member", word, conf->primary) ? CLI_OK : CLI_USAGE;
    case KEY_MIN_LINKS:
        return parse_number("min-links", word, CTL_MAX_MEMBERS, &conf->min_links,
                            CTL_BOND_MIN_LINKS, conf);
    case KEY_UPDELAY:
        return parse_number("updelay", word, DELAY_MAX_MS, &conf->updelay_ms, CTL_BOND_UPDELAY,
                            conf);
    case KEY_DOWNDELAY:
        return parse_number("downdelay", word, DELAY_MAX_MS, &conf->downdelay_ms,
                            CTL_BOND_DOWNDELAY, conf);
    default: return misused("'%s' is out of place", word);
    }
}

/* NAME KEY VALUE ... [member IF...]; `member` takes the rest of the line. */
static int parse_bond(int argc, char **argv, struct ctl_bond_conf *conf)
{
    int rc = CLI_OK, key;

    if (!argc)
        return misused("which bond? Give its name first, as in 'bond add bond0 mode active-backup "
                       "member eth0 eth1'");
    if (!session_name("bond", bond_word(argv[0]), conf->name)) return CLI_USAGE;
    for (int i = 1; i < argc && rc == CLI_OK; i += 2) {
        key = words_find(argv[i], KEYS, KEYS_END);
        if (key < 0)
            return misused("'%s' is %s: 'rbond bond help' lists the words", argv[i],
                           key == WORD_AMBIGUOUS ? "ambiguous" : "unknown to 'rbond bond'");
        if (i + 1 == argc) return misused("'%s' wants a value after it", KEYS[key]);
        if (key == KEY_MEMBER) return parse_members(argc - i - 1, argv + i + 1, conf);
        rc = parse_pair((enum key)key, argv[i + 1], conf);
    }
    return rc;
}

static int change(const char *verb, enum ctl_type type, const void *body, size_t len,
                  const char *name)
{
    struct ctl_client *client = session_open();
    struct ctl_reply reply;
    char what[64];
    bool ok;

    if (!client) return CLI_FAILED;
    snprintf(what, sizeof what, "cannot %s bond '%s'", verb, name);
    ok = session_call(client, what, type, body, len, 0, &reply);
    if (ok) ctl_reply_free(&reply);
    ctl_close(client);
    return ok ? CLI_OK : CLI_FAILED;
}

static int add(struct cli *cli, int argc, char **argv)
{
    struct ctl_bond_conf conf = {.min_links = 1};
    int rc = parse_bond(argc, argv, &conf);

    if (rc != CLI_OK) return rc;
    if (!conf.mode)
        return misused("bond '%s' wants a mode: active-backup or balance-xor", conf.name);
    if (!conf.nmembers)
        return misused("bond '%s' wants members: 'member eth0 eth1' at the end", conf.name);
    return change("add", CTL_BOND_ADD, &conf, sizeof conf, conf.name);
}

static int set(struct cli *cli, int argc, char **argv)
{
    struct ctl_bond_conf conf = {0};
    int rc = parse_bond(argc, argv, &conf);

    if (rc != CLI_OK) return rc;
    if (conf.nmembers || *conf.netdev)
        return misused(
            "members and netdev are given at 'bond add' and stay: 'bond del' and add it anew");
    if (!conf.mask)
        return misused("nothing to set for bond '%s': 'rbond bond help' lists the words",
                       conf.name);
    return change("set", CTL_BOND_SET, &conf, sizeof conf, conf.name);
}

static int del(struct cli *cli, int argc, char **argv)
{
    struct ctl_name name;

    if (argc != 1) return misused("bond del takes the name of one bond");
    if (!session_name("bond", bond_word(argv[0]), name.name)) return CLI_USAGE;
    return change("delete", CTL_BOND_DEL, &name, sizeof name, name.name);
}

static void put_members(struct table *table, const struct ctl_bond *bond)
{
    static const char *const KEYS_OF_FLAGS[] = {"carrier", "usable", "active"};

    table_list(table, "members", "");
    for (size_t k = 0; k < 3; k++) table_list(table, KEYS_OF_FLAGS[k], "");
    for (size_t i = 0; i < bond->conf.nmembers && i < CTL_MAX_MEMBERS; i++) {
        const struct ctl_bond_member *member = &bond->member[i];
        const uint8_t flags[] = {member->carrier, member->usable, member->active};

        table_list(table, "members", member->name);
        for (size_t k = 0; k < 3; k++)
            if (flags[k]) table_list(table, KEYS_OF_FLAGS[k], member->name);
    }
}

static void put_bond(struct table *table, const struct ctl_bond *bond)
{
    table_row(table);
    table_field(table, "bond", bond->conf.name);
    table_text(table, "mode", mode_name(bond->conf.mode));
    table_text(table, "netdev", *bond->conf.netdev ? bond->conf.netdev : "lo");
    table_text(table, "state", bond->port_state == CTL_PORT_ACTIVE ? "ACTIVE" : "DOWN");
    table_number(table, "min_links", bond->conf.min_links);
    table_number(table, "updelay_ms", bond->conf.updelay_ms);
    table_number(table, "downdelay_ms", bond->conf.downdelay_ms);
    table_field(table, "primary", bond->conf.primary);
    table_number(table, "generation", bond->generation);
    table_number(table, "failovers", bond->failovers);
    put_members(table, bond);
}

static int show(struct cli *cli, int argc, char **argv)
{
    struct ctl_reply reply;
    const struct ctl_bond *bond;
    struct table *table;
    size_t shown = 0;

    if (argc > 1) return misused("bond show takes one bond: '%s' is too much", argv[1]);
    if (!session_list("cannot list bonds", CTL_BOND_LIST, sizeof *bond, &reply)) return CLI_FAILED;
    bond = reply.records;
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (argc && strncmp(bond_word(argv[0]), bond[i].conf.name, sizeof bond[i].conf.name))
            continue;
        put_bond(table, bond + i);
        shown++;
    }
    ctl_reply_free(&reply);
    if (argc && !shown) {
        table_free(table);
        return failed("there is no bond '%s': 'rbond bond' lists what there is", argv[0]);
    }
    return table_print(table);
}

int bond_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"show", "[BOND]", "bonds, their members, and which of them are usable and active", show},
        {"add",
         "NAME mode active-backup|balance-xor [netdev DEV] [primary PORT]\n"
         "            [min-links N] [updelay MS] [downdelay MS] member PORT...",
         "joins ports into the device rb_NAME; its address sits on DEV (lo if not said)", add},
        {"del", "NAME", "takes the bond apart; its ports get their own devices back", del},
        {"set", "NAME [mode MODE] [primary PORT] [min-links N] [updelay MS] [downdelay MS]",
         "changes a living bond", set},
    };

    return words_run(cli, "bond", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
