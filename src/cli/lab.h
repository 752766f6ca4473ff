/* The lab: two hosts, 'a' and 'b', in network namespaces, and a third, 'wire', with one bridge for
 * each link between them. lab.c has the commands, lab_state.c what is remembered between them,
 * lab_hold.c the processes that keep the namespaces, lab_net.c what is inside. */
#ifndef RBOND_CLI_LAB_H
#define RBOND_CLI_LAB_H

#include "cli/cli.h"
#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#define LAB_MAX_LINKS 8
#define LAB_NAME_LEN 32

enum lab_host { LAB_A, LAB_B, LAB_WIRE, LAB_HOSTS };

/* The start time tells a process from a later one with its pid. */
struct lab_process {
    pid_t pid;
    uint64_t start;
};

struct lab {
    char name[LAB_NAME_LEN];
    char dir[PATH_MAX / 2];
    uint32_t links, mtu;
    char mode[32];
    bool bond;
    bool bare; /* no rbondd: only `up` asks */
    struct lab_process holder[LAB_HOSTS];
    struct lab_process rbondd[2]; /* of a and b */
};

extern const char *const LAB_HOST_NAMES[LAB_HOSTS];

/* ---- lab_state.c ---- */

enum lab_presence { LAB_NONE, LAB_UP, LAB_STALE };

/* Fills in the directory of the lab called lab->name; false after a complaint. */
bool lab_locate(struct lab *lab);
/* Reads the state file. Stale: it was written before a reboot, or its holders have ended. */
enum lab_presence lab_load(struct lab *lab);
bool lab_save(const struct lab *lab);
void lab_forget(const struct lab *lab);
bool lab_alive(const struct lab_process *process);
struct lab_process lab_process_of(pid_t pid);
void lab_socket(const struct lab *lab, enum lab_host host, char path[108]);
void lab_log(const struct lab *lab, enum lab_host host, char path[PATH_MAX]);

/* ---- lab_hold.c ---- */

/* Starts the process that keeps one host's namespaces; false after a complaint. The first makes the
 * user namespace of all if this user may not make a network namespace otherwise. */
bool lab_hold(struct lab *lab, enum lab_host host);
/* Moves the calling process into a host. Cannot be undone. */
bool lab_enter(const struct lab *lab, enum lab_host host);
/* Ends rbondd, whatever still runs in the namespaces, and the holders, which takes the links along.
 */
void lab_release(const struct lab *lab);

/* ---- lab_net.c ---- */

bool lab_build(const struct lab *lab);
/* Pulls or plugs the cable of a link at `host`, seen by that host alone, or by both; *at_ns is the
 * moment just before (CLOCK_MONOTONIC). Call it in a process that may stay in the wire's namespace.
 */
bool lab_plug(const struct lab *lab, enum lab_host host, uint32_t link, bool both, bool up,
              uint64_t *at_ns);
/* Whether the port of a link has carrier. Call it in the host's namespace. */
bool lab_carrier(enum lab_host host, uint32_t link);

#endif
