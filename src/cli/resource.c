/* rbond resource: what programs hold in this host's devices. */
#include "cli/session.h"
#include "cli/table.h"
#include "cli/words.h"
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_user_cm.h>
#include <string.h>

#define NO_MEMBER 0xff

static const struct column QP_COLUMNS[] = {
    {"device", "DEVICE"},
    {"qpn", "QPN"},
    {"type", "TYPE"},
    {"state", "STATE"},
    {"pid", "PID"},
    {"comm", "PROGRAM"},
    {"configured", "CONFIGURED"},
    {"active", "ACTIVE"},
    {"dqpn", NULL},
    {"dgid", "PEER"},
    {"function", NULL},
    {"bucket", NULL},
    {"tx_packets", NULL},
    {"tx_bytes", "TX_BYTES"},
    {"rx_packets", NULL},
    {"rx_bytes", "RX_BYTES"},
    {"retransmits", "RETRANS"},
    {"remaps", "REMAPS"},
    {"remapped_at_ns", NULL},
    {"last_gap_ns", NULL},
    {"last_gap_ms", "LAST_GAP_MS"},
};

static const struct column CM_ID_COLUMNS[] = {
    {"device", "DEVICE"}, {"lqpn", "LQPN"},    {"type", "TYPE"},
    {"state", "STATE"},   {"ps", "PS"},        {"pid", "PID"},
    {"comm", "PROGRAM"},  {"src", "SRC-ADDR"}, {"dst", "DST-ADDR"},
};

static const struct column FUNCTION_COLUMNS[] = {
    {"function", "FUNCTION"}, {"device", "DEVICE"}, {"pid", "PID"},
    {"comm", "PROGRAM"},      {"qps", "QPS"},
};

static const char *qp_type(uint8_t type)
{
    switch (type) {
    case IBV_QPT_RC: return "RC";
    case IBV_QPT_UC: return "UC";
    case IBV_QPT_UD: return "UD";
    case IBV_QPT_XRC_SEND: return "XRC_INI"; /* as rdma-resource(8) has them */
    case IBV_QPT_XRC_RECV: return "XRC_TGT";
    default: return "?";
    }
}

static const char *qp_state(uint8_t state)
{
    static const char *const NAMES[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

    return state < sizeof NAMES / sizeof *NAMES ? NAMES[state] : "?";
}

/* "" for no address, and for IPv4's wildcard. */
static void address_text(const uint8_t gid[16], char text[INET6_ADDRSTRLEN])
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t NONE[16];

    text[0] = '\0';
    if (!memcmp(gid, MAPPED, sizeof MAPPED)) {
        if (memcmp(gid + 12, NONE, 4)) inet_ntop(AF_INET, gid + 12, text, INET6_ADDRSTRLEN);
    } else if (memcmp(gid, NONE, sizeof NONE)) {
        inet_ntop(AF_INET6, gid, text, INET6_ADDRSTRLEN);
    }
}

static void put_peer(struct table *table, const uint8_t gid[16])
{
    char text[INET6_ADDRSTRLEN];

    address_text(gid, text);
    table_text(table, "dgid", text);
}

static void put_qp(struct table *table, const struct ctl_qp *qp)
{
    table_row(table);
    table_field(table, "device", qp->device);
    table_textf(table, "qpn", "0x%06x", qp->qpn);
    table_text(table, "type", qp_type(qp->type));
    table_text(table, "state", qp_state(qp->state));
    table_number(table, "pid", qp->pid);
    table_field(table, "comm", qp->comm);
    table_text(table, "configured", "");
    table_text(table, "active", "");
    if (qp->home != NO_MEMBER) table_field(table, "configured", qp->home_name);
    if (qp->active != NO_MEMBER) table_field(table, "active", qp->active_name);
    table_textf(table, "dqpn", "0x%06x", qp->dqpn);
    put_peer(table, qp->dgid);
    table_number(table, "function", qp->function);
    table_number(table, "bucket", qp->bucket);
    table_number(table, "tx_packets", qp->tx_packets);
    table_number(table, "tx_bytes", qp->tx_bytes);
    table_number(table, "rx_packets", qp->rx_packets);
    table_number(table, "rx_bytes", qp->rx_bytes);
    table_number(table, "retransmits", qp->retransmits);
    table_number(table, "remaps", qp->remaps);
    table_number(table, "remapped_at_ns", qp->remapped_at_ns);
    table_number(table, "last_gap_ns", qp->last_gap_ns);
    table_real(table, "last_gap_ms", (double)qp->last_gap_ns / 1e6);
}

static int show_qp(struct cli *cli, const char *device)
{
    struct ctl_reply reply;
    const struct ctl_qp *qp;
    struct table *table;

    if (!session_list("cannot list queue pairs", CTL_QP_LIST, sizeof *qp, &reply))
        return CLI_FAILED;
    qp = reply.records;
    table = table_new(cli, QP_COLUMNS, sizeof QP_COLUMNS / sizeof *QP_COLUMNS);
    for (size_t i = 0; i < reply.count; i++)
        if (!device || !strncmp(device, qp[i].device, sizeof qp[i].device)) put_qp(table, qp + i);
    ctl_reply_free(&reply);
    return table_print(table);
}

static int show_function(struct cli *cli, const char *device)
{
    struct ctl_reply reply;
    const struct ctl_function *function;
    struct table *table;

    if (!session_list("cannot list functions", CTL_FUNCTION_LIST, sizeof *function, &reply))
        return CLI_FAILED;
    function = reply.records;
    table = table_new(cli, FUNCTION_COLUMNS, sizeof FUNCTION_COLUMNS / sizeof *FUNCTION_COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (device && strncmp(device, function[i].device, sizeof function[i].device)) continue;
        table_row(table);
        table_number(table, "function", function[i].function);
        table_field(table, "device", function[i].device);
        table_number(table, "pid", function[i].pid);
        table_field(table, "comm", function[i].comm);
        table_number(table, "qps", function[i].qps);
    }
    ctl_reply_free(&reply);
    return table_print(table);
}

static const char *port_space(uint16_t ps)
{
    switch (ps) {
    case RDMA_PS_TCP: return "TCP";
    case RDMA_PS_UDP: return "UDP";
    case RDMA_PS_IB: return "IB";
    case RDMA_PS_IPOIB: return "IPoIB";
    default: return "?";
    }
}

static const char *cm_state(uint8_t state)
{
    static const char *const NAMES[] = {
        [CTL_CM_IDLE] = "IDLE",
        [CTL_CM_ADDR_QUERY] = "ADDR_QUERY",
        [CTL_CM_ADDR_RESOLVED] = "ADDR_RESOLVED",
        [CTL_CM_ROUTE_RESOLVED] = "ROUTE_RESOLVED",
        [CTL_CM_ADDR_BOUND] = "ADDR_BOUND",
        [CTL_CM_LISTEN] = "LISTEN",
        [CTL_CM_CONNECT] = "CONNECT",
        [CTL_CM_DISCONNECT] = "DISCONNECT",
    };

    return state < sizeof NAMES / sizeof *NAMES ? NAMES[state] : "?";
}

/* 10.0.0.1:7471, [fd00::1]:7471, *:7471; nothing where neither is known. */
static void put_endpoint(struct table *table, const char *key, const uint8_t gid[16], uint16_t port)
{
    char text[INET6_ADDRSTRLEN];

    address_text(gid, text);
    if (strchr(text, ':'))
        table_textf(table, key, "[%s]:%u", text, port);
    else if (text[0] || port)
        table_textf(table, key, "%s:%u", text[0] ? text : "*", port);
    else
        table_text(table, key, "");
}

static int show_cm_id(struct cli *cli, const char *device)
{
    struct ctl_reply reply;
    const struct ctl_cm_id *id;
    struct table *table;

    if (!session_list("cannot list ids", CTL_CM_ID_LIST, sizeof *id, &reply)) return CLI_FAILED;
    id = reply.records;
    table = table_new(cli, CM_ID_COLUMNS, sizeof CM_ID_COLUMNS / sizeof *CM_ID_COLUMNS);
    for (size_t i = 0; i < reply.count; i++) {
        if (device && strncmp(device, id[i].device, sizeof id[i].device)) continue;
        table_row(table);
        table_field(table, "device", id[i].device);
        if (id[i].lqpn)
            table_textf(table, "lqpn", "0x%06x", id[i].lqpn);
        else
            table_text(table, "lqpn", "");
        table_text(table, "type", qp_type(id[i].qp_type));
        table_text(table, "state", cm_state(id[i].state));
        table_text(table, "ps", port_space(id[i].ps));
        table_number(table, "pid", id[i].pid);
        table_field(table, "comm", id[i].comm);
        put_endpoint(table, "src", id[i].src, id[i].src_port);
        put_endpoint(table, "dst", id[i].dst, id[i].dst_port);
    }
    ctl_reply_free(&reply);
    return table_print(table);
}

static int show(struct cli *cli, int argc, char **argv)
{
    static const char *const KINDS[] = {"qp", "cm_id", "function"};
    static int (*const shows[])(struct cli *, const char *) = {show_qp, show_cm_id, show_function};
    int kind = argc ? words_find(argv[0], KINDS, 3) : 0;

    if (kind < 0)
        return misused("'%s' is no kind of resource: qp, cm_id and function are", argv[0]);
    if (argc > 2)
        return misused("resource show takes a kind and a device: '%s' is too much", argv[2]);
    return shows[kind](cli, argc > 1 ? argv[1] : NULL);
}

int resource_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"show", "qp|cm_id|function [DEV]",
         "queue pairs with their configured and active member, ids of the connection manager, or "
         "the "
         "functions that programs hold",
         show},
    };

    return words_run(cli, "resource", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
