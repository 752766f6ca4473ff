/* rbond monitor: what happens on this host, a line as it happens. */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct column COLUMNS[] = {
    {"time", "TIME"},     {"at_ns", NULL}, {"event", "EVENT"}, {"device", "DEVICE"},
    {"member", "MEMBER"}, {"old", "OLD"},  {"value", "VALUE"},
};

static const char *event_name(uint32_t type)
{
    switch ((enum ctl_event_type)type) {
    case CTL_EV_TABLE: return "steering";
    case CTL_EV_PORT_ACTIVE: return "port-active";
    case CTL_EV_PORT_ERR: return "port-error";
    case CTL_EV_GID_CHANGE: return "gid-change";
    case CTL_EV_DEVICE_ADD: return "device-add";
    case CTL_EV_DEVICE_DEL: return "device-delete";
    case CTL_EV_LINK_UP: return "link-up";
    case CTL_EV_LINK_DOWN: return "link-down";
    case CTL_EV_FAILOVER: return "failover";
    case CTL_EV_FUNCTION_ADD: return "function-add";
    case CTL_EV_FUNCTION_DEL: return "function-delete";
    case CTL_EV_XRC_PEER: return "xrc-peer";
    }
    return "unknown";
}

/* Events carry CLOCK_MONOTONIC; people and logs want the wall's clock. */
static void put_time(struct table *table, uint64_t at_ns)
{
    struct timespec wall, mono;
    struct tm parts;
    char text[40];
    int64_t at;
    time_t seconds;

    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_MONOTONIC, &mono);
    at = (int64_t)(wall.tv_sec - mono.tv_sec) * 1000000000 + wall.tv_nsec - mono.tv_nsec +
         (int64_t)at_ns;
    seconds = (time_t)(at / 1000000000);
    localtime_r(&seconds, &parts);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    table_textf(table, "time", "%s.%06d", text, (int)(at % 1000000000 / 1000));
    table_number(table, "at_ns", at_ns);
}

static int watch(struct cli *cli, int argc, char **argv)
{
    struct ctl_client *client;
    struct ctl_event event;
    struct ctl_reply reply;
    struct table *table;
    int rc = 1;

    if (argc) return misused("monitor takes no more words: '%s' is too much", argv[0]);
    client = session_open();
    if (!client) return CLI_FAILED;
    if (!session_call(client, "cannot watch events", CTL_MONITOR, NULL, 0, 0, &reply)) {
        ctl_close(client);
        return CLI_FAILED;
    }
    ctl_reply_free(&reply);
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    while ((rc = ctl_next_event(client, &event, true)) == 1) {
        table_row(table);
        put_time(table, event.at_ns);
        table_text(table, "event", event_name(event.type));
        table_field(table, "device", event.device);
        table_field(table, "member", event.member);
        table_field(table, "old", event.old);
        table_number(table, "value", event.value);
        table_stream(table);
    }
    table_free(table);
    ctl_close(client);
    return rc == -ECONNRESET ? failed("rbondd has gone")
                             : failed("watching events: %s", strerror(-rc));
}

int monitor_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"all", "", "links, failovers, ports, devices and programs, a line each as they change",
         watch},
    };

    return words_run(cli, "monitor", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
