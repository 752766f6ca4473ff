/* rbond lab: two hosts on this machine, joined by links whose cables can be pulled. */
#include "cli/lab.h"
#include "cli/environ.h"
#include "cli/install.h"
#include "cli/rbondd.h"
#include "cli/table.h"
#include "cli/words.h"
#include "ctl/client.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BOND "bond0"
#define STEP_US 10000
#define ACTIVE_STEPS 500
#define MTU_LEAST 1280 /* what IPv6 needs */
#define MTU_MOST 65535

static const char *const MODES[] = {"active-backup", "balance-xor"};
static const uint32_t MODE_OF[] = {CTL_MODE_ACTIVE_BACKUP, CTL_MODE_BALANCE_XOR};

/* Takes --name out of the words, wherever it stands before `stop`, and finds the lab's directory.
 */
static int find_lab(struct lab *lab, int *argc, char **argv, int stop)
{
    int kept = 0, rc = CLI_OK;

    memset(lab, 0, sizeof *lab);
    strcpy(lab->name, "lab");
    for (int i = 0; i < *argc; i++) {
        if (i >= stop || strcmp(argv[i], "--name")) {
            argv[kept++] = argv[i];
            continue;
        }
        if (i + 1 == *argc || !argv[i + 1][0] || strlen(argv[i + 1]) >= LAB_NAME_LEN ||
            strpbrk(argv[i + 1], "/. \t\n"))
            rc = misused(
                "--name wants a name of 1 to %d characters after it, without dots and slashes",
                LAB_NAME_LEN - 1);
        i++;
        stop += 2;
        if (rc == CLI_OK) strcpy(lab->name, argv[i]);
    }
    *argc = kept;
    argv[kept] = NULL;
    if (rc != CLI_OK) return rc;
    return lab_locate(lab) ? CLI_OK : CLI_FAILED;
}

static int need_lab(struct lab *lab)
{
    switch (lab_load(lab)) {
    case LAB_UP: return CLI_OK;
    case LAB_STALE:
        return failed(
            "lab '%s' is what remains of one that was not taken down: 'rbond lab down --name %s'",
            lab->name, lab->name);
    default: return failed("there is no lab '%s': 'rbond lab up --name %s'", lab->name, lab->name);
    }
}

/* ---- up ---- */

static int parse_up(struct lab *lab, int argc, char **argv)
{
    lab->links = 2;
    lab->mtu = 9000;
    lab->bond = true;
    strcpy(lab->mode, MODES[0]);
    for (int i = 0; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        int mode;

        if (!strcmp(argv[i], "--no-bond")) {
            lab->bond = false;
            continue;
        }
        if (!strcmp(argv[i], "--no-rbondd")) {
            lab->bare = true;
            continue;
        }
        if (!strcmp(argv[i], "--links")) {
            if (!words_number(value, LAB_MAX_LINKS, &lab->links) || !lab->links)
                return misused("--links wants a number from 1 to %d after it", LAB_MAX_LINKS);
        } else if (!strcmp(argv[i], "--mtu")) {
            if (!words_number(value, MTU_MOST, &lab->mtu) || lab->mtu < MTU_LEAST)
                return misused("--mtu wants a number from %d to %d after it", MTU_LEAST, MTU_MOST);
        } else if (!strcmp(argv[i], "--mode")) {
            mode = words_find(value, MODES, 2);
            if (mode < 0) return misused("--mode wants active-backup or balance-xor after it");
            strcpy(lab->mode, MODES[mode]);
        } else {
            return misused("'%s' is unknown to 'lab up': try 'rbond lab help'", argv[i]);
        }
        i++;
    }
    return CLI_OK;
}

static bool device_active(struct ctl_client *client, const char *name)
{
    struct ctl_reply reply;
    const struct ctl_dev *dev;
    bool active = false;

    if (ctl_call(client, CTL_DEV_LIST, NULL, 0, sizeof *dev, &reply)) {
        ctl_reply_free(&reply);
        return false;
    }
    dev = reply.records;
    for (size_t i = 0; i < reply.count; i++)
        if (!strncmp(dev[i].name, name, sizeof dev[i].name) && dev[i].port_state == CTL_PORT_ACTIVE)
            active = true;
    ctl_reply_free(&reply);
    return active;
}

/* The ports come first: rbondd hears of them from the kernel a moment after it answers. */
static bool wait_active(struct ctl_client *client, const struct lab *lab, enum lab_host host,
                        const char *name)
{
    for (int i = 0; i < ACTIVE_STEPS; i++) {
        if (device_active(client, name)) return true;
        usleep(STEP_US);
    }
    failed("device %s of host '%s' does not become active: see %s/rbondd-%s.log", name,
           LAB_HOST_NAMES[host], lab->dir, LAB_HOST_NAMES[host]);
    return false;
}

static bool add_bond(struct ctl_client *client, const struct lab *lab, enum lab_host host)
{
    struct ctl_bond_conf conf = {.name = BOND, .netdev = "lo", .min_links = 1};
    struct ctl_reply reply;
    bool ok;

    conf.mode = MODE_OF[strcmp(lab->mode, MODES[0]) != 0];
    for (unsigned i = 0; i < lab->links; i++)
        snprintf(conf.member[conf.nmembers++], CTL_NAME_LEN, "v%s%u", LAB_HOST_NAMES[host], i);
    ok = !ctl_call(client, CTL_BOND_ADD, &conf, sizeof conf, 0, &reply);
    if (!ok) failed("cannot add the bond of host '%s': %s", LAB_HOST_NAMES[host], reply.error);
    ctl_reply_free(&reply);
    return ok;
}

static bool add_devices(const struct lab *lab, enum lab_host host, const char *socket)
{
    struct ctl_client *client;
    char device[32];
    bool ok = true;

    if (ctl_connect(&client, socket)) {
        failed("the rbondd of host '%s' does not answer", LAB_HOST_NAMES[host]);
        return false;
    }
    for (unsigned i = 0; ok && i < lab->links; i++) {
        snprintf(device, sizeof device, "rb_v%s%u", LAB_HOST_NAMES[host], i);
        ok = wait_active(client, lab, host, device);
    }
    if (ok && lab->bond)
        ok = add_bond(client, lab, host) && wait_active(client, lab, host, "rb_" BOND);
    ctl_close(client);
    return ok;
}

/* In a process of its own, since entering a host is for good: it writes rbondd's pid to `out`. */
static void start_inside(const struct lab *lab, enum lab_host host, int out)
{
    char socket[108], log[PATH_MAX];
    pid_t pid = -1;

    lab_socket(lab, host, socket);
    lab_log(lab, host, log);
    if (!lab_enter(lab, host))
        failed("cannot enter host '%s': %s", LAB_HOST_NAMES[host], strerror(errno));
    else
        pid = rbondd_start(socket, log);
    _exit(write(out, &pid, sizeof pid) != sizeof pid || pid < 0);
}

static bool start_rbondd(struct lab *lab, enum lab_host host)
{
    char socket[108];
    int pipefd[2];
    pid_t helper, pid = -1;

    if (pipe(pipefd)) return false;
    helper = fork();
    if (!helper) start_inside(lab, host, pipefd[1]);
    close(pipefd[1]);
    if (helper < 0 || read(pipefd[0], &pid, sizeof pid) != sizeof pid) pid = -1;
    close(pipefd[0]);
    if (helper > 0) waitpid(helper, NULL, 0);
    if (pid < 0) return false;
    lab->rbondd[host] = lab_process_of(pid);
    lab_socket(lab, host, socket);
    return lab_save(lab) && add_devices(lab, host, socket);
}

static bool bring_up(struct lab *lab)
{
    for (int host = LAB_A; host < LAB_HOSTS; host++)
        if (!lab_hold(lab, (enum lab_host)host) || !lab_save(lab)) return false;
    if (!lab_build(lab)) return false;
    return lab->bare || (start_rbondd(lab, LAB_A) && start_rbondd(lab, LAB_B));
}

static int up(struct cli *cli, int argc, char **argv)
{
    struct lab lab, old;
    int rc = find_lab(&lab, &argc, argv, argc);

    (void)cli;
    if (rc == CLI_OK) rc = parse_up(&lab, argc, argv);
    if (rc != CLI_OK) return rc;
    old = lab;
    switch (lab_load(&old)) {
    case LAB_UP:
        return failed(
            "lab '%s' is already up: 'rbond lab down --name %s' first, or take another --name",
            lab.name, lab.name);
    case LAB_STALE:
        lab_release(&old);
        lab_forget(&old);
        break;
    default: break;
    }
    if (bring_up(&lab)) return CLI_OK;
    lab_release(&lab);
    /* The daemon's log stays for the message above to point to. */
    return CLI_FAILED;
}

/* ---- exec, cut, mend ---- */

static int parse_host(const char *word, enum lab_host *host)
{
    for (int i = LAB_A; i < LAB_HOSTS; i++) {
        if (strcmp(word, LAB_HOST_NAMES[i])) continue;
        *host = (enum lab_host)i;
        return CLI_OK;
    }
    return misused("the lab has no host '%s': a and b are its hosts, wire what lies between", word);
}

static int exec_in(struct cli *cli, int argc, char **argv)
{
    char socket[108];
    enum lab_host host = LAB_A;
    struct lab lab;
    int rc = find_lab(&lab, &argc, argv, 1);

    (void)cli;
    if (rc != CLI_OK) return rc;
    if (argc > 1 && !strcmp(argv[1], "--")) {
        argv[1] = argv[0];
        argc--;
        argv++;
    }
    if (argc < 2)
        return misused("lab exec wants a host and a command, as in 'rbond lab exec a ibv_devinfo'");
    rc = parse_host(argv[0], &host);
    if (rc == CLI_OK) rc = need_lab(&lab);
    if (rc != CLI_OK) return rc;
    if (host != LAB_WIRE) {
        lab_socket(&lab, host, socket);
        setenv("RBOND_SOCKET", socket, 1);
        if (!install_preload()) return CLI_FAILED;
    }
    if (!lab_enter(&lab, host))
        return failed("cannot enter host '%s': %s", argv[0], strerror(errno));
    if (host != LAB_WIRE) environ_make();
    execvp(argv[1], argv + 1);
    rc = errno == ENOENT ? CLI_NOT_FOUND : CLI_NOT_RUNNABLE;
    failed("cannot start '%s' in host '%s': %s", argv[1], argv[0], strerror(errno));
    return rc;
}

/* In JSON the moment of the cut is told, on the clock of rbond's events and gaps. */
static int put_plugged(const struct cli *cli, const struct lab *lab, enum lab_host host,
                       uint32_t link, uint64_t at_ns)
{
    static const struct column COLUMNS[] = {
        {"lab", NULL}, {"host", NULL}, {"link", NULL}, {"at_ns", NULL}};
    struct table *table;

    if (!cli->json) return CLI_OK;
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    table_row(table);
    table_text(table, "lab", lab->name);
    table_text(table, "host", LAB_HOST_NAMES[host]);
    table_number(table, "link", link);
    table_number(table, "at_ns", at_ns);
    return table_print(table);
}

static int plug(const struct cli *cli, int argc, char **argv, bool up_again)
{
    const char *verb = up_again ? "mend" : "cut";
    bool both = true;
    enum lab_host host = LAB_A;
    uint32_t link;
    uint64_t at_ns;
    struct lab lab;
    int rc = find_lab(&lab, &argc, argv, argc);

    if (rc != CLI_OK) return rc;
    if (argc == 3 && !strcmp(argv[2], "--one-side")) both = false;
    if (argc != 2 + !both)
        return misused("lab %s wants a host and a link, as in 'rbond lab %s a 0 [--one-side]'",
                       verb, verb);
    rc = parse_host(argv[0], &host);
    if (rc == CLI_OK) rc = need_lab(&lab);
    if (rc != CLI_OK) return rc;
    if (host == LAB_WIRE) return misused("a cable ends at host a or b: 'rbond lab %s a 0'", verb);
    if (!words_number(argv[1], LAB_MAX_LINKS, &link) || link >= lab.links)
        return misused("lab '%s' has no link '%s': 0 to %u are there", lab.name, argv[1],
                       lab.links - 1);
    if (!lab_plug(&lab, host, link, both, up_again, &at_ns)) return CLI_FAILED;
    return put_plugged(cli, &lab, host, link, at_ns);
}

static int cut(struct cli *cli, int argc, char **argv) { return plug(cli, argc, argv, false); }

static int mend(struct cli *cli, int argc, char **argv) { return plug(cli, argc, argv, true); }

/* ---- status, down ---- */

static void put_status(struct table *table, const struct lab *lab, enum lab_host host)
{
    for (uint32_t i = 0; i < lab->links; i++) {
        table_row(table);
        table_text(table, "lab", lab->name);
        table_text(table, "host", LAB_HOST_NAMES[host]);
        table_number(table, "link", i);
        table_textf(table, "netdev", "v%s%u", LAB_HOST_NAMES[host], i);
        table_flag(table, "carrier", lab_carrier(host, i));
        table_textf(table, "device", lab->bond ? "rb_" BOND : "rb_v%s%u", LAB_HOST_NAMES[host], i);
        table_text(table, "mode", lab->bond ? lab->mode : "");
        table_number(table, "mtu", lab->mtu);
        table_flag(table, "rbondd", lab_alive(&lab->rbondd[host]));
        table_number(table, "rbondd_pid", (uint64_t)lab->rbondd[host].pid);
    }
}

static int status(struct cli *cli, int argc, char **argv)
{
    static const struct column COLUMNS[] = {
        {"lab", "LAB"},         {"host", "HOST"},     {"link", "LINK"}, {"netdev", "NETDEV"},
        {"carrier", "CARRIER"}, {"device", "DEVICE"}, {"mode", "MODE"}, {"mtu", "MTU"},
        {"rbondd", "RBONDD"},   {"rbondd_pid", NULL},
    };
    struct table *table;
    struct lab lab;
    int rc = find_lab(&lab, &argc, argv, argc);

    if (rc == CLI_OK && argc) rc = misused("'%s' is unknown to 'lab status'", argv[0]);
    if (rc == CLI_OK) rc = need_lab(&lab);
    if (rc != CLI_OK) return rc;
    table = table_new(cli, COLUMNS, sizeof COLUMNS / sizeof *COLUMNS);
    for (int host = LAB_A; host <= LAB_B; host++) {
        if (!lab_enter(&lab, (enum lab_host)host)) {
            table_free(table);
            return failed("cannot enter host '%s': %s", LAB_HOST_NAMES[host], strerror(errno));
        }
        put_status(table, &lab, (enum lab_host)host);
    }
    return table_print(table);
}

static int down(struct cli *cli, int argc, char **argv)
{
    struct lab lab;
    int rc = find_lab(&lab, &argc, argv, argc);

    (void)cli;
    if (rc == CLI_OK && argc) rc = misused("'%s' is unknown to 'lab down'", argv[0]);
    if (rc != CLI_OK) return rc;
    if (lab_load(&lab) == LAB_NONE) return need_lab(&lab);
    lab_release(&lab);
    lab_forget(&lab);
    return CLI_OK;
}

int lab_main(struct cli *cli, int argc, char **argv)
{
    static const struct command COMMANDS[] = {
        {"status", "", "the links of both hosts, and whether rbondd runs in each", status},
        {"up", "[--links N] [--mtu M] [--mode active-backup|balance-xor] [--no-bond | --no-rbondd]",
         "makes hosts a and b, their links and rbondd, and the bond bond0 (device rb_bond0,\n"
         "            addresses 10.99.0.1, 10.99.0.2, fd99::1, fd99::2); --no-bond: ports only "
         "(rb_va0 ...);\n"
         "            --no-rbondd: hosts and links only, to start rbondd by hand in them",
         up},
        {"exec", "HOST [--] CMD [ARG...]", "an unmodified program in a host, with rbond's devices",
         exec_in},
        {"cut", "HOST LINK [--one-side]",
         "pulls the cable of a link: both ends lose carrier; with --one-side only HOST's end "
         "does,\n"
         "            and the other host sends into the void",
         cut},
        {"mend", "HOST LINK [--one-side]", "plugs it again", mend},
        {"down", "",
         "ends what runs in the lab and removes it; every command takes --name LAB besides", down},
    };

    /* --name may stand before the command too. */
    if (argc == 2 && !strcmp(argv[0], "--name")) return status(cli, argc, argv);
    if (argc > 2 && !strcmp(argv[0], "--name")) {
        char *command = argv[2];

        argv[2] = argv[1];
        argv[1] = argv[0];
        argv[0] = command;
    }
    return words_run(cli, "lab", COMMANDS, sizeof COMMANDS / sizeof *COMMANDS, argc, argv);
}
