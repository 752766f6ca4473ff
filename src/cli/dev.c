/* rbond dev: the verbs devices of this host. */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <inttypes.h>
#include <string.h>

static const struct column COLUMNS[] = {
    {"device", "DEVICE"},   {"netdev", "NETDEV"}, {"state", "STATE"},     {"mtu", "MTU"},
    {"speed_mbps", "MBPS"}, {"gids", "GIDS"},     {"guid", "GUID"},       {"ifindex", NULL},
    {"numa_node", NULL},    {"bond", NULL},       {"members", "MEMBERS"},
};

static const char *port_state(uint8_t state)
{
    return state == CTL_PORT_ACTIVE ? "ACTIVE" : state == CTL_PORT_DOWN ? "DOWN" : "UNKNOWN";
}

static void put_device(struct table *table, const struct ctl_dev *dev)
{
    table_row(table);
    table_field(table, "device", dev->name);
    table_field(table, "netdev", dev->netdev);
    table_text(table, "state", port_state(dev->port_state));
    table_number(table, "mtu", dev->mtu);
    table_number(table, "speed_mbps", dev->speed_mbps);
    table_number(table, "gids", dev->ngids);
    table_textf(table, "guid", "%016" PRIx64, dev->guid);
    table_number(table, "ifindex", dev->ifindex);
    if (dev->numa_node != 0xff) table_number(table, "numa_node", dev->numa_node);
    table_flag(table, "bond", dev->is_bond);
    table_list(table, "members", "");
    for (size_t i = 0; i < dev->nmembers && i < CTL_MAX_MEMBERS; i++)
        table_list(table, "members", dev->member[i]);
}

static int show(struct cli *cli, int argc, char **argv)
{
    struct ctl_reply reply;
    const struct ctl_dev *dev;
    struct table *table;
    size_t shown = 0;

    if (argc > 1) return misused("dev show takes one device: '%s' is too much", argv[1]);
    if (!session_list("cannot list devices", CTL_DEV_LIST, sizeof *dev, &reply)) return CLI_FAILED;
    dev = reply.records;
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (argc && strncmp(argv[0], dev[i].name, sizeof dev[i].name)) continue;
        put_device(table, dev + i);
        shown++;
    }
    ctl_reply_free(&reply);
    if (argc && !shown) {
        table_free(table);
        return failed("there is no device '%s': 'rbond dev' lists what there is", argv[0]);
    }
    return table_print(table);
}

int dev_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"show", "[DEV]", "verbs devices, their net device, state and members", show},
        {"list", "[DEV]", "the same", show},
    };

    return words_run(cli, "dev", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
