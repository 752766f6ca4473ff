/* rbond link: the net devices of this host as rbondd sees them. */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <string.h>

static const struct column COLUMNS[] = {
    {"netdev", "NETDEV"}, {"ifindex", "INDEX"}, {"up", "UP"},         {"carrier", "CARRIER"},
    {"mtu", "MTU"},       {"mac", "MAC"},       {"device", "DEVICE"}, {"master", "MASTER"},
};

static void put_link(struct table *table, const struct ctl_link *link)
{
    table_row(table);
    table_field(table, "netdev", link->name);
    table_number(table, "ifindex", link->ifindex);
    table_flag(table, "up", link->up);
    table_flag(table, "carrier", link->carrier);
    table_number(table, "mtu", link->mtu);
    table_textf(table, "mac", "%02x:%02x:%02x:%02x:%02x:%02x", link->mac[0], link->mac[1],
                link->mac[2], link->mac[3], link->mac[4], link->mac[5]);
    table_field(table, "device", link->device);
    table_field(table, "master", link->master);
}

static int show(struct cli *cli, int argc, char **argv)
{
    struct ctl_reply reply;
    const struct ctl_link *link;
    struct table *table;
    size_t shown = 0;

    if (argc > 1) return misused("link show takes one net device: '%s' is too much", argv[1]);
    if (!session_list("cannot list links", CTL_LINK_LIST, sizeof *link, &reply)) return CLI_FAILED;
    link = reply.records;
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (argc && strncmp(argv[0], link[i].name, sizeof link[i].name)) continue;
        put_link(table, link + i);
        shown++;
    }
    ctl_reply_free(&reply);
    if (argc && !shown) {
        table_free(table);
        return failed("there is no net device '%s': 'rbond link' lists what there is", argv[0]);
    }
    return table_print(table);
}

int link_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"show", "[NETDEV]", "net devices: carrier, and the verbs device or bond each belongs to",
         show},
        {"list", "[NETDEV]", "the same", show},
    };

    return words_run(cli, "link", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
